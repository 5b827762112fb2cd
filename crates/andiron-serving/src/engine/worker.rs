//! The engine's thread.

use std::cmp::Reverse;
use std::time::Instant;

use andiron_models::generate::{CausalLm, Decoding, GenerateError, Progress, StateBlocks};

use super::generation::{Event, GenerationError};
use super::kv_memory::KvMemory;
use super::pace::{FEWEST, Pace, ROUND};
use super::queue::{Now, Shared, Work};
use super::running::{Running, Stage, Turn, guarded};
use super::{EngineConfig, Job, KvBudget};

/// Serves until stopped.
pub(super) fn run<M: CausalLm>(
    model: &M,
    shared: &Shared,
    config: &EngineConfig,
    blocks: Option<StateBlocks>,
) {
    let mut worker = Worker {
        model,
        shared,
        max_running: config.max_running.get(),
        prompt_lookup: config.prompt_lookup,
        budget: &config.kv_cache,
        memory: KvMemory::new(blocks, config.kv_cache.share(), config.prefix_cache),
        pace: Pace::default(),
        running: Vec::new(),
        preempted: Vec::new(),
        admitted: 0,
        next_reader: 0,
    };
    while worker.admit() {
        worker.begin();
        worker.reserve();
        worker.round();
    }
    let waiting = shared.close();
    let jobs = worker.running.into_iter().chain(worker.preempted).map(|job| job.feed);
    for feed in jobs.chain(waiting.into_iter().map(|ticket| ticket.feed)) {
        feed.tell(Event::Failed(GenerationError::Stopped));
    }
}

struct Worker<'a, M: CausalLm> {
    model: &'a M,
    shared: &'a Shared,
    max_running: usize,
    prompt_lookup: usize,
    budget: &'a KvBudget,
    memory: KvMemory<M::State>,
    pace: Pace,
    /// In the order of admission.
    running: Vec<Running<M::State>>,
    /// Jobs that gave their memory to older ones, in the order of admission.
    preempted: Vec<Running<M::State>>,
    /// Jobs admitted so far.
    admitted: u64,
    /// Number of the job whose prompt is read first in the next round.
    next_reader: u64,
}

