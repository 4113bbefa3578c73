//! An NVIDIA board through NVML. Translates names, units and refusals, and decides nothing: what is asked when, and what
//! follows from an answer, stands in `gpu`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use nvml_wrapper::enum_wrappers::device::{Clock, PcieUtilCounter, PerformanceState, TemperatureSensor};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::gpm::{GpmSample, gpm_metrics_get};
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::{
    NVML_FI_DEV_MEMORY_TEMP, NVML_FI_DEV_POWER_AVERAGE, NVML_FI_DEV_POWER_INSTANT,
};
use nvml_wrapper::{Device, Nvml};
use serde_json::Value;

use crate::telemetry::probe::{Counted, Probe, Reading, Refusal};

/// Bytes in the KB that NVML counts PCIe traffic in.
const KB: f64 = 1000.0;

/// Which board is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// By NVML's own order, which may differ from that of CUDA.
    Index(u32),
    /// By its id, `GPU-...`: the same for NVML and CUDA.
    Uuid(String),
}

/// One board. Handles are good for the life of the process.
pub struct NvmlProbe {
    nvml: &'static Nvml,
    device: Device<'static>,
    counters_before: Option<GpmSample<'static>>,
}

impl NvmlProbe {
    /// Loads the driver's library, once in a process, and finds the board.
    ///
    /// # Errors
    /// Why there is no telemetry of a GPU; goes into `run.json`.
    pub fn open(which: &Which) -> Result<Self, String> {
        static NVML: OnceLock<Result<Nvml, String>> = OnceLock::new();
        let loaded =
            NVML.get_or_init(|| Nvml::init().map_err(|error| format!("no NVIDIA driver answers: {error}")));
        let nvml = loaded.as_ref().map_err(Clone::clone)?;
        let found = match which {
            Which::Index(index) => nvml.device_by_index(*index),
            Which::Uuid(uuid) => nvml.device_by_uuid(uuid.as_str()),
        };
        match found {
            Ok(device) => Ok(Self { nvml, device, counters_before: None }),
            Err(error) => Err(format!("NVML has no such board ({which:?}): {error}")),
        }
    }

    fn field(&self, id: u32) -> Result<f64, Refusal> {
        let samples = self.device.field_values_for(&[FieldId(id)]).map_err(refusal)?;
        let sample = samples.into_iter().next().ok_or_else(|| Refusal::NotNow("no answer".to_owned()))?;
        match sample.and_then(|sample| sample.value).map_err(refusal)? {
            SampleValue::F64(value) => Ok(value),
            SampleValue::U32(value) => Ok(f64::from(value)),
            SampleValue::U64(value) => Ok(value as f64),
            SampleValue::I64(value) => Ok(value as f64),
        }
    }

    /// Memory of this process. A container that hides process ids hides this, too.
    fn process_bytes(&self) -> Result<f64, Refusal> {
        let processes = self.device.running_compute_processes().map_err(refusal)?;
        let own = processes.iter().find(|process| process.pid == std::process::id());
        match own.map(|process| &process.used_gpu_memory) {
            Some(UsedGpuMemory::Used(bytes)) => Ok(*bytes as f64),
            Some(UsedGpuMemory::Unavailable) => {
                Err(Refusal::NotOffered("the system does not say it per process".to_owned()))
            }
            None => Err(Refusal::NotNow("this process is not listed".to_owned())),
        }
    }

    fn clocks_and_limits(&self, put: &mut impl FnMut(&str, Option<Value>)) {
        let device = &self.device;
        let watts = |mw: Result<u32, NvmlError>| mw.ok().map(|mw| (f64::from(mw) / 1e3).into());
        put("power_limit_w", watts(device.enforced_power_limit()));
        put("power_limit_default_w", watts(device.power_management_limit_default()));
        put("sm_clock_max_mhz", device.max_clock_info(Clock::SM).ok().map(Value::from));
        put("mem_clock_max_mhz", device.max_clock_info(Clock::Memory).ok().map(Value::from));
        put("video_clock_max_mhz", device.max_clock_info(Clock::Video).ok().map(Value::from));
        put("pcie_generation", device.current_pcie_link_gen().ok().map(Value::from));
        put("pcie_lanes", device.current_pcie_link_width().ok().map(Value::from));
        put("persistence_mode", device.is_in_persistent_mode().ok().map(Value::from));
        put("mig_enabled", device.mig_mode().ok().map(|mode| (mode.current != 0).into()));
    }
}

