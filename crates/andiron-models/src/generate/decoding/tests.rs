use std::sync::Mutex;

use proptest::prelude::*;

use super::*;

const VOCAB: usize = 11;

/// A model whose next id depends on every id it was given, and that checks its own contract.
struct Rolling {
    context: usize,
    /// How many of the latest ids count.
    order: usize,
    /// The chunks it was given.
    calls: Mutex<Vec<usize>>,
}

impl Rolling {
    fn new(context: usize) -> Self {
        Self { context, order: usize::MAX, calls: Mutex::new(Vec::new()) }
    }

    /// One that soon repeats itself.
    fn forgetful(context: usize, order: usize) -> Self {
        Self { order, ..Self::new(context) }
    }
}

/// One row of logits after the ids `seen`.
fn row_after(seen: &[u32]) -> Vec<f32> {
    let hash = seen.iter().fold(7u64, |hash, &id| hash.wrapping_mul(31).wrapping_add(u64::from(id) + 1));
    (0..VOCAB as u64).map(|v| ((hash ^ (v * 0x9e37_79b9)) % 97) as f32 / 20.0).collect()
}

impl CausalLm for Rolling {
    type State = Vec<u32>;

    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn context_len(&self) -> usize {
        self.context
    }

    fn begin(&self) -> Vec<u32> {
        Vec::new()
    }

    fn forward(&self, state: &mut Vec<u32>, ids: &[u32], wanted: Logits) -> Vec<f32> {
        assert!(!ids.is_empty() && state.len() + ids.len() <= self.context);
        self.calls.lock().expect("not poisoned").push(ids.len());
        let mut rows = Vec::new();
        for &id in ids {
            state.push(id);
            rows.extend(row_after(&state[state.len().saturating_sub(self.order)..]));
        }
        match wanted {
            Logits::All => rows,
            Logits::Last => rows.split_off(rows.len() - VOCAB),
        }
    }

    fn fork(&self, state: &Vec<u32>) -> Option<Vec<u32>> {
        Some(state.clone())
    }

    fn rewind(&self, state: &mut Vec<u32>, len: usize) -> bool {
        assert!(len <= state.len());
        state.truncate(len);
        true
    }
}

fn run(model: &Rolling, prompt: &[u32], options: GenerateOptions) -> (Vec<u32>, FinishReason) {
    let mut decoding = Decoding::new(model, prompt, options).expect("a valid request");
    while decoding.next_token(model).expect("finite logits").is_some() {}
    (decoding.generated().to_vec(), decoding.finish_reason().expect("it ended"))
}

/// What greedy decoding must give, from the whole sequence each time.
fn greedy_reference(prompt: &[u32], n: usize) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    for _ in 0..n {
        let row = row_after(&ids);
        let best = (0..VOCAB).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("not empty");
        ids.push(best as u32);
    }
    ids.split_off(prompt.len())
}

fn greedy(max_new_tokens: usize) -> GenerateOptions {
    GenerateOptions { sampling: SamplingParams::greedy(), max_new_tokens, ..GenerateOptions::default() }
}

#[test]
fn greedy_decoding_follows_the_largest_logit() {
    let (ids, reason) = run(&Rolling::new(64), &[1, 2, 3], greedy(20));
    assert_eq!(ids, greedy_reference(&[1, 2, 3], 20));
    assert_eq!(reason, FinishReason::Length);
}

#[test]
fn a_long_prompt_is_read_in_chunks_and_each_token_costs_one_call() {
    let model = Rolling::new(64);
    let options = GenerateOptions { prefill_chunk: 4, ..greedy(2) };
    let mut decoding = Decoding::new(&model, &[1; 10], options).expect("a valid request");
    assert_eq!(decoding.step(&model), Ok(Progress::Prefill { done: 4, total: 10 }));
    assert_eq!(decoding.step(&model), Ok(Progress::Prefill { done: 8, total: 10 }));
    assert!(matches!(decoding.step(&model), Ok(Progress::Token(_))));
    assert!(matches!(decoding.step(&model), Ok(Progress::Token(_))));
    assert_eq!(decoding.step(&model), Ok(Progress::Finished(FinishReason::Length)));
    assert_eq!(decoding.step(&model), Ok(Progress::Finished(FinishReason::Length)));
    assert_eq!(*model.calls.lock().expect("not poisoned"), [4, 4, 2, 1]);
}

