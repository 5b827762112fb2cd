//! The modules of a BERT, their fields named as in its files.

use andiron_core::{DropoutSite, Embedding, Forward, LayerNorm, Linear, ParamRole, init, linear};
use andiron_kernels::random::Seed;
use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};

use super::config::BertConfig;
use crate::encoder::embed::Pooling;
use crate::encoder::head::{
    EncoderHead, Head, HeadActivation, HeadNorm, MaskedLmHead, SequenceHead, TokenHead, Transform,
};
use crate::encoder::layers::{LayerSizes, attend_all};
use crate::family::Encoder;
use crate::hf_config::Activation;
use crate::param_init::ParamInit;

/// A BERT with the head that its configuration names.
#[derive(Module, Debug)]
pub struct Bert {
    pub(super) bert: Body,
    cls: Option<Cls>,
    classifier: Option<Linear>,
    qa_outputs: Option<Linear>,
    #[module(skip)]
    dropout: f32,
}

#[derive(Module, Debug)]
struct Cls {
    predictions: Predictions,
}

#[derive(Module, Debug)]
struct Predictions {
    transform: Output,
    decoder: Option<Linear>,
    bias: Param<Tensor<1>>,
}

/// Embeddings and blocks, shared with RoBERTa.
#[derive(Module, Debug)]
pub(in crate::encoder) struct Body {
    embeddings: Embeddings,
    encoder: Layers,
    pooler: Option<Pooler>,
    #[module(skip)]
    n_heads: usize,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    dropout: f32,
    #[module(skip)]
    attention_dropout: f32,
}

#[derive(Module, Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Embedding,
    layer_norm_: LayerNorm,
}

#[derive(Module, Debug)]
struct Layers {
    layer: Vec<Layer>,
}

#[derive(Module, Debug)]
struct Pooler {
    dense: Linear,
}

#[derive(Module, Debug)]
struct Layer {
    attention: Attention,
    intermediate: Intermediate,
    output: Output,
}

#[derive(Module, Debug)]
struct Attention {
    self_: Projections,
    output: Output,
}

#[derive(Module, Debug)]
struct Projections {
    query: Linear,
    key: Linear,
    value: Linear,
}

#[derive(Module, Debug)]
struct Intermediate {
    dense: Linear,
}

#[derive(Module, Debug)]
struct Output {
    dense: Linear,
    layer_norm_: LayerNorm,
}

impl Bert {
    pub(in crate::encoder) fn new(config: &BertConfig, seed: Seed, device: &Device) -> Self {
        let (params, d) = (config.param_init(seed, device), config.hidden_size);
        let pooled = match config.head {
            EncoderHead::None => config.pooler,
            head => matches!(head, EncoderHead::Classify { .. }),
        };
        let predictions = || Predictions {
            transform: Output {
                dense: params.linear("cls.predictions.transform.dense", d, d, true),
                layer_norm_: params.layer_norm(d),
            },
            decoder: (!config.tie_word_embeddings).then(|| {
                params
                    .linear("cls.predictions.decoder", d, config.vocab_size, true)
                    .with_role(ParamRole::Head)
            }),
            bias: init::zeros([config.vocab_size], device),
        };
        Self {
            bert: config.init_body("bert", pooled, seed, device),
            cls: (config.head == EncoderHead::MaskedLm).then(|| Cls { predictions: predictions() }),
            classifier: config
                .head
                .has_labels()
                .then(|| params.linear("classifier", d, config.labels.len(), true)),
            qa_outputs: (config.head == EncoderHead::Span).then(|| params.linear("qa_outputs", d, 2, true)),
            dropout: config.head_dropout(),
        }
    }
}

impl BertConfig {
    /// The backbone, with parameter names under `prefix`.
    pub(in crate::encoder) fn init_body(
        &self,
        prefix: &str,
        pooled: bool,
        seed: Seed,
        device: &Device,
    ) -> Body {
        let (params, d) = (self.param_init(seed, device), self.hidden_size);
        let table = |name: &str, n| params.table(&format!("{prefix}.embeddings.{name}"), n, d);
        Body {
            embeddings: Embeddings {
                word_embeddings: table("word_embeddings", self.vocab_size),
                position_embeddings: table("position_embeddings", self.max_position_embeddings)
                    .with_role(ParamRole::Table),
                token_type_embeddings: table("token_type_embeddings", self.type_vocab_size)
                    .with_role(ParamRole::Table),
                layer_norm_: params.layer_norm(d),
            },
            encoder: Layers {
                layer: (0..self.num_hidden_layers)
                    .map(|index| self.init_layer(&format!("{prefix}.encoder.layer.{index}"), &params))
                    .collect(),
            },
            pooler: pooled
                .then(|| Pooler { dense: params.linear(&format!("{prefix}.pooler.dense"), d, d, true) }),
            n_heads: self.num_attention_heads,
            activation: self.hidden_act,
            dropout: self.hidden_dropout_prob as f32,
            attention_dropout: self.attention_probs_dropout_prob as f32,
        }
    }