impl<M: CausalLm> Worker<'_, M> {
    /// Frees what gone clients held, resumes preempted jobs and takes queued ones as far as they fit. Waits while there is nothing
    /// to do; false if the engine is to stop.
    fn admit(&mut self) -> bool {
        let Self { running, preempted, memory, .. } = self;
        for jobs in [&mut *running, &mut *preempted] {
            for mut job in jobs.extract_if(.., |job| job.feed.is_closed()) {
                memory.release(&mut job.held);
                job.discard();
            }
        }
        memory.set_total(self.budget.share());
        let mut promised: usize = running.iter().map(|job| memory.promised(&job.held, &job.decoding)).sum();
        // Each running job may need one more block soon.
        let fits = |needed: usize, running: usize, promised: usize| {
            running == 0 || promised + needed + running <= memory.free_blocks()
        };
        while running.len() < self.max_running
            && let Some(job) = preempted.first()
        {
            let needed = memory.needs(job.held.scope(), job.decoding.window(), job.held.source_len());
            if !fits(needed, running.len(), promised) {
                break;
            }
            promised += needed;
            let job = preempted.remove(0);
            let at = running.partition_point(|other| other.admitted < job.admitted);
            running.insert(at, job);
        }
        let clients: Vec<u64> = running.iter().map(|job| job.client).collect();
        let now = Now {
            clients: &clients,
            preempted: preempted.len(),
            kv_used_bytes: memory.used_bytes(),
            kv_idle_bytes: memory.idle_bytes(),
            kv_total_bytes: memory.total(),
        };
        let mut together = running.len();
        let work = self.shared.next_work(now, |job: &Job| {
            let source_len = job.options.source.as_ref().map_or(0, |source| source.len());
            let needed = memory.needs(job.cache_scope, &job.prompt, source_len);
            let fits = fits(needed, together, promised);
            if fits {
                (together, promised) = (together + 1, promised + needed);
            }
            fits
        });
        let Work::Go(tickets) = work else { return false };
        for ticket in tickets {
            self.admitted += 1;
            running.extend(Running::start(self.model, ticket, self.admitted, self.prompt_lookup));
        }
        true
    }

    /// Looks up the prompts of new jobs in the prefix cache. A job whose prompt begins like one that is being prefilled waits for
    /// it.
    fn begin(&mut self) {
        for at in 0..self.running.len() {
            if self.still_waits(at) {
                continue;
            }
            if let Some(stage) = self.reader_for(at) {
                self.running[at].stage = stage;
                continue;
            }
            let (model, memory) = (self.model, &mut self.memory);
            let job = &mut self.running[at];
            job.stage = Stage::Begun;
            if !memory.keeps() {
                continue;
            }
            let adopted = guarded(|| Ok(memory.adopt(model, &mut job.held, &mut job.decoding, &job.options)));
            job.tell_cached(adopted.unwrap_or(0), self.shared.metrics());
            if job.decoding.generated().is_empty() {
                job.decoding.share_prefill();
            }
        }
    }

    /// Whether a job has begun, or waits for a reader that goes on.
    fn still_waits(&self, at: usize) -> bool {
        match self.running[at].stage {
            Stage::Begun => true,
            Stage::New => false,
            Stage::Waits { reader, until } => {
                self.running.iter().find(|job| job.admitted == reader).is_some_and(|job| {
                    job.stage == Stage::Begun && job.reads() && job.decoding.held() < until
                })
            }
        }
    }

    /// The running job that prefills more of this job's prompt than is cached, if there is one.
    fn reader_for(&mut self, at: usize) -> Option<Stage> {
        if !self.memory.keeps() {
            return None;
        }
        let job = &self.running[at];
        let known = self.memory.known(&job.held, &job.decoding, &job.options);
        let block_len = self.memory.block_len();
        let ids = job.decoding.window();
        let scores = job.options.score_prompt && job.decoding.generated().is_empty();
        let useful = |other: &Running<M::State>| {
            if other.stage != Stage::Begun
                || other.held.scope() != job.held.scope()
                || other.decoding.held() >= other.decoding.prefill_len()
            {
                return 0;
            }
            let theirs = &other.decoding.window()[..other.decoding.prefill_len()];
            let common = ids.iter().zip(theirs).take_while(|(one, other)| one == other).count();
            let as_scored = !scores
                || (other.options.score_prompt && other.options.top_logprobs == job.options.top_logprobs);
            match common == ids.len() && common == other.decoding.window().len() && as_scored {
                true => common,
                false if scores => 0,
                false => common.min(ids.len() - 1) / block_len * block_len,
            }
        };
        let (until, reader) = self.running.iter().map(|other| (useful(other), other.admitted)).max()?;
        (until > known).then_some(Stage::Waits { reader, until })
    }

    /// Takes the memory of the next step for each job. If there is none left, jobs are preempted, the latest first.
    fn reserve(&mut self) {
        let holds = |job: &Running<M::State>| job.held.blocks() > 0;
        // The share of the budget has become smaller.
        while self.memory.is_exceeded()
            && let Some(latest) = self.running.iter().skip(1).rposition(holds)
        {
            self.preempt(1 + latest);
        }
        let mut at = 0;
        while at < self.running.len() {
            let alone = self.running.len() == 1;
            let job = &mut self.running[at];
            let positions = job.next_positions();
            if job.stage != Stage::Begun || self.memory.grow(&mut job.held, positions) {
                at += 1;
            } else if alone {
                // Jobs that do not fit the budget are not accepted, so this is one of a model whose sizes were misjudged.
                self.memory.grow_beyond(&mut job.held, positions);
            } else {
                let latest = self.running[at..].iter().rposition(holds).unwrap_or(0);
                self.preempt(at + latest);
            }
        }
    }

    /// Sends a job back to wait: its memory is freed, and computed again when it is resumed.
    fn preempt(&mut self, at: usize) {
        let mut job = self.running.remove(at);
        job.decoding.release(self.model);
        self.memory.release(&mut job.held);
        job.stage = Stage::New;
        self.shared.metrics().add_preemption();
        let at = self.preempted.partition_point(|other| other.admitted < job.admitted);
        self.preempted.insert(at, job);
    }

    /// Advances each job by a step: those that decode as one batch, then prompts, then the others one by one.
    fn round(&mut self) {
        let mut turns = self.decode_batch();
        turns.resize(self.running.len(), None);
        self.read_prompts(&mut turns);
        for (job, turn) in self.running.iter_mut().zip(&mut turns).filter(|(_, turn)| turn.is_none()) {
            self.shared.status().beat();
            *turn = Some(if job.reads() { Turn::Again } else { job.advance(self.model) });
        }
        let mut turns = turns.into_iter();
        let mut at = 0;
        while at < self.running.len() {
            let goes_on = turns.next().flatten() != Some(Turn::Over);
            // Nothing is kept of a job that failed: its state may be broken.
            let is_whole = goes_on || self.running[at].decoding.finish_reason().is_some();
            if is_whole && self.settle(at) && goes_on {
                at += 1;
            } else {
                let mut job = self.running.remove(at);
                self.memory.release(&mut job.held);
                job.discard();
            }
        }
    }

    /// Keeps what a job has prefilled, and frees what it dropped. False if the model failed.
    fn settle(&mut self, at: usize) -> bool {
        let (model, memory, job) = (self.model, &mut self.memory, &mut self.running[at]);
        if job.has_slid() {
            memory.release(&mut job.held);
            job.stage = Stage::New;
            return true;
        }
        if job.stage != Stage::Begun {
            return true;
        }
        let kept = guarded(|| {
            memory.keep(model, &mut job.held, &mut job.decoding);
            Ok(())
        });
        match kept {
            Ok(()) => true,
            Err(error) => {
                job.feed.tell(Event::Failed(error));
                false
            }
        }
    }

    /// Decodes a step of all batchable jobs as one batch; `None` for the jobs that still have to take their step.
    fn decode_batch(&mut self) -> Vec<Option<Turn>> {
        let chosen: Vec<bool> = self.running.iter().map(Running::decodes).collect();
        let mut jobs: Vec<_> =
            self.running.iter_mut().zip(&chosen).filter(|(_, chosen)| **chosen).map(|(job, _)| job).collect();
        if jobs.len() < 2 {
            return Vec::new();
        }
        self.shared.status().beat();
        let progress = {
            let mut decodings: Vec<_> = jobs.iter_mut().map(|job| &mut job.decoding).collect();
            guarded(|| Ok(Decoding::decode_step_batch(self.model, &mut decodings)))
        };
        let mut turns = match progress {
            Ok(None) => return Vec::new(),
            Ok(Some(progress)) => {
                let told = |(job, progress): (&&mut Running<M::State>, Result<Progress, GenerateError>)| {
                    job.tell(progress.map_err(GenerationError::from))
                };
                jobs.iter().zip(progress).map(told).collect()
            }
            // Nobody knows whose fault it was, and none of them can go on.
            Err(error) => jobs.iter().map(|job| job.tell(Err(error.clone()))).collect::<Vec<_>>(),
        }
        .into_iter();
        chosen.into_iter().map(|chosen| if chosen { turns.next() } else { None }).collect()
    }

    /// Prefills as much as a round has time for: chunks of several prompts together, if the model can and they have about the same
    /// length. The next round begins with the prompt whose turn it is.
    fn read_prompts(&mut self, turns: &mut [Option<Turn>]) {
        let first = self.running.partition_point(|job| job.admitted < self.next_reader);
        let mut left = self.pace.tokens();
        let mut chunks: Vec<(usize, usize)> = Vec::new();
        for at in (first..self.running.len()).chain(0..first) {
            let job = &mut self.running[at];
            if turns[at].is_some() || !job.reads() {
                continue;
            }
            // A long prompt is not read in small pieces because others came first.
            let ids = job.next_chunk();
            if !chunks.is_empty() && ids > left && left < FEWEST {
                break;
            }
            let ids = ids.min(left);
            job.decoding.set_prefill_chunk(ids);
            left -= ids;
            chunks.push((at, ids));
            self.next_reader = job.admitted + 1;
        }
        let (mut together, alone): (Vec<_>, Vec<_>) =
            chunks.into_iter().partition(|&(at, _)| self.running[at].prefills_with_others());
        together.sort_by_key(|&(at, ids)| (Reverse(ids), at));
        // Less than half of a group is padding.
        let size = |&(_, ids): &(usize, usize)| ids.next_power_of_two();
        let groups = together.chunk_by(|one, other| size(one) == size(other));
        let started = Instant::now();
        for group in groups.chain(alone.chunks(1)) {
            if started.elapsed() > ROUND {
                return;
            }
            self.shared.status().beat();
            let begun = Instant::now();
            self.read_group(group, turns);
            // The last few ids of a prompt say little about many.
            let ids: usize = group.iter().map(|&(_, ids)| ids).sum();
            if ids >= 8 {
                self.pace.measured(ids, begun.elapsed());
            }
        }
    }

    /// Prefills a chunk of each of these prompts.
    fn read_group(&mut self, group: &[(usize, usize)], turns: &mut [Option<Turn>]) {
        let read = match group.len() {
            1 => None,
            _ => {
                let is_in = |at: usize| group.iter().any(|&(other, _)| other == at);
                let jobs = self.running.iter_mut().enumerate().filter(|&(at, _)| is_in(at));
                let (places, mut jobs): (Vec<usize>, Vec<&mut Running<M::State>>) = jobs.unzip();
                let progress = {
                    let mut decodings: Vec<_> = jobs.iter_mut().map(|job| &mut job.decoding).collect();
                    guarded(|| Ok(Decoding::prefill_step_batch(self.model, &mut decodings)))
                };
                match progress {
                    Ok(progress) => progress.map(|progress| {
                        let told = jobs.iter().zip(progress);
                        let told =
                            told.map(|(job, progress)| job.tell(progress.map_err(GenerationError::from)));
                        places.into_iter().zip(told.collect::<Vec<_>>()).collect::<Vec<_>>()
                    }),
                    // Nobody knows whose fault it was. Each begins again, by itself.
                    Err(_) => {
                        for job in jobs {
                            // The destructor of a broken state may panic, too.
                            let _ = guarded(|| {
                                job.decoding.release(self.model);
                                Ok(())
                            });
                            self.memory.release(&mut job.held);
                            job.restart_alone();
                        }
                        Some(places.into_iter().map(|at| (at, Turn::Again)).collect())
                    }
                }
            }
        };
        match read {
            Some(read) => read.into_iter().for_each(|(at, turn)| turns[at] = Some(turn)),
            None => group.iter().for_each(|&(at, _)| turns[at] = Some(self.running[at].advance(self.model))),
        }
    }
}
