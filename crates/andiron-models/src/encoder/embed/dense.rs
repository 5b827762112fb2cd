//! The `Dense` module of sentence-transformers: a linear layer on the sentence embedding, and an activation.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData, activation};
use serde_json::{Map, Value, json};

use crate::weights::{self, LoadError, SaveError, TensorSource as _};

/// A linear layer and an activation: `activation(W x + b)`, plus `x` or a projection of it if there is a residual
/// connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    d_input: usize,
    d_output: usize,
    /// Weight, `[out, in]`.
    weight: Arc<[f32]>,
    bias: Option<Arc<[f32]>>,
    activation: DenseActivation,
    residual: Residual,
}

/// Residual connection of a [`Dense`].
#[derive(Clone, Debug, PartialEq)]
enum Residual {
    None,
    Input,
    Mapped(Arc<[f32]>),
}

/// Activations of a [`Dense`], named after PyTorch's classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum DenseActivation {
    /// `torch.nn.Identity`.
    Identity,
    /// `torch.nn.Tanh`.
    #[default]
    Tanh,
    /// `torch.nn.ReLU`.
    Relu,
    /// `torch.nn.GELU`, the exact form.
    Gelu,
    /// `torch.nn.Sigmoid`.
    Sigmoid,
    /// `torch.nn.SiLU`.
    Silu,
}

impl DenseActivation {
    const PATHS: [(Self, &'static str); 6] = [
        (Self::Identity, "torch.nn.modules.linear.Identity"),
        (Self::Tanh, "torch.nn.modules.activation.Tanh"),
        (Self::Relu, "torch.nn.modules.activation.ReLU"),
        (Self::Gelu, "torch.nn.modules.activation.GELU"),
        (Self::Sigmoid, "torch.nn.modules.activation.Sigmoid"),
        (Self::Silu, "torch.nn.modules.activation.SiLU"),
    ];

    fn named(path: &str) -> Option<Self> {
        let class = path.strip_prefix("torch.")?.rsplit('.').next()?;
        let is = |known: &str| known.rsplit('.').next() == Some(class);
        Self::PATHS.into_iter().find(|(_, known)| is(known)).map(|(activation, _)| activation)
    }

    fn path(self) -> &'static str {
        Self::PATHS.into_iter().find(|(activation, _)| *activation == self).map_or("", |(_, path)| path)
    }

    fn apply(self, x_bd: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Identity => x_bd,
            Self::Tanh => activation::tanh(x_bd),
            Self::Relu => activation::relu(x_bd),
            Self::Gelu => activation::gelu(x_bd),
            Self::Sigmoid => activation::sigmoid(x_bd),
            Self::Silu => activation::silu(x_bd),
        }
    }
}

const KEYS: &[&str] = &[
    "in_features",
    "out_features",
    "bias",
    "activation_function",
    "module_input_name",
    "module_output_name",
    "use_residual",
];

impl Dense {
    /// Input width.
    pub fn d_input(&self) -> usize {
        self.d_input
    }

    /// Output width.
    pub fn d_output(&self) -> usize {
        self.d_output
    }

    /// Transforms each row.
    ///
    /// # Shape
    /// `[batch, d_input]` → `[batch, d_output]`.
    ///
    /// # Panics
    /// If the last axis is not `d_input`.
    pub fn apply(&self, x_bd: Tensor<2>) -> Tensor<2> {
        let device = x_bd.device();
        let [_, d] = x_bd.dims();
        assert_eq!(d, self.d_input, "a vector is as wide as the map's rows");
        let map = |weight: &Arc<[f32]>| {
            let data = TensorData::new(weight.to_vec(), [self.d_output, self.d_input]);
            x_bd.clone().matmul(Tensor::<2>::from_data(data, &device).transpose())
        };
        let mut y_bd = map(&self.weight);
        if let Some(bias) = &self.bias {
            y_bd = y_bd + Tensor::<2>::from_data(TensorData::new(bias.to_vec(), [1, self.d_output]), &device);
        }
        let y_bd = self.activation.apply(y_bd);
        match &self.residual {
            Residual::None => y_bd,
            Residual::Input => y_bd + x_bd,
            Residual::Mapped(weight) => y_bd + map(weight),
        }
    }

