//! Small runs of every objective, for the tests of this crate and for those that compare backends.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "tests fail where they panic")]

use std::fs;

use andiron_core::DeviceSpec;
use andiron_data::shard::{DatasetWriter, WriterOptions};
use andiron_kernels::random::Seed;
use andiron_models::{AnyConfig, Bundle, EncoderHead};
use andiron_training::TrainConfig;
use andiron_training::config::{DataConfig, RunConfig};
use serde_json::{Value, json};

pub const BERT: &str = r#"
model_type = "bert"
vocab_size = 40
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 24
max_position_embeddings = 24
initializer_range = 0.2
"#;

pub const T5: &str = r#"
model_type = "t5"
vocab_size = 40
d_model = 16
d_kv = 8
d_ff = 24
num_layers = 1
num_heads = 2
relative_attention_num_buckets = 8
relative_attention_max_distance = 20
feed_forward_proj = "relu"
dropout_rate = 0.1
decoder_start_token_id = 0
"#;

pub const BART: &str = r#"
model_type = "bart"
vocab_size = 40
d_model = 16
encoder_layers = 1
decoder_layers = 1
encoder_attention_heads = 2
decoder_attention_heads = 2
encoder_ffn_dim = 24
decoder_ffn_dim = 24
max_position_embeddings = 24
pad_token_id = 0
bos_token_id = 2
eos_token_id = 3
decoder_start_token_id = 3
init_std = 0.1
"#;

pub const MARIAN: &str = r#"
model_type = "marian"
vocab_size = 40
d_model = 16
encoder_layers = 1
decoder_layers = 1
encoder_attention_heads = 2
decoder_attention_heads = 2
encoder_ffn_dim = 24
decoder_ffn_dim = 24
max_position_embeddings = 24
pad_token_id = 0
eos_token_id = 3
decoder_start_token_id = 0
init_std = 0.1
"#;

pub const GPT2: &str = r#"
model_type = "gpt2"
vocab_size = 40
n_positions = 24
n_embd = 16
n_layer = 1
n_head = 2
"#;

pub const LLAMA: &str = r#"
model_type = "llama"
vocab_size = 40
hidden_size = 16
intermediate_size = 24
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
max_position_embeddings = 24
initializer_range = 0.2
"#;

/// A directory with a tokenizer of letters, rows and a token stream.
#[derive(Debug)]
pub struct Place(tempfile::TempDir);

