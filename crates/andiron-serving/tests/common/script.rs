//! A model that answers every conversation with the same text, and its chat template.

use andiron_data::reply::ToolFormat;
use andiron_data::tokenizer::{SpecialTokens, Tokenizer, train_chars};
use andiron_models::generate::{CausalLm, Logits};
use andiron_pipelines::TextProcessor;
use andiron_serving::engine::{Engine, EngineConfig};
use andiron_serving::http::Server;
use andiron_serving::registry::{Registry, Runner, Served, ServedModel};

use super::{Fixture, Gate, config};

/// The longest sequence, in characters.
pub const CONTEXT: usize = 4000;

/// It shows tools, calls and results, and may open the reasoning. After `<|go|>` the answer begins.
pub const TEMPLATE: &str = "{% if tools %}{{ '<tools>' + (tools | tojson) + '</tools>\\n<tool_call> calls one\\n' }}{% endif %}\
    {% for m in messages %}{{ m.role }}: {{ m.content if m.content is not none else '' }}\
    {% for call in m.tool_calls or [] %}{{ call.function.name }}({{ call.function.arguments | tojson }}){% endfor %}\
    {% if m.reasoning_content %} ({{ m.reasoning_content }}){% endif %}{{ '\\n' }}{% endfor %}\
    {% if add_generation_prompt %}<|go|>{% if enable_thinking %}{{ '<think>\\n' }}{% endif %}{% endif %}{# </think> #}";

/// Knows no tools.
pub const BARE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}<|go|>";

fn letters() -> String {
    (' '..='~').chain(['\n', 'é', 'ü']).collect()
}

pub fn tokenizer(template: Option<&str>) -> Tokenizer {
    let special = SpecialTokens {
        eos: Some("<|end|>".to_owned()),
        additional: vec!["<|go|>".to_owned(), "[TOOL_CALLS]".to_owned()],
        ..SpecialTokens::default()
    };
    let dir = tempfile::tempdir().unwrap();
    train_chars([letters()], &special).unwrap().save(dir.path()).unwrap();
    if let Some(template) = template {
        std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    }
    Tokenizer::load(dir.path()).unwrap()
}

/// After the last `<|go|>` it says its answer, then the end. What a grammar forbids it skips to the next that is allowed.
pub struct Script {
    answer: Vec<u32>,
    begin: u32,
    end: u32,
    vocab_size: usize,
    gate: Gate,
}

impl Script {
    fn row(&self, seen: &[u32]) -> Vec<f32> {
        let said = seen.iter().rev().take_while(|&&id| id != self.begin).count();
        let next = self.answer.get(said).copied().unwrap_or(self.end);
        (0..self.vocab_size as u32).map(|id| if id == next { 20.0 } else { -(id as f32) / 100.0 }).collect()
    }
}

impl CausalLm for Script {
    type State = Vec<u32>;

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn context_len(&self) -> usize {
        CONTEXT
    }

    fn begin(&self) -> Vec<u32> {
        Vec::new()
    }

    fn forward(&self, state: &mut Vec<u32>, ids: &[u32], wanted: Logits) -> Vec<f32> {
        self.gate.pass();
        let mut rows = Vec::new();
        for &id in ids {
            state.push(id);
            rows.extend(self.row(state));
        }
        match wanted {
            Logits::All => rows,
            Logits::Last => rows.split_off(rows.len() - self.vocab_size),
        }
    }
}

pub struct Options {
    pub template: Option<&'static str>,
    pub tool_format: Option<ToolFormat>,
}

impl Default for Options {
    fn default() -> Self {
        Self { template: Some(TEMPLATE), tool_format: None }
    }
}

/// A server of a model that answers `answer`.
pub async fn start(answer: &str) -> Fixture {
    start_with(answer, Options::default()).await
}

pub async fn start_with(answer: &str, options: Options) -> Fixture {
    let tokenizer = tokenizer(options.template);
    let gate = Gate::default();
    let id = |token: &str| tokenizer.token_to_id(token).unwrap();
    let end = id("<|end|>");
    let model = Script {
        answer: tokenizer.encode_markup(answer).unwrap(),
        begin: id("<|go|>"),
        end,
        vocab_size: tokenizer.vocab_size(),
        gate: gate.clone(),
    };
    let engine = Engine::start(model, EngineConfig::default()).unwrap();
    let info = ServedModel { tool_format: options.tool_format, ..ServedModel::new("script") };
    let text = TextProcessor::new(Some(tokenizer), vec![end]);
    let served = Served::new(info, text, Runner::Decoder(engine.handle()));
    let server = Server::new(Registry::of(served), config());
    let listener = server.bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let running = server.clone();
    let serving = tokio::spawn(async move { running.serve(listener, running.router()).await });
    Fixture { address, server, engine, gate, serving }
}
