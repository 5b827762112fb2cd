//! Parameter roles, as declared by layers.
//!
//! Weight decay, Muon, quantization and FLOP counts treat parameters by role. The role does not follow from the name (`wte`,
//! `embed_tokens` and T5's `shared` are all token embeddings), so the layer declares it: a matrix is a
//! [`Weight`](crate::Weight) and carries its [`WeightKind`]; vectors take the role of their layer's type.
//!
//! Burn's module traversal gives visitors only names and container types. So a weight encodes its [`WeightKind`] in the
//! container type of its parameter, and [`ParamRole::of_container`] and [`WeightKind::of_container`] decode it.

use crate::ops::WeightLayout;

/// The role of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParamRole {
    /// Weight of a projection from hidden states to hidden states, or to labels.
    Matrix,
    /// Token embeddings. Tied to the output head in a language model without a separate head.
    Embedding,
    /// Token embeddings of the encoder of an encoder-decoder whose decoder has its own.
    SourceEmbedding,
    /// Other lookup tables: position and token-type embeddings, relative position biases.
    Table,
    /// Output head over the vocabulary, with a weight of its own.
    Head,
    /// The same in an architecture that calls it an embedding (GPT-NeoX); weight decay treats it as an embedding.
    OutputEmbedding,
    /// A factor or the magnitude vector of a low-rank adapter.
    Adapter,
    /// Weight or bias of a norm.
    Norm,
    /// Bias of a projection or of a head.
    Bias,
}

impl ParamRole {
    const NAMES: [(Self, &'static str); 7] = [
        (Self::Matrix, "matrix"),
        (Self::Embedding, "embedding"),
        (Self::SourceEmbedding, "source_embedding"),
        (Self::Table, "table"),
        (Self::Head, "head"),
        (Self::OutputEmbedding, "output_embedding"),
        (Self::Adapter, "adapter"),
    ];

    /// The role of a parameter whose innermost container type, as given to a visitor, is `container`.
    ///
    /// Outside of a [`Weight`](crate::Weight) the type of the layer decides: a parameter of a `LayerNorm`, `RmsNorm` or
    /// `Norm` belongs to a norm, that of a [`RelativeBias`](crate::position::relative::RelativeBias) is a table, a magnitude
    /// vector belongs to an adapter, any other is a bias.
    pub fn of_container(container: &str) -> Self {
        match WeightKind::of_container(container) {
            Some(kind) => kind.role,
            None => match container.strip_prefix("Struct:") {
                Some("LayerNorm" | "RmsNorm" | "Norm") => Self::Norm,
                Some("RelativeBias") => Self::Table,
                Some("Magnitude") => Self::Adapter,
                _ => Self::Bias,
            },
        }
    }

    /// Whether there is a row for each entry of the vocabulary.
    pub fn is_vocabulary(self) -> bool {
        matches!(self, Self::Embedding | Self::SourceEmbedding | Self::Head | Self::OutputEmbedding)
    }
}

/// Container type of the magnitude vector of an adapter.
pub(crate) const MAGNITUDE_CONTAINER: &str = "Struct:Magnitude";

/// How several projections of one input are packed into one weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedProjections {
    /// Number of projections, such as 3 of a fused QKV projection.
    pub count: usize,
    /// Interleaving along the axis of outputs: 1 is `[Q; K; V]`, the number of heads is QKV interleaved per head
    /// (GPT-NeoX).
    pub interleaving: usize,
}

impl PackedProjections {
    /// One projection alone.
    pub const ONE: Self = Self { count: 1, interleaving: 1 };
}

/// Properties of a weight, declared by its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightKind {
    /// Role.
    pub role: ParamRole,
    /// Which axis is that of the outputs.
    pub layout: WeightLayout,
    /// The projections in it.
    pub packed: PackedProjections,
}

impl WeightKind {
    const PREFIX: &'static str = "Weight:";

    /// A weight of a single projection.
    pub fn new(role: ParamRole, layout: WeightLayout) -> Self {
        Self { role, layout, packed: PackedProjections::ONE }
    }

    /// The container type under which a weight shows its parameter to visitors.
    pub(crate) fn container(self) -> String {
        let Self { role, layout, packed: PackedProjections { count, interleaving } } = self;
        let role = ParamRole::NAMES.iter().find(|(of, _)| *of == role).map_or("", |(_, name)| name);
        let layout = match layout {
            WeightLayout::InOut => "in_out",
            WeightLayout::OutIn => "out_in",
        };
        format!("{}{role}:{layout}:{count}:{interleaving}", Self::PREFIX)
    }

    /// The kind encoded in a visitor's container type `container`; `None` for other parameters.
    pub fn of_container(container: &str) -> Option<Self> {
        let mut parts = container.strip_prefix(Self::PREFIX)?.split(':');
        let role = parts.next()?;
        let (role, _) = ParamRole::NAMES.into_iter().find(|(_, name)| *name == role)?;
        let layout = match parts.next()? {
            "in_out" => WeightLayout::InOut,
            _ => WeightLayout::OutIn,
        };
        let (count, interleaving) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { role, layout, packed: PackedProjections { count, interleaving } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_back_from_its_container() {
        for (role, _) in ParamRole::NAMES {
            for layout in [WeightLayout::InOut, WeightLayout::OutIn] {
                let kind =
                    WeightKind { packed: PackedProjections { count: 3, interleaving: 12 }, role, layout };
                assert_eq!(WeightKind::of_container(&kind.container()), Some(kind));
                assert_eq!(ParamRole::of_container(&kind.container()), role);
            }
        }
    }

    #[test]
    fn vectors_have_the_role_of_their_layer() {
        for (container, role) in [
            ("Struct:LayerNorm", ParamRole::Norm),
            ("Struct:RmsNorm", ParamRole::Norm),
            ("Struct:Norm", ParamRole::Norm),
            ("Struct:Linear", ParamRole::Bias),
            // A model, not a norm.
            ("Struct:PostNorm", ParamRole::Bias),
            ("Struct:RelativeBias", ParamRole::Table),
            (MAGNITUDE_CONTAINER, ParamRole::Adapter),
        ] {
            assert_eq!(WeightKind::of_container(container), None);
            assert_eq!(ParamRole::of_container(container), role, "{container}");
        }
    }
}
