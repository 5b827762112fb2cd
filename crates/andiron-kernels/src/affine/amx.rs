//! With AMX bf16 tiles: one pass over `dy` packs it for both matmuls and sums its columns.

use super::AffineGrads;
use crate::Cpu;
use crate::gemm::MatRef;
use crate::gemm::amx::{Lanes, Product, pack_both_ways, room, room_for_both};
use crate::gemm::pack::{Parts, Scratch};

/// # Safety
/// The machine has tiles of bf16; no size is 0, and all are those that [`super::backward`] has looked at.
pub(super) unsafe fn backward(
    cpu: Cpu,
    x: &[f32],
    w: MatRef,
    dy: &[f32],
    AffineGrads { dx, dw, db }: AffineGrads,
) {
    let (d_input, d_output) = (w.rows, w.cols);
    let rows = x.len() / d_input;
    let len = room_for_both(rows, d_output) + room(d_input, d_output) + room(d_input, rows) + 2 * 16;
    let mut scratch = Scratch::take(len);
    let mut parts = Parts::new(&mut scratch, len);
    // SAFETY: the operands have the lengths of the shape, and the scratch parts were sized for them.
    unsafe {
        let dy = pack_both_ways::<false>(cpu, MatRef::row_major(dy, rows, d_output), db, &mut parts);
        let w_lanes = Lanes::columns(w.t()).pack::<false>(cpu, &mut parts);
        let x = Lanes::columns(MatRef::row_major(x, rows, d_input)).pack::<true>(cpu, &mut parts);
        Product::store_all(cpu, (dy.rows, rows), (w_lanes, d_input), true, dx);
        Product::store_all(cpu, (x, d_input), (dy.columns, d_output), w.col_stride == 1, dw);
    }
}
