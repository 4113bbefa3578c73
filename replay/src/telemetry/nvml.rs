//! Power, energy, utilisation, memory, clocks and throttle reasons of one NVIDIA board, through NVML. Every value that
//! the board does not offer stays absent.

use std::collections::BTreeMap;

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use reports::record::TelemetrySample;
use serde_json::Value;

use crate::telemetry::Source;

/// Samples one board.
pub struct NvmlSource {
    nvml: Nvml,
    index: u32,
}

impl NvmlSource {
    /// Loads the driver's library and finds the board.
    ///
    /// # Errors
    /// Why there is no telemetry of a GPU; goes into `run.json`.
    pub fn open(index: u32) -> Result<Self, String> {
        let nvml = Nvml::init().map_err(|error| format!("no NVIDIA driver answers: {error}"))?;
        match nvml.device_by_index(index).map(|_| ()) {
            Ok(()) => Ok(Self { nvml, index }),
            Err(error) => Err(format!("NVML has no board {index}: {error}")),
        }
    }

    /// Name, driver, memory and limits of the board, as far as it says.
    pub fn facts(&self) -> BTreeMap<String, Value> {
        let mut facts = BTreeMap::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                facts.insert(key.to_owned(), value);
            }
        };
        put("driver", self.nvml.sys_driver_version().ok().map(Value::from));
        put("cuda_driver_version", self.nvml.sys_cuda_driver_version().ok().map(Value::from));
        if let Ok(device) = self.nvml.device_by_index(self.index) {
            put("name", device.name().ok().map(Value::from));
            put("memory_bytes", device.memory_info().ok().map(|memory| memory.total.into()));
            put("power_limit_w", device.enforced_power_limit().ok().map(|mw| (f64::from(mw) / 1e3).into()));
            put("sm_clock_max_mhz", device.max_clock_info(Clock::SM).ok().map(Value::from));
            put("mem_clock_max_mhz", device.max_clock_info(Clock::Memory).ok().map(Value::from));
        }
        facts
    }
}

impl Source for NvmlSource {
    fn fill(&mut self, sample: &mut TelemetrySample) {
        let Ok(device) = self.nvml.device_by_index(self.index) else { return };
        sample.power_w = device.power_usage().ok().map(|mw| f64::from(mw) / 1e3);
        sample.energy_j = device.total_energy_consumption().ok().map(|mj| mj as f64 / 1e3);
        sample.gpu_util = device.utilization_rates().ok().map(|rates| f64::from(rates.gpu) / 100.0);
        sample.device_bytes = device.memory_info().ok().map(|memory| memory.used);
        sample.temperature_c = device.temperature(TemperatureSensor::Gpu).ok().map(f64::from);
        sample.sm_clock_mhz = device.clock_info(Clock::SM).ok().map(f64::from);
        sample.mem_clock_mhz = device.clock_info(Clock::Memory).ok().map(f64::from);
        sample.throttle_mask = device.current_throttle_reasons().ok().map(|reasons| reasons.bits());
    }
}
