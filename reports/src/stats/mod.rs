//! The one place where numbers are summed up: percentiles, means, and intervals for means and paired ratios.
//!
//! Input is plain numbers. It imports nothing else of the crate, knows no record, arm or file, and reads no clock: the same
//! numbers and seed give the same result everywhere.

mod bootstrap;
mod interval;
mod least_squares;
mod proportion;
mod split_mix;

pub use bootstrap::{ClusteredMean, Pair, PairedRatio, Sample, clustered_mean, paired_ratio};
pub use interval::{expanded_tail, normal_cdf, student_t_975};
pub use least_squares::{Estimate, LeastSquares, least_squares};
pub use proportion::wilson;
pub use split_mix::SplitMix64;

/// Samples below which a 95th percentile says nothing: with fewer than 59, the chance that even the largest one lies under
/// the true 95th percentile exceeds 5 % (0.95^59 < 0.05).
pub const P95_SAMPLES_MIN: usize = 59;

/// The `q` quantile (`q` in 0..=1) by linear interpolation between order statistics: position `q * (n - 1)`, the default of
/// NumPy and R's type 7. Every percentile of the program is this one. `None` without samples; values that are not finite are
/// left out.
pub fn percentile(samples: &[f64], q: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = samples.iter().copied().filter(|x| x.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    percentile_of_sorted(&sorted, q)
}

/// [`percentile`] of samples that are finite and ascending already.
fn percentile_of_sorted(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = q.clamp(0.0, 1.0) * last as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    let share = position - below as f64;
    Some(sorted[below] + share * (sorted[above] - sorted[below]))
}

/// The middle value: [`percentile`] at 0.5.
pub fn median(samples: &[f64]) -> Option<f64> {
    percentile(samples, 0.5)
}

/// Arithmetic mean; `None` without samples.
pub fn mean(samples: &[f64]) -> Option<f64> {
    if samples.is_empty() { None } else { Some(samples.iter().sum::<f64>() / samples.len() as f64) }
}

/// Largest sample; `None` without finite ones.
pub fn maximum(samples: &[f64]) -> Option<f64> {
    samples.iter().copied().filter(|x| x.is_finite()).max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn percentile_agrees_with_counting(samples in proptest::collection::vec(-1e6_f64..1e6, 1..60), q in 0.0_f64..=1.0) {
            // The slow twin: order statistics by counting how many samples lie below each one.
            let nth = |n: usize| -> f64 {
                let below = |x: f64| samples.iter().filter(|&&other| other < x).count();
                samples.iter().copied().filter(|&x| below(x) <= n).fold(f64::NEG_INFINITY, f64::max)
            };
            let position = q * (samples.len() - 1) as f64;
            let (low, high) = (nth(position.floor() as usize), nth(position.ceil() as usize));
            let expected = low + (high - low) * position.fract();
            let got = percentile(&samples, q).unwrap();
            prop_assert!((got - expected).abs() <= 1e-6, "{} against {}", got, expected);
        }
    }

    #[test]
    fn percentile_follows_numpy_linear() {
        // numpy.percentile([15, 20, 35, 40, 50], [0, 5, 30, 40, 95, 100])
        let samples = [35.0, 20.0, 15.0, 50.0, 40.0];
        for (q, expected) in [(0.0, 15.0), (0.05, 16.0), (0.3, 23.0), (0.4, 29.0), (0.95, 48.0), (1.0, 50.0)]
        {
            let got = percentile(&samples, q).unwrap();
            assert!((got - expected).abs() < 1e-12, "q {q}: {got} against {expected}");
        }
    }

    #[test]
    fn nothing_in_gives_nothing_out() {
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(percentile(&[f64::NAN], 0.5), None);
        assert_eq!(mean(&[]), None);
        assert_eq!(maximum(&[]), None);
    }

    #[test]
    fn one_sample_is_every_percentile() {
        for q in [0.0, 0.5, 0.95, 1.0] {
            assert_eq!(percentile(&[7.0], q), Some(7.0));
        }
    }

    #[test]
    fn median_of_even_count_is_halfway() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn p95_threshold_is_the_binomial_one() {
        let n = P95_SAMPLES_MIN as i32;
        assert!(0.95_f64.powi(n) < 0.05 && 0.95_f64.powi(n - 1) > 0.05);
    }
}
