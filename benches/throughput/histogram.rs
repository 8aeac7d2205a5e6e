//! Latencies in logarithmic buckets: constant memory, a bounded relative error, and histograms of several
//! connections, threads and rounds add up.

use serde::{Deserialize, Serialize};

/// Each power of two is cut into this many buckets: a value is known to within 1/64, 1.6 %.
const STEPS: u64 = 64;
/// Below this every value has its own bucket.
const EXACT: u64 = 2 * STEPS;

/// Counts of values by bucket. The unit is the caller's; here it is always microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Sparse", into = "Sparse")]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

/// The form on the wire: only buckets that hold something.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Sparse {
    max: u64,
    buckets: Vec<(usize, u64)>,
}

impl Histogram {
    /// Counts one value.
    pub(crate) fn record(&mut self, value: u64) {
        let bucket = bucket_of(value);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// Adds another histogram's counts.
    pub(crate) fn merge(&mut self, other: &Self) {
        if other.buckets.len() > self.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// How many values were counted.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The largest value, exact; 0 when empty.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// The value that `permille` in a thousand do not exceed, rounded up to its bucket's end; 0 when empty.
    pub(crate) fn permille(&self, permille: u64) -> u64 {
        let rank = (self.count * permille).div_ceil(1_000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return end_of(bucket).min(self.max);
            }
        }
        self.max
    }
}

impl From<Sparse> for Histogram {
    fn from(sparse: Sparse) -> Self {
        let mut histogram = Self { max: sparse.max, ..Self::default() };
        for (bucket, count) in sparse.buckets {
            // 64-bit values end below this bucket; anything above did not come from `bucket_of`.
            if bucket > bucket_of(u64::MAX) {
                continue;
            }
            if bucket >= histogram.buckets.len() {
                histogram.buckets.resize(bucket + 1, 0);
            }
            histogram.buckets[bucket] += count;
            histogram.count += count;
        }
        histogram
    }
}

impl From<Histogram> for Sparse {
    fn from(histogram: Histogram) -> Self {
        let filled = histogram.buckets.into_iter().enumerate().filter(|(_, count)| *count > 0);
        Self { max: histogram.max, buckets: filled.collect() }
    }
}

fn bucket_of(value: u64) -> usize {
    let index = if value < EXACT {
        value
    } else {
        let shift = u64::from(value.ilog2()) - u64::from(STEPS.ilog2());
        EXACT + (shift - 1) * STEPS + ((value >> shift) - STEPS)
    };
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The largest value that falls into the bucket.
fn end_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket;
    }
    let shift = (bucket - EXACT) / STEPS + 1;
    let step = (bucket - EXACT) % STEPS + STEPS;
    // The last bucket ends with the last 64-bit number, so the first number after it does not fit.
    ((u128::from(step + 1) << shift) - 1).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_values_are_exact() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|value| histogram.record(value));
        assert_eq!(histogram.permille(500), 50);
        assert_eq!(histogram.permille(990), 99);
        assert_eq!(histogram.permille(1_000), 100);
        assert_eq!(histogram.max(), 100);
    }

    #[test]
    fn an_empty_histogram_has_zeroes() {
        let histogram = Histogram::default();
        assert_eq!((histogram.count(), histogram.permille(990), histogram.max()), (0, 0, 0));
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_value_within_the_promised_error(value: u64) {
            let bucket = bucket_of(value);
            let end = end_of(bucket);
            prop_assert!(end >= value);
            prop_assert!(end - value <= value / STEPS);
            prop_assert!(bucket == 0 || end_of(bucket - 1) < value);
        }

        #[test]
        fn merging_equals_recording_together(a: Vec<u32>, b: Vec<u32>) {
            let of = |values: &[u32]| {
                let mut histogram = Histogram::default();
                for value in values {
                    histogram.record(u64::from(*value));
                }
                histogram
            };
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(merged, of(&[a, b].concat()));
        }

        #[test]
        fn it_survives_the_wire(values: Vec<u64>) {
            let mut histogram = Histogram::default();
            for value in &values {
                histogram.record(*value);
            }
            let text = serde_json::to_string(&histogram).expect("numbers serialise");
            let back: Histogram = serde_json::from_str(&text).expect("our own text parses");
            prop_assert_eq!(back, histogram);
        }
    }
}
