use proptest::prelude::*;

use super::*;

/// ln of 0.5, 0.25, 0.125, 0.0625, 0.0625.
const HALVES: [f32; 5] = [-std::f32::consts::LN_2, -1.386_294_4, -2.079_441_5, -2.772_588_7, -2.772_588_7];

fn sampler(edit: impl FnOnce(&mut SamplingParams)) -> Sampler {
    let mut params = SamplingParams::default();
    edit(&mut params);
    Sampler::new(params).expect("valid parameters")
}

/// The logits after all processors.
fn processed(sampler: &Sampler, logits: &[f32], prompt: &[u32], generated: &[u32]) -> Vec<f32> {
    let ids = [prompt, generated].concat();
    let mut row = logits.to_vec();
    let mut scores = Scores::new(&mut row, &[]);
    sampler.processors.process(Place { ids: &ids, prompt_len: prompt.len() }, &mut scores);
    scores.row().to_vec()
}

/// Ids and normalised probabilities left by the whole chain.
fn kept(
    edit: impl FnOnce(&mut SamplingParams),
    logits: &[f32],
    prompt: &[u32],
    generated: &[u32],
) -> Vec<(u32, f32)> {
    let sampler = sampler(edit);
    let row = processed(&sampler, logits, prompt, generated);
    let largest = row[argmax(&row).expect("finite") as usize];
    let kept = sampler.keep(&row, largest);
    let total: f32 = kept.iter().map(|c| c.1).sum();
    kept.into_iter().map(|(id, weight)| (id, weight / total)).collect()
}

#[track_caller]
fn check_kept(edit: impl FnOnce(&mut SamplingParams), logits: &[f32], expected: &[(u32, f32)]) {
    let found = kept(edit, logits, &[], &[]);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            found.0 == expected.0 && (found.1 - expected.1).abs() < 1e-6,
            "{found:?} is not {expected:?}"
        );
    }
}

#[test]
fn without_settings_the_distribution_is_the_models() {
    check_kept(|_| {}, &HALVES, &[(0, 0.5), (1, 0.25), (2, 0.125), (3, 0.0625), (4, 0.0625)]);
}

#[test]
fn temperature_one_half_squares_the_probabilities() {
    // 1/4, 1/16, 1/64, 1/256, 1/256 sum to 86/256.
    check_kept(
        |p| p.temperature = 0.5,
        &HALVES,
        &[(0, 64. / 86.), (1, 16. / 86.), (2, 4. / 86.), (3, 1. / 86.), (4, 1. / 86.)],
    );
}

#[test]
fn top_k_keeps_the_k_largest() {
    check_kept(|p| p.top_k = 2, &HALVES, &[(0, 2. / 3.), (1, 1. / 3.)]);
    check_kept(|p| p.top_k = 1, &HALVES, &[(0, 1.0)]);
}

#[test]
fn top_k_keeps_all_ties_with_the_kth_as_hugging_face_does() {
    let expected = [(0, 0.5), (1, 0.25), (2, 0.125), (3, 0.0625), (4, 0.0625)];
    check_kept(|p| p.top_k = 4, &HALVES, &expected);
    check_kept(|p| p.top_k = 100, &HALVES, &expected);
}

#[test]
fn top_p_keeps_the_smallest_set_with_that_mass() {
    check_kept(|p| p.top_p = 0.49, &HALVES, &[(0, 1.0)]);
    check_kept(|p| p.top_p = 0.51, &HALVES, &[(0, 2. / 3.), (1, 1. / 3.)]);
    check_kept(|p| p.top_p = 0.8, &HALVES, &[(0, 4. / 7.), (1, 2. / 7.), (2, 1. / 7.)]);
    check_kept(|p| p.top_p = 0.0, &HALVES, &[(0, 1.0)]);
}

#[test]
fn top_p_works_on_what_temperature_and_top_k_left() {
    // After top-k 2 the shares are 2/3 and 1/3: the first alone has the mass 0.6.
    check_kept(|p| (p.top_k, p.top_p) = (2, 0.6), &HALVES, &[(0, 1.0)]);
    // At temperature 0.5 the first has 64/86 = 0.744.
    check_kept(|p| (p.temperature, p.top_p) = (0.5, 0.74), &HALVES, &[(0, 1.0)]);
    check_kept(|p| (p.temperature, p.top_p) = (0.5, 0.75), &HALVES, &[(0, 0.8), (1, 0.2)]);
}

#[test]
fn min_p_is_relative_to_the_likeliest() {
    check_kept(|p| p.min_p = 0.24, &HALVES, &[(0, 4. / 7.), (1, 2. / 7.), (2, 1. / 7.)]);
    check_kept(|p| p.min_p = 0.26, &HALVES, &[(0, 2. / 3.), (1, 1. / 3.)]);
    check_kept(|p| p.min_p = 1.0, &HALVES, &[(0, 1.0)]);
}

