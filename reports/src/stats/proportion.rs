//! The interval of a share: how often out of how many.

/// 0.975 quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// The 95 % score interval of `successes` out of `n`: E. B. Wilson, "Probable inference, the law of succession, and
/// statistical inference", JASA 22 (1927). It stays within 0 and 1 and is not empty at either of them. `None` where `n` is 0;
/// more successes than `n` count as `n`.
pub fn wilson(successes: u64, n: u64) -> Option<(f64, f64)> {
    if n == 0 {
        return None;
    }
    let share = successes.min(n) as f64 / n as f64;
    let n = n as f64;
    let centre = share + Z * Z / (2.0 * n);
    let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    // Rounding must not keep the ends from 0 and 1, where they are exactly that.
    let low = if successes == 0 { 0.0 } else { (centre - half) / scale };
    let high = if share == 1.0 { 1.0 } else { (centre + half) / scale };
    Some((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method 3 in table I of R. G. Newcombe, "Two-sided confidence intervals for the single proportion: comparison of
    /// seven methods", Statistics in Medicine 17 (1998).
    #[test]
    fn printed_intervals() {
        for (successes, n, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let (got_low, got_high) = wilson(successes, n).unwrap();
            let close = (got_low - low).abs() < 6e-5 && (got_high - high).abs() < 6e-5;
            assert!(close, "{successes}/{n}: {got_low} {got_high}");
        }
    }

    #[test]
    fn nothing_counted_has_no_interval_and_every_interval_holds_its_share() {
        assert_eq!(wilson(0, 0), None);
        for n in 1..200 {
            for successes in 0..=n {
                let (low, high) = wilson(successes, n).unwrap();
                let share = successes as f64 / n as f64;
                assert!(0.0 <= low && low <= share && share <= high && high <= 1.0 && low < high);
            }
        }
    }
}
