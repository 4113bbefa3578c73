//! Runs made in code by a small cost model: realistic enough to look at, exact enough to assert on. No clock, no dice but a
//! seeded one.

use std::collections::BTreeMap;

use reports::record::{
    CacheState, CallRecord, Fidelity, RunManifest, SessionRef, SpansMs, Structure, TelemetrySample,
};
use reports::stats::SplitMix64;
use serde_json::{Map, Value, json};

/// Size and shape of a made run.
pub struct Demo {
    pub arms: Vec<&'static str>,
    pub sessions: Vec<(&'static str, u32)>,
    pub repeats: u32,
    /// Share of random spread on every time, 0 for exact numbers.
    pub spread: f64,
}

pub const ALL_ARMS: [&str; 6] =
    ["cold", "warm", "cache-only", "cache+compression", "cache+rescore", "freeze-only"];

/// Cost model: ms per token of the target and the drafter, ms of loading the drafter, ms of the fixed stages.
const TARGET_MS: f64 = 1.2;
const DRAFTER_MS: f64 = 0.11;
const DRAFTER_LOAD_MS: f64 = 380.0;
/// Tokens of the system and user messages, and of each tool message.
const BASE_TOKENS: u64 = 220;
const TOOL_TOKENS: u64 = 1_900;

impl Demo {
    pub fn four_arms() -> Self {
        Self { arms: ALL_ARMS[..4].to_vec(), sessions: vec![("agent-loop", 10)], repeats: 1, spread: 0.0 }
    }

    pub fn manifest(&self) -> RunManifest {
        let arm = |name: &&str| -> Map<String, Value> {
            let cache = if name.starts_with("cache") { "on" } else { "off" };
            let compression = match *name {
                "cold" | "cache-only" => "none",
                "warm" | "cache+rescore" => "rescore",
                _ => "freeze",
            };
            json!({"name": name, "cache": cache, "compression": compression, "keep_ratio": 0.1})
                .as_object()
                .cloned()
                .unwrap_or_default()
        };
        let session = |&(id, calls): &(&str, u32)| SessionRef {
            session_id: id.into(),
            source: format!("bundled:{id}"),
            digest: "b3".repeat(8),
            calls: u64::from(calls),
            calls_replayed: u64::from(calls),
            fidelity_level: "approximate".into(),
            fidelity_reasons: vec!["the file holds no system prompt".into(), "tool schemas unknown".into()],
        };
        let calls: u64 = self.sessions.iter().map(|s| u64::from(s.1)).sum();
        RunManifest {
            schema_version: 1,
            run_id: "20261121-demo".into(),
            started_at: "2026-11-21T10:00:00Z".into(),
            finished_at: Some("2026-11-21T10:09:12Z".into()),
            program_version: "0.1.0".into(),
            git_commit: Some("0123abc".into()),
            command: ["reprise", "run", "--arms", "cold,warm,cache-only,cache+compression"]
                .map(String::from)
                .to_vec(),
            config: json!({"max_new_tokens": 32, "threads": 2, "kv_budget_bytes": 4294967296_u64})
                .as_object()
                .cloned()
                .unwrap_or_default(),
            arms: self.arms.iter().map(arm).collect(),
            sessions: self.sessions.iter().map(session).collect(),
            models: BTreeMap::from([
                (
                    "target".into(),
                    json!({"name": "synthetic:nano", "random_weights": true, "weight_bytes": 104857600}),
                ),
                ("drafter".into(), json!({"name": "synthetic:nano-drafter", "random_weights": true})),
            ]),
            machine: BTreeMap::from([
                ("cpu".into(), json!("AMD EPYC 9R14")),
                ("cores".into(), json!(2)),
                ("memory_bytes".into(), json!(8589934592_u64)),
            ]),
            device: BTreeMap::from([("kind".into(), json!("cpu"))]),
            telemetry: BTreeMap::from([("period_ms".into(), json!(50.0))]),
            telemetry_absent: BTreeMap::from([("nvml".into(), "no NVIDIA driver on this machine".into())]),
            seed: 7,
            calls_planned: calls * u64::from(self.repeats) * self.arms.len() as u64,
        }
    }

    /// Records in ABBA order.
    pub fn records(&self) -> Vec<CallRecord> {
        let mut rng = SplitMix64::new(11);
        let mut records = Vec::new();
        for repeat in 0..self.repeats {
            let mut arms = self.arms.clone();
            if repeat % 2 == 1 {
                arms.reverse();
            }
            for arm in arms {
                for &(session, calls) in &self.sessions {
                    for call in 0..calls {
                        let noise = 1.0 + self.spread * (rng.below(2001) as f64 / 1000.0 - 1.0);
                        let mut record = call_record(arm, call, noise);
                        record.repeat = repeat;
                        record.session_id = session.into();
                        record.order_index = records.len() as u64;
                        records.push(record);
                    }
                }
            }
        }
        records
    }

