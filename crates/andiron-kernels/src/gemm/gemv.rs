//! Matmul with few rows: each element of `b` is used a handful of times, so the time is that of reading it.

use super::{Epilogue, MatRef};
use crate::parallel::{self, Shared};
use crate::simd::{Simd, dispatch};
use crate::{Cpu, KernelChoice, Precision};

/// Rows whose accumulators stay in registers.
pub(crate) const GROUP: usize = 4;

/// Whether a matmul of this many rows is computed here. Up to as many rows as read `b` faster than it could be packed, that is
/// fastest. Where the columns of `b` are contiguous those are several groups of rows, for which a few columns stay in the L1
/// cache, and decode steps have all their rows here; where its rows are, it is one group.
pub(crate) fn is_chosen(cpu: Cpu, rows: usize, b: MatRef) -> bool {
    let readable = b.col_stride == 1 || b.row_stride == 1;
    match (cpu.kernels, along_depth(b)) {
        (KernelChoice::Fastest, true) => readable && rows <= most_rows(cpu.matmul_precision()),
        (KernelChoice::Fastest, false) => readable && rows <= GROUP,
        (KernelChoice::Decode, true) => readable,
        _ => false,
    }
}

/// Whether a matmul of this many rows leaves its operands unrounded, at mixed precision too.
pub(crate) fn stays_f32(cpu: Cpu, rows: usize, b: MatRef) -> bool {
    cpu.kernels == KernelChoice::Decode || is_chosen(cpu, rows, b)
}

/// The most rows that are fastest here if the columns of `b` are contiguous.
pub(crate) fn most_rows(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 4 * GROUP,
        Precision::Mixed => 2 * GROUP,
    }
}

/// Columns whose accumulators stay in the L1 cache while rows of `b` stream by.
const STRIP: usize = 512;

/// The columns `start..start + count` of a matmul with few rows; `a` is row-major.
#[derive(Clone, Copy)]
struct Columns<'a> {
    a: &'a [f32],
    k: usize,
    b: MatRef<'a>,
    bias: Option<&'a [f32]>,
    accumulate: bool,
    start: usize,
    count: usize,
}

/// `c = a b` where this [is chosen](is_chosen). The order of an element's sum does not depend on the number of rows.
pub(super) fn few_rows(cpu: Cpu, a: MatRef, b: MatRef, epilogue: Epilogue, c: &mut [f32]) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let copied: Vec<f32>;
    let rows = if a.col_stride == 1 && (m == 1 || a.row_stride == k) {
        &a.data[..m * k]
    } else {
        copied = (0..m * k).map(|index| a.at(index / k, index % k)).collect();
        &copied
    };
    let c = Shared::new(c);
    let step = if along_depth(b) { 64 } else { width(cpu, n) };
    // Reading is slower than multiplying: an element of `b` counts as two multiply-adds.
    parallel::rows(cpu, n, m.max(2) * k, step, |cols| {
        let columns = Columns {
            a: rows,
            k,
            b,
            bias: epilogue.bias,
            accumulate: epilogue.accumulate,
            start: cols.start,
            count: cols.len(),
        };
        // SAFETY: rows are disjoint, as are the ranges of columns.
        let row = |i: usize| unsafe { c.range(i * n + cols.start..i * n + cols.end) };
        strip(cpu.isa, columns, &mut (0..m).map(row).collect::<Vec<_>>());
    });
}

/// Whether the columns of `b` are contiguous, rather than its rows.
fn along_depth(b: MatRef) -> bool {
    b.row_stride == 1 && (b.col_stride != 1 || b.rows > 1)
}

/// Columns per task where rows are contiguous: a thread should read long pieces of rows.
fn width(cpu: Cpu, n: usize) -> usize {
    // With 96 columns per task, a 768 x 768 matrix in the caches takes two threads as long as one.
    const LONG: usize = 384;
    let threads = cpu.threads.max(1);
    let parts = threads * (n / (threads * LONG)).clamp(1, 4);
    n.div_ceil(parts).next_multiple_of(64)
}

dispatch! { fn strip(columns: Columns, c: &mut [&mut [f32]]) = strip_scalar | strip_vector; }

fn strip_scalar(columns: Columns, c: &mut [&mut [f32]]) {
    let Columns { a, k, b, start, .. } = columns;
    for (i, row) in c.iter_mut().enumerate() {
        begin(&columns, row);
        for (j, sum) in row.iter_mut().enumerate() {
            *sum += (0..k).map(|l| a[i * k + l] * b.at(l, start + j)).sum::<f32>();
        }
    }
}

/// Sets the accumulators' initial values.
#[inline(always)]
fn begin(columns: &Columns, row: &mut [f32]) {
    if !columns.accumulate {
        row.fill(0.0);
    }
    if let Some(bias) = columns.bias {
        for (c, bias) in row.iter_mut().zip(&bias[columns.start..][..columns.count]) {
            *c += bias;
        }
    }
}

#[inline(always)]
fn strip_vector<S: Simd>(s: S, columns: Columns, c: &mut [&mut [f32]]) {
    for row in c.iter_mut() {
        begin(&columns, row);
    }
    if along_depth(columns.b) {
        // Accumulators, a vector of each column, and one of a row.
        if (GROUP + 1) * 4 < S::REGISTERS {
            dots::<S, 4>(s, &columns, c);
        } else {
            dots::<S, 2>(s, &columns, c);
        }
        return;
    }
    match c {
        [p] => sums::<S, 1>(s, &columns, [p]),
        [p, q] => sums::<S, 2>(s, &columns, [p, q]),
        [p, q, r] => sums::<S, 3>(s, &columns, [p, q, r]),
        [p, q, r, t] => sums::<S, 4>(s, &columns, [p, q, r, t]),
        _ => unreachable!("so few rows are passed where those of `b` are contiguous"),
    }
}