impl Probe for NvmlProbe {
    fn facts(&self) -> BTreeMap<String, Value> {
        let mut facts = BTreeMap::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                facts.insert(key.to_owned(), value);
            }
        };
        put("driver", self.nvml.sys_driver_version().ok().map(Value::from));
        put("cuda_driver_version", self.nvml.sys_cuda_driver_version().ok().map(Value::from));
        let device = &self.device;
        put("name", device.name().ok().map(Value::from));
        put("uuid", device.uuid().ok().map(Value::from));
        put("architecture", device.architecture().ok().map(|architecture| architecture.to_string().into()));
        put("memory_bytes", device.memory_info().ok().map(|memory| memory.total.into()));
        self.clocks_and_limits(&mut put);
        let others = device
            .running_compute_processes()
            .ok()
            .map(|processes| processes.iter().filter(|process| process.pid != std::process::id()).count());
        put("other_compute_processes", others.map(Value::from));
        facts
    }

    fn read(&mut self, reading: Reading) -> Result<f64, Refusal> {
        let device = &self.device;
        let value = match reading {
            Reading::Energy => device.total_energy_consumption().map(|mj| mj as f64 / 1e3),
            Reading::PowerInstant => return self.field(NVML_FI_DEV_POWER_INSTANT).map(|mw| mw / 1e3),
            Reading::PowerAverage => return self.field(NVML_FI_DEV_POWER_AVERAGE).map(|mw| mw / 1e3),
            Reading::PowerUsage => device.power_usage().map(|mw| f64::from(mw) / 1e3),
            Reading::PowerLimit => device.enforced_power_limit().map(|mw| f64::from(mw) / 1e3),
            Reading::GpuUtil => device.utilization_rates().map(|rates| f64::from(rates.gpu) / 100.0),
            Reading::MemoryUtil => device.utilization_rates().map(|rates| f64::from(rates.memory) / 100.0),
            Reading::DeviceBytes => device.memory_info().map(|memory| memory.used as f64),
            Reading::ProcessDeviceBytes => return self.process_bytes(),
            Reading::Temperature => device.temperature(TemperatureSensor::Gpu).map(f64::from),
            Reading::MemoryTemperature => return self.field(NVML_FI_DEV_MEMORY_TEMP),
            Reading::SmClock => device.clock_info(Clock::SM).map(f64::from),
            Reading::MemoryClock => device.clock_info(Clock::Memory).map(f64::from),
            Reading::VideoClock => device.clock_info(Clock::Video).map(f64::from),
            Reading::ThrottleMask => device.current_throttle_reasons().map(|reasons| reasons.bits() as f64),
            Reading::PerformanceState => {
                return performance_state(&device.performance_state().map_err(refusal)?);
            }
            Reading::PcieTx => device.pcie_throughput(PcieUtilCounter::Send).map(|kb| f64::from(kb) * KB),
            Reading::PcieRx => device.pcie_throughput(PcieUtilCounter::Receive).map(|kb| f64::from(kb) * KB),
        };
        value.map_err(refusal)
    }

    fn count(&mut self) -> Result<Counted, Refusal> {
        if self.counters_before.is_none() && !self.device.gpm_support().map_err(refusal)? {
            return Err(Refusal::NotOffered("the board has none; Hopper and newer do".to_owned()));
        }
        let now = self.device.gpm_sample().map_err(refusal)?;
        let counted = match &self.counters_before {
            None => Counted::default(),
            Some(before) => counted(self.nvml, before, &now)?,
        };
        self.counters_before = Some(now);
        Ok(counted)
    }
}

/// Means between two readings of the counters. NVML counts shares in percent and PCIe in bytes per second.
fn counted(
    nvml: &'static Nvml,
    before: &GpmSample<'static>,
    now: &GpmSample<'static>,
) -> Result<Counted, Refusal> {
    let ids = [
        GpmMetricId::SmOccupancy,
        GpmMetricId::AnyTensorUtil,
        GpmMetricId::DramBwUtil,
        GpmMetricId::PcieTxPerSec,
        GpmMetricId::PcieRxPerSec,
    ];
    let metrics = gpm_metrics_get(nvml, before, now, &ids).map_err(refusal)?;
    let value = |id: GpmMetricId| {
        let metric = metrics.iter().flatten().find(|metric| metric.metric_id == id)?;
        Some(metric.value).filter(|value| value.is_finite())
    };
    Ok(Counted {
        sm_occupancy: value(GpmMetricId::SmOccupancy).map(|percent| percent / 100.0),
        tensor_util: value(GpmMetricId::AnyTensorUtil).map(|percent| percent / 100.0),
        dram_bw_util: value(GpmMetricId::DramBwUtil).map(|percent| percent / 100.0),
        pcie_tx_bytes_per_s: value(GpmMetricId::PcieTxPerSec),
        pcie_rx_bytes_per_s: value(GpmMetricId::PcieRxPerSec),
    })
}

/// NVML numbers the states 0 to 15 and calls the unknown one 32.
fn performance_state(state: &PerformanceState) -> Result<f64, Refusal> {
    match state.as_c() {
        number @ 0..=15 => Ok(f64::from(number)),
        _ => Err(Refusal::NotNow("unknown".to_owned())),
    }
}

fn refusal(error: NvmlError) -> Refusal {
    let reason = error.to_string();
    match error {
        NvmlError::NotSupported
        | NvmlError::NoPermission
        | NvmlError::FunctionNotFound
        | NvmlError::FailedToLoadSymbol(_)
        | NvmlError::InvalidArg => Refusal::NotOffered(reason),
        NvmlError::GpuLost
        | NvmlError::ResetRequired
        | NvmlError::Uninitialized
        | NvmlError::DriverNotLoaded => Refusal::Lost(reason),
        _ => Refusal::NotNow(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_whether_asking_again_helps() {
        assert!(matches!(refusal(NvmlError::NotSupported), Refusal::NotOffered(_)));
        assert!(matches!(refusal(NvmlError::NoPermission), Refusal::NotOffered(_)));
        assert!(matches!(refusal(NvmlError::Unknown), Refusal::NotNow(_)));
        assert!(matches!(refusal(NvmlError::GpuLost), Refusal::Lost(_)));
    }

    #[test]
    fn performance_states_are_numbers() {
        assert_eq!(performance_state(&PerformanceState::Zero), Ok(0.0));
        assert_eq!(performance_state(&PerformanceState::Eight), Ok(8.0));
        assert_eq!(performance_state(&PerformanceState::Fifteen), Ok(15.0));
        assert!(performance_state(&PerformanceState::Unknown).is_err());
    }
}
