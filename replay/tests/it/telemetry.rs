//! What samples say about a call, and who gets which sample.

use std::time::Duration;

use replay::clock::RunClock;
use replay::telemetry::call::{CallTelemetry, summarise};
use replay::telemetry::host::HostSource;
use replay::telemetry::{Source, Telemetry};
use reports::record::TelemetrySample;

fn sample(time_ms: f64, power_w: f64) -> TelemetrySample {
    TelemetrySample { time_ms, power_w: Some(power_w), ..TelemetrySample::default() }
}

fn summary(samples: &[TelemetrySample]) -> CallTelemetry {
    summarise(&samples.iter().collect::<Vec<_>>())
}

#[test]
fn too_few_samples_give_nothing_and_never_zero() {
    assert_eq!(summary(&[]), CallTelemetry::default());
    assert_eq!(summary(&[sample(0.0, 100.0), sample(10.0, 100.0)]), CallTelemetry::default());
    let same_time = [sample(5.0, 100.0), sample(5.0, 100.0), sample(5.0, 100.0)];
    assert_eq!(summary(&same_time).power_w_mean, None);
}

#[test]
fn energy_is_the_area_under_the_power() {
    let samples = [sample(0.0, 100.0), sample(500.0, 200.0), sample(2000.0, 200.0)];
    let got = summary(&samples);
    // 0.5 s x 150 W + 1.5 s x 200 W = 375 J over 2 s.
    assert!((got.energy_j.unwrap() - 375.0).abs() < 1e-9);
    assert!((got.power_w_mean.unwrap() - 187.5).abs() < 1e-9);
}

#[test]
fn a_long_gap_is_not_bridged() {
    let samples = [sample(0.0, 100.0), sample(100.0, 100.0), sample(3200.0, 100.0)];
    assert_eq!(summary(&samples), CallTelemetry::default());
}

#[test]
fn the_energy_counter_goes_before_the_samples() {
    let mut samples = vec![sample(0.0, 100.0), sample(500.0, 100.0), sample(1000.0, 100.0)];
    samples[0].energy_j = Some(1000.0);
    samples[2].energy_j = Some(1090.0);
    assert!((summary(&samples).energy_j.unwrap() - 90.0).abs() < 1e-9);
    samples[2].energy_j = Some(1000.0);
    assert!(
        (summary(&samples).energy_j.unwrap() - 100.0).abs() < 1e-9,
        "a counter that stood still says nothing"
    );
}

#[test]
fn peaks_are_peaks_and_a_gpu_that_ran_nothing_is_left_out() {
    let rss = |bytes, device| TelemetrySample {
        host_rss_bytes: Some(bytes),
        device_bytes: Some(device),
        ..TelemetrySample::default()
    };
    let got = summary(&[rss(5, 70), rss(9, 60)]);
    assert_eq!((got.host_rss_bytes_peak, got.device_bytes_peak), (Some(9), Some(70)));
    let host = got.host_alone();
    assert_eq!((host.host_rss_bytes_peak, host.device_bytes_peak), (Some(9), None));
}

/// Counts its samples in `host_rss_bytes`.
struct Counter(u64);

impl Source for Counter {
    fn fill(&mut self, sample: &mut TelemetrySample) {
        self.0 += 1;
        sample.host_rss_bytes = Some(self.0);
    }
}

#[test]
fn every_call_has_a_sample_at_both_ends() {
    let telemetry = Telemetry::start(RunClock::start(Duration::from_secs(60)), vec![Box::new(Counter(0))]);
    for order_index in [4, 5] {
        telemetry.begin_call(order_index);
        let (call, samples) = telemetry.end_call();
        let of_call: Vec<_> = samples.iter().filter(|s| s.order_index == Some(order_index)).collect();
        assert!(of_call.len() >= 2);
        assert_eq!(call.host_rss_bytes_peak, of_call[of_call.len() - 1].host_rss_bytes);
        assert!(samples.iter().all(|s| s.time_ms >= 60_000.0), "the clock goes on where a cut run ended");
        assert!(samples.iter().all(|s| s.order_index.is_none_or(|order| order == order_index)));
    }
}

#[test]
fn without_sources_there_is_nothing() {
    let telemetry = Telemetry::start(RunClock::start(Duration::ZERO), Vec::new());
    telemetry.begin_call(0);
    let (call, samples) = telemetry.end_call();
    assert_eq!((call, samples.len()), (CallTelemetry::default(), 0));
}

#[test]
fn this_process_has_a_resident_set() {
    let opened = replay::telemetry::open(0);
    assert_eq!(opened.absent.get("host"), None);
    let mut sample = TelemetrySample::default();
    for mut source in opened.sources {
        source.fill(&mut sample);
    }
    assert!(sample.host_rss_bytes.unwrap() > 1 << 20);
    assert_eq!(sample.host_cpu_cores, None, "one sample spans no time");
    // Without a driver the reason is a sentence, with one there is a board.
    assert_eq!(opened.absent.contains_key("nvml"), opened.gpu_facts.is_empty());
}

#[test]
fn cpu_use_is_cpu_time_over_run_time() {
    let mut host = HostSource::open().unwrap();
    let mut at = |time_ms| {
        let mut sample = TelemetrySample { time_ms, ..TelemetrySample::default() };
        host.fill(&mut sample);
        sample.host_cpu_cores
    };
    assert_eq!(at(0.0), None);
    assert_eq!(at(49.0), None, "too short for ticks of 10 ms");
    // The run's clock is given, so that a long time has passed for it and next to none for the process.
    let cores = at(1e9).unwrap();
    assert!((0.0..0.01).contains(&cores), "{cores}");
    assert_eq!(at(1e9 + 1.0), None, "the next window begins there");
}
