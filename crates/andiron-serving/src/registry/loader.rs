//! Loading and unloading models while the server runs.

use std::fmt;
use std::sync::Arc;

use super::{Registry, RegistryError, Served};

/// Opens models by name, for `/models/load`.
pub trait Loader: Send + Sync + fmt::Debug {
    /// The names that can be loaded.
    fn names(&self) -> Vec<String>;

    /// Opens the model `name` and starts it; takes its time, on a thread for that. The message of an error is for its user.
    ///
    /// # Errors
    /// Why the model does not open.
    fn load(&self, name: &str) -> Result<Served, LoadFailure>;

    /// Most models at one time.
    fn max_models(&self) -> usize;
}

/// Why a model was not loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LoadFailure {
    /// What is wrong, for the user.
    pub message: String,
}

/// Where a model is on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelStatus {
    /// It answers requests.
    Loaded,
    /// It is being loaded.
    Loading,
    /// It could not be loaded.
    Failed(String),
    /// It can be loaded.
    Unloaded,
}

impl ModelStatus {
    /// Its name in the API, as in llama-server.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Loading => "loading",
            Self::Failed(_) => "failed",
            Self::Unloaded => "unloaded",
        }
    }
}

impl Registry {
    /// Loads a model; blocks until it is there. Requests for it meanwhile get [`RegistryError::Loading`].
    ///
    /// # Errors
    /// If the model is there, being loaded, unknown to the loader, or one too many. Why it does not open is its
    /// [status](Self::statuses).
    pub fn load(&self, loader: &dyn Loader, name: &str) -> Result<Loading, RegistryError> {
        if !loader.names().iter().any(|known| known == name) {
            return Err(RegistryError::Unknown { asked: super::short(name), known: loader.names() });
        }
        let mut models = self.write();
        let is_there = models.served.iter().any(|served| served.info.id == name);
        if is_there {
            return Err(RegistryError::Taken { name: name.to_owned() });
        }
        if models.loading.iter().any(|loading| loading == name) {
            return Err(RegistryError::Loading { name: name.to_owned() });
        }
        let most = loader.max_models();
        if models.served.len() + models.loading.len() >= most {
            return Err(RegistryError::Full { most });
        }
        models.failed.retain(|(failed, _)| failed != name);
        models.loading.push(name.to_owned());
        drop(models);
        Ok(Loading { registry: self.clone(), name: name.to_owned(), done: false })
    }

    /// Every model that is there, on its way or could be, with its status.
    pub fn statuses(&self, loader: Option<&dyn Loader>) -> Vec<(String, ModelStatus)> {
        let models = self.read();
        let loaded = models.served.iter().map(|served| (served.info.id.clone(), ModelStatus::Loaded));
        let loading = models.loading.iter().map(|name| (name.clone(), ModelStatus::Loading));
        let failed = models.failed.iter().map(|(name, why)| (name.clone(), ModelStatus::Failed(why.clone())));
        let mut statuses: Vec<_> = loaded.chain(loading).chain(failed).collect();
        drop(models);
        for name in loader.map(Loader::names).unwrap_or_default() {
            if !statuses.iter().any(|(known, _)| *known == name) {
                statuses.push((name, ModelStatus::Unloaded));
            }
        }
        statuses
    }
}

/// A model that is being loaded. Dropped without [`Loading::run`], for example by a panic, it counts as failed.
#[derive(Debug)]
pub struct Loading {
    registry: Registry,
    name: String,
    done: bool,
}

impl Loading {
    /// Loads the model and adds it to the registry.
    pub fn run(mut self, loader: &dyn Loader) -> Option<Arc<Served>> {
        let loaded = loader.load(&self.name);
        self.done = true;
        match loaded {
            Ok(served) => {
                let mut models = self.registry.write();
                models.loading.retain(|loading| *loading != self.name);
                Some(models.add(served))
            }
            Err(LoadFailure { message }) => {
                tracing::warn!(model = self.name, message, "a model could not be loaded");
                self.fail(message);
                None
            }
        }
    }

    fn fail(&self, message: String) {
        let mut models = self.registry.write();
        models.loading.retain(|loading| *loading != self.name);
        models.failed.push((self.name.clone(), message));
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        if !self.done {
            self.fail("loading it ended early; the log may say why".to_owned());
        }
    }
}