    /// Samples every 400 ms of made time, calls one after the other.
    pub fn telemetry(&self, records: &[CallRecord]) -> Vec<TelemetrySample> {
        let mut samples = Vec::new();
        let mut start = 500.0;
        for record in records {
            let end = start + record.e2e_ms.unwrap_or(0.0);
            while (samples.len() as f64) * 400.0 < end {
                let time_ms = samples.len() as f64 * 400.0;
                let busy = time_ms >= start;
                let resident = 900 + record.tokens_raw.unwrap_or(0) / 20 + (samples.len() as u64 * 7 % 23);
                samples.push(TelemetrySample {
                    time_ms,
                    order_index: busy.then_some(record.order_index),
                    host_rss_bytes: Some(resident << 20),
                    host_cpu_cores: Some(if busy { 1.9 - 0.01 * (samples.len() % 9) as f64 } else { 0.1 }),
                    ..TelemetrySample::default()
                });
            }
            start = end + 150.0;
        }
        samples
    }
}

/// What an arm does with one call of the agent loop: one tool message more on each call after the first.
fn call_record(arm: &str, call: u32, noise: f64) -> CallRecord {
    let messages = u64::from(call);
    let raw = BASE_TOKENS + TOOL_TOKENS * messages;
    let cached = arm.starts_with("cache");
    let compressed = !matches!(arm, "cold" | "cache-only");
    let frozen = matches!(arm, "cache+compression" | "freeze-only");
    let prompt = if compressed { BASE_TOKENS + TOOL_TOKENS / 10 * messages } else { raw };
    let before = if compressed { TOOL_TOKENS / 10 } else { TOOL_TOKENS };
    let hit = if cached && call > 0 { prompt - before.min(prompt - 1) } else { 0 };
    let scored_messages = match (compressed, frozen) {
        (false, _) => 0,
        (true, true) => messages.min(1),
        (true, false) => messages,
    };
    let scored = scored_messages * TOOL_TOKENS;
    let spans = spans(prompt - hit, scored, (cached, compressed), noise);
    let ttft: f64 = spans.named().iter().filter_map(|(_, ms)| *ms).sum();
    let decode = 31.0 * 9.5 * noise;
    let invalid = call % 4 == 3 && compressed;
    CallRecord {
        run_id: "20261121-demo".into(),
        arm: arm.into(),
        call_index: call,
        tokens_raw: Some(raw),
        tokens_removed: Some(raw as i64 - prompt as i64),
        tokens_prefix_hit: Some(hit),
        tokens_prefilled: Some(prompt - hit),
        tokens_output: Some(32),
        tokens_scored: Some(scored),
        messages_tool: Some(messages),
        messages_compressed: Some(if compressed { messages } else { 0 }),
        messages_frozen_hit: Some(if frozen { messages.saturating_sub(1) } else { 0 }),
        keep_ratio_realised: compressed.then_some(0.1),
        cache_state: Some(match (cached, hit) {
            (false, _) => CacheState::Off,
            (true, 0) => CacheState::Miss,
            (true, _) => CacheState::Hit,
        }),
        ttft_ms: Some(ttft),
        decode_ms: Some(decode),
        e2e_ms: Some(ttft + decode),
        spans_ms: spans,
        kv_bytes: Some(prompt * 4096),
        host_rss_bytes_peak: Some(1 << 30),
        finish_reason: Some("length".into()),
        output_text: Some("I will read the file.".into()),
        exact: cached.then_some(true),
        structure: Some(Structure {
            valid: !invalid,
            strict_codes: if invalid { vec!["O05".into(), "O20".into()] } else { Vec::new() },
            lenient_codes: if invalid { vec!["O05".into()] } else { Vec::new() },
        }),
        fidelity: fidelity(call, compressed),
        ..CallRecord::default()
    }
}

/// Every call but the last one calls a tool; the model itself misses the fourth, compression loses the needles of the fifth
/// and the answer, but no needle, of the eighth.
fn fidelity(call: u32, compressed: bool) -> Fidelity {
    let loses = compressed && call == 4;
    let elided: &[&str] = if loses { &["src/pool.rs", "4817", "TCK-9921"] } else { &[] };
    Fidelity {
        needle_survival: (call > 0).then_some(if loses { 0.25 } else { 1.0 }),
        needles_elided: elided.iter().map(|word| (*word).to_owned()).collect(),
        tool_call_agrees: (call < 9).then_some(call != 3 && !loses && !(compressed && call == 7)),
        ..Fidelity::default()
    }
}

fn spans(prefilled: u64, scored: u64, (cached, compressed): (bool, bool), noise: f64) -> SpansMs {
    let scores = compressed && scored > 0;
    SpansMs {
        render: Some(1.5),
        tokenize: Some(4.0 + prefilled as f64 * 0.002),
        drafter_load: scores.then_some(DRAFTER_LOAD_MS),
        score: scores.then_some(scored as f64 * DRAFTER_MS * noise),
        select: scores.then_some(2.5),
        lookup: cached.then_some(0.4),
        restore: cached.then_some(12.0),
        prefill: Some(prefilled as f64 * TARGET_MS * noise),
        first_token: Some(9.5),
        unexplained: Some(0.25),
        ..SpansMs::default()
    }
}
