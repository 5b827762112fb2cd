//! RoBERTa and XLM-RoBERTa: BERT's blocks with positions offset by the padding id.
//!
//! Papers: Liu et al. 2019, "RoBERTa", <https://arxiv.org/abs/1907.11692>; Conneau et al. 2019, "Unsupervised
//! Cross-lingual Representation Learning at Scale", <https://arxiv.org/abs/1911.02116>. Hugging Face: `RobertaModel`,
//! `RobertaForMaskedLM` and so on, and the same with `XLMRoberta`. Differences to BERT: the first token has position
//! `pad_token_id` + 1, padding tokens have no position of their own, and the heads differ.
//!
//! Not supported: use as a decoder and the multiple-choice head.

use andiron_core::{Forward, LayerNorm, Linear, ParamRole, init, ops};
use andiron_kernels::random::Seed;
use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::EncoderArchitecture;
use super::bert::{self, BertConfig, Body};
use super::embed::Pooling;
use super::head::{
    self, Classes, EncoderHead, Head, HeadActivation, HeadNorm, MaskedLmHead, SequenceHead, TokenHead,
    Transform, classes,
};
use crate::catalog::{Architecture, Sizes};
use crate::family::Encoder;
use crate::hf_config::ConfigError;
use crate::key_rules::KeyRules;
use crate::weights::{NameRules, StoredTensors};

/// `config.json` of a RoBERTa: BERT's fields, some with other defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RobertaConfig(pub BertConfig);

/// `config.json` of an XLM-RoBERTa.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct XlmRobertaConfig(pub RobertaConfig);

/// As BERT's, except the vocabulary.
const DEFAULTS: &[(&str, usize)] = &[
    ("vocab_size", 50_265),
    ("hidden_size", 768),
    ("num_hidden_layers", 12),
    ("num_attention_heads", 12),
    ("intermediate_size", 3072),
];

const CLASSES: Classes = classes!("Roberta");
const XLM_CLASSES: Classes = classes!("XLMRoberta");

impl RobertaConfig {
    /// Position embedding before that of the first token.
    fn padding(&self) -> usize {
        self.0.pad_token_id.map_or(1, |id| id as usize)
    }
}

impl Architecture for RobertaConfig {
    type Model = Roberta;
    const KEYS: KeyRules = KeyRules { defaults: DEFAULTS, ..bert::KEYS };

    fn class_name(&self) -> &'static str {
        CLASSES.of(self.0.head)
    }

    fn name_rules(&self) -> NameRules {
        const BARE: &[&str] = &["*position_ids", "*token_type_ids", "lm_head.*"];
        const UNPOOLED: &[&str] = &["*position_ids", "*token_type_ids", "roberta.pooler.*", "pooler.*"];
        NameRules {
            optional_prefix: "roberta.",
            renamed: bert::RENAMED,
            ignored: match self.0.head {
                EncoderHead::None => BARE,
                _ => UNPOOLED,
            },
            tied: match self.0.head {
                EncoderHead::MaskedLm if self.0.tie_word_embeddings => &[
                    ("lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight"),
                    ("lm_head.decoder.bias", "lm_head.bias"),
                ],
                _ => &[],
            },
            ..NameRules::default()
        }
    }

    fn normalise(fields: &mut Map<String, Value>) -> Result<(), ConfigError> {
        for (key, value) in [("pad_token_id", 1), ("bos_token_id", 0), ("eos_token_id", 2)] {
            fields.entry(key).or_insert_with(|| value.into());
        }
        head::read(fields)
    }

    fn supplement(&self, fields: &mut Map<String, Value>) {
        head::write(self.0.head, &self.0.labels, fields);
    }

    fn validate(&self) -> Result<(), ConfigError> {
        self.0.validate_sizes()?;
        if self.0.max_position_embeddings <= self.padding() + 1 {
            return Err(ConfigError::Positions {
                entries: self.0.max_position_embeddings,
                padding: self.padding(),
            });
        }
        Ok(())
    }

    fn sizes(&self) -> Sizes {
        let max_positions = self.0.max_position_embeddings.saturating_sub(self.padding() + 1);
        Sizes { max_positions, ..self.0.sizes() }
    }

    fn init(&self, seed: Seed, device: &Device) -> Roberta {
        let (config, d) = (&self.0, self.0.hidden_size);
        let params = config.param_init(seed, device);
        let linear = |name: &str, d_output| params.linear(name, d, d_output, true);
        let lm_head = || LmHead {
            dense: linear("lm_head.dense", d),
            layer_norm: params.layer_norm(d),
            decoder: (!config.tie_word_embeddings)
                .then(|| linear("lm_head.decoder", config.vocab_size).with_role(ParamRole::Head)),
            bias: init::zeros([config.vocab_size], device),
        };
        Roberta {
            roberta: config.init_body(
                "roberta",
                config.head == EncoderHead::None && config.pooler,
                seed,
                device,
            ),
            lm_head: (config.head == EncoderHead::MaskedLm).then(lm_head),
            classifier: match config.head {
                EncoderHead::Classify { .. } => Some(Classifier::Text(TextClassifier {
                    dense: linear("classifier.dense", d),
                    out_proj: linear("classifier.out_proj", config.labels.len()),
                })),
                EncoderHead::TokenClassify => {
                    Some(Classifier::Token(linear("classifier", config.labels.len())))
                }
                _ => None,
            },
            qa_outputs: (config.head == EncoderHead::Span).then(|| linear("qa_outputs", 2)),
            padding: self.padding(),
            dropout: config.head_dropout(),
        }
    }
}

