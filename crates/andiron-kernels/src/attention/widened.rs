//! Operands that were kept in bf16, widened for one head at a time: in f32 they stay in the caches.

use std::ops::Range;

use super::view::HeadView;
use super::{Attention, AttentionShape, Document, Places, Qkv};
use crate::{Isa, bf16};

/// One head's queries, keys and values, widened from bf16.
#[derive(Default)]
pub(super) struct Widened {
    operands: [Vec<f32>; 3],
    dim: usize,
}

impl Widened {
    /// Widens the keys and values of one head, those of its span.
    pub(super) fn take_keys(
        &mut self,
        isa: Isa,
        (qkv, places): (Qkv, Places),
        (shape, span): (AttentionShape, Range<usize>),
        (batch, kv_head): (usize, usize),
    ) {
        self.dim = shape.head_dim;
        let [_, k, v] = qkv.slices();
        for (at, words, place) in [(1, k, places.k), (2, v, places.v)] {
            let first = place.start(shape, batch, kv_head) + span.start * place.stride;
            self.take(isa, at, (words, first, place.stride), span.len());
        }
    }

    /// Widens a document's queries of one head.
    pub(super) fn take_queries(
        &mut self,
        isa: Isa,
        (qkv, places): (Qkv, Places),
        shape: AttentionShape,
        (document, head): (&Document, usize),
    ) {
        let first = places.q.start(shape, document.batch, head) + document.queries.start * places.q.stride;
        self.take(isa, 0, (qkv.slices()[0], first, places.q.stride), document.queries.len());
    }

    /// Widens so many positions, from element `first` on, `stride` apart.
    fn take(&mut self, isa: Isa, at: usize, (words, first, stride): (&[f32], usize, usize), count: usize) {
        let rows = &mut self.operands[at];
        rows.resize(count * self.dim, 0.0);
        bf16::widen_rows(isa, &words[(first / 2).min(words.len())..], (stride / 2, self.dim / 2), rows);
    }

    /// The head as a view on the widened operands.
    pub(super) fn view(&self, attention: &Attention, head: (&Document, usize)) -> HeadView {
        attention.view(self.operands.each_ref().map(|rows| rows.as_ptr()), (self.dim, self.dim), head)
    }
}
