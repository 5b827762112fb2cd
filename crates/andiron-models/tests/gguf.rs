//! GGUF files: what the reference package means by them, and what damage does to them.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;

use std::path::{Path, PathBuf};

use andiron_core::Forward;
use andiron_models::encoder::{EmbedPipeline, Pooling};
use andiron_models::weights::gguf::{
    Array, GgufError, GgufFile, GgufWeights, Value, config_json, tokenizer_config_json, tokenizer_json,
};
use andiron_models::{AnyConfig, Decoder, DecoderBundle, EncoderBundle};
use common::{assert_close, device, floats, ids};
use safetensors::SafeTensors;
use serde_json::json;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gguf").join(name)
}

/// Opens bytes as a file.
fn open(bytes: &[u8]) -> Result<GgufFile, GgufError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    GgufFile::open(&path)
}

#[track_caller]
fn check_refused(bytes: &[u8], needle: &str) {
    let text = open(bytes).unwrap_err().to_string();
    assert!(text.contains(needle), "{text:?} does not mention {needle:?}");
}

#[test]
fn every_type_is_read_to_the_last_bit() {
    let file = GgufFile::open(&fixture("types.gguf")).unwrap();
    let expected = std::fs::read(fixture("types.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&expected).unwrap();
    assert_eq!(file.tensors().count(), 13);
    assert_eq!(expected.len(), 13);
    for tensor in file.tensors() {
        let theirs = expected.tensor(&tensor.name).unwrap();
        assert_eq!(tensor.shape, theirs.shape(), "{}", tensor.name);
        let theirs = theirs.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b));
        let ours = file.read_f32(&tensor.name).unwrap();
        assert_eq!(ours.len(), theirs.len(), "{}", tensor.name);
        for (at, (ours, theirs)) in ours.into_iter().zip(theirs).enumerate() {
            assert!(
                ours.to_bits() == theirs.to_bits() || (ours == 0.0 && theirs == 0.0),
                "{}[{at}]: {ours} is not {theirs}",
                tensor.name
            );
        }
    }
}

#[test]
fn metadata_of_every_type_is_read() {
    let file = GgufFile::open(&fixture("types.gguf")).unwrap();
    let value = |key: &str| file.metadata(&format!("test.{key}")).unwrap();
    for (width, (most, least)) in [
        (8, (u64::from(u8::MAX), i64::from(i8::MIN))),
        (16, (u16::MAX.into(), i16::MIN.into())),
        (32, (u32::MAX.into(), i32::MIN.into())),
        (64, (u64::MAX, i64::MIN)),
    ] {
        assert_eq!(value(&format!("u{width}")).as_u64(), Some(most));
        assert_eq!(value(&format!("i{width}")), &Value::Signed(least));
    }
    assert_eq!(value("f32").as_f64(), Some(1e-5));
    assert_eq!(value("f64").as_f64(), Some(-0.1));
    assert_eq!(value("bool").as_bool(), Some(true));
    assert_eq!(value("string").as_str(), Some("grüße"));
    assert_eq!(value("strings").as_strings(), Some(&["a", "", "ß"].map(str::to_owned)[..]));
    assert_eq!(value("integers").as_integers(), Some(vec![3, -1, 7]));
    assert_eq!(value("floats").as_f32s(), Some(&[0.5, -2.0][..]));
    let nested = vec![Array::Signed(vec![1, 2]), Array::Signed(vec![3])];
    assert_eq!(value("nested"), &Value::Array(Array::Nested(nested)));
    assert_eq!(file.metadata("test.none"), None);
    assert_eq!(file.version(), 3);
}

#[test]
fn a_file_cut_anywhere_is_an_error_and_never_a_panic() {
    let whole = std::fs::read(fixture("types.gguf")).unwrap();
    let last = GgufFile::open(&fixture("types.gguf")).unwrap();
    let last = last.tensors().map(|tensor| tensor.bytes.end).max().unwrap();
    for len in (0..last).step_by(97).chain([last - 1]) {
        assert!(open(&whole[..len]).is_err(), "{len} bytes");
    }
    open(&whole[..last]).unwrap();
}

