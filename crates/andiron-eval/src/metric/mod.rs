//! Metrics: plain functions of predictions and targets, one file each.
//!
//! Each gives the values of the program that its field reports with, on the scale of that program:
//!
//! | module | metric | reference |
//! |---|---|---|
//! | [`bleu`], [`chrf`] | BLEU, chrF, chrF++, 0 to 100 | sacreBLEU 2.6.0 |
//! | [`ter`] | translation edit rate, from 0, the best | sacreBLEU 2.6.0 |
//! | [`rouge`] | ROUGE-1, -2, -L and -Lsum, 0 to 1 | rouge_score 0.1.2 |
//! | [`squad`](mod@squad) | exact match and F1 of answers, 0 to 1 | the official scripts of SQuAD 1.1 and 2.0 |
//! | [`classification`] | accuracy, F1, Matthews' correlation, 0 (−1) to 1 | scikit-learn 1.9 |
//! | [`correlation`] | Pearson, Spearman, squared and absolute error | SciPy 1.17, scikit-learn 1.9 |
//! | [`ranking`] | nDCG, reciprocal rank, recall, precision, average precision, 0 to 1 | pytrec_eval 0.5.11 |
//! | [`seqeval`] | precision, recall and F1 of spans, 0 to 1 | seqeval 1.2.2 |
//! | [`perplexity`] | perplexity, bits per token and per byte | lm-evaluation-harness 0.4 |
//! | [`bootstrap`] | standard errors, intervals, paired significance | lm-evaluation-harness 0.4, sacreBLEU 2.6.0 |

pub mod bleu;
pub mod bootstrap;
pub mod chrf;
pub mod classification;
pub mod correlation;
mod ngrams;
pub mod perplexity;
pub mod ranking;
pub mod rouge;
pub mod seqeval;
pub mod squad;
pub mod ter;
pub(crate) mod text;
