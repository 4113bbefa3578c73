//! Sizes in bytes as people write them: `4GiB`, `512MiB`, `1.5GB`, `65536`.

const UNITS: [(&str, u64); 9] = [
    ("tib", 1 << 40),
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("tb", 1_000_000_000_000),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1_000),
    ("b", 1),
];

/// Bytes of a written size.
///
/// # Errors
/// A sentence for the command line: no number, an unknown unit, or out of range.
pub fn parse(text: &str) -> Result<u64, String> {
    let bad = || format!("expected a size such as 4GiB, 512MiB or 1000000, got `{text}`");
    let lower = text.trim().to_ascii_lowercase();
    let (number, unit) = UNITS
        .iter()
        .find_map(|&(name, bytes)| lower.strip_suffix(name).map(|number| (number, bytes)))
        .unwrap_or((lower.as_str(), 1));
    let number: f64 = number.trim().parse().map_err(|_| bad())?;
    let bytes = number * unit as f64;
    // 2^53: beyond it a float holds no exact count, and no machine has it.
    if !(1.0..=9_007_199_254_740_992.0).contains(&bytes) {
        return Err(bad());
    }
    Ok(bytes as u64)
}

/// A count of bytes with three digits or so.
pub fn show(bytes: u64) -> String {
    let found = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|&(_, shift)| bytes >= 1_u64 << shift);
    match found {
        Some((unit, shift)) => {
            let value = bytes as f64 / (1_u64 << shift) as f64;
            let digits = if value.fract() == 0.0 || value >= 100.0 { 0 } else { 1 };
            format!("{value:.digits$} {unit}")
        }
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_unit() {
        for (text, bytes) in [
            ("4GiB", 4 << 30),
            ("512 mib", 512 << 20),
            ("1.5GB", 1_500_000_000),
            ("65536", 65_536),
            ("7b", 7),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "-1", "0", "0.1", "nan", "inf", "1e300", "4 parsecs", "9000000TiB"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (4 << 30, "4 GiB"),
            (255 << 20, "255 MiB"),
        ] {
            assert_eq!(show(bytes), text);
        }
    }
}
