//! From the facts of a call to its record: the one border where durations become milliseconds and codes become words.
//! Pure; knows no backend, no file and no clock.

use std::collections::BTreeSet;
use std::time::Duration;

use reports::record::{
    CacheState, CallError, CallRecord, DeviceMs, Fidelity, SCHEMA_VERSION, SpansMs, Structure,
};
use reports::stats;
use reports::tool_call::ToolCall;
use serde_json::Value;
use transcripts::message::Message;
use transcripts::schema::ToolSchemas;
use transcripts::structure;

use crate::agreement;
use crate::backend::{self, BackendError, CallFacts};
use crate::clock::ms;
use crate::idle::Idle;
use crate::telemetry::call::CallTelemetry;
use crate::validity::call::CheckedCall;
use crate::validity::{self, Finish, Output, Thinking, Verdict};

/// Which call a record is of.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// The run.
    pub run_id: &'a str,
    /// The arm.
    pub arm: &'a str,
    /// The repeat, from 0.
    pub repeat: u32,
    /// The session.
    pub session_id: &'a str,
    /// The call, from 0.
    pub call_index: u32,
    /// Position in the order of execution, from 0.
    pub order_index: u64,
}

/// What a call is held against.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The messages as they were recorded, before compression.
    pub prompt: &'a [&'a Message],
    /// Tool definitions of the request.
    pub tools: &'a [Value],
    /// The recorded turn.
    pub recorded: Option<&'a Message>,
    /// Whether outputs may hold reasoning.
    pub thinking: Thinking,
}

/// The record of an answered call. What it waited for comes before everything that it did.
pub fn answered(
    key: Key<'_>,
    facts: &CallFacts,
    idle: &Idle,
    telemetry: CallTelemetry,
    expected: &Expected<'_>,
) -> CallRecord {
    let sent: Vec<&Message> = facts.sent.iter().collect();
    let tools = ToolSchemas::new(expected.tools);
    let verdict = check_output(facts, expected, &tools);
    let waited = idle.blocked().unwrap_or_default();
    CallRecord {
        tokens_raw: Some(facts.tokens_raw),
        tokens_removed: Some(facts.tokens_removed),
        tokens_prefix_hit: Some(facts.tokens_prefix_hit),
        tokens_prefilled: Some(facts.tokens_prefilled),
        tokens_output: Some(facts.tokens_output),
        tokens_scored: Some(facts.tokens_scored),
        messages_scored: Some(facts.messages_scored),
        messages_tool: Some(facts.messages_tool),
        messages_compressed: Some(facts.messages_compressed),
        messages_frozen_hit: Some(facts.messages_frozen_hit),
        keep_ratio_realised: facts.keep_ratio_realised,
        cache_state: Some(match facts.cache_state {
            backend::CacheState::Off => CacheState::Off,
            backend::CacheState::Miss => CacheState::Miss,
            backend::CacheState::Hit => CacheState::Hit,
        }),
        ttft_ms: Some(ms(waited + facts.ttft)),
        decode_ms: Some(ms(facts.decode)),
        e2e_ms: Some(ms(waited + facts.e2e)),
        spans_ms: SpansMs { blocked: idle.blocked().map(ms), ..spans_ms(facts) },
        device_ms: DeviceMs {
            score: facts.device_stages.score.map(ms),
            prefill: facts.device_stages.prefill.map(ms),
            first_token: facts.device_stages.first_token.map(ms),
        },
        kv_bytes: Some(facts.kv_bytes),
        // What the board reports counts other processes and the driver, too; the backend's own count stands in for it.
        device_bytes_peak: telemetry.device_bytes_peak.or(facts.device_bytes_peak),
        finish_reason: Some(finish_word(facts.finish).to_owned()),
        output_digest: Some(output_digest(&facts.output_ids)),
        output_text: Some(facts.output_text.clone()),
        first_logits_digest: facts.first_logits_digest.clone(),
        exact: facts.exact,
        tool_calls: Some(tool_calls(&verdict)),
        structure: Some(structure(&verdict)),
        request_codes: request_codes(&sent, &tools),
        fidelity: fidelity(&verdict, facts, expected),
        ..begun(key, idle, telemetry)
    }
}

/// The record of a call that failed.
pub fn failed(key: Key<'_>, error: &BackendError, idle: &Idle, telemetry: CallTelemetry) -> CallRecord {
    CallRecord {
        error: Some(CallError { kind: error.kind.to_owned(), message: error.message.clone() }),
        ..begun(key, idle, telemetry)
    }
}