#[test]
fn a_changed_header_never_panics() {
    let whole = std::fs::read(fixture("types.gguf")).unwrap();
    let file = GgufFile::open(&fixture("types.gguf")).unwrap();
    let header = file.tensors().map(|tensor| tensor.bytes.start).min().unwrap();
    for at in 0..header {
        let mut bytes = whole.clone();
        bytes[at] ^= [0xff, 0x80, 0x01][at % 3];
        if let Ok(file) = open(&bytes) {
            for tensor in file.tensors() {
                let values = file.read_f32(&tensor.name).unwrap();
                assert_eq!(values.len(), tensor.shape.iter().product::<usize>(), "byte {at}");
            }
        }
    }
}

/// A file that is written byte by byte.
struct Bytes(Vec<u8>);

impl Bytes {
    fn new(n_tensors: u64, n_pairs: u64) -> Self {
        let mut bytes = Self(b"GGUF\x03\0\0\0".to_vec());
        bytes.u64(n_tensors).u64(n_pairs);
        bytes
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn string(&mut self, text: &str) -> &mut Self {
        self.u64(text.len() as u64);
        self.0.extend(text.as_bytes());
        self
    }

    fn tensor(&mut self, name: &str, ne: &[u64], type_id: u32, offset: u64) -> &mut Self {
        self.string(name).u32(ne.len() as u32);
        for &size in ne {
            self.u64(size);
        }
        self.u32(type_id).u64(offset)
    }

    /// Zeros up to the next multiple of 32, then `n` of them.
    fn data(&mut self, n: usize) -> &[u8] {
        self.0.resize(self.0.len().next_multiple_of(32) + n, 0);
        &self.0
    }
}

#[test]
fn a_small_file_is_read() {
    let file = open(Bytes::new(1, 0).tensor("a", &[2, 3], 0, 0).data(24)).unwrap();
    assert_eq!(file.tensor("a").unwrap().shape, [3, 2]);
    assert_eq!(file.read_f32("a").unwrap(), [0.0; 6]);
    assert!(file.read_f32("b").unwrap_err().to_string().contains("no tensor b"));
    assert!(open(Bytes::new(0, 0).data(0)).unwrap().tensors().next().is_none());
}

#[test]
fn what_is_no_gguf_is_said_to_be_none() {
    check_refused(b"", "not a GGUF file");
    check_refused(b"GGML\x03\0\0\0", "not a GGUF file");
    check_refused(b"GGUF\x01\0\0\0", "version 1;");
    check_refused(b"GGUF\0\0\0\x03", "little-endian");
}

#[test]
fn claims_beyond_the_file_are_refused() {
    check_refused(Bytes::new(u64::MAX, 0).data(0), "number of tensors");
    check_refused(Bytes::new(0, 1 << 40).data(0), "number of metadata keys");
    check_refused(Bytes::new(0, 1).u64(u64::MAX).data(64), "metadata key 0");
    for type_id in 0..13 {
        let text = if type_id == 9 { "elements are claimed" } else { "strange: " };
        check_refused(Bytes::new(0, 1).string("strange").u32(9).u32(type_id).u64(1 << 61).data(64), text);
    }
    check_refused(Bytes::new(0, 1).string("strange").u32(13).data(64), "its type is 13");
    check_refused(Bytes::new(0, 1).string("strange").u32(9).u32(13).u64(0).data(64), "elements' type is 13");
}

#[test]
fn arrays_nested_without_end_are_refused() {
    let mut bytes = Bytes::new(0, 1);
    bytes.string("deep").u32(9);
    for _ in 0..100_000 {
        bytes.u32(9).u64(1);
    }
    check_refused(bytes.data(64), "nested deeper");
}

#[test]
fn a_repeated_name_is_refused() {
    let mut bytes = Bytes::new(0, 2);
    check_refused(
        bytes.string("k").u32(4).u32(1).string("k").u32(4).u32(1).data(0),
        "k: the key is there twice",
    );
    let mut bytes = Bytes::new(2, 0);
    check_refused(
        bytes.tensor("a", &[1], 0, 0).tensor("a", &[1], 0, 32).data(64),
        "a: the name is there twice",
    );
}

#[test]
fn tensors_that_cannot_be_are_refused() {
    let refused = |ne: &[u64], type_id, offset, needle| {
        check_refused(Bytes::new(1, 0).tensor("a", ne, type_id, offset).data(64), needle);
    };
    refused(&[1; 5], 0, 0, "5 dimensions");
    refused(&[0], 0, 0, "zero or too large");
    refused(&[1 << 33, 1 << 33], 0, 0, "zero or too large");
    refused(&[1 << 62], 0, 0, "larger than any file");
    refused(&[16], 0, u64::MAX - 31, "larger than any file");
    refused(&[17], 0, 0, "beyond the end of the file");
    refused(&[1], 0, 64, "beyond the end of the file");
    refused(&[1], 0, 4, "not a multiple of 32");
    refused(&[48], 2, 0, "blocks of 32");
    refused(&[1], 4, 0, "ggml type 4");
    let mut bytes = Bytes::new(2, 0);
    check_refused(
        bytes.tensor("a", &[9], 0, 0).tensor("b", &[1], 0, 32).data(64),
        "b: its data overlaps that of a",
    );
}

#[test]
fn a_strange_alignment_is_refused() {
    for alignment in [0, 3, 48] {
        let mut bytes = Bytes::new(0, 1);
        check_refused(bytes.string("general.alignment").u32(4).u32(alignment).data(0), "a power of two");
    }
    let mut bytes = Bytes::new(1, 1);
    bytes.string("general.alignment").u32(4).u32(1 << 31).tensor("a", &[1], 0, 0);
    check_refused(bytes.data(64), "beyond the end of the file");
    let mut bytes = Bytes::new(1, 1);
    bytes.string("general.alignment").u32(4).u32(8).tensor("a", &[1], 0, 8);
    open(bytes.data(64)).unwrap();
}

fn logits(path: &Path) -> (DecoderBundle, Vec<f32>) {
    let bundle = DecoderBundle::open(path, &device()).unwrap();
    let ids = ids(&[vec![1, 2, 3, 50, 7]], &device());
    let logits = floats(bundle.model.logits(bundle.model.hidden(ids, &mut Forward::evaluation())));
    (bundle, logits)
}

#[test]
fn a_gpt2_is_the_same_from_a_gguf_file() {
    let (ours, ours_logits) = logits(&fixture("gpt2.gguf"));
    let (theirs, theirs_logits) = logits(&fixture("../gpt2"));
    assert_close("logits", &ours_logits, &theirs_logits, 0.0);
    assert_eq!(ours.config.sizes(), theirs.config.sizes());
    assert_eq!(ours.generation.eos_token_id, theirs.generation.eos_token_id);
}

#[test]
fn a_llama_gets_its_names_and_the_order_of_its_rows_back() {
    let weights = GgufWeights::new(GgufFile::open(&fixture("llama.gguf")).unwrap()).unwrap();
    let expected = std::fs::read(fixture("llama.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&expected).unwrap();
    assert_eq!(weights.tensors().count(), expected.len());
    for (name, shape) in weights.tensors() {
        let theirs = expected.tensor(name).unwrap();
        assert_eq!(shape, theirs.shape(), "{name}");
        let theirs = theirs.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b));
        assert!(weights.read_f32(name).unwrap().into_iter().eq(theirs), "{name}");
    }
}

#[test]
fn metadata_become_the_configuration() {
    let config = config_json(&GgufFile::open(&fixture("llama.gguf")).unwrap()).unwrap();
    let expected = json!({
        "model_type": "llama", "vocab_size": 11, "hidden_size": 32, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "hidden_act": "silu", "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 100_000.0,
        "tie_word_embeddings": true, "attention_bias": false, "mlp_bias": false,
        "bos_token_id": 1, "eos_token_id": 2,
    });
    assert_eq!(config, expected);
    let error = config_json(&GgufFile::open(&fixture("types.gguf")).unwrap()).unwrap_err().to_string();
    assert!(error.contains("\"test\" is not supported") && error.contains("qwen2"), "{error}");
}

#[test]
fn what_a_configuration_cannot_say_is_refused() {
    let refused = |key: &str, value: u32, needle: &str| {
        let mut bytes = Bytes::new(1, 3);
        bytes.string("general.architecture").u32(8).string("gpt2");
        bytes.string("gpt2.attention.head_count").u32(4).u32(4).string(key).u32(4).u32(value);
        let file = open(bytes.tensor("token_embd.weight", &[4, 3], 0, 0).data(64)).unwrap();
        let error = config_json(&file).unwrap_err().to_string();
        assert!(error.contains(needle), "{error:?} does not mention {needle:?}");
    };
    refused("gpt2.rope.scaling.yarn_beta_fast", 8, "gpt2.rope.scaling.yarn_beta_fast is not supported");
    refused("gpt2.expert_count", 8, "gpt2.expert_count is not supported");
    refused("gpt2.context_length", 0, "gpt2.context_length must be a positive integer");
    refused("gpt2.context_length", 7, "no metadata key gpt2.embedding_length");
}

/// A value of a metadata key that a test adds.
enum Added {
    F32(f32),
    U32(u32),
    Bool(bool),
    Text(&'static str),
}

/// A fixture with more metadata, as a file.
fn with_metadata(name: &str, added: &[(&str, Added)]) -> Result<GgufFile, GgufError> {
    open(&bytes_with_metadata(name, added))
}

fn bytes_with_metadata(name: &str, added: &[(&str, Added)]) -> Vec<u8> {
    let whole = std::fs::read(fixture(name)).unwrap();
    let mut pairs = Bytes(Vec::new());
    for (key, value) in added {
        pairs.string(key);
        match value {
            Added::F32(value) => pairs.u32(6).u32(value.to_bits()),
            Added::U32(value) => pairs.u32(4).u32(*value),
            Added::Bool(value) => {
                pairs.u32(7);
                pairs.0.push(u8::from(*value));
                &mut pairs
            }
            Added::Text(value) => pairs.u32(8).string(value),
        };
    }
    // The data stay where they are aligned.
    let filler = "general.filler";
    let taken = pairs.0.len() + 8 + filler.len() + 4 + 8;
    pairs.string(filler).u32(8).string(&" ".repeat(taken.next_multiple_of(32) - taken));
    let n_pairs = u64::from_le_bytes(*whole[16..].first_chunk().unwrap()) + added.len() as u64 + 1;
    [&whole[..16], &n_pairs.to_le_bytes(), &pairs.0, &whole[24..]].concat()
}

/// What the file says of rotary scaling.
#[track_caller]
fn check_scaling(added: &[(&str, Added)], expected: serde_json::Value) {
    let config = config_json(&with_metadata("llama.gguf", added).unwrap()).unwrap();
    assert_eq!(config.get("rope_scaling").cloned().unwrap_or_default(), expected);
}

#[test]
fn a_key_that_llama_cpp_does_not_read_is_named_and_opens() {
    let added = [
        ("llama.tensor_data_layout", Added::Text("Meta AI original pth")),
        ("llama.rope.scaling.attn_factor", Added::F32(1.0)),
        ("llama.rope.scale_linear", Added::F32(1.0)),
        ("llama.attention.causal", Added::Bool(true)),
        ("llama.logit_scale", Added::F32(1.0)),
        ("llama.attention.sliding_window", Added::U32(4096)),
    ];
    let file = with_metadata("llama.gguf", &added).unwrap();
    let plain = config_json(&GgufFile::open(&fixture("llama.gguf")).unwrap()).unwrap();
    assert_eq!(config_json(&file).unwrap(), plain);
    let bytes = bytes_with_metadata("llama.gguf", &added);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.gguf"), bytes).unwrap();
    let read = AnyConfig::open_file(&dir.path().join("model.gguf")).unwrap();
    assert_eq!(read.unknown_keys.names(), ["llama.attention.sliding_window", "llama.logit_scale"]);
}

#[test]
fn rotary_scaling_is_read_as_llama_cpp_does() {
    use Added::{F32, Text, U32};
    let linear = json!({"rope_type": "linear", "factor": 2.0});
    check_scaling(&[("llama.rope.scale_linear", F32(2.0))], linear.clone());
    check_scaling(&[("llama.rope.scaling.factor", F32(2.0))], linear.clone());
    let both = [("llama.rope.scaling.factor", F32(2.0)), ("llama.rope.scale_linear", F32(4.0))];
    check_scaling(&both, linear);
    check_scaling(&[("llama.rope.scaling.factor", F32(0.0))], json!(null));
    let none = [("llama.rope.scaling.type", Text("none")), ("llama.rope.scaling.factor", F32(2.0))];
    check_scaling(&none, json!(null));
    let yarn = [("llama.rope.scaling.type", Text("yarn")), ("llama.rope.scaling.factor", F32(4.0))];
    let whole = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64});
    check_scaling(&yarn, whole);
    let [kind, factor] = yarn;
    let yarn = [
        kind,
        factor,
        ("llama.rope.scaling.original_context_length", U32(16)),
        ("llama.rope.scaling.attn_factor", F32(0.5)),
    ];
    let config = config_json(&with_metadata("llama.gguf", &yarn).unwrap()).unwrap();
    let amplitude = config["rope_scaling"]["attention_factor"].as_f64().unwrap();
    assert!((amplitude - 0.5 * (1.0 + 0.1 * 4.0_f64.ln())).abs() < 1e-9, "{amplitude}");
}