#[test]
fn a_stop_id_ends_the_generation_and_is_its_last_token() {
    let free = greedy_reference(&[4], 12);
    let stop = free[5];
    let first = free.iter().position(|&id| id == stop).expect("it is there");
    let options = GenerateOptions { stop_ids: vec![stop], ..greedy(12) };
    assert_eq!(run(&Rolling::new(64), &[4], options.clone()), (free[..=first].to_vec(), FinishReason::Stop));
    let ignoring = GenerateOptions { ignore_eos: true, ..options };
    assert_eq!(run(&Rolling::new(64), &[4], ignoring), (free, FinishReason::Length));
}

#[test]
fn stop_ids_do_not_come_before_the_minimum() {
    let options = GenerateOptions { stop_ids: (0..10).collect(), min_new_tokens: 6, ..greedy(8) };
    let (ids, reason) = run(&Rolling::new(64), &[4], options);
    assert_eq!(&ids[..6], &[10; 6]);
    assert!(reason == FinishReason::Stop || ids.len() == 8);
}

#[test]
fn a_full_context_ends_the_generation() {
    let (ids, reason) = run(&Rolling::new(8), &[1, 2, 3], greedy(100));
    assert_eq!((ids.len(), reason), (5, FinishReason::Length));
}

#[test]
fn a_sliding_window_goes_on_past_the_context() {
    let model = Rolling::new(8);
    let options = GenerateOptions { when_full: WhenFull::Slide, score_prompt: true, ..greedy(30) };
    let mut decoding = Decoding::new(&model, &[1, 2, 3], options).expect("a valid request");
    while decoding.next_token(&model).expect("finite logits").is_some() {}
    assert_eq!(decoding.generated().len(), 30);
    assert_eq!(decoding.prompt_tokens().len(), 2);
    // The first eight ids are seen whole; the ninth call begins again with the latest four.
    assert_eq!(decoding.generated()[..6], greedy_reference(&[1, 2, 3], 6));
    let whole = [decoding.prompt(), decoding.generated()].concat();
    assert_eq!(whole[9..11], greedy_reference(&whole[5..9], 2));
    assert_eq!(
        run(&Rolling::new(1), &[1], GenerateOptions { when_full: WhenFull::Slide, ..greedy(1) }).0.len(),
        1
    );
}

#[test]
fn a_prompt_is_scored_with_the_logprob_of_each_id_given_those_before() {
    let model = Rolling::new(64);
    let prompt = [3, 1, 4, 1, 5, 9];
    for prefill_chunk in [1, 2, 4, 100] {
        let options = GenerateOptions { score_prompt: true, prefill_chunk, top_logprobs: 2, ..greedy(0) };
        let mut decoding = Decoding::new(&model, &prompt, options).expect("a valid request");
        assert_eq!(decoding.next_token(&model), Ok(None));
        assert_eq!(decoding.finish_reason(), Some(FinishReason::Length));
        assert_eq!(decoding.prompt_tokens().len(), 5);
        for (at, token) in decoding.prompt_tokens().iter().enumerate() {
            let row = row_after(&prompt[..=at]);
            assert_eq!(token.id, prompt[at + 1]);
            assert_eq!(token.logprob, row[prompt[at + 1] as usize] - log_sum_exp(&row));
            assert_eq!(token.top, super::super::top_logprobs(&row, 2));
        }
    }
}

#[test]
fn nothing_wanted_needs_no_model() {
    let model = Rolling::new(4);
    let mut decoding = Decoding::new(&model, &[1; 4], greedy(0)).expect("a full context can be read");
    assert_eq!(decoding.step(&model), Ok(Progress::Finished(FinishReason::Length)));
    assert!(model.calls.lock().expect("not poisoned").is_empty());
}

#[track_caller]
fn check_refused(prompt: &[u32], options: GenerateOptions, message: &str) {
    let refused = Decoding::new(&Rolling::new(8), prompt, options).expect_err("must be refused");
    assert_eq!(refused.to_string(), message);
}

