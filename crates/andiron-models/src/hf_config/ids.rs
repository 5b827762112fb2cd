//! Token ids in configurations.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Number;

/// One id, several, or none: Hugging Face writes all forms. Negative ids such as -1 are read as none.
#[derive(Clone, Debug, PartialEq)]
pub enum Ids {
    /// No id.
    None(()),
    /// One id.
    One(u32),
    /// Several.
    Many(Vec<u32>),
}

impl Serialize for Ids {
    /// No id is `null` in JSON, an absent key in TOML.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None(()) => serializer.serialize_none(),
            Self::One(id) => id.serialize(serializer),
            Self::Many(ids) => ids.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            None(()),
            One(Number),
            Many(Vec<Number>),
        }
        let possible = |number: Number| number.as_u64().and_then(|id| u32::try_from(id).ok());
        Ok(match Written::deserialize(deserializer)? {
            Written::None(()) => Self::None(()),
            Written::One(number) => possible(number).map_or(Self::None(()), Self::One),
            Written::Many(numbers) => Self::Many(numbers.into_iter().filter_map(possible).collect()),
        })
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self::None(())
    }
}

impl Ids {
    /// The ids.
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::None(()) => &[],
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }

    /// Keeps the ids for which `wanted` is true.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&u32) -> bool) {
        match self {
            Self::None(()) => {}
            Self::One(id) if wanted(id) => {}
            Self::One(_) => *self = Self::None(()),
            Self::Many(ids) => ids.retain(wanted),
        }
    }

    /// Whether there is no id.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}
