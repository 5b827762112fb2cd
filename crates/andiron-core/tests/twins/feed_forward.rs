//! Feed-forward layers, plain and gated.

use andiron_core::ops::{self, Activation, FeedForwardOptions, WeightLayout};
use burn::tensor::{Device, Tensor};

use crate::{activation, check_on, cpu_devices, devices};

const LAYOUTS: [WeightLayout; 2] = [WeightLayout::InOut, WeightLayout::OutIn];
const SIZES: [[usize; 4]; 3] = [[1, 1, 1, 1], [5, 7, 12, 3], [70, 33, 40, 35]];

/// One case, and where it is tried.
struct Case {
    activation: Activation,
    sizes: [usize; 4],
    layout: WeightLayout,
    devices: Vec<Device>,
}

/// Every activation at one size, and one of them at every size, in both layouts. A GPU, which compiles and tunes kernels for
/// each shape, gets one size, and there every activation in one layout.
fn cases() -> impl Iterator<Item = Case> {
    let activations = activation::ALL.into_iter().map(|activation| (activation, SIZES[1]));
    let sizes = [SIZES[0], SIZES[2]].into_iter().map(|sizes| (Activation::Silu, sizes));
    activations.chain(sizes).flat_map(|(activation, sizes)| {
        LAYOUTS.map(|layout| {
            let on_gpu = sizes == SIZES[1] && (layout == LAYOUTS[0] || activation == Activation::Silu);
            let devices = if on_gpu { devices() } else { cpu_devices() };
            Case { activation, sizes, layout, devices }
        })
    })
}

/// The shape of a weight.
fn weight(layout: WeightLayout, [d_in, d_out]: [usize; 2]) -> [usize; 2] {
    match layout {
        WeightLayout::InOut => [d_in, d_out],
        WeightLayout::OutIn => [d_out, d_in],
    }
}

fn project(x: Tensor<2>, weight: Tensor<2>, layout: WeightLayout) -> Tensor<2> {
    match layout {
        WeightLayout::InOut => x.matmul(weight),
        WeightLayout::OutIn => x.matmul(weight.transpose()),
    }
}

#[test]
fn plain_layers_in_both_layouts() {
    for Case { activation, sizes: [rows, d, f, d_out], layout, devices } in cases() {
        check_on(
            devices,
            &format!("feed-forward {layout:?} {activation:?}"),
            [[rows, d], weight(layout, [d, f]), [1, f], weight(layout, [f, d_out]), [1, d_out]],
            |[x, up, b, down, c]| {
                let biases = [b.reshape([f]), c.reshape([d_out])];
                let options = FeedForwardOptions { activation, layouts: [layout; 2] };
                ops::feed_forward(x, [up, down], biases, options)
            },
            |[x, up, b, down, c]| {
                let before = project(x, up, layout) + b;
                project(activation::reference(before, activation), down, layout) + c
            },
        );
    }
}

#[test]
fn gated_layers_in_both_layouts() {
    // Values as in a model: three projections of values around 1 would be sums of thousands, and their rounding as large.
    let small = |x: Tensor<2>| x * 0.125;
    for Case { activation, sizes: [rows, d, f, d_out], layout, devices } in cases() {
        let up = weight(layout, [d, f]);
        check_on(
            devices,
            &format!("gated feed-forward {layout:?} {activation:?}"),
            [[rows, d], up, up, weight(layout, [f, d_out])],
            |[x, gate, up, down]| {
                let options = FeedForwardOptions { activation, layouts: [layout; 2] };
                ops::gated_feed_forward(small(x), [gate, up, down], options)
            },
            |[x, gate, up, down]| {
                let x = small(x);
                let gate = activation::reference(project(x.clone(), gate, layout), activation);
                project(gate * project(x, up, layout), down, layout)
            },
        );
    }
}
