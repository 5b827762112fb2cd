//! Opening a model takes no more memory than the model itself and a little. Alone in its program, because the peak that
//! is measured is that of the whole process.

#![cfg(target_os = "linux")] // Where the system tells it.
#![allow(clippy::unwrap_used)] // A test fails where it panics.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

use andiron_core::DeviceSpec;
use andiron_kernels::random::Seed;
use andiron_models::bundle::GgufOptions;
use andiron_models::decoder::gpt2::Gpt2Config;
use andiron_models::generate::{
    CausalLm, Constraint, Decoding, GenerateOptions, Grammar, Logits, SamplingParams, Vocabulary,
};
use andiron_models::weights::names;
use andiron_models::{AnyBundle, AnyConfig, DecoderBundle, DecoderConfig};
use burn::tensor::Device;
use serde_json::{Map, Value, json};

/// The memory is that of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// Peak while opening, in units of the model's own size.
const LIMIT: f64 = 1.1;

/// Most memory that this process has held since the last [`forget_peak`], in bytes.
fn peak() -> usize {
    status("VmHWM:")
}

fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn status(what: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// Writes a model of zeros, of which the disk holds only the header, and returns its size in bytes.
fn write_zeros(config: &DecoderConfig, dir: &Path, device: &Device) -> usize {
    std::fs::write(dir.join("config.json"), serde_json::to_vec(config).unwrap()).unwrap();
    let (mut header, mut end) = (Map::new(), 0);
    for (name, shape) in names(&config.init(Seed::new(0), device)) {
        let start = end;
        end += shape.iter().product::<usize>() * size_of::<f32>();
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = File::create(dir.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
    end
}

/// Most memory for following a text in its grammar.
const CONSTRAINT_LIMIT: usize = 64 << 20;

/// A model of bytes that knows nothing but that a text goes on with letters.
struct Letters;

impl CausalLm for Letters {
    type State = ();

    fn vocab_size(&self) -> usize {
        257
    }

    fn context_len(&self) -> usize {
        10_000
    }

    fn begin(&self) {}

    fn forward(&self, _state: &mut (), ids: &[u32], _wanted: Logits) -> Vec<f32> {
        let letter = |id: usize| if (97..123).contains(&id) { 1.0 } else { 0.0 };
        ids.iter().flat_map(|_| (0..self.vocab_size()).map(letter)).collect()
    }

    fn rewind(&self, _state: &mut (), _len: usize) -> bool {
        true
    }
}

#[test]
fn a_long_text_of_large_classes_takes_bounded_memory() {
    let _alone = ALONE.lock().unwrap();
    let words: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).chain([Vec::new()]).collect();
    let vocabulary = Vocabulary::new(&words, false).unwrap();
    for pattern in [r"\w{1,9999}", r"[\p{L}\p{N} ,.]{1,9999}"] {
        forget_peak();
        let before = peak();
        let constraint = Constraint::new(&vocabulary, Grammar::Regex(pattern.to_owned())).unwrap();
        let options = GenerateOptions {
            max_new_tokens: 9000,
            constraint: Some(constraint),
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            ..GenerateOptions::default()
        };
        let mut decoding = Decoding::new(&Letters, &[5], options).unwrap();
        while decoding.next_token(&Letters).unwrap().is_some() {}
        let taken = peak().saturating_sub(before);
        assert_eq!(decoding.generated(), [97].repeat(9000), "{pattern}");
        assert!(taken <= CONSTRAINT_LIMIT, "{pattern}: {taken} bytes");
    }
}

#[test]
fn opening_peaks_at_the_size_of_the_model() {
    let _alone = ALONE.lock().unwrap();
    let device = DeviceSpec::parse("ndarray").and_then(DeviceSpec::open).unwrap();
    // The largest tensor comes last, when all the others are there already.
    let sizes =
        Gpt2Config { n_embd: 256, n_layer: 1, tie_word_embeddings: false, ..Gpt2Config::nano(40_000) };
    let dir = tempfile::tempdir().unwrap();
    let size = write_zeros(&DecoderConfig::Gpt2(sizes), dir.path(), &device);
    forget_peak();
    let before = peak();
    let bundle = DecoderBundle::open(dir.path(), &device).unwrap();
    let share = (peak() - before) as f64 / size as f64;
    assert!(share <= LIMIT, "{share:.2} of the model's {size} bytes");
    assert_eq!(bundle.n_parameters(), size / size_of::<f32>());
}

#[test]
fn a_gguf_file_is_in_memory_only_while_it_is_read() {
    let _alone = ALONE.lock().unwrap();
    let device = DeviceSpec::parse("ndarray").and_then(DeviceSpec::open).unwrap();
    let sizes =
        Gpt2Config { n_embd: 256, n_layer: 1, tie_word_embeddings: false, ..Gpt2Config::nano(40_000) };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let bundle = DecoderBundle::init(DecoderConfig::Gpt2(sizes), Seed::new(1), &device);
    let size = bundle.n_parameters() * size_of::<f32>();
    bundle.save_gguf(&path, GgufOptions { half: true, ..GgufOptions::default() }).unwrap();
    drop(bundle);
    let before = status("VmRSS:");
    assert!(before < size / 2, "{before} bytes are still held of {size}");
    forget_peak();
    let bundle = DecoderBundle::open(&path, &device).unwrap();
    let share = (peak() - before) as f64 / size as f64;
    assert!((1.0..=LIMIT).contains(&share), "{share:.2} of the model's {size} bytes");
    assert_eq!(bundle.n_parameters() * size_of::<f32>(), size);
}

/// What an edited configuration may take beyond the process that reads it, in bytes: a few times the largest fixture.
const SPARE: usize = 32 << 20;

/// Sizes that nobody means, and things that are none.
fn unmeant() -> Vec<Value> {
    let numbers = [0, 1, 1 << 16, 1 << 31, (1 << 53) + 1, 1 << 63];
    let mut values: Vec<Value> = numbers.map(|number: u64| json!(number)).to_vec();
    values.extend([json!(-1), json!(1e300), json!(0.5), json!(null), json!("x"), json!([]), json!({})]);
    values
}

/// Paths to the numbers of a configuration, those in objects included, and to keys that a file may add.
fn numbers(config: &Value) -> Vec<String> {
    let of = |prefix: &str, fields: &Map<String, Value>| -> Vec<String> {
        let numbers = fields.iter().filter(|(_, value)| value.is_number());
        numbers.map(|(key, _)| format!("{prefix}/{key}")).collect()
    };
    let fields = config.as_object().unwrap();
    let mut paths = of("", fields);
    for (key, value) in fields {
        if let Value::Object(inner) = value {
            paths.extend(of(&format!("/{key}"), inner));
        }
    }
    paths.extend(["/head_dim", "/num_labels", "/num_key_value_heads", "/sliding_window"].map(str::to_owned));
    paths
}

#[test]
fn no_number_of_a_configuration_becomes_memory() {
    let _alone = ALONE.lock().unwrap();
    let device = DeviceSpec::parse("ndarray").and_then(DeviceSpec::open).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let dir = tempfile::tempdir().unwrap();
    let mut tried = 0;
    for folder in std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(text) = std::fs::read_to_string(folder.join("config.json")) else { continue };
        std::fs::copy(folder.join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        for path in numbers(&config) {
            for value in unmeant() {
                let mut config = config.clone();
                let (parent, key) = path.rsplit_once('/').unwrap();
                config.pointer_mut(parent).unwrap()[key] = value.clone();
                std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
                forget_peak();
                let before = peak();
                if let Ok(read) = AnyConfig::open(dir.path()) {
                    read.summary(&device);
                }
                let _ = AnyBundle::open(dir.path(), &device);
                // The system counts pages in batches, so that a peak may seem to shrink a little.
                let taken = peak().saturating_sub(before);
                let name = folder.display();
                assert!(taken <= SPARE, "{name} with {path} = {value}: {taken} bytes");
                tried += 1;
            }
        }
    }
    assert!(tried > 5000, "{tried}");
}
