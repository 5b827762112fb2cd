//! Constrained generation: text that matches a grammar.

mod bounds;
mod calls;
mod expansion;
mod interrupt;
mod messages;
mod multiples;
mod pattern;
mod shape;
mod width;

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

pub use calls::TextOrCalls;
pub use interrupt::Interrupt;

/// Largest grammar, in bytes of its own notation.
const MAX_GRAMMAR: usize = 256 << 10;

/// States that a text's matcher keeps: all that it has looked at. A long text looks at more of them, but stands at few: see
/// [`Guide::retrace`].
const MAX_STATES: usize = 30_000;

/// Stack of the thread that compiles: the compiler recurses over properties and nesting, which [`bounds`] limits.
const COMPILER_STACK: usize = 16 << 20;

/// Limits of the compiler and of each decoding step.
fn parser_limits() -> ParserLimits {
    ParserLimits {
        // Some 300 bytes each, or 1.4 kB in a pattern of large classes: 40 MB.
        max_lexer_states: MAX_STATES,
        initial_lexer_fuel: 400_000,
        max_grammar_size: 150_000,
        // Would walk the vocabulary for each large expression, with no bound on states.
        precompute_large_lexemes: false,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// White space between JSON tokens: without a bound, a weak model can generate it for ever.
const JSON_SPACE: &str = r" |\n[ \t]{0,20}";

/// A grammar for the whole generated text.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// One of these texts.
    Choice(Vec<String>),
    /// A text that matches the whole regular expression, in the syntax of the crate `regex`, without look-around and
    /// back-references.
    Regex(String),
    /// A JSON text that matches the schema, with properties in the schema's order. Unsupported keywords of the
    /// schema's dialect are errors.
    JsonSchema(Value),
    /// A text, or calls of tools.
    TextOrCalls(Box<TextOrCalls>),
}

impl Grammar {
    /// Any JSON object.
    pub fn json_object() -> Self {
        Self::JsonSchema(json!({ "type": "object" }))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Choice(texts) => texts.iter().map(String::len).sum(),
            Self::Regex(pattern) => pattern.len(),
            Self::JsonSchema(schema) => schema.to_string().len(),
            Self::TextOrCalls(calls) => calls.bytes(),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Choice(_) => "choice",
            Self::Regex(_) => "regex",
            Self::JsonSchema(_) => "JSON schema",
            Self::TextOrCalls(_) => "JSON schema of the answer or of a tool",
        }
    }

    /// In the notation of llguidance.
    fn top_level(&self, vocabulary: &Vocabulary) -> TopLevelGrammar {
        // Allows a leading space.
        let space = vocabulary.drops_first_space;
        let json = |schema: &Value| {
            let mut schema = schema.clone();
            if let Some(fields) = schema.as_object_mut() {
                fields.entry("x-guidance").or_insert(json!({ "whitespace_pattern": JSON_SPACE }));
            }
            schema
        };
        let pattern = |pattern: &str| match space {
            true => TopLevelGrammar::from_regex(&format!(" ?(?:{pattern})")),
            false => TopLevelGrammar::from_regex(pattern),
        };
        match self {
            Self::Choice(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| regex_syntax::escape(text)).collect();
                pattern(&texts.join("|"))
            }
            Self::Regex(wanted) => pattern(wanted),
            Self::JsonSchema(schema) => {
                let schema = json(schema);
                match space {
                    true => TopLevelGrammar::from_lark(format!(
                        "start: SPACE? json\nSPACE: \" \"\njson: %json {schema}"
                    )),
                    false => TopLevelGrammar::from_json_schema(schema),
                }
            }
            Self::TextOrCalls(calls) => {
                let id_of = |name: &str| vocabulary.control.get(name).copied();
                TopLevelGrammar::from_lark(calls.to_lark(id_of, json))
            }
        }
    }
}

/// Errors of constrained generation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// An empty list of choices.
    #[error("choice: it is empty, give at least one text")]
    NoChoice,
    /// The grammar is too large.
    #[error("{grammar}: {bytes} bytes, at most {limit} are allowed")]
    TooLarge {
        /// The kind of grammar.
        grammar: &'static str,
        /// Its size.
        bytes: usize,
        /// Maximum size.
        limit: usize,
    },
    /// The grammar is short but expands to something large.
    #[error("{grammar}: more than {limit} {what}, which is too much to hold a text to; make it simpler")]
    TooComplex {
        /// The kind of grammar.
        grammar: &'static str,
        /// What is counted.
        what: &'static str,
        /// Maximum count.
        limit: u64,
    },
    /// The grammar has a mistake, asks for something that cannot be enforced, or is too complex.
    #[error("{grammar}: {message}")]
    Grammar {
        /// The kind of grammar.
        grammar: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// Its compilation was ended by an [`Interrupt`].
    #[error("nobody waits for this grammar any more")]
    Interrupted,
    /// The vocabulary is empty, or too large.
    #[error("a vocabulary of {0} tokens cannot be held to a grammar")]
    Vocabulary(usize),
    /// The constraint was made for a larger vocabulary than the model's.
    #[error(
        "the constraint knows {constraint} tokens, but the model has only {model}: they do not belong together"
    )]
    OtherVocabulary {
        /// Tokens that the constraint knows.
        constraint: usize,
        /// Size of the model's vocabulary.
        model: usize,
    },
    /// Computing the token mask exceeded its limits.
    #[error("cannot tell what may come next in a text held to this grammar: {0}")]
    Step(String),
}

