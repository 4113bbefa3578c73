//! The record: raw facts of one call, and the manifest of a run. This is the contract with every reader; a field is
//! added, never changed, and `SCHEMA_VERSION` moves when one is. Missing is `null`, never 0.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::tool_call::ToolCall;

/// Version written into every record and manifest. 2 added `energy_method` and `energy_gap_ms` to records, `telemetry` to
/// manifests, and columns to `telemetry.csv`; 3 added `fidelity.needles_elided` and `prefix_break`; 4 added
/// `fidelity.kl_action_p95`, `tool_calls`, `messages_scored`, `spans_ms.blocked`, `gap_ms`, `tokens_backfilled`,
/// `backfill_ms` and the cause `ageing`.
pub const SCHEMA_VERSION: u32 = 4;

/// Cache state of a call, proven by its prefix hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheState {
    /// The arm has no prefix cache.
    Off,
    /// The cache was asked and held nothing usable.
    Miss,
    /// Prompt tokens were reused.
    Hit,
}

/// Where the energy of a call comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnergyMethod {
    /// Difference of the board's energy counter.
    Counter,
    /// Integral of sampled power.
    Power,
}

impl EnergyMethod {
    /// The word in records and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Power => "power",
        }
    }
}

/// Milliseconds of each stage of TTFT. The stages sum to `ttft_ms`; `unexplained` is what no stage claims.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpansMs {
    /// Waiting for the end of the backfill before the call: the part of `backfill_ms` that `gap_ms` does not hide.
    pub blocked: Option<f64>,
    /// Chat template.
    pub render: Option<f64>,
    /// Text to token ids, of the raw and of the compressed prompt.
    pub tokenize: Option<f64>,
    /// Dropping the target's weights so that the drafter fits (residency `parked`).
    pub target_park: Option<f64>,
    /// Reading the drafter's weights.
    pub drafter_load: Option<f64>,
    /// Drafter forward pass and tail scores.
    pub score: Option<f64>,
    /// Smoothing, chunking, choosing, and cutting the text.
    pub select: Option<f64>,
    /// Dropping the drafter and reading the target's weights again (residency `parked`).
    pub target_load: Option<f64>,
    /// Search of the prefix index.
    pub lookup: Option<f64>,
    /// Making the found prefix usable: pinning its slots, evicting others to make room.
    pub restore: Option<f64>,
    /// Target forward pass over the tokens that were not reused.
    pub prefill: Option<f64>,
    /// Logits of the last position and the first sample.
    pub first_token: Option<f64>,
    /// `ttft_ms` less all of the above.
    pub unexplained: Option<f64>,
}

impl SpansMs {
    /// Every span with its field name, in the order of the request.
    pub fn named(&self) -> [(&'static str, Option<f64>); 13] {
        [
            ("blocked", self.blocked),
            ("render", self.render),
            ("tokenize", self.tokenize),
            ("target_park", self.target_park),
            ("drafter_load", self.drafter_load),
            ("score", self.score),
            ("select", self.select),
            ("target_load", self.target_load),
            ("lookup", self.lookup),
            ("restore", self.restore),
            ("prefill", self.prefill),
            ("first_token", self.first_token),
            ("unexplained", self.unexplained),
        ]
    }
}

/// Milliseconds that a card worked within a stage of TTFT, on the card's own clock; what a span of `spans_ms` is longer than
/// this, the card waited. Each `null` where the stage did not run or there is no card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceMs {
    /// Drafter forward pass and tail scores.
    pub score: Option<f64>,
    /// Target forward pass over the tokens that were not reused.
    pub prefill: Option<f64>,
    /// Logits of the last position.
    pub first_token: Option<f64>,
}

/// Output-structure verdict of one call (codes of the output checks, `O01`..).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Structure {
    /// No strict code fired, `O01` to `O03` apart: another well-formed choice than the recorded one is information, not
    /// invalidity. A repaired call never counts.
    pub valid: bool,
    /// Codes that fired on the output as it is, `O01` to `O03` included.
    #[serde(default)]
    pub strict_codes: Vec<String>,
    /// Codes left after the closed list of repairs.
    #[serde(default)]
    pub lenient_codes: Vec<String>,
}