    /// Reads the module's folder; unknown keys go to `unread`.
    pub(super) fn read(dir: &Path, unread: &mut Vec<String>) -> Result<Self, LoadError> {
        let path = dir.join("config.json");
        let fields: Map<String, Value> = crate::json_file::read_json(&path, "Dense config")?;
        let refuse = |reason: String| LoadError::from(super::sentence::refuse(&path, &reason));
        let size = |key: &str| {
            let size = fields.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
            size.filter(|&n| n > 0).ok_or_else(|| refuse(format!("{key} is not a number above 0")))
        };
        let flag = |key: &str, default: bool| match fields.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(refuse(format!("{key} is {other}: true or false is read"))),
        };
        let (d_input, d_output) = (size("in_features")?, size("out_features")?);
        let activation = match fields.get("activation_function") {
            None => DenseActivation::default(),
            Some(value) => value.as_str().and_then(DenseActivation::named).ok_or_else(|| {
                let known: Vec<_> = DenseActivation::PATHS.iter().map(|(_, path)| *path).collect();
                refuse(format!("activation_function is {value}: {} are known", known.join(", ")))
            })?,
        };
        for key in ["module_input_name", "module_output_name"] {
            match fields.get(key) {
                None | Some(Value::Null) => {}
                Some(name) if name == "sentence_embedding" => {}
                Some(name) => {
                    return Err(refuse(format!("{key} is {name}: only \"sentence_embedding\" is supported")));
                }
            }
        }
        let (has_bias, has_residual) = (flag("bias", true)?, flag("use_residual", false)?);
        unread.extend(super::sentence::unknown(&path, &fields, KEYS));

        let maps = has_residual && d_input != d_output;
        let mut wanted = vec![("linear.weight".to_owned(), vec![d_output, d_input])];
        wanted.extend(has_bias.then(|| ("linear.bias".to_owned(), vec![d_output])));
        wanted.extend(maps.then(|| ("residual.weight".to_owned(), vec![d_output, d_input])));
        let mut files = weights::open(dir)?;
        weights::check_names(&wanted, &files)?;
        let mut read = |name: &str| -> Result<Arc<[f32]>, LoadError> {
            let file = files.iter_mut().find(|file| file.has(name)).expect("every name was found");
            Ok(file.read_f32(name)?.into())
        };
        Ok(Self {
            d_input,
            d_output,
            weight: read("linear.weight")?,
            bias: has_bias.then(|| read("linear.bias")).transpose()?,
            activation,
            residual: match (has_residual, maps) {
                (false, _) => Residual::None,
                (true, false) => Residual::Input,
                (true, true) => Residual::Mapped(read("residual.weight")?),
            },
        })
    }

    /// Writes what [`Dense::read`] reads.
    pub(super) fn write(&self, dir: &Path) -> Result<(), SaveError> {
        let config = json!({
            "in_features": self.d_input, "out_features": self.d_output, "bias": self.bias.is_some(),
            "activation_function": self.activation.path(), "module_input_name": "sentence_embedding",
            "module_output_name": "sentence_embedding", "use_residual": self.residual != Residual::None,
        });
        crate::json_file::write_json(&dir.join("config.json"), &config)?;
        let matrix = vec![self.d_output, self.d_input];
        let mut tensors = vec![("linear.weight", matrix.clone(), self.weight.clone())];
        tensors.extend(self.bias.iter().map(|bias| ("linear.bias", vec![self.d_output], bias.clone())));
        if let Residual::Mapped(weight) = &self.residual {
            tensors.push(("residual.weight", matrix, weight.clone()));
        }
        weights::save_tensors(tensors, dir)
    }
}
