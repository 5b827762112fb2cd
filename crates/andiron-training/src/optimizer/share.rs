//! The division of the optimizer's state over the processes of a run: each holds the moments of some parameters, updates those, and
//! gets the others from the processes that hold theirs.
//!
//! Source: Rajbhandari et al. 2020, "ZeRO", <https://arxiv.org/abs/1910.02054>, stage 1. Whole parameters are divided, not their
//! elements, because Muon and Adafactor look at whole matrices.

use std::cmp::Reverse;

use andiron_models::weights::ParamPath;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

use super::slot::Slot;
use super::{Optimizer, is_trainable};
use crate::collective::{BUCKET, Collective, floats, tensor};

/// Which part of the optimizer's state a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The process.
    pub rank: usize,
    /// Number of processes that divide the state.
    pub size: usize,
}

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { rank: 0, size: 1 };

    /// The process that holds the state of each of parameters of these lengths: the longest first, each to the process that has
    /// the least so far.
    pub(super) fn owners(self, lengths: &[usize]) -> Vec<usize> {
        let mut places: Vec<usize> = (0..lengths.len()).collect();
        places.sort_by_key(|&place| Reverse(lengths[place]));
        let mut held = vec![0; self.size];
        let mut owners = vec![0; lengths.len()];
        for place in places {
            let least = (0..self.size).min_by_key(|&rank| held[rank]).expect("there is a process");
            held[least] += lengths[place];
            owners[place] = least;
        }
        owners
    }
}

impl Optimizer {
    /// [`update`](Self::update) by all processes, each of its own share; `model` is the same on all of them before and after.
    ///
    /// # Panics
    /// As for [`update`](Self::update).
    pub fn update_shared<M: Module>(
        &mut self,
        model: M,
        mut gradients: Vec<Option<Tensor<1>>>,
        [lr, grad_scale]: [f64; 2],
        collective: &dyn Collective,
    ) -> M {
        let grad_scale = grad_scale as f32;
        if self.share == Share::WHOLE {
            return self.update(model, gradients, lr, grad_scale);
        }
        let is_moved: Vec<bool> = gradients.iter().map(Option::is_some).collect();
        for (slot, gradient) in self.slots.iter().zip(&mut gradients) {
            if slot.owner != self.share.rank {
                *gradient = None;
            }
        }
        let model = self.update(model, gradients, lr, grad_scale);
        self.exchange(model, &is_moved, collective)
    }

    /// `model` with the parameters that moved as their owners have them.
    fn exchange<M: Module>(&self, model: M, is_moved: &[bool], collective: &dyn Collective) -> M {
        let mut own =
            Own { held: self.slots.iter().map(|slot| slot.owner == self.share.rank), values: Vec::new() };
        model.visit(&mut own);
        let mut exchange = Exchange {
            collective,
            slots: &self.slots,
            is_moved,
            own: own.values,
            rank: self.share.rank,
            at: 0,
            until: 0,
            starts: Vec::new(),
            numbers: Vec::new(),
            path: ParamPath::default(),
        };
        model.map(&mut exchange)
    }

    /// The whole optimizer for the first process, `None` for the others, and if every process has it anyway. All processes call this.
    pub(crate) fn gathered(&self, collective: &dyn Collective) -> Option<Self> {
        if self.share == Share::WHOLE {
            return None;
        }
        let mut slots = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let of_moment = |(at, (_, shape)): (usize, (_, Vec<usize>))| {
                let mut numbers = match &slot.moments {
                    Some(moments) => floats(moments[at].clone()),
                    None => vec![0.0; shape.iter().product()],
                };
                collective.broadcast(&mut numbers, slot.owner);
                (self.share.rank == 0).then(|| tensor(numbers, &self.device))
            };
            // All of them before they are looked at: every process takes part in each exchange.
            let moments: Vec<_> = slot.moment_shapes().into_iter().enumerate().map(of_moment).collect();
            let mut slot = slot.clone();
            slot.moments = moments.into_iter().collect();
            slots.push(slot);
        }
        (self.share.rank == 0).then(|| Self { slots, share: Share::WHOLE, ..self.clone() })
    }

    /// Numbers that the state of this process has.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let of_slot = |slot: &Slot| {
            slot.moments.iter().flatten().map(|moment| moment.shape().num_elements()).sum::<usize>()
        };
        self.slots.iter().map(of_slot).sum()
    }
}

/// The parameters of this process, in their order.
struct Own<I> {
    held: I,
    values: Vec<Option<Tensor<1>>>,
}

impl<I: Iterator<Item = bool>> ModuleVisitor for Own<I> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if is_trainable(param) {
            let is_held = self.held.next().expect("one slot for each trainable parameter");
            self.values.push(is_held.then(|| param.val().inner().reshape([-1])));
        }
    }
}

