//! `andiron bench serve`: the speed of a running server, over HTTP.

mod client;
mod load;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use self::client::Server;
use self::load::{Answer, Plan, run};
use super::rounded;
use crate::exit::{Ending, Usage};
use crate::flags::Common;
use crate::lines::out;

/// Measure a running server: tokens/s, time to first token, time between tokens
///
/// Sends streamed requests to `/v1/completions` of any OpenAI-compatible server, with so many clients at once, each of which sends its
/// next request when it has the answer to the last one. Answers have all the tokens asked for: end-of-text tokens are ignored
/// (`ignore_eos`). Times between tokens are those between events that hold text.
#[derive(Debug, Args)]
pub struct ServeBench {
    /// The server, such as http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    url: String,
    /// Prompts, one per line: text, or JSON objects with `prompt`. They are used in turn
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    /// Clients at once; several numbers are measured one after the other
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,4,16,64", value_parser = clap::value_parser!(u16).range(1..))]
    clients: Vec<u16>,
    /// Requests of each client
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,
    /// Tokens to generate per request
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// The model to name in requests, for servers that need it
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Seed of sampled answers at temperature 1 [default: greedy answers]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// File whose first line is the API key
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

impl ServeBench {
    /// Measures and prints.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let key = match &self.api_key_file {
            Some(path) => read(path)?.lines().next().map(|line| line.trim().to_owned()),
            None => None,
        };
        let server = Server::new(&self.url, key).map_err(Usage)?;
        let prompts = prompts(&self.prompts)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the clients")?;
        if !common.json {
            out!(
                "{:>7} {:>9} {:>9} {:>11} {:>11} {:>11} {:>11} {:>7}",
                "clients",
                "requests",
                "tokens/s",
                "ttft p50",
                "ttft p99",
                "inter p50",
                "inter p99",
                "refused"
            )?;
        }
        for &clients in &self.clients {
            let plan = Plan {
                clients: usize::from(clients),
                requests: self.requests as usize,
                bodies: prompts.iter().map(|prompt| self.body(prompt).to_string()).collect(),
            };
            let measured = runtime.block_on(run(&server, &plan))?;
            let figures = Figures::new(measured.answers, measured.wall);
            if figures.answered == 0 {
                bail!("{}: no request was answered; the last refusal: {}", self.url, measured.refusal);
            }
            match common.json {
                true => out!("{}", figures.json(plan.clients))?,
                false => figures.print(plan.clients)?,
            }
        }
        Ok(Ending::Done)
    }

    fn body(&self, prompt: &str) -> Value {
        let mut body = json!({
            "prompt": prompt,
            "max_tokens": self.tokens,
            "temperature": if self.seed.is_some() { 1.0 } else { 0.0 },
            "ignore_eos": true,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        if let Some(model) = &self.model {
            body["model"] = json!(model);
        }
        if let Some(seed) = self.seed {
            body["seed"] = json!(seed);
        }
        body
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The prompts in a file; never none.
fn prompts(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = read(path)?;
    let mut prompts = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let Some(object) = line.trim_start().starts_with('{').then(|| serde_json::from_str::<Value>(line))
        else {
            prompts.push(line.to_owned());
            continue;
        };
        let prompt = object.ok().and_then(|object| object["prompt"].as_str().map(str::to_owned));
        let at = format_args!("{}:{}", path.display(), number + 1).to_string();
        prompts.push(prompt.ok_or_else(|| Usage(format!("{at}: not a JSON object with a text `prompt`")))?);
    }
    match prompts.is_empty() {
        true => Err(Usage(format!("{} holds no prompt: write one on each line", path.display())).into()),
        false => Ok(prompts),
    }
}

/// What a number of clients saw.
#[derive(Debug, PartialEq)]
struct Figures {
    answered: usize,
    refused: usize,
    tokens_per_s: f64,
    /// Median and 99th percentile, in milliseconds.
    ttft_ms: [f64; 2],
    inter_token_ms: [f64; 2],
}

impl Figures {
    fn new(answers: Vec<Option<Answer>>, wall: Duration) -> Self {
        let (all, answers): (usize, Vec<Answer>) = (answers.len(), answers.into_iter().flatten().collect());
        let tokens: usize = answers.iter().map(|answer| answer.tokens).sum();
        Self {
            answered: answers.len(),
            refused: all - answers.len(),
            tokens_per_s: tokens as f64 / wall.as_secs_f64().max(1e-9),
            ttft_ms: percentiles(answers.iter().map(|answer| answer.first)),
            inter_token_ms: percentiles(answers.iter().flat_map(|answer| answer.gaps.iter().copied())),
        }
    }

    fn json(&self, clients: usize) -> Value {
        json!({
            "clients": clients,
            "requests": self.answered,
            "refused": self.refused,
            "tokens_per_s": rounded(self.tokens_per_s),
            "ttft_p50_ms": rounded(self.ttft_ms[0]),
            "ttft_p99_ms": rounded(self.ttft_ms[1]),
            "inter_token_p50_ms": rounded(self.inter_token_ms[0]),
            "inter_token_p99_ms": rounded(self.inter_token_ms[1]),
        })
    }

    fn print(&self, clients: usize) -> anyhow::Result<()> {
        let [ttft, ttft_worst] = self.ttft_ms;
        let [inter, inter_worst] = self.inter_token_ms;
        out!(
            "{clients:>7} {:>9} {:>9.1} {ttft:>8.1} ms {ttft_worst:>8.1} ms {inter:>8.2} ms {inter_worst:>8.2} ms {:>7}",
            self.answered,
            self.tokens_per_s,
            self.refused
        )?;
        Ok(())
    }
}

/// The median and the 99th percentile in milliseconds, by the nearest rank; 0 of nothing.
fn percentiles(times: impl Iterator<Item = Duration>) -> [f64; 2] {
    let mut times: Vec<Duration> = times.collect();
    times.sort();
    [50, 99].map(|percent| {
        let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(rank).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(times: &[u64]) -> Vec<Duration> {
        times.iter().map(|&time| Duration::from_millis(time)).collect()
    }

    #[test]
    fn percentiles_are_measured_values() {
        assert_eq!(percentiles(ms(&[]).into_iter()), [0.0, 0.0]);
        assert_eq!(percentiles(ms(&[7]).into_iter()), [7.0, 7.0]);
        assert_eq!(percentiles((1..=200).map(Duration::from_millis)), [100.0, 198.0]);
    }

    #[test]
    fn figures_count_tokens_by_the_wall_clock() {
        let answer = |tokens, first, gaps: &[u64]| Answer {
            tokens,
            first: Duration::from_millis(first),
            gaps: ms(gaps),
        };
        let answers = vec![Some(answer(3, 50, &[10, 20])), None, Some(answer(2, 70, &[30]))];
        let figures = Figures::new(answers, Duration::from_millis(250));
        let wanted = Figures {
            answered: 2,
            refused: 1,
            tokens_per_s: 20.0,
            ttft_ms: [50.0, 70.0],
            inter_token_ms: [20.0, 30.0],
        };
        assert_eq!(figures, wanted);
    }

    #[test]
    fn prompts_are_lines_or_objects_and_a_bad_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prompts");
        let of = |text: &str| {
            fs::write(&path, text).unwrap();
            prompts(&path).map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
        };
        assert_eq!(of("one\n\n{\"prompt\": \"two\\n2\"}\n"), Ok(vec!["one".to_owned(), "two\n2".to_owned()]));
        assert_eq!(
            of("one\n{\"text\": 1}"),
            Err("FILE:2: not a JSON object with a text `prompt`".to_owned())
        );
        assert_eq!(of("\n"), Err("FILE holds no prompt: write one on each line".to_owned()));
    }
}
