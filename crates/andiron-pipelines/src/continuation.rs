//! Task `continuation`: log-probabilities of continuations, given what stands before them.
//!
//! Many continuations stand behind the same text: the choices of a question, or questions behind the same examples. What they
//! share is read once, into a KV cache that they all continue.

use andiron_core::{Forward, KvCache, PaddingMask, ids, ops};
use andiron_models::Decoder as _;
use andiron_models::generate::{CausalLm, log_sum_exp};
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::DecoderPipeline;
use crate::score::{LOGITS_AT_ONCE, ScoreError, most_likely};

/// Tokens of one pass, padding included, unless one sequence is longer.
const PASS_TOKENS: usize = 1 << 10;
/// A shorter beginning is not worth a pass of its own.
const LEAST_SHARED: usize = 16;
/// Sequences whose common beginning is in one cache.
const GROUP: usize = 64;

/// A continuation and what stands before it, in token ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Continuation {
    /// What stands before it: at least one id.
    pub context: Vec<u32>,
    /// What is scored: at least one id.
    pub continuation: Vec<u32>,
}

/// The score of a continuation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContinuationScore {
    /// Sum of the natural-log probabilities of its ids.
    pub logprob: f64,
    /// Whether greedy decoding would have written it.
    pub is_greedy: bool,
}

/// The ids that are read, and what is predicted at the end of them.
struct Sequence<'a> {
    read: Vec<u32>,
    /// Positions at its end whose predictions are wanted.
    wanted: usize,
    /// Numbers of the continuations and their ids: the last of `wanted` positions predict them.
    targets: Vec<(usize, &'a [u32])>,
}

/// Sequences with a common beginning.
struct Group<'s> {
    sequences: &'s [Sequence<'s>],
    /// Ids of the common beginning that are read once.
    shared: usize,
}

impl DecoderPipeline {
    /// The score of each continuation.
    ///
    /// Where context and continuation are longer than the model reads, ids at the left are left out, as in
    /// lm-evaluation-harness; the last id is only predicted.
    ///
    /// # Errors
    /// The number of the first continuation that cannot be scored, and why: it is longer than the model reads, it or its context
    /// is empty, or an id is outside the vocabulary.
    pub fn score_continuations(
        &self,
        continuations: &[Continuation],
    ) -> Result<Vec<ContinuationScore>, (usize, ScoreError)> {
        let sequences = self.sequences(continuations)?;
        let mut scorer = Scorer {
            model: self,
            scores: vec![ContinuationScore { logprob: 0.0, is_greedy: true }; continuations.len()],
        };
        self.bundle.precision().run(|| scorer.walk(&sequences, None, 0));
        Ok(scorer.scores)
    }

    /// The sum of the log-probabilities of each continuation, for long ones, which share no beginning.
    ///
    /// # Errors
    /// As for [`score_continuations`](Self::score_continuations).
    pub fn sum_logprobs(&self, continuations: &[Continuation]) -> Result<Vec<f64>, (usize, ScoreError)> {
        let sequences = self.sequences(continuations)?;
        let mut sums = vec![0.0; continuations.len()];
        self.bundle.precision().run(|| {
            for batch in batches(&sequences, |sequence| sequence.read.len()) {
                let read: Vec<&[u32]> = batch.iter().map(|sequence| sequence.read.as_slice()).collect();
                let hidden_btd = self.pass(&read, None);
                for (row, sequence) in batch.iter().enumerate() {
                    for (number, targets) in &sequence.targets {
                        sums[*number] = self.sum_of(&hidden_btd, row, sequence.read.len(), targets);
                    }
                }
            }
        });
        Ok(sums)
    }

    /// The log-probability of `targets`, predicted by the positions of `row` that end before `end`.
    fn sum_of(&self, hidden_btd: &Tensor<3>, row: usize, end: usize, targets: &[u32]) -> f64 {
        let (n, d) = (targets.len(), hidden_btd.dims()[2]);
        let device = self.bundle.device();
        let hidden_nd = hidden_btd.clone().slice([row..row + 1, end - n..end, 0..d]).reshape([n, d]);
        let targets_n = ids::upload(targets, [n], device);
        let weights_n = Tensor::ones([n], device);
        let head = self.bundle.model.head().val();
        -f64::from(ops::head_cross_entropy(hidden_nd, head, targets_n, weights_n).into_scalar::<f32>())
    }

