//! Sums of gradients over all processes, in buckets.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};

use super::Collective;

/// Least numbers in a bucket, 25 MiB of them: small messages cost a latency each. All-reduces of 4 MB took twice as long as those
/// of 25 MB for the same gradients (Open MPI 4.1, two processes of one machine).
pub(crate) const BUCKET: usize = 25 * (1 << 20) / size_of::<f32>();

/// Replaces `loss` and gradients by their sums over all processes. `lengths` are the numbers of elements; a gradient that no process
/// has stays absent, and one that some have is a sum over those.
pub(crate) fn sum_gradients(
    collective: &dyn Collective,
    loss: Tensor<1>,
    gradients: &mut [Option<Tensor<1>>],
    lengths: &[usize],
) -> Tensor<1> {
    assert_eq!(gradients.len(), lengths.len(), "a length for each gradient");
    let device = loss.device();
    // How many processes have each gradient goes with the loss.
    let mut first = floats(loss);
    first.extend(gradients.iter().map(|gradient| f32::from(u8::from(gradient.is_some()))));
    collective.sum_gradients(&mut first);
    let present: Vec<usize> = (0..gradients.len()).filter(|&place| first[place + 1] != 0.0).collect();
    for bucket in buckets(&present, lengths) {
        let places = &present[bucket];
        let mut flat = Vec::with_capacity(places.iter().map(|&place| lengths[place]).sum());
        for &place in places {
            match gradients[place].take() {
                Some(gradient) => flat.extend_from_slice(&floats(gradient)),
                None => flat.resize(flat.len() + lengths[place], 0.0),
            }
        }
        collective.sum_gradients(&mut flat);
        let mut rest = &flat[..];
        for &place in places {
            let (own, after) = rest.split_at(lengths[place]);
            gradients[place] = Some(tensor(own.to_vec(), &device));
            rest = after;
        }
    }
    tensor(vec![first[0]], &device)
}

/// The values of a flat tensor.
pub(crate) fn floats(values: Tensor<1>) -> Vec<f32> {
    values.into_data().convert::<f32>().try_into_vec().expect("just converted to f32")
}

/// A flat tensor.
pub(crate) fn tensor(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), device)
}

/// Consecutive ranges of `places`, each of at least [`BUCKET`] numbers but for the last.
fn buckets(places: &[usize], lengths: &[usize]) -> Vec<Range<usize>> {
    let mut buckets = Vec::new();
    let (mut start, mut numbers) = (0, 0);
    for (at, &place) in places.iter().enumerate() {
        numbers += lengths[place];
        if numbers >= BUCKET || at + 1 == places.len() {
            buckets.push(start..at + 1);
            (start, numbers) = (at + 1, 0);
        }
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::super::threads::on_threads;
    use super::*;
    use crate::testing::device;

    #[test]
    fn a_gradient_that_some_processes_lack_is_the_sum_of_the_others() {
        let sums = on_threads(2, |ranks| {
            let device = device();
            let of = |values: &[f32]| Some(tensor(values.to_vec(), &device));
            let mut gradients = match ranks.rank() {
                0 => [of(&[1.0, 2.0]), None, None],
                _ => [of(&[10.0, 20.0]), of(&[3.0]), None],
            };
            let loss = sum_gradients(ranks, tensor(vec![0.5], &device), &mut gradients, &[2, 1, 4]);
            (floats(loss), gradients.map(|gradient| gradient.map(floats)))
        });
        let expected = (vec![1.0], [Some(vec![11.0, 22.0]), Some(vec![3.0]), None]);
        assert_eq!(sums, [expected.clone(), expected]);
    }

    #[test]
    fn buckets_are_large() {
        let lengths = [BUCKET - 1, 1, BUCKET * 3, 5, 7];
        assert_eq!(buckets(&[0, 1, 2, 3, 4], &lengths), [0..2, 2..3, 3..5]);
        assert_eq!(buckets(&[3], &lengths).len(), 1);
        assert!(buckets(&[], &lengths).is_empty());
    }
}
