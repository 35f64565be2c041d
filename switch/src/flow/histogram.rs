//! How long handshakes took: a histogram of fixed bounds, as Prometheus wants it.

use std::time::Duration;

/// Upper bounds of the buckets, in µs: from a neighbour's answer out of memory to a slow path over an uplink.
pub(super) const BOUNDS_US: [u64; 16] = [
    25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
];

/// Observations by size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    within: [u64; BOUNDS_US.len()],
    beyond: u64,
    sum_us: u64,
}

impl Histogram {
    /// Adds one.
    pub fn observe(&mut self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS_US.partition_point(|bound| *bound < took_us);
        *self.within.get_mut(at).unwrap_or(&mut self.beyond) += 1;
        self.sum_us = self.sum_us.saturating_add(took_us);
    }

    /// Each upper bound, and how many lay at or below it.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let counts = self.within.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        BOUNDS_US.iter().map(|bound| Duration::from_micros(*bound)).zip(counts)
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.within.iter().sum::<u64>() + self.beyond
    }

    /// Their sum.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_lies_in_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::default();
        for took_us in [0, 25, 26, 1_000, 5_000_000, 5_000_001, u64::MAX] {
            histogram.observe(Duration::from_micros(took_us));
        }
        let at = |bound_us| histogram.cumulative().find(|(bound, _)| *bound == Duration::from_micros(bound_us));
        assert_eq!(at(25).map(|(_, count)| count), Some(2));
        assert_eq!(at(50).map(|(_, count)| count), Some(3));
        assert_eq!(at(1_000).map(|(_, count)| count), Some(4));
        assert_eq!(at(5_000_000).map(|(_, count)| count), Some(5));
        assert_eq!(histogram.count(), 7);
        assert_eq!(histogram.sum(), Duration::from_micros(u64::MAX));
    }
}
