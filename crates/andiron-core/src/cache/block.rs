//! Blocks of the KV cache: keys and values of some positions of one layer.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use andiron_kernels::attention::Bf16;
use burn::tensor::{Tensor, TensorData};

/// Element type of a [`KvCache`](crate::KvCache).
///
/// On GPU devices a cache always has the element type of its model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvCacheDtype {
    /// Unrounded.
    #[default]
    F32,
    /// Rounded to bf16: half the memory and half the bandwidth per token.
    Bf16,
}

impl KvCacheDtype {
    /// Every element type.
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];
}

impl fmt::Display for KvCacheDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for KvCacheDtype {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.to_string() == name);
        found.ok_or_else(|| format!("{name:?} is no element type of a KV cache: choose f32 or bf16"))
    }
}

/// Keys and values of a fixed number of positions.
#[derive(Clone, Debug)]
pub(crate) enum Block {
    /// In host memory.
    F32(HostBlock<f32>),
    /// In host memory, in bf16.
    Bf16(HostBlock<Bf16>),
    /// `[2, positions, heads, head width]`, keys first, on any device.
    Tensor(Tensor<4>),
}

/// `[heads, 2, positions, head width]`, the layout of the kernels. Copied on write if shared.
#[derive(Clone, Debug)]
pub(crate) struct HostBlock<E> {
    heads: usize,
    positions: usize,
    elements: Arc<Vec<E>>,
}

/// New keys and values of one row, `[columns, heads, head width]` each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostColumns<'a> {
    pub(crate) keys: &'a [f32],
    pub(crate) values: &'a [f32],
    pub(crate) heads: usize,
}

impl Block {
    /// A zeroed block in host memory for `positions` positions of `heads` heads of width `width`.
    pub(crate) fn on_host(dtype: KvCacheDtype, positions: usize, [heads, width]: [usize; 2]) -> Self {
        fn zeros<E: Clone + Default>(positions: usize, heads: usize, width: usize) -> HostBlock<E> {
            let elements = Arc::new(vec![E::default(); heads * 2 * positions * width]);
            HostBlock { heads, positions, elements }
        }
        match dtype {
            KvCacheDtype::F32 => Self::F32(zeros(positions, heads, width)),
            KvCacheDtype::Bf16 => Self::Bf16(zeros(positions, heads, width)),
        }
    }

    /// Writes `columns` of a row to the positions from `at` on.
    ///
    /// # Panics
    /// If the block is a tensor, the number of heads differs, or the columns do not fit.
    pub(crate) fn write(&mut self, at: usize, columns: Range<usize>, row: HostColumns<'_>) {
        match self {
            Self::F32(block) => block.write(at, columns, row, |x| x),
            Self::Bf16(block) => block.write(at, columns, row, Bf16::from_f32),
            Self::Tensor(_) => panic!("a cache of another device is continued here"),
        }
    }

    /// Size in bytes.
    pub(crate) fn n_bytes(&self) -> usize {
        match self {
            Self::F32(block) => size_of_val(block.elements()),
            Self::Bf16(block) => size_of_val(block.elements()),
            Self::Tensor(x) => x.dims().iter().product::<usize>() * x.dtype().size(),
        }
    }

    /// The keys (part 0) or the values (part 1) of a block in host memory, `[1, heads, positions, head width]`.
    ///
    /// # Panics
    /// If it is a tensor.
    pub(crate) fn host_part(&self, part: usize) -> TensorData {
        match self {
            Self::F32(block) => block.part(part, |x| x),
            Self::Bf16(block) => block.part(part, Bf16::to_f32),
            Self::Tensor(_) => panic!("a tensor is not in this process's memory"),
        }
    }

    /// Positions, heads and head width.
    pub(crate) fn dims(&self) -> [usize; 3] {
        match self {
            Self::F32(block) => block.dims(),
            Self::Bf16(block) => block.dims(),
            Self::Tensor(x) => {
                let [_, positions, h, k] = x.dims();
                [positions, h, k]
            }
        }
    }
}

impl<E: Copy> HostBlock<E> {
    /// All elements.
    pub(crate) fn elements(&self) -> &[E] {
        &self.elements
    }

    fn dims(&self) -> [usize; 3] {
        let Self { heads, positions, .. } = *self;
        [positions, heads, self.elements.len() / (2 * heads * positions).max(1)]
    }

    fn write(
        &mut self,
        at: usize,
        columns: Range<usize>,
        HostColumns { keys, values, heads }: HostColumns<'_>,
        rounded: impl Fn(f32) -> E,
    ) {
        let [positions, own_heads, width] = self.dims();
        assert_eq!(heads, own_heads, "a cache of {own_heads} heads is continued by {heads}");
        assert!(at + columns.len() <= positions, "positions that fit the block");
        let elements = Arc::make_mut(&mut self.elements);
        for (part, x) in [keys, values].into_iter().enumerate() {
            for head in 0..heads {
                let start = ((2 * head + part) * positions + at) * width;
                let to = elements[start..start + columns.len() * width].chunks_exact_mut(width.max(1));
                for (column, to) in columns.clone().zip(to) {
                    let from = &x[(column * heads + head) * width..][..width];
                    to.iter_mut().zip(from).for_each(|(to, &x)| *to = rounded(x));
                }
            }
        }
    }

    fn part(&self, part: usize, widened: impl Fn(E) -> f32) -> TensorData {
        let [positions, heads, width] = self.dims();
        let values: Vec<f32> = (0..heads)
            .flat_map(|head| &self.elements[(2 * head + part) * positions * width..][..positions * width])
            .map(|&x| widened(x))
            .collect();
        TensorData::new(values, [1, heads, positions, width])
    }
}
