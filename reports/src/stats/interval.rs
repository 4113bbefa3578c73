//! How wide a percentile interval must be when there are few clusters.
//!
//! The plain bootstrap percentile interval is too narrow for small n. Hesterberg ("What teachers should know about the
//! bootstrap", The American Statistician 69, 2015, section 5) widens it: the tail share `alpha / 2` becomes
//! `Phi(-sqrt(n / (n - 1)) * t[1 - alpha / 2, n - 1])`. Only 95 % intervals are made.

/// Share of the draws to leave out on each side for a 95 % interval over `n` clusters; 0 (take the extremes) where `n` < 2.
/// At n = 10 it is 0.0086, and it tends to 0.025.
pub fn expanded_tail(n: usize) -> f64 {
    if n < 2 {
        return 0.0;
    }
    let n = n as f64;
    normal_cdf(-(n / (n - 1.0)).sqrt() * student_t_975(n - 1.0))
}

/// 0.975 quantile of Student's t with `df` >= 1 degrees of freedom: Hill, "Algorithm 396: Student's t-quantiles", CACM 13
/// (1970), at two-tailed probability 0.05. Accurate to about 1e-4 or better, exact for 1 and 2 degrees.
pub fn student_t_975(df: f64) -> f64 {
    const P: f64 = 0.05;
    const NORMAL_025: f64 = -1.959_963_984_540_054;
    if df < 1.5 {
        let angle = P * std::f64::consts::FRAC_PI_2;
        return angle.cos() / angle.sin();
    }
    if df < 2.5 {
        return (2.0 / (P * (2.0 - P)) - 2.0).sqrt();
    }
    let a = 1.0 / (df - 0.5);
    let b = 48.0 / (a * a);
    let mut c = ((20_700.0 * a / b - 98.0) * a - 16.0) * a + 96.36;
    let d = ((94.5 / (b + c) - 3.0) / b + 1.0) * (a * std::f64::consts::FRAC_PI_2).sqrt() * df;
    let mut y = (d * P).powf(2.0 / df);
    if y > 0.05 + a {
        let x = NORMAL_025;
        y = x * x;
        if df < 5.0 {
            c += 0.3 * (df - 4.5) * (x + 0.6);
        }
        c += (((0.05 * d * x - 5.0) * x - 7.0) * x - 2.0) * x + b;
        y = (((((0.4 * y + 6.3) * y + 36.0) * y + 94.5) / c - y - 3.0) / b + 1.0) * x;
        y = (a * y * y).exp_m1();
    } else {
        y = ((1.0 / (((df + 6.0) / (df * y) - 0.089 * d - 0.822) * (df + 2.0) * 3.0) + 0.5 / (df + 4.0)) * y
            - 1.0)
            * (df + 1.0)
            / (df + 2.0)
            + 1.0 / y;
    }
    (df * y).sqrt()
}

/// Standard normal distribution function, absolute error below 2e-7: Chebyshev form of erfc in Press et al., "Numerical
/// Recipes in C", section 6.2.
pub fn normal_cdf(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let z = x.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * z);
    let series = COEFFICIENTS.iter().rev().fold(0.0, |sum, c| sum * t + c);
    let tail = 0.5 * t * (-z * z + series).exp();
    if x > 0.0 { 1.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_quantiles_match_the_printed_table() {
        for (df, expected) in [
            (1.0, 12.706),
            (2.0, 4.303),
            (3.0, 3.182),
            (4.0, 2.776),
            (5.0, 2.571),
            (9.0, 2.262),
            (30.0, 2.042),
            (100.0, 1.984),
            (1e6, 1.960),
        ] {
            let got = student_t_975(df);
            assert!((got - expected).abs() < 1.5e-3, "df {df}: {got} against {expected}");
        }
    }

    #[test]
    fn normal_cdf_matches_known_points() {
        for (x, expected) in [(0.0, 0.5), (1.0, 0.841_344_746), (-1.96, 0.024_997_895), (3.0, 0.998_650_102)]
        {
            assert!((normal_cdf(x) - expected).abs() < 3e-7, "{x}: {}", normal_cdf(x));
        }
    }

    #[test]
    fn tail_widens_for_few_clusters() {
        assert!((expanded_tail(10) - 0.008_6).abs() < 1e-4, "{}", expanded_tail(10));
        assert!((expanded_tail(100_000) - 0.025).abs() < 1e-4);
        assert_eq!(expanded_tail(1), 0.0);
        assert!(expanded_tail(2) < 1e-12);
        assert!((2..200).all(|n| expanded_tail(n) < expanded_tail(n + 1)));
    }
}
