use std::path::{Path, PathBuf};

use andiron_core::Precision;
use andiron_data::batch::{Labels, Sequences, TokenLabels};
use andiron_data::collate::{CollatePacked as _, CollateRecords, Sample};
use andiron_data::records::{Record, columns};
use andiron_kernels::random::Seed;
use andiron_models::adapter::Targets;
use andiron_models::encoder::{EmbedPipeline, Problem};
use andiron_models::{
    Bundle, ClassifierConfig, DecoderConfig, EncoderConfig, LoraConfig, RunPrecision, Seq2SeqConfig,
};
use burn::module::{Module, ModuleMapper, Param};

use super::*;
use crate::optimizer::{Optimizer, OptimizerConfig};
use crate::step::{Computed, StepOptions, compute_shared};
use crate::testing::device;

/// Deviation of losses and of gradient norms from those of transformers, relative to the value.
const CLOSE: f64 = 2e-5;

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../andiron-models/tests/golden")).join(name)
}

fn open<C: FamilyConfig>(name: &str) -> Bundle<C> {
    Bundle::open(&fixture(name), &device()).unwrap()
}

/// Ids that look random.
fn ids(n: usize, k: usize, [low, vocab]: [usize; 2]) -> Vec<u32> {
    (0..n).map(|i| (low + (7 * i * i + 3 * i + k) % (vocab - low)) as u32).collect()
}

/// Three texts of different lengths.
fn texts(vocab: usize, pad: u32) -> Sequences {
    texts_of(&[7, 4, 9], vocab, pad)
}

fn texts_of(lengths: &[usize], vocab: usize, pad: u32) -> Sequences {
    let rows: Vec<_> = lengths.iter().enumerate().map(|(k, &n)| ids(n, k, [5, vocab])).collect();
    Sequences::padded(&rows, pad)
}

/// Some of the tokens are to be predicted.
fn masked(vocab: usize, pad: u32) -> HostBatch {
    let inputs = texts(vocab, pad);
    let lengths = inputs.lengths.clone().unwrap();
    let is_target = |at: usize| at % 9 % 3 == 1 && at % 9 < lengths[at / 9];
    let weights = (0..inputs.ids.len()).map(|at| if is_target(at) { 1.0 } else { 0.0 }).collect();
    let ids = inputs.ids.clone();
    HostBatch::tokens(inputs, ids, weights)
}

fn pairs(vocab: usize, pad: u32, start: u32) -> HostBatch {
    let targets: Vec<_> =
        [5, 8, 3].into_iter().enumerate().map(|(k, n)| ids(n, k + 11, [5, vocab])).collect();
    let shifted = targets.iter().map(|ids| [&[start], &ids[..ids.len() - 1]].concat());
    let decoder_inputs = Some(Sequences::padded(&shifted.collect::<Vec<_>>(), pad));
    let weights = targets.iter().flat_map(|ids| (0..8).map(move |at| if at < ids.len() { 1.0 } else { 0.0 }));
    let (weights, ids) = (weights.collect(), Sequences::padded(&targets, pad).ids);
    HostBatch {
        inputs: texts(vocab, pad),
        decoder_inputs,
        labels: Labels::Tokens(TokenLabels { ids, weights }),
    }
}

fn labelled(vocab: usize, pad: u32, labels: Labels) -> HostBatch {
    HostBatch { inputs: texts(vocab, pad), decoder_inputs: None, labels }
}

/// Zeros and ones for three labels.
fn several() -> Labels {
    let value = |at: u32| ((at % 3 + at / 3) % 2) as f32;
    Labels::Values { values: (0..9).map(value).collect(), width: 3 }
}

fn numbers() -> Labels {
    Labels::Values { values: vec![-0.25, 0.25, 0.75], width: 1 }
}

fn computed<O: Objective>(model: &ModelOf<O>, objective: &O, batches: &[HostBatch]) -> Computed {
    compute_shared(model, objective, batches, StepOptions::new(Precision::F32))
}

/// Adds multiples of gradients to the parameters.
struct Shift {
    gradients: std::vec::IntoIter<Option<Tensor<1>>>,
    by: f32,
}