/// The bytes of a vocabulary's tokens, as a trie for fast masks.
///
/// Takes tens of milliseconds to build for 50,000 tokens: build it once per tokenizer; clones share it.
#[derive(Clone)]
pub struct Vocabulary {
    factory: Arc<ParserFactory>,
    /// Control tokens by name.
    control: Arc<HashMap<String, u32>>,
    drops_first_space: bool,
    tokens: usize,
}

impl Vocabulary {
    /// The vocabulary in which token `id` has the bytes `tokens[id]`. A token without bytes is never part of a constrained text.
    /// `drops_first_space`: the tokenizer drops a leading space when decoding,
    /// as SentencePiece does.
    ///
    /// # Errors
    /// [`ConstraintError::Vocabulary`].
    pub fn new(tokens: &[Vec<u8>], drops_first_space: bool) -> Result<Self, ConstraintError> {
        Self::with_control_tokens(tokens, &[], drops_first_space)
    }

    /// The same with control tokens: ids without bytes, and their names. They are part of a text only where a grammar names them, as
    /// [`TextOrCalls`] does.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_control_tokens(
        tokens: &[Vec<u8>],
        control: &[(u32, String)],
        drops_first_space: bool,
    ) -> Result<Self, ConstraintError> {
        let refuse = || ConstraintError::Vocabulary(tokens.len());
        // One additional id stands for the end of the text, whatever the model's own ids for it are.
        let end =
            u32::try_from(tokens.len()).ok().filter(|&end| end > 0 && end < 1 << 24).ok_or_else(refuse)?;
        let mut words = [tokens, &[Vec::new()]].concat();
        for (id, name) in control {
            if let Some(word) = words.get_mut(*id as usize).filter(|word| word.is_empty()) {
                // No text holds this byte, which is how the library tells control tokens from texts.
                *word = [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat();
            }
        }
        let trie = TokTrie::from(&TokRxInfo::new(end + 1, end), &words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(|_| refuse())?;
        *factory.quiet().limits_mut() = parser_limits();
        let control = control.iter().map(|(id, name)| (name.clone(), *id)).collect();
        let (factory, control) = (Arc::new(factory), Arc::new(control));
        Ok(Self { factory, control, drops_first_space, tokens: tokens.len() })
    }
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vocabulary").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

/// A [`Grammar`] compiled for a [`Vocabulary`]: masks the tokens that would violate it.
///
/// Only texts of the grammar are generated; a generation that ends early (by length, for example) is the beginning of
/// one. Stop ids are allowed where the text may end; the generation ends by itself where nothing can follow. Tokens
/// are judged by their bytes, so the tokenization may differ from the tokenizer's own.
///
/// Source: the crate llguidance, <https://github.com/guidance-ai/llguidance>.
#[derive(Clone)]
pub struct Constraint {
    start: Matcher,
    vocabulary: Vocabulary,
    grammar: Grammar,
}

impl Constraint {
    /// Compiles `grammar` for `vocabulary`.
    ///
    /// # Errors
    /// [`ConstraintError::NoChoice`], [`ConstraintError::TooLarge`], and [`ConstraintError::Grammar`] if it is
    /// invalid, unsupported, or exceeds the bounds on time and memory.
    pub fn new(vocabulary: &Vocabulary, grammar: Grammar) -> Result<Self, ConstraintError> {
        Self::new_unless(vocabulary, grammar, &Interrupt::default())
    }

    /// The same, which `interrupt` may end early.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`ConstraintError::Interrupted`].
    pub fn new_unless(
        vocabulary: &Vocabulary,
        grammar: Grammar,
        interrupt: &Interrupt,
    ) -> Result<Self, ConstraintError> {
        let wrong = |message: String| ConstraintError::Grammar {
            grammar: grammar.name(),
            message: messages::plain(&message),
        };
        let compiled = with_stack(|| {
            interrupt.check()?;
            bounds::check(&grammar)?;
            interrupt.check()?;
            let parser = vocabulary.factory.create_parser(grammar.top_level(vocabulary));
            let matcher = Matcher::new(parser).into_cancellable();
            interrupt.follow(&matcher)?;
            let started = start(matcher);
            // What was ended says so before it says what went wrong.
            interrupt.finish()?;
            started.map_err(wrong)
        });
        let mut start = compiled.map_err(|message| wrong(message.to_owned()))??;
        let unheard = start.grammar_warnings();
        if !unheard.is_empty() {
            return Err(wrong(unheard.join("; ")));
        }
        Ok(Self { start, vocabulary: vocabulary.clone(), grammar })
    }

    /// The grammar.
    pub fn grammar(&self) -> &Grammar {
        &self.grammar
    }

    /// The state at the start of a text, for a model of `vocab_size` ids.
    pub(super) fn begin(&self, vocab_size: usize) -> Result<Guide, ConstraintError> {
        let constraint = self.vocabulary.tokens;
        match constraint <= vocab_size {
            true => Ok(Guide {
                matcher: self.start.deep_clone(),
                start: self.start.clone(),
                written: Vec::new(),
                tokens: constraint,
                vocab_size,
            }),
            false => Err(ConstraintError::OtherVocabulary { constraint, model: vocab_size }),
        }
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint").field("grammar", &self.grammar).finish_non_exhaustive()
    }
}

impl PartialEq for Constraint {
    /// Whether both have the same grammar, and the same [`Vocabulary`] or a clone of it.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.vocabulary.factory, &other.vocabulary.factory) && self.grammar == other.grammar
    }
}

/// Runs `work` on a thread with a known stack size, independent of the caller's; returns the message if it panics.
fn with_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, &'static str> {
    std::thread::scope(|scope| {
        let guarded = || catch_unwind(AssertUnwindSafe(work));
        let builder =
            std::thread::Builder::new().name("andiron-grammar".to_owned()).stack_size(COMPILER_STACK);
        let thread =
            builder.spawn_scoped(scope, guarded).map_err(|_| "the system gave no thread to read it on")?;
        let done = thread.join().and_then(|done| done);
        done.map_err(|_| "it is too unusual for the compiler of grammars, which failed")
    })
}

