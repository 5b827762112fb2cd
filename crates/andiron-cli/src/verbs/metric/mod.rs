//! `andiron metric`: a metric of predictions, from rows of a JSONL file, without a model.

mod labels;
mod measure;
mod numbers;
mod perplexity;
mod ranking;
mod report;
mod row;
mod tags;
mod text;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::exit::{Ending, Usage};
use crate::flags::Common;
use crate::lines::out;

/// Compute a metric of predictions from the rows of a JSONL file: BLEU, ROUGE, F1, nDCG and more
///
/// The values are those of the program that a field reports with. A row is a JSON object; `andiron metric NAME --help` says
/// which of its fields a metric reads, and other fields are ignored. In the place of a prediction, a row may have what `andiron
/// predict` answered: `labels`, `answer` or `text`. Its option --keep puts what is expected beside that.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, subcommand_value_name = "NAME", subcommand_help_heading = "Metrics")]
pub struct MetricVerb {
    /// List the metrics, the rows they read and the programs whose values they give
    #[arg(long)]
    list: bool,
    #[command(subcommand)]
    metric: Option<Metric>,
}

#[derive(Debug, Subcommand)]
enum Metric {
    Bleu(text::BleuArgs),
    Chrf(text::ChrfArgs),
    Ter(text::TerArgs),
    Rouge(text::RougeArgs),
    Squad(text::SquadArgs),
    SquadV2(text::SquadV2Args),
    Accuracy(labels::AccuracyArgs),
    F1(labels::F1Args),
    Mcc(labels::MccArgs),
    Confusion(labels::ConfusionArgs),
    Pearson(numbers::PearsonArgs),
    Spearman(numbers::SpearmanArgs),
    Mse(numbers::MseArgs),
    Mae(numbers::MaeArgs),
    Ndcg(ranking::NdcgArgs),
    Mrr(ranking::MrrArgs),
    Map(ranking::MapArgs),
    Recall(ranking::RecallArgs),
    Precision(ranking::PrecisionArgs),
    Seqeval(tags::SeqevalArgs),
    Perplexity(perplexity::PerplexityArgs),
}

/// Name, fields of a row, and the program whose values it gives.
const LIST: [[&str; 3]; 21] = [
    ["bleu", "prediction, references", "sacreBLEU 2.6.0"],
    ["chrf", "prediction, references", "sacreBLEU 2.6.0; chrF++ with --word-order 2"],
    ["ter", "prediction, references", "sacreBLEU 2.6.0"],
    ["rouge", "prediction, references", "rouge_score 0.1.2"],
    ["squad", "prediction, references", "evaluate-v1.1.py"],
    ["squad-v2", "prediction, references, which may be empty", "evaluate-v2.0.py"],
    ["accuracy", "prediction, label; or scores, gold", "scikit-learn 1.9"],
    ["f1", "prediction, label; or scores, gold", "scikit-learn 1.9"],
    ["mcc", "prediction, label; or scores, gold", "scikit-learn 1.9"],
    ["confusion", "prediction, label; or scores, gold", "scikit-learn 1.9"],
    ["pearson", "prediction, label", "SciPy 1.17"],
    ["spearman", "prediction, label", "SciPy 1.17"],
    ["mse", "prediction, label", "scikit-learn 1.9"],
    ["mae", "prediction, label", "scikit-learn 1.9"],
    ["ndcg", "scores or ranking, gold", "pytrec_eval 0.5.11"],
    ["mrr", "scores or ranking, gold", "pytrec_eval 0.5.11"],
    ["map", "scores or ranking, gold", "pytrec_eval 0.5.11"],
    ["recall", "scores or ranking, gold", "pytrec_eval 0.5.11"],
    ["precision", "scores or ranking, gold", "pytrec_eval 0.5.11"],
    ["seqeval", "prediction, label: lists of tags", "seqeval 1.2.2"],
    ["perplexity", "sum_logprob; tokens or logprobs, bytes, words", "lm-evaluation-harness 0.4"],
];

impl MetricVerb {
    /// Computes and prints.
    pub fn run(self, common: &Common) -> anyhow::Result<Ending> {
        if self.list {
            return list(common);
        }
        let Some(metric) = self.metric else {
            return Err(Usage("name a metric; `andiron metric --list` shows them".to_owned()).into());
        };
        match metric {
            Metric::Bleu(args) => args.run(common),
            Metric::Chrf(args) => args.run(common),
            Metric::Ter(args) => args.run(common),
            Metric::Rouge(args) => args.run(common),
            Metric::Squad(args) => args.run(common),
            Metric::SquadV2(args) => args.run(common),
            Metric::Accuracy(args) => args.run(common),
            Metric::F1(args) => args.run(common),
            Metric::Mcc(args) => args.run(common),
            Metric::Confusion(args) => args.run(common),
            Metric::Pearson(args) => args.run(common),
            Metric::Spearman(args) => args.run(common),
            Metric::Mse(args) => args.run(common),
            Metric::Mae(args) => args.run(common),
            Metric::Ndcg(args) => args.run(common),
            Metric::Mrr(args) => args.run(common),
            Metric::Map(args) => args.run(common),
            Metric::Recall(args) => args.run(common),
            Metric::Precision(args) => args.run(common),
            Metric::Seqeval(args) => args.run(common),
            Metric::Perplexity(args) => args.run(common),
        }
    }
}

fn list(common: &Common) -> anyhow::Result<Ending> {
    if common.json {
        let entry = |[name, rows, reference]: [&str; 3]| json!({ "name": name, "rows": rows, "reference": reference });
        out!("{}", json!({ "metrics": LIST.map(entry) }))?;
    } else {
        out!("{:11}{:48}{}", "metric", "fields of a row", "values of")?;
        for [name, rows, reference] in LIST {
            out!("{name:11}{rows:48}{reference}")?;
        }
    }
    Ok(Ending::Done)
}

#[cfg(test)]
mod tests {
    use clap::Subcommand as _;

    use super::*;

    #[test]
    fn the_list_is_complete() {
        let command = Metric::augment_subcommands(clap::Command::new("metric"));
        let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        assert_eq!(names, LIST.map(|[name, ..]| name));
    }
}
