//! Embedding lookup (gather) and its gradient (scatter-add).

use crate::Cpu;
use crate::parallel::{self, Shared};

/// Copies row `ids[i]` of `table` to row `i` of `out`.
///
/// # Shape
/// `table`: `[entries, d]`, `out`: `[ids.len(), d]`.
///
/// # Panics
/// If the lengths do not agree or an id is not below the number of entries.
///
/// # Example
/// ```
/// use andiron_kernels::{Cpu, embedding::gather};
/// let mut out = [0.0; 4];
/// gather(Cpu::detect(1), 2, &[1, 0], &[1.0, 2.0, 3.0, 4.0], &mut out);
/// assert_eq!(out, [3.0, 4.0, 1.0, 2.0]);
/// ```
pub fn gather(cpu: Cpu, d: usize, ids: &[u32], table: &[f32], out: &mut [f32]) {
    assert_eq!(out.len(), ids.len() * d, "out is not {} rows of {d}", ids.len());
    assert_ids(d, ids, table);
    let out = Shared::new(out);
    parallel::rows(cpu, ids.len(), 2 * d, 1, |part| {
        // SAFETY: the parts are disjoint.
        let out = unsafe { out.range(part.start * d..part.end * d) };
        for (id, row) in ids[part].iter().zip(out.chunks_exact_mut(d.max(1))) {
            row.copy_from_slice(&table[*id as usize * d..][..d]);
        }
    });
}

/// Adds row `i` of `dy` to row `ids[i]` of `dtable`, in the order of `ids`. Accumulates: zero `dtable` first for the
/// gradient alone.
///
/// # Shape
/// `dy`: `[ids.len(), d]`, `dtable`: `[entries, d]`.
///
/// # Panics
/// If the lengths do not agree or an id is not below the number of entries.
pub fn scatter_add(cpu: Cpu, d: usize, ids: &[u32], dy: &[f32], dtable: &mut [f32]) {
    assert_eq!(dy.len(), ids.len() * d, "dy is not {} rows of {d}", ids.len());
    assert_ids(d, ids, dtable);
    let dtable = Shared::new(dtable);
    // Threads split the columns, so that each sum is computed by one thread, in the order of the ids.
    parallel::rows(cpu, d, 2 * ids.len(), 16, |cols| {
        for (i, id) in ids.iter().enumerate() {
            let from = &dy[i * d + cols.start..i * d + cols.end];
            let row = *id as usize * d;
            // SAFETY: the ranges of columns are disjoint.
            let to = unsafe { dtable.range(row + cols.start..row + cols.end) };
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
    });
}

#[track_caller]
fn assert_ids(d: usize, ids: &[u32], table: &[f32]) {
    let Some(entries) = table.len().checked_div(d) else { return };
    assert_eq!(table.len(), entries * d, "the table is not rows of {d}");
    if let Some(id) = ids.iter().find(|id| **id as usize >= entries) {
        panic!("id {id} is outside a table of {entries} entries");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Seed;
    use crate::testing::numbers;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn scattering_undoes_gathering(count in 0usize..3000, entries in 1usize..40, d in 0usize..70) {
            let ids: Vec<u32> =
                (0..count as u64).map(|i| Seed::new(1).below(i, entries as u64) as u32).collect();
            let table = numbers(1, entries * d);
            let mut wanted = numbers(2, entries * d);
            for id in &ids {
                for j in 0..d {
                    wanted[*id as usize * d + j] += table[*id as usize * d + j];
                }
            }
            for threads in [1, 2, 3] {
                let cpu = Cpu::detect(threads);
                let mut out = vec![f32::NAN; count * d];
                gather(cpu, d, &ids, &table, &mut out);
                let mut sums = numbers(2, entries * d);
                scatter_add(cpu, d, &ids, &out, &mut sums);
                prop_assert_eq!(&sums, &wanted);
            }
        }
    }

    #[test]
    #[should_panic(expected = "id 2 is outside a table of 2 entries")]
    fn unknown_ids_are_refused() {
        gather(Cpu::detect(1), 2, &[0, 2], &[0.0; 4], &mut [0.0; 4]);
    }
}
