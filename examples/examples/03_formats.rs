//! Perplexity of a model on a text with its matrices quantized to each format: the cost of quantization.
//!
//! ```sh
//! cargo run --release -p andiron-examples --example 03_formats -- MODEL_DIR TEXT [FORMAT...]
//! ```
//!
//! Takes any decoder in the Hugging Face layout with a tokenizer. Each matrix is quantized and dequantized; then matmul
//! operands are rounded to bf16, as in `andiron evaluate` at every `--precision` except f32. Token-by-token decoding with
//! block-quantized weights also quantizes activations to int8; that is not measured here.

use std::path::PathBuf;
use std::{env, fs};

use andiron_core::DeviceSpec;
use andiron_core::precision::{Precision, with_precision};
use andiron_core::quant::{Format, QuantMatrix};
use andiron_data::tokenizer::Tokenizer;
use andiron_eval::LossReport;
use andiron_eval::task::windows::{Windows, loss_over_windows};
use andiron_models::DecoderBundle;
use anyhow::Context as _;
use burn::module::{Module as _, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

/// Tokens in a window.
const CONTEXT: usize = 512;

fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let mut path = || arguments.next().map(PathBuf::from);
    let (dir, text) = path().zip(path()).context("give a model directory and a text file")?;
    let known = || Format::ALL.map(|format| format.to_string()).join(", ");
    let named = |name: String| Format::ALL.into_iter().find(|format| format.to_string() == name);
    let mut formats: Vec<Format> = arguments
        .map(named)
        .collect::<Option<_>>()
        .with_context(|| format!("the formats are {}", known()))?;
    if formats.is_empty() {
        formats.extend(Format::ALL);
    }

    // 1. The model in f32, and the text as ids with an end-of-sequence token.
    let device = DeviceSpec::first_compiled()?.open()?;
    let bundle = DecoderBundle::open(&dir, &device)?;
    let tokenizer = Tokenizer::load(&dir)?;
    let mut ids = tokenizer.encode(&fs::read_to_string(&text)?)?;
    ids.extend(tokenizer.eos_id());

    // 2. Its loss in f32, then with its matrices in each format, on the same windows, so that small differences are
    //    meaningful.
    let windows = Windows { context: CONTEXT, rows: 8, limit: None };
    println!("{:>7}  {:>9}  {:>7}  {:>6}", "format", "bits", "loss", "perpl.");
    for format in [None].into_iter().chain(formats.into_iter().map(Some)) {
        let mut storing = Storing { format, vocab_size: bundle.config.vocab_size(), bits: 0.0, numbers: 0.0 };
        let model = bundle.model.clone().map(&mut storing);
        let sum =
            with_precision(Precision::Mixed, || loss_over_windows(&model, ids.as_slice(), windows, &device));
        let report = LossReport::new(sum?, None);
        let name = format.map_or_else(|| "f32".to_owned(), |format| format.to_string());
        let bits = storing.bits / storing.numbers;
        println!("{name:>7}  {bits:>9.2}  {:>7.4}  {:>6.3}", report.loss, report.perplexity);
    }
    Ok(())
}

/// Quantizes every matrix of a model to a format and dequantizes it.
struct Storing {
    format: Option<Format>,
    vocab_size: usize,
    /// Total bits and elements of all matrices.
    bits: f64,
    numbers: f64,
}

impl ModuleMapper for Storing {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.val().dims();
        let (numbers, cols) = (shape.iter().product::<usize>() as f64, shape[D - 1]);
        // Norms and biases are few and are not quantized.
        if D != 2 {
            return param;
        }
        self.numbers += numbers;
        let Some(wanted) = self.format else {
            self.bits += 32.0 * numbers;
            return param;
        };
        let format = fitting(wanted, cols, shape[0] == self.vocab_size);
        self.bits += numbers / format.block_len() as f64 * format.block_bytes() as f64 * 8.0;
        param.map(|values| {
            let device = values.device();
            let floats: Vec<f32> = values.into_data().try_into_vec().expect("weights are f32");
            let stored = QuantMatrix::quantize(format, &floats, cols);
            Tensor::from_data(TensorData::new(stored.dequantize(0..shape[0]), shape), &device)
        })
    }
}

/// The format of a matrix if `wanted` is requested.
fn fitting(wanted: Format, cols: usize, is_table: bool) -> Format {
    // Embeddings lose more by quantization and are the head of many models, so they get at least 8 bits in all formats, as
    // they do at `--precision int4`.
    let wanted = match wanted {
        Format::F16 | Format::Bf16 => wanted,
        _ if is_table => Format::Q8_0,
        other => other,
    };
    if cols.is_multiple_of(wanted.block_len()) {
        return wanted;
    }
    // llama.cpp's fallback for rows that are not a multiple of 256.
    match wanted {
        Format::Q4K => Format::Q5_0,
        Format::Q5K => Format::Q5_1,
        Format::Q6K => Format::Q8_0,
        _ => Format::Bf16,
    }
}
