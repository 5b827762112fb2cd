//! The backends that `andiron` can be built for, and their names on the command line.

use std::fmt;

/// One Cargo feature of `andiron-cli`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Ndarray,
    Flex,
    Wgpu,
    Vulkan,
    Metal,
    Cuda,
}

impl Backend {
    /// Every backend, the default first.
    pub const ALL: [Self; 6] = [Self::Ndarray, Self::Flex, Self::Wgpu, Self::Vulkan, Self::Metal, Self::Cuda];

    /// Name of the Cargo feature, which is also the name of the device.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ndarray => "ndarray",
            Self::Flex => "flex",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::Cuda => "cuda",
        }
    }

    /// Cargo features of a build for this backend.
    ///
    /// A GPU build includes the CPU backends, so that one build can compare them: a GPU build takes too long to make twice.
    pub fn features(self) -> String {
        match self {
            Self::Ndarray => Self::Ndarray.name().to_owned(),
            Self::Flex => format!("{},{}", Self::Ndarray, Self::Flex),
            gpu => format!("{},{},{gpu}", Self::Ndarray, Self::Flex),
        }
    }

    /// About how long the first build takes, in minutes on two cores.
    pub fn first_build_minutes(self) -> u32 {
        match self {
            Self::Ndarray => 6,
            Self::Flex => 9,
            Self::Wgpu | Self::Vulkan | Self::Metal | Self::Cuda => 20,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The value of `--backend`: a backend and optionally the index of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub backend: Backend,
    /// The backend's name, followed by `:index` if one was given.
    pub device: String,
}

impl Choice {
    /// Parses `wgpu` or `wgpu:1`; the error message lists the known backends.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, index) = text.split_once(':').map_or((text, None), |(name, index)| (name, Some(index)));
        let Some(backend) = Backend::ALL.into_iter().find(|backend| backend.name() == name) else {
            let known = Backend::ALL.map(Backend::name).join(", ");
            return Err(format!("no backend is called {name:?}; the known ones are {known}"));
        };
        if index.is_some_and(|index| index.parse::<usize>().is_err()) {
            return Err(format!(
                "the part of {text:?} after the colon must be the number of a device, as in {name}:0"
            ));
        }
        Ok(Self { backend, device: text.to_owned() })
    }
}

impl From<Backend> for Choice {
    fn from(backend: Backend) -> Self {
        Self { backend, device: backend.name().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_stays_with_the_device() {
        assert_eq!(Choice::parse("wgpu:1"), Ok(Choice { backend: Backend::Wgpu, device: "wgpu:1".into() }));
        assert_eq!(Choice::parse("ndarray"), Ok(Choice::from(Backend::Ndarray)));
    }

    #[test]
    fn a_gpu_build_has_the_cpu_backends_too() {
        assert_eq!(Backend::Ndarray.features(), "ndarray");
        assert_eq!(Backend::Flex.features(), "ndarray,flex");
        assert_eq!(Backend::Wgpu.features(), "ndarray,flex,wgpu");
    }

    #[test]
    fn an_unknown_backend_is_told_the_known_ones() {
        let message = Choice::parse("tpu").unwrap_err();
        assert!(message.contains("\"tpu\"") && message.contains("ndarray, flex, wgpu"), "{message}");
        assert!(Choice::parse("wgpu:first").is_err());
        assert!(Choice::parse("").is_err());
    }
}
