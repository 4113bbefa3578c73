//! Invariants of records: what must hold in every record of an honest run. A record that breaks one fails the run.
//! Looks at records alone; knows no file and no engine. A check whose facts are missing says nothing.

use std::collections::BTreeMap;
use std::fmt;

use crate::record::{CacheState, CallRecord};

/// Spans may differ from TTFT by rounding: this share of it ...
const SPAN_TOLERANCE_RATIO: f64 = 1e-6;
/// ... and this many milliseconds.
const SPAN_TOLERANCE_MS: f64 = 0.01;

/// Which invariant was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// `tokens_raw = tokens_removed + tokens_prefix_hit + tokens_prefilled`.
    TokenIdentity,
    /// The spans sum to `ttft_ms`.
    SpanSum,
    /// No time is negative or not a number; rounding of `unexplained` apart.
    NegativeTime,
    /// `ttft_ms <= e2e_ms`.
    TtftWithinE2e,
    /// A call waits for what the recorded gap does not hide of the backfill before it, and for nothing else.
    Blocked,
    /// An arm without cache reuses nothing.
    ColdHit,
    /// `cache_state` says what `tokens_prefix_hit` shows.
    CacheState,
    /// Arm, repeat, session and call name one record.
    Duplicate,
}

/// A broken invariant of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Arm of the record.
    pub arm: String,
    /// Repeat of the record, from 0.
    pub repeat: u32,
    /// Session of the record.
    pub session_id: String,
    /// Call of the record, from 0.
    pub call_index: u32,
    /// What was broken.
    pub rule: Rule,
    /// Expected and got.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arm, repeat, session_id, call_index, detail, .. } = self;
        write!(
            f,
            "arm {arm}, repeat {}, session {session_id}, call {}: {detail}",
            repeat.saturating_add(1),
            call_index.saturating_add(1)
        )
    }
}

/// Broken invariants of one record on its own.
pub fn check_record(record: &CallRecord) -> Vec<Violation> {
    let found = [
        token_identity(record),
        negative_time(record),
        span_sum(record),
        ttft_within_e2e(record),
        blocked(record),
        cold_hit(record),
        cache_state(record),
    ];
    found.into_iter().flatten().map(|(rule, detail)| violation(record, rule, detail)).collect()
}

/// Broken invariants of all records of a run, in their order, duplicates included.
pub fn check_run(records: &[CallRecord]) -> Vec<Violation> {
    let mut seen: BTreeMap<(&str, u32, &str, u32), usize> = BTreeMap::new();
    let mut violations = Vec::new();
    for (position, record) in records.iter().enumerate() {
        violations.extend(check_record(record));
        let key = (record.arm.as_str(), record.repeat, record.session_id.as_str(), record.call_index);
        if let Some(first) = seen.insert(key, position) {
            let detail = format!("recorded twice, as records {} and {}", first + 1, position + 1);
            violations.push(violation(record, Rule::Duplicate, detail));
        }
    }
    violations
}

type Found = Option<(Rule, String)>;

fn violation(record: &CallRecord, rule: Rule, detail: String) -> Violation {
    Violation {
        arm: record.arm.clone(),
        repeat: record.repeat,
        session_id: record.session_id.clone(),
        call_index: record.call_index,
        rule,
        detail,
    }
}

fn token_identity(record: &CallRecord) -> Found {
    let raw = record.tokens_raw?;
    let (removed, hit, prefilled) =
        (record.tokens_removed?, record.tokens_prefix_hit?, record.tokens_prefilled?);
    // i128 holds any sum of the three, so that hostile numbers cannot overflow.
    let sum = i128::from(removed) + i128::from(hit) + i128::from(prefilled);
    (sum != i128::from(raw)).then(|| {
        let detail = format!(
            "expected tokens_raw = removed + prefix hit + prefilled, got {raw} against {removed} + {hit} + {prefilled} = {sum}"
        );
        (Rule::TokenIdentity, detail)
    })
}

fn negative_time(record: &CallRecord) -> Found {
    let tolerance = span_tolerance(record.ttft_ms.unwrap_or(0.0));
    let totals = [
        ("gap_ms", record.gap_ms),
        ("backfill_ms", record.backfill_ms),
        ("ttft_ms", record.ttft_ms),
        ("decode_ms", record.decode_ms),
        ("e2e_ms", record.e2e_ms),
    ];
    let bad = totals.into_iter().chain(record.spans_ms.named()).find_map(|(name, value)| {
        let floor = if name == "unexplained" { -tolerance } else { 0.0 };
        value.filter(|&ms| !ms.is_finite() || ms < floor).map(|ms| (name, ms))
    });
    bad.map(|(name, ms)| (Rule::NegativeTime, format!("expected {name} of 0 ms or more, got {ms}")))
}

