//! The made run of `demo` as if a GPU had answered it: shorter calls, energies by the model that the samples follow, a board
//! that warms up and is slowed down at the end.

use reports::record::{CallRecord, EnergyMethod, RunManifest, TelemetrySample};
use reports::stats::SplitMix64;
use reports::throttle;
use serde_json::json;

use crate::demo::Demo;

/// A GPU takes this share of the time of the demo's machine.
const TIME_SHARE: f64 = 0.05;
/// Power at rest, in prefill and in decode, W.
const IDLE_W: f64 = 78.0;
const PREFILL_W: f64 = 640.0;
const DECODE_W: f64 = 420.0;
/// Rest before the first call and between calls, ms.
const REST_MS: f64 = 2_000.0;
const BETWEEN_MS: f64 = 60.0;
const PERIOD_MS: f64 = 50.0;
const GIB: u64 = 1 << 30;

pub fn manifest() -> RunManifest {
    let mut manifest = Demo::four_arms().manifest();
    manifest.telemetry_absent.clear();
    manifest.device.insert("kind".into(), json!("cuda"));
    manifest.telemetry.insert("period_ms".into(), json!(PERIOD_MS));
    manifest.telemetry.insert("idle_power_w".into(), json!(IDLE_W));
    manifest
}

pub fn records() -> Vec<CallRecord> {
    let mut records = Demo::four_arms().records();
    for record in &mut records {
        for ms in [&mut record.ttft_ms, &mut record.decode_ms, &mut record.e2e_ms].into_iter().flatten() {
            *ms *= TIME_SHARE;
        }
        let spans = &mut record.spans_ms;
        let stages = [
            &mut spans.render,
            &mut spans.tokenize,
            &mut spans.drafter_load,
            &mut spans.score,
            &mut spans.select,
            &mut spans.lookup,
            &mut spans.restore,
            &mut spans.prefill,
            &mut spans.first_token,
            &mut spans.unexplained,
        ];
        for ms in stages.into_iter().flatten() {
            *ms *= TIME_SHARE;
        }
        let (ttft, decode) = (record.ttft_ms.unwrap_or(0.0), record.decode_ms.unwrap_or(0.0));
        record.energy_j = Some((ttft * PREFILL_W + decode * DECODE_W) / 1e3);
        let is_long = ttft + decode >= 400.0;
        record.energy_method = Some(if is_long { EnergyMethod::Counter } else { EnergyMethod::Power });
        record.energy_gap_ms = Some(if is_long { 40.0 } else { 0.0 });
    }
    records
}

pub fn telemetry(records: &[CallRecord]) -> Vec<TelemetrySample> {
    let mut board = Board { rng: SplitMix64::new(5), energy_j: 91_000.0, heat: 0.0, samples: Vec::new() };
    let mut start = REST_MS;
    for record in records {
        let (ttft, e2e) = (record.ttft_ms.unwrap_or(0.0), record.e2e_ms.unwrap_or(0.0));
        while board.next_ms() < start {
            board.step(None, IDLE_W);
        }
        while board.next_ms() < start + e2e {
            let watts = if board.next_ms() < start + ttft { PREFILL_W } else { DECODE_W };
            board.step(Some(record.order_index), watts);
        }
        start += e2e + BETWEEN_MS;
    }
    board.samples
}

struct Board {
    rng: SplitMix64,
    energy_j: f64,
    /// 0 cold to 1 as hot as it gets.
    heat: f64,
    samples: Vec<TelemetrySample>,
}

impl Board {
    fn next_ms(&self) -> f64 {
        self.samples.len() as f64 * PERIOD_MS
    }

    fn noise(&mut self, width: f64) -> f64 {
        width * (self.rng.below(2001) as f64 / 1000.0 - 1.0)
    }

    fn step(&mut self, order_index: Option<u64>, watts: f64) {
        let load = (watts - IDLE_W) / (PREFILL_W - IDLE_W);
        self.heat += (load - self.heat) * 0.02;
        self.energy_j += watts * PERIOD_MS / 1e3;
        let mask = match (order_index, self.heat > 0.6) {
            (None, _) => 0x1,
            (Some(_), true) => 0x24,
            (Some(_), false) => 0,
        };
        let power_w = watts + self.noise(12.0);
        let counts = self.samples.len().is_multiple_of(3);
        let share = |value: f64| counts.then_some(value.clamp(0.0, 1.0));
        self.samples.push(TelemetrySample {
            time_ms: self.next_ms(),
            order_index,
            host_rss_bytes: Some(3 * GIB),
            host_cpu_cores: Some(if order_index.is_some() { 1.0 } else { 0.2 }),
            power_w: Some(power_w),
            power_limit_w: Some(700.0),
            energy_j: Some(self.energy_j),
            gpu_util: Some(if order_index.is_some() { 1.0 } else { 0.0 }),
            mem_util: Some(0.55 * load),
            device_bytes: Some(22 * GIB + (load * 3.0) as u64 * GIB),
            process_device_bytes: Some(21 * GIB),
            temperature_c: Some((34.0 + 50.0 * self.heat).round()),
            mem_temperature_c: Some((38.0 + 48.0 * self.heat).round()),
            sm_clock_mhz: Some(if mask & 0x4 != 0 { 1_515.0 } else { 1_980.0 }),
            mem_clock_mhz: Some(3_201.0),
            throttle_mask: Some(mask),
            throttle_reasons: Some(throttle::words(mask)),
            performance_state: Some(0),
            pcie_tx_bytes_per_s: share(load * 0.1).map(|s| s * 2e8),
            pcie_rx_bytes_per_s: share(load * 0.1).map(|s| s * 9e8),
            sm_occupancy: share(0.3 * load),
            tensor_util: share(0.62 * load),
            dram_bw_util: share(1.6 * load * (1.25 - load)),
            sample_cost_ms: Some(0.9),
            ..TelemetrySample::default()
        });
    }
}
