//! Every configuration in `examples/configs`, run with a tiny model and a few rows: the keys, the objective and the data fit together. A
//! pipeline of `prepare` runs over a few rows.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use toml::Table;

use crate::common::{Place, word};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/configs");

/// Special tokens of BERT, T5 and StarCoder, and letters.
const SPECIAL: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n<extra_id_1>\n<extra_id_0>\n<fim_prefix>\n<fim_middle>\n<fim_suffix>";
const TEMPLATE: &str =
    "{% for m in messages %}{{ '[CLS]' if m.role == 'user' else '[MASK]' }} {{ m.content }}[SEP]{% endfor %}";

/// Tiny models that runs begin with, one of each family.
const BASES: [(&str, &str, &str); 3] = [
    ("encoder", "masked", "model_type = \"bert\""),
    ("decoder", "causal", "model_type = \"llama\"\nnum_key_value_heads = 1\neos_token_id = 3"),
    (
        "encoder-decoder",
        "seq2seq",
        "model_type = \"t5\"\nrelative_attention_num_buckets = 8\nrelative_attention_max_distance = 20\n\
         feed_forward_proj = \"relu\"\ndecoder_start_token_id = 0",
    ),
];

/// The value that makes a key of `[model]` tiny and fits the tokenizer; `None` for other keys.
fn tiny(key: &str) -> Option<u64> {
    Some(match key {
        "vocab_size" => 40,
        "hidden_size" | "d_model" | "n_embd" => 32,
        "intermediate_size" | "d_ff" | "encoder_ffn_dim" | "decoder_ffn_dim" | "n_inner" => 32,
        "num_hidden_layers" | "num_layers" | "num_decoder_layers" | "encoder_layers" | "decoder_layers"
        | "n_layer" => 1,
        "num_attention_heads"
        | "num_heads"
        | "encoder_attention_heads"
        | "decoder_attention_heads"
        | "n_head" => 2,
        "num_key_value_heads" => 1,
        "head_dim" | "d_kv" => 16,
        "max_position_embeddings" | "n_positions" => 24,
        "pad_token_id" => 0,
        "bos_token_id" | "cls_token_id" => 2,
        "eos_token_id" | "sep_token_id" | "forced_eos_token_id" => 3,
        "decoder_start_token_id" => 0,
        _ => return None,
    })
}

/// Keys of `[model]` that a tiny model of any family needs.
fn sizes(model: &str) -> Table {
    let mut table: Table = toml::from_str(model).unwrap();
    let keys: &[&str] = match table["model_type"].as_str().unwrap() {
        "t5" => &["vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"],
        _ => &[
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
        ],
    };
    for key in keys {
        table.insert((*key).to_owned(), toml::Value::Integer(tiny(key).unwrap() as i64));
    }
    table
}

/// A place with a tokenizer, a token stream and the tiny models.
fn place() -> Place {
    let place = Place::new();
    fs::create_dir(place.path("tokenizer")).unwrap();
    let letters: Vec<String> = ('a'..='z').map(String::from).collect();
    place.write("tokenizer/vocab.txt", format!("{SPECIAL}\n{}", letters.join("\n")));
    let settings =
        json!({ "tokenizer_class": "BertTokenizer", "eos_token": "[SEP]", "chat_template": TEMPLATE });
    place.write("tokenizer/tokenizer_config.json", settings.to_string());
    place.write("letters.txt", "a b c d e f g h\n".repeat(80));
    place.ok(&["prepare", "letters.txt", "--tokenizer", "tokenizer", "--keep-duplicates", "-o", "letters"]);
    for (family, objective, model) in BASES {
        let mut config: Table = toml::from_str(
            "[run]\nseed = 1\n[data]\ntrain = \"\"\nrows = 2\n[optimizer]\nschedule = \"constant\"\nlr = 1e-3\nbeta2 = 0.99\n\
             weight_decay = 0.0\n[checkpoint]\nevery = 9",
        )
        .unwrap();
        config.insert("model".to_owned(), sizes(model).into());
        config
            .insert("objective".to_owned(), Table::from_iter([("kind".to_owned(), objective.into())]).into());
        if objective == "causal" {
            let context = ("context".to_owned(), toml::Value::Integer(12));
            config["data"].as_table_mut().unwrap().extend([context]);
        }
        place.write(&format!("{family}.toml"), config.to_string());
        train(&place, &place.path(&format!("{family}.toml")), &config, family);
    }
    place
}

