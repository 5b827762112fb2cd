//! What a run has reached, and what to do with it.

use std::path::Path;

use andiron_data::shard::Dataset;
use andiron_data::tokenizer::{Special, Tokenizer};
use andiron_training::observe::BestValue;
use andiron_training::observe::report::duration;
use andiron_training::trainer::{Outcome, Status};
use andiron_training::{ObjectiveConfig, TrainConfig};
use serde_json::{Map, Value, json};

use crate::flags::Common;
use crate::lines::out;
use crate::program::{Program, beginning, in_quotes, quoted};

/// Prints what a run has reached, where that is, and how to use it.
pub fn report(outcome: &Outcome, config: &TrainConfig, common: &Common) -> anyhow::Result<()> {
    if common.json {
        return out!("{}", as_json(outcome));
    }
    if let Some(evaluation) = &outcome.valid {
        out!("validation loss {}", beside_best(evaluation.loss, "loss", &outcome.best))?;
        for (name, value) in &evaluation.metrics {
            out!("{} {}", in_words(name), beside_best(*value, name, &outcome.best))?;
        }
    }
    out!("Trained {}.", effort(outcome))?;
    if let Some(model) = &outcome.model {
        match &config.adapter {
            Some(_) => out!("The adapter is in {}, in peft's layout.", model.display())?,
            None => out!("The model is in {}, in the Hugging Face layout.", model.display())?,
        }
        if let Some(step) = outcome.model_step.filter(|&step| step < outcome.step) {
            out!("It is that of step {step}, whose validation was the best.")?;
        }
    }
    out!("The report is {}.", config.run.output.join("report.html").display())?;
    if let Some(model) = &outcome.model {
        let program = Program::of(common)?;
        let choice = choice(config, model);
        for line in uses(config, &program, &choice) {
            out!("{line}")?;
        }
        if config.adapter.is_some() {
            out!("As one model: {}", program.line("export", &format!("{choice} --merge --output DIR")))?;
        }
    }
    Ok(())
}

fn as_json(outcome: &Outcome) -> Value {
    let best: Map<String, Value> = outcome
        .best
        .iter()
        .map(|best| (best.name.clone(), json!({ "value": best.value, "step": best.step })))
        .collect();
    json!({
        "step": outcome.step, "tokens": outcome.tokens, "rows": outcome.rows, "elapsed_s": outcome.elapsed_s,
        "data_wait": outcome.data_wait,
        "model": outcome.model, "model_step": outcome.model_step, "validation": outcome.valid, "best": best,
        "interrupted": outcome.status == Status::Interrupted
    })
}

/// A value of the last validation, with the best one if that was another.
fn beside_best(value: f64, name: &str, best: &[BestValue]) -> String {
    match best.iter().find(|best| best.name == name) {
        Some(best) if format!("{:.4}", best.value) != format!("{value:.4}") => {
            format!("{value:.4} (best {:.4}, after step {})", best.value, best.step)
        }
        _ => format!("{value:.4}"),
    }
}

/// The name of a metric, as it is written.
fn in_words(name: &str) -> String {
    match name {
        "f1" => "F1".to_owned(),
        "macro_f1" => "macro F1".to_owned(),
        "micro_f1" => "micro F1".to_owned(),
        "mrr" => "mean reciprocal rank".to_owned(),
        "batch_mrr" => "mean reciprocal rank within a batch".to_owned(),
        "batch_accuracy" => "accuracy within a batch".to_owned(),
        "pearson" => "Pearson's correlation".to_owned(),
        "spearman" => "Spearman's correlation".to_owned(),
        "bleu" => "BLEU".to_owned(),
        "chrf" => "chrF".to_owned(),
        "rouge_l" | "rougeL" => "ROUGE-L".to_owned(),
        _ => name.replace('_', " "),
    }
}

/// Steps, passes over the data, time and speed.
fn effort(outcome: &Outcome) -> String {
    let steps = match outcome.step {
        1 => "1 step".to_owned(),
        steps => format!("{steps} steps"),
    };
    let epochs = outcome.epochs.filter(|&epochs| epochs >= 0.05);
    let epochs = epochs.map(|epochs| format!(", {epochs:.1} epochs")).unwrap_or_default();
    let (count, unit) = match outcome.rows {
        Some(rows) => (rows, "rows"),
        None => (outcome.tokens, "tokens"),
    };
    let time = duration(outcome.elapsed_s);
    let per_second = count as f64 / outcome.elapsed_s;
    // A run that was measured again has done nothing.
    let speed = if per_second.is_finite() { format!(": {per_second:.0} {unit}/s") } else { String::new() };
    // Below that it does not matter.
    let waited = outcome.data_wait.filter(|&share| share >= 0.01);
    let waited =
        waited.map(|share| format!(", {:.0} % of it waiting for data (data.workers)", 100.0 * share));
    format!("{steps}{epochs}, in {time}{}{speed}", waited.unwrap_or_default())
}

