//! Text generation on token ids: one sampler, one decoding loop, no tokenizer, no tensors.
//!
//! A [`CausalLm`] gets token ids and returns a row of logits. [`Sampler`] samples an id from such a row. [`Decoding`]
//! runs both for one sequence, one step at a time, so that a caller with many sequences can interleave them fairly.
//! Randomness is a function of the seed and the position in the sequence: up to rounding of the logits, the same
//! request gives the same ids alone, in a batch, or resumed from its own prefix.
//!
//! ```
//! use andiron_models::generate::{CausalLm, Decoding, GenerateOptions, Logits, SamplingParams};
//!
//! /// Predicts the successor of the last id.
//! struct Counter;
//!
//! impl CausalLm for Counter {
//!     type State = ();
//!     fn vocab_size(&self) -> usize { 10 }
//!     fn context_len(&self) -> usize { 16 }
//!     fn begin(&self) {}
//!     fn forward(&self, _: &mut (), ids: &[u32], wanted: Logits) -> Vec<f32> {
//!         let ids = match wanted { Logits::All => ids, Logits::Last => &ids[ids.len() - 1..] };
//!         ids.iter().flat_map(|&id| (0..10).map(move |v| if v == (id + 1) % 10 { 5.0 } else { 0.0 })).collect()
//!     }
//! }
//!
//! let options = GenerateOptions {
//!     sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
//!     max_new_tokens: 3,
//!     ..GenerateOptions::default()
//! };
//! let mut decoding = Decoding::new(&Counter, &[7], options)?;
//! let mut ids = Vec::new();
//! while let Some(token) = decoding.next_token(&Counter)? {
//!     ids.push(token.id);
//! }
//! assert_eq!(ids, [8, 9, 0]);
//! # Ok::<(), andiron_models::generate::GenerateError>(())
//! ```

mod beam;
mod causal_lm;
mod constraint;
mod decoding;
pub(crate) mod generation_config;
mod likelihood;
mod processors;
mod repeats;
mod sampler;
mod sampling_choice;
mod sampling_params;

pub use beam::{BeamOptions, EarlyStopping, Hypothesis, beam_search, beam_search_batch, beam_search_while};
pub use causal_lm::{CausalLm, Logits, StateBlocks};
pub use constraint::{Constraint, ConstraintError, Grammar, Interrupt, TextOrCalls, Vocabulary};
pub use decoding::batch::{BatchedLm, Generated, generate_batch};
pub use decoding::prefix::{Prefill, Prefix};
pub use decoding::{Decoding, FinishReason, GenerateError, GenerateOptions, Progress, Token, WhenFull};
pub use generation_config::GenerationConfig;
pub use likelihood::{log_sum_exp, top_logprobs};
pub use sampler::{Sampled, Sampler};
pub use sampling_choice::SamplingChoice;
pub use sampling_params::{SamplingError, SamplingParams};
