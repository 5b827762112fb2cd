//! The context of a forward pass: KV cache, padding mask and dropout seed.

use std::ops::Range;

use andiron_kernels::random::Seed;
use burn::tensor::{Device, Int, Tensor};

use crate::adapter_dropout::with_adapter_dropout;
use crate::attention_record::{AttentionLayers, AttentionProbabilities, AttentionRecord};
use crate::cache::{KeysValues, columns_of};
use crate::dropout_site::{DropoutDraw, DropoutSite, Stack};
use crate::ops::Dropout;
use crate::{Documents, KvCache, PaddingMask, ids, ops};

/// The context of one forward pass.
///
/// There is one forward per layer; training, prefill and decoding differ only by this argument.
///
/// | use | cache | dropout |
/// |---|---|---|
/// | training | none | a seed that is new for every step |
/// | evaluation | none | none |
/// | prefill, decoding | the sequence's own | none |
///
/// A dropout mask is a function of the pass's seed and of the place where it is drawn: [`Forward::enter_stack`],
/// [`Forward::enter_layer`] and a [`DropoutSite`]. So a layer can be computed again, alone, with the masks that it had.
///
/// [`Forward::with_padding_mask`] adds a padding mask for rows of different lengths; without it no column is padding.
/// [`Forward::with_documents`] divides rows into documents that know nothing of each other.
/// [`Forward::with_attention_record`] also computes the attention probabilities, which no other pass has.
#[derive(Debug, Default)]
pub struct Forward<'a> {
    cache: Option<&'a mut KvCache>,
    rows: Option<PaddingMask>,
    documents: Option<Documents>,
    dropout: Option<Seed>,
    stack: Stack,
    layer: Option<usize>,
    draws: Vec<DropoutDraw>,
    checkpointing: bool,
    attention: Option<AttentionRecord>,
}

impl<'a> Forward<'a> {
    /// Whole sequences, no randomness: evaluation.
    pub fn evaluation() -> Self {
        Self::default()
    }

    /// Whole sequences with dropout drawn from `seed`, which must differ from step to step.
    pub fn training(seed: Seed) -> Self {
        Self { dropout: Some(seed), ..Self::default() }
    }

    /// Sequences that continue the rows of `cache`: prefill and decode steps.
    pub fn cached(cache: &'a mut KvCache) -> Self {
        Self { cache: Some(cache), ..Self::default() }
    }

    /// The same pass with a padding mask: padding is not attended to, and positions count from each row's first own column.
    /// With a cache, rows start in column 0 and continue their own sequence (right padding).
    ///
    /// # Panics
    /// If a row over a cache has padding before it.
    pub fn with_padding_mask(self, rows: PaddingMask) -> Self {
        let padded = rows.spans().iter().any(|span| span.start > 0);
        assert!(self.cache.is_none() || !padded, "rows over a cache begin in the first column");
        assert!(self.documents.is_none(), "padding in a pass with documents");
        Self { rows: Some(rows), ..self }
    }

    /// The same pass over rows that several documents are packed into: attention stays within each, and positions restart.
    ///
    /// # Panics
    /// If there is a cache or a padding mask: padding after the last document is documents too.
    pub fn with_documents(self, documents: Documents) -> Self {
        assert!(self.cache.is_none() && self.rows.is_none(), "documents in a pass with a cache or padding");
        Self { documents: Some(documents), ..self }
    }

    /// The documents of each row; `None` if each row is one.
    pub fn documents(&self) -> Option<&Documents> {
        self.documents.as_ref()
    }

    /// The same pass with activation checkpointing: see [`Forward::block`].
    pub fn with_checkpointing(self) -> Self {
        Self { checkpointing: true, ..self }
    }

    /// Whether blocks are computed again in the backward pass.
    pub(crate) fn checkpoints(&self) -> bool {
        self.checkpointing && self.cache.is_none()
    }

