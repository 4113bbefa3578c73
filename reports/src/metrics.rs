//! Metrics: functions from one record to one number. Records hold raw facts only, so a corrected definition here recomputes
//! old runs. Knows no file, arm order or statistic; `None` where a record lacks a fact the formula needs.

use crate::record::CallRecord;

/// From one record to one number.
pub type Formula = fn(&CallRecord) -> Option<f64>;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Smaller is better.
    Lower,
    /// Larger is better.
    Higher,
    /// Neither: it describes the workload.
    Neutral,
}

/// A named metric with its definition.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name, unit at the end.
    pub name: &'static str,
    /// Unit as printed; empty for shares and counts.
    pub unit: &'static str,
    /// Formula over fields of the record.
    pub formula: &'static str,
    /// Which way is better.
    pub direction: Direction,
    /// The function.
    pub of: Formula,
}

/// Every metric, in the order of a report.
pub const METRICS: &[Metric] = &[
    metric("ttft_ms", "ms", "ttft_ms", Direction::Lower, ttft_ms),
    metric("decode_ms", "ms", "decode_ms", Direction::Lower, decode_ms),
    metric("e2e_ms", "ms", "e2e_ms", Direction::Lower, e2e_ms),
    metric("tpot_ms", "ms", "decode_ms / (tokens_output - 1)", Direction::Lower, tpot_ms),
    metric("tokens_raw", "tokens", "tokens_raw", Direction::Neutral, tokens_raw),
    metric("tokens_removed", "tokens", "tokens_removed", Direction::Neutral, tokens_removed),
    metric("tokens_prefix_hit", "tokens", "tokens_prefix_hit", Direction::Higher, tokens_prefix_hit),
    metric("tokens_prefilled", "tokens", "tokens_prefilled", Direction::Lower, tokens_prefilled),
    metric("tokens_scored", "tokens", "tokens_scored", Direction::Lower, tokens_scored),
    metric("tokens_output", "tokens", "tokens_output", Direction::Neutral, tokens_output),
    metric("removed_ratio", "", "tokens_removed / tokens_raw", Direction::Neutral, removed_ratio),
    metric("prefix_hit_ratio", "", "tokens_prefix_hit / tokens_raw", Direction::Higher, prefix_hit_ratio),
    metric("prefilled_ratio", "", "tokens_prefilled / tokens_raw", Direction::Lower, prefilled_ratio),
    metric(
        "prefill_tokens_per_s",
        "tokens/s",
        "1000 * tokens_prefilled / spans_ms.prefill",
        Direction::Higher,
        prefill_tokens_per_s,
    ),
    metric("unexplained_ratio", "", "spans_ms.unexplained / ttft_ms", Direction::Lower, unexplained_ratio),
    metric("energy_j", "J", "energy_j", Direction::Lower, energy_j),
    metric("kv_bytes", "B", "kv_bytes", Direction::Lower, kv_bytes),
    metric("host_rss_bytes_peak", "B", "host_rss_bytes_peak", Direction::Lower, host_rss_bytes_peak),
    metric("device_bytes_peak", "B", "device_bytes_peak", Direction::Lower, device_bytes_peak),
];

const fn metric(
    name: &'static str,
    unit: &'static str,
    formula: &'static str,
    direction: Direction,
    of: Formula,
) -> Metric {
    Metric { name, unit, formula, direction, of }
}

/// Arrival of the request to the first generated token, ms. Lower is better.
pub fn ttft_ms(record: &CallRecord) -> Option<f64> {
    record.ttft_ms
}

/// First to last generated token, ms. Lower is better.
pub fn decode_ms(record: &CallRecord) -> Option<f64> {
    record.decode_ms
}

/// Arrival of the request to the last generated token, ms. Lower is better.
pub fn e2e_ms(record: &CallRecord) -> Option<f64> {
    record.e2e_ms
}

/// Time per output token after the first, ms: `decode_ms / (tokens_output - 1)`. `None` below two tokens. Lower is better.
pub fn tpot_ms(record: &CallRecord) -> Option<f64> {
    let after_first = record.tokens_output?.checked_sub(1).filter(|&n| n > 0)?;
    Some(record.decode_ms? / after_first as f64)
}

/// Tokens of the prompt before compression.
pub fn tokens_raw(record: &CallRecord) -> Option<f64> {
    record.tokens_raw.map(|n| n as f64)
}

/// Tokens that compression took away; negative where markers cost more than was cut.
pub fn tokens_removed(record: &CallRecord) -> Option<f64> {
    record.tokens_removed.map(|n| n as f64)
}

/// Prompt tokens whose KV was reused. Higher is better.
pub fn tokens_prefix_hit(record: &CallRecord) -> Option<f64> {
    record.tokens_prefix_hit.map(|n| n as f64)
}

/// Prompt tokens that went through the target: the fresh ones. Lower is better.
pub fn tokens_prefilled(record: &CallRecord) -> Option<f64> {
    record.tokens_prefilled.map(|n| n as f64)
}

