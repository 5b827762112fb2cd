//! The prefix cache: blocks of prompts that were prefilled, for other prompts that begin with the same ids.
//!
//! A tree. The path to a node spells the ids from the beginning of a prompt, one block for each node; a leaf may also be a whole
//! prompt, with the logits after it. Nodes that a running job continues are held, the others are dropped by least recent use when
//! memory is needed. Each scope has its own tree, so that one client does not learn what another one sent.
//!
//! Ids are compared, not hashes of them. Source: Zheng et al. 2024, "SGLang: Efficient Execution of Structured Language Model
//! Programs" (RadixAttention), <https://arxiv.org/abs/2312.07104>; here with blocks of a fixed size, as in vLLM.

use std::collections::{BTreeSet, HashMap};

use andiron_models::generate::{GenerateOptions, Prefill, StateBlocks};

/// A place in the tree: the beginning of a scope, or a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// Before the first id.
    Start {
        /// The scope.
        scope: u64,
    },
    /// After a block.
    Block(NodeId),
}

/// Index of a node.
pub(super) type NodeId = usize;

/// The longest cached beginning of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// Its blocks, in order.
    pub(super) blocks: Vec<NodeId>,
    /// Where it ends.
    pub(super) end: Place,
}

/// Cached blocks and prompts.
#[derive(Debug)]
pub(super) struct PrefixCache<S> {
    blocks: StateBlocks,
    nodes: HashMap<NodeId, Node<S>>,
    next_id: NodeId,
    children: HashMap<(Place, Box<[u32]>), NodeId>,
    /// Nodes without children that nobody holds, by least recent use.
    idle: BTreeSet<(u64, NodeId)>,
    clock: u64,
    bytes: usize,
    held_bytes: usize,
}

#[derive(Debug)]
struct Node<S> {
    parent: Place,
    ids: Box<[u32]>,
    content: Content<S>,
    children: usize,
    /// Running jobs that continue this node or one behind it.
    holders: usize,
    used: u64,
    bytes: usize,
}

#[derive(Debug)]
enum Content<S> {
    Block(S),
    Prompt(KeptPrompt<S>),
}

/// A whole prompt, prefilled.
#[derive(Debug)]
pub(super) struct KeptPrompt<S> {
    pub(super) prefill: Prefill<S>,
    /// How many of its full blocks are those of the nodes above it. The others are copies of them, because another job read the
    /// same at the same time, and are its own.
    pub(super) shared: usize,
}

impl<S> PrefixCache<S> {
    pub(super) fn new(blocks: StateBlocks) -> Self {
        Self {
            blocks,
            nodes: HashMap::new(),
            next_id: 0,
            children: HashMap::new(),
            idle: BTreeSet::new(),
            clock: 0,
            bytes: 0,
            held_bytes: 0,
        }
    }

    /// Bytes of all nodes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the nodes that running jobs continue.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The longest cached beginning of `ids`; at least one id is left to read.
    pub(super) fn find(&self, scope: u64, ids: &[u32]) -> Match {
        let mut found = Match { blocks: Vec::new(), end: Place::Start { scope } };
        let most = ids.len().saturating_sub(1) / self.blocks.len;
        for ids in ids.chunks_exact(self.blocks.len).take(most) {
            let Some(&node) = self.children.get(&(found.end, ids.into())) else { break };
            found.blocks.push(node);
            found.end = Place::Block(node);
        }
        found
    }

    /// The whole prompt `ids`, prefilled, for `options`.
    pub(super) fn find_prompt(
        &mut self,
        scope: u64,
        ids: &[u32],
        options: &GenerateOptions,
    ) -> Option<&KeptPrompt<S>> {
        let (place, rest) = self.place_before_prompt(scope, ids)?;
        let &node = self.children.get(&(place, rest.into()))?;
        self.touch(node);
        match &self.nodes[&node].content {
            Content::Prompt(kept) if kept.prefill.suits(options) => Some(kept),
            _ => None,
        }
    }