    /// The different sequences to read, in ascending order.
    fn sequences<'c>(
        &self,
        continuations: &'c [Continuation],
    ) -> Result<Vec<Sequence<'c>>, (usize, ScoreError)> {
        let longest = self.bundle.config.max_positions();
        let vocab_size = self.bundle.model.head().dims()[0];
        let mut sequences = Vec::with_capacity(continuations.len());
        for (number, Continuation { context, continuation }) in continuations.iter().enumerate() {
            let fails = |error| Err((number, error));
            if context.is_empty() || continuation.is_empty() {
                return fails(ScoreError::EmptyContinuation);
            }
            if continuation.len() > longest {
                return fails(ScoreError::TooLong { tokens: continuation.len(), context: longest });
            }
            let mut read = [context.as_slice(), continuation].concat();
            let unknown = read.iter().enumerate().find(|&(_, &id)| id as usize >= vocab_size);
            if let Some((position, &id)) = unknown {
                return fails(ScoreError::UnknownId { id, position, vocab_size });
            }
            read.pop();
            read.drain(..read.len().saturating_sub(longest));
            let targets = vec![(number, continuation.as_slice())];
            sequences.push(Sequence { read, wanted: continuation.len(), targets });
        }
        sequences.sort_by(|a, b| a.read.cmp(&b.read));
        sequences.dedup_by(|next, kept| {
            let same = next.read == kept.read;
            if same {
                kept.wanted = kept.wanted.max(next.wanted);
                kept.targets.append(&mut next.targets);
            }
            same
        });
        Ok(sequences)
    }

    /// Hidden states of `read`, padded on the right; each continues its row of `cache`.
    fn pass(&self, read: &[&[u32]], cache: Option<&mut KvCache>) -> Tensor<3> {
        let columns = read.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let mut flat = Vec::with_capacity(read.len() * columns);
        for (row, ids) in read.iter().enumerate() {
            flat.extend_from_slice(ids);
            flat.resize((row + 1) * columns, 0);
        }
        let ids_bt = ids::upload(&flat, [read.len(), columns], self.bundle.device());
        let is_padded = read.iter().any(|ids| ids.len() < columns);
        let mut cx = match cache {
            // No id sees what stands behind it, so that rows need no mask; but a cache keeps no padding.
            None => Forward::evaluation(),
            Some(cache) if is_padded => Forward::cached(cache)
                .with_padding_mask(PaddingMask::padded_right(read.iter().map(|ids| ids.len()))),
            Some(cache) => Forward::cached(cache),
        };
        self.bundle.model.hidden(ids_bt, &mut cx)
    }
}

/// Scores sequences as a tree of common beginnings.
struct Scorer<'m> {
    model: &'m DecoderPipeline,
    scores: Vec<ContinuationScore>,
}

