//! Numbers as recordings hold them: some programs write them as text. Knows no member by name.

use serde_json::Value;

/// Whole numbers up to here are exact in a float.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A count: a whole number that is not negative.
pub(super) fn whole(value: &Value) -> Option<u64> {
    let of_text = || value.as_str().and_then(|text| text.trim().parse().ok());
    let of_float =
        || real(value).filter(|n| n.fract() == 0.0 && (0.0..=EXACT_MAX).contains(n)).map(|n| n as u64);
    value.as_u64().or_else(of_text).or_else(of_float)
}

/// Any finite number.
pub(super) fn real(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    number.filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_and_as_text() {
        for (value, expected) in [
            (json!(7), Some(7)),
            (json!(7.0), Some(7)),
            (json!("7"), Some(7)),
            (json!(" 7.0 "), Some(7)),
            (json!(u64::MAX), Some(u64::MAX)),
            (json!("18446744073709551615"), Some(u64::MAX)),
            (json!(7.5), None),
            (json!(-1), None),
            (json!("-1"), None),
            (json!("1e300"), None),
            (json!("NaN"), None),
            (json!("seven"), None),
            (json!(null), None),
            (json!(true), None),
        ] {
            assert_eq!(whole(&value), expected, "{value}");
        }
        assert_eq!((real(&json!("2.5")), real(&json!("inf")), real(&json!([]))), (Some(2.5), None, None));
    }
}
