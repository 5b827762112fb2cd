//! What must hold for every decoder whatever its weights.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;

use andiron_core::{Documents, Forward, KvCache, KvCacheDtype, PaddingMask};
use andiron_kernels::random::Seed;
use andiron_models::decoder::gpt2::Gpt2Config;
use andiron_models::generate::{
    CausalLm, Decoding, FinishReason, GenerateError, GenerateOptions, Generated, Logits, SamplingParams,
    Token, WhenFull, generate_batch,
};
use andiron_models::{Decoder, DecoderBundle, DecoderConfig};
use common::{assert_close, device, floats, ids};
use proptest::prelude::*;
use serde_json::{Value, json};

const VOCABULARY: usize = 23;
const CONTEXT: usize = 70;
const TOLERANCE: f32 = 1e-4;

/// Every architecture, with what changes who sees whom and where.
fn configs() -> Vec<DecoderConfig> {
    let gated = |model_type: &str, more: Value| {
        let mut config = json!({
            "model_type": model_type, "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 20,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": CONTEXT, "initializer_range": 0.3,
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(config).unwrap_or_else(|error| panic!("{model_type}: {error}"))
    };
    let neox = |more: Value| {
        let mut config = json!({
            "model_type": "gpt_neox", "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 20,
            "num_hidden_layers": 2, "num_attention_heads": 3, "max_position_embeddings": CONTEXT,
            "initializer_range": 0.3,
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value::<DecoderConfig>(config).unwrap()
    };
    let gpt2 = Gpt2Config {
        n_positions: CONTEXT,
        n_embd: 24,
        n_head: 3,
        n_layer: 2,
        initializer_range: 0.3,
        ..Gpt2Config::nano(VOCABULARY)
    };
    let yarn = json!({
        "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": CONTEXT / 2,
    });
    vec![
        DecoderConfig::Gpt2(gpt2),
        gated("llama", json!({ "head_dim": 10, "attention_bias": true, "mlp_bias": true })),
        gated(
            "llama",
            json!({ "num_key_value_heads": 1, "tie_word_embeddings": true, "rope_scaling": yarn }),
        ),
        gated("mistral", json!({ "sliding_window": 5 })),
        gated("qwen2", json!({ "use_sliding_window": true, "sliding_window": 3, "max_window_layers": 1 })),
        gated(
            "qwen3",
            json!({
                "head_dim": 8, "use_sliding_window": true, "sliding_window": 4, "max_window_layers": 1,
            }),
        ),
        gated("gemma3_text", json!({ "head_dim": 8, "sliding_window": 4, "sliding_window_pattern": 2 })),
        neox(json!({})),
        neox(json!({ "use_parallel_residual": false, "rotary_pct": 1.0 })),
    ]
}

const N_CONFIGS: usize = 9;

fn bundle(which: usize) -> DecoderBundle {
    DecoderBundle::init(configs().swap_remove(which), Seed::new(5), &device())
}

/// A Llama whose rotary frequencies depend on the length of a text.
fn with_dynamic_scaling() -> DecoderBundle {
    let config = json!({
        "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 20,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 8, "initializer_range": 0.3,
        "rope_scaling": { "rope_type": "dynamic", "factor": 10.0 },
    });
    DecoderBundle::init(serde_json::from_value(config).unwrap(), Seed::new(5), &device())
}

/// Logits of every position, computed at once.
fn whole(bundle: &DecoderBundle, rows: &[Vec<u32>]) -> Vec<f32> {
    let hidden_btd = bundle.model.hidden(ids(rows, &device()), &mut Forward::evaluation());
    floats(bundle.model.logits(hidden_btd))
}

fn log_probabilities(logits: &[f32]) -> Vec<f32> {
    let of = |logits: &[f32]| {
        let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
        logits.iter().map(|logit| logit - sum.ln()).collect::<Vec<_>>()
    };
    logits.chunks_exact(VOCABULARY).flat_map(of).collect()
}

fn sequence(len: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0..VOCABULARY as u32, len)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn cached_equals_uncached(
        which in 0..N_CONFIGS,
        ids in sequence(2..CONTEXT),
        cuts in prop::collection::vec(1..9usize, 1..CONTEXT),
    ) {
        let bundle = bundle(which);
        let mut cache = bundle.begin();
        let mut piecewise = Vec::new();
        let mut rest = ids.as_slice();
        for cut in cuts.into_iter().chain([CONTEXT]) {
            if rest.is_empty() {
                break;
            }
            let (piece, left) = rest.split_at(cut.min(rest.len()));
            piecewise.extend(bundle.forward(&mut cache, piece, Logits::All));
            rest = left;
        }
        assert_close("logits", &piecewise, &whole(&bundle, std::slice::from_ref(&ids)), TOLERANCE);
    }

    /// As read by a text that goes on: in parts of a prompt, then token by token.
    #[test]
    fn a_cache_in_bf16_changes_log_probabilities_by_little(
        which in 0..N_CONFIGS,
        ids in sequence(20..CONTEXT),
        cuts in prop::collection::vec(1..9usize, 1..5),
    ) {
        let continued = |dtype| {
            let bundle = bundle(which).with_kv_cache_dtype(dtype);
            let mut cache = bundle.begin();
            let (mut logits, mut rest) = (Vec::new(), ids.as_slice());
            for cut in cuts.iter().copied().chain(std::iter::repeat(1)) {
                if rest.is_empty() {
                    break;
                }
                let (piece, left) = rest.split_at(cut.min(rest.len()));
                logits.extend(bundle.forward(&mut cache, piece, Logits::All));
                rest = left;
            }
            (log_probabilities(&logits), cache.n_bytes())
        };
        let (exact, bytes) = continued(KvCacheDtype::F32);
        let (rounded, half) = continued(KvCacheDtype::Bf16);
        prop_assert_eq!(bytes, 2 * half);
        prop_assert_ne!(&exact, &rounded);
        // Heads as narrow as these average little of the rounding of single elements, so only the mean is bounded.
        let apart: f32 = rounded.iter().zip(&exact).map(|(rounded, exact)| (rounded - exact).abs()).sum();
        prop_assert!(apart / (exact.len() as f32) < 2e-2, "{apart} over {}", exact.len());
    }

    #[test]
    fn a_row_of_a_batch_equals_the_row_alone(which in 0..N_CONFIGS, a in sequence(12), b in sequence(12)) {
        let bundle = bundle(which);
        let both = whole(&bundle, &[a.clone(), b.clone()]);
        let (first, second) = both.split_at(12 * VOCABULARY);
        assert_close("first row", first, &whole(&bundle, &[a]), TOLERANCE);
        assert_close("second row", second, &whole(&bundle, &[b]), TOLERANCE);
    }

    #[test]
    fn padding_is_invisible(
        which in 0..N_CONFIGS,
        a in sequence(1..12),
        b in sequence(12),
        filling in 0..VOCABULARY as u32,
    ) {
        let bundle = bundle(which);
        let mut padded = vec![filling; 12 - a.len()];
        padded.extend(&a);
        let rows = PaddingMask::padded_left([12 - a.len(), 0]);
        let hidden_btd =
            bundle.model.hidden(ids(&[padded, b.clone()], &device()), &mut Forward::evaluation().with_padding_mask(rows));
        let logits = floats(bundle.model.logits(hidden_btd));
        let (first, second) = logits.split_at(12 * VOCABULARY);
        let alone = [&a, &b].map(|row| whole(&bundle, std::slice::from_ref(row)));
        assert_close("padded row", &first[(12 - a.len()) * VOCABULARY..], &alone[0], TOLERANCE);
        assert_close("whole row", second, &alone[1], TOLERANCE);
    }

    /// Rows may be longer than the model reads: documents are not.
    #[test]
    fn documents_of_a_row_are_as_if_alone(
        which in 0..=N_CONFIGS,
        first in prop::collection::vec(sequence(1..CONTEXT), 1..5),
        second in sequence(1..CONTEXT),
    ) {
        let bundle = if which < N_CONFIGS { bundle(which) } else { with_dynamic_scaling() };
        let columns = first.concat().len().max(second.len());
        let rows = [first.concat(), second.clone()].map(|mut ids| {
            ids.resize(columns, 1);
            ids
        });
        let documents = [first, vec![second]];
        let longest = documents.iter().flatten().map(Vec::len).max().unwrap();
        // Padding is documents too.
        let starts = |documents: &[Vec<u32>]| {
            let start = |n: usize| documents[..n].concat().len();
            let padding = (start(documents.len())..columns).step_by(longest);
            (0..documents.len()).map(start).chain(padding).collect::<Vec<_>>()
        };
        let mut cx = Forward::evaluation()
            .with_documents(Documents::new(documents.each_ref().map(|documents| starts(documents))));
        let hidden_btd = bundle.model.hidden(ids(&rows, &device()), &mut cx);
        let logits = floats(bundle.model.logits(hidden_btd));
        for (logits, documents) in logits.chunks_exact(columns * VOCABULARY).zip(&documents) {
            for (start, document) in starts(documents).into_iter().zip(documents) {
                let ours = &logits[start * VOCABULARY..][..document.len() * VOCABULARY];
                assert_close("document", ours, &whole(&bundle, std::slice::from_ref(document)), TOLERANCE);
            }
        }
    }

    /// Two sequences begin in caches of their own and go on together, by different numbers of ids at a time; the first
    /// one is continued in two ways at last.
    #[test]
    fn rows_of_a_cache_go_on_from_where_they_are(
        which in 0..N_CONFIGS,
        begun in (sequence(1..8), sequence(1..8)),
        more in (sequence(1..8), sequence(1..8)),
        last in (0..VOCABULARY as u32, 0..VOCABULARY as u32),
    ) {
        let bundle = bundle(which);
        let begin = |ids: &[u32]| {
            let mut cache = bundle.begin();
            bundle.forward(&mut cache, ids, Logits::Last);
            cache
        };
        let caches = [begin(&begun.0), begin(&begun.1)];
        let [first, _] = caches.clone();
        let mut cache = KvCache::join(caches);
        let lens = [more.0.len(), more.1.len()];
        let columns = lens[0].max(lens[1]);
        let padded = [&more.0, &more.1].map(|ids| {
            ids.iter().copied().chain(std::iter::repeat(1)).take(columns).collect::<Vec<_>>()
        });
        let mut cx = Forward::cached(&mut cache).with_padding_mask(PaddingMask::padded_right(lens));
        let hidden_btd = bundle.model.hidden(ids(&padded, &device()), &mut cx);
        let together = floats(bundle.model.logits(hidden_btd));
        let held = [&begun.0, &begun.1].map(Vec::len);
        prop_assert_eq!(cache.lens().collect::<Vec<_>>(), [held[0] + lens[0], held[1] + lens[1]]);
        let texts = [[begun.0.as_slice(), &more.0].concat(), [begun.1.as_slice(), &more.1].concat()];
        for row in 0..2 {
            let ours = &together[row * columns * VOCABULARY..][..lens[row] * VOCABULARY];
            let alone = whole(&bundle, std::slice::from_ref(&texts[row]));
            assert_close("row", ours, &alone[held[row] * VOCABULARY..], TOLERANCE);
        }
        cache.select(&[1, 0, 0]);
        let column = [[last.0], [last.0], [last.1]].map(|id| id.to_vec());
        let hidden_btd = bundle.model.hidden(ids(&column, &device()), &mut Forward::cached(&mut cache));
        let together = floats(bundle.model.logits(hidden_btd));
        let texts = [(1, last.0), (0, last.0), (0, last.1)].map(|(row, id)| [texts[row].as_slice(), &[id]].concat());
        for (ours, text) in together.chunks_exact(VOCABULARY).zip(&texts) {
            let alone = whole(&bundle, std::slice::from_ref(text));
            assert_close("continued", ours, &alone[(text.len() - 1) * VOCABULARY..], TOLERANCE);
        }
        // What was done with the rows together is nothing to the copy that was taken before.
        let mut alone = first;
        let logits = bundle.forward(&mut alone, &more.0, Logits::All);
        let whole = whole(&bundle, &[[begun.0.as_slice(), &more.0].concat()]);
        assert_close("copy", &logits, &whole[held[0] * VOCABULARY..], TOLERANCE);
    }

    /// The first one writes alone for a while, until the others have read their prompts.
    #[test]
    fn generations_go_together_as_they_go_alone(
        which in 0..N_CONFIGS,
        prompts in prop::collection::vec(sequence(1..20), 2..5),
        seed: u64,
        dtype in prop::sample::select(KvCacheDtype::ALL.to_vec()),
    ) {
        let bundle = bundle(which).with_kv_cache_dtype(dtype);
        let options = |row: usize| GenerateOptions {
            sampling: SamplingParams { seed: seed.wrapping_add(row as u64), ..SamplingParams::default() },
            max_new_tokens: 10 + row,
            ..GenerateOptions::default()
        };
        let begin = |(row, prompt): (usize, &Vec<u32>)| Decoding::new(&bundle, prompt, options(row)).unwrap();
        let mut alone: Vec<_> = prompts.iter().enumerate().map(begin).collect();
        for decoding in &mut alone {
            while decoding.next_token(&bundle).unwrap().is_some() {}
        }
        let mut together: Vec<_> = prompts.iter().enumerate().map(begin).collect();
        for _ in 0..3 {
            together[0].next_token(&bundle).unwrap();
        }
        for decoding in &mut together[1..] {
            decoding.next_token(&bundle).unwrap();
        }
        loop {
            let mut going: Vec<_> = together.iter_mut().filter(|decoding| decoding.is_decoding()).collect();
            if going.is_empty() {
                break;
            }
            for progress in Decoding::decode_step_batch(&bundle, &mut going).unwrap() {
                progress.unwrap();
            }
        }
        for (together, alone) in together.iter().zip(&alone) {
            prop_assert_eq!(together.generated(), alone.generated());
            prop_assert!(together.finish_reason().is_some());
        }
    }

    #[test]
    fn logits_do_not_see_the_future(
        which in 0..N_CONFIGS,
        mut ids in sequence(10),
        at in 1..10usize,
        other in 0..VOCABULARY as u32,
    ) {
        let bundle = bundle(which);
        let before = whole(&bundle, std::slice::from_ref(&ids));
        ids[at] = other;
        let after = whole(&bundle, &[ids]);
        prop_assert_eq!(&before[..at * VOCABULARY], &after[..at * VOCABULARY]);
    }
}

#[test]
fn every_architecture_is_tried() {
    let tried = configs();
    assert_eq!(tried.len(), N_CONFIGS);
    for model_type in DecoderConfig::MODEL_TYPES {
        assert!(tried.iter().any(|config| config.model_type() == *model_type), "{model_type}");
    }
}

#[test]
fn the_last_row_of_logits_is_the_last_of_all() {
    let bundle = bundle(0);
    let all = bundle.forward(&mut bundle.begin(), &[3, 1, 4], Logits::All);
    let last = bundle.forward(&mut bundle.begin(), &[3, 1, 4], Logits::Last);
    assert_close("last", &last, &all[2 * VOCABULARY..], 1e-6);
}

#[test]
fn weights_are_a_function_of_the_seed() {
    let config = DecoderConfig::Gpt2(Gpt2Config::nano(VOCABULARY));
    let logits =
        |seed| whole(&DecoderBundle::init(config.clone(), Seed::new(seed), &device()), &[vec![1, 2]]);
    assert_eq!(logits(1), logits(1));
    assert_ne!(logits(1), logits(2));
}

#[test]
fn lookup_gives_the_same_greedy_text() {
    for which in 0..N_CONFIGS {
        let bundle = bundle(which);
        let text = |prompt_lookup| {
            let options = GenerateOptions {
                sampling: SamplingParams::greedy(),
                max_new_tokens: 40,
                prompt_lookup,
                ..GenerateOptions::default()
            };
            let mut decoding = Decoding::new(&bundle, &[3, 1, 4, 1, 5, 3, 1], options).unwrap();
            while decoding.next_token(&bundle).unwrap().is_some() {}
            decoding.generated().to_vec()
        };
        assert_eq!(text(0), text(5), "{}", bundle.config.model_type());
    }
}

/// What one prompt gets alone.
fn alone(
    bundle: &DecoderBundle,
    prompt: &[u32],
    options: GenerateOptions,
) -> Result<Generated, GenerateError> {
    let mut decoding = Decoding::new(bundle, prompt, options)?;
    let mut tokens = Vec::new();
    while let Some(token) = decoding.next_token(bundle)? {
        tokens.push(token);
    }
    Ok(Generated { tokens, finish_reason: decoding.finish_reason().unwrap() })
}

fn ids_of(generated: &Generated) -> (Vec<u32>, FinishReason) {
    (generated.tokens.iter().map(|token| token.id).collect(), generated.finish_reason)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn prompts_of_any_lengths_get_together_what_each_gets_alone(
        which in 0..N_CONFIGS,
        prompts in prop::collection::vec((sequence(1..CONTEXT - 1), 0..CONTEXT, any::<u64>(), any::<bool>()), 1..6),
    ) {
        let bundle = bundle(which);
        let request = |(prompt, max_new_tokens, seed, greedy): &(Vec<u32>, usize, u64, bool)| {
            let temperature = if *greedy { 0.0 } else { 1.0 };
            let sampling = SamplingParams { temperature, seed: *seed, ..SamplingParams::default() };
            let options = GenerateOptions {
                sampling,
                max_new_tokens: *max_new_tokens,
                stop_ids: vec![3, 5],
                top_logprobs: 2,
                ..GenerateOptions::default()
            };
            (prompt.clone(), options)
        };
        let requests: Vec<_> = prompts.iter().map(request).collect();
        let mut shown: Vec<Vec<Token>> = vec![Vec::new(); requests.len()];
        let together = generate_batch(&bundle, requests.clone(), |row, token| {
            shown[row].push(token.clone());
            std::ops::ControlFlow::Continue(())
        });
        for (((prompt, options), together), shown) in requests.into_iter().zip(together).zip(shown) {
            let together = together.unwrap();
            prop_assert_eq!(&together.tokens, &shown);
            let alone = alone(&bundle, &prompt, options).unwrap();
            prop_assert_eq!(ids_of(&together), ids_of(&alone));
            let logprobs = |generated: &Generated| -> Vec<f32> {
                let all = |token: &Token| [token.logprob].into_iter().chain(token.top.iter().map(|top| top.1)).collect::<Vec<_>>();
                generated.tokens.iter().flat_map(all).collect()
            };
            assert_close("log-probabilities", &logprobs(&together), &logprobs(&alone), TOLERANCE);
        }
    }
}

#[test]
fn a_row_that_fails_or_is_stopped_harms_no_other() {
    let bundle = bundle(1);
    let options = GenerateOptions {
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        max_new_tokens: 6,
        ..GenerateOptions::default()
    };
    let slide = GenerateOptions { when_full: WhenFull::Slide, ..options.clone() };
    let requests = vec![
        (vec![1, 2, 3], options.clone()),
        (vec![], options.clone()),
        (vec![7], slide),
        (vec![4, 9], options.clone()),
        (vec![1; CONTEXT], options.clone()),
    ];
    let results = generate_batch(&bundle, requests, |row, _| match row {
        3 => std::ops::ControlFlow::Break(()),
        _ => std::ops::ControlFlow::Continue(()),
    });
    assert_eq!(
        ids_of(results[0].as_ref().unwrap()),
        ids_of(&alone(&bundle, &[1, 2, 3], options.clone()).unwrap())
    );
    assert_eq!(results[1], Err(GenerateError::EmptyPrompt));
    assert_eq!(results[2], Err(GenerateError::NotInBatch { option: "when_full: slide" }));
    let stopped = results[3].as_ref().unwrap();
    assert_eq!((stopped.tokens.len(), stopped.finish_reason), (1, FinishReason::Stop));
    assert!(matches!(results[4], Err(GenerateError::PromptTooLong { .. })));
    assert!(generate_batch(&bundle, Vec::new(), |_, _| std::ops::ControlFlow::Continue(())).is_empty());
}

#[test]
fn no_configuration_is_believed_that_claims_endless_layers() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let dir = tempfile::tempdir().unwrap();
    let mut tried = 0;
    for folder in std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(text) = std::fs::read_to_string(folder.join("config.json")) else { continue };
        let config: Value = serde_json::from_str(&text).unwrap();
        let keys =
            ["n_layer", "n_layers", "num_layers", "num_hidden_layers", "encoder_layers", "decoder_layers"];
        for key in keys.into_iter().filter(|key| config.get(*key).is_some_and(Value::is_u64)) {
            let mut config = config.clone();
            config[key] = json!(1u64 << 50);
            // Lists of layers would contradict the number first.
            config.as_object_mut().unwrap().remove("layer_types");
            std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
            let read = andiron_models::AnyConfig::open(dir.path());
            assert!(read.is_err(), "{} with {key}", folder.display());
            tried += 1;
        }
    }
    assert!(tried > 50, "{tried}");
}
