//! Dropout of the inputs of adapters.
//!
//! Layers see no [`Forward`](crate::Forward) where they multiply by a weight, so a pass makes its stream of dropout known to the
//! adapters around the blocks it runs: on this thread, as the precision of matmuls is. A mask follows from the seed of the pass
//! and the place of the adapter in the model, as any other dropout mask.

use std::cell::Cell;

use andiron_kernels::random::Seed;

use crate::ops::Dropout;

thread_local! {
    static CURRENT: Cell<Option<Seed>> = const { Cell::new(None) };
}

/// Where an adapter is in a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdapterSite(u64);

impl AdapterSite {
    /// The place of this name, which no other adapter of the model has.
    pub fn new(name: &str) -> Self {
        Self(Seed::new(0).derive(name).bits(0))
    }

    /// The place of an adapter with a seed of its own.
    pub(crate) fn of_seed(seed: Seed) -> Self {
        Self(seed.bits(0))
    }

    /// The mask of this place in the current pass; `None` if nothing is dropped.
    pub(crate) fn dropout(self, probability: f32) -> Option<Dropout> {
        let pass = CURRENT.get().filter(|_| probability > 0.0)?;
        Some(Dropout { probability, seed: pass.derive("adapters").at(self.0) })
    }
}

/// Runs `work` in a pass whose dropout is drawn from `pass`; `None` drops nothing.
pub(crate) fn with_adapter_dropout<T>(pass: Option<Seed>, work: impl FnOnce() -> T) -> T {
    /// Restores the pass, also when the work panics.
    struct Before(Option<Seed>);
    impl Drop for Before {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _before = Before(CURRENT.replace(pass));
    work()
}
