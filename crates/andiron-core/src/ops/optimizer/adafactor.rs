//! The Adafactor optimizer's step.

use burn::tensor::Tensor;

use super::OptimizerOps;
use crate::ops::{Dispatch, OptionalTensor};

pub use andiron_kernels::adafactor::AdafactorStep;

/// A parameter with its state; the parameter is flattened.
#[derive(Clone, Debug)]
pub struct Adafactor {
    /// The parameter.
    pub value: Tensor<1>,
    /// Running means of squared gradients.
    pub squares: SquaredGradients,
    /// Running mean of updates, if there is one.
    pub mean: Option<Tensor<1>>,
}

/// Running means of squared gradients.
#[derive(Clone, Debug)]
pub enum SquaredGradients {
    /// Of each element.
    Whole(Tensor<1>),
    /// Of each row and of each column of a matrix.
    Factored {
        /// One for each row.
        rows: Tensor<1>,
        /// One for each column.
        columns: Tensor<1>,
    },
}

/// One step of Adafactor, as `transformers`' `Adafactor` computes it.
///
/// On the CPU backends unshared memory is updated in place, and no other memory of the parameter's size is needed.
///
/// Source: Shazeer and Stern 2018, <https://arxiv.org/abs/1804.04235>.
///
/// # Panics
/// If the lengths do not agree.
pub fn adafactor(at: Adafactor, grad: Tensor<1>, step: AdafactorStep) -> Adafactor {
    let Adafactor { value, squares, mean } = at;
    let [len] = value.dims();
    assert_eq!(grad.dims(), [len], "a parameter and its gradient are as long");
    assert!(mean.as_ref().is_none_or(|mean| mean.dims() == [len]), "a parameter and its mean are as long");
    let (squares, columns) = match squares {
        SquaredGradients::Whole(squares) => {
            assert_eq!(squares.dims(), [len], "a parameter and its squares are as long");
            (squares, None)
        }
        SquaredGradients::Factored { rows, columns } => {
            let spanned = rows.dims()[0] * columns.dims()[0];
            assert_eq!(spanned, len, "rows and columns span the parameter");
            (rows, Some(columns))
        }
    };
    let optional =
        |tensor: Option<Tensor<1>>| OptionalTensor::new(tensor.map(|tensor| tensor.into_dispatch()));
    let (value, squares, columns, mean) = Dispatch::adafactor(
        value.into_dispatch(),
        grad.into_dispatch(),
        squares.into_dispatch(),
        optional(columns),
        optional(mean),
        step,
    );
    let squares = Tensor::from_dispatch(squares);
    let squares = match columns.map(Tensor::from_dispatch) {
        Some(columns) => SquaredGradients::Factored { rows: squares, columns },
        None => SquaredGradients::Whole(squares),
    };
    Adafactor { value: Tensor::from_dispatch(value), squares, mean: mean.map(Tensor::from_dispatch) }
}