    /// How many of these nodes running jobs continue.
    pub(super) fn count_held(&self, nodes: &[NodeId]) -> usize {
        nodes.iter().filter(|node| self.nodes[node].holders > 0).count()
    }

    /// The state of a block.
    pub(super) fn block(&self, node: NodeId) -> &S {
        match &self.nodes[&node].content {
            Content::Block(state) => state,
            Content::Prompt(_) => unreachable!("matches are made of blocks"),
        }
    }

    /// The block `ids` behind `place`, if it is there already.
    pub(super) fn next(&self, place: Place, ids: &[u32]) -> Option<NodeId> {
        self.children.get(&(place, ids.into())).copied()
    }

    /// Adds the block `ids` behind `place`, where there is none.
    pub(super) fn insert(&mut self, place: Place, ids: &[u32], state: S) -> NodeId {
        self.add(place, ids.into(), Content::Block(state), self.blocks.bytes)
    }

    /// Adds a whole prompt of `bytes`, if all its full blocks are there. It takes the place of one that was scored in another way.
    pub(super) fn insert_prompt(&mut self, scope: u64, kept: KeptPrompt<S>, bytes: usize) {
        let Some((place, rest)) = self.place_before_prompt(scope, kept.prefill.prompt()) else { return };
        let rest: Box<[u32]> = rest.into();
        if let Some(&before) = self.children.get(&(place, rest.clone())) {
            self.remove(before);
        }
        self.add(place, rest, Content::Prompt(kept), bytes);
    }

