//! `andiron evaluate --compare`: whether two results of tasks differ by more than chance.

use std::path::Path;

use andiron_eval::task::compare::compare;
use andiron_kernels::random::Seed;
use serde_json::json;

use crate::exit::Ending;
use crate::flags::Common;
use crate::lines::out;

/// Samples of the paired bootstrap.
const SAMPLES: usize = 10_000;

/// Compares and prints.
pub fn run(first: &Path, second: &Path, common: &Common) -> anyhow::Result<Ending> {
    let all = compare(first, second, SAMPLES, Seed::new(1234))?;
    if common.json {
        out!("{}", json!({ "compared": all }))?;
        return Ok(Ending::Done);
    }
    for found in all {
        let interval = match found.interval {
            Some([low, high]) => format!(", 95 % of samples {low:+.4} to {high:+.4}"),
            None => String::new(),
        };
        let chance = match found.p_value {
            Some(p) => format!("p = {p:.4} ({})", found.test),
            None => "no test".to_owned(),
        };
        out!(
            "{} {},{}: {:.4} and {:.4}, difference {:+.4}{interval}, {chance}, {} rows",
            found.task,
            found.metric,
            found.filter,
            found.first,
            found.second,
            found.difference,
            found.rows
        )?;
    }
    Ok(Ending::Done)
}