#[test]
fn what_cannot_be_generated_is_refused_with_the_numbers() {
    check_refused(
        &[],
        greedy(1),
        "prompt: it is empty, give at least one token (the model's begin- or end-of-text id, say)",
    );
    check_refused(
        &[1; 8],
        greedy(5),
        "prompt: 8 tokens and 1 to generate do not fit the model's context of 8 tokens; shorten the prompt",
    );
    check_refused(&[1, 11], greedy(1), "prompt: token id 11 is outside the vocabulary of 11 ids");
    let stop = GenerateOptions { stop_ids: vec![99], ..greedy(1) };
    check_refused(&[1], stop, "stop_ids: token id 99 is outside the vocabulary of 11 ids");
    let sampling = SamplingParams { logit_bias: vec![(12, 1.0)], ..SamplingParams::default() };
    let biased = GenerateOptions { sampling, ..greedy(1) };
    check_refused(&[1], biased, "logit_bias: token id 12 is outside the vocabulary of 11 ids");
    let sampling = SamplingParams { top_p: 2.0, ..SamplingParams::default() };
    check_refused(&[1], GenerateOptions { sampling, ..greedy(1) }, "top_p: 2 is not between 0 and 1");
}

proptest! {
    #[test]
    fn the_same_seed_gives_the_same_ids_whatever_the_chunks_and_the_cut(
        prompt in prop::collection::vec(0u32..VOCAB as u32, 1..30),
        seed: u64,
        chunk in 0usize..12,
        cut in 1usize..9,
    ) {
        let sampling = SamplingParams { seed, temperature: 0.9, top_p: 0.9, top_k: 7, ..SamplingParams::default() };
        let options = GenerateOptions { sampling, max_new_tokens: 10, ..GenerateOptions::default() };
        let model = Rolling::new(64);
        let (whole, _) = run(&model, &prompt, options.clone());
        let chunked = GenerateOptions { prefill_chunk: chunk, ..options.clone() };
        prop_assert_eq!(&run(&model, &prompt, chunked).0, &whole);
        // Continuing from a part of the answer gives the rest of it.
        let longer = [&prompt[..], &whole[..cut]].concat();
        let rest = GenerateOptions { max_new_tokens: 10 - cut, ..options };
        prop_assert_eq!(&run(&model, &longer, rest).0[..10 - cut], &whole[cut..]);
    }
}

#[test]
fn a_text_that_repeats_itself_takes_fewer_calls_with_lookup() {
    let calls = |prompt_lookup| {
        let model = Rolling::forgetful(200, 2);
        let ids = run(&model, &[1, 2, 3], GenerateOptions { prompt_lookup, ..greedy(150) });
        let calls = model.calls.lock().expect("not poisoned").len();
        (ids, calls)
    };
    let ((plain, plain_calls), (found, found_calls)) = (calls(0), calls(8));
    assert_eq!(plain, found);
    assert_eq!(plain_calls, 150);
    assert!(found_calls < 50, "{found_calls} calls");
}

#[test]
fn drafts_that_are_wrong_become_rare() {
    let model = Rolling::new(600);
    let options = GenerateOptions { prompt_lookup: 4, ..greedy(500) };
    run(&model, &[1, 2, 3], options);
    // With eleven ids, every step but the first finds some earlier occurrence of the last one.
    let calls = model.calls.lock().unwrap();
    let drafts = calls.iter().skip(1).filter(|&&ids| ids > 1).count();
    assert!((10..80).contains(&drafts), "{drafts} of {}", calls.len());
}