/// Columns of `b` are contiguous: dot products of a few columns with each row.
#[inline(always)]
fn dots<S: Simd, const N: usize>(s: S, columns: &Columns, c: &mut [&mut [f32]]) {
    let mut j = 0;
    while j + N <= columns.count {
        dots_with::<S, N>(s, columns, c, j);
        j += N;
    }
    while j < columns.count {
        dots_with::<S, 1>(s, columns, c, j);
        j += 1;
    }
}

/// `N` columns with every row; after the first group of rows they are in the L1 cache.
#[inline(always)]
fn dots_with<S: Simd, const N: usize>(s: S, columns: &Columns, c: &mut [&mut [f32]], j: usize) {
    for (group, c) in c.chunks_mut(GROUP).enumerate() {
        let first = group * GROUP;
        match c {
            [p] => some_dots::<S, 1, N>(s, columns, [p], (first, j)),
            [p, q] => some_dots::<S, 2, N>(s, columns, [p, q], (first, j)),
            [p, q, r] => some_dots::<S, 3, N>(s, columns, [p, q, r], (first, j)),
            [p, q, r, t] => some_dots::<S, 4, N>(s, columns, [p, q, r, t], (first, j)),
            _ => unreachable!("groups have one to four rows"),
        }
    }
}

/// Rows from `first` on and columns from `j` on.
#[inline(always)]
fn some_dots<S: Simd, const M: usize, const N: usize>(
    s: S,
    columns: &Columns,
    c: [&mut [f32]; M],
    (first, j): (usize, usize),
) {
    let Columns { a, k, b, start, .. } = *columns;
    let mut rows = [a; M];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = &a[(first + i) * k..][..k];
    }
    let mut cols = [a; N];
    for (n, col) in cols.iter_mut().enumerate() {
        *col = &b.data[(start + j + n) * b.col_stride..][..k];
    }
    let mut sums = [[s.splat(0.0); N]; M];
    let whole = k / S::LANES * S::LANES;
    for l in (0..whole).step_by(S::LANES) {
        let mut x = [s.splat(0.0); N];
        for (x, col) in x.iter_mut().zip(cols) {
            // SAFETY: `l + LANES <= k`, the length of the column.
            *x = unsafe { s.load_from(col.as_ptr().add(l)) };
            // The same place in the columns that follow.
            s.prefetch(col.as_ptr().wrapping_add(N * b.col_stride + l));
        }
        for (sums, row) in sums.iter_mut().zip(rows) {
            // SAFETY: `l + LANES <= k`, the length of the row.
            let y = unsafe { s.load_from(row.as_ptr().add(l)) };
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum = s.fma(x, y, *sum);
            }
        }
    }
    for (i, row) in rows.iter().enumerate() {
        let y = s.load_part(&row[whole..]);
        for (n, col) in cols.iter().enumerate() {
            let sum = s.fma(s.load_part(&col[whole..]), y, sums[i][n]);
            c[i][j + n] += s.sum(sum);
        }
    }
}

/// Rows of `b` are contiguous: adds multiples of several rows at a time.
#[inline(always)]
fn sums<S: Simd, const M: usize>(s: S, columns: &Columns, c: [&mut [f32]; M]) {
    let Columns { k, count, .. } = *columns;
    let mut c = c;
    let mut j = 0;
    while j < count {
        let width = STRIP.min(count - j);
        let mut l = 0;
        while l + 8 <= k {
            some_sums::<S, M, 8>(s, columns, &mut c, (j, width), l);
            l += 8;
        }
        while l < k {
            some_sums::<S, M, 1>(s, columns, &mut c, (j, width), l);
            l += 1;
        }
        j += width;
    }
}

#[inline(always)]
fn some_sums<S: Simd, const M: usize, const K: usize>(
    s: S,
    columns: &Columns,
    c: &mut [&mut [f32]; M],
    (j, width): (usize, usize),
    l: usize,
) {
    let Columns { a, k, b, start, .. } = *columns;
    let mut factors = [[s.splat(0.0); K]; M];
    for (i, factors) in factors.iter_mut().enumerate() {
        for (d, factor) in factors.iter_mut().enumerate() {
            *factor = s.splat(a[i * k + l + d]);
        }
    }
    let mut rows = [a; K];
    for (d, row) in rows.iter_mut().enumerate() {
        *row = &b.data[(l + d) * b.row_stride + start + j..][..width];
    }
    for row in c.iter() {
        assert!(row.len() >= j + width);
    }
    let whole = width / S::LANES * S::LANES;
    for v in (0..whole).step_by(S::LANES) {
        // SAFETY: `v + LANES <= width`, the length of the rows and the room in `c` behind `j`.
        unsafe {
            let mut x = [s.splat(0.0); K];
            for (x, row) in x.iter_mut().zip(rows) {
                *x = s.load_from(row.as_ptr().add(v));
                // The hardware prefetcher needs several lines of a row to start, and a strip has few.
                s.prefetch(row.as_ptr().wrapping_add(K * b.row_stride + v));
            }
            for (row, factors) in c.iter_mut().zip(factors) {
                let to = row.as_mut_ptr().add(j + v);
                let mut sum = s.load_from(to);
                for (x, factor) in x.into_iter().zip(factors) {
                    sum = s.fma(x, factor, sum);
                }
                s.store_to(to, sum);
            }
        }
    }
    if whole < width {
        for (row, factors) in c.iter_mut().zip(factors) {
            let to = &mut row[j + whole..j + width];
            let mut sum = s.load_part(to);
            for (from, factor) in rows.into_iter().zip(factors) {
                sum = s.fma(s.load_part(&from[whole..]), factor, sum);
            }
            s.store_part(to, sum);
        }
    }
}