impl ModuleMapper for Shift {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.next().unwrap() else { return param };
        let by = self.by;
        param.map(|value| {
            let shape = value.shape();
            Tensor::from_inner(value.inner() + gradient.reshape(shape).mul_scalar(by)).require_grad()
        })
    }
}

/// Loss and gradient norm are those given, the gradient is the slope of the loss, rows may be divided into micro-batches,
/// training lowers the loss, and validation gives the same loss as training.
#[track_caller]
fn check<O: Objective>(objective: &O, bundle: Bundle<O::Family>, batch: &HostBatch, [loss, norm]: [f64; 2]) {
    let model = bundle.model.train();
    let found = computed(&model, objective, std::slice::from_ref(batch));
    let close = |found: f64, wanted: f64| (found - wanted).abs() < CLOSE * wanted.abs().max(1.0);
    assert!(close(found.loss.into(), loss), "loss {} for {loss}", found.loss);
    assert!(close(found.grad_norm, norm), "gradient norm {} for {norm}", found.grad_norm);

    let twice = computed(&model, objective, &[batch.clone(), batch.clone()]);
    assert!(
        close(twice.loss.into(), loss) && close(twice.grad_norm, norm),
        "{} {}",
        twice.loss,
        twice.grad_norm
    );
    assert_eq!(twice.tokens, 2 * found.tokens);

    // Along the gradient the loss rises by its squared norm.
    let step = 2e-3 / norm as f32;
    let moved = |by| {
        let gradients = found.gradients.clone().into_iter();
        let model = model.clone().map(&mut Shift { gradients, by });
        f64::from(computed(&model, objective, std::slice::from_ref(batch)).loss)
    };
    let slope = (moved(step) - moved(-step)) / f64::from(2.0 * step);
    assert!((slope - norm * norm).abs() < 0.02 * norm * norm, "slope {slope} for {}", norm * norm);

    let (device, mut tally) = (device(), O::Tally::default());
    let pass = Pass::evaluation(&device);
    let sum = objective.measure(&model.valid(), batch, &pass, &mut tally).into_scalar::<f32>();
    let mean = f64::from(sum) / objective.weight(batch);
    assert!(close(mean, loss), "validation loss {mean} for {loss}");
    let measured = Measured { loss: mean, n_targets: batch.n_targets() as u64, bytes_per_target: None };
    assert!(objective.metrics(&measured, &tally).values.iter().all(|(_, value)| value.is_finite()));

    let settings = OptimizerConfig::constant(1e-2);
    let mut optimizer = Optimizer::new(&model, &settings, &device).unwrap();
    let mut model = model;
    for _ in 0..8 {
        let found = computed(&model, objective, std::slice::from_ref(batch));
        model = optimizer.update(model, found.gradients, settings.lr, 1.0);
    }
    let last = computed(&model, objective, std::slice::from_ref(batch)).loss;
    assert!(f64::from(last) < 0.8 * loss, "the loss goes from {loss} to {last}");
}

// The numbers below are the loss and the norm of all gradients in transformers 5.24.0 and PyTorch 2.15.0, in evaluation mode:
// the model's own loss of the same batch, with -100 where a weight is 0.

#[test]
fn next_tokens_have_the_loss_of_transformers() {
    let causal = |bundle: Bundle<DecoderConfig>, expected| {
        let rows: Vec<_> = (0..3).map(|k| ids(10, k, [0, 61])).collect();
        let batch = andiron_data::collate::Causal { columns: 9, pad: 0 }.batch(&rows);
        check(&Causal, bundle, &batch, expected);
    };
    causal(open("gpt2"), [4.166292, 2.526343]);
    causal(open("llama"), [4.149722, 2.651853]);
}

/// Collates records of the objective's own shape.
fn collated(collator: &dyn CollateRecords, records: Vec<Record<'_>>) -> HostBatch {
    let sample = |data| Sample { data, seed: Seed::new(0) };
    collator.collate(&records.into_iter().map(sample).collect::<Vec<_>>())
}

