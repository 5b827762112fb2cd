//! Rotary positions.

use andiron_core::ops;
use burn::tensor::Tensor;

use crate::{check, random};

#[test]
fn rotation() {
    for (rows, pairs, width) in [(1, 4, 8), (2, 3, 6), (2, 3, 10)] {
        let [b, t, h] = [2, 5, 3];
        let angles = |x: &Tensor<4>| random([rows, t, 1, pairs], "angles", &x.device());
        check(
            "rotation",
            [[b, t, h, width]],
            |[x]| {
                let angles = angles(&x);
                ops::rotate(x, angles.clone().cos(), angles.sin())
            },
            |[x]| {
                let (cos, sin) = (angles(&x).cos(), angles(&x).sin());
                let part = |from, to| x.clone().slice([0..b, 0..t, 0..h, from..to]);
                let (first, second) = (part(0, pairs), part(pairs, 2 * pairs));
                let turned = [
                    first.clone() * cos.clone() - second.clone() * sin.clone(),
                    second * cos + first * sin,
                    part(2 * pairs, width),
                ];
                Tensor::cat(turned.into_iter().filter(|x| x.dims()[3] > 0).collect(), 3)
            },
        );
    }
}