#[test]
fn a_key_that_llama_cpp_reads_is_refused_unless_it_changes_nothing() {
    let refused = |name: &str, key: &str, value: Added| {
        let error = config_json(&with_metadata(name, &[(key, value)]).unwrap()).unwrap_err().to_string();
        assert!(error.contains(&format!("{key} is not supported")), "{error}");
    };
    refused("llama.gguf", "llama.attention.causal", Added::Bool(false));
    refused("llama.gguf", "llama.rope.scaling.attn_factor", Added::F32(0.5));
    refused("llama.gguf", "llama.rope.scaling.yarn_ext_factor", Added::F32(0.5));
}

#[test]
fn an_embedding_model_is_what_its_directory_is() {
    let from_file = EncoderBundle::open(&fixture("bert.gguf"), &device()).unwrap();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bert");
    let mut from_dir = EncoderBundle::open(&dir, &device()).unwrap();
    let pipeline = EmbedPipeline { pooling: Pooling::Mean, normalize: true, ..EmbedPipeline::default() };
    assert_eq!(from_file.embedding, Some(pipeline.clone()));
    from_dir.embedding = Some(pipeline);
    let texts = [vec![2, 5, 6, 7, 3], vec![2, 9, 3]];
    assert_eq!(from_file.embed(&texts), from_dir.embed(&texts));
    // It has no pooler, and what is saved of it has none either.
    let saved = tempfile::tempdir().unwrap();
    from_file.save(saved.path()).unwrap();
    let again = EncoderBundle::open(saved.path(), &device()).unwrap();
    assert_eq!(again.embed(&texts), from_file.embed(&texts));
    assert_eq!(from_dir.n_parameters() - from_file.n_parameters(), 24 * 24 + 24);
    assert_eq!(again.n_parameters(), from_file.n_parameters());
}