/// Takes a matcher to the beginning of a text.
fn start(mut start: Matcher) -> Result<Matcher, String> {
    // Detects grammars that allow the empty text only; an error is kept in the matcher.
    let _ = start.consume_tokens(&[]);
    if let Some(message) = start.get_error() {
        return Err(message);
    }
    if !start.is_stopped() && start.compute_mask().is_ok_and(|mask| mask.is_zero()) {
        return Err("no token of the vocabulary can begin such a text".to_owned());
    }
    match start.get_error() {
        Some(message) => Err(message),
        None => Ok(start),
    }
}

/// The state of a grammar in a text.
pub(super) struct Guide {
    matcher: Matcher,
    /// The state before the text, and the ids of the text.
    start: Matcher,
    written: Vec<u32>,
    /// Number of token ids; the next one stands for the end.
    tokens: usize,
    vocab_size: usize,
}

impl Guide {
    /// Whether nothing can follow.
    pub(super) fn is_over(&self) -> bool {
        self.matcher.is_stopped()
    }

    /// The masked ids.
    pub(super) fn banned(&mut self, stop_ids: &[u32]) -> Result<Vec<u32>, ConstraintError> {
        let mask: SimpleVob = match self.matcher.compute_mask() {
            Err(error) if is_full(&error) => self.retrace()?.compute_mask().map_err(step)?,
            mask => mask.map_err(step)?,
        };
        let may_end = mask.get(self.tokens);
        let mut banned = Vec::with_capacity(self.vocab_size);
        mask.iter_unset_entries(|id| banned.push(id as u32));
        banned.retain(|&id| (id as usize) < self.tokens);
        banned.extend(self.tokens as u32..self.vocab_size as u32);
        if may_end {
            banned.retain(|id| !stop_ids.contains(id));
        }
        Ok(banned)
    }

    /// Advances by `id`, which was not masked.
    pub(super) fn push(&mut self, id: u32) -> Result<(), ConstraintError> {
        self.written.push(id);
        match self.matcher.consume_token(id) {
            Err(error) if is_full(&error) => self.retrace().map(|_| ()),
            done => done.map_err(step),
        }
    }

    /// Forgets all states but those that the text so far went through, which are few beside those of the tokens that might
    /// have come at each of its places.
    fn retrace(&mut self) -> Result<&mut Matcher, ConstraintError> {
        self.matcher = self.start.deep_clone();
        self.matcher.consume_tokens(&self.written).map_err(step)?;
        Ok(&mut self.matcher)
    }
}

impl fmt::Debug for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guide").field("is_over", &self.is_over()).finish_non_exhaustive()
    }
}

/// Whether the library keeps as many states as it may.
fn is_full(error: &impl ToString) -> bool {
    error.to_string().contains("too many states")
}

/// The library's error during decoding, in plain words.
fn step(error: impl ToString) -> ConstraintError {
    ConstraintError::Step(messages::plain(&error.to_string()))
}

#[cfg(test)]
mod tests;