// By the `SFTTrainer` of trl 1.16.0, whose loss is that of the labels.
#[test]
fn answers_have_the_loss_of_trl() {
    let record = |(k, n): (usize, usize)| {
        let weights: Vec<f32> = (0..n).map(|at| if at % 4 >= 2 { 1.0 } else { 0.0 }).collect();
        Record::default().with_ids(columns::IDS, ids(n, k, [0, 61])).with_numbers(columns::WEIGHTS, weights)
    };
    let records = [10, 7, 9].into_iter().enumerate().map(record).collect();
    let batch = collated(&andiron_data::collate::Supervised { limit: 99, pad: 0 }, records);
    check(&Chat, open("llama"), &batch, [4.163461, 3.928234]);
    check(&Chat, open("gpt2"), &batch, [4.253588, 4.262044]);
}

// Each text alone in transformers 5.24.0, and the mean over all targets. The `SFTTrainer` of trl 1.16.0 with `packing=True` has
// the same loss and gradient norm, of one row with all of them.
#[test]
fn packed_texts_have_the_loss_that_they_have_alone() {
    let record = |(k, n): (usize, usize)| {
        let record = Record::default().with_ids(columns::IDS, ids(n, k, [0, 61]));
        Sample { data: record.with_numbers(columns::WEIGHTS, vec![1.0; n]), seed: Seed::new(0) }
    };
    let records: Vec<_> = [10, 7, 9, 5, 12, 2].into_iter().enumerate().map(record).collect();
    let supervised = andiron_data::collate::Supervised { limit: 99, pad: 0 };
    // Longer than GPT-2's 24 positions.
    let row = supervised.collate_packed(std::slice::from_ref(&records));
    assert_eq!((row.inputs.rows, row.inputs.columns), (1, 39));
    let rows = supervised.collate_packed(&[records[..4].to_vec(), records[4..].to_vec()]);
    // Padding too is in documents, none longer than the longest text.
    assert_eq!(rows.inputs.documents.as_ref().unwrap()[1], [0, 11, 12, 23]);
    let alone = supervised.collate(&records);
    for (name, expected) in [("llama", [4.181838, 2.223013]), ("gpt2", [4.203721, 2.008358])] {
        for batch in [&row, &rows, &alone] {
            check(&Causal, open(name), batch, expected);
        }
        // Value by value, the gradients are those of the texts alone.
        let bundle: Bundle<DecoderConfig> = open(name);
        let model = bundle.model.train();
        let [packed, alone] =
            [&row, &alone].map(|batch| computed(&model, &Chat, std::slice::from_ref(batch)));
        assert!((packed.loss - alone.loss).abs() < 1e-6, "{name}: {} and {}", packed.loss, alone.loss);
        for (packed, alone) in packed.gradients.iter().flatten().zip(alone.gradients.iter().flatten()) {
            let difference = (packed.clone() - alone.clone()).abs().max().into_scalar::<f32>();
            assert!(difference < 1e-5, "{name}: {difference}");
        }
    }
}

/// Pairs of answers to three prompts, with log-probabilities of a reference.
fn preferences() -> HostBatch {
    let record = |[prompt, chosen, rejected]: [(usize, usize); 3], reference: [f32; 2]| {
        let [prompt, chosen, rejected] = [prompt, chosen, rejected].map(|(n, k)| ids(n, k, [0, 61]));
        let lengths = [&chosen, &rejected].map(|answer| (prompt.len() + answer.len()) as u32);
        let weights = |answer: &[u32]| [vec![0.0; prompt.len()], vec![1.0; answer.len()]].concat();
        let weights = [weights(&chosen), weights(&rejected)].concat();
        Record::default()
            .with_ids(columns::IDS, [&prompt[..], &chosen, &prompt, &rejected].concat())
            .with_ids(columns::LENGTHS, lengths.to_vec())
            .with_numbers(columns::WEIGHTS, weights)
            .with_numbers(columns::REFERENCE, reference.to_vec())
    };
    let records = vec![
        record([(3, 0), (6, 20), (4, 33)], [-25.0, -20.0]),
        record([(5, 7), (2, 41), (5, 50)], [-8.0, -19.5]),
        record([(4, 9), (3, 3), (3, 15)], [-12.5, -13.0]),
    ];
    collated(&andiron_data::collate::Preference { limit: 99, pad: 0 }, records)
}