/// Fidelity of a call: against cold on the original where the prompt was compressed or rewritten, and against the recorded
/// turn; each `null` where not measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fidelity {
    /// KL divergence of the first token's distribution, nats.
    pub kl_first: Option<f64>,
    /// Mean KL over the recorded next action, nats.
    pub kl_action_mean: Option<f64>,
    /// 95th percentile of KL over the positions of the recorded next action, nats.
    pub kl_action_p95: Option<f64>,
    /// Share of positions of the recorded next action with the same argmax.
    pub argmax_agreement: Option<f64>,
    /// Share of the needles that the prompt as sent still holds: of the words of the recorded calls' arguments that tool
    /// messages of the prompt hold; `null` where there are none.
    pub needle_survival: Option<f64>,
    /// Needles that the prompt as sent no longer holds; at most eight.
    pub needles_elided: Vec<String>,
    /// The generated calls equal the recorded ones in number, order, names and arguments (as JSON), without any repair;
    /// `null` where the recorded turn calls no tool.
    pub tool_call_agrees: Option<bool>,
}

/// Where a prompt does not begin with the whole of the one before it in the same session and arm, so that a prefix cache
/// loses the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PrefixBreak {
    /// The first message of the previous prompt that is not the same in this one, as sent; `null` where a template leaves no
    /// message to name.
    pub message: Option<u64>,
    /// `compaction`, `microcompact`, `rewind`, `resume`, `projection` or `unknown` as the recording says; `ageing` where this
    /// arm compressed an earlier message because of its age; `compression` where it changed one otherwise; `template` where
    /// the messages are the same and are rendered differently.
    pub cause: String,
    /// Tokens of the previous prompt that are not reused for it.
    pub tokens_lost: u64,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallError {
    /// Stable word for the kind: `context_length`, `out_of_memory`, `backend`, ...
    pub kind: String,
    /// What happened and what to do next.
    #[serde(default)]
    pub message: String,
}

/// One line of `calls.jsonl`: arm x repeat x session x call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallRecord {
    /// Version of this schema.
    pub schema_version: u32,
    /// Run that measured it.
    pub run_id: String,
    /// Arm name.
    pub arm: String,
    /// Repeat, from 0.
    pub repeat: u32,
    /// Session id.
    pub session_id: String,
    /// Call within the session, from 0.
    pub call_index: u32,
    /// Position in the order of execution of the whole run, from 0.
    pub order_index: u64,

    /// Tokens of the prompt before compression.
    pub tokens_raw: Option<u64>,
    /// Tokens that compression took away.
    pub tokens_removed: Option<i64>,
    /// Prompt tokens whose KV was reused.
    pub tokens_prefix_hit: Option<u64>,
    /// Prompt tokens that went through the target.
    pub tokens_prefilled: Option<u64>,
    /// Tokens generated.
    pub tokens_output: Option<u64>,
    /// Tokens that went through the drafter.
    pub tokens_scored: Option<u64>,
    /// Messages that went through the drafter.
    pub messages_scored: Option<u64>,

    /// Tool messages in the prompt.
    pub messages_tool: Option<u64>,
    /// Messages that stand compressed in the prompt.
    pub messages_compressed: Option<u64>,
    /// Messages whose frozen form was found in the memo.
    pub messages_frozen_hit: Option<u64>,
    /// Kept over raw drafter tokens, over the messages that stand compressed.
    pub keep_ratio_realised: Option<f64>,
    /// Cache state; a word that this version does not know reads as `null`.
    #[serde(deserialize_with = "known_or_null")]
    pub cache_state: Option<CacheState>,

    /// Recorded time between the end of the turn before and this request, ms: the tools and the person.
    pub gap_ms: Option<f64>,
    /// Tokens of the prompt before that went through the target in that gap, so that this call finds them in history as
    /// they came; `null` where there was nothing to do.
    pub tokens_backfilled: Option<u64>,
    /// How long that took, ms.
    pub backfill_ms: Option<f64>,

    /// Arrival of the request to the first generated token, ms.
    pub ttft_ms: Option<f64>,
    /// First to last generated token, ms.
    pub decode_ms: Option<f64>,
    /// Arrival of the request to the last generated token, ms.
    pub e2e_ms: Option<f64>,
    /// Stages of TTFT.
    #[serde(deserialize_with = "null_as_default")]
    pub spans_ms: SpansMs,
    /// The card's part of them.
    #[serde(deserialize_with = "null_as_default")]
    pub device_ms: DeviceMs,

    /// KV bytes in use after the call.
    pub kv_bytes: Option<u64>,
    /// Highest device memory in use during the call.
    pub device_bytes_peak: Option<u64>,
    /// Highest resident set of the process during the call.
    pub host_rss_bytes_peak: Option<u64>,
    /// Energy of the call, J: all that the board drew, its idle power included.
    pub energy_j: Option<f64>,
    /// Mean power during the call, W.
    pub power_w_mean: Option<f64>,
    /// Mean GPU utilisation during the call, 0 to 1.
    pub gpu_util_mean: Option<f64>,
    /// Where `energy_j` comes from; a word that this version does not know reads as `null`.
    #[serde(deserialize_with = "known_or_null")]
    pub energy_method: Option<EnergyMethod>,
    /// Time at the two ends of the call for which `energy_j` may be off, ms: two updates of the counter, or what no sample
    /// of power covers.
    pub energy_gap_ms: Option<f64>,

    /// Why generation ended: `stop`, `length`.
    pub finish_reason: Option<String>,
    /// Generated text, specials included.
    pub output_text: Option<String>,
    /// BLAKE3 of the generated token ids, hex.
    pub output_digest: Option<String>,
    /// BLAKE3 of the bits of the first logits, hex.
    pub first_logits_digest: Option<String>,
    /// Cached logits equal cold logits bit for bit; `null` where it was not checked.
    pub exact: Option<bool>,

    /// The prompt does not extend the one before it; `null` where it does, and for the first call of a session.
    pub prefix_break: Option<PrefixBreak>,

    /// Tool calls that stand in the output without any repair, in order; `null` where the output was not read for them.
    pub tool_calls: Option<Vec<ToolCall>>,
    /// Output checks.
    pub structure: Option<Structure>,
    /// Codes of the request checks that fired on the request as sent (`R01`..), each once.
    #[serde(deserialize_with = "null_as_default")]
    pub request_codes: Vec<String>,
    /// Fidelity against cold.
    #[serde(deserialize_with = "null_as_default")]
    pub fidelity: Fidelity,
    /// The call failed.
    pub error: Option<CallError>,
}

