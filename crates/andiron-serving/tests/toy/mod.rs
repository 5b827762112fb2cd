//! A one-shot model without weights, and servers of several models.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use andiron_data::tokenizer::{SpecialTokens, Tokenizer, train_chars};
use andiron_pipelines::{
    AnswerText, Embedding, FilledMask, FoundAnswer, Guess, Question, RankedDocument, Ranking, TextInput,
    TextProcessor,
};
use andiron_serving::engine::ModelSizes;
use andiron_serving::http::{ServeError, Server, ServerConfig, Stopped};
use andiron_serving::registry::{Capability, Registry, Runner, Served, ServedModel};
use andiron_serving::runner::{
    ModelShape, OneShot, OneShotConfig, OneShotModel, Output, Task, TaskError, TextEntities, TextEntity,
    TextLabels,
};
use tokio::task::JoinHandle;

use crate::common::Gate;

/// Longest text, in characters.
pub const LIMIT: usize = 40;

/// The model panics when it reads this.
pub const BOMB: &str = "bomb";

/// The model reads this for as long as somebody waits for it.
pub const ENDLESS: &str = "endless";

/// Letters are its tokens; an embedding counts them.
#[derive(Clone)]
pub struct Toy {
    pub can: Vec<Capability>,
    pub gate: Gate,
    /// The size of each batch so far.
    pub batches: Arc<Mutex<Vec<usize>>>,
}

impl Toy {
    pub fn new(can: &[Capability]) -> Self {
        Self { can: can.to_vec(), gate: Gate::default(), batches: Arc::default() }
    }

    pub fn start(&self, config: OneShotConfig) -> OneShot {
        OneShot::start(self.clone(), config).unwrap()
    }

    pub fn batches(&self) -> Vec<usize> {
        self.batches.lock().unwrap().clone()
    }

    fn one(task: &Task) -> Result<Output, TaskError> {
        let read = |input: &TextInput| match input {
            TextInput::Text { text, pair } => {
                let text = format!("{text}{}", pair.as_deref().unwrap_or_default());
                assert!(!text.contains(BOMB), "the bomb went off");
                (text.chars().filter(|c| *c == 'a').count(), text.chars().count())
            }
            TextInput::Ids { ids, .. } => (ids.iter().filter(|&&id| id == 1).count(), ids.len()),
        };
        Ok(match task {
            Task::Embed(input) => {
                let (count, tokens) = read(input);
                // Of length 1.
                let x = count as f32 / 10.0;
                let vector = vec![x, (1.0 - x * x).max(0.0).sqrt(), 0.0, 0.0];
                Output::Embedding(Embedding { vector, tokens: tokens.min(LIMIT), truncated: tokens > LIMIT })
            }
            Task::Classify(input) => {
                let (count, tokens) = read(input);
                let yes = count as f32 / tokens.max(1) as f32;
                let mut labels = vec![("yes".to_owned(), yes), ("no".to_owned(), 1.0 - yes)];
                labels.sort_by(|a, b| b.1.total_cmp(&a.1));
                Output::Labels(TextLabels { labels, tokens, truncated: tokens > LIMIT })
            }
            Task::TokenClassify(input) => {
                let (_, tokens) = read(input);
                let entity =
                    TextEntity { label: "X".to_owned(), span: 0..2, text: Some("ab".to_owned()), score: 0.5 };
                Output::Entities(TextEntities { entities: vec![entity], tokens, truncated: false })
            }
            Task::Rerank(request) => {
                // The more a document has of the query's first letter, the better.
                let wanted = request.query.chars().next().unwrap_or('a');
                let score = |document: &String| document.matches(wanted).count() as f32;
                let results = request.documents.iter().enumerate().map(|(index, document)| RankedDocument {
                    index,
                    score: score(document),
                    logit: Some(score(document)),
                });
                Ranking::join([Ranking {
                    results: results.collect(),
                    tokens: request.documents.iter().map(String::len).sum(),
                    truncated: request.documents.iter().any(|document| document.len() > LIMIT),
                }])
                .pipe(Output::Ranking)
            }
            Task::Answer(Question::Text { context, .. }, max_tokens) => Output::Answer(FoundAnswer {
                answer: AnswerText::Text(context.chars().take(*max_tokens).collect()),
                span: 0..*max_tokens,
                score: 0.25,
            }),
            Task::FillMask(_, top) => {
                let guess =
                    |id: usize| Guess { id: id as u32, token: Some(id.to_string()), probability: 0.1 };
                Output::Masks(vec![FilledMask { position: 1, top: (0..*top).map(guess).collect() }])
            }
            _ => return Err(TaskError::Unable),
        })
    }
}

/// Postfix calls.
trait Pipe: Sized {
    fn pipe<T>(self, f: impl FnOnce(Self) -> T) -> T {
        f(self)
    }
}

impl<T> Pipe for T {}

impl OneShotModel for Toy {
    fn can(&self) -> Vec<Capability> {
        self.can.clone()
    }

    fn sizes(&self) -> ModelSizes {
        ModelSizes { vocab_size: 30, context_len: LIMIT }
    }

    fn shape(&self) -> ModelShape {
        ModelShape {
            labels: vec!["yes".to_owned(), "no".to_owned()],
            width: 4,
            normalizes: true,
            pooling: "mean",
            dtype: "float32",
        }
    }

    fn run(&self, tasks: &[&Task], waits: &dyn Fn(usize) -> bool) -> Vec<Result<Output, TaskError>> {
        self.gate.pass();
        while tasks.iter().any(|task| matches!(task, Task::Embed(input) if *input == ENDLESS.into()))
            && waits(0)
        {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        self.batches.lock().unwrap().push(tasks.len());
        tasks.iter().map(|task| Self::one(task)).collect()
    }
}

pub fn tokenizer() -> Tokenizer {
    train_chars(["!abcdefghijklmnopqrstuvwxyz é"], &SpecialTokens::end_of_text("<|end|>")).unwrap()
}

pub fn served(name: &str, toy: &Toy) -> Served {
    served_with(name, toy, OneShotConfig::default())
}

pub fn served_with(name: &str, toy: &Toy, config: OneShotConfig) -> Served {
    let text = TextProcessor::new(Some(tokenizer()), Vec::new());
    Served::new(ServedModel::new(name), text, Runner::OneShot(toy.start(config)))
}

/// A running server on a port of its own.
pub struct Running {
    pub address: SocketAddr,
    pub server: Server,
    pub serving: JoinHandle<Result<Stopped, ServeError>>,
}

pub async fn serve(registry: Registry) -> Running {
    serve_with(Server::new(registry, ServerConfig::new(5))).await
}

pub async fn serve_with(server: Server) -> Running {
    let listener = server.bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let running = server.clone();
    let serving = tokio::spawn(async move { running.serve(listener, running.router()).await });
    Running { address, server, serving }
}