    fn init_layer(&self, name: &str, params: &ParamInit<'_>) -> Layer {
        let (d, f) = (self.hidden_size, self.intermediate_size);
        let linear =
            |part: &str, d_input, d_output| params.linear(&format!("{name}.{part}"), d_input, d_output, true);
        Layer {
            attention: Attention {
                self_: Projections {
                    query: linear("attention.self.query", d, d),
                    key: linear("attention.self.key", d, d),
                    value: linear("attention.self.value", d, d),
                },
                output: Output {
                    dense: linear("attention.output.dense", d, d),
                    layer_norm_: params.layer_norm(d),
                },
            },
            intermediate: Intermediate { dense: linear("intermediate.dense", d, f) },
            output: Output { dense: linear("output.dense", f, d), layer_norm_: params.layer_norm(d) },
        }
    }
}

impl Encoder for Bert {
    fn hidden(
        &self,
        ids_bt: Tensor<2, Int>,
        types_bt: Option<Tensor<2, Int>>,
        cx: &mut Forward<'_>,
    ) -> Tensor<3> {
        let positions = self.bert.embeddings.position_embeddings.positions(ids_bt.dims()[1], 0, cx);
        self.bert.forward(ids_bt, types_bt, positions, cx)
    }

    fn head(&self) -> Head<'_> {
        if let Some(Cls { predictions }) = &self.cls {
            let (weight, bias) = match &predictions.decoder {
                Some(decoder) => (&decoder.weight, decoder.bias.as_ref()),
                None => (&self.bert.words().weight, Some(&predictions.bias)),
            };
            let transform = Transform {
                dense: &predictions.transform.dense,
                activation: HeadActivation::Of(self.bert.activation.function()),
                norm: HeadNorm::Layer(&predictions.transform.layer_norm_),
            };
            return Head::MaskedLm(MaskedLmHead { transform, weight, bias });
        }
        match (&self.classifier, &self.bert.pooler, &self.qa_outputs) {
            (Some(labels), Some(pooler), _) => Head::SequenceClassification(SequenceHead {
                pooling: Pooling::Cls,
                pooled_dropout: 0.0,
                transform: Transform {
                    dense: &pooler.dense,
                    activation: HeadActivation::Tanh,
                    norm: HeadNorm::None,
                },
                dropout: self.dropout,
                labels,
            }),
            (Some(labels), None, _) => {
                Head::TokenClassification(TokenHead { transform: None, dropout: self.dropout, labels })
            }
            (None, _, Some(labels)) => {
                Head::QuestionAnswering(TokenHead { transform: None, dropout: 0.0, labels })
            }
            (None, _, None) => Head::None,
        }
    }
}

impl Body {
    /// Token embeddings.
    pub(in crate::encoder) fn words(&self) -> &Embedding {
        &self.embeddings.word_embeddings
    }

    /// Position embeddings.
    pub(in crate::encoder) fn places(&self) -> &Embedding {
        &self.embeddings.position_embeddings
    }

    /// Takes the weights of `other`, whose pooler may be missing.
    pub(in crate::encoder) fn load_backbone(&mut self, other: Self) {
        self.embeddings = other.embeddings;
        self.encoder = other.encoder;
        if let (Some(pooler), Some(theirs)) = (&mut self.pooler, other.pooler) {
            *pooler = theirs;
        }
    }

    /// Hidden states after the last block, given the position embeddings.
    pub(in crate::encoder) fn forward(
        &self,
        ids_bt: Tensor<2, Int>,
        types_bt: Option<Tensor<2, Int>>,
        positions_btd: Tensor<3>,
        cx: &mut Forward<'_>,
    ) -> Tensor<3> {
        let tables = &self.embeddings;
        let types_btd = match types_bt {
            Some(types_bt) => tables.token_type_embeddings.forward(types_bt),
            None => {
                let table = tables.token_type_embeddings.weight.lookup_val();
                let d = table.dims()[1];
                table.slice([0..1, 0..d]).unsqueeze()
            }
        };
        let embedded = tables.word_embeddings.forward(ids_bt) + types_btd + positions_btd;
        let normed_btd = tables.layer_norm_.forward(embedded);
        let mut x_btd = cx.dropout(normed_btd, self.dropout, DropoutSite::Embeddings);
        let sizes = self.layer_sizes();
        for (index, layer) in self.encoder.layer.iter().enumerate() {
            cx.enter_layer(index);
            x_btd = cx.block(layer, x_btd, move |layer, x_btd, cx| layer.forward(x_btd, sizes, cx));
        }
        x_btd
    }

    fn layer_sizes(&self) -> LayerSizes {
        let Self { n_heads, activation, dropout, attention_dropout, .. } = *self;
        LayerSizes { n_heads, activation, dropout, attention_dropout }
    }
}

impl Layer {
    fn forward(&self, x_btd: Tensor<3>, sizes: LayerSizes, cx: &mut Forward<'_>) -> Tensor<3> {
        let projections = &self.attention.self_;
        let maps = [&projections.query, &projections.key, &projections.value];
        let attended = attend_all(x_btd.clone(), maps, sizes, cx);
        let output = &self.attention.output;
        let attended = output.dense.forward(attended);
        let dropped = cx.dropout(attended, sizes.dropout, DropoutSite::AttentionOutput);
        let x_btd = output.layer_norm_.of_sum(x_btd, dropped);
        let maps = [&self.intermediate.dense, &self.output.dense];
        let fed_btd = linear::feed_forward(x_btd.clone(), maps, sizes.activation.function());
        let dropped_btd = cx.dropout(fed_btd, sizes.dropout, DropoutSite::FeedForwardOutput);
        self.output.layer_norm_.of_sum(x_btd, dropped_btd)
    }
}