impl EncoderArchitecture for RobertaConfig {
    fn head(&self) -> EncoderHead {
        self.0.head
    }

    fn labels(&self) -> &[String] {
        &self.0.labels
    }

    fn pad_token_id(&self) -> u32 {
        self.padding() as u32
    }

    fn n_token_types(&self) -> usize {
        self.0.type_vocab_size
    }

    fn infer_from_checkpoint(&mut self, stored: &StoredTensors<'_, '_>) {
        self.0.infer_from_checkpoint(stored);
    }

    fn set_head(&mut self, head: EncoderHead, labels: Vec<String>) {
        self.0.set_head(head, labels);
    }

    fn load_backbone(model: &mut Roberta, other: Roberta) {
        model.roberta.load_backbone(other.roberta);
    }
}

impl Architecture for XlmRobertaConfig {
    type Model = Roberta;
    const KEYS: KeyRules = bert::KEYS;

    fn class_name(&self) -> &'static str {
        XLM_CLASSES.of(self.0.0.head)
    }

    fn name_rules(&self) -> NameRules {
        self.0.name_rules()
    }

    fn normalise(fields: &mut Map<String, Value>) -> Result<(), ConfigError> {
        RobertaConfig::normalise(fields)
    }

    fn supplement(&self, fields: &mut Map<String, Value>) {
        self.0.supplement(fields);
    }

    fn validate(&self) -> Result<(), ConfigError> {
        self.0.validate()
    }

    fn sizes(&self) -> Sizes {
        self.0.sizes()
    }

    fn init(&self, seed: Seed, device: &Device) -> Roberta {
        self.0.init(seed, device)
    }
}

impl EncoderArchitecture for XlmRobertaConfig {
    fn head(&self) -> EncoderHead {
        self.0.head()
    }

    fn labels(&self) -> &[String] {
        self.0.labels()
    }

    fn pad_token_id(&self) -> u32 {
        self.0.pad_token_id()
    }

    fn n_token_types(&self) -> usize {
        self.0.n_token_types()
    }

    fn infer_from_checkpoint(&mut self, stored: &StoredTensors<'_, '_>) {
        self.0.infer_from_checkpoint(stored);
    }

    fn set_head(&mut self, head: EncoderHead, labels: Vec<String>) {
        self.0.set_head(head, labels);
    }

    fn load_backbone(model: &mut Roberta, other: Roberta) {
        RobertaConfig::load_backbone(model, other);
    }
}

/// A RoBERTa with the head of its configuration.
#[derive(Module, Debug)]
pub struct Roberta {
    roberta: Body,
    lm_head: Option<LmHead>,
    classifier: Option<Classifier>,
    qa_outputs: Option<Linear>,
    #[module(skip)]
    padding: usize,
    #[module(skip)]
    dropout: f32,
}

#[derive(Module, Debug)]
struct LmHead {
    dense: Linear,
    layer_norm: LayerNorm,
    decoder: Option<Linear>,
    bias: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)]
enum Classifier {
    Text(TextClassifier),
    Token(Linear),
}

#[derive(Module, Debug)]
struct TextClassifier {
    dense: Linear,
    out_proj: Linear,
}

impl Encoder for Roberta {
    fn hidden(
        &self,
        ids_bt: Tensor<2, Int>,
        types_bt: Option<Tensor<2, Int>>,
        cx: &mut Forward<'_>,
    ) -> Tensor<3> {
        let (t, table) = (ids_bt.dims()[1], self.roberta.places());
        let [entries, _] = table.weight.dims();
        assert!(t + self.padding < entries, "position entries up to {} of {entries}", t + self.padding + 1);
        // Positions count non-padding tokens, from `pad_token_id` + 1; padding tokens have position `pad_token_id`.
        let counted_bt = ids_bt.clone().not_equal_elem(self.padding as i32).int();
        let places_bt = counted_bt.clone().cumsum(1) * counted_bt + self.padding as i32;
        self.roberta.forward(ids_bt, types_bt, table.forward(places_bt), cx)
    }

    fn head(&self) -> Head<'_> {
        if let Some(head) = &self.lm_head {
            let (weight, bias) = match &head.decoder {
                Some(decoder) => (&decoder.weight, decoder.bias.as_ref()),
                None => (&self.roberta.words().weight, Some(&head.bias)),
            };
            let transform = Transform {
                dense: &head.dense,
                // Independent of the configuration.
                activation: HeadActivation::Of(ops::Activation::GeluErf),
                norm: HeadNorm::Layer(&head.layer_norm),
            };
            return Head::MaskedLm(MaskedLmHead { transform, weight, bias });
        }
        match (&self.classifier, &self.qa_outputs) {
            (Some(Classifier::Text(head)), _) => Head::SequenceClassification(SequenceHead {
                pooling: Pooling::Cls,
                pooled_dropout: self.dropout,
                transform: Transform {
                    dense: &head.dense,
                    activation: HeadActivation::Tanh,
                    norm: HeadNorm::None,
                },
                dropout: self.dropout,
                labels: &head.out_proj,
            }),
            (Some(Classifier::Token(labels)), _) => {
                Head::TokenClassification(TokenHead { transform: None, dropout: self.dropout, labels })
            }
            (None, Some(labels)) => {
                Head::QuestionAnswering(TokenHead { transform: None, dropout: 0.0, labels })
            }
            (None, None) => Head::None,
        }
    }
}
