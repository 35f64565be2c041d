//! From pairs of samples to one ratio and how far it can be trusted.
//!
//! The two systems are measured alternately (A B, B A, A B, …), so that drift of the machine hits both. Each pair gives
//! one ratio. The result is the median of the ratios with a bootstrap 95 % interval (percentile method); no pair is
//! thrown away.

use anyhow::{Context, Result};
use serde::Serialize;

/// What a comparison came to.
#[derive(Clone, Debug, Serialize)]
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

/// Measures `pairs` pairs of (ours, theirs) in alternating order.
pub fn compare(
    pairs: usize,
    mut ours: impl FnMut() -> Result<f64>,
    mut theirs: impl FnMut() -> Result<f64>,
) -> Result<Ratio> {
    let mut left = Vec::with_capacity(pairs);
    let mut right = Vec::with_capacity(pairs);
    for pair in 0..pairs {
        if pair % 2 == 0 {
            left.push(ours()?);
            right.push(theirs()?);
        } else {
            right.push(theirs()?);
            left.push(ours()?);
        }
        eprint!(".");
    }
    eprintln!();
    let ratios: Vec<f64> = left.iter().zip(&right).map(|(ours, theirs)| ours / theirs).collect();
    let (low, high) = interval(&ratios).context("no pairs")?;
    Ok(Ratio { median: median(&ratios), low, high, ours: median(&left), theirs: median(&right), pairs })
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
    fn pairs_alternate_their_order() {
        let order = std::cell::RefCell::new(String::new());
        let note = |c: char| {
            order.borrow_mut().push(c);
            Ok(1.0)
        };
        let ratio = compare(4, || note('a'), || note('b')).unwrap();
        assert_eq!(order.borrow().as_str(), "abbaabba");
        assert_eq!(ratio.median, 1.0);
    }
}
