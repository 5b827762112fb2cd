//! Rendering a template with bounded time, memory and stack.

use std::fmt::Write as _;
use std::io;
use std::thread;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};

use super::{filters, python, source, strings, time};

/// Longest template in bytes; the longest in use have about 30 KiB.
const TEMPLATE_LIMIT: usize = 128 << 10;
/// Steps allowed for any conversation. The engine counts 64 bytes of a value as a step, so this bounds memory too.
const STEPS: u64 = 400_000;
/// Additional steps per message; the largest templates in use need some hundreds.
const STEPS_PER_MESSAGE: u64 = 500;
/// Most steps, however long the conversation: at most 128 MiB.
const MOST_STEPS: u64 = 2_000_000;
/// Longest rendered text, in addition to eight times the input.
const OUTPUT_LIMIT: usize = 1 << 20;
/// For the recursion of the engine, of which the source's length is the bound. It is reserved, not used.
const STACK: usize = 256 << 20;
/// Longest message about what failed, in characters.
const MESSAGE_LIMIT: usize = 600;

/// A template and what it is given.
pub(super) struct Work<'a> {
    pub(super) template: &'a str,
    pub(super) variables: Vec<(&'a str, Value)>,
    pub(super) now: SystemTime,
    pub(super) n_messages: usize,
    /// Of all texts that it is given.
    pub(super) bytes: usize,
    /// Marks around what `{% generation %}` renders, if wanted.
    pub(super) marks: Option<Marks>,
}

/// Two characters that no message holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    pub(super) open: char,
    pub(super) close: char,
}

impl Work<'_> {
    /// The text; or what went wrong, in words.
    pub(super) fn run(self) -> Result<String, String> {
        if self.template.len() > TEMPLATE_LIMIT {
            return Err(format!(
                "it has {} bytes; at most {TEMPLATE_LIMIT} are accepted",
                self.template.len()
            ));
        }
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("chat-template".to_owned()).stack_size(STACK);
            let running = thread.spawn_scoped(scope, || self.run_here());
            let running = running.map_err(|error| format!("there is no thread to run it: {error}"))?;
            running.join().unwrap_or_else(|_| Err("the template engine panicked".to_owned()))
        })
    }

    fn run_here(self) -> Result<String, String> {
        let mut environment = environment(self.now);
        let steps = STEPS
            .saturating_add(STEPS_PER_MESSAGE.saturating_mul(self.n_messages as u64))
            .saturating_add(self.bytes as u64 / 4);
        environment.set_fuel(Some(steps.min(MOST_STEPS)));
        let generation = match self.marks {
            Some(Marks { open, close }) => {
                let mark = move |body: String| format!("{open}{body}{close}");
                environment.add_filter(source::GENERATION, mark);
                source::Generation::Marked
            }
            None => source::Generation::Plain,
        };
        let rewritten = source::rewrite(self.template, generation);
        let template = environment.template_from_str(&rewritten).map_err(|error| say(&error))?;
        let mut out =
            Bounded { text: Vec::new(), limit: OUTPUT_LIMIT.saturating_add(self.bytes.saturating_mul(8)) };
        let done = template.render_captured_to(Value::from_pairs(self.variables), &mut out).map(drop);
        if out.text.len() > out.limit {
            return Err(format!("it makes a text of more than {} bytes", out.limit));
        }
        done.map_err(|error| say(&error))?;
        String::from_utf8(out.text).map_err(|_| "it makes a text that is not UTF-8".to_owned())
    }
}

/// A text of bounded length.
struct Bounded {
    text: Vec<u8>,
    limit: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What goes beyond is kept as long as one piece, to tell that the limit was the cause.
        self.text.extend_from_slice(bytes);
        match self.text.len() > self.limit {
            true => Err(io::ErrorKind::FileTooLarge.into()),
            false => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Jinja as `transformers` sets it up for chat templates.
fn environment(now: SystemTime) -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the delimiters are the usual ones"));
    environment.set_unknown_method_callback(strings::call);
    environment.set_formatter(|out, _, value| Ok(out.write_str(&python::text(value)?)?));
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", move |format: String| time::strftime(now, &format));
    filters::add_to(&mut environment);
    environment
}

/// What failed, as one line. A template's own words stand in it, so what would steer a terminal is written out.
fn say(error: &Error) -> String {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let _ = write!(said, ": {error}");
        cause = error.source();
    }
    let mut text = String::with_capacity(said.len());
    for character in said.chars() {
        match character.is_control() {
            true => text.extend(character.escape_default()),
            false => text.push(character),
        }
    }
    match text.char_indices().nth(MESSAGE_LIMIT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
