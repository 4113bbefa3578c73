//! Numbers as people read them: three or four digits and a unit, the same in every page. Formats only; a missing number is the
//! caller's [`MISSING`] sign.

/// Stands where a number is missing.
pub const MISSING: &str = "–";

/// Milliseconds in the unit that needs the fewest digits: `0.42 ms`, `812 ms`, `4.71 s`, `241.7 s`.
pub fn duration(ms: f64) -> String {
    let size = ms.abs();
    if size < 9.995 {
        format!("{ms:.2} ms")
    } else if size < 99.95 {
        format!("{ms:.1} ms")
    } else if size < 999.5 {
        format!("{ms:.0} ms")
    } else if size < 9_995.0 {
        format!("{:.2} s", ms / 1e3)
    } else {
        format!("{} s", grouped(ms / 1e3, 1))
    }
}

/// A factor: `3.08x`, `16.5x`, `120x`.
pub fn factor(ratio: f64) -> String {
    let digits = if ratio.abs() < 9.995 {
        2
    } else if ratio.abs() < 99.95 {
        1
    } else {
        0
    };
    format!("{ratio:.digits$}x")
}

/// A share of 1 in percent: `0 %`, `0.4 %`, `99.6 %`, `100 %`. Only all of it prints as 100 and only none of it as 0.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent == 0.0 || percent == 100.0 {
        return format!("{percent:.0} %");
    }
    if percent > 0.0 && percent < 0.1 {
        return "<0.1 %".to_string();
    }
    if percent < 0.0 && percent > -0.1 {
        return ">-0.1 %".to_string();
    }
    if percent < 100.0 && percent > 99.9 {
        return ">99.9 %".to_string();
    }
    format!("{percent:.1} %")
}

/// A kept share in thousandths as people say it: `1`, `1/8`, `1/22`, and in percent what is no such fraction.
pub fn kept_share(permille: u64) -> String {
    const PARTS_MAX: u64 = 64;
    let nth = |parts: u64| (1000.0 / parts as f64).round() as u64;
    match (1..=PARTS_MAX).find(|&parts| nth(parts) == permille) {
        Some(1) => "1".to_string(),
        Some(parts) => format!("1/{parts}"),
        None => percent(permille as f64 / 1000.0),
    }
}

/// A count, rounded, in groups of three: `98,277`.
pub fn count(value: f64) -> String {
    grouped(value, 0)
}

/// Bytes in binary units: `512 B`, `1.5 GiB`.
pub fn bytes(value: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = value;
    let mut unit = 0;
    while scaled.abs() >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{scaled:.0} B") } else { format!("{scaled:.1} {}", UNITS[unit]) }
}

/// Energy: `0.42 J`, `12.5 J`, `3.21 kJ`.
pub fn energy(joules: f64) -> String {
    if joules.abs() < 9.995 {
        format!("{joules:.2} J")
    } else if joules.abs() < 999.95 {
        format!("{joules:.1} J")
    } else {
        format!("{:.2} kJ", joules / 1e3)
    }
}

/// A fitted number with three or four digits: `0.017`, `8.95`, `32.7`, `1,227`. What rounding of doubles leaves of nothing is 0.
pub fn measured(value: f64) -> String {
    match value.abs() {
        size if size < 1e-9 => "0".to_string(),
        size if size < 0.000_5 => "<0.001".to_string(),
        size if size < 0.1 => format!("{value:.3}"),
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => count(value),
    }
}

/// The number by `format`, or [`MISSING`].
pub fn or_missing(value: Option<f64>, format: fn(f64) -> String) -> String {
    value.map_or_else(|| MISSING.to_string(), format)
}

/// `"1 call"`, `"3 calls"`: a count with its noun, whose plural takes an s.
pub fn counted(n: u64, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(n as f64))
}

fn grouped(value: f64, decimals: usize) -> String {
    let plain = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut out = String::new();
    if value < 0.0 && plain.bytes().any(|b| (b'1'..=b'9').contains(&b)) {
        out.push('-');
    }
    for (position, digit) in whole.chars().enumerate() {
        if position > 0 && (whole.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_three_or_four_digits() {
        for (ms, expected) in [
            (0.0, "0.00 ms"),
            (4.712, "4.71 ms"),
            (42.04, "42.0 ms"),
            (812.4, "812 ms"),
            (999.6, "1.00 s"),
            (4_712.0, "4.71 s"),
            (241_700.0, "241.7 s"),
            (1_234_567.0, "1,234.6 s"),
        ] {
            assert_eq!(duration(ms), expected);
        }
    }

    #[test]
    fn percent_is_exact_at_its_ends() {
        for (share, expected) in [
            (0.0, "0 %"),
            (0.000_1, "<0.1 %"),
            (0.5, "50.0 %"),
            (0.999_9, ">99.9 %"),
            (1.0, "100 %"),
            (-0.02, "-2.0 %"),
            (-0.000_1, ">-0.1 %"),
        ] {
            assert_eq!(percent(share), expected);
        }
    }

    #[test]
    fn fitted_numbers_keep_three_digits() {
        for (value, expected) in [
            (0.0, "0"),
            (-3e-14, "0"),
            (2e-5, "<0.001"),
            (0.0174, "0.017"),
            (8.952, "8.95"),
            (32.71, "32.7"),
            (1_227.4, "1,227"),
        ] {
            assert_eq!(measured(value), expected);
        }
    }

    #[test]
    fn counts_bytes_and_factors() {
        assert_eq!(count(98_277.0), "98,277");
        assert_eq!(count(-1_234.0), "-1,234");
        assert_eq!(count(-0.2), "0");
        assert_eq!(bytes(512.0), "512 B");
        assert_eq!(bytes(1.5 * 1_073_741_824.0), "1.5 GiB");
        assert_eq!(
            (factor(3.077), factor(16.52), factor(119.7)),
            ("3.08x".into(), "16.5x".into(), "120x".into())
        );
        assert_eq!((energy(12.5), energy(3_210.0)), ("12.5 J".into(), "3.21 kJ".into()));
        assert_eq!((energy(0.418), energy(-3.0)), ("0.42 J".into(), "-3.00 J".into()));
        assert_eq!((counted(1, "call"), counted(3, "call")), ("1 call".into(), "3 calls".into()));
        assert_eq!(or_missing(None, count), MISSING);
    }
}
