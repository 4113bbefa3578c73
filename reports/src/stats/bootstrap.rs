//! Paired ratios and means with a bootstrap interval.
//!
//! A pair holds two measurements of the same thing, here a call under two arms. Pairs of one cluster (a session) are not
//! independent of each other, so whole clusters are drawn; so they are for means of plain samples.

use std::collections::BTreeMap;

use super::{SplitMix64, expanded_tail, percentile_of_sorted};

/// Draws of the bootstrap.
const DRAWS: usize = 10_000;

/// One pair of positive measurements of the same thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// Cluster the pair belongs to; clusters are drawn whole.
    pub cluster: usize,
    /// Measured on the side that is compared against.
    pub baseline: f64,
    /// Measured on the side that is judged.
    pub candidate: f64,
}

/// How much smaller the candidate is, as `baseline / candidate`: above 1 is smaller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedRatio {
    /// Sum of the baseline over sum of the candidate: what a user who waits for all of it sees.
    pub of_sums: f64,
    /// The two sums: baseline, candidate.
    pub sums: (f64, f64),
    /// 95 % bootstrap interval of `of_sums`, ends by the expanded percentile; `None` with one cluster.
    pub of_sums_interval: Option<(f64, f64)>,
    /// exp of the mean log ratio, averaged within clusters and then over them: what a typical pair sees.
    pub typical: f64,
    /// Pairs used.
    pub n_pairs: usize,
    /// Clusters the pairs fall into.
    pub n_clusters: usize,
}

/// Sums over one cluster.
#[derive(Clone, Copy, Default)]
struct ClusterSums {
    baseline: f64,
    candidate: f64,
    log_ratio: f64,
    n: f64,
}

/// Ratio of the pairs, with its interval from 10,000 seeded draws of clusters. Pairs that are not finite and positive on both
/// sides are left out; `None` where no pair is left.
pub fn paired_ratio(pairs: &[Pair], seed: u64) -> Option<PairedRatio> {
    let usable = |x: f64| x.is_finite() && x > 0.0;
    let mut clusters: BTreeMap<usize, ClusterSums> = BTreeMap::new();
    let mut n_pairs = 0;
    for pair in pairs.iter().filter(|p| usable(p.baseline) && usable(p.candidate)) {
        let sums = clusters.entry(pair.cluster).or_default();
        sums.baseline += pair.baseline;
        sums.candidate += pair.candidate;
        sums.log_ratio += (pair.baseline / pair.candidate).ln();
        sums.n += 1.0;
        n_pairs += 1;
    }
    if n_pairs == 0 {
        return None;
    }
    let clusters: Vec<ClusterSums> = clusters.into_values().collect();
    let (baseline, candidate) =
        clusters.iter().fold((0.0, 0.0), |(b, c), s| (b + s.baseline, c + s.candidate));
    let mean_log = clusters.iter().map(|s| s.log_ratio / s.n).sum::<f64>() / clusters.len() as f64;
    Some(PairedRatio {
        of_sums: baseline / candidate,
        sums: (baseline, candidate),
        of_sums_interval: interval(clusters.iter().map(|s| (s.baseline, s.candidate)), seed),
        typical: mean_log.exp(),
        n_pairs,
        n_clusters: clusters.len(),
    })
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Cluster it belongs to; clusters are drawn whole.
    pub cluster: usize,
    /// What was measured: a quantity, a difference, or 0 and 1 for a share.
    pub value: f64,
}

/// The mean of samples that come in clusters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClusteredMean {
    /// Mean over the samples.
    pub mean: f64,
    /// Its 95 % bootstrap interval, ends by the expanded percentile; `None` with one cluster.
    pub interval: Option<(f64, f64)>,
    /// Samples used.
    pub n: usize,
    /// Clusters they fall into.
    pub n_clusters: usize,
}

/// Mean of the samples, with its interval from 10,000 seeded draws of clusters. Samples that are not finite are left out; `None`
/// where none is left.
pub fn clustered_mean(samples: &[Sample], seed: u64) -> Option<ClusteredMean> {
    let mut clusters: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.value.is_finite()) {
        let (sum, n) = clusters.entry(sample.cluster).or_default();
        *sum += sample.value;
        *n += 1.0;
    }
    let (sum, n) = clusters.values().fold((0.0, 0.0), |total, c| (total.0 + c.0, total.1 + c.1));
    (n > 0.0).then(|| ClusteredMean {
        mean: sum / n,
        interval: interval(clusters.values().copied(), seed),
        n: n as usize,
        n_clusters: clusters.len(),
    })
}