impl Place {
    /// A tokenizer of letters, rows of texts with labels and targets, and a token stream.
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.path("tokenizer")).unwrap();
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
        let letters = ('a'..='z').flat_map(|letter| [letter.to_string()]);
        let words: Vec<String> = special.into_iter().chain(letters).collect();
        fs::write(place.path("tokenizer/vocab.txt"), words.join("\n")).unwrap();
        for (name, rows) in [("train", 40), ("valid", 9)] {
            let row = |row: u64| {
                let seed = Seed::new(rows).at(row);
                let letter = |at: u64| char::from(b'a' + seed.below(at, 6) as u8).to_string();
                let letters: Vec<String> = (0..3 + seed.below(99, 5)).map(letter).collect();
                // What is asked for can be told from the first letter.
                let first = letters[0].as_bytes()[0] - b'a';
                let reversed: Vec<&str> = letters.iter().rev().map(String::as_str).collect();
                let labels: &[&str] = if first > 2 { &["late", "long"] } else { &["early"] };
                let label = ["low", "middle", "high"][usize::from(first / 2)];
                json!({
                    "text": letters.join(" "),
                    "label": label,
                    "labels": labels,
                    "score": f32::from(first) / 5.0,
                    "source": letters.join(" "),
                    "target": reversed.join(" "),
                })
                .to_string()
            };
            let text = (0..rows).map(row).collect::<Vec<_>>().join("\n");
            fs::write(place.path(&format!("{name}.jsonl")), text).unwrap();
            let mut writer =
                DatasetWriter::create(&place.path(name), WriterOptions::new(31, "letters")).unwrap();
            let ids: Vec<u32> = (0..rows as u32 * 8).map(|at| 5 + at * at % 7).collect();
            writer.push("all", &ids, "").unwrap();
            writer.finish().unwrap();
        }
        place
    }

    /// Gives the tokenizer an end of a sequence and T5's sentinels.
    pub fn add_sentinels(&self) {
        let path = self.path("tokenizer/vocab.txt");
        let words = fs::read_to_string(&path).unwrap();
        fs::write(path, words + "\n<extra_id_1>\n<extra_id_0>").unwrap();
        let settings = json!({ "tokenizer_class": "BertTokenizer", "eos_token": "[SEP]" });
        fs::write(self.path("tokenizer/tokenizer_config.json"), settings.to_string()).unwrap();
    }

    /// Files of rows for training and validation, made from a row's random stream.
    pub fn write(&self, name: &str, row: impl Fn(Seed) -> Value) -> [String; 2] {
        [("train", 40), ("valid", 9)].map(|(part, rows)| {
            let rows: Vec<_> = (0..rows).map(|at| row(Seed::new(rows).at(at)).to_string()).collect();
            let file = format!("{name}-{part}.jsonl");
            fs::write(self.path(&file), rows.join("\n")).unwrap();
            file
        })
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// The run called `output`.
    pub fn config(&self, model: &str, objective: &str, data: [&str; 2], output: &str) -> TrainConfig {
        let [train, valid] = data.map(|name| format!("{:?}", self.path(name).display().to_string()));
        let text = format!(
            r#"
                [run]
                output = {:?}
                seed = 3
                steps = 6
                accumulate = 2
                precision = "f32"
                {model}
                [objective]
                {objective}
                [data]
                train = {train}
                valid = {valid}
                tokenizer = {:?}
                rows = 3
                {}
                [optimizer]
                schedule = "constant"
                lr = 1e-2
                beta2 = 0.99
                weight_decay = 0.01
                [checkpoint]
                every = 100
                [evaluate]
                every = 3
                rows = 4
            "#,
            self.path(output).display().to_string(),
            self.path("tokenizer").display().to_string(),
            if data[0].ends_with("jsonl") { "" } else { "context = 12" },
        );
        TrainConfig::parse(&text, &[]).unwrap()
    }
}

/// How the tokenizer writes messages.
const TEMPLATE: &str = "{% for m in messages %}{{ '[CLS]' if m.role == 'user' else '[MASK]' }} {{ m.content }}[SEP]\
                        {% endfor %}{% if add_generation_prompt %}[MASK] {% endif %}";

impl Place {
    /// Rows of two letters to be continued, and a tokenizer that can write messages and mark a middle.
    pub fn of_answers() -> Self {
        let place = Self::new();
        place.write_answers("train", 40);
        place.write_answers("valid", 9);
        place.describe(json!({ "chat_template": TEMPLATE, "eos_token": "[SEP]" }));
        place
    }

    /// Writes the settings of the tokenizer.
    pub fn describe(&self, settings: Value) {
        fs::write(self.path("tokenizer/tokenizer_config.json"), settings.to_string()).unwrap();
    }

    /// A file of rows with conversations, answers to instructions, completions and preferences.
    pub fn write_answers(&self, name: &str, rows: u64) {
        let row = |row: u64| {
            let seed = Seed::new(rows).at(row);
            let [first, second] = [0, 1].map(|at| char::from(b'a' + seed.below(at, 6) as u8));
            let message = |role: &str, content: String| json!({ "role": role, "content": content });
            json!({
                "messages": [
                    message("user", format!("{first}")),
                    message("assistant", format!("{first} {first}")),
                    message("user", format!("{second}")),
                    message("assistant", format!("{second} {second}")),
                ],
                "instruction": first,
                "output": format!("{first} {first}"),
                "prompt": format!("{first} {second}"),
                "completion": format!(" {second} {first}"),
                "chosen": format!(" {second} {first}"),
                "rejected": " x y z",
            })
            .to_string()
        };
        let text = (0..rows).map(row).collect::<Vec<_>>().join("\n");
        fs::write(self.path(&format!("{name}.jsonl")), text).unwrap();
    }