impl Default for CallRecord {
    fn default() -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            run_id: String::new(),
            arm: String::new(),
            repeat: 0,
            session_id: String::new(),
            call_index: 0,
            order_index: 0,
            tokens_raw: None,
            tokens_removed: None,
            tokens_prefix_hit: None,
            tokens_prefilled: None,
            tokens_output: None,
            tokens_scored: None,
            messages_scored: None,
            messages_tool: None,
            messages_compressed: None,
            messages_frozen_hit: None,
            keep_ratio_realised: None,
            cache_state: None,
            gap_ms: None,
            tokens_backfilled: None,
            backfill_ms: None,
            ttft_ms: None,
            decode_ms: None,
            e2e_ms: None,
            spans_ms: SpansMs::default(),
            device_ms: DeviceMs::default(),
            kv_bytes: None,
            device_bytes_peak: None,
            host_rss_bytes_peak: None,
            energy_j: None,
            power_w_mean: None,
            gpu_util_mean: None,
            energy_method: None,
            energy_gap_ms: None,
            finish_reason: None,
            output_text: None,
            output_digest: None,
            first_logits_digest: None,
            exact: None,
            prefix_break: None,
            tool_calls: None,
            structure: None,
            request_codes: Vec::new(),
            fidelity: Fidelity::default(),
            error: None,
        }
    }
}

/// Reads `null` as the empty value: older and foreign writers leave whole blocks out that way.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    input: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(input)?.unwrap_or_default())
}

/// Reads a word of a later schema version as missing, so that the rest of its record stays readable.
fn known_or_null<'de, D: Deserializer<'de>, T: DeserializeOwned>(input: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(input)?).unwrap_or(None))
}