impl Scorer<'_> {
    /// Scores sequences whose first `depth` ids are in `cache`, which has one row.
    fn walk(&mut self, sequences: &[Sequence<'_>], cache: Option<&KvCache>, depth: usize) {
        let shared = shared(sequences);
        if sequences.len() > GROUP && shared >= depth + LEAST_SHARED {
            let own = self.extended(cache, &sequences[0].read[depth..shared]);
            return self.walk(sequences, Some(&own), shared);
        }
        let (mut groups, mut large) = (Vec::new(), Vec::new());
        split(sequences, depth, &mut groups, &mut large);
        for sequences in large {
            self.walk(sequences, cache, depth);
        }
        for batch in batches(&groups, |group| group.shared.max(depth + 1) - depth) {
            self.score_groups(&batch, cache, depth);
        }
    }

    /// A copy of `cache` that has read `ids` as well.
    fn extended(&self, cache: Option<&KvCache>, ids: &[u32]) -> KvCache {
        let mut own = cache.cloned().unwrap_or_else(|| self.model.bundle.begin());
        // In pieces, for a prompt of any length.
        for piece in ids.chunks(PASS_TOKENS) {
            self.model.pass(&[piece], Some(&mut own));
        }
        own
    }

    /// Scores some groups: reads the beginning of each, then all that stands behind them.
    fn score_groups(&mut self, groups: &[&Group<'_>], cache: Option<&KvCache>, depth: usize) {
        let (reading, others): (Vec<&Group<'_>>, Vec<&Group<'_>>) =
            groups.iter().copied().partition(|group| group.shared > depth);
        if !reading.is_empty() {
            let begins: Vec<&[u32]> =
                reading.iter().map(|group| &group.sequences[0].read[depth..group.shared]).collect();
            let mut own = match cache {
                Some(cache) => {
                    let mut own = cache.clone();
                    own.select(&vec![0; reading.len()]);
                    own
                }
                None => self.model.bundle.begin(),
            };
            self.model.pass(&begins, Some(&mut own));
            let rows = reading.iter().enumerate();
            let leaves = rows.flat_map(|(row, group)| {
                group.sequences.iter().map(move |sequence| Leaf { sequence, row, start: group.shared })
            });
            self.score_leaves(&leaves.collect::<Vec<_>>(), Some(&own));
        }
        let leaves = others.iter().flat_map(|group| group.sequences);
        let leaves: Vec<_> = leaves.map(|sequence| Leaf { sequence, row: 0, start: depth }).collect();
        self.score_leaves(&leaves, cache);
    }

    fn score_leaves(&mut self, leaves: &[Leaf<'_>], cache: Option<&KvCache>) {
        for batch in batches(leaves, |leaf| leaf.sequence.read.len() - leaf.start) {
            let read: Vec<&[u32]> = batch.iter().map(|leaf| &leaf.sequence.read[leaf.start..]).collect();
            let mut own = cache.cloned();
            if let Some(own) = &mut own {
                own.select(&batch.iter().map(|leaf| leaf.row).collect::<Vec<_>>());
            }
            let hidden_btd = self.model.pass(&read, own.as_mut());
            let mut places = Vec::new();
            for (row, leaf) in batch.iter().enumerate() {
                places.push((row, read[row].len(), leaf.sequence));
            }
            self.score_hidden(&hidden_btd, &places);
        }
    }

    /// Scores the last positions of rows, each given with the number of its columns.
    fn score_hidden(&mut self, hidden_btd: &Tensor<3>, places: &[(usize, usize, &Sequence<'_>)]) {
        let d = hidden_btd.dims()[2];
        let vocab_size = self.model.bundle.model.head().dims()[0];
        let block = (LOGITS_AT_ONCE / vocab_size).max(1);
        let mut rest = places;
        while let Some((_, _, first)) = rest.first() {
            // As many rows as fit, and at least one, whose positions are taken in turns below.
            let (mut rows, mut positions) = (1, first.wanted);
            while let Some((_, _, sequence)) =
                rest.get(rows).filter(|(_, _, s)| positions + s.wanted <= block)
            {
                positions += sequence.wanted;
                rows += 1;
            }
            let (now, later) = rest.split_at(rows);
            rest = later;
            let wanted = now.iter().map(|&(row, end, sequence)| {
                hidden_btd.clone().slice([row..row + 1, end - sequence.wanted..end, 0..d])
            });
            let hidden_btd = Tensor::cat(wanted.collect(), 1);
            let mut found = Vec::with_capacity(positions);
            for start in (0..positions).step_by(block) {
                let part_btd = hidden_btd.clone().slice([0..1, start..positions.min(start + block), 0..d]);
                let logits = self.model.bundle.model.logits(part_btd).into_data().convert::<f32>();
                let logits = logits.as_slice::<f32>().expect("just converted to f32");
                let targets = targets_at(now, start..positions.min(start + block));
                found.par_extend(logits.par_chunks_exact(vocab_size).zip(targets).map(
                    |(logits, targets)| {
                        let log_sum = log_sum_exp(logits);
                        let best = most_likely(logits);
                        let one = |&(number, id): &(usize, u32)| {
                            (number, logits[id as usize] - log_sum, best == id as usize)
                        };
                        targets.iter().map(one).collect::<Vec<_>>()
                    },
                ));
            }
            for (number, logprob, is_greedy) in found.into_iter().flatten() {
                let score = &mut self.scores[number];
                score.logprob += f64::from(logprob);
                score.is_greedy &= is_greedy;
            }
        }
    }
}

/// A sequence whose first `start` ids are in a row of a cache.
struct Leaf<'s> {
    sequence: &'s Sequence<'s>,
    row: usize,
    start: usize,
}

/// For each of the wanted positions of `places`, numbered one after another: the numbers of the continuations with an id there,
/// and the id.
fn targets_at(
    places: &[(usize, usize, &Sequence<'_>)],
    positions: std::ops::Range<usize>,
) -> Vec<Vec<(usize, u32)>> {
    let mut all = Vec::new();
    for (_, _, sequence) in places {
        for at in 0..sequence.wanted {
            let here = |(number, targets): &(usize, &[u32])| {
                let before = sequence.wanted - targets.len();
                at.checked_sub(before).map(|at| (*number, targets[at]))
            };
            all.push(sequence.targets.iter().filter_map(here).collect());
        }
    }
    all.drain(positions).collect()
}

/// How many ids all sequences begin with, which are in ascending order; none of which a prediction is wanted.
fn shared(sequences: &[Sequence<'_>]) -> usize {
    let (Some(first), Some(last)) = (sequences.first(), sequences.last()) else { return 0 };
    let equal = first.read.iter().zip(&last.read).take_while(|(a, b)| a == b).count();
    let free = sequences.iter().map(|sequence| sequence.read.len() - sequence.wanted).min().unwrap_or(0);
    equal.min(free)
}

/// Splits sequences, which have `depth` ids in common, into groups, and into those that deserve a cache of their own.
fn split<'s>(
    sequences: &'s [Sequence<'s>],
    depth: usize,
    groups: &mut Vec<Group<'s>>,
    large: &mut Vec<&'s [Sequence<'s>]>,
) {
    // A stack of its own: texts may branch as often as they are long.
    let mut open = vec![sequences];
    while let Some(sequences) = open.pop() {
        let Some(first) = sequences.first() else { continue };
        let shared = shared(sequences);
        let is_worth = shared >= depth + LEAST_SHARED;
        if sequences.len() == 1 {
            groups.push(Group { sequences, shared: depth });
            continue;
        }
        if is_worth && sequences.len() > GROUP {
            large.push(sequences);
            continue;
        }
        // Contexts end here, or are the same up to here and worth reading once.
        let free = |sequence: &Sequence<'_>| sequence.read.len() - sequence.wanted;
        let is_whole =
            sequences.iter().all(|sequence| free(sequence) == free(first)) && free(first) == shared;
        let branches: Vec<&[Sequence<'_>]> =
            sequences.chunk_by(|a, b| a.read.get(shared) == b.read.get(shared)).collect();
        if is_worth && (is_whole || branches.len() == 1 || sequences.len() <= 8) {
            groups.push(Group { sequences, shared });
        } else if branches.len() == 1 {
            groups.push(Group { sequences, shared: depth });
        } else {
            open.extend(branches);
        }
    }
}

/// Items in batches of similar length, the longest first, with a bounded number of tokens each.
fn batches<T>(items: &[T], len: impl Fn(&T) -> usize) -> Vec<Vec<&T>> {
    let mut sorted: Vec<&T> = items.iter().collect();
    sorted.sort_by_key(|item| std::cmp::Reverse(len(item)));
    let mut all = Vec::new();
    let mut rest = sorted.as_slice();
    while let Some(first) = rest.first() {
        let longest = len(first).max(1);
        let most = (PASS_TOKENS / longest).max(1);
        // Padding is at most a fifth of a row.
        let similar = rest.iter().take_while(|item| len(item) * 5 >= longest * 4).count();
        let (batch, others) = rest.split_at(most.min(similar.max(1)).min(rest.len()));
        all.push(batch.to_vec());
        rest = others;
    }
    all
}

#[cfg(test)]
mod tests {
    use andiron_kernels::random::Seed;
    use andiron_models::decoder::gpt2::Gpt2Config;
    use andiron_models::{DecoderBundle, DecoderConfig};

    use super::*;
    use crate::score::score;
    use crate::testing::device;

    const VOCAB: usize = 11;
    const CONTEXT: usize = 48;

    fn pipeline() -> DecoderPipeline {
        let config = Gpt2Config {
            n_positions: CONTEXT,
            n_embd: 16,
            n_layer: 2,
            n_head: 2,
            initializer_range: 0.3,
            ..Gpt2Config::nano(VOCAB)
        };
        let bundle = DecoderBundle::init(DecoderConfig::Gpt2(config), Seed::new(5), &device());
        DecoderPipeline::new(bundle, None)
    }

    fn ids(seed: u64, len: usize) -> Vec<u32> {
        (0..len as u64).map(|i| Seed::new(seed).below(i, VOCAB as u64) as u32).collect()
    }

    /// Contexts with common beginnings of many lengths, and continuations of which some are equal.
    fn continuations() -> Vec<Continuation> {
        let mut all = Vec::new();
        let examples = ids(1, 20);
        for question in 0..40u64 {
            let begin = if question % 3 == 0 { examples.as_slice() } else { &[] };
            let context = [begin, &ids(2, 5), &ids(10 + question / 2, 1 + question as usize % 17)].concat();
            for choice in 0..4 {
                let continuation = ids(100 + choice, 1 + choice as usize % 3);
                all.push(Continuation { context: context.clone(), continuation });
            }
        }
        // Too long for the model: ids at the left are left out.
        for len in [CONTEXT - 1, CONTEXT, CONTEXT + 9] {
            all.push(Continuation { context: ids(7, len), continuation: ids(8, 5) });
        }
        all.push(Continuation { context: ids(7, 1), continuation: ids(8, CONTEXT) });
        all
    }

    #[test]
    fn continuations_score_as_each_alone() {
        let pipeline = pipeline();
        let all = continuations();
        let scores = pipeline.score_continuations(&all).unwrap();
        let sums = pipeline.sum_logprobs(&all).unwrap();
        for ((one, found), sum) in all.iter().zip(scores).zip(sums) {
            let whole = [one.context.as_slice(), &one.continuation].concat();
            let whole = &whole[whole.len().saturating_sub(CONTEXT + 1)..];
            let alone = score(&pipeline.bundle.model, whole, CONTEXT + 1, &device()).unwrap();
            let behind = alone.logprobs.len() - one.continuation.len();
            let expected: f64 = alone.logprobs[behind..].iter().flatten().map(|&x| f64::from(x)).sum();
            let is_greedy = alone.is_greedy[behind..].iter().all(|greedy| *greedy == Some(true));
            assert!((found.logprob - expected).abs() < 1e-4, "{one:?}: {} {expected}", found.logprob);
            assert!((sum - expected).abs() < 1e-4, "{one:?}: {sum} {expected}");
            assert_eq!(found.is_greedy, is_greedy);
        }
    }

    #[test]
    fn what_is_shared_is_read_once() {
        let examples = ids(1, 30);
        let one = |last: u32, choice: u64| Sequence {
            read: [examples.as_slice(), &[last], &ids(50 + choice, 2)].concat(),
            wanted: 3,
            targets: Vec::new(),
        };
        let mut sequences: Vec<_> =
            (0..40).flat_map(|i| (0..2).map(move |c| (i, c))).map(|(i, c)| one(i, c)).collect();
        sequences.sort_by(|a, b| a.read.cmp(&b.read));
        assert_eq!(shared(&sequences), 30);
        let (mut groups, mut large) = (Vec::new(), Vec::new());
        split(&sequences, 0, &mut groups, &mut large);
        assert_eq!((groups.len(), large.len()), (0, 1), "all begin alike");
        split(&sequences, 30, &mut groups, &mut large);
        assert_eq!(large.len(), 1, "nothing is left that is worth a cache");
        assert_eq!(groups.iter().map(|group| group.sequences.len()).sum::<usize>(), 80);
    }

    #[test]
    fn what_cannot_be_scored_is_named() {
        let pipeline = pipeline();
        let of = |context: &[u32], continuation: &[u32]| {
            let bad = Continuation { context: context.to_vec(), continuation: continuation.to_vec() };
            pipeline
                .score_continuations(&[Continuation { context: vec![1], continuation: vec![2] }, bad])
                .unwrap_err()
        };
        assert_eq!(of(&[], &[1]), (1, ScoreError::EmptyContinuation));
        assert_eq!(of(&[1], &[]), (1, ScoreError::EmptyContinuation));
        assert_eq!(of(&[1], &[99]), (1, ScoreError::UnknownId { id: 99, position: 1, vocab_size: VOCAB }));
        let (number, error) = of(&[1], &ids(1, CONTEXT + 1));
        assert_eq!((number, error), (1, ScoreError::TooLong { tokens: CONTEXT + 1, context: CONTEXT }));
        assert_eq!(pipeline.score_continuations(&[]), Ok(Vec::new()));
    }
}
