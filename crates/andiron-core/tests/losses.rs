//! Losses against values of the reference programs, and their gradients against finite differences, on every backend of this
//! build.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]
#![cfg(any(feature = "ndarray", feature = "flex"))]

use andiron_core::loss::{
    DpoOptions, binary_cross_entropy, cosent, cosine_mean_squared_error, cosine_pairs, cross_entropy, dpo,
    mean_squared_error, multiple_negatives_ranking, sequence_log_probabilities, span_cross_entropy,
};
use andiron_core::{Backend, DeviceSpec, PaddingMask};
use burn::tensor::{Device, Int, Tensor, TensorData};

fn devices() -> Vec<Device> {
    let open = |backend| DeviceSpec { backend, index: None }.open().unwrap();
    Backend::compiled().into_iter().map(open).collect()
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

fn ints<const D: usize>(values: Vec<i32>, shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

#[track_caller]
fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{what}[{at}]: {found:?} is not {expected:?}");
    }
}

/// Compares losses of `input` with the reference's, and the gradient of their sum, weighted by 1, 2, 3 …, with finite
/// differences; and with the reference's gradient of the plain sum, if given.
#[track_caller]
fn check<const D: usize>(
    what: &str,
    input: (&[f32], [usize; D]),
    loss: impl Fn(Tensor<D>) -> Tensor<1>,
    expected: &[f32],
    gradient: Option<&[f32]>,
) {
    let (values, shape) = input;
    for device in devices() {
        let tensor = |values: &[f32], device: &Device| {
            Tensor::<D>::from_data(TensorData::new(values.to_vec(), shape), device)
        };
        close(what, &floats(loss(tensor(values, &device))), expected, 2e-5);
        let trained = device.clone().autodiff();
        let gradient_of = |weights: &dyn Fn(usize) -> f32| {
            let x = tensor(values, &trained).require_grad();
            let losses = loss(x.clone());
            close(what, &floats(losses.clone().inner()), expected, 2e-5);
            let weights: Vec<f32> = (0..expected.len()).map(weights).collect();
            let weights = Tensor::<1>::from_data(TensorData::new(weights, [expected.len()]), &trained);
            floats(x.grad(&(losses * weights).sum().backward()).unwrap())
        };
        let found = gradient_of(&|at| (at + 1) as f32);
        let sum = |values: &[f32]| -> f64 {
            let losses = floats(loss(tensor(values, &device)));
            losses.iter().enumerate().map(|(at, loss)| (at + 1) as f64 * f64::from(*loss)).sum()
        };
        const STEP: f32 = 2e-3;
        for at in 0..values.len() {
            let moved = |by: f32| {
                let mut moved = values.to_vec();
                moved[at] += by;
                sum(&moved)
            };
            let slope = ((moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP)) as f32;
            close(&format!("{what}, slope {at}"), &[found[at]], &[slope], 2e-2);
        }
        if let Some(gradient) = gradient {
            close(&format!("gradient of {what}"), &gradient_of(&|_| 1.0), gradient, 1e-4);
        }
    }
}

// The values of the first four tests are those of PyTorch 2.15.0 (`cross_entropy`, `binary_cross_entropy_with_logits`,
// `mse_loss`, without reduction).

const LOGITS: [f32; 6] = [1.0, -2.0, 0.5, 0.0, 3.0, -1.0];

#[test]
fn cross_entropy_of_classes() {
    let of = |smoothing| {
        move |logits: Tensor<2>| {
            let targets = ints(vec![2, 0], [2], &logits.device());
            cross_entropy(logits, targets, smoothing)
        }
    };
    check("cross-entropy", (&LOGITS, [2, 3]), of(0.0), &[1.004597, 3.065884], None);
    check("smoothed cross-entropy", (&LOGITS, [2, 3]), of(0.1), &[1.071264, 2.999217], None);
}

#[test]
fn binary_cross_entropy_of_labels() {
    let labels = [[0.0, 1.0, 1.0], [0.25, 0.0, 1.0]];
    // A logit of exactly 0 is that of a head without training.
    let logits = [0.0, -2.0, 0.5, 0.0, 30.0, -100.0];
    let gradient = [0.166667, -0.293599, -0.125847, 0.083333, 0.333333, -0.333333];
    check(
        "binary cross-entropy",
        (&logits, [2, 3]),
        |logits| {
            let labels = Tensor::from_floats(labels, &logits.device());
            binary_cross_entropy(logits, labels)
        },
        &[1.098051, 43.56438],
        Some(&gradient),
    );
}

#[test]
fn mean_squared_error_of_values() {
    check(
        "mean squared error",
        (&LOGITS, [2, 3]),
        |outputs| {
            let values = Tensor::from_floats([[0.0, 1.0, 1.0], [0.25, 0.0, 1.0]], &outputs.device());
            mean_squared_error(outputs, values)
        },
        &[3.416667, 4.354167],
        None,
    );
}

#[test]
fn padding_is_no_candidate_for_an_answer() {
    let start = [0.5, -1.0, 2.0, 9.0, 0.0, 1.0, -0.5, 0.25];
    let end = [[1.0, 0.0, -2.0, 7.0], [2.0, 0.5, 1.5, -1.0]];
    check(
        "span",
        (&start, [2, 4]),
        |start| {
            let device = start.device();
            let spans = ints(vec![0, 1, 1, 2], [2, 2], &device);
            let padding = PaddingMask::padded_right([3, 4]);
            span_cross_entropy(start, Tensor::from_floats(end, &device), spans, Some(&padding))
        },
        &[1.545162, 0.927661],
        None,
    );
}

