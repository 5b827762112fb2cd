//! Memory of the KV cache: the blocks of running jobs and the prefix cache, within one budget.

use andiron_models::generate::{CausalLm, Decoding, GenerateOptions, StateBlocks};

use super::prefix_cache::{KeptPrompt, Place, PrefixCache};

/// The KV cache of an engine.
#[derive(Debug)]
pub(super) struct KvMemory<S> {
    blocks: StateBlocks,
    total: usize,
    /// Blocks of running jobs that are not in the prefix cache.
    own: usize,
    /// Bytes of the sources of running jobs.
    sources: usize,
    cache: PrefixCache<S>,
    /// Whether prompts are kept for others.
    keeps: bool,
}

/// What a running job has of it.
#[derive(Debug)]
pub(super) struct Held {
    scope: u64,
    /// Blocks that are not in the prefix cache.
    own: usize,
    /// Blocks in the prefix cache that the job shares, from the first one on.
    shared: usize,
    /// Up to where the prefix cache has what the job read.
    place: Place,
    /// Blocks up to there.
    depth: usize,
    /// Length of the source.
    source_len: usize,
    /// Bytes of the source, if it is there.
    source: usize,
}

impl Held {
    /// Nothing, of the cache scope `scope` and a source of `source_len` ids, if there is one.
    pub(super) fn new(scope: u64, source_len: usize) -> Self {
        Self { scope, own: 0, shared: 0, place: Place::Start { scope }, depth: 0, source_len, source: 0 }
    }

    /// Length of the source.
    pub(super) fn source_len(&self) -> usize {
        self.source_len
    }

    pub(super) fn scope(&self) -> u64 {
        self.scope
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.own + self.shared
    }
}

impl<S> KvMemory<S> {
    /// A budget of `total` bytes. Without `blocks`, nothing is known of the memory of states: there is no bound, and no prefix cache.
    pub(super) fn new(blocks: Option<StateBlocks>, total: usize, keeps: bool) -> Self {
        let known = blocks.unwrap_or(StateBlocks { len: usize::MAX, bytes: 0, source_bytes: 0 });
        Self {
            blocks: known,
            total,
            own: 0,
            sources: 0,
            cache: PrefixCache::new(known),
            keeps: keeps && blocks.is_some(),
        }
    }

    /// The budget, in bytes.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Changes the budget to `total` bytes, and drops idle parts of the prefix cache that exceed it.
    pub(super) fn set_total(&mut self, total: usize) {
        self.total = total;
        while self.held_bytes() > total && self.cache.evict() {}
    }

    /// Whether running jobs hold more than the budget.
    pub(super) fn is_exceeded(&self) -> bool {
        self.used_bytes() > self.total
    }

    /// Bytes of all that is in memory.
    fn held_bytes(&self) -> usize {
        self.own * self.blocks.bytes + self.sources + self.cache.bytes()
    }

    /// Whether prompts are kept for others.
    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    /// Positions per block.
    pub(super) fn block_len(&self) -> usize {
        self.blocks.len
    }

    /// Bytes that running jobs hold.
    pub(super) fn used_bytes(&self) -> usize {
        self.own * self.blocks.bytes + self.sources + self.cache.held_bytes()
    }

    /// Bytes that are kept for later prompts, and are free for the asking.
    pub(super) fn idle_bytes(&self) -> usize {
        self.cache.bytes() - self.cache.held_bytes()
    }

    /// Blocks that no running job holds.
    pub(super) fn free_blocks(&self) -> usize {
        self.total.saturating_sub(self.used_bytes()).checked_div(self.blocks.bytes).unwrap_or(usize::MAX / 2)
    }

    /// Blocks that a job which is to read `ids` takes, and one more id, besides those that running jobs hold anyway. A source counts
    /// as blocks.
    pub(super) fn needs(&self, scope: u64, ids: &[u32], source_len: usize) -> usize {
        let source = (source_len * self.blocks.source_bytes).div_ceil(self.blocks.bytes.max(1));
        let blocks = self.blocks.count(ids.len() + 1) + source;
        match self.keeps {
            true => blocks - self.cache.count_held(&self.cache.find(scope, ids).blocks),
            false => blocks,
        }
    }

    /// Blocks that a running job was admitted with and has not taken yet.
    pub(super) fn promised(&self, held: &Held, decoding: &Decoding<S>) -> usize {
        self.blocks.count(decoding.window().len() + 1).saturating_sub(held.blocks())
    }

    /// Takes the blocks of the first `positions` for a job. False, without any effect, if the budget has no room.
    pub(super) fn grow(&mut self, held: &mut Held, positions: usize) -> bool {
        let more = self.blocks.count(positions).saturating_sub(held.blocks());
        if !self.make_room(more * self.blocks.bytes + self.missing_source(held)) {
            return false;
        }
        self.take(held, more);
        true
    }

    /// Bytes of a source that is not there.
    fn missing_source(&self, held: &Held) -> usize {
        (held.source_len * self.blocks.source_bytes).saturating_sub(held.source)
    }