    /// The run, with other names of fields.
    pub fn with_fields(&self, objective: &str, fields: Value, output: &str) -> TrainConfig {
        let config = self.config(&table(GPT2), objective, rows(), output);
        let fields = Some(fields.as_object().unwrap().clone());
        let data = DataConfig { fields, ..config.data.clone() };
        TrainConfig { data, ..config }
    }
}

/// Letters from `a` to `f`.
pub fn letters(seed: Seed, n: usize) -> Vec<String> {
    (0..n as u64).map(|at| char::from(b'a' + seed.below(at, 6) as u8).to_string()).collect()
}

/// The files of rows that every place has.
pub fn rows() -> [&'static str; 2] {
    ["train.jsonl", "valid.jsonl"]
}

/// The table of a model with random weights.
pub fn table(fields: &str) -> String {
    format!("[model]{fields}")
}

/// The tables of a run that trains an adapter of the model that the run `base` left.
pub fn adapter_of(place: &Place, base: &str, precision: &str, more: &str) -> String {
    let from = place.path(base).join("model").display().to_string();
    format!("[init]\nfrom = {from:?}\nprecision = {precision:?}\n[adapter]\nrank = 4\nalpha = 8.0\n{more}")
}

/// A row whose words have tags: `z` would be none of them.
pub fn tagged_row(seed: Seed) -> Value {
    let words = letters(seed, 3 + seed.below(99, 5) as usize);
    let tag = |word: &String| match word.as_str() {
        "a" | "b" => "B-VOWEL",
        "c" => "I-VOWEL",
        _ => "O",
    };
    json!({ "tokens": words, "ner_tags": words.iter().map(tag).collect::<Vec<_>>() })
}

/// A row of a question, whose answer is the only `z`, or is not said to be there.
pub fn question_row(seed: Seed, known: bool) -> Value {
    let mut words = letters(seed, 15 + seed.below(99, 20) as usize);
    let at = seed.below(98, words.len() as u64) as usize;
    words[at] = "z".to_owned();
    let answers = if known {
        json!({ "text": ["z"], "answer_start": [2 * at] })
    } else {
        json!({ "text": [], "answer_start": [] })
    };
    json!({ "question": "y", "context": words.join(" "), "answers": answers })
}

/// A row of a text, the same reversed, and one or two others.
pub fn reversed_row(seed: Seed) -> Value {
    let mut words = letters(seed, 4);
    let query = words.join(" ");
    words.reverse();
    let negatives = vec![letters(seed.at(1), 4).join(" "); 1 + seed.below(99, 2) as usize];
    json!({ "query": query, "positive": words.join(" "), "negatives": negatives })
}

/// A row of a query, a text with the `z` that is looked for, and two without.
pub fn relevant_row(seed: Seed) -> Value {
    let mut positive = letters(seed, 4);
    positive[seed.below(99, 4) as usize] = "z".to_owned();
    let negatives = [letters(seed.at(1), 4).join(" "), letters(seed.at(2), 3).join(" ")];
    json!({ "query": letters(seed.at(3), 2).join(" "), "positive": positive.join(" "), "negatives": negatives })
}

/// An objective with a model and data.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is called.
    pub name: &'static str,
    /// Fields of the model.
    pub model: &'static str,
    /// Fields of the objective.
    pub objective: &'static str,
    /// Training and validation data.
    pub data: [String; 2],
}

/// Every objective, and the families that it trains.
pub const NAMES: [&str; 15] = [
    "causal",
    "chat",
    "preference",
    "masked",
    "masked-rows",
    "seq2seq",
    "seq2seq-marian",
    "span-corruption",
    "denoise",
    "classify",
    "classify-decoder",
    "token-classify",
    "answer",
    "contrastive",
    "rerank",
];

/// What a run trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The model.
    Full,
    /// An adapter of it.
    Lora,
    /// An adapter of it with weights in few bits.
    Qlora,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Full, Self::Lora, Self::Qlora];
}