/// Runs a configuration with tiny sizes.
fn train(place: &Place, path: &Path, config: &Table, output: &str) {
    let objective = config.get("objective").and_then(toml::Value::as_table);
    let kind = objective.map_or("causal", |objective| objective["kind"].as_str().unwrap());
    let data = config["data"].as_table().unwrap();
    let mut set = vec![
        format!("run.output={output}"),
        "run.steps=2".to_owned(),
        "run.accumulate=1".to_owned(),
        "data.rows=2".to_owned(),
    ];
    let is_stream = data.contains_key("context");
    if is_stream {
        set.extend(["data.context=12".to_owned(), "data.train=letters/train".to_owned()]);
    } else {
        place.write("rows.jsonl", rows(kind, objective, data));
        set.extend(["data.max_length=24".to_owned(), "data.train=rows.jsonl".to_owned()]);
    }
    if data.contains_key("valid") {
        set.push(format!("data.valid={}", if is_stream { "letters/valid" } else { "rows.jsonl" }));
    }
    if data.contains_key("held_out") {
        set.push("data.held_out=0.2".to_owned());
    }
    if data.contains_key("tokenizer") || config.contains_key("model") {
        set.push("data.tokenizer=tokenizer".to_owned());
    }
    let verb = match config.get("model") {
        Some(model) => {
            let keys = model.as_table().unwrap().keys();
            set.extend(keys.filter_map(|key| Some(format!("model.{key}={}", tiny(key)?))));
            "pretrain"
        }
        None => {
            let family = match kind {
                "causal" | "chat" | "preference" => "decoder",
                "seq2seq" | "span-corruption" | "denoise" => "encoder-decoder",
                _ => "encoder",
            };
            set.push(format!("init.from={family}/model"));
            "finetune"
        }
    };
    let optimizer = config["optimizer"].as_table().unwrap();
    for key in ["warmup_steps", "decay_steps"].into_iter().filter(|key| optimizer.contains_key(*key)) {
        set.push(format!("optimizer.{key}=1"));
    }
    let mut args = vec![verb.to_owned(), path.display().to_string()];
    args.extend(set.into_iter().flat_map(|set| ["--set".to_owned(), set]));
    let ran = place.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ran.code, Some(0), "{}: {ran:?}", path.display());
    let model = place.path(output).join("model");
    let weights = ["model.safetensors", "adapter_model.safetensors"].map(|name| model.join(name).exists());
    assert!(weights.contains(&true), "{}: {ran:?}", path.display());
    let measures = data.contains_key("valid") || data.contains_key("held_out");
    assert_eq!(ran.out.contains("validation loss"), measures, "{}: {ran:?}", path.display());
}

/// Rows for an objective, under the names that the configuration gives their fields.
fn rows(kind: &str, objective: Option<&Table>, data: &Table) -> String {
    let labels = objective.and_then(|objective| objective.get("labels")?.as_array()).map_or(2, Vec::len);
    let row = |at: usize| {
        let text = "a b c d e f g h i j"[2 * (at % 3)..].to_owned();
        let said = |role: &str| json!({ "role": role, "content": text });
        match kind {
            "classify" => json!({ "text": text, "label": at % labels }),
            "token-classify" => {
                json!({ "tokens": text.split(' ').collect::<Vec<_>>(), "tags": vec!["O"; text.len().div_ceil(2)] })
            }
            "answer" => {
                json!({ "question": "a", "context": text, "answers": { "text": ["f"], "answer_start": [text.find('f')] } })
            }
            "contrastive" | "rerank" => {
                json!({ "sentence1": text, "sentence2": "a b", "score": (at % 5) as f32 })
            }
            "seq2seq" => json!({ "source": text, "target": text }),
            "chat" => json!({ "messages": [said("user"), said("assistant")] }),
            "preference" => json!({ "prompt": "a", "chosen": "b", "rejected": "c" }),
            _ => json!({ "text": text }),
        }
    };
    let name = |role: String| match data.get("fields").and_then(|fields| fields.get(&role)?.as_str()) {
        Some(name) => name.to_owned(),
        None => role,
    };
    let named = |row: Value| -> Map<String, Value> {
        row.as_object().unwrap().iter().map(|(role, value)| (name(role.clone()), value.clone())).collect()
    };
    (0..40).map(|at| format!("{}\n", Value::Object(named(row(at))))).collect()
}

/// Runs a pipeline over a few rows in the place of each of its sources.
fn prepare(place: &Place, pipeline: &Table, name: &str) {
    let mut pipeline = pipeline.clone();
    let sources = pipeline["source"].as_array_mut().unwrap();
    for (at, source) in sources.iter_mut().enumerate() {
        let file = format!("{name}-{at}.jsonl");
        // Sentences enough for every filter, and no row nearly like another.
        let sentence = |n: usize, of: usize| {
            let [a, b, c, d] = [0, 1, 2, 3].map(|place| word(((n * 6 + of) * 4 + place) * 3 + at));
            format!("The {a} of {b} is {c} and {d}.")
        };
        let row = |n: usize| {
            let sentences: Vec<String> = (0..6).map(|of| sentence(n, of)).collect();
            json!({ "text": sentences.join("\n") }).to_string() + "\n"
        };
        place.write(&file, (0..100 * (at + 1)).map(row).collect::<String>());
        source.as_table_mut().unwrap().insert("paths".to_owned(), vec![file].into());
    }
    let n_sources = sources.len();
    if let Some(size) = pipeline["tokenizer"].as_table_mut().unwrap().get_mut("vocab_size") {
        *size = 300.into();
    }
    place.write(&format!("{name}.toml"), pipeline.to_string());
    let report = place.json(&["prepare", &format!("{name}.toml"), "-o", name]);
    assert_eq!(report["sources"].as_array().unwrap().len(), n_sources, "{name}: {report}");
}

#[test]
fn each_trains_a_tiny_model() {
    let place = place();
    let mut paths: Vec<_> = fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    assert!(paths.len() > 6, "{paths:?}");
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy();
        let table: Table = toml::from_str(&text).unwrap();
        match table.contains_key("source") {
            true => prepare(&place, &table, &name),
            false => train(&place, &path, &table, &name),
        }
        assert!(text.contains(&format!("examples/configs/{name}.toml")), "{name} does not say how it is run");
    }
}
