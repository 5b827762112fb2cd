//! A JSON schema in the compiler's form, with shared instead of copied parts.

use std::rc::Rc;

use super::pattern::PatternSize;

pub(super) type Shared = Rc<Shape>;

/// A schema in the compiler's form, with its size as a tree.
pub(super) struct Shape {
    pub(super) kind: Kind,
    pub(super) size: u64,
}

/// The values that a schema allows.
pub(super) enum Kind {
    Any,
    Never,
    Null,
    Boolean,
    /// `multipleOf` as an integer and its number of decimal places; 1 if absent.
    Number {
        multiple: u64,
        places: u32,
    },
    Text {
        weight: u64,
    },
    Array {
        prefix: Vec<Shared>,
        items: Option<Shared>,
    },
    Object(Fields),
    /// `anyOf`, and `oneOf` where it is disjoint.
    AnyOf(Vec<Shared>),
    OneOf(Vec<Shared>),
    Ref(String),
}

/// The keywords of an object.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) named: Vec<(String, Shared)>,
    pub(super) patterns: Vec<(String, Shared)>,
    pub(super) others: Option<Shared>,
    pub(super) required: Vec<String>,
}

impl Fields {
    /// The schema of the property `name`.
    pub(super) fn find(&self, name: &str) -> Option<Shared> {
        // Any pattern may match the name, so the largest schema represents all.
        let named = self.named.iter().find(|(key, _)| key == name).map(|(_, shape)| Rc::clone(shape));
        let of_patterns = self.patterns.iter().map(|(_, shape)| shape);
        named.or_else(|| of_patterns.chain(&self.others).max_by_key(|shape| shape.size).cloned())
    }
}

/// A string costs by its length, in steps of 32 bytes.
pub(super) fn text_weight(text: &str) -> u64 {
    1 + text.len() as u64 / 32
}

pub(super) fn pattern_weight(size: PatternSize) -> u64 {
    // Each use of a pattern builds it anew, and alternatives are read side by side.
    8 + size.syntax / 4 + size.width.saturating_mul(2)
}

impl Kind {
    /// Shares the shape with its total size.
    pub(super) fn shared(self) -> Shared {
        let total = |shapes: &[Shared]| shapes.iter().fold(0, |sum: u64, s| sum.saturating_add(s.size));
        let size = match &self {
            Self::Any | Self::Never | Self::Null | Self::Boolean => 1,
            Self::Number { multiple, .. } => 1 + multiple / 4,
            Self::Text { weight } => *weight,
            Self::Ref(name) => text_weight(name),
            Self::AnyOf(options) | Self::OneOf(options) => total(options).saturating_add(1),
            Self::Array { prefix, items } => {
                total(prefix).saturating_add(1).saturating_add(items.as_ref().map_or(0, |items| items.size))
            }
            Self::Object(Fields { named, patterns, others, required }) => {
                let of_names = named.iter().chain(patterns).fold(1, |sum: u64, (name, shape)| {
                    sum.saturating_add(text_weight(name)).saturating_add(shape.size)
                });
                let of_required = required.iter().map(|name| text_weight(name)).sum::<u64>();
                of_names
                    .saturating_add(of_required)
                    .saturating_add(others.as_ref().map_or(0, |others| others.size))
            }
        };
        Rc::new(Shape { kind: self, size })
    }
}