/// The logits that `edit` makes of `logits`.
fn adjusted(
    edit: impl FnOnce(&mut SamplingParams),
    logits: &[f32],
    prompt: &[u32],
    generated: &[u32],
) -> Vec<f32> {
    processed(&sampler(edit), logits, prompt, generated)
}

#[test]
fn repetition_penalty_divides_positive_and_multiplies_negative_logits_once_per_id() {
    let row = adjusted(|p| p.repetition_penalty = 2.0, &[4.0, -1.0, 3.0, 0.5], &[0, 0, 1], &[1, 3]);
    assert_eq!(row, [2.0, -2.0, 3.0, 0.25]);
}

#[test]
fn presence_and_frequency_count_generated_ids_only() {
    let row = adjusted(
        |p| (p.presence_penalty, p.frequency_penalty) = (0.5, 0.25),
        &[1.0; 4],
        &[0, 0, 0],
        &[1, 2, 1],
    );
    assert_eq!(row, [1.0, 0.0, 0.25, 1.0]);
}

#[test]
fn bias_comes_before_the_repetition_penalty() {
    let row =
        adjusted(|p| (p.logit_bias, p.repetition_penalty) = (vec![(0, 3.0)], 2.0), &[1.0, 1.0], &[0], &[]);
    assert_eq!(row, [2.0, 1.0]);
}

#[test]
fn greedy_takes_the_lowest_of_equal_ids_and_reports_the_models_logprob() {
    let sampled = sampler(|p| p.temperature = 0.0).sample(&mut [0.0, 1.0, 1.0], &[], &[]).expect("finite");
    assert_eq!(sampled.id, 1);
    // 1 - ln(1 + 2 e)
    assert!((sampled.logprob + 0.861_994_8).abs() < 1e-6, "{}", sampled.logprob);
}

#[test]
fn the_logprob_ignores_bias_and_the_row_is_restored() {
    let mut row = HALVES;
    let sampled = sampler(|p| (p.temperature, p.logit_bias) = (0.0, vec![(2, 100.0), (2, 1.0)]))
        .sample(&mut row, &[], &[])
        .expect("finite");
    assert_eq!(sampled.id, 2);
    assert!((sampled.logprob - HALVES[2]).abs() < 1e-6);
    assert_eq!(row, HALVES);
}

#[test]
fn a_ban_holds_even_for_the_likeliest() {
    let greedy = sampler(|p| p.temperature = 0.0);
    let at = Place { ids: &[], prompt_len: 0 };
    assert_eq!(greedy.sample_at(at, &[0, 9], &mut HALVES.clone()).expect("finite").id, 1);
    let refused = greedy.sample_at(at, &[0], &mut [1.0]);
    assert_eq!(refused, Err(SamplingError::NoCandidate { vocab_size: 1 }));
}

#[test]
fn what_is_not_a_number_is_an_error_that_names_the_id() {
    let sampler = sampler(|_| {});
    let refused = sampler.sample(&mut [0.0, f32::INFINITY], &[], &[]);
    assert_eq!(refused, Err(SamplingError::NonFinite { id: 1, value: f32::INFINITY }));
    let refused = sampler.sample(&mut [f32::NAN, 2.0], &[], &[]).expect_err("NaN");
    assert!(refused.to_string().contains("gave NaN for id 0"), "{refused}");
    assert_eq!(sampler.sample(&mut [], &[], &[]), Err(SamplingError::NoCandidate { vocab_size: 0 }));
    let all = sampler.sample(&mut [f32::NEG_INFINITY; 3], &[], &[]);
    assert_eq!(all, Err(SamplingError::NoCandidate { vocab_size: 3 }));
}

#[test]
fn a_bias_outside_the_vocabulary_is_an_error() {
    let refused = sampler(|p| p.logit_bias = vec![(5, 1.0)]).sample(&mut HALVES.clone(), &[], &[]);
    assert_eq!(refused, Err(SamplingError::BiasOutsideVocabulary { id: 5, vocab_size: 5 }));
}

#[test]
fn extreme_settings_saturate_instead_of_breaking() {
    for edit in [
        (|p| p.repetition_penalty = f32::MIN_POSITIVE) as fn(&mut SamplingParams),
        |p| p.repetition_penalty = f32::MAX,
        |p| p.frequency_penalty = f32::MAX,
        |p| p.frequency_penalty = f32::MIN,
        |p| p.temperature = f32::MIN_POSITIVE,
        |p| p.temperature = f32::MAX,
        |p| p.logit_bias = vec![(0, f32::MAX), (0, f32::MAX), (1, f32::MIN)],
    ] {
        let sampled = sampler(edit).sample(&mut [9.0, -9.0, f32::MAX, f32::MIN], &[0, 1, 2], &[0, 0, 1, 3]);
        assert!(sampled.is_ok_and(|s| s.id < 4));
    }
}

