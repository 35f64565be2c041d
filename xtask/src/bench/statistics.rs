//! From pairs of samples to one ratio and how far it can be trusted.
//!
//! Systems are measured alternately (A B, B A, A B, …), so that drift of the machine hits all. Each pair gives one ratio. The result is the median of the ratios with a bootstrap 95 % interval (percentile method); no pair is
//! thrown away.

use serde::{Deserialize, Serialize};

/// What a comparison came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ratio {
    /// Median of the pairs' ratios, ours over theirs.
    pub median: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
    /// Median of our samples, in the row's unit.
    pub ours: f64,
    /// Median of their samples, in the row's unit.
    pub theirs: f64,
    /// Pairs measured.
    pub pairs: usize,
}

impl Ratio {
    /// Of samples that were taken in pairs, ours first; nothing without pairs.
    pub fn of(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        let (low, high) = interval(&ratios).filter(|_| !ratios.is_empty())?;
        let pairs = ratios.len();
        Some(Self { median: median(&ratios), low, high, ours: median(ours), theirs: median(theirs), pairs })
    }
}

/// Who is measured when: everyone once per round, in an order that is turned around from round to round (A B C, C B A,
/// A B C, …), so that drift of the machine hits all alike.
pub fn order(systems: usize, round: usize) -> Vec<usize> {
    if round.is_multiple_of(2) { (0..systems).collect() } else { (0..systems).rev().collect() }
}

/// The value below which so many percent of the others are; not a number when there is none.
pub fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or(f64::NAN)
}

/// The middle value, or the mean of the two in the middle; not a number when there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match (sorted.len() % 2, half.checked_sub(1).and_then(|before| sorted.get(before)), sorted.get(half)) {
        (0, Some(before), Some(after)) => f64::midpoint(*before, *after),
        (_, _, Some(middle)) => *middle,
        _ => f64::NAN,
    }
}

/// Bootstrap 95 % interval of the median.
fn interval(values: &[f64]) -> Option<(f64, f64)> {
    const RESAMPLES: usize = 4000;
    // A fixed seed: the same samples give the same interval.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut medians = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let draw = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).ok().and_then(|n| values.get(n % values.len())).copied()
        };
        let sample: Option<Vec<f64>> = std::iter::repeat_with(draw).take(values.len()).collect();
        medians.push(median(&sample?));
    }
    medians.sort_by(f64::total_cmp);
    Some((*medians.get(RESAMPLES / 40)?, *medians.get(RESAMPLES - 1 - RESAMPLES / 40)?))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::float_cmp, reason = "a test may panic, and these numbers are exact")]
    use super::*;

    #[test]
    fn the_median_of_odd_and_even_counts() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_interval_holds_the_median_and_grows_with_the_spread() {
        let narrow: Vec<f64> = (0..15).map(|n| 1.0 + f64::from(n) / 1000.0).collect();
        let wide: Vec<f64> = (0..15).map(|n| 1.0 + f64::from(n) / 10.0).collect();
        let (a, b) = interval(&narrow).unwrap();
        let (c, d) = interval(&wide).unwrap();
        assert!(a <= median(&narrow) && median(&narrow) <= b);
        assert!(d - c > b - a);
    }

    #[test]
    fn everyone_is_measured_once_a_round_and_the_order_turns() {
        assert_eq!([order(3, 0), order(3, 1), order(3, 2)], [vec![0, 1, 2], vec![2, 1, 0], vec![0, 1, 2]]);
    }

    #[test]
    fn a_ratio_is_of_pairs_and_not_of_medians() {
        let ratio = Ratio::of(&[1.0, 20.0, 3.0], &[2.0, 10.0, 6.0]).unwrap();
        assert_eq!((ratio.median, ratio.ours, ratio.theirs, ratio.pairs), (0.5, 3.0, 6.0, 3));
        assert!(Ratio::of(&[], &[]).is_none());
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((percentile(&values, 99), percentile(&values, 50)), (198.0, 100.0));
        assert_eq!(percentile(&[7.0], 99), 7.0);
        assert!(percentile(&[], 99).is_nan());
    }
}