fn span_sum(record: &CallRecord) -> Found {
    let ttft = record.ttft_ms?;
    let spans: Vec<f64> = record.spans_ms.named().iter().filter_map(|(_, ms)| *ms).collect();
    if spans.is_empty() {
        return None;
    }
    let sum: f64 = spans.iter().sum();
    let tolerance = span_tolerance(ttft);
    // Without `unexplained` nothing fills the gap, so the stages may fall short of TTFT but never pass it.
    let broken = match record.spans_ms.unexplained {
        Some(_) => (sum - ttft).abs() > tolerance,
        None => sum - ttft > tolerance,
    };
    broken.then(|| (Rule::SpanSum, format!("expected spans that sum to ttft_ms = {ttft}, got {sum}")))
}

fn span_tolerance(ttft_ms: f64) -> f64 {
    SPAN_TOLERANCE_RATIO * ttft_ms.abs() + SPAN_TOLERANCE_MS
}

fn ttft_within_e2e(record: &CallRecord) -> Found {
    let (ttft, e2e) = (record.ttft_ms?, record.e2e_ms?);
    (ttft > e2e + span_tolerance(ttft))
        .then(|| (Rule::TtftWithinE2e, format!("expected ttft_ms within e2e_ms = {e2e}, got {ttft}")))
}

fn blocked(record: &CallRecord) -> Found {
    let got = record.spans_ms.blocked.unwrap_or(0.0);
    let expected = record.backfill_ms.map_or(0.0, |ms| (ms - record.gap_ms.unwrap_or(0.0)).max(0.0));
    // A call that failed waited for nothing that is known.
    (record.error.is_none() && (got - expected).abs() > span_tolerance(expected)).then(|| {
        let detail = format!("expected spans_ms.blocked = backfill_ms - gap_ms = {expected}, got {got}");
        (Rule::Blocked, detail)
    })
}

fn cold_hit(record: &CallRecord) -> Found {
    let hit = record.tokens_prefix_hit.filter(|&n| n > 0);
    let without_cache = record.cache_state == Some(CacheState::Off) || record.arm == "cold";
    match (without_cache, hit) {
        (true, Some(n)) => {
            let detail = format!("expected no prefix hit in an arm without cache, got {n} tokens");
            Some((Rule::ColdHit, detail))
        }
        _ => None,
    }
}