// By the `DPOTrainer` of trl 1.16.0. With label smoothing, which it ignores, by the formula of the paper in PyTorch.
#[test]
fn preferences_have_the_loss_of_trl() {
    let batch = preferences();
    let check = |name: &str, label_smoothing: f32, expected| {
        let config = PreferenceConfig { label_smoothing, ..PreferenceConfig::default() };
        check(&Preference { config }, open(name), &batch, expected);
    };
    check("llama", 0.0, [0.789156, 1.025550]);
    check("llama", 0.2, [0.754825, 0.649595]);
    check("gpt2", 0.0, [0.806226, 1.118770]);
    check("gpt2", 0.2, [0.763502, 0.716878]);
}

// Rewards from the log-probabilities of PyTorch: margins of -0.4309, 0.1263 and -0.2104.
#[test]
fn rewards_tell_chosen_from_rejected() {
    let (objective, mut tally, device) = (Preference::default(), PreferenceTally::default(), device());
    let bundle: Bundle<DecoderConfig> = open("llama");
    let batch = preferences();
    let _ = objective.measure(&bundle.model, &batch, &Pass::evaluation(&device), &mut tally);
    let metrics = objective.metrics(&Measured::default(), &tally).values;
    let expected = [
        ("reward_accuracy", 1.0 / 3.0),
        ("reward_margin", -0.171655),
        ("chosen_reward", -0.176458),
        ("rejected_reward", -0.004803),
    ];
    for ((name, value), (wanted, expected)) in metrics.iter().zip(expected) {
        assert!(name == wanted && (value - expected).abs() < 2e-5, "{name} {value}, not {wanted} {expected}");
    }
    assert_eq!(metrics.len(), 4);
    assert_eq!(objective.metrics(&Measured::default(), &PreferenceTally::default()), Metrics::default());
}

#[test]
fn masked_tokens_have_the_loss_of_transformers() {
    let mut typed = masked(53, 0);
    let lengths = typed.inputs.lengths.clone().unwrap();
    let types: Vec<Vec<u32>> =
        lengths.iter().map(|&n| (0..n).map(|at| u32::from(at >= 2)).collect()).collect();
    typed.inputs = typed.inputs.with_type_ids(&types);
    check(&Masked, open("bert-masked-lm"), &typed, [3.789879, 4.269887]);
    check(&Masked, open("roberta-masked-lm"), &masked(53, 1), [4.047085, 5.097406]);
    check(&Masked, open("distilbert-masked-lm"), &masked(53, 0), [4.050378, 5.602848]);
    check(&Masked, open("modernbert-masked-lm"), &masked(53, 0), [4.249311, 9.035601]);
}

#[test]
fn targets_of_sources_have_the_loss_of_transformers() {
    check(&Seq2Seq::default(), open("bart"), &pairs(47, 1, 2), [5.636276, 7.424909]);
    check(&Seq2Seq::default(), open("t5"), &pairs(43, 0, 0), [4.155142, 3.753412]);
    // Without the gradient of the positions, which transformers trains although they are sines, and with that of the padding
    // token as the start of a target, which PyTorch's `padding_idx` leaves out.
    check(&Seq2Seq::default(), open("marian"), &pairs(47, 46, 46), [4.955430, 4.558099]);
}

// `LabelSmoother` of transformers 5.24.0 and `cross_entropy` of PyTorch 2.15.0 agree on these losses.
#[test]
fn smoothed_targets_have_the_loss_of_transformers() {
    let smoothed = Seq2Seq { label_smoothing: 0.1, scoring: None };
    check(&smoothed, open("bart"), &pairs(47, 1, 2), [5.587127, 6.937839]);
    check(&smoothed, open("t5"), &pairs(43, 0, 0), [4.171731, 3.412941]);
}

#[test]
fn pretraining_of_encoder_decoders_has_the_loss_of_targets() {
    check(&SpanCorruption::default(), open("t5"), &pairs(43, 0, 0), [4.155142, 3.753412]);
    check(&Denoise::default(), open("bart"), &pairs(47, 1, 2), [5.636276, 7.424909]);
}

#[track_caller]
fn check_labels<C: TextClassifier>(
    name: &str,
    (vocab, pad): (usize, u32),
    labels: Labels,
    expected: [f64; 2],
) {
    let bundle: Bundle<C> = open(name);
    let objective = Classify { config: bundle.config.clone() };
    check(&objective, bundle, &labelled(vocab, pad, labels), expected);
}

