//! A histogram with fixed buckets.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Exposition;

/// Counts values by size.
#[derive(Debug)]
pub(super) struct Histogram {
    /// Upper bounds, inclusive, ascending.
    bounds: &'static [f64],
    /// One more than the bounds: the last is for larger values.
    counts: Box<[AtomicU64]>,
    /// Bits of an `f64`.
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::default()).collect();
        Self { bounds, counts, sum: AtomicU64::default() }
    }

    pub(super) fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let add = |sum| Some((f64::from_bits(sum) + value).to_bits());
        // The closure never refuses.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Writes the buckets, which are cumulative in Prometheus, the sum and the count.
    pub(super) fn write(&self, name: &str, labels: &[(&str, &str)], page: &mut Exposition) {
        let mut total = 0;
        let bucket_name = format!("{name}_bucket");
        for (at, count) in self.counts.iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            let bound = self.bounds.get(at).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            page.sample(&bucket_name, &labels, total as f64);
        }
        page.sample(&format!("{name}_sum"), labels, f64::from_bits(self.sum.load(Ordering::Relaxed)));
        page.sample(&format!("{name}_count"), labels, total as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_their_bounds_inclusive() {
        let histogram = Histogram::new(&[0.5, 1.0, 2.5]);
        for value in [0.25, 0.5, 0.75, 2.5, 100.0] {
            histogram.observe(value);
        }
        let mut page = Exposition::default();
        histogram.write("t", &[("m", "x")], &mut page);
        let expected = "andiron:t_bucket{m=\"x\",le=\"0.5\"} 2\n\
                        andiron:t_bucket{m=\"x\",le=\"1\"} 3\n\
                        andiron:t_bucket{m=\"x\",le=\"2.5\"} 4\n\
                        andiron:t_bucket{m=\"x\",le=\"+Inf\"} 5\n\
                        andiron:t_sum{m=\"x\"} 104\n\
                        andiron:t_count{m=\"x\"} 5\n";
        assert_eq!(page.into_text(), expected);
    }
}