proptest! {
    #[test]
    fn lookup_changes_nothing(
        order in 1..4usize,
        prompt in prop::collection::vec(0..VOCAB as u32, 1..12),
        prompt_lookup in 1..9usize,
        max_new_tokens in 0..60usize,
        min_new_tokens in 0..20usize,
        stop in prop::option::of(0..VOCAB as u32),
        temperature in prop::sample::select(vec![0.0f32, 0.3, 1.0]),
        slides in any::<bool>(),
        score_prompt in any::<bool>(),
        repetition_penalty in prop::sample::select(vec![1.0f32, 1.2]),
    ) {
        let run = |prompt_lookup| {
            let model = Rolling::forgetful(40, order);
            let options = GenerateOptions {
                sampling: SamplingParams { temperature, seed: 5, repetition_penalty, ..SamplingParams::default() },
                max_new_tokens,
                min_new_tokens,
                stop_ids: stop.into_iter().collect(),
                score_prompt,
                prefill_chunk: 5,
                top_logprobs: 2,
                when_full: if slides { WhenFull::Slide } else { WhenFull::Stop },
                prompt_lookup,
                ..GenerateOptions::default()
            };
            let mut decoding = Decoding::new(&model, &prompt, options).expect("a valid request");
            let mut tokens = Vec::new();
            while let Some(token) = decoding.next_token(&model).expect("finite logits") {
                tokens.push(token);
            }
            (tokens, decoding.finish_reason(), decoding.prompt_tokens().to_vec(), decoding.generated().to_vec())
        };
        prop_assert_eq!(run(0), run(prompt_lookup));
    }
}

#[test]
fn a_generation_reads_only_what_its_prefix_has_not() {
    let options = |n| GenerateOptions { prefill_chunk: 3, max_new_tokens: n, ..GenerateOptions::default() };
    let prompt: Vec<u32> = (0..9).collect();
    for lookup in [0, 3] {
        let model = Rolling::forgetful(64, 2);
        let mut first =
            Decoding::new(&model, &prompt, GenerateOptions { prompt_lookup: lookup, ..options(20) }).unwrap();
        // Ended from outside, perhaps with tokens tried ahead.
        for _ in 0..7 {
            first.next_token(&model).unwrap();
        }
        let said = first.generated().to_vec();
        let longer = [&prompt[..], &said, &[1, 2, 3]].concat();
        let alone = run(&model, &longer, options(5));
        let prefix = first.into_prefix().unwrap();
        let known = prefix.ids().len();
        assert!(known >= prompt.len() + said.len() - 1 && longer.starts_with(prefix.ids()));
        model.calls.lock().unwrap().clear();
        let mut next = Decoding::after(&model, prefix, &longer, options(5)).unwrap();
        assert_eq!(next.unread(), longer.len() - known);
        while next.next_token(&model).unwrap().is_some() {}
        assert_eq!((next.generated().to_vec(), next.finish_reason().unwrap()), alone);
        let read: usize = model.calls.lock().unwrap().iter().sum();
        assert_eq!(read, longer.len() - known + 4);
    }
}

#[test]
fn a_prefix_is_used_as_far_as_it_is_the_prompts() {
    let model = Rolling::new(64);
    let prefix = |prompt: &[u32]| {
        let mut decoding = Decoding::new(&model, prompt, GenerateOptions::default()).unwrap();
        decoding.next_token(&model).unwrap();
        decoding.into_prefix().unwrap()
    };
    for (read, prompt, unread) in [
        (&[1u32, 2, 3, 4][..], &[1u32, 2, 9, 4, 5][..], 3),
        (&[1, 2, 3, 4], &[5, 6], 2),
        (&[1, 2, 3, 4], &[1, 2], 1),
        (&[1, 2], &[1, 2], 1),
    ] {
        let mut decoding = Decoding::after(&model, prefix(read), prompt, GenerateOptions::default()).unwrap();
        assert_eq!(decoding.unread(), unread, "{read:?} {prompt:?}");
        while decoding.next_token(&model).unwrap().is_some() {}
        assert_eq!(decoding.generated(), run(&model, prompt, GenerateOptions::default()).0);
    }
    let scored = GenerateOptions { score_prompt: true, ..GenerateOptions::default() };
    assert_eq!(Decoding::after(&model, prefix(&[1, 2]), &[1, 2, 3], scored).unwrap().unread(), 3);
}