// The values of the next three tests are those of sentence-transformers 6.2.0 (`MultipleNegativesRankingLoss`,
// `CoSENTLoss`, `CosineSimilarityLoss`) on the same embeddings.

#[test]
fn the_positive_is_ranked_before_all_others() {
    let embeddings = [
        [1.0, 0.0, 0.5],
        [0.9, 0.1, 0.4],
        [1.0, 0.2, 0.3],
        [0.8, 0.2, 0.5],
        [1.1, 0.1, 0.6],
        [0.7, 0.4, 0.5],
    ]
    .concat();
    // The mean of the rows' losses, whose gradient this is, is 1.096671.
    let gradient: Vec<f32> = [
        -0.054629, 0.238277, 0.109258, -0.125731, 0.953279, 0.044576, -0.173518, -0.318334, 0.790617,
        7.8e-05, 1.079116, -0.431772, 0.269632, -0.943712, -0.33704, 0.383554, -0.6714, 0.000145,
    ]
    .map(|slope| 2.0 * slope)
    .to_vec();
    check(
        "groups of three",
        (&embeddings, [6, 3]),
        |embeddings| multiple_negatives_ranking(embeddings, 3, 20.0),
        &[1.022387, 1.170955],
        Some(&gradient),
    );
    check(
        "pairs",
        (&embeddings, [6, 3]),
        |embeddings| multiple_negatives_ranking(embeddings, 2, 20.0),
        &[0.59363, 1.094845, 2.07698],
        None,
    );
}

const PAIRS: [f32; 18] =
    [1.0, 0.0, 0.5, 0.8, 0.1, 0.4, -0.3, 1.0, 0.2, 0.2, 1.0, -0.5, 0.1, 0.9, -0.7, 0.5, 0.5, 0.5];

#[test]
fn pairs_are_ordered_by_their_scores() {
    let of = |scores: [f32; 3]| {
        move |embeddings: Tensor<2>| {
            let scores = Tensor::from_floats(scores, &embeddings.device());
            cosent(embeddings, scores, 20.0)
        }
    };
    check("CoSENT", (&PAIRS, [6, 3]), of([0.9, 0.1, 0.5]), &[10.888163], None);
    check("CoSENT of equal scores", (&PAIRS, [6, 3]), of([0.5; 3]), &[0.0], Some(&[0.0; 18]));
}

#[test]
fn cosines_are_moved_to_the_scores() {
    check(
        "cosine similarity",
        (&PAIRS, [6, 3]),
        |embeddings| {
            let scores = Tensor::from_floats([0.9, 0.1, 0.5], &embeddings.device());
            cosine_mean_squared_error(embeddings, scores)
        },
        &[0.0088, 0.354903, 0.121571],
        None,
    );
    for device in devices() {
        let x = Tensor::<2>::zeros([2, 3], &device.autodiff()).require_grad();
        let cosines = cosine_pairs(x.clone());
        assert_eq!(floats(cosines.clone().inner()), [0.0]);
        assert_eq!(floats(x.grad(&cosines.sum().backward()).unwrap()), [0.0; 6]);
    }
}

// Computed with PyTorch 2.15.0 by the formula of `DPOTrainer` of trl 1.16.0, and by that of the paper with label smoothing.
#[test]
fn preferences_are_compared_with_the_reference() {
    let policy = [-5.0, -6.0, -7.5, -7.0];
    let of = |beta, label_smoothing| {
        move |policy: Tensor<1>| {
            let reference = Tensor::from_floats([-5.5, -5.75, -7.0, -7.25], &policy.device());
            dpo(policy, reference, DpoOptions { beta, label_smoothing }).losses_p
        }
    };
    check("DPO", (&policy, [4]), of(0.1, 0.0), &[0.65635, 0.73135], None);
    check("DPO with label smoothing", (&policy, [4]), of(0.1, 0.3), &[0.67885, 0.70885], None);
    check("DPO with a larger beta", (&policy, [4]), of(0.5, 0.1), &[0.560623, 0.860623], None);
    // The loss that `DPOTrainer.compute_loss` itself gives for two pairs of a GPT-2 with these log-probabilities.
    for device in devices() {
        let policy = Tensor::<1>::from_floats([-12.495368, -6.318244, -6.374014, -9.440933], &device);
        let reference = Tensor::<1>::from_floats([-12.660684, -6.256982, -6.237736, -9.379129], &device);
        let losses = dpo(policy, reference, DpoOptions { beta: 0.5, label_smoothing: 0.0 });
        close("DPO of a trainer", &floats(losses.losses_p.mean()), &[0.675022], 1e-5);
    }
    for device in devices() {
        let device = device.autodiff();
        let policy = Tensor::<1>::from_floats(policy, &device).require_grad();
        let reference = Tensor::from_floats([-5.5, -5.75, -7.0, -7.25], &device);
        let losses = dpo(policy, reference, DpoOptions { beta: 0.1, label_smoothing: 0.0 });
        close("rewards", &floats(losses.rewards_p2.clone().inner()), &[0.05, -0.025, -0.05, 0.025], 1e-6);
        close("margins", &floats(losses.margins_p().inner()), &[0.075, -0.075], 1e-6);
        assert_eq!(floats(losses.hits_p().inner()), [1.0, 0.0]);
    }
}

#[test]
fn an_answer_is_as_probable_as_its_tokens_together() {
    let losses = [1.0, 2.0, 4.0, 0.5, 0.25, 8.0];
    check(
        "log-probabilities",
        (&losses, [6]),
        |losses| {
            let weights = Tensor::from_floats([0.0, 1.0, 1.0, 0.0, 1.0, 0.0], &losses.device());
            sequence_log_probabilities(losses, weights, 2)
        },
        &[-6.0, -0.25],
        None,
    );
}
