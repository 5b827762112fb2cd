//! Merging of the symbols of a word.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Up to this length, looking at all pairs for each merge is faster than a heap.
const SHORT: usize = 40;
/// No merge.
const NEVER: u32 = u32::MAX;

/// Which pairs of ids merge: a hash table with open addressing.
pub(super) struct Merges {
    slots: Box<[Slot]>,
    shift: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    pair: u64,
    merge: Merge,
}

#[derive(Clone, Copy)]
struct Merge {
    /// The lowest is applied first.
    rank: u32,
    id: u32,
}

const NO_MERGE: Merge = Merge { rank: NEVER, id: 0 };

/// What merging a word needs, kept between words.
#[derive(Default)]
pub(super) struct Scratch {
    ids: Vec<u32>,
    /// The merge of each symbol with the next one.
    merges: Vec<Merge>,
    previous: Vec<u32>,
    next: Vec<u32>,
    heap: BinaryHeap<Reverse<u64>>,
}

impl Merges {
    /// The merges, the first of them first. `None` if there are too many.
    pub(super) fn new(merges: &[((u32, u32), u32)]) -> Option<Self> {
        let bits = (2 * merges.len().max(8)).next_power_of_two().trailing_zeros();
        let mut slots = vec![Slot { pair: 0, merge: NO_MERGE }; 1 << bits];
        let shift = 64 - bits;
        for (rank, &((a, b), id)) in merges.iter().enumerate() {
            let pair = pair(a, b);
            let mut at = place(pair, shift);
            while slots[at].merge.rank != NEVER {
                at = (at + 1) & (slots.len() - 1);
            }
            let rank = u32::try_from(rank).ok().filter(|&rank| rank != NEVER)?;
            slots[at] = Slot { pair, merge: Merge { rank, id } };
        }
        Some(Self { slots: slots.into(), shift })
    }

    /// Whether some pair merges to an id.
    pub(super) fn give(&self, id: u32) -> bool {
        self.slots.iter().any(|slot| slot.merge.rank != NEVER && slot.merge.id == id)
    }

    #[inline]
    fn of(&self, a: u32, b: u32) -> Merge {
        let pair = pair(a, b);
        let mut at = place(pair, self.shift);
        loop {
            let slot = &self.slots[at];
            if slot.merge.rank == NEVER || slot.pair == pair {
                return slot.merge;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// Merges symbols until no pair of neighbours merges: each time the pair with the lowest rank, of equal ones the first.
    pub(super) fn apply(
        &self,
        symbols: impl Iterator<Item = u32>,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) {
        let Scratch { ids, merges, .. } = scratch;
        ids.clear();
        ids.extend(symbols);
        merges.clear();
        merges.extend(ids.windows(2).map(|two| self.of(two[0], two[1])));
        if ids.len() > SHORT {
            return self.apply_to_long(scratch, out);
        }
        loop {
            let (mut at, mut best) = (0, NO_MERGE);
            for (i, merge) in merges.iter().enumerate() {
                if merge.rank < best.rank {
                    (at, best) = (i, *merge);
                }
            }
            if best.rank == NEVER {
                break;
            }
            ids[at] = best.id;
            ids.remove(at + 1);
            merges.remove(at);
            if let Some(&next) = ids.get(at + 1) {
                merges[at] = self.of(best.id, next);
            }
            if at > 0 {
                merges[at - 1] = self.of(ids[at - 1], best.id);
            }
        }
        out.extend_from_slice(ids);
    }

    /// The same by a heap, with the symbols as a linked list.
    fn apply_to_long(&self, scratch: &mut Scratch, out: &mut Vec<u32>) {
        const END: u32 = u32::MAX;
        let Scratch { ids, merges, previous, next, heap } = scratch;
        let n = ids.len();
        previous.clear();
        previous.extend((0..n as u32).map(|at| at.wrapping_sub(1)));
        next.clear();
        next.extend(1..n as u32);
        next.push(END);
        merges.push(NO_MERGE);
        heap.clear();
        let entry = |rank: u32, at: u32| Reverse(u64::from(rank) << 32 | u64::from(at));
        let firsts = merges.iter().zip(0..).filter(|(merge, _)| merge.rank != NEVER);
        heap.extend(firsts.map(|(merge, at)| entry(merge.rank, at)));
        while let Some(Reverse(top)) = heap.pop() {
            let (rank, at) = ((top >> 32) as u32, top as u32 as usize);
            // An entry whose symbols have changed has another rank by now.
            if merges[at].rank != rank {
                continue;
            }
            let (id, after) = (merges[at].id, next[at] as usize);
            ids[at] = id;
            merges[after] = NO_MERGE;
            next[at] = next[after];
            merges[at] = NO_MERGE;
            if next[at] != END {
                let follower = next[at] as usize;
                previous[follower] = at as u32;
                merges[at] = self.of(id, ids[follower]);
                if merges[at].rank != NEVER {
                    heap.push(entry(merges[at].rank, at as u32));
                }
            }
            if previous[at] != END {
                let before = previous[at] as usize;
                merges[before] = self.of(ids[before], id);
                if merges[before].rank != NEVER {
                    heap.push(entry(merges[before].rank, before as u32));
                }
            }
        }
        let mut at = if n == 0 { END } else { 0 };
        while at != END {
            out.push(ids[at as usize]);
            at = next[at as usize];
        }
    }
}

#[inline]
fn pair(a: u32, b: u32) -> u64 {
    u64::from(a) << 32 | u64::from(b)
}

#[inline]
fn place(pair: u64, shift: u32) -> usize {
    // The upper half is folded in first: a multiplication alone would leave it to few bits.
    ((pair ^ (pair >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> shift) as usize
}
