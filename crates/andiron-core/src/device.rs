//! Backends and devices: the only module that knows which backends are compiled in.
//!
//! A backend is a Cargo feature. A [`DeviceSpec`] names a backend and a device on it, such as `ndarray` or `wgpu:1`.
//! Libraries never choose: they take a [`Device`] that a program or a test has opened.

use std::fmt;

use burn::tensor::Device;
#[cfg(feature = "wgpu")]
use burn::tensor::DeviceKind;
#[cfg(feature = "cube")]
use burn::tensor::{DeviceType, Devices};

/// A Burn backend, chosen at compile time by the feature of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// CPU tensors on the `ndarray` crate.
    Ndarray,
    /// CPU tensors on Burn's own `flex`, the successor of `ndarray`.
    Flex,
    /// GPU through WebGPU (Vulkan, Metal or DX12 underneath).
    Wgpu,
    /// GPU through Vulkan with SPIR-V kernels.
    Vulkan,
    /// GPU through Metal with native kernels.
    Metal,
    /// NVIDIA GPU through CUDA.
    Cuda,
}

impl Backend {
    /// Every backend Andiron knows, compiled in or not.
    pub const ALL: [Self; 6] = [Self::Ndarray, Self::Flex, Self::Wgpu, Self::Vulkan, Self::Metal, Self::Cuda];

    /// The name used for the Cargo feature and on the command line.
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

    /// Whether this build contains the backend.
    pub fn is_compiled(self) -> bool {
        match self {
            Self::Ndarray => cfg!(feature = "ndarray"),
            Self::Flex => cfg!(feature = "flex"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Metal => cfg!(feature = "metal"),
            Self::Cuda => cfg!(feature = "cuda"),
        }
    }

    /// Whether tensors are in host memory, where the CPU kernels run on them.
    pub fn is_cpu(self) -> bool {
        matches!(self, Self::Ndarray | Self::Flex)
    }

    /// Names of this backend's devices on this machine; opens each of them.
    pub fn found(self) -> Vec<String> {
        match self {
            #[cfg(feature = "wgpu")]
            Self::Wgpu => named(Device::enumerate(DeviceType::Wgpu)),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => named(Device::enumerate(DeviceType::Vulkan)),
            #[cfg(feature = "metal")]
            Self::Metal => named(Device::enumerate(DeviceType::Metal)),
            #[cfg(feature = "cuda")]
            Self::Cuda => named(Device::enumerate(DeviceType::Cuda)),
            other if other.is_cpu() && other.is_compiled() => vec!["this machine's processor".to_owned()],
            _ => Vec::new(),
        }
    }

    /// The backends in this build, in order of preference on the command line.
    pub fn compiled() -> Vec<Self> {
        Self::ALL.into_iter().filter(|backend| backend.is_compiled()).collect()
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A backend and the number of a device on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    /// The backend.
    pub backend: Backend,
    /// The device's number on that backend; `None` takes the backend's own first choice.
    pub index: Option<usize>,
}

impl DeviceSpec {
    /// Reads `backend` or `backend:index`, for example `ndarray`, `wgpu`, `cuda:1`.
    ///
    /// # Errors
    /// If the backend is unknown or the index is not a number.
    ///
    /// # Example
    /// ```
    /// use andiron_core::{Backend, DeviceSpec};
    /// let spec = DeviceSpec::parse("wgpu:1")?;
    /// assert_eq!((spec.backend, spec.index), (Backend::Wgpu, Some(1)));
    /// assert!(DeviceSpec::parse("abacus").is_err());
    /// # Ok::<(), andiron_core::DeviceError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, DeviceError> {
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (name, Some(index)),
            None => (text, None),
        };
        let backend = Backend::ALL
            .into_iter()
            .find(|backend| backend.name() == name)
            .ok_or_else(|| DeviceError::UnknownBackend { name: name.to_owned() })?;
        let index = index
            .map(|index| index.parse().map_err(|_| DeviceError::Index { text: text.to_owned() }))
            .transpose()?;
        Ok(Self { backend, index })
    }

    /// The first compiled-in backend's first device.
    ///
    /// # Errors
    /// If this build contains no backend at all.
    pub fn first_compiled() -> Result<Self, DeviceError> {
        let backend = Backend::compiled().first().copied().ok_or(DeviceError::NoBackend)?;
        Ok(Self { backend, index: None })
    }

    /// Opens the device.
    ///
    /// # Errors
    /// If the backend is not part of this build, or a CPU backend is asked for a device other than 0.
    pub fn open(self) -> Result<Device, DeviceError> {
        if !self.backend.is_compiled() {
            return Err(DeviceError::NotCompiled { backend: self.backend });
        }
        if self.backend.is_cpu() && self.index.unwrap_or(0) != 0 {
            return Err(DeviceError::Index { text: self.to_string() });
        }
        Ok(self.open_compiled())
    }

    #[allow(deprecated)] // `ndarray` is deprecated in Burn 0.22; it stays a supported choice here.
    fn open_compiled(self) -> Device {
        match self.backend {
            #[cfg(feature = "ndarray")]
            Backend::Ndarray => Device::ndarray(),
            #[cfg(feature = "flex")]
            Backend::Flex => Device::flex(),
            #[cfg(feature = "wgpu")]
            Backend::Wgpu => Device::wgpu(gpu(self.index)),
            #[cfg(feature = "vulkan")]
            Backend::Vulkan => Device::vulkan(gpu(self.index)),
            #[cfg(feature = "metal")]
            Backend::Metal => Device::metal(gpu(self.index)),
            #[cfg(feature = "cuda")]
            Backend::Cuda => Device::cuda(self.index.unwrap_or(0)),
            #[allow(unreachable_patterns)]
            other => unreachable!("{other} was checked to be compiled in"),
        }
    }
}

/// Whether tensors on `device` are in host memory; see [`Backend::is_cpu`].
pub(crate) fn is_cpu(device: &Device) -> bool {
    let compiled = Backend::compiled().into_iter().filter(|backend| backend.is_cpu());
    compiled.map(|backend| DeviceSpec { backend, index: None }.open_compiled()).any(|cpu| cpu == *device)
}

#[cfg(feature = "cube")]
fn named(devices: Devices) -> Vec<String> {
    let name = |device: Device| device.identity().map_or_else(|| format!("{device:?}"), |it| it.name);
    devices.into_iter().map(name).collect()
}

#[cfg(feature = "wgpu")]
fn gpu(index: Option<usize>) -> DeviceKind {
    index.map_or(DeviceKind::DefaultDevice, DeviceKind::DiscreteGpu)
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}:{index}", self.backend),
            None => write!(f, "{}", self.backend),
        }
    }
}

/// Why a device could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No backend has this name.
    #[error("unknown backend {name:?}: choose one of ndarray, flex, wgpu, vulkan, metal, cuda")]
    UnknownBackend {
        /// What was asked for.
        name: String,
    },
    /// The text after the colon is not a device of that backend.
    #[error("device {text:?}: after the colon comes a device number, as in wgpu:0; CPU backends have only 0")]
    Index {
        /// What was asked for.
        text: String,
    },
    /// The backend exists but this build was made without it.
    #[error(
        "backend {backend} is not part of this build: build with `--features {backend}`, or run `cargo xtask <verb> --backend {backend}`"
    )]
    NotCompiled {
        /// The missing backend.
        backend: Backend,
    },
    /// This build contains no backend.
    #[error(
        "this build has no backend: build with one of the features ndarray, flex, wgpu, vulkan, metal, cuda"
    )]
    NoBackend,
}
