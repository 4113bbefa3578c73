//! `calls.csv`: the records of `calls.jsonl` with their blocks flattened, one row each, in the same order.
//!
//! Columns and their order are those of `fields` below and only grow at the end. Stages are `<stage>_ms`, lists are joined by
//! a space, a missing value is an empty cell. Text that a spreadsheet would run as a formula gets a leading apostrophe.

use crate::record::{CacheState, CallRecord, EnergyMethod};

/// The table as UTF-8 bytes.
///
/// # Errors
/// Only the writer's own: in memory there is none to expect.
pub fn render(records: &[CallRecord]) -> Result<Vec<u8>, csv::Error> {
    let mut rows = csv::Writer::from_writer(Vec::new());
    rows.write_record(fields(&CallRecord::default()).iter().map(|(column, _)| column))?;
    for record in records {
        rows.write_record(fields(record).iter().map(|(_, value)| value))?;
    }
    rows.into_inner().map_err(|error| csv::Error::from(error.into_error()))
}

/// Every column with its value, in order.
fn fields(record: &CallRecord) -> Vec<(String, String)> {
    let mut fields = Fields(Vec::with_capacity(60));
    identity(record, &mut fields);
    measured(record, &mut fields);
    output(record, &mut fields);
    fields.text("energy_method", record.energy_method.map(EnergyMethod::as_str));
    fields.number("energy_gap_ms", record.energy_gap_ms);
    let broken = record.prefix_break.as_ref();
    fields.number("prefix_break_message", broken.and_then(|found| found.message));
    fields.text("prefix_break_cause", broken.map(|found| found.cause.as_str()));
    fields.number("prefix_break_tokens_lost", broken.map(|found| found.tokens_lost));
    fields.text("needles_elided", Some(&record.fidelity.needles_elided.join(" ")));
    fields.number("kl_action_p95", record.fidelity.kl_action_p95);
    let calls = record.tool_calls.as_ref().map(|calls| serde_json::json!(calls).to_string());
    fields.text("tool_calls", calls.as_deref());
    fields.0
}

fn identity(record: &CallRecord, fields: &mut Fields) {
    fields.number("schema_version", Some(record.schema_version));
    fields.text("run_id", Some(&record.run_id));
    fields.text("arm", Some(&record.arm));
    fields.number("repeat", Some(record.repeat));
    fields.text("session_id", Some(&record.session_id));
    fields.number("call_index", Some(record.call_index));
    fields.number("order_index", Some(record.order_index));
}

fn measured(record: &CallRecord, fields: &mut Fields) {
    fields.number("tokens_raw", record.tokens_raw);
    fields.number("tokens_removed", record.tokens_removed);
    fields.number("tokens_prefix_hit", record.tokens_prefix_hit);
    fields.number("tokens_prefilled", record.tokens_prefilled);
    fields.number("tokens_output", record.tokens_output);
    fields.number("tokens_scored", record.tokens_scored);
    fields.number("messages_scored", record.messages_scored);
    fields.number("messages_tool", record.messages_tool);
    fields.number("messages_compressed", record.messages_compressed);
    fields.number("messages_frozen_hit", record.messages_frozen_hit);
    fields.number("keep_ratio_realised", record.keep_ratio_realised);
    let state = record.cache_state.map(|state| match state {
        CacheState::Off => "off",
        CacheState::Miss => "miss",
        CacheState::Hit => "hit",
    });
    fields.text("cache_state", state);
    fields.number("gap_ms", record.gap_ms);
    fields.number("tokens_backfilled", record.tokens_backfilled);
    fields.number("backfill_ms", record.backfill_ms);
    fields.number("ttft_ms", record.ttft_ms);
    fields.number("decode_ms", record.decode_ms);
    fields.number("e2e_ms", record.e2e_ms);
    for (stage, ms) in record.spans_ms.named() {
        fields.number(&format!("{stage}_ms"), ms);
    }
    fields.number("device_score_ms", record.device_ms.score);
    fields.number("device_prefill_ms", record.device_ms.prefill);
    fields.number("device_first_token_ms", record.device_ms.first_token);
    fields.number("kv_bytes", record.kv_bytes);
    fields.number("device_bytes_peak", record.device_bytes_peak);
    fields.number("host_rss_bytes_peak", record.host_rss_bytes_peak);
    fields.number("energy_j", record.energy_j);
    fields.number("power_w_mean", record.power_w_mean);
    fields.number("gpu_util_mean", record.gpu_util_mean);
}

fn output(record: &CallRecord, fields: &mut Fields) {
    let structure = record.structure.as_ref();
    fields.text("finish_reason", record.finish_reason.as_deref());
    fields.text("output_text", record.output_text.as_deref());
    fields.text("output_digest", record.output_digest.as_deref());
    fields.text("first_logits_digest", record.first_logits_digest.as_deref());
    fields.number("exact", record.exact);
    fields.number("structure_valid", structure.map(|s| s.valid));
    fields.text("strict_codes", structure.map(|s| s.strict_codes.join(" ")).as_deref());
    fields.text("lenient_codes", structure.map(|s| s.lenient_codes.join(" ")).as_deref());
    fields.text("request_codes", Some(&record.request_codes.join(" ")));
    fields.number("kl_first", record.fidelity.kl_first);
    fields.number("kl_action_mean", record.fidelity.kl_action_mean);
    fields.number("argmax_agreement", record.fidelity.argmax_agreement);
    fields.number("needle_survival", record.fidelity.needle_survival);
    fields.number("tool_call_agrees", record.fidelity.tool_call_agrees);
    fields.text("error_kind", record.error.as_ref().map(|e| e.kind.as_str()));
    fields.text("error_message", record.error.as_ref().map(|e| e.message.as_str()));
}

struct Fields(Vec<(String, String)>);

impl Fields {
    fn number(&mut self, column: &str, value: Option<impl ToString>) {
        self.0.push((column.to_string(), value.map(|v| v.to_string()).unwrap_or_default()));
    }

    fn text(&mut self, column: &str, value: Option<&str>) {
        self.0.push((column.to_string(), value.map(not_a_formula).unwrap_or_default()));
    }
}

/// Text that no spreadsheet takes for a formula (OWASP "CSV Injection").
fn not_a_formula(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        format!("'{text}")
    } else {
        text.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_never_a_formula_and_numbers_stay_numbers() {
        let record = CallRecord {
            session_id: "=HYPERLINK(\"x\")".into(),
            output_text: Some("-1+cmd, \"quoted\"\nnext".into()),
            tokens_removed: Some(-12),
            ..CallRecord::default()
        };
        let table = render(&[record]).unwrap();
        let mut rows = csv::Reader::from_reader(table.as_slice());
        let header = rows.headers().unwrap().clone();
        let row = rows.records().next().unwrap().unwrap();
        let cell = |name: &str| row[header.iter().position(|h| h == name).unwrap()].to_string();
        assert_eq!(cell("session_id"), "'=HYPERLINK(\"x\")");
        assert_eq!(cell("output_text"), "'-1+cmd, \"quoted\"\nnext");
        assert_eq!(cell("tokens_removed"), "-12");
        assert_eq!(cell("tokens_raw"), "");
    }

    #[test]
    fn no_records_leave_the_header() {
        let table = String::from_utf8(render(&[]).unwrap()).unwrap();
        assert!(
            table.starts_with(
                "schema_version,run_id,arm,repeat,session_id,call_index,order_index,tokens_raw,"
            )
        );
        assert_eq!(table.lines().count(), 1);
    }
}