#[test]
fn word_pieces_are_spelt_as_in_a_vocabulary() {
    let file = GgufFile::open(&fixture("bert.gguf")).unwrap();
    let json = tokenizer_json(&file).unwrap();
    let vocab = &json["model"]["vocab"];
    assert_eq!((&vocab["[CLS]"], &vocab["the"], &vocab["##s"]), (&json!(2), &json!(5), &json!(7)));
    assert_eq!(vocab.as_object().unwrap().len(), 53);
    assert_eq!(json["added_tokens"].as_array().unwrap().len(), 5);
    let config = tokenizer_config_json(&file).unwrap();
    assert_eq!((&config["mask_token"], &config["unk_token"]), (&json!("[MASK]"), &json!("[UNK]")));
}

/// A file that holds a byte-level vocabulary (the 256 bytes, `hi` and a token that begins texts) and no weights.
fn vocabulary(pre: Option<&str>, add_bos: Option<bool>) -> GgufFile {
    // GPT-2's spelling of bytes: printable ones as they are, the others from U+0100 on.
    let printable = |b: &u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100u32..;
    let mut tokens: Vec<String> = (0..=255u8)
        .map(|b| if printable(&b) { char::from(b) } else { char::from_u32(next.next().unwrap()).unwrap() })
        .map(String::from)
        .collect();
    tokens.extend(["hi", "<s>"].map(str::to_owned));
    let mut bytes = Bytes::new(0, 5 + u64::from(pre.is_some()) + u64::from(add_bos.is_some()));
    bytes.string("tokenizer.ggml.model").u32(8).string("gpt2");
    bytes.string("tokenizer.ggml.bos_token_id").u32(4).u32(257);
    bytes.string("tokenizer.ggml.merges").u32(9).u32(8).u64(1).string("h i");
    bytes.string("tokenizer.ggml.tokens").u32(9).u32(8).u64(258);
    for token in &tokens {
        bytes.string(token);
    }
    bytes.string("tokenizer.ggml.token_type").u32(9).u32(5).u64(258);
    for id in 0..258 {
        bytes.u32(if id == 257 { 3 } else { 1 });
    }
    if let Some(pre) = pre {
        bytes.string("tokenizer.ggml.pre").u32(8).string(pre);
    }
    if let Some(add) = add_bos {
        bytes.string("tokenizer.ggml.add_bos_token").u32(7).0.push(add.into());
    }
    open(&bytes.0).unwrap()
}