/// What is known of a call whatever came of it.
fn begun(key: Key<'_>, idle: &Idle, telemetry: CallTelemetry) -> CallRecord {
    CallRecord {
        schema_version: SCHEMA_VERSION,
        run_id: key.run_id.to_owned(),
        arm: key.arm.to_owned(),
        repeat: key.repeat,
        session_id: key.session_id.to_owned(),
        call_index: key.call_index,
        order_index: key.order_index,
        gap_ms: idle.gap.map(ms),
        tokens_backfilled: idle.backfill.map(|backfill| backfill.tokens),
        backfill_ms: idle.backfill.map(|backfill| ms(backfill.time)),
        host_rss_bytes_peak: telemetry.host_rss_bytes_peak,
        device_bytes_peak: telemetry.device_bytes_peak,
        energy_j: telemetry.energy_j,
        power_w_mean: telemetry.power_w_mean,
        gpu_util_mean: telemetry.gpu_util_mean,
        energy_method: telemetry.energy_method,
        energy_gap_ms: telemetry.energy_gap_ms,
        ..CallRecord::default()
    }
}

fn spans_ms(facts: &CallFacts) -> SpansMs {
    let stages = &facts.stages;
    let stage = |time: Option<Duration>| time.map(ms);
    // In nanoseconds first, so that the remainder carries no rounding of its own.
    let unexplained_ns = facts.ttft.as_nanos() as i128 - stages.total().as_nanos() as i128;
    SpansMs {
        blocked: None,
        render: stage(stages.render),
        tokenize: stage(stages.tokenize),
        target_park: stage(stages.target_park),
        drafter_load: stage(stages.drafter_load),
        score: stage(stages.score),
        select: stage(stages.select),
        target_load: stage(stages.target_load),
        lookup: stage(stages.lookup),
        restore: stage(stages.restore),
        prefill: stage(stages.prefill),
        first_token: stage(stages.first_token),
        unexplained: Some(unexplained_ns as f64 / 1e6),
    }
}

const fn finish_word(finish: Finish) -> &'static str {
    match finish {
        Finish::EndToken | Finish::Stop => "stop",
        Finish::ToolCalls => "tool_calls",
        Finish::Length => "length",
    }
}

fn output_digest(token_ids: &[u32]) -> String {
    let mut hasher = blake3::Hasher::new();
    for id in token_ids {
        hasher.update(&id.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

fn check_output(facts: &CallFacts, expected: &Expected<'_>, tools: &ToolSchemas) -> Verdict {
    validity::check(&Output {
        text: &facts.output_text,
        token_ids: &facts.output_ids,
        finish: facts.finish,
        thinking: expected.thinking,
        tools,
        calls_recorded: expected.recorded.map(|turn| turn.tool_calls.len()),
    })
}

fn structure(verdict: &Verdict) -> Structure {
    let words = |codes: &BTreeSet<_>| codes.iter().map(ToString::to_string).collect();
    Structure {
        valid: verdict.is_valid(),
        strict_codes: words(&verdict.strict),
        lenient_codes: words(&verdict.lenient),
    }
}

/// The calls that stand in the output without any repair.
fn tool_calls(verdict: &Verdict) -> Vec<ToolCall> {
    let call = |call: &CheckedCall| ToolCall { name: call.name.clone(), arguments: call.arguments.clone() };
    verdict.calls.iter().map(call).collect()
}

/// The sent prompt against the original one, the output against the recorded turn, and what of the turn's needs the sent
/// prompt still held.
fn fidelity(verdict: &Verdict, facts: &CallFacts, expected: &Expected<'_>) -> Fidelity {
    let measured = facts.fidelity.as_ref();
    let kl = measured.map(|measured| measured.kl.as_slice());
    let needles =
        expected.recorded.map(|recorded| agreement::needles(recorded, expected.prompt, facts.seen()));
    Fidelity {
        kl_first: kl.and_then(|kl| kl.first().copied()),
        kl_action_mean: kl.and_then(stats::mean),
        kl_action_p95: kl.and_then(|kl| stats::percentile(kl, 0.95)),
        argmax_agreement: measured.map(|measured| measured.argmax_agreement),
        needle_survival: needles.as_ref().and_then(|needles| needles.survival),
        needles_elided: needles.map(|needles| needles.elided).unwrap_or_default(),
        tool_call_agrees: expected.recorded.and_then(|turn| agreement::calls_agree(&verdict.calls, turn)),
    }
}

/// Codes of the request checks on the messages as sent, each once.
fn request_codes(sent: &[&Message], tools: &ToolSchemas) -> Vec<String> {
    let findings = structure::check_request(sent, tools);
    let codes: BTreeSet<String> = findings.iter().map(|finding| finding.code.as_str().to_owned()).collect();
    codes.into_iter().collect()
}
