//! Recorded times: the text of a session and the milliseconds behind it. Reads RFC 3339 and the number forms that logs
//! use; reads no clock.

use jiff::Timestamp;
use serde_json::Value;

use super::number;

/// When something was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// RFC 3339.
    pub text: Box<str>,
    /// Milliseconds since 1970.
    pub ms: i64,
}

impl Stamp {
    /// A time in RFC 3339, kept as it was written; one without a zone is taken for UTC.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(time) = text.parse::<Timestamp>() {
            return Some(Self { text: text.into(), ms: time.as_millisecond() });
        }
        let utc = format!("{}Z", text.replacen(' ', "T", 1));
        let time: Timestamp = utc.parse().ok()?;
        Some(Self { text: utc.into(), ms: time.as_millisecond() })
    }

    /// A time as a member of a record holds it: RFC 3339, or seconds since 1970 (milliseconds where the number would be
    /// beyond the year 5000 as seconds).
    pub fn from_value(value: &Value) -> Option<Self> {
        if let Some(stamp) = value.as_str().and_then(Self::parse) {
            return Some(stamp);
        }
        let number = number::real(value).filter(|number| *number > 0.0)?;
        let ms = if number > 1e11 { number } else { number * 1000.0 };
        Self::from_ms(ms.round() as i64)
    }

    /// A time in milliseconds since 1970; `None` for zero, for negative ones and beyond the year 9999.
    pub fn from_ms(ms: i64) -> Option<Self> {
        let time = Timestamp::from_millisecond(ms).ok().filter(|_| ms > 0)?;
        Some(Self { text: time.to_string().into(), ms })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_written_form_is_one_time() {
        for value in [
            json!("2026-01-02T03:04:05Z"),
            json!("2026-01-02T03:04:05"),
            json!("2026-01-02 03:04:05"),
            json!("2026-01-02T04:04:05+01:00"),
            json!(1_767_323_045),
            json!(1_767_323_045.0),
            json!("1767323045.0"),
            json!(1_767_323_045_000_u64),
        ] {
            assert_eq!(Stamp::from_value(&value).map(|stamp| stamp.ms), Some(1_767_323_045_000), "{value}");
        }
    }

    #[test]
    fn what_is_no_time_gives_none() {
        for value in [json!("soon"), json!(0), json!(-5), json!(1e300), json!(null), json!([1])] {
            assert_eq!(Stamp::from_value(&value), None, "{value}");
        }
    }
}
