//! From a board to fields of a sample. Asks for everything once; what the board refuses for good is named and left out
//! from then on, so that no sample pays for it. Knows no driver.

use std::collections::BTreeMap;

use reports::record::TelemetrySample;
use reports::throttle;
use serde_json::Value;

use crate::telemetry::Source;
use crate::telemetry::probe::{COUNTED, Counted, Probe, Reading, Refusal};

/// Time between two readings of the hardware counters, ms: NVML asks for more than 100, as the board refreshes them no
/// faster.
pub const COUNTED_MS_MIN: f64 = 101.0;
/// Time between two blocking readings, ms.
pub const BLOCKING_MS_MIN: f64 = 1000.0;

/// What a board offers, by name, and why it lacks the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Readings that answered when asked first.
    pub offered: Vec<&'static str>,
    /// The others, each with the reason.
    pub not_offered: BTreeMap<&'static str, String>,
}

impl Offer {
    /// Both lists as facts of `run.json`.
    pub fn facts(&self) -> BTreeMap<String, Value> {
        let offered = self.offered.iter().map(|&name| Value::from(name)).collect();
        let lacks =
            self.not_offered.iter().map(|(&name, reason)| (name.to_owned(), Value::from(reason.as_str())));
        BTreeMap::from([
            ("telemetry_offered".to_owned(), Value::Array(offered)),
            ("telemetry_not_offered".to_owned(), Value::Object(lacks.collect())),
        ])
    }

    fn merge(&mut self, other: Self) {
        self.offered.extend(other.offered);
        self.not_offered.extend(other.not_offered);
    }
}

/// The board of a run: a source for every sample, one for what takes longer, and what it is.
pub struct Board {
    /// Answers at once.
    pub at_once: Box<dyn Source>,
    /// Takes its time, for the sampler's thread alone; absent where the board offers nothing of the kind.
    pub slow: Option<Box<dyn Source>>,
    /// Facts for `run.json`.
    pub facts: BTreeMap<String, Value>,
    /// What it offers and lacks.
    pub offer: Offer,
}

impl Board {
    /// Asks a board everything once. Two probes of it, as the two sources are read from different threads.
    pub fn open(at_once: Box<dyn Probe>, slow: Box<dyn Probe>) -> Self {
        let mut facts = at_once.facts();
        let (source, mut offer) = AtOnce::open(at_once);
        let (slow, of_slow) = Slow::open(slow);
        offer.merge(of_slow);
        facts.extend(offer.facts());
        let slow = slow.map(|slow| Box::new(slow) as Box<dyn Source>);
        Self { at_once: Box::new(source), slow, facts, offer }
    }
}

/// Readings that answer at once.
struct AtOnce {
    probe: Box<dyn Probe>,
    asked: Vec<Reading>,
    lost: Option<String>,
}

impl AtOnce {
    fn open(mut probe: Box<dyn Probe>) -> (Self, Offer) {
        let mut offer = Offer::default();
        let mut asked = Vec::new();
        for reading in Reading::AT_ONCE {
            // Power of the moment is what a call needs; the driver's mean stands in where there is none.
            if reading == Reading::PowerUsage && asked.contains(&Reading::PowerInstant) {
                continue;
            }
            match probe.read(reading) {
                Ok(_) | Err(Refusal::NotNow(_)) => {
                    offer.offered.push(reading.name());
                    asked.push(reading);
                }
                Err(refusal) => {
                    offer.not_offered.insert(reading.name(), refusal.reason().to_owned());
                }
            }
        }
        (Self { probe, asked, lost: None }, offer)
    }
}

impl Source for AtOnce {
    fn fill(&mut self, sample: &mut TelemetrySample) {
        let mut refused = Vec::new();
        for &reading in &self.asked {
            match self.probe.read(reading) {
                Ok(value) => put(sample, reading, value),
                Err(Refusal::NotNow(_)) => {}
                Err(Refusal::NotOffered(_)) => refused.push(reading),
                Err(Refusal::Lost(reason)) => {
                    self.lost = Some(reason);
                    self.asked.clear();
                    return;
                }
            }
        }
        self.asked.retain(|reading| !refused.contains(reading));
    }

    fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }
}

