//! Hidden states, logits and greedy text of every architecture's fixture.

use std::ops::ControlFlow;
use std::path::Path;

use andiron_core::{Backend, Forward, PaddingMask};
use andiron_models::encoder_decoder::Seq2SeqGenerator;
use andiron_models::generate::{GenerateOptions, SamplingParams, generate_batch};
use andiron_models::{AnyBundle, Decoder as _, DecoderBundle, Encoder as _, EncoderDecoder as _};
use burn::tensor::{Tensor, TensorData};

use crate::{backends, greedy, open};

/// Relative where they are above 1.
const VALUES: f32 = 1e-3;

/// Texts of two lengths.
const TEXTS: [&[u32]; 2] = [&[5, 9, 14, 3, 8, 12, 7], &[11, 4, 6]];

/// What a model computes for two texts, padding left out, and the ids that it then writes.
fn read(dir: &Path, backend: Backend) -> (Vec<f32>, Vec<u32>) {
    let device = open(backend);
    let (long, short) = (TEXTS[0].len(), TEXTS[1].len());
    let (values_btd, own, written) = match AnyBundle::open(dir, &device).unwrap() {
        AnyBundle::Decoder(bundle) => {
            let rows = PaddingMask::padded_left([0, long - short]);
            let padded = [TEXTS[0], &vec![0; long - short], TEXTS[1]].concat();
            let padded: Vec<i32> = padded.into_iter().map(|id| id as i32).collect();
            let ids_bt = Tensor::from_data(TensorData::new(padded, [2, long]), &device);
            let hidden_btd = bundle.model.hidden(ids_bt, &mut Forward::evaluation().with_padding_mask(rows));
            let written = [greedy(&bundle, TEXTS[0]), greedy_together(&bundle)].concat();
            (bundle.model.logits(hidden_btd), long - short..long, written)
        }
        AnyBundle::Classifier(bundle) => {
            let ids: Vec<i32> = TEXTS[0].iter().map(|&id| id as i32).collect();
            let ids_bt = Tensor::from_data(TensorData::new(ids, [1, long]), &device);
            let logits_bl = bundle.model.sequence_logits(ids_bt, &[long - 1], &mut Forward::evaluation());
            return (logits_bl.into_data().convert::<f32>().try_into_vec().unwrap(), Vec::new());
        }
        AnyBundle::Encoder(bundle) => {
            let (ids_bt, rows) = bundle.batch(&TEXTS);
            let hidden_btd =
                bundle.model.hidden(ids_bt, None, &mut Forward::evaluation().with_padding_mask(rows));
            (hidden_btd, 0..short, Vec::new())
        }
        AnyBundle::EncoderDecoder(bundle) => {
            let memory = bundle.encode(&TEXTS);
            let (ids_bt, _) = bundle.batch(&[&[2, 7, 5], &[2, 9, 4]]);
            let hidden_btd = bundle.model.hidden(ids_bt, &memory, &mut Forward::evaluation());
            let model = Seq2SeqGenerator::new(&bundle, TEXTS[0]);
            (bundle.model.logits(hidden_btd), 0..3, greedy(&model, &[model.start()]))
        }
    };
    let [_, t, d] = values_btd.dims();
    let floats = |x: Tensor<3>| x.into_data().convert::<f32>().try_into_vec::<f32>().unwrap();
    let whole = values_btd.clone().slice([0..1, 0..t, 0..d]);
    ([floats(whole), floats(values_btd.slice([1..2, own, 0..d]))].concat(), written)
}

/// Both texts over one cache, each from its own length.
fn greedy_together(bundle: &DecoderBundle) -> Vec<u32> {
    let options =
        GenerateOptions { sampling: SamplingParams::greedy(), max_new_tokens: 8, ..Default::default() };
    let texts: Vec<_> = TEXTS.map(|text| (text.to_vec(), options.clone())).to_vec();
    let written = generate_batch(bundle, texts, |_, _| ControlFlow::Continue(()));
    written.into_iter().flat_map(|text| text.unwrap().tokens).map(|token| token.id).collect()
}

#[test]
fn every_architecture_is_the_same_on_every_backend() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../andiron-models/tests/golden");
    let entries = std::fs::read_dir(&fixtures).unwrap().map(|entry| entry.unwrap().path());
    let mut models: Vec<_> = entries.filter(|path| path.join("config.json").exists()).collect();
    models.sort();
    assert!(models.len() > 40, "{models:?}");
    let (first, others) = backends();
    for model in &models {
        let name = model.file_name().unwrap().to_string_lossy();
        let (values, text) = read(model, first);
        for &backend in &others {
            let (other_values, other_text) = read(model, backend);
            assert_eq!(values.len(), other_values.len());
            for (a, b) in values.iter().zip(&other_values) {
                let near = (a - b).abs() <= VALUES * a.abs().max(1.0);
                assert!(near, "{name}: {first} says {a}, {backend} says {b}");
            }
            assert_eq!(text, other_text, "{name}: greedy text on {first} and on {backend}");
        }
    }
}