    /// Where the last, partial block of a prompt begins, with its ids.
    fn place_before_prompt<'a>(&self, scope: u64, ids: &'a [u32]) -> Option<(Place, &'a [u32])> {
        let mut place = Place::Start { scope };
        let blocks = ids.chunks_exact(self.blocks.len);
        let rest = blocks.remainder();
        for ids in blocks {
            place = Place::Block(*self.children.get(&(place, ids.into()))?);
        }
        Some((place, rest))
    }

    /// Holds all nodes up to `place` for a running job.
    pub(super) fn hold(&mut self, place: Place) {
        self.clock += 1;
        let mut at = place;
        while let Place::Block(id) = at {
            let node = self.nodes.get_mut(&id).expect("places exist while they are used");
            self.idle.remove(&(node.used, id));
            node.used = self.clock;
            node.holders += 1;
            if node.holders == 1 {
                self.held_bytes += node.bytes;
            }
            at = node.parent;
        }
    }

    /// Undoes [`hold`](Self::hold).
    pub(super) fn let_go(&mut self, place: Place) {
        let mut at = place;
        while let Place::Block(id) = at {
            let node = self.nodes.get_mut(&id).expect("nodes are there while they are held");
            node.holders -= 1;
            if node.holders == 0 {
                self.held_bytes -= node.bytes;
                if node.children == 0 {
                    self.idle.insert((node.used, id));
                }
            }
            at = node.parent;
        }
    }

    /// Drops the idle node that was used least recently; false if there is none.
    pub(super) fn evict(&mut self) -> bool {
        let Some(&(_, id)) = self.idle.first() else { return false };
        self.remove(id);
        true
    }

    fn touch(&mut self, id: NodeId) {
        self.clock += 1;
        let node = self.nodes.get_mut(&id).expect("a child is a node");
        if self.idle.remove(&(node.used, id)) {
            self.idle.insert((self.clock, id));
        }
        node.used = self.clock;
    }

    fn add(&mut self, parent: Place, ids: Box<[u32]>, content: Content<S>, bytes: usize) -> NodeId {
        let id = self.next_id;
        self.next_id += 1;
        self.clock += 1;
        if let Place::Block(above) = parent {
            let above_node = self.nodes.get_mut(&above).expect("places exist while they are used");
            self.idle.remove(&(above_node.used, above));
            above_node.children += 1;
        }
        self.children.insert((parent, ids.clone()), id);
        let node = Node { parent, ids, content, children: 0, holders: 0, used: self.clock, bytes };
        self.nodes.insert(id, node);
        self.idle.insert((self.clock, id));
        self.bytes += bytes;
        id
    }

    /// Drops a node without children that nobody holds.
    fn remove(&mut self, id: NodeId) {
        let Some(node) = self.nodes.remove(&id) else { return };
        self.idle.remove(&(node.used, id));
        self.bytes -= node.bytes;
        if let Place::Block(above) = node.parent {
            let above_node = self.nodes.get_mut(&above).expect("a parent stays as long as its children");
            above_node.children -= 1;
            if above_node.children == 0 && above_node.holders == 0 {
                self.idle.insert((above_node.used, above));
            }
        }
        self.children.remove(&(node.parent, node.ids));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: StateBlocks = StateBlocks { len: 2, bytes: 10, source_bytes: 0 };

    /// Adds the full blocks of `ids` that are missing.
    fn read(cache: &mut PrefixCache<Vec<u32>>, scope: u64, ids: &[u32]) -> Place {
        let mut place = Place::Start { scope };
        for ids in ids.chunks_exact(2) {
            let next = cache.next(place, ids).unwrap_or_else(|| cache.insert(place, ids, ids.to_vec()));
            place = Place::Block(next);
        }
        place
    }

    #[track_caller]
    fn check_known(cache: &PrefixCache<Vec<u32>>, scope: u64, ids: &[u32], wanted: usize) {
        let found = cache.find(scope, ids);
        let spelled: Vec<u32> = found.blocks.iter().flat_map(|&node| cache.block(node).clone()).collect();
        assert_eq!(spelled, ids[..wanted]);
    }

    #[test]
    fn a_beginning_is_found_by_whole_blocks_and_one_id_is_left() {
        let mut cache = PrefixCache::new(BLOCKS);
        read(&mut cache, 0, &[1, 2, 3, 4, 5]);
        check_known(&cache, 0, &[1, 2, 3, 4, 5], 4);
        check_known(&cache, 0, &[1, 2, 3, 4], 2);
        check_known(&cache, 0, &[1, 2, 3, 9, 5], 2);
        check_known(&cache, 0, &[2, 2, 3, 4, 5], 0);
        check_known(&cache, 0, &[3, 4, 5], 0);
        check_known(&cache, 0, &[], 0);
    }

    #[test]
    fn a_scope_does_not_see_what_another_one_read() {
        let mut cache = PrefixCache::new(BLOCKS);
        read(&mut cache, 1, &[1, 2, 3, 4]);
        check_known(&cache, 2, &[1, 2, 3, 4, 5], 0);
        check_known(&cache, 1, &[1, 2, 3, 4, 5], 4);
    }

    #[test]
    fn the_least_recently_used_end_goes_first_and_what_is_held_stays() {
        let mut cache = PrefixCache::new(BLOCKS);
        let held = read(&mut cache, 0, &[1, 2, 3, 4]);
        cache.hold(held);
        let old = read(&mut cache, 0, &[1, 2, 5, 6, 7, 8]);
        let new = read(&mut cache, 0, &[9, 9]);
        assert_eq!((cache.bytes(), cache.held_bytes()), (50, 20));
        cache.hold(old);
        cache.let_go(old);
        assert!(cache.evict());
        check_known(&cache, 0, &[9, 9, 9], 0);
        assert!(matches!(new, Place::Block(_)));
        assert!(cache.evict());
        check_known(&cache, 0, &[1, 2, 5, 6, 7, 8, 0], 4);
        assert!(cache.evict());
        assert!(!cache.evict());
        check_known(&cache, 0, &[1, 2, 3, 4, 0], 4);
        assert_eq!((cache.bytes(), cache.held_bytes()), (20, 20));
        cache.let_go(held);
        assert_eq!((cache.bytes(), cache.held_bytes()), (20, 0));
        assert!(cache.evict() && cache.evict() && !cache.evict());
        assert_eq!(cache.bytes(), 0);
        assert!(cache.nodes.is_empty() && cache.children.is_empty());
    }
}