/// Tokens that went through the drafter. Lower is better.
pub fn tokens_scored(record: &CallRecord) -> Option<f64> {
    record.tokens_scored.map(|n| n as f64)
}

/// Tokens generated.
pub fn tokens_output(record: &CallRecord) -> Option<f64> {
    record.tokens_output.map(|n| n as f64)
}

/// Share of the raw prompt that compression took away.
pub fn removed_ratio(record: &CallRecord) -> Option<f64> {
    share(tokens_removed(record)?, tokens_raw(record)?)
}

/// Share of the raw prompt whose KV was reused. Higher is better.
pub fn prefix_hit_ratio(record: &CallRecord) -> Option<f64> {
    share(tokens_prefix_hit(record)?, tokens_raw(record)?)
}

/// Share of the raw prompt that went through the target. Lower is better.
pub fn prefilled_ratio(record: &CallRecord) -> Option<f64> {
    share(tokens_prefilled(record)?, tokens_raw(record)?)
}

/// Prefill throughput over fresh tokens only; tokens that were reused are no work. Higher is better.
pub fn prefill_tokens_per_s(record: &CallRecord) -> Option<f64> {
    share(1000.0 * tokens_prefilled(record)?, record.spans_ms.prefill?)
}

/// Share of TTFT that no stage claims. Lower is better.
pub fn unexplained_ratio(record: &CallRecord) -> Option<f64> {
    share(record.spans_ms.unexplained?, record.ttft_ms?)
}

/// Energy of the call, J. Lower is better.
pub fn energy_j(record: &CallRecord) -> Option<f64> {
    record.energy_j
}

/// KV bytes in use after the call.
pub fn kv_bytes(record: &CallRecord) -> Option<f64> {
    record.kv_bytes.map(|n| n as f64)
}

/// Highest resident set of the process during the call, bytes.
pub fn host_rss_bytes_peak(record: &CallRecord) -> Option<f64> {
    record.host_rss_bytes_peak.map(|n| n as f64)
}

/// Highest device memory in use during the call, bytes.
pub fn device_bytes_peak(record: &CallRecord) -> Option<f64> {
    record.device_bytes_peak.map(|n| n as f64)
}

/// `part / whole`; `None` where the whole is not positive.
pub(crate) fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SpansMs;

    fn record() -> CallRecord {
        CallRecord {
            tokens_raw: Some(1000),
            tokens_removed: Some(600),
            tokens_prefix_hit: Some(300),
            tokens_prefilled: Some(100),
            tokens_scored: Some(640),
            tokens_output: Some(5),
            ttft_ms: Some(50.0),
            decode_ms: Some(80.0),
            e2e_ms: Some(130.0),
            spans_ms: SpansMs { prefill: Some(40.0), unexplained: Some(1.0), ..SpansMs::default() },
            energy_j: Some(2.5),
            kv_bytes: Some(4096),
            host_rss_bytes_peak: Some(1 << 30),
            device_bytes_peak: Some(1 << 20),
            ..CallRecord::default()
        }
    }

    #[test]
    fn every_metric_of_a_hand_made_record() {
        let expected = [
            ("ttft_ms", 50.0),
            ("decode_ms", 80.0),
            ("e2e_ms", 130.0),
            ("tpot_ms", 20.0),
            ("tokens_raw", 1000.0),
            ("tokens_removed", 600.0),
            ("tokens_prefix_hit", 300.0),
            ("tokens_prefilled", 100.0),
            ("tokens_scored", 640.0),
            ("tokens_output", 5.0),
            ("removed_ratio", 0.6),
            ("prefix_hit_ratio", 0.3),
            ("prefilled_ratio", 0.1),
            ("prefill_tokens_per_s", 2500.0),
            ("unexplained_ratio", 0.02),
            ("energy_j", 2.5),
            ("kv_bytes", 4096.0),
            ("host_rss_bytes_peak", 1_073_741_824.0),
            ("device_bytes_peak", 1_048_576.0),
        ];
        assert_eq!(METRICS.len(), expected.len());
        for (metric, (name, value)) in METRICS.iter().zip(expected) {
            assert_eq!(metric.name, name);
            assert_eq!((metric.of)(&record()), Some(value), "{name}");
        }
    }

    #[test]
    fn every_metric_of_an_empty_record_is_missing() {
        for metric in METRICS {
            assert_eq!((metric.of)(&CallRecord::default()), None, "{}", metric.name);
        }
    }

    #[test]
    fn one_output_token_has_no_time_per_token() {
        assert_eq!(tpot_ms(&CallRecord { tokens_output: Some(1), ..record() }), None);
        assert_eq!(tpot_ms(&CallRecord { tokens_output: Some(0), ..record() }), None);
    }

    #[test]
    fn shares_of_nothing_are_missing() {
        let empty = CallRecord { tokens_raw: Some(0), tokens_removed: Some(0), ..record() };
        assert_eq!(removed_ratio(&empty), None);
    }
}
