//! How often each source is taken, so that it has the share of the training data that its weight asks for.

use super::report::SourceReport;
use super::{PrepareConfig, SourceConfig};
use andiron_data::seed::Seed;

/// The stream that chooses the documents that are taken once more than others.
const MIXTURE: &str = "corpus.mixture";

/// How often each source is taken.
pub(super) struct Mixture {
    epochs: Vec<f64>,
    seed: Seed,
}

/// How much of a source is taken in one round through all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Take {
    Nothing,
    /// Each document with this probability.
    Some(f64),
    All,
}

impl Mixture {
    /// The mixture of sources that have so many tokens.
    pub(super) fn new(config: &PrepareConfig, tokens: &[u64]) -> Self {
        let seed = Seed::new(config.seed).derive(MIXTURE);
        let weights: Option<Vec<f64>> = config.sources.iter().map(|source| source.weight).collect();
        let Some(weights) = weights else { return Self { epochs: vec![1.0; tokens.len()], seed } };
        let sum: f64 = weights.iter().sum();
        let shares: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
        let whole = |(&tokens, share): (&u64, &f64)| tokens as f64 / share;
        let total = match config.mixture.tokens {
            Some(total) => total as f64,
            None => tokens.iter().zip(&shares).map(whole).fold(0.0, f64::max),
        };
        let epochs = tokens.iter().zip(&shares).map(|(&tokens, share)| match tokens {
            0 => 0.0,
            _ => (total * share / tokens as f64).min(config.mixture.max_repeat),
        });
        Self { epochs: epochs.collect(), seed }
    }

    /// How often one must go through all sources.
    pub(super) fn rounds(&self) -> u64 {
        self.epochs.iter().fold(0.0, |most: f64, &epochs| most.max(epochs)).ceil() as u64
    }

    /// What is taken of a source in a round.
    pub(super) fn take(&self, source: usize, round: u64) -> Take {
        let left = self.epochs[source] - round as f64;
        // A millionth of a source more or less is what rounding makes.
        match left {
            left if left < 1e-6 => Take::Nothing,
            left if left > 1.0 - 1e-6 => Take::All,
            left => Take::Some(left),
        }
    }

    /// Whether a document with this hash is among those of [`Take::Some`].
    pub(super) fn takes(&self, hash: u64, share: f64) -> bool {
        const STEPS: u64 = 1 << 53;
        (self.seed.below(hash, STEPS) as f64) < share * STEPS as f64
    }
}

/// What came out.
pub(super) fn report(sources: &[SourceConfig], tokens: &[u64], taken: &[u64]) -> Vec<SourceReport> {
    let sum: f64 = sources.iter().filter_map(|source| source.weight).sum();
    let total: u64 = taken.iter().sum();
    let of = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let report = |((source, &tokens), &taken): ((&SourceConfig, &u64), &u64)| SourceReport {
        name: source.name.clone(),
        wanted: source.weight.map(|weight| weight / sum),
        share: of(taken, total),
        tokens,
        taken,
        epochs: of(taken, tokens),
    };
    sources.iter().zip(tokens).zip(taken).map(report).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::TokenizerChoice;
    use andiron_data::tokenizer::SpecialTokens;

    fn mixture(weights: &[f64], tokens: &[u64], change: impl FnOnce(&mut PrepareConfig)) -> Vec<f64> {
        let characters = TokenizerChoice::Characters(SpecialTokens::default());
        let mut config = PrepareConfig::new(Vec::new(), "out".into(), characters);
        let source = |&weight: &f64| SourceConfig { weight: Some(weight), ..SourceConfig::default() };
        config.sources = weights.iter().map(source).collect();
        change(&mut config);
        Mixture::new(&config, tokens).epochs
    }

    #[test]
    fn sources_are_repeated_as_their_shares_ask_and_the_cap_allows() {
        // The first is taken once, and the others have what is in proportion.
        assert_eq!(mixture(&[0.5, 0.5], &[100, 40], |_| ()), [1.0, 2.5]);
        assert_eq!(mixture(&[2.0, 1.0], &[100, 100], |_| ()), [2.0, 1.0]);
        assert_eq!(mixture(&[1.0, 1.0], &[100, 1], |_| ()), [1.0, 4.0]);
        assert_eq!(mixture(&[1.0, 1.0], &[100, 1], |config| config.mixture.max_repeat = 1.5), [1.0, 1.5]);
        assert_eq!(
            mixture(&[1.0, 3.0], &[100, 100], |config| config.mixture.tokens = Some(100)),
            [0.25, 0.75]
        );
        assert_eq!(mixture(&[1.0, 1.0], &[100, 0], |_| ()), [1.0, 0.0]);
    }

    #[test]
    fn rounds_add_up_to_the_epochs() {
        let mixture = Mixture { epochs: vec![1.0, 2.5, 0.25], seed: Seed::new(0) };
        let takes = |round| [0, 1, 2].map(|source| mixture.take(source, round));
        assert_eq!(mixture.rounds(), 3);
        assert_eq!(takes(0), [Take::All, Take::All, Take::Some(0.25)]);
        assert_eq!(takes(1), [Take::Nothing, Take::All, Take::Nothing]);
        assert_eq!(takes(2), [Take::Nothing, Take::Some(0.5), Take::Nothing]);
        let taken = (0..4000).filter(|&hash| mixture.takes(hash, 0.25)).count();
        assert!((900..1100).contains(&taken), "{taken}");
    }
}