fn cache_state(record: &CallRecord) -> Found {
    let (state, hit) = (record.cache_state?, record.tokens_prefix_hit?);
    let expected = match state {
        CacheState::Miss if hit > 0 => "no prefix hit on a miss",
        CacheState::Hit if hit == 0 => "reused tokens on a hit",
        CacheState::Hit | CacheState::Miss | CacheState::Off => return None,
    };
    Some((Rule::CacheState, format!("expected {expected}, got {hit} tokens")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SpansMs;

    fn good() -> CallRecord {
        CallRecord {
            arm: "cache-only".into(),
            session_id: "s".into(),
            tokens_raw: Some(100),
            tokens_removed: Some(0),
            tokens_prefix_hit: Some(60),
            tokens_prefilled: Some(40),
            cache_state: Some(CacheState::Hit),
            ttft_ms: Some(10.0),
            decode_ms: Some(5.0),
            e2e_ms: Some(15.0),
            spans_ms: SpansMs { prefill: Some(9.0), unexplained: Some(1.0), ..SpansMs::default() },
            ..CallRecord::default()
        }
    }

    fn broken(record: &CallRecord) -> Vec<Rule> {
        check_record(record).into_iter().map(|v| v.rule).collect()
    }

    #[test]
    fn honest_and_empty_records_pass() {
        assert_eq!(broken(&good()), []);
        assert_eq!(broken(&CallRecord::default()), []);
    }

    #[test]
    fn tokens_must_add_up() {
        assert_eq!(broken(&CallRecord { tokens_removed: Some(1), ..good() }), [Rule::TokenIdentity]);
        assert_eq!(broken(&CallRecord { tokens_removed: Some(-5), tokens_raw: Some(95), ..good() }), []);
        let hostile =
            CallRecord { tokens_prefilled: Some(u64::MAX), tokens_removed: Some(i64::MIN), ..good() };
        assert_eq!(broken(&hostile), [Rule::TokenIdentity]);
    }

    #[test]
    fn spans_must_sum_to_ttft_within_rounding() {
        let with = |prefill, unexplained| CallRecord {
            spans_ms: SpansMs { prefill: Some(prefill), unexplained, ..SpansMs::default() },
            ..good()
        };
        assert_eq!(broken(&with(9.005, Some(1.0))), []);
        assert_eq!(broken(&with(9.02, Some(1.0))), [Rule::SpanSum]);
        assert_eq!(broken(&with(8.0, Some(1.0))), [Rule::SpanSum]);
        assert_eq!(broken(&with(8.0, None)), []);
        assert_eq!(broken(&with(10.5, None)), [Rule::SpanSum]);
        assert_eq!(broken(&CallRecord { spans_ms: SpansMs::default(), ..good() }), []);
    }

    #[test]
    fn unexplained_may_be_negative_by_rounding_alone() {
        let with = |unexplained: f64| CallRecord {
            spans_ms: SpansMs {
                prefill: Some(10.0 - unexplained),
                unexplained: Some(unexplained),
                ..SpansMs::default()
            },
            ..good()
        };
        assert_eq!(broken(&with(-0.009)), []);
        assert_eq!(broken(&with(-0.5)), [Rule::NegativeTime]);
    }

    #[test]
    fn times_are_never_negative_or_nan() {
        assert_eq!(broken(&CallRecord { decode_ms: Some(-1.0), ..good() }), [Rule::NegativeTime]);
        assert_eq!(broken(&CallRecord { decode_ms: Some(f64::NAN), ..good() }), [Rule::NegativeTime]);
        assert_eq!(broken(&CallRecord { e2e_ms: Some(9.0), ..good() }), [Rule::TtftWithinE2e]);
    }

    #[test]
    fn a_call_waits_for_what_its_gap_does_not_hide() {
        let with = |backfill_ms, gap_ms, blocked: Option<f64>| CallRecord {
            backfill_ms,
            gap_ms,
            spans_ms: SpansMs {
                blocked,
                prefill: Some(10.0 - blocked.unwrap_or(0.0)),
                unexplained: Some(0.0),
                ..SpansMs::default()
            },
            ..good()
        };
        assert_eq!(broken(&with(Some(5.0), Some(3.0), Some(2.0))), []);
        assert_eq!(broken(&with(Some(5.0), Some(8.0), Some(0.0))), []);
        assert_eq!(broken(&with(Some(5.0), None, Some(5.0))), []);
        assert_eq!(broken(&with(None, Some(3.0), None)), []);
        assert_eq!(broken(&with(Some(5.0), Some(3.0), Some(0.0))), [Rule::Blocked]);
        assert_eq!(broken(&with(Some(5.0), Some(3.0), None)), [Rule::Blocked]);
        assert_eq!(broken(&with(None, None, Some(1.0))), [Rule::Blocked]);
        assert_eq!(broken(&with(None, Some(-1.0), None)), [Rule::NegativeTime]);
    }

    #[test]
    fn an_arm_without_cache_has_no_prefix_hit() {
        assert_eq!(broken(&CallRecord { cache_state: Some(CacheState::Off), ..good() }), [Rule::ColdHit]);
        assert_eq!(broken(&CallRecord { arm: "cold".into(), cache_state: None, ..good() }), [Rule::ColdHit]);
    }

    #[test]
    fn cache_state_matches_its_proof() {
        assert_eq!(broken(&CallRecord { cache_state: Some(CacheState::Miss), ..good() }), [Rule::CacheState]);
        let no_hit = CallRecord { tokens_prefix_hit: Some(0), tokens_prefilled: Some(100), ..good() };
        assert_eq!(broken(&no_hit), [Rule::CacheState]);
    }

    #[test]
    fn duplicates_are_named_once_per_extra_record() {
        let other_repeat = CallRecord { repeat: 1, ..good() };
        let violations = check_run(&[good(), other_repeat, good()]);
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].rule, Rule::Duplicate);
        assert_eq!(
            violations[0].to_string(),
            "arm cache-only, repeat 1, session s, call 1: recorded twice, as records 1 and 3"
        );
    }
}
