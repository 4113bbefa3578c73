//! What a GPU board can be asked, without saying how: one name per reading, and one trait between the sampler and the
//! driver, so that everything above it runs on scripted boards. Knows no driver and no sample.

use std::collections::BTreeMap;

use serde_json::Value;

/// A value that a board may offer at any moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reading {
    /// Energy drawn since the driver was loaded, J.
    Energy,
    /// Power of this moment, W.
    PowerInstant,
    /// Power as the driver reports it where there is none of the moment, W: on most boards from Ampere on, a mean of a
    /// second.
    PowerUsage,
    /// Mean power of the last second, W.
    PowerAverage,
    /// Power limit in force, W.
    PowerLimit,
    /// Share of time in which any kernel ran, 0 to 1.
    GpuUtil,
    /// Share of time in which device memory was read or written, 0 to 1.
    MemoryUtil,
    /// Device memory in use, bytes.
    DeviceBytes,
    /// Device memory in use by this process, bytes.
    ProcessDeviceBytes,
    /// Temperature of the GPU, degrees Celsius.
    Temperature,
    /// Temperature of the memory, degrees Celsius.
    MemoryTemperature,
    /// Clock of the SMs, MHz.
    SmClock,
    /// Clock of the memory, MHz.
    MemoryClock,
    /// Clock of the video units, MHz.
    VideoClock,
    /// Throttle reasons, NVML's bit mask.
    ThrottleMask,
    /// Performance state, 0 to 15.
    PerformanceState,
    /// Sent over PCIe, bytes per second. The driver counts for 20 ms before it answers.
    PcieTx,
    /// Received over PCIe, bytes per second. The driver counts for 20 ms before it answers.
    PcieRx,
}

impl Reading {
    /// The readings that answer at once. Those that change fastest come first, so that they stand nearest to the time
    /// stamp of their sample.
    pub const AT_ONCE: [Self; 16] = [
        Self::Energy,
        Self::PowerInstant,
        Self::PowerUsage,
        Self::PowerAverage,
        Self::GpuUtil,
        Self::MemoryUtil,
        Self::DeviceBytes,
        Self::ProcessDeviceBytes,
        Self::SmClock,
        Self::MemoryClock,
        Self::VideoClock,
        Self::ThrottleMask,
        Self::PerformanceState,
        Self::Temperature,
        Self::MemoryTemperature,
        Self::PowerLimit,
    ];

    /// The readings that block.
    pub const BLOCKING: [Self; 2] = [Self::PcieTx, Self::PcieRx];

    /// Name in `run.json` and `doctor`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Energy => "energy counter",
            Self::PowerInstant => "instant power",
            Self::PowerUsage => "power",
            Self::PowerAverage => "average power",
            Self::PowerLimit => "power limit",
            Self::GpuUtil => "GPU utilisation",
            Self::MemoryUtil => "memory utilisation",
            Self::DeviceBytes => "device memory",
            Self::ProcessDeviceBytes => "device memory of this process",
            Self::Temperature => "GPU temperature",
            Self::MemoryTemperature => "memory temperature",
            Self::SmClock => "SM clock",
            Self::MemoryClock => "memory clock",
            Self::VideoClock => "video clock",
            Self::ThrottleMask => "throttle reasons",
            Self::PerformanceState => "performance state",
            Self::PcieTx => "PCIe sent",
            Self::PcieRx => "PCIe received",
        }
    }
}

/// Name of [`Counted`] in `run.json` and `doctor`.
pub const COUNTED: &str = "hardware counters (GPM)";

/// Means over the time between two readings of the hardware counters; `None` where a board lacks one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    /// Warps resident, of the most that the SMs hold, 0 to 1.
    pub sm_occupancy: Option<f64>,
    /// Share of time in which the tensor pipes were busy, 0 to 1.
    pub tensor_util: Option<f64>,
    /// Device-memory bandwidth in use, of the peak, 0 to 1.
    pub dram_bw_util: Option<f64>,
    /// Sent over PCIe, bytes per second.
    pub pcie_tx_bytes_per_s: Option<f64>,
    /// Received over PCIe, bytes per second.
    pub pcie_rx_bytes_per_s: Option<f64>,
}

/// Why a board gave no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It never will: this board, driver or user lacks it.
    NotOffered(String),
    /// Not this time.
    NotNow(String),
    /// The board is gone; nothing of it can be read any more.
    Lost(String),
}

impl Refusal {
    /// The reason in words.
    pub fn reason(&self) -> &str {
        match self {
            Self::NotOffered(reason) | Self::NotNow(reason) | Self::Lost(reason) => reason,
        }
    }
}

/// A board that can be asked.
pub trait Probe: Send {
    /// What does not change: name, driver, limits, highest clocks.
    fn facts(&self) -> BTreeMap<String, Value>;

    /// One reading, in the unit of its name.
    ///
    /// # Errors
    /// Why there is no value.
    fn read(&mut self, reading: Reading) -> Result<f64, Refusal>;

    /// Reads the hardware counters and gives the means since the last time; nothing the first time.
    ///
    /// # Errors
    /// Why there is none.
    fn count(&mut self) -> Result<Counted, Refusal>;
}