/// Ends of the 95 % interval of the ratio of two sums over clusters, each given by its part of both.
fn interval(clusters: impl Iterator<Item = (f64, f64)>, seed: u64) -> Option<(f64, f64)> {
    let clusters: Vec<(f64, f64)> = clusters.collect();
    let n = clusters.len();
    if n < 2 {
        return None;
    }
    let mut rng = SplitMix64::new(seed);
    let mut ratios: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let (mut above, mut below) = (0.0, 0.0);
            for _ in 0..n {
                let drawn = clusters[rng.below(n)];
                above += drawn.0;
                below += drawn.1;
            }
            above / below
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let tail = expanded_tail(n);
    Some((percentile_of_sorted(&ratios, tail)?, percentile_of_sorted(&ratios, 1.0 - tail)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn scaling_the_candidate_scales_everything(
            values in proptest::collection::vec((0_usize..4, 1.0_f64..1e3, 1.0_f64..1e3), 1..20),
            factor in 0.1_f64..10.0,
        ) {
            let plain = paired_ratio(&pairs(&values), 3).unwrap();
            let scaled: Vec<_> = values.iter().map(|&(c, b, a)| (c, b, a * factor)).collect();
            let scaled = paired_ratio(&pairs(&scaled), 3).unwrap();
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
            prop_assert!(close(plain.of_sums, scaled.of_sums * factor));
            prop_assert!(close(plain.typical, scaled.typical * factor));
            if let (Some(a), Some(b)) = (plain.of_sums_interval, scaled.of_sums_interval) {
                prop_assert!(close(a.0, b.0 * factor) && close(a.1, b.1 * factor));
                prop_assert!(a.0 <= a.1);
            }
        }
    }

    fn pairs(values: &[(usize, f64, f64)]) -> Vec<Pair> {
        values.iter().map(|&(cluster, baseline, candidate)| Pair { cluster, baseline, candidate }).collect()
    }

    #[test]
    fn seed_table_gives_its_published_speedup() {
        // Ten-call sums of the cache-only pair the project started from: 241.7 s against 78.6 s.
        let ratio = paired_ratio(&pairs(&[(0, 241.7, 78.6)]), 1).unwrap();
        assert!((ratio.of_sums - 3.075).abs() < 1e-3);
        assert_eq!((ratio.of_sums_interval, ratio.n_pairs, ratio.n_clusters), (None, 1, 1));
    }

    #[test]
    fn sums_and_typical_pair_differ_where_one_call_dominates() {
        let ratio = paired_ratio(&pairs(&[(0, 1000.0, 100.0), (1, 10.0, 10.0)]), 1).unwrap();
        assert!((ratio.of_sums - 1010.0 / 110.0).abs() < 1e-12);
        assert!((ratio.typical - 10.0_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn constant_ratio_has_an_interval_of_no_width() {
        let all: Vec<_> = (0..8).map(|i| (i, 2.0 * (i + 1) as f64, (i + 1) as f64)).collect();
        let ratio = paired_ratio(&pairs(&all), 9).unwrap();
        let (low, high) = ratio.of_sums_interval.unwrap();
        assert!((low - 2.0).abs() < 1e-12 && (high - 2.0).abs() < 1e-12);
    }

    #[test]
    fn interval_holds_the_point_and_repeats_with_its_seed() {
        let all: Vec<_> =
            (0..12).map(|i| (i, 100.0 + (i * 37 % 50) as f64, 40.0 + (i * 17 % 30) as f64)).collect();
        let first = paired_ratio(&pairs(&all), 5).unwrap();
        let again = paired_ratio(&pairs(&all), 5).unwrap();
        assert_eq!(first, again);
        let (low, high) = first.of_sums_interval.unwrap();
        assert!(low < first.of_sums && first.of_sums < high);
    }

    fn samples(values: &[(usize, f64)]) -> Vec<Sample> {
        values.iter().map(|&(cluster, value)| Sample { cluster, value }).collect()
    }

    #[test]
    fn a_mean_weighs_samples_and_draws_clusters() {
        let mean = clustered_mean(&samples(&[(0, 1.0), (0, 1.0), (0, 1.0), (1, 0.0)]), 1).unwrap();
        assert_eq!((mean.mean, mean.n, mean.n_clusters), (0.75, 4, 2));
        // Two clusters: drawn are both of one, both of the other, or one each.
        assert_eq!(mean.interval, Some((0.0, 1.0)));
        let one = clustered_mean(&samples(&[(3, 1.0), (3, 2.0), (3, f64::NAN)]), 1).unwrap();
        assert_eq!((one.mean, one.interval, one.n), (1.5, None, 2));
        assert_eq!(clustered_mean(&samples(&[(0, f64::INFINITY)]), 1), None);
    }

    /// Three clusters of one sample each: of the 27 equally likely draws, the share below a value is counted by hand.
    #[test]
    fn the_interval_of_a_mean_is_the_quantile_of_its_draws() {
        let values = [0.0, 1.0, 5.0];
        let mean = clustered_mean(&samples(&[(0, 0.0), (1, 1.0), (2, 5.0)]), 5).unwrap();
        let mut all = Vec::new();
        for a in values {
            for b in values {
                all.extend(values.map(|c| (a + b + c) / 3.0));
            }
        }
        all.sort_by(f64::total_cmp);
        let tail = expanded_tail(3);
        assert!(tail < 1.0 / 27.0, "the ends are the extremes of every draw: {tail}");
        assert_eq!(mean.interval, Some((all[0], all[26])));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_mean_moves_and_scales_with_its_samples(
            values in proptest::collection::vec((0_usize..5, -1e3_f64..1e3), 1..24),
            shift in -10.0_f64..10.0,
            factor in 0.1_f64..10.0,
        ) {
            let plain = clustered_mean(&samples(&values), 3).unwrap();
            let other: Vec<_> = values.iter().map(|&(c, v)| (c, v * factor + shift)).collect();
            let other = clustered_mean(&samples(&other), 3).unwrap();
            let close = |a: f64, b: f64| (a * factor + shift - b).abs() <= 1e-6;
            prop_assert!(close(plain.mean, other.mean));
            prop_assert_eq!(plain.interval.is_some(), other.interval.is_some());
            if let (Some(a), Some(b)) = (plain.interval, other.interval) {
                prop_assert!(close(a.0, b.0) && close(a.1, b.1));
                prop_assert!(a.0 <= plain.mean + 1e-9 && plain.mean <= a.1 + 1e-9);
            }
        }
    }

    #[test]
    fn unusable_pairs_are_left_out() {
        let ratio = paired_ratio(&pairs(&[(0, 4.0, 2.0), (1, 0.0, 2.0), (2, 3.0, f64::NAN)]), 1).unwrap();
        assert_eq!((ratio.of_sums, ratio.n_pairs), (2.0, 1));
        assert_eq!(paired_ratio(&[], 1), None);
    }
}