/// The options that open the result.
fn choice(config: &TrainConfig, trained: &Path) -> String {
    let base = config.init.as_ref().map(|init| quoted(&init.from));
    match (&config.adapter, base) {
        (Some(_), Some(base)) => format!("--model {base} --adapter {}", quoted(trained)),
        _ => format!("--model {}", quoted(trained)),
    }
}

/// The command lines that use the result, which the options `choice` open.
fn uses(config: &TrainConfig, program: &Program, choice: &str) -> Vec<String> {
    let predict = |task: &str, row: &str| {
        let line = program.line("predict", &format!("--task {task} {choice}"));
        vec![format!("Use it:   echo '{row}' | {line}")]
    };
    let decoder = |verb: &str, prompt: &str| {
        vec![
            format!("Serve it: {}", program.line("serve", choice)),
            format!("Use it:   {}", program.line(verb, &format!("{choice}{prompt}"))),
        ]
    };
    match &config.objective {
        None | Some(ObjectiveConfig::Causal(_)) => {
            decoder("generate", &format!(" {}", in_quotes(&prompt(config))))
        }
        Some(ObjectiveConfig::Chat(_) | ObjectiveConfig::Preference(_)) => decoder("chat", ""),
        Some(ObjectiveConfig::Classify(_)) => predict("classify", r#"{"text": "…"}"#),
        Some(ObjectiveConfig::TokenClassify(_)) => predict("token-classify", r#"{"text": "…"}"#),
        Some(ObjectiveConfig::Answer(_)) => predict("answer", r#"{"question": "…", "context": "…"}"#),
        Some(ObjectiveConfig::Contrastive(_)) => predict("embed", r#"{"text": "…"}"#),
        Some(ObjectiveConfig::Rerank(_)) => predict("rerank", r#"{"query": "…", "documents": ["…", "…"]}"#),
        Some(ObjectiveConfig::Masked(_)) => predict("fill-mask", r#"{"text": "… [MASK] …"}"#),
        Some(
            ObjectiveConfig::Seq2Seq(_) | ObjectiveConfig::SpanCorruption(_) | ObjectiveConfig::Denoise(_),
        ) => predict("generate", r#"{"prompt": "…"}"#),
    }
}

/// Tokens of the data that are read for a prompt.
const PROMPT: u64 = 64;

/// The beginning of the training data, or some word if it cannot be read.
fn prompt(config: &TrainConfig) -> String {
    let read = || {
        let dataset = Dataset::open(&config.data.train).ok()?;
        let mut ids = vec![0; dataset.tokens().min(PROMPT) as usize];
        dataset.read(0, &mut ids);
        let tokenizer = Tokenizer::load(config.data.tokenizer.as_ref()?).ok()?;
        let text = tokenizer.decode(&ids, Special::Skip).ok()?;
        // The last characters may be those of a half-decoded one.
        Some(beginning(text.trim_end_matches(char::REPLACEMENT_CHARACTER)).to_owned())
    };
    read().filter(|text| !text.is_empty()).unwrap_or_else(|| "The".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        Outcome {
            status: Status::Finished,
            step: 1252,
            tokens: 40_064,
            epochs: Some(4.0),
            data_wait: Some(0.002),
            rows: Some(40_064),
            elapsed_s: 192.0,
            resumed_from: None,
            valid: None,
            best: vec![BestValue { name: "accuracy".to_owned(), value: 0.9271, step: 939 }],
            model: None,
            model_step: None,
            saved: true,
            saved_step: Some(1252),
            failed_saves: 0,
            rollbacks: 0,
        }
    }

    #[test]
    fn the_best_value_is_said_where_it_is_another() {
        let best = outcome().best;
        assert_eq!(beside_best(0.925_31, "accuracy", &best), "0.9253 (best 0.9271, after step 939)");
        assert_eq!(beside_best(0.927_1, "accuracy", &best), "0.9271");
        assert_eq!(beside_best(0.5, "loss", &best), "0.5000");
    }

    #[test]
    fn time_and_speed_are_those_of_rows_or_of_tokens() {
        assert_eq!(effort(&outcome()), "1252 steps, 4.0 epochs, in 3 min 12 s: 209 rows/s");
        let tokens = Outcome { rows: None, epochs: None, step: 1, ..outcome() };
        assert_eq!(effort(&tokens), "1 step, in 3 min 12 s: 209 tokens/s");
        let again = Outcome { elapsed_s: 0.0, tokens: 0, ..tokens };
        assert_eq!(effort(&again), "1 step, in 0 s");
    }
}