#[test]
fn labels_of_encoders_have_the_loss_of_transformers() {
    let one = || Labels::Classes(vec![0, 1, 2]);
    check_labels::<EncoderConfig>("bert-classify", (53, 0), several(), [0.668674, 0.453023]);
    check_labels::<EncoderConfig>("distilbert-classify", (53, 0), one(), [1.366071, 1.526802]);
    check_labels::<EncoderConfig>("roberta-classify", (53, 1), numbers(), [0.680394, 6.330594]);
    check_labels::<EncoderConfig>("modernbert-classify", (53, 0), one(), [4.082275, 136.341602]);
}

#[test]
fn labels_of_decoders_have_the_loss_of_transformers() {
    let one = Labels::Classes(vec![0, 1, 2]);
    check_labels::<ClassifierConfig>("llama-classify", (61, 3), one, [1.254186, 3.144238]);
    check_labels::<ClassifierConfig>("qwen2-classify", (61, 3), numbers(), [0.360943, 4.056655]);
    check_labels::<ClassifierConfig>("gpt2-classify", (61, 3), several(), [0.701821, 0.755037]);
}

#[test]
fn labels_of_tokens_have_the_loss_of_transformers() {
    for (name, expected) in
        [("bert-token-classify", [1.356828, 2.279038]), ("modernbert-token-classify", [9.218695, 105.741092])]
    {
        let bundle: Bundle<EncoderConfig> = open(name);
        let labels = bundle.config.labels().to_vec();
        let mut batch = masked(53, 0);
        if let Labels::Tokens(tokens) = &mut batch.labels {
            tokens.ids = (0..27).map(|at| at % labels.len() as u32).collect();
        }
        check(&TokenClassify { labels }, bundle, &batch, expected);
    }
}

// The cross-entropies of transformers, without the logits of padding.
#[test]
fn answers_have_the_loss_of_transformers() {
    let spans = || labelled(53, 0, Labels::Spans(vec![[1, 3], [0, 0], [4, 8]]));
    check(&Answer::default(), open("bert-span"), &spans(), [1.774963, 2.322477]);
    check(&Answer::default(), open("distilbert-span"), &spans(), [1.519660, 2.295144]);
    check(&Answer::default(), open("modernbert-span"), &spans(), [5.171393, 83.917810]);
}

// MultipleNegativesRankingLoss and CoSENTLoss of sentence-transformers 6.2.0, and the squared error of PyTorch's cosines.
#[test]
fn embeddings_have_the_loss_of_sentence_transformers() {
    let batch = |size, scores| HostBatch {
        inputs: texts_of(&[7, 4, 9, 5, 3, 8], 53, 0),
        decoder_inputs: None,
        labels: Labels::Groups { size, scores },
    };
    let objective =
        |scored_loss| Contrastive { pipeline: EmbedPipeline::default(), scale: 20.0, scored_loss };
    let scores = || Some(vec![0.5, 0.0, 1.0]);
    let cosent = objective(ScoredLoss::Cosent);
    check(&cosent, open("bert"), &batch(2, None), [2.446244, 15.120911]);
    check(&cosent, open("bert"), &batch(3, None), [1.957851, 13.514254]);
    check(&cosent, open("bert"), &batch(2, scores()), [1.856683, 20.797449]);
    check(&objective(ScoredLoss::Cosine), open("bert"), &batch(2, scores()), [0.260359, 0.880256]);
}

// PyTorch's binary cross-entropy of the logits of transformers.
#[test]
fn relevance_has_the_loss_of_transformers() {
    let bundle: Bundle<EncoderConfig> = open("roberta-classify");
    let values = [[0.0, 0.0], [1.0, 1.0], [0.25, 2.0]].concat();
    let batch = labelled(53, 1, Labels::Values { values, width: 2 });
    check(&Rerank { config: bundle.config.clone() }, bundle, &batch, [0.719442, 0.606360]);
}

