//! What the samples of one call say: peaks, means and energy. Pure functions over samples; too few samples give no
//! value, never 0.

use reports::record::TelemetrySample;

/// Fewest samples with a value behind a mean.
pub const MEAN_SAMPLES_MIN: usize = 3;
/// Longest gap between two power samples that is still integrated, ms.
pub const GAP_MS_MAX: f64 = 3000.0;

/// Telemetry of one call, as the record holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CallTelemetry {
    /// Highest resident set, bytes.
    pub host_rss_bytes_peak: Option<u64>,
    /// Highest device memory in use, bytes.
    pub device_bytes_peak: Option<u64>,
    /// Energy, J.
    pub energy_j: Option<f64>,
    /// Mean power, W.
    pub power_w_mean: Option<f64>,
    /// Mean GPU utilisation, 0 to 1.
    pub gpu_util_mean: Option<f64>,
}

impl CallTelemetry {
    /// Without what was read from a GPU: for calls that ran elsewhere, whose cost an idle board does not show.
    #[must_use]
    pub const fn host_alone(self) -> Self {
        Self {
            host_rss_bytes_peak: self.host_rss_bytes_peak,
            device_bytes_peak: None,
            energy_j: None,
            power_w_mean: None,
            gpu_util_mean: None,
        }
    }
}

/// Sums up the samples of one call, in order of time.
pub fn summarise(samples: &[&TelemetrySample]) -> CallTelemetry {
    CallTelemetry {
        host_rss_bytes_peak: samples.iter().filter_map(|sample| sample.host_rss_bytes).max(),
        device_bytes_peak: samples.iter().filter_map(|sample| sample.device_bytes).max(),
        energy_j: counted_energy(samples).or_else(|| integrated_energy(samples)),
        power_w_mean: time_mean(samples, |sample| sample.power_w),
        gpu_util_mean: time_mean(samples, |sample| sample.gpu_util),
    }
}

/// The board's energy counter at the last sample less at the first. The counter moves in steps, so a call in which it
/// did not move is no evidence of zero.
fn counted_energy(samples: &[&TelemetrySample]) -> Option<f64> {
    let first = samples.first()?.energy_j?;
    let last = samples.last()?.energy_j?;
    (last > first).then_some(last - first)
}

/// Trapezoids under the sampled power, J; nothing where a gap is too long to bridge or samples are too few.
fn integrated_energy(samples: &[&TelemetrySample]) -> Option<f64> {
    let (area, _) = trapezoids(samples, |sample| sample.power_w)?;
    Some(area / 1e3)
}

/// Mean over time by trapezoids.
fn time_mean(samples: &[&TelemetrySample], value: impl Fn(&TelemetrySample) -> Option<f64>) -> Option<f64> {
    let (area, span_ms) = trapezoids(samples, value)?;
    (span_ms > 0.0).then(|| area / span_ms)
}

/// Area under the samples (value x ms) and the time it spans, ms.
fn trapezoids(
    samples: &[&TelemetrySample],
    value: impl Fn(&TelemetrySample) -> Option<f64>,
) -> Option<(f64, f64)> {
    let points: Vec<(f64, f64)> =
        samples.iter().filter_map(|sample| value(sample).map(|value| (sample.time_ms, value))).collect();
    let gaps_are_short = points.windows(2).all(|pair| pair[1].0 - pair[0].0 <= GAP_MS_MAX);
    if points.len() < MEAN_SAMPLES_MIN || !gaps_are_short {
        return None;
    }
    let area = points.windows(2).map(|pair| (pair[1].0 - pair[0].0) * (pair[0].1 + pair[1].1) / 2.0).sum();
    Some((area, points[points.len() - 1].0 - points[0].0))
}
