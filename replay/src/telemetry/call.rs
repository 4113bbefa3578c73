//! What the samples of one call say: peaks, means and energy. Pure functions over samples; too few samples give no
//! value, never 0.

use reports::record::{EnergyMethod, TelemetrySample};

use crate::telemetry::energy::{self, Evidence, Point, Window};

/// Telemetry of one call, as the record holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CallTelemetry {
    /// Highest resident set, bytes.
    pub host_rss_bytes_peak: Option<u64>,
    /// Highest device memory in use, bytes.
    pub device_bytes_peak: Option<u64>,
    /// Energy, J, idle power included.
    pub energy_j: Option<f64>,
    /// Where that comes from.
    pub energy_method: Option<EnergyMethod>,
    /// Time at the ends of the call for which the energy may be off, ms.
    pub energy_gap_ms: Option<f64>,
    /// Mean power, W.
    pub power_w_mean: Option<f64>,
    /// Mean GPU utilisation, 0 to 1.
    pub gpu_util_mean: Option<f64>,
}

impl CallTelemetry {
    /// Without what was read from a GPU: for calls that ran elsewhere, whose cost an idle board does not show.
    #[must_use]
    pub fn host_alone(self) -> Self {
        Self { host_rss_bytes_peak: self.host_rss_bytes_peak, ..Self::default() }
    }
}

/// Sums up a call: `samples` in order of time, from the one before the call on; `counter_period_ms` is the time between
/// two updates of the energy counter, where it was measured.
pub fn summarise(
    samples: &[TelemetrySample],
    window: Window,
    counter_period_ms: Option<f64>,
) -> CallTelemetry {
    let from = samples.iter().rposition(|sample| sample.time_ms <= window.begin_ms).unwrap_or(0);
    let during = || samples[from..].iter().take_while(|sample| sample.time_ms <= window.end_ms);
    let (counter, power, util) =
        (points(samples, |s| s.energy_j), points(samples, |s| s.power_w), points(samples, |s| s.gpu_util));
    let energy = energy::energy(&Evidence { counter: &counter, counter_period_ms, power: &power }, window);
    let mean = |points: &[Point]| energy::integral(points, window).map(|i| i.area / i.covered_ms);
    CallTelemetry {
        host_rss_bytes_peak: during().filter_map(|sample| sample.host_rss_bytes).max(),
        device_bytes_peak: during().filter_map(|sample| sample.device_bytes).max(),
        energy_j: energy.map(|energy| energy.joules),
        energy_method: energy.map(|energy| energy.method),
        energy_gap_ms: energy.map(|energy| energy.gap_ms),
        power_w_mean: mean(&power),
        gpu_util_mean: mean(&util),
    }
}

/// The samples that have a finite value, as points in time.
pub fn points(samples: &[TelemetrySample], value: fn(&TelemetrySample) -> Option<f64>) -> Vec<Point> {
    let point = |sample: &TelemetrySample| Some((sample.time_ms, value(sample).filter(|v| v.is_finite())?));
    samples.iter().filter_map(point).collect()
}