/// One row of `telemetry.csv`; its columns are these fields in this order, and only grow at the end. docs/telemetry.md says
/// where each comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TelemetrySample {
    /// Milliseconds since the run started.
    pub time_ms: f64,
    /// Call in flight (`order_index`), if any.
    pub order_index: Option<u64>,
    /// Resident set of the process.
    pub host_rss_bytes: Option<u64>,
    /// CPU use of the process, in cores.
    pub host_cpu_cores: Option<f64>,
    /// Board power, W: of the moment where the board offers that, else as its driver averages it.
    pub power_w: Option<f64>,
    /// Energy counter of the board, J.
    pub energy_j: Option<f64>,
    /// Share of time in which any kernel ran, 0 to 1.
    pub gpu_util: Option<f64>,
    /// Device memory in use, by every process.
    pub device_bytes: Option<u64>,
    /// GPU temperature, degrees Celsius.
    pub temperature_c: Option<f64>,
    /// SM clock, MHz.
    pub sm_clock_mhz: Option<f64>,
    /// Memory clock, MHz.
    pub mem_clock_mhz: Option<f64>,
    /// Throttle reasons as NVML's bit mask.
    pub throttle_mask: Option<u64>,
    /// Throttle reasons as words joined by `+`, `none` where nothing holds the clocks.
    pub throttle_reasons: Option<String>,
    /// Board power averaged by the driver over a second, W.
    pub power_average_w: Option<f64>,
    /// Power limit in force, W.
    pub power_limit_w: Option<f64>,
    /// Share of time in which device memory was read or written, 0 to 1.
    pub mem_util: Option<f64>,
    /// Device memory in use by this process.
    pub process_device_bytes: Option<u64>,
    /// Memory temperature, degrees Celsius.
    pub mem_temperature_c: Option<f64>,
    /// Video clock, MHz.
    pub video_clock_mhz: Option<f64>,
    /// Performance state, 0 (fastest) to 15.
    pub performance_state: Option<u64>,
    /// Sent by the board over PCIe, bytes per second.
    pub pcie_tx_bytes_per_s: Option<f64>,
    /// Received by the board over PCIe, bytes per second.
    pub pcie_rx_bytes_per_s: Option<f64>,
    /// Warps resident, of the most that the SMs hold, 0 to 1 (GPM).
    pub sm_occupancy: Option<f64>,
    /// Share of time in which the tensor pipes were busy, 0 to 1 (GPM).
    pub tensor_util: Option<f64>,
    /// Device-memory bandwidth in use, of the peak, 0 to 1 (GPM).
    pub dram_bw_util: Option<f64>,
    /// What taking this sample cost, ms.
    pub sample_cost_ms: Option<f64>,
}

/// A session as a run used it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionRef {
    /// Session id.
    pub session_id: String,
    /// Path given by the user, or `bundled:<name>`.
    pub source: String,
    /// BLAKE3 of the canonical session, hex.
    pub digest: String,
    /// Calls in the session.
    pub calls: u64,
    /// Calls replayed.
    pub calls_replayed: u64,
    /// Fidelity level of the import.
    pub fidelity_level: String,
    /// Reasons for that level.
    pub fidelity_reasons: Vec<String>,
}

/// `run.json`: everything that names a run. Free-form maps hold what only people read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunManifest {
    /// Version of this schema.
    pub schema_version: u32,
    /// Id of the run.
    pub run_id: String,
    /// When it started, RFC 3339.
    pub started_at: String,
    /// When the last call ended, RFC 3339; `null` while the run is going or if it was cut.
    pub finished_at: Option<String>,
    /// Version of the program.
    pub program_version: String,
    /// Git commit of the program's source, and `+dirty`; `null` when built outside a checkout.
    pub git_commit: Option<String>,
    /// Command line as typed.
    pub command: Vec<String>,
    /// Every setting with its value, defaults included.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Arms in the order given, each with all of its settings; `name` holds the arm name.
    pub arms: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Sessions in the order given.
    pub sessions: Vec<SessionRef>,
    /// `target` and `drafter`, each an object: `name`, `digest`, `architecture`, `bytes`, `random_weights` (true where the
    /// weights are seeded noise: timing has meaning then, text and scores have none).
    pub models: BTreeMap<String, serde_json::Value>,
    /// CPU (its name as `cpu`), cores, memory, operating system, instruction set in use.
    pub machine: BTreeMap<String, serde_json::Value>,
    /// Device that ran the models; driver and clocks where there is a GPU.
    pub device: BTreeMap<String, serde_json::Value>,
    /// How telemetry was sampled and what it cost; the idle baseline (`idle_power_w`) and the energy counter's update period,
    /// where there is a GPU.
    pub telemetry: BTreeMap<String, serde_json::Value>,
    /// Why a source of telemetry is absent.
    pub telemetry_absent: BTreeMap<String, String>,
    /// Seed of everything random.
    pub seed: u64,
    /// Calls planned: arms x repeats x calls.
    pub calls_planned: u64,
}