#[test]
fn a_batch_in_which_nothing_is_masked_has_no_loss() {
    let bundle: Bundle<EncoderConfig> = open("bert-masked-lm");
    let mut batch = masked(53, 0);
    batch.labels = Labels::Tokens(TokenLabels { ids: vec![0; 27], weights: vec![0.0; 27] });
    let found = computed(&bundle.model.train(), &Masked, &[batch]);
    assert_eq!((found.loss, found.grad_norm, found.tokens), (0.0, 0.0, 0));
}

#[test]
fn metrics_of_labels_tell_right_from_wrong() {
    let metric = |problem, tally: ClassifyTally, name: &str| {
        let config: Bundle<EncoderConfig> = open("distilbert-classify");
        let head = andiron_models::EncoderHead::Classify { problem };
        let labels = config.config.labels().to_vec();
        let objective = Classify { config: config.config.with_head(head, labels).unwrap() };
        let found = objective.metrics(&Measured::default(), &tally);
        assert_eq!(found.confusion.is_some(), problem == Problem::SingleLabel);
        found.values.iter().find(|(known, _)| known == name).unwrap().1
    };
    let classes = ClassifyTally { classes: vec![(0, 0), (1, 2), (3, 3), (2, 2)], ..ClassifyTally::default() };
    assert_eq!(metric(Problem::SingleLabel, classes, "accuracy"), 0.75);
    let values =
        |values: &[(f32, f32)]| ClassifyTally { values: values.to_vec(), ..ClassifyTally::default() };
    // Two of three given labels are found, and one that is not given.
    let several = values(&[(1.0, 2.0), (0.0, -1.0), (1.0, 0.5), (1.0, -0.1), (0.0, 0.1)]);
    assert!((metric(Problem::MultiLabel, several, "micro_f1") - 2.0 / 3.0).abs() < 1e-12);
    let numbers = values(&[(1.0, 1.0), (2.0, 4.0), (3.0, 9.0), (4.0, 16.0)]);
    assert!((metric(Problem::Regression, numbers.clone(), "pearson") - 0.98437).abs() < 1e-5);
    assert_eq!(metric(Problem::Regression, numbers, "spearman"), 1.0);
}

#[test]
fn padding_changes_no_loss() {
    let bundle: Bundle<Seq2SeqConfig> = open("t5");
    let (model, short) = (bundle.model.train(), pairs(43, 0, 0));
    let wide = |sequences: &Sequences| {
        let rows = (0..sequences.rows).map(|row| [sequences.row(row), &[0; 3]].concat()).collect::<Vec<_>>();
        Sequences { lengths: sequences.lengths.clone(), ..Sequences::padded(&rows, 0) }
    };
    let found = computed(&model, &Seq2Seq::default(), std::slice::from_ref(&short));
    let padded = HostBatch { inputs: wide(&short.inputs), ..short };
    let again = computed(&model, &Seq2Seq::default(), &[padded]);
    assert!((found.loss - again.loss).abs() < 1e-5, "{} {}", found.loss, again.loss);
    assert!((found.grad_norm - again.grad_norm).abs() < 1e-4, "{} {}", found.grad_norm, again.grad_norm);
}

/// An adapter of the output head alone, over weights in few bits.
#[test]
fn a_head_in_few_bits_is_adapted() {
    for precision in [RunPrecision::Int8, RunPrecision::Int4, RunPrecision::Bf16] {
        let bundle = Bundle::<DecoderConfig>::open_at(&fixture("llama"), precision, &device()).unwrap();
        let targets = Targets::Names(vec!["lm_head".to_owned()]);
        let bundle =
            bundle.with_lora(&LoraConfig { targets, ..LoraConfig::new(2, 4.0) }, Seed::new(1)).unwrap();
        let model = bundle.model.train();
        let vocab = bundle.config.vocab_size();
        let inputs = Sequences::full(ids(12, 0, [4, vocab]), [2, 6]);
        let batch = HostBatch::tokens(inputs, ids(12, 5, [4, vocab]), vec![1.0; 12]);
        let found = computed(&model, &Causal, &[batch]);
        assert!(found.is_finite() && found.grad_norm > 0.0, "{precision}");
        // `A`, which is multiplied by a zero, has a gradient of zero, and `B` has one.
        assert_eq!(found.gradients.iter().flatten().count(), 2, "{precision}");
    }
}