#[test]
fn a_prompt_that_was_read_is_not_read_again() {
    let prompt: Vec<u32> = (0..10).collect();
    for (score_prompt, n) in [(false, 6), (true, 6), (true, 0)] {
        let model = Rolling::new(64);
        let options = |seed| GenerateOptions {
            sampling: SamplingParams { seed, ..SamplingParams::default() },
            score_prompt,
            max_new_tokens: n,
            prefill_chunk: 4,
            ..GenerateOptions::default()
        };
        let mut leader = Decoding::new(&model, &prompt, options(1)).unwrap();
        leader.share_prefill();
        let mut prefill = None;
        while prefill.is_none() {
            leader.step(&model).unwrap();
            prefill = leader.take_prefill();
        }
        for seed in [2, 3] {
            let wanted = run(&model, &prompt, options(seed));
            let mut other = Decoding::new(&model, &prompt, options(seed)).unwrap();
            model.calls.lock().unwrap().clear();
            assert!(other.adopt_prefill(&model, prefill.as_ref().unwrap()));
            while other.next_token(&model).unwrap().is_some() {}
            assert_eq!((other.generated().to_vec(), other.finish_reason().unwrap()), wanted);
            assert_eq!(other.prompt_tokens(), leader.prompt_tokens());
            assert!(model.calls.lock().unwrap().iter().all(|&ids| ids == 1));
        }
        let mut stranger = Decoding::new(&model, &prompt[1..], options(2)).unwrap();
        assert!(!stranger.adopt_prefill(&model, prefill.as_ref().unwrap()));
        // Nobody asked it to keep its own.
        assert!(stranger.take_prefill().is_none());
    }
}

#[test]
fn a_released_state_is_computed_again_and_the_text_goes_on() {
    for (prompt_lookup, when_full) in [(0, WhenFull::Stop), (3, WhenFull::Stop), (0, WhenFull::Slide)] {
        let options = GenerateOptions {
            prefill_chunk: 3,
            score_prompt: true,
            top_logprobs: 1,
            prompt_lookup,
            when_full,
            ..greedy(20)
        };
        let run = |released_before: Option<usize>| {
            let model = Rolling::forgetful(16, 2);
            let mut decoding = Decoding::new(&model, &[1, 2, 3, 4, 5, 6, 7], options.clone()).unwrap();
            let mut tokens = Vec::new();
            for step in 0.. {
                if released_before == Some(step) {
                    decoding.release(&model);
                    assert_eq!(decoding.held(), 0);
                }
                match decoding.step(&model).unwrap() {
                    Progress::Prefill { .. } => {}
                    Progress::Token(token) => tokens.push(token),
                    Progress::Finished(reason) => return (tokens, decoding.prompt_tokens().to_vec(), reason),
                }
            }
            unreachable!("it ends")
        };
        let wanted = run(None);
        for step in 0..25 {
            assert_eq!(run(Some(step)), wanted, "before step {step}");
        }
    }
}

/// Counts the ids it is given, by what they are said to be.
struct Counting {
    inner: Rolling,
    decoded: Mutex<Vec<usize>>,
}

impl CausalLm for Counting {
    type State = Vec<u32>;

    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }

    fn context_len(&self) -> usize {
        self.inner.context_len()
    }

    fn begin(&self) -> Vec<u32> {
        Vec::new()
    }

    fn forward(&self, state: &mut Vec<u32>, ids: &[u32], wanted: Logits) -> Vec<f32> {
        self.inner.forward(state, ids, wanted)
    }

    fn decode(&self, state: &mut Vec<u32>, ids: &[u32], wanted: Logits) -> Vec<f32> {
        self.decoded.lock().unwrap().push(ids.len());
        Rolling::new(self.inner.context).forward(state, ids, wanted)
    }
}

#[test]
fn prompts_are_prefilled_and_generated_ids_decoded_whatever_their_number() {
    let model = Counting { inner: Rolling::new(64), decoded: Mutex::default() };
    let options = GenerateOptions { prefill_chunk: 4, ..greedy(9) };
    // The last chunk of the prompt has one id.
    let mut decoding = Decoding::new(&model, &[1; 5], options).unwrap();
    for _ in 0..7 {
        assert!(!decoding.is_decoding() || decoding.held() >= 5);
        decoding.step(&model).unwrap();
    }
    assert_eq!(*model.inner.calls.lock().unwrap(), [4, 1]);
    assert_eq!(*model.decoded.lock().unwrap(), [1; 5]);
    decoding.release(&model);
    decoding.step(&model).unwrap();
    decoding.step(&model).unwrap();
    decoding.step(&model).unwrap();
    assert_eq!(*model.inner.calls.lock().unwrap(), [4, 1, 4, 1]);
    assert_eq!(model.decoded.lock().unwrap()[5..], [4]);
}
