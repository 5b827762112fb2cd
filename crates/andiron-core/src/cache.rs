//! Keys and values of past positions, kept so that decoding computes each position once.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::Rows;

/// The keys and values of one batch of sequences, for every layer: a value that belongs to its caller.
///
/// The buffers grow by doubling, so that appending a token copies nothing most of the time. Cloning is cheap
/// and gives an independent continuation of the same past.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    len: usize,
    max_len: usize,
    rows: Option<Rows>,
}

#[derive(Clone, Debug, Default)]
struct LayerCache {
    keys_bshk: Option<Tensor<4>>,
    values_bshk: Option<Tensor<4>>,
}

/// The keys and values a query may look at, as [`KvCache::append`] returns them.
#[derive(Clone, Debug)]
pub struct Past {
    /// Keys, `[batch, capacity, heads, head width]`; positions from `len` on are not yet filled.
    pub keys_bshk: Tensor<4>,
    /// Values, laid out like the keys.
    pub values_bshk: Tensor<4>,
    /// How many positions are filled.
    pub len: usize,
}

impl KvCache {
    const FIRST_CAPACITY: usize = 64;

    /// An empty cache for `n_layers` layers that will hold at most `max_len` positions.
    pub fn new(n_layers: usize, max_len: usize) -> Self {
        Self { layers: vec![LayerCache::default(); n_layers], len: 0, max_len, rows: None }
    }

    /// The same for rows with padding before them: what is written there is seen by nobody, and takes no room from the
    /// row.
    ///
    /// # Panics
    /// If something was computed already.
    pub fn over(self, rows: Rows) -> Self {
        assert!(self.is_empty(), "rows are told before anything is computed");
        let padding = rows.spans().iter().map(|span| span.start).max().unwrap_or(0);
        Self { rows: Some(rows), max_len: self.max_len.saturating_add(padding), ..self }
    }

    /// Which columns belong to each row; `None` if all do.
    pub fn rows(&self) -> Option<&Rows> {
        self.rows.as_ref()
    }

    /// Keeps these rows of the batch, in this order; one may be kept several times, to be continued in several ways.
    ///
    /// # Panics
    /// If an index is not below the size of the batch.
    pub fn select(&mut self, rows: &[usize]) {
        for layer in &mut self.layers {
            for slot in [&mut layer.keys_bshk, &mut layer.values_bshk] {
                *slot = slot.take().map(|buffer| select_rows(buffer, rows));
            }
        }
        self.rows = self.rows.take().map(|spans| spans.select(rows));
    }

    /// Positions held so far; the next one to be computed.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was computed yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Positions that still fit.
    pub fn room(&self) -> usize {
        self.max_len - self.len
    }

    /// Writes the keys and values of new positions after those already there and returns all of them.
    ///
    /// Every layer appends the same number of positions; the cache moves on when the model calls
    /// [`KvCache::advance`] after its last layer.
    ///
    /// # Shape
    /// `[batch, new positions, heads, head width]` each.
    ///
    /// # Panics
    /// If `layer` does not exist, the shapes differ, or the positions do not fit.
    pub fn append(&mut self, layer: usize, keys_bshk: Tensor<4>, values_bshk: Tensor<4>) -> Past {
        assert_eq!(keys_bshk.dims(), values_bshk.dims(), "keys and values have one shape");
        let new = keys_bshk.dims()[1];
        assert!(new <= self.room(), "{new} positions do not fit: {} of {} are used", self.len, self.max_len);
        let (start, max_len) = (self.len, self.max_len);
        let slot = &mut self.layers[layer];
        let keys_bshk = write(&mut slot.keys_bshk, start, max_len, keys_bshk);
        let values_bshk = write(&mut slot.values_bshk, start, max_len, values_bshk);
        Past { keys_bshk, values_bshk, len: start + new }
    }

    /// Forgets all but the first `len` positions.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len, "a cache of {} positions has no {len}", self.len);
        self.len = len;
    }

    /// Counts `positions` as computed, once all layers have appended them.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn advance(&mut self, positions: usize) {
        assert!(positions <= self.room(), "the cache cannot move past its end");
        self.len += positions;
    }
}

/// What an encoder leaves to a decoder: for each of the decoder's layers the keys and values of its cross-attention.
///
/// Computed once for a source, however many tokens are then decoded. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Memory {
    layers: Vec<(Tensor<4>, Tensor<4>)>,
    rows: Option<Rows>,
}

impl Memory {
    /// From keys and values of each layer, `[batch, source, heads, head width]` each, and the encoder's rows.
    pub fn new(layers: Vec<(Tensor<4>, Tensor<4>)>, rows: Option<Rows>) -> Self {
        Self { layers, rows }
    }

    /// How many sources it is of.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |(keys_bshk, _)| keys_bshk.dims()[0])
    }

    /// Whether it is of none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which columns of the source belong to each row; `None` if all do.
    pub fn rows(&self) -> Option<&Rows> {
        self.rows.as_ref()
    }

    /// Keeps these rows of the batch, in this order; one may be kept several times.
    ///
    /// # Panics
    /// If an index is not below the size of the batch.
    pub fn select(&mut self, rows: &[usize]) {
        let layers = std::mem::take(&mut self.layers);
        let kept =
            layers.into_iter().map(|(keys, values)| (select_rows(keys, rows), select_rows(values, rows)));
        self.layers = kept.collect();
        self.rows = self.rows.take().map(|spans| spans.select(rows));
    }

    pub(crate) fn layer(&self, layer: usize) -> Past {
        let (keys_bshk, values_bshk) = self.layers[layer].clone();
        let len = keys_bshk.dims()[1];
        Past { keys_bshk, values_bshk, len }
    }
}

fn select_rows(x_bshk: Tensor<4>, rows: &[usize]) -> Tensor<4> {
    let ids: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [rows.len()]), &x_bshk.device());
    x_bshk.select(0, ids)
}

/// Writes `rows` at `start` into the buffer in `slot`, growing it first if needed.
fn write(slot: &mut Option<Tensor<4>>, start: usize, max_len: usize, rows_bshk: Tensor<4>) -> Tensor<4> {
    let [b, new, h, k] = rows_bshk.dims();
    let end = start + new;
    // Taken out of the slot, so that the buffer has one owner and is written in place.
    let buffer = match slot.take() {
        Some(buffer) if buffer.dims()[1] >= end => buffer,
        old => {
            let capacity = end.next_power_of_two().max(KvCache::FIRST_CAPACITY).min(max_len);
            grow(old, start, [b, capacity, h, k], &rows_bshk.device())
        }
    };
    let buffer = buffer.slice_assign([0..b, start..end, 0..h, 0..k], rows_bshk);
    slot.insert(buffer).clone()
}

fn grow(old: Option<Tensor<4>>, filled: usize, shape: [usize; 4], device: &Device) -> Tensor<4> {
    let buffer = Tensor::zeros(shape, device);
    match old {
        Some(old) if filled > 0 => {
            let [b, _, h, k] = shape;
            let past = old.slice([0..b, 0..filled, 0..h, 0..k]);
            buffer.slice_assign([0..b, 0..filled, 0..h, 0..k], past)
        }
        _ => buffer,
    }
}