    /// As [`grow`](Self::grow), whether there is room or not.
    pub(super) fn grow_beyond(&mut self, held: &mut Held, positions: usize) {
        let more = self.blocks.count(positions).saturating_sub(held.blocks());
        self.take(held, more);
    }

    fn take(&mut self, held: &mut Held, blocks: usize) {
        let source = self.missing_source(held);
        held.own += blocks;
        held.source += source;
        self.own += blocks;
        self.sources += source;
    }

    /// Drops idle parts of the prefix cache until `bytes` are free.
    fn make_room(&mut self, bytes: usize) -> bool {
        let most = self.total.saturating_sub(bytes);
        while self.held_bytes() > most {
            if bytes == 0 || !self.cache.evict() {
                return bytes == 0;
            }
        }
        bytes <= self.total
    }

    /// Frees all that a job holds. Prompts that are kept stay, idle.
    pub(super) fn release(&mut self, held: &mut Held) {
        self.own -= held.own;
        self.sources -= held.source;
        self.cache.let_go(held.place);
        *held = Held::new(held.scope, held.source_len);
    }

    /// Positions of the window of `decoding`, which has not begun, that the prefix cache has.
    pub(super) fn known(&mut self, held: &Held, decoding: &Decoding<S>, options: &GenerateOptions) -> usize {
        if !self.keeps {
            return 0;
        }
        let ids = decoding.window();
        if is_untouched(decoding) && self.cache.find_prompt(held.scope, ids, options).is_some() {
            return ids.len();
        }
        if options.score_prompt && decoding.generated().is_empty() {
            return 0;
        }
        self.cache.find(held.scope, ids).blocks.len() * self.blocks.len
    }

    /// Begins `decoding` with what the prefix cache has of its window: the whole prompt with the logits after it, or blocks of its
    /// beginning. Returns the number of positions.
    pub(super) fn adopt<M: CausalLm<State = S>>(
        &mut self,
        model: &M,
        held: &mut Held,
        decoding: &mut Decoding<S>,
        options: &GenerateOptions,
    ) -> usize {
        if self.known(held, decoding, options) == 0 {
            return 0;
        }
        let whole = match is_untouched(decoding) {
            true => self.cache.find_prompt(held.scope, decoding.prompt(), options),
            false => None,
        };
        if let Some(KeptPrompt { prefill, shared }) = whole
            && decoding.adopt_prefill(model, prefill)
        {
            let shared = *shared;
            let ids = decoding.window();
            let full = ids.len() / self.blocks.len;
            let mut place = Place::Start { scope: held.scope };
            for ids in ids.chunks_exact(self.blocks.len) {
                let node = self.cache.next(place, ids).expect("the blocks of a kept prompt are kept");
                place = Place::Block(node);
            }
            self.share(held, place, full);
            // Its own blocks outlive it in this job, so the job has to have room for them.
            held.shared = shared;
            return ids.len();
        }
        let found = self.cache.find(held.scope, decoding.window());
        let mut state = model.begin();
        for &node in &found.blocks {
            model.append_block(&mut state, self.cache.block(node));
        }
        let positions = found.blocks.len() * self.blocks.len;
        if positions > 0 {
            decoding.adopt(state, positions);
        }
        self.share(held, found.end, found.blocks.len());
        positions
    }

    fn share(&mut self, held: &mut Held, place: Place, blocks: usize) {
        self.cache.hold(place);
        (held.place, held.depth, held.shared) = (place, blocks, blocks);
    }

    /// Keeps what `decoding` has prefilled since the last call: the full blocks, and the whole prompt when it is complete.
    pub(super) fn keep<M: CausalLm<State = S>>(
        &mut self,
        model: &M,
        held: &mut Held,
        decoding: &mut Decoding<S>,
    ) {
        if !self.keeps {
            return;
        }
        let len = self.blocks.len;
        let full = decoding.held().min(decoding.prefill_len()) / len;
        let before = held.place;
        while held.depth < full {
            let ids = &decoding.window()[held.depth * len..][..len];
            // If another job read the same at the same time, each goes on with its own.
            let node = self.cache.next(held.place, ids).unwrap_or_else(|| {
                let node = self.cache.insert(held.place, ids, model.block(decoding.state(), held.depth));
                (held.own, held.shared) = (held.own - 1, held.shared + 1);
                self.own -= 1;
                node
            });
            (held.place, held.depth) = (Place::Block(node), held.depth + 1);
        }
        if held.place != before {
            self.cache.hold(held.place);
            self.cache.let_go(before);
        }
        let Some(prefill) = decoding.take_prefill() else { return };
        // Of its blocks, those that are not the cache's are its own: the last, partial one, and those that another job also read.
        let shared = held.shared;
        let own = self.blocks.count(prefill.prompt().len()) - shared;
        let bytes = prefill.n_bytes() + own * self.blocks.bytes;
        if self.make_room(bytes) {
            self.cache.insert_prompt(held.scope, KeptPrompt { prefill, shared }, bytes);
        }
    }
}

/// Whether nothing but a prompt is in the window.
fn is_untouched<S>(decoding: &Decoding<S>) -> bool {
    decoding.window_start() == 0 && decoding.generated().is_empty()
}