impl Place {
    /// A place in which every case can be run.
    pub fn of_all() -> Self {
        let place = Self::new();
        place.add_sentinels();
        place.describe(json!({
            "tokenizer_class": "BertTokenizer", "eos_token": "[SEP]", "chat_template": TEMPLATE,
        }));
        place.write_answers("answers-train", 40);
        place.write_answers("answers-valid", 9);
        place
    }

    /// The case of a name in [`NAMES`].
    pub fn case(&self, name: &'static str) -> Case {
        let streams = ["train", "valid"].map(str::to_owned);
        let texts = rows().map(str::to_owned);
        let answers = ["answers-train.jsonl", "answers-valid.jsonl"].map(str::to_owned);
        let (model, objective, data) = match name {
            "causal" => (GPT2, "kind = \"causal\"", streams),
            "chat" => (LLAMA, "kind = \"chat\"", answers),
            "preference" => (GPT2, "kind = \"preference\"", answers),
            "masked" => (BERT, "kind = \"masked\"\nprobability = 0.3", streams),
            "masked-rows" => (BERT, "kind = \"masked\"\nwhole_words = true", texts),
            "seq2seq" => (T5, "kind = \"seq2seq\"\nlabel_smoothing = 0.1", texts),
            "seq2seq-marian" => (MARIAN, "kind = \"seq2seq\"\nscored_rows = 3", texts),
            "span-corruption" => (T5, "kind = \"span-corruption\"\ndensity = 0.3", streams),
            "denoise" => (BART, "kind = \"denoise\"", texts),
            "classify" => (BERT, "kind = \"classify\"", texts),
            "classify-decoder" => (LLAMA, "kind = \"classify\"", texts),
            "token-classify" => (BERT, "kind = \"token-classify\"", self.write("tags", tagged_row)),
            "answer" => {
                let data = self.write("questions", |seed| question_row(seed, true));
                (BERT, "kind = \"answer\"", data)
            }
            "contrastive" => (BERT, "kind = \"contrastive\"", self.write("reversed", reversed_row)),
            "rerank" => (BERT, "kind = \"rerank\"", self.write("relevant", relevant_row)),
            other => panic!("{other} is no case"),
        };
        Case { name, model, objective, data }
    }

    /// The run of a case called `output`.
    pub fn run(&self, case: &Case, form: Form, output: &str) -> TrainConfig {
        let model = match form {
            Form::Full => table(case.model),
            Form::Lora => adapter_of(self, &self.base(case), "f32", ""),
            Form::Qlora => adapter_of(self, &self.base(case), "int4", ""),
        };
        let [train, valid] = &case.data;
        self.config(&model, case.objective, [train, valid], output)
    }

    /// A run that a model with random weights could have left.
    fn base(&self, case: &Case) -> String {
        let config = self.config(&table(case.model), "kind = \"causal\"", ["train", "valid"], "none");
        let config = AnyConfig::from(config.model.unwrap());
        // A new head that is tied to embeddings below an adapter is refused.
        let head = if case.name.starts_with("masked") { EncoderHead::MaskedLm } else { EncoderHead::None };
        let name = format!("base-{}-{head:?}", config.model_type());
        let path = self.path(&name).join("model");
        if path.exists() {
            return name;
        }
        let (seed, device) = (Seed::new(5), DeviceSpec::first_compiled().unwrap().open().unwrap());
        match config {
            AnyConfig::Decoder(config) => Bundle::init(config, seed, &device).save(&path),
            AnyConfig::Encoder(config) => {
                let config = config.with_head(head, Vec::new()).unwrap();
                Bundle::init(config, seed, &device).save(&path)
            }
            AnyConfig::EncoderDecoder(config) => Bundle::init(config, seed, &device).save(&path),
            other => panic!("{other:?} is not made of a table"),
        }
        .unwrap();
        name
    }
}

/// The run for so many steps.
pub fn lengthened(config: TrainConfig, steps: u64) -> TrainConfig {
    TrainConfig { run: RunConfig { steps: Some(steps), ..config.run }, ..config }
}
