//! Sets of documents that are joined in any order, with the same result.

/// Disjoint sets of numbers. Each set is known by its smallest number, whatever the order of joining.
///
/// Source: Tarjan 1975, "Efficiency of a good but not linear set union algorithm", <https://doi.org/10.1145/321879.321884>; sets are
/// joined by number instead of by size, with paths halved.
pub(super) struct Clusters {
    parent: Vec<u32>,
}

impl Clusters {
    /// Each number alone.
    pub(super) fn new(n: u32) -> Self {
        Self { parent: (0..n).collect() }
    }

    /// The smallest number of the set.
    pub(super) fn first(&mut self, mut number: u32) -> u32 {
        loop {
            let parent = self.parent[number as usize];
            let above = self.parent[parent as usize];
            if above == parent {
                return parent;
            }
            self.parent[number as usize] = above;
            number = above;
        }
    }

    pub(super) fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.first(a), self.first(b));
        self.parent[a.max(b) as usize] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_known_by_its_smallest_number() {
        let pairs = [(5, 3), (9, 8), (3, 9), (1, 2), (7, 7)];
        for rotation in 0..pairs.len() {
            let mut pairs = pairs;
            pairs.rotate_left(rotation);
            let mut clusters = Clusters::new(10);
            for (a, b) in pairs {
                clusters.join(a, b);
            }
            let firsts: Vec<_> = (0..10).map(|number| clusters.first(number)).collect();
            assert_eq!(firsts, [0, 1, 1, 3, 4, 3, 6, 7, 3, 3]);
        }
    }
}