/// Chi-square of counts against probabilities.
fn chi_square(counts: &[u32], probabilities: &[f64]) -> f64 {
    let total = f64::from(counts.iter().sum::<u32>());
    counts.iter().zip(probabilities).map(|(&n, p)| (f64::from(n) - total * p).powi(2) / (total * p)).sum()
}

#[test]
fn draws_over_seeds_and_over_positions_follow_the_distribution() {
    let probabilities = [0.5, 0.25, 0.125, 0.0625, 0.0625];
    let history = vec![0; 20_000];
    let (mut over_seeds, mut over_positions) = ([0; 5], [0; 5]);
    let fixed = sampler(|p| p.seed = 11);
    for index in 0..20_000 {
        let seeded = sampler(|p| p.seed = index as u64);
        over_seeds[seeded.sample(&mut HALVES.clone(), &[], &[]).expect("finite").id as usize] += 1;
        let sampled = fixed.sample(&mut HALVES.clone(), &history[..index], &[]).expect("finite");
        over_positions[sampled.id as usize] += 1;
    }
    // 18.5 is the 99.9 % quantile for 4 degrees of freedom.
    for counts in [over_seeds, over_positions] {
        let found = chi_square(&counts, &probabilities);
        assert!(found < 18.5, "{counts:?}: chi-square {found}");
    }
}

#[test]
fn the_position_counts_prompt_and_generated_alike() {
    let sampler = sampler(|p| p.seed = 3);
    for at in 0..50 {
        let history = vec![1; 50];
        let split = sampler.sample(&mut HALVES.clone(), &history[..at], &history[at..]);
        assert_eq!(split, sampler.sample(&mut HALVES.clone(), &history, &[]));
    }
}

/// The filters, written the slow and plain way.
fn reference_kept(params: &SamplingParams, logits: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    if params.top_k > 0 && params.top_k < order.len() {
        let floor = logits[order[params.top_k - 1] as usize];
        order.retain(|&id| logits[id as usize] >= floor);
    }
    let largest = logits[order[0] as usize];
    let weight = |id: u32| ((logits[id as usize] - largest) / params.temperature).exp();
    if params.top_p < 1.0 {
        // Summed in the order of ids, as a float sum depends on its order.
        let mut by_id = order.clone();
        by_id.sort_unstable();
        let total: f64 = by_id.iter().map(|&id| f64::from(weight(id))).sum();
        let mut before = 0.0;
        let mut index = 0;
        order.retain(|&id| {
            let keep = index == 0 || before < f64::from(params.top_p) * total;
            before += f64::from(weight(id));
            index += 1;
            keep
        });
    }
    order.retain(|&id| weight(id) >= params.min_p);
    order.sort_unstable();
    order
}

proptest! {
    #[test]
    fn the_filters_equal_the_plain_ones(
        logits in prop::collection::vec(prop_oneof![3 => -8.0f32..8.0, 1 => Just(1.0f32)], 1..400),
        top_k in 0usize..80,
        top_p in 0.0f32..1.2,
        min_p in prop_oneof![Just(0.0f32), 0.0f32..1.0],
        temperature in 0.1f32..3.0,
        seed: u64,
    ) {
        let params = SamplingParams { top_k, top_p: top_p.min(1.0), min_p, temperature, seed, ..SamplingParams::default() };
        let expected = reference_kept(&params, &logits);
        let sampler = Sampler::new(params).expect("valid parameters");
        let largest = logits.iter().copied().fold(f32::MIN, f32::max);
        let found: Vec<u32> = sampler.keep(&logits, largest).into_iter().map(|c| c.0).collect();
        prop_assert_eq!(&found, &expected);
        let mut row = logits.clone();
        let sampled = sampler.sample(&mut row, &[], &[]).expect("finite");
        prop_assert!(expected.contains(&sampled.id));
        prop_assert_eq!(sampler.sample(&mut row, &[], &[]).expect("finite"), sampled);
        prop_assert_eq!(row, logits);
        prop_assert!(sampled.logprob <= 1e-6);
    }

    #[test]
    fn the_kth_largest_equals_a_full_sort(values in prop::collection::vec(-5i8..5, 1..100), k in 1usize..100) {
        let values: Vec<f32> = values.into_iter().map(f32::from).collect();
        let mut sorted = values.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let expected = if k >= sorted.len() { f32::NEG_INFINITY } else { sorted[k - 1] };
        prop_assert_eq!(kth_largest(&values, k), expected);
    }
}