fn put(sample: &mut TelemetrySample, reading: Reading, value: f64) {
    // A cast from float saturates and takes NaN as 0.
    let whole = Some(value.round() as u64);
    match reading {
        Reading::Energy => sample.energy_j = Some(value),
        Reading::PowerInstant | Reading::PowerUsage => sample.power_w = Some(value),
        Reading::PowerAverage => sample.power_average_w = Some(value),
        Reading::PowerLimit => sample.power_limit_w = Some(value),
        Reading::GpuUtil => sample.gpu_util = Some(value),
        Reading::MemoryUtil => sample.mem_util = Some(value),
        Reading::DeviceBytes => sample.device_bytes = whole,
        Reading::ProcessDeviceBytes => sample.process_device_bytes = whole,
        Reading::Temperature => sample.temperature_c = Some(value),
        Reading::MemoryTemperature => sample.mem_temperature_c = Some(value),
        Reading::SmClock => sample.sm_clock_mhz = Some(value),
        Reading::MemoryClock => sample.mem_clock_mhz = Some(value),
        Reading::VideoClock => sample.video_clock_mhz = Some(value),
        Reading::ThrottleMask => {
            sample.throttle_mask = whole;
            sample.throttle_reasons = whole.map(throttle::words);
        }
        Reading::PerformanceState => sample.performance_state = whole,
        Reading::PcieTx => sample.pcie_tx_bytes_per_s = Some(value),
        Reading::PcieRx => sample.pcie_rx_bytes_per_s = Some(value),
    }
}

/// What takes its time: the hardware counters, and PCIe rates where the counters do not hold them.
struct Slow {
    probe: Box<dyn Probe>,
    counts: bool,
    blocking: Vec<Reading>,
    counted_ms: Option<f64>,
    blocking_ms: Option<f64>,
}

impl Slow {
    fn open(mut probe: Box<dyn Probe>) -> (Option<Self>, Offer) {
        let mut offer = Offer::default();
        let counts = match probe.count() {
            Ok(_) | Err(Refusal::NotNow(_)) => {
                offer.offered.push(COUNTED);
                true
            }
            Err(refusal) => {
                offer.not_offered.insert(COUNTED, refusal.reason().to_owned());
                false
            }
        };
        let mut blocking = Vec::new();
        for reading in Reading::BLOCKING {
            match probe.read(reading) {
                Ok(_) | Err(Refusal::NotNow(_)) => {
                    offer.offered.push(reading.name());
                    blocking.push(reading);
                }
                Err(refusal) => {
                    offer.not_offered.insert(reading.name(), refusal.reason().to_owned());
                }
            }
        }
        let has_any = counts || !blocking.is_empty();
        let slow = Self { probe, counts, blocking, counted_ms: None, blocking_ms: None };
        (has_any.then_some(slow), offer)
    }

    fn count(&mut self, sample: &mut TelemetrySample) {
        match self.probe.count() {
            Ok(counted) => put_counted(sample, counted),
            Err(Refusal::NotNow(_)) => {}
            Err(Refusal::NotOffered(_) | Refusal::Lost(_)) => self.counts = false,
        }
        if sample.pcie_tx_bytes_per_s.is_some() && sample.pcie_rx_bytes_per_s.is_some() {
            // The counters say it for the whole time between two samples, without blocking.
            self.blocking.clear();
        }
    }

    fn block(&mut self, sample: &mut TelemetrySample) {
        let mut refused = Vec::new();
        for &reading in &self.blocking {
            match self.probe.read(reading) {
                Ok(value) => put(sample, reading, value),
                Err(Refusal::NotNow(_)) => {}
                Err(Refusal::NotOffered(_) | Refusal::Lost(_)) => refused.push(reading),
            }
        }
        self.blocking.retain(|reading| !refused.contains(reading));
    }
}

impl Source for Slow {
    fn fill(&mut self, sample: &mut TelemetrySample) {
        let is_due =
            |last: Option<f64>, every_ms: f64| last.is_none_or(|last| sample.time_ms - last >= every_ms);
        let (counts_now, blocks_now) =
            (is_due(self.counted_ms, COUNTED_MS_MIN), is_due(self.blocking_ms, BLOCKING_MS_MIN));
        if self.counts && counts_now {
            self.counted_ms = Some(sample.time_ms);
            self.count(sample);
        }
        if !self.blocking.is_empty() && blocks_now {
            self.blocking_ms = Some(sample.time_ms);
            self.block(sample);
        }
    }
}

fn put_counted(sample: &mut TelemetrySample, counted: Counted) {
    sample.sm_occupancy = counted.sm_occupancy;
    sample.tensor_util = counted.tensor_util;
    sample.dram_bw_util = counted.dram_bw_util;
    sample.pcie_tx_bytes_per_s = counted.pcie_tx_bytes_per_s;
    sample.pcie_rx_bytes_per_s = counted.pcie_rx_bytes_per_s;
}