/// Replaces parameters by those of their owners, a bucket of consecutive ones at a time.
struct Exchange<'a> {
    collective: &'a dyn Collective,
    slots: &'a [Slot],
    is_moved: &'a [bool],
    own: Vec<Option<Tensor<1>>>,
    rank: usize,
    /// The next parameter.
    at: usize,
    /// The first parameter after those in `numbers`.
    until: usize,
    /// Where each of them begins there.
    starts: Vec<usize>,
    numbers: Vec<f32>,
    path: ParamPath,
}

impl Exchange<'_> {
    /// Gets the next bucket.
    fn fetch(&mut self) {
        let first = self.at;
        let mut n = 0;
        while self.until < self.slots.len() && n < BUCKET {
            n += self.length(self.until);
            self.until += 1;
        }
        self.starts = vec![0; self.until - first];
        let mut lengths = vec![0; self.collective.size()];
        let mut end = 0;
        for (rank, length) in lengths.iter_mut().enumerate() {
            let begin = end;
            for place in (first..self.until).filter(|&place| self.slots[place].owner == rank) {
                self.starts[place - first] = end;
                end += self.length(place);
            }
            *length = end - begin;
        }
        self.numbers.clear();
        self.numbers.resize(end, 0.0);
        for place in (first..self.until).filter(|&place| self.is_moved[place]) {
            if let Some(values) = self.own[place].take() {
                let start = self.starts[place - first];
                let values = floats(values);
                self.numbers[start..start + values.len()].copy_from_slice(&values);
            }
        }
        self.collective.all_gather(&mut self.numbers, &lengths);
    }

    /// Numbers that are sent of a parameter.
    fn length(&self, place: usize) -> usize {
        if self.is_moved[place] { self.slots[place].len() } else { 0 }
    }
}

impl ModuleMapper for Exchange<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !is_trainable(&param) {
            return param;
        }
        if self.at == self.until {
            self.starts.clear();
            self.fetch();
        }
        let (place, first) = (self.at, self.until - self.starts.len());
        self.at += 1;
        let slot = &self.slots[place];
        assert_eq!(slot.name, self.path.name(), "the model the optimizer was made for");
        if slot.owner == self.rank || !self.is_moved[place] {
            return param;
        }
        let start = self.starts[place - first];
        let numbers = self.numbers[start..start + slot.len()].to_vec();
        let (id, value, mapper) = param.consume();
        let value = value.inner();
        let value: Tensor<D> = tensor(numbers, &value.device()).reshape(value.shape());
        Param::from_mapped_value(id, Tensor::from_inner(value).require_grad(), mapper)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{gradients, model, parameters};
    use super::super::{OptimizerConfig, OptimizerKind};
    use super::*;
    use crate::collective::threads::on_threads;
    use crate::testing::device;

    fn settings(kind: OptimizerKind) -> OptimizerConfig {
        OptimizerConfig::constant(0.01).with_kind(kind)
    }

    #[test]
    fn the_longest_go_to_who_has_the_least() {
        let owners = |size, lengths: &[usize]| Share { rank: 0, size }.owners(lengths);
        assert_eq!(owners(2, &[5, 8, 3, 1]), [1, 0, 1, 0]);
        assert_eq!(owners(3, &[2, 2, 2, 2]), [0, 1, 2, 0]);
        assert_eq!(owners(4, &[7]), [0]);
        assert_eq!(owners(1, &[1, 2]), [0, 0]);
    }

    #[test]
    fn processes_with_a_share_each_update_like_one_with_all() {
        for kind in [OptimizerKind::Adamw, OptimizerKind::Muon, OptimizerKind::Adafactor, OptimizerKind::Lion]
        {
            let mut alone = Optimizer::new(&model(), &settings(kind), &device()).unwrap();
            let expected = (0..3).fold(model(), |model, step| {
                let gradients = gradients(&model, step);
                alone.update(model, gradients, 0.01, 0.5)
            });
            let all = on_threads(3, |ranks| {
                let share = Share { rank: ranks.rank(), size: 3 };
                let mut optimizer = Optimizer::divided(&model(), &settings(kind), share, &device()).unwrap();
                let model = (0..3).fold(model(), |model, step| {
                    let gradients = gradients(&model, step);
                    optimizer.update_shared(model, gradients, [0.01, 0.5], ranks)
                });
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("optimizer.safetensors");
                let whole = optimizer.gathered(ranks).map(|whole| {
                    whole.save(&path).unwrap();
                    std::fs::read(&path).unwrap()
                });
                (parameters(&model), optimizer.held(), whole)
            });
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("optimizer.safetensors");
            alone.save(&path).unwrap();
            assert_eq!(all.iter().map(|(_, held, _)| held).sum::<usize>(), alone.held(), "{kind:?}");
            for (rank, (found, held, whole)) in all.into_iter().enumerate() {
                assert!(found == parameters(&expected), "{kind:?}");
                assert!(
                    kind != OptimizerKind::Adamw || 2 * held < alone.held(),
                    "{held} of {}",
                    alone.held()
                );
                assert_eq!(whole.is_some(), rank == 0);
                assert!(whole.is_none_or(|whole| whole == std::fs::read(&path).unwrap()), "{kind:?}");
            }
        }
    }
}