#[test]
fn typical_p_keeps_what_transformers_keeps() {
    let logits = [1.2, 0.3, -0.5, 2.5, 0.0, 1.1, -2.0, 0.9];
    // `TypicalLogitsWarper` of transformers 5.23.
    let cases: [(f32, &[u32]); 4] =
        [(0.1, &[0]), (0.3, &[0, 5, 7]), (0.5, &[0, 3, 5, 7]), (0.9, &[0, 1, 3, 5, 7])];
    for (typical_p, expected) in cases {
        let ids: Vec<u32> =
            kept(|p| p.typical_p = typical_p, &logits, &[], &[]).iter().map(|c| c.0).collect();
        assert_eq!(ids, expected, "{typical_p}");
    }
    // One likely id among many rare ones: surprises differ, and the first alone has the mass.
    let flat: Vec<f32> = std::iter::once(0.7).chain([0.3 / 999.0; 999]).map(f32::ln).collect();
    assert_eq!(kept(|p| p.typical_p = 0.2, &flat, &[], &[]), [(0, 1.0)]);
    assert_eq!(kept(|p| p.typical_p = 0.2, &[0.0], &[], &[]), [(0, 1.0)]);
}

#[test]
fn top_n_sigma_counts_deviations_below_the_largest_whatever_the_temperature() {
    // Mean 1, deviation √2.5.
    let logits = [3.0, 2.0, 0.0, -1.0, f32::NEG_INFINITY];
    for temperature in [0.5, 2.0] {
        let ids = |n: f32| -> Vec<u32> {
            let edit = |p: &mut SamplingParams| (p.top_n_sigma, p.temperature) = (n, temperature);
            kept(edit, &logits, &[], &[]).iter().map(|c| c.0).collect()
        };
        assert_eq!(ids(0.5), [0]);
        assert_eq!(ids(0.7), [0, 1]);
        assert_eq!(ids(2.0), [0, 1, 2]);
        assert_eq!(ids(0.0), [0, 1, 2, 3]);
    }
}

#[test]
fn dry_penalises_by_the_length_of_the_repeat() {
    let edit = |p: &mut SamplingParams| (p.dry_multiplier, p.dry_base) = (0.5, 2.0);
    // 7 8 9 was followed by 1, 9 alone by 2.
    let found = adjusted(edit, &[0.0; 4], &[7, 8, 9, 1, 9, 2], &[7, 8, 9]);
    assert_eq!(found, [0.0, -1.0, 0.0, 0.0]);
    let breaking = |p: &mut SamplingParams| {
        edit(p);
        p.dry_sequence_breakers = vec![8];
    };
    assert_eq!(adjusted(breaking, &[0.0; 4], &[7, 8, 9, 1, 9, 2], &[7, 8, 9]), [0.0; 4]);
}

#[test]
fn ngrams_do_not_repeat() {
    let found = adjusted(|p| p.no_repeat_ngram_size = 2, &[0.0; 4], &[1, 2, 3], &[1, 3, 1]);
    assert_eq!(found, [0.0, 0.0, f32::NEG_INFINITY, f32::NEG_INFINITY]);
    let forced = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
    assert_eq!(adjusted(|p| p.no_repeat_ngram_size = 1, &forced, &[1], &[]), forced);
}

#[test]
fn epsilon_and_eta_keep_what_transformers_keeps() {
    let logits = [2.0, 1.5, 1.0, 0.0, -1.0, -2.0, -3.0, 0.5];
    // `EpsilonLogitsWarper` and `EtaLogitsWarper` of transformers 5.24.0.
    let cases: [(f32, f32, &[u32]); 10] = [
        (0.02, 0.0, &[0, 1, 2, 3, 4, 7]),
        (0.05, 0.0, &[0, 1, 2, 3, 7]),
        (0.1, 0.0, &[0, 1, 2]),
        (0.6, 0.0, &[0]),
        (0.0, 0.001, &[0, 1, 2, 3, 4, 5, 6, 7]),
        (0.0, 0.02, &[0, 1, 2, 3, 4, 7]),
        (0.0, 0.1, &[0, 1, 2, 7]),
        (0.0, 0.3, &[0, 1, 2]),
        (0.0, 0.9, &[0, 1]),
        (0.05, 0.3, &[0, 1, 2]),
    ];
    let ids = |epsilon: f32, eta: f32, logits: &[f32]| -> Vec<u32> {
        let set = |p: &mut SamplingParams| (p.epsilon_cutoff, p.eta_cutoff) = (epsilon, eta);
        kept(set, logits, &[], &[]).iter().map(|c| c.0).collect()
    };
    for (epsilon, eta, expected) in cases {
        assert_eq!(ids(epsilon, eta, &logits), expected, "{epsilon} {eta}");
    }
    assert_eq!(ids(0.2, 0.9, &[0.0; 8]).len(), 8);
}
