//! The role of each parameter of each architecture. `golden/roles.txt` is the table: one line per parameter, with `*` for
//! indices of blocks and parts. It was generated from the models, then read, and pins their roles.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use andiron_core::ParamRole;
use andiron_models::weights::{Depth, ParamInfo, depths};
use andiron_models::{AnyConfig, DecoderConfig, EncoderConfig, Seq2SeqConfig};
use common::{device, fixture};

const TABLE: &str = include_str!("golden/roles.txt");

fn parameters(name: &str) -> Vec<ParamInfo> {
    AnyConfig::read(&fixture(name).join("config.json")).unwrap().parameters(&device())
}

/// Fixtures of the table, each with its lines.
fn entries() -> Vec<(&'static str, &'static str)> {
    let entries = TABLE.split("\n\n").map(|entry| entry.trim_end().split_once('\n').unwrap());
    entries.map(|(name, lines)| (name.trim_start_matches('#').trim(), lines)).collect()
}

fn lines(parameters: &[ParamInfo]) -> String {
    let mut seen = BTreeSet::new();
    let mut text = String::new();
    for ParamInfo { name, role, in_block, .. } in parameters {
        let star =
            |segment: &str| if segment.parse::<u32>().is_ok() { "*".to_owned() } else { segment.to_owned() };
        let name = name.split('.').map(star).collect::<Vec<_>>().join(".");
        let place = if *in_block { " (block)" } else { "" };
        let line = format!("{role:?}{place}: {name}");
        if seen.insert(line.clone()) {
            writeln!(text, "{line}").unwrap();
        }
    }
    text.trim_end().to_owned()
}

#[test]
fn every_parameter_has_the_role_of_the_table() {
    let found = entries().into_iter().map(|(name, _)| format!("# {name}\n{}\n", lines(&parameters(name))));
    let found = found.collect::<Vec<_>>().join("\n");
    assert!(found == TABLE, "the table should be\n{found}");
}

#[test]
fn the_table_has_every_architecture() {
    let named: BTreeSet<&str> = entries()
        .iter()
        .map(|(name, _)| AnyConfig::read(&fixture(name).join("config.json")).unwrap().model_type())
        .collect();
    for known in [DecoderConfig::MODEL_TYPES, EncoderConfig::MODEL_TYPES, Seq2SeqConfig::MODEL_TYPES].concat()
    {
        assert!(named.contains(known), "{known}");
    }
}

/// The path tells the layer of each parameter: what is applied to ids or to embeddings is before the blocks, everything else
/// that is in no block is after them.
#[test]
fn every_parameter_is_before_after_or_in_a_block() {
    for (name, _) in entries() {
        let parameters = parameters(name);
        for (parameter, depth) in parameters.iter().zip(depths(&parameters)) {
            let ParamInfo { name: path, role, in_block, .. } = parameter;
            let index = path.split('.').find_map(|segment| segment.parse::<usize>().ok());
            let is_input =
                matches!(role, ParamRole::Embedding | ParamRole::SourceEmbedding | ParamRole::Table)
                    || path.contains("embedding") && *role == ParamRole::Norm;
            match depth {
                Depth::Block { index: found, blocks } => {
                    assert!(*in_block && Some(found) == index && found < blocks, "{name}: {path}: {depth:?}");
                    let block = |at: usize| path.replacen(&format!(".{found}."), &format!(".{at}."), 1);
                    let is_there =
                        |at: usize| parameters.iter().any(|other| other.in_block && block(at) == other.name);
                    // T5 has a table in its first blocks only.
                    let is_last = *role == ParamRole::Table || !is_there(blocks);
                    assert!(is_last, "{name}: {path} is also in block {blocks}");
                }
                Depth::Input { .. } => assert!(!in_block && is_input, "{name}: {path}: {depth:?}"),
                Depth::Output => assert!(!in_block && !is_input, "{name}: {path}: {depth:?}"),
            }
        }
    }
}

/// Earlier releases told embeddings of decoders by a name with `wte`, `wpe` or `embed`; a run that goes on must decay what it decayed.
#[test]
fn decoders_decay_what_they_decayed_by_name() {
    for (name, _) in entries() {
        let config = AnyConfig::read(&fixture(name).join("config.json")).unwrap();
        if !matches!(config, AnyConfig::Decoder(_) | AnyConfig::Classifier(_)) {
            continue;
        }
        for ParamInfo { name, shape, role, .. } in config.parameters(&device()) {
            let embedding = |segment: &str| matches!(segment, "wte" | "wpe") || segment.contains("embed");
            let by_name = shape.len() >= 2 && !name.split('.').any(embedding);
            assert_eq!(matches!(role, ParamRole::Matrix | ParamRole::Head), by_name, "{name}");
        }
    }
}