#[test]
fn a_text_begins_as_llama_cpp_has_it_for_the_pre_tokenizer() {
    let begins = |pre, add| {
        let text = tokenizer_json(&vocabulary(pre, add)).unwrap()["post_processor"].to_string();
        text.contains("<s>")
    };
    for pre in ["llama-bpe", "llama3", "llama-v3", "falcon3", "lfm2", "pixtral"] {
        assert!(begins(Some(pre), None), "{pre}");
        assert!(!begins(Some(pre), Some(false)), "{pre}");
    }
    for pre in
        [None, Some("default"), Some("gpt-2"), Some("qwen2"), Some("deepseek-r1-qwen"), Some("smaug-bpe")]
    {
        assert!(!begins(pre, None), "{pre:?}");
        assert!(begins(pre, Some(true)), "{pre:?}");
    }
}

#[test]
fn a_pre_tokenizer_goes_by_every_name_that_llama_cpp_knows() {
    let of = |pre| tokenizer_json(&vocabulary(Some(pre), None)).unwrap();
    let same = [
        ("llama-bpe", ["llama3", "llama-v3", "falcon-h1", "midm-2.0"]),
        ("qwen2", ["deepseek-r1-qwen", "megrez", "kormo", "hunyuan"]),
        ("gpt-2", ["phi-2", "exaone4", "olmo", "mpt"]),
        ("smollm", ["starcoder", "command-r", "refact", "codeshell"]),
        ("smaug-bpe", ["dbrx", "glm4", "chatglm-bpe", "smaug-bpe"]),
    ];
    for (name, others) in same {
        others.iter().for_each(|&other| assert_eq!(of(other), of(name), "{other}"));
    }
    assert_eq!(of("llama-bpe")["pre_tokenizer"], of("smaug-bpe")["pre_tokenizer"]);
    assert_eq!(
        [of("llama-bpe"), of("smaug-bpe")].map(|json| json["model"]["ignore_merges"] == true),
        [true, false]
    );
    assert_eq!(of("default"), tokenizer_json(&vocabulary(None, None)).unwrap());
    let error = tokenizer_json(&vocabulary(Some("no-such"), None)).unwrap_err().to_string();
    assert!(error.contains("no-such is none of default, gpt-2"), "{error}");
}