    /// The context in which the layer of this pass is computed again: its dropout masks can be drawn once more.
    pub(crate) fn again(&self) -> Forward<'static> {
        Forward {
            cache: None,
            rows: self.rows.clone(),
            documents: self.documents.clone(),
            dropout: self.dropout,
            stack: self.stack,
            layer: self.layer,
            draws: Vec::new(),
            checkpointing: false,
            attention: None,
        }
    }

    /// The same pass, which also records the attention probabilities of these layers of each stack, in full:
    /// `heads · queries · keys` elements for each layer and row. They are computed beside the attention itself, from the same
    /// queries and keys, in f32.
    ///
    /// # Panics
    /// If there is a cache.
    pub fn with_attention_record(self, layers: AttentionLayers) -> Self {
        assert!(self.cache.is_none(), "attention is recorded over whole sequences, without a cache");
        Self { attention: Some(AttentionRecord { wanted: layers, ..AttentionRecord::default() }), ..self }
    }

    /// Whether this pass records the attention of the layer that it is in.
    pub(crate) fn records_attention(&self) -> bool {
        let wanted = |record: &AttentionRecord| self.layer.is_some_and(|layer| record.wants(layer));
        self.attention.as_ref().is_some_and(wanted)
    }

    /// Records probabilities of the layer that this pass is in.
    pub(crate) fn record_attention(&mut self, cross: bool, probabilities_bhts: Tensor<4>) {
        if let (Some(record), Some(layer)) = (&mut self.attention, self.layer) {
            record.add(AttentionProbabilities { stack: self.stack, layer, cross, probabilities_bhts });
        }
    }

    /// The attention recorded in this pass; none without [`Forward::with_attention_record`].
    pub fn into_attention(self) -> AttentionRecord {
        self.attention.unwrap_or_default()
    }

    /// The columns of each row; `None` without padding.
    pub fn padding_mask(&self) -> Option<&PaddingMask> {
        self.rows.as_ref()
    }

    /// Length of the longest row of the cache.
    pub fn start(&self) -> usize {
        self.cache.as_ref().map_or(0, |cache| cache.len())
    }

    /// One more than the last position of any row.
    pub fn end(&self, columns: usize) -> usize {
        if let Some(documents) = &self.documents {
            return documents.longest(columns);
        }
        match &self.cache {
            Some(cache) if !cache.is_empty() => {
                let ends = cache.lens().enumerate();
                ends.map(|(row, len)| len + columns_of(self.padding_mask(), row, columns)).max().unwrap_or(0)
            }
            // Left padding takes no position.
            _ => {
                let spans = self.padding_mask().into_iter().flat_map(PaddingMask::spans);
                columns.saturating_sub(spans.map(|span| span.start).min().unwrap_or(0))
            }
        }
    }

    /// Whether all rows have the same positions.
    pub(crate) fn rows_agree(&self) -> bool {
        if self.documents.is_some() {
            return false;
        }
        match &self.cache {
            Some(cache) => self.rows.is_none() && cache.lens().all(|len| len == cache.len()),
            None => self.padding_mask().into_iter().flat_map(PaddingMask::spans).all(|span| span.start == 0),
        }
    }

    /// Position of each of `columns` new tokens in its own row, or document; padding has the position of the nearest token of its row. A
    /// single list if all rows have the same positions.
    pub fn positions(&self, columns: usize) -> Vec<Vec<usize>> {
        if let Some(documents) = &self.documents {
            return documents.positions(columns);
        }
        let start = self.start();
        match (&self.cache, &self.rows) {
            _ if self.rows_agree() => vec![(start..start + columns).collect()],
            (Some(cache), rows) if !cache.is_empty() => {
                let of = |(row, len): (usize, usize)| {
                    let last = (len + columns_of(rows.as_ref(), row, columns)).saturating_sub(1);
                    (len..len + columns).map(|position| position.min(last)).collect()
                };
                cache.lens().enumerate().map(of).collect()
            }
            (_, Some(rows)) => {
                let of = |span: &Range<usize>| {
                    let last = span.len().min(columns).saturating_sub(1);
                    (0..columns).map(|column| column.saturating_sub(span.start).min(last)).collect()
                };
                rows.spans().iter().map(of).collect()
            }
            (_, None) => vec![(0..columns).collect()],
        }
    }

    /// The same as a tensor, `[batch or 1, columns]`, plus `offset`.
    pub fn position_ids(&self, columns: usize, offset: usize, device: &Device) -> Tensor<2, Int> {
        let positions = self.positions(columns);
        let shape = [positions.len(), columns];
        let moved: Vec<u32> =
            positions.into_iter().flatten().map(|position| (position + offset) as u32).collect();
        ids::upload(&moved, shape, device)
    }

    /// All keys and values that layer `layer` attends to: appends those of the new positions to the cache, if there is one.
    ///
    /// # Shape
    /// `[batch, new positions, heads, head width]` each.
    pub fn keys_values(&mut self, layer: usize, keys_bshk: Tensor<4>, values_bshk: Tensor<4>) -> KeysValues {
        match self.cache.as_mut() {
            Some(cache) => cache.append(layer, (keys_bshk, values_bshk), self.rows.as_ref()),
            None => KeysValues::Whole { keys_bshk, values_bshk },
        }
    }

    /// Records that all layers have computed these columns of new positions.
    pub fn advance(&mut self, columns: usize) {
        if let Some(cache) = self.cache.as_mut() {
            cache.advance(columns, self.rows.as_ref());
        }
    }

    /// Begins a stack of layers: the encoder or the decoder. A model with one stack need not.
    pub fn enter_stack(&mut self, stack: Stack) {
        (self.stack, self.layer) = (stack, None);
    }

    /// Begins the layer with this index. Dropout sites of a layer belong to the one entered last.
    pub fn enter_layer(&mut self, index: usize) {
        self.layer = Some(index);
        if let Some(record) = &mut self.attention {
            record.n_layers = record.n_layers.max(index + 1);
        }
    }

    /// Dropout with the given probability while training; otherwise `x`.
    ///
    /// The mask is a function of the pass's seed, the stack, the layer and the site, whatever else was drawn.
    ///
    /// # Panics
    /// If `probability` is not in `0..1`; if the site is one of a layer and none was entered; if this pass has drawn the
    /// mask already: a second pass, such as one over other texts of the same step, needs a `Forward` and a seed of its own.
    pub fn dropout<const D: usize>(
        &mut self,
        x: Tensor<D>,
        probability: f32,
        site: DropoutSite,
    ) -> Tensor<D> {
        match self.draw_dropout(probability, site) {
            Some(Dropout { probability, seed }) => ops::dropout(x, probability, seed),
            None => x,
        }
    }

    /// The mask of a site, as for [`Forward::dropout`]; `None` if nothing is dropped.
    ///
    /// # Panics
    /// As [`Forward::dropout`].
    pub(crate) fn draw_dropout(&mut self, probability: f32, site: DropoutSite) -> Option<Dropout> {
        assert!((0.0..1.0).contains(&probability), "dropout probability {probability} is not in 0..1");
        let pass = self.dropout.filter(|_| probability > 0.0)?;
        let draw = DropoutDraw::new((self.stack, self.layer), site, probability);
        let drawn = self.draws.iter().any(|earlier| earlier.is_at(&draw));
        assert!(!drawn, "{draw:?} is drawn twice in one pass; each pass needs a Forward with its own seed");
        self.draws.push(draw);
        Some(Dropout { probability, seed: draw.seed(pass) })
    }

    /// The dropout masks of this pass so far.
    pub fn dropout_draws(&self) -> &[DropoutDraw] {
        &self.draws
    }

    /// Runs a part of the model that is in no [block](Forward::block) but may have adapters, whose dropout it draws.
    pub fn with_adapters<T>(&self, work: impl FnOnce() -> T) -> T {
        with_adapter_dropout(self.dropout, work)
    }

    /// Runs a part of the model with its adapters and this context.
    pub(crate) fn run<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        with_adapter_dropout(self.dropout, || work(self))
    }

    /// Whether there is a cache, even an empty one.
    pub(crate) fn is_cached(&self) -> bool {
        self.cache.is_some()
    }

    /// Whether [`Forward::dropout`] with this probability changes anything.
    pub fn drops(&self, probability: f32) -> bool {
        self.dropout.is_some() && probability > 0.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const LAYER_SITES: [DropoutSite; 6] = [
        DropoutSite::AttentionProbabilities,
        DropoutSite::AttentionOutput,
        DropoutSite::CrossAttentionProbabilities,
        DropoutSite::CrossAttentionOutput,
        DropoutSite::FeedForwardInner,
        DropoutSite::FeedForwardOutput,
    ];
    const STACK_SITES: [DropoutSite; 4] =
        [DropoutSite::Embeddings, DropoutSite::FinalNorm, DropoutSite::Pooled, DropoutSite::Head];
    const STACKS: [Stack; 3] = [Stack::Single, Stack::Encoder, Stack::Decoder];

    fn draw(cx: &mut Forward<'_>, site: DropoutSite) -> Seed {
        cx.draw_dropout(0.1, site).unwrap().seed
    }

    #[test]
    fn no_two_places_share_a_mask() {
        let mut seeds = HashSet::new();
        let mut cx = Forward::training(Seed::new(7));
        for stack in STACKS {
            cx.enter_stack(stack);
            seeds.extend(STACK_SITES.map(|site| draw(&mut cx, site)));
            for layer in 0..300 {
                cx.enter_layer(layer);
                seeds.extend(LAYER_SITES.map(|site| draw(&mut cx, site)));
            }
        }
        assert_eq!(seeds.len(), STACKS.len() * (STACK_SITES.len() + 300 * LAYER_SITES.len()));
        assert_eq!(seeds.len(), cx.dropout_draws().len());
        let mut cx = Forward::training(Seed::new(8));
        assert!(!seeds.contains(&draw(&mut cx, DropoutSite::Embeddings)), "another pass has other masks");
    }

    #[test]
    fn a_layer_alone_draws_the_masks_that_it_drew_among_others() {
        let mut pass = Forward::training(Seed::new(7));
        pass.enter_stack(Stack::Decoder);
        draw(&mut pass, DropoutSite::Embeddings);
        let of_layer = |cx: &mut Forward<'_>, sites: [DropoutSite; 6]| sites.map(|site| draw(cx, site));
        let layers = [0, 1, 2].map(|layer| {
            pass.enter_layer(layer);
            of_layer(&mut pass, LAYER_SITES)
        });
        let mut alone = Forward::training(Seed::new(7));
        alone.enter_stack(Stack::Decoder);
        alone.enter_layer(2);
        let mut backwards = LAYER_SITES;
        backwards.reverse();
        let mut again = of_layer(&mut alone, backwards);
        again.reverse();
        assert_eq!(again, layers[2]);
        // A site that drops nothing changes none of the others.
        let mut other = Forward::training(Seed::new(7));
        other.enter_stack(Stack::Decoder);
        other.enter_layer(1);
        assert!(other.draw_dropout(0.0, LAYER_SITES[0]).is_none());
        assert_eq!(draw(&mut other, LAYER_SITES[1]), layers[1][1]);
    }

    #[test]
    fn sites_of_a_stack_do_not_depend_on_the_layer() {
        let [mut before, mut after] = [Forward::training(Seed::new(7)), Forward::training(Seed::new(7))];
        after.enter_layer(3);
        assert_eq!(draw(&mut before, DropoutSite::Head), draw(&mut after, DropoutSite::Head));
    }

    #[test]
    #[should_panic(expected = "drawn twice in one pass")]
    fn one_place_is_drawn_once_in_a_pass() {
        let mut cx = Forward::training(Seed::new(7));
        draw(&mut cx, DropoutSite::Embeddings);
        draw(&mut cx, DropoutSite::Embeddings);
    }

    #[test]
    #[should_panic(expected = "outside of a layer")]
    fn a_site_of_a_layer_needs_a_layer() {
        draw(&mut Forward::training(Seed::new(7)), DropoutSite::AttentionOutput);
    }
}
