//! Writes a model as a GGUF file that llama.cpp runs.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use andiron_files::PartialFile;
use half::f16;
use serde_json::Value as Json;

use super::blocks::ElementType;
use super::file::{DEFAULT_ALIGNMENT, GgufError, MAGIC};
use super::from_config::Pairs;
use super::names::{Layout, gguf_name};
use super::value::{Array, Value};
use crate::DecoderConfig;

const VERSION: u32 = 3;

/// Tensors that llama.cpp needs in f32, besides one-dimensional ones.
const ALWAYS_F32: &[&str] = &["position_embd.weight"];

/// A model to write as GGUF, without its weights.
#[derive(Clone, Copy, Debug)]
pub struct GgufModel<'a> {
    /// The configuration, of `model_type` `llama`, `qwen2`, `qwen3` or `gpt2`.
    pub config: &'a DecoderConfig,
    /// `tokenizer.json`, of a byte-level BPE; without it the file holds no vocabulary.
    pub tokenizer: Option<&'a Json>,
    /// The chat template, in Jinja.
    pub chat_template: Option<&'a str>,
    /// Whether matrices are stored as f16 instead of f32. Norms and biases stay f32.
    pub half: bool,
}

/// Tokenizer, chat template and element type of a GGUF file.
#[derive(Clone, Copy, Debug, Default)]
pub struct GgufOptions<'a> {
    /// `tokenizer.json`, of a byte-level BPE; without it the file holds no vocabulary.
    pub tokenizer: Option<&'a Json>,
    /// The chat template, in Jinja.
    pub chat_template: Option<&'a str>,
    /// Whether matrices are stored as f16 instead of f32. Norms and biases stay f32.
    pub half: bool,
}

/// A tensor to write, in Hugging Face's name and layout.
pub struct TensorToWrite<'a> {
    /// Hugging Face's name.
    pub name: String,
    /// Shape, outermost axis first.
    pub shape: Vec<usize>,
    /// Reads the elements, row-major, on write.
    pub read: Box<dyn Fn() -> Vec<f32> + 'a>,
}

/// Writes a model to `path`, tensor by tensor. The file appears there complete and synced.
///
/// # Errors
/// If the model type or a setting is not supported by llama.cpp's models, a tensor is unknown, the tokenizer cannot
/// be expressed in GGUF, or the file cannot be written.
///
/// # Panics
/// If a tensor's element count differs from its shape.
pub fn write(path: &Path, model: &GgufModel<'_>, tensors: &[TensorToWrite<'_>]) -> Result<(), GgufError> {
    let pairs = Pairs::of(model, path)?;
    let mut rows = Vec::with_capacity(tensors.len() + 1);
    for tensor in tensors {
        rows.push(Row::of(tensor, model, &pairs, path)?);
    }
    rows.extend(pairs.rope_factors.as_ref().map(|factors| Row {
        name: super::config::ROPE_FACTORS.to_owned(),
        shape: vec![factors.len()],
        element: ElementType::F32,
        layout: Layout::Same,
        values: Values::Given(factors),
    }));
    write_file(path, &pairs, &rows).map_err(|source| match too_large(&source) {
        Some(reason) => not_supported(path, &reason, "a value is too large for f16: write f32"),
        None => GgufError::Write { path: path.to_owned(), source },
    })
}

pub(super) fn not_supported(path: &Path, what: &str, reason: &str) -> GgufError {
    GgufError::NotSupported { path: path.to_owned(), what: what.to_owned(), reason: reason.to_owned() }
}

/// A tensor on its way into the file.
struct Row<'a> {
    name: String,
    /// As in the file, outermost axis first.
    shape: Vec<usize>,
    element: ElementType,
    layout: Layout,
    values: Values<'a>,
}

enum Values<'a> {
    Read(&'a TensorToWrite<'a>),
    Given(&'a [f32]),
}

impl<'a> Row<'a> {
    fn of(
        tensor: &'a TensorToWrite<'a>,
        model: &GgufModel<'_>,
        pairs: &Pairs,
        path: &Path,
    ) -> Result<Self, GgufError> {
        let Some(name) = gguf_name(&pairs.model_type, &tensor.name) else {
            return Err(not_supported(path, &tensor.name, "GGUF has no name for this tensor"));
        };
        let layout = Layout::of(&pairs.model_type, &name, pairs.n_heads);
        if !layout.fits(&tensor.shape) {
            return Err(not_supported(path, &tensor.name, "its shape does not fit the number of heads"));
        }
        let narrow = model.half && tensor.shape.len() > 1 && !ALWAYS_F32.contains(&name.as_str());
        let element = if narrow { ElementType::F16 } else { ElementType::F32 };
        Ok(Self { name, shape: layout.shape(&tensor.shape), element, layout, values: Values::Read(tensor) })
    }

    fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn n_bytes(&self) -> u64 {
        (self.n_elements() * self.element.block_bytes()) as u64
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let values = match self.values {
            Values::Read(tensor) => self.layout.to_gguf((tensor.read)(), &tensor.shape),
            Values::Given(values) => values.to_vec(),
        };
        assert_eq!(values.len(), self.n_elements(), "{}: elements", self.name);
        for value in values {
            if self.element == ElementType::F16 {
                let narrow = f16::from_f32(value);
                if narrow.is_infinite() && value.is_finite() {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, TooLarge(self.name.clone())));
                }
                out.write_all(&narrow.to_le_bytes())?;
            } else {
                out.write_all(&value.to_le_bytes())?;
            }
        }
        Ok(())
    }
}

/// Name of a tensor with a value out of range for f16.
#[derive(Debug, thiserror::Error)]
#[error("{0} has a value that is too large for f16")]
struct TooLarge(String);

fn too_large(error: &io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref().map(|TooLarge(name)| name.clone())
}

fn write_file(path: &Path, pairs: &Pairs, rows: &[Row<'_>]) -> io::Result<()> {
    let mut header = MAGIC.to_vec();
    header.extend(VERSION.to_le_bytes());
    header.extend((rows.len() as u64).to_le_bytes());
    header.extend((pairs.pairs.len() as u64).to_le_bytes());
    for (key, value) in &pairs.pairs {
        push_string(&mut header, key);
        push_value(&mut header, value);
    }
    let mut offset = 0_u64;
    for row in rows {
        push_string(&mut header, &row.name);
        header.extend((row.shape.len() as u32).to_le_bytes());
        header.extend(row.shape.iter().rev().flat_map(|&size| (size as u64).to_le_bytes()));
        header.extend(row.element.id().to_le_bytes());
        header.extend(offset.to_le_bytes());
        offset += row.n_bytes().next_multiple_of(DEFAULT_ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
    let mut out = BufWriter::new(PartialFile::begin(path)?);
    out.write_all(&header)?;
    for row in rows {
        row.write(&mut out)?;
        let n = row.n_bytes();
        out.write_all(&vec![0; (n.next_multiple_of(DEFAULT_ALIGNMENT) - n) as usize])?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.publish()
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Unsigned integers that fit are written in 32 bits, which is where llama.cpp looks for sizes and ids.
fn push_value(out: &mut Vec<u8>, value: &Value) {
    let mut typed = |type_id: u32, bytes: &[u8]| {
        out.extend(type_id.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        Value::Unsigned(value) => match u32::try_from(*value) {
            Ok(value) => typed(4, &value.to_le_bytes()),
            Err(_) => typed(10, &value.to_le_bytes()),
        },
        Value::Signed(value) => match i32::try_from(*value) {
            Ok(value) => typed(5, &value.to_le_bytes()),
            Err(_) => typed(11, &value.to_le_bytes()),
        },
        Value::F32(value) => typed(6, &value.to_le_bytes()),
        Value::F64(value) => typed(12, &value.to_le_bytes()),
        Value::Bool(value) => typed(7, &[u8::from(*value)]),
        Value::String(value) => {
            typed(8, &[]);
            push_string(out, value);
        }
        Value::Array(array) => {
            typed(9, &[]);
            push_array(out, array);
        }
    }
}

fn push_array(out: &mut Vec<u8>, array: &Array) {
    let mut head = |type_id: u32, n: usize| {
        out.extend(type_id.to_le_bytes());
        out.extend((n as u64).to_le_bytes());
    };
    match array {
        Array::Unsigned(values) => {
            head(10, values.len());
            out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        Array::Signed(values) => match values.iter().map(|&value| i32::try_from(value)).collect() {
            Ok(narrow) => {
                let narrow: Vec<i32> = narrow;
                head(5, values.len());
                out.extend(narrow.iter().flat_map(|value| value.to_le_bytes()));
            }
            Err(_) => {
                head(11, values.len());
                out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
        },
        Array::F32(values) => {
            head(6, values.len());
            out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        Array::F64(values) => {
            head(12, values.len());
            out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        Array::Bool(values) => {
            head(7, values.len());
            out.extend(values.iter().map(|&value| u8::from(value)));
        }
        Array::String(values) => {
            head(8, values.len());
            for value in values {
                push_string(out, value);
            }
        }
        Array::Nested(values) => {
            head(9, values.len());
            for value in values {
                push_array(out, value);
            }
        }
    }
}
