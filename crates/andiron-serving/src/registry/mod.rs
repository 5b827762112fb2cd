//! The models of a server, by name.

mod capability;
mod loader;
mod served;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use capability::{Capability, Incapable};
pub use loader::{LoadFailure, Loader, Loading, ModelStatus};
pub use served::{LanguagePair, LoadCost, Runner, Served, ServedModel};

/// The models of a server, in the order in which they were added.
///
/// Clones share the same models. A model that is removed is dropped when the last request that uses it has ended.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    models: Arc<RwLock<Models>>,
}

#[derive(Debug, Default)]
struct Models {
    served: Vec<Arc<Served>>,
    /// Names of models that are being loaded.
    loading: Vec<String>,
    /// Models that could not be loaded, and why.
    failed: Vec<(String, String)>,
}

impl Models {
    fn add(&mut self, served: Served) -> Arc<Served> {
        let (model, LoadCost { family, weight_bytes, time }) = (&served.info.id, &served.info.cost);
        tracing::info!(model, family, seconds = time.as_secs_f64(), bytes = weight_bytes, "loaded");
        let served = Arc::new(served);
        self.served.push(Arc::clone(&served));
        served
    }
}

/// Why a model was not found or not added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// There is no such model.
    #[error("the model `{asked}` does not exist here; this server has {}", listed(known))]
    Unknown {
        /// The name that was asked for.
        asked: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The name is taken.
    #[error("there is a model `{name}` already; give this one another name")]
    Taken {
        /// The name.
        name: String,
    },
    /// The model is being loaded.
    #[error("the model `{name}` is being loaded; try again in a moment")]
    Loading {
        /// Its name.
        name: String,
    },
    /// There are as many models as there may be.
    #[error("this server holds {most} models at most; unload one first")]
    Full {
        /// How many.
        most: usize,
    },
    /// There is no model at all.
    #[error("this server has no model")]
    Empty,
}

impl Registry {
    /// A registry of one model.
    pub fn of(served: Served) -> Self {
        let registry = Self::default();
        registry.write().served.push(Arc::new(served));
        registry
    }

    /// Adds a model.
    ///
    /// # Errors
    /// [`RegistryError::Taken`] if there is one of this name.
    pub fn insert(&self, served: Served) -> Result<Arc<Served>, RegistryError> {
        let mut models = self.write();
        if models.served.iter().any(|other| other.info.id == served.info.id) {
            return Err(RegistryError::Taken { name: served.info.id });
        }
        Ok(models.add(served))
    }

    /// Takes a model out: new requests do not find it, running ones go on.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`].
    pub fn remove(&self, name: &str) -> Result<Arc<Served>, RegistryError> {
        let mut models = self.write();
        match models.served.iter().position(|served| served.info.id == name) {
            Some(at) => Ok(models.served.remove(at)),
            None => Err(unknown(name, &models)),
        }
    }

    /// The model called `name`.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], or [`RegistryError::Empty`].
    pub fn get(&self, name: &str) -> Result<Arc<Served>, RegistryError> {
        let models = self.read();
        let found = models.served.iter().find(|served| served.info.id == name);
        found.cloned().ok_or_else(|| unknown(name, &models))
    }

    /// The model of a request that names none: the first one, of those with `wanted` if there is one.
    ///
    /// # Errors
    /// [`RegistryError::Empty`].
    pub fn usual(&self, wanted: Option<Capability>) -> Result<Arc<Served>, RegistryError> {
        let models = self.read();
        let able =
            wanted.and_then(|wanted| models.served.iter().find(|served| served.can().contains(&wanted)));
        able.or(models.served.first()).cloned().ok_or(RegistryError::Empty)
    }

    /// All models, in the order in which they were added.
    pub fn list(&self) -> Vec<Arc<Served>> {
        self.read().served.clone()
    }

    /// Nothing below can panic while the lock is held, so a poisoned lock still guards a whole list.
    fn read(&self) -> RwLockReadGuard<'_, Models> {
        self.models.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Models> {
        self.models.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(asked: &str, models: &Models) -> RegistryError {
    if models.loading.iter().any(|name| name == asked) {
        return RegistryError::Loading { name: asked.to_owned() };
    }
    if models.served.is_empty() {
        return RegistryError::Empty;
    }
    let known = models.served.iter().map(|served| served.info.id.clone()).collect();
    RegistryError::Unknown { asked: short(asked), known }
}

/// A name that a client sent, for an error message.
fn short(name: &str) -> String {
    name.chars().take(100).collect()
}

/// Names in an error message.
const MAX_LISTED: usize = 20;

fn listed(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().take(MAX_LISTED).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(MAX_LISTED) {
        0 => quoted.join(", "),
        more => format!("{} and {more} more: see /v1/models", quoted.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use andiron_models::generate::{CausalLm, Logits};
    use andiron_pipelines::TextProcessor;

    use super::*;
    use crate::engine::{Engine, EngineConfig};

    struct Silent;

    impl CausalLm for Silent {
        type State = ();

        fn vocab_size(&self) -> usize {
            2
        }

        fn context_len(&self) -> usize {
            4
        }

        fn begin(&self) {}

        fn forward(&self, _state: &mut (), _ids: &[u32], _wanted: Logits) -> Vec<f32> {
            vec![0.0; 2]
        }
    }

    fn served(name: &str) -> Served {
        let engine = Engine::start(Silent, EngineConfig::default()).expect("a thread");
        Served::owning(ServedModel::new(name), TextProcessor::default(), engine)
    }

    #[test]
    fn a_model_is_found_by_its_name_until_it_is_removed() {
        let registry = Registry::of(served("a"));
        assert!(registry.insert(served("b")).is_ok());
        let taken = registry.insert(served("a")).expect_err("taken").to_string();
        assert_eq!(taken, "there is a model `a` already; give this one another name");
        let names = |registry: &Registry| -> Vec<String> {
            registry.list().iter().map(|served| served.info.id.clone()).collect()
        };
        assert_eq!(names(&registry), ["a", "b"]);
        assert_eq!(registry.usual(None).expect("one").info.id, "a");
        assert_eq!(registry.usual(Some(Capability::Generate)).expect("one").info.id, "a");
        let error = registry.get("c").expect_err("unknown").to_string();
        assert_eq!(error, "the model `c` does not exist here; this server has `a`, `b`");
        let removed = registry.remove("a").expect("it was there");
        assert_eq!(removed.info.id, "a");
        assert!(removed.decoder().is_ok_and(|engine| engine.accepts_work()), "its requests go on");
        assert_eq!(names(&registry), ["b"]);
        assert!(registry.remove("a").is_err());
        assert!(registry.remove("b").is_ok());
        assert_eq!(registry.get("a").expect_err("none"), RegistryError::Empty);
        assert_eq!(registry.usual(None).expect_err("none"), RegistryError::Empty);
    }

    #[test]
    fn a_message_lists_a_bounded_number_of_names() {
        let names: Vec<String> = (0..25).map(|at| at.to_string()).collect();
        assert!(listed(&names).ends_with("`19` and 5 more: see /v1/models"));
    }
}
