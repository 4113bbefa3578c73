//! Who gets which sample, and what a board that refuses, lags or disappears leaves behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use replay::clock::RunClock;
use replay::telemetry::call::{CallTelemetry, summarise};
use replay::telemetry::energy::Window;
use replay::telemetry::gpu::Board;
use replay::telemetry::host::HostSource;
use replay::telemetry::nvml::Which;
use replay::telemetry::probe::{COUNTED, Counted, Reading, Refusal};
use replay::telemetry::{Extent, Opened, Source, Sources, Telemetry};
use reports::record::{EnergyMethod, TelemetrySample};

use crate::scripted_board::{ScriptedBoard, always, board, board_by_clock, board_with_counters, counter};

const PERIOD: Duration = Duration::from_millis(20);

fn sample(time_ms: f64, power_w: f64) -> TelemetrySample {
    TelemetrySample { time_ms, power_w: Some(power_w), ..TelemetrySample::default() }
}

fn open(board: &ScriptedBoard) -> Board {
    Board::open(board.probe(), board.probe())
}

fn at_once(source: impl Source + 'static) -> Sources {
    Sources { at_once: vec![Box::new(source)], slow: Vec::new() }
}

fn filled(source: &mut dyn Source, time_ms: f64) -> TelemetrySample {
    let mut sample = TelemetrySample { time_ms, ..TelemetrySample::default() };
    source.fill(&mut sample);
    sample
}

#[test]
fn too_few_samples_give_nothing_and_never_zero() {
    let window = Window { begin_ms: 0.0, end_ms: 10.0 };
    assert_eq!(summarise(&[], window, None), CallTelemetry::default());
    let two = [sample(0.0, 100.0), sample(10.0, 100.0)];
    assert_eq!(summarise(&two, window, None), CallTelemetry::default());
}

#[test]
fn peaks_and_means_are_those_of_the_call_alone() {
    let of =
        |time_ms, rss, power_w| TelemetrySample { host_rss_bytes: Some(rss), ..sample(time_ms, power_w) };
    let samples = [
        of(0.0, 9, 10.0),
        of(100.0, 5, 100.0),
        of(200.0, 7, 100.0),
        of(300.0, 8, 100.0),
        of(400.0, 99, 900.0),
    ];
    let got = summarise(&samples, Window { begin_ms: 100.0, end_ms: 300.0 }, None);
    assert_eq!((got.host_rss_bytes_peak, got.power_w_mean), (Some(8), Some(100.0)));
    assert_eq!(
        (got.energy_j, got.energy_method, got.energy_gap_ms),
        (Some(20.0), Some(EnergyMethod::Power), Some(0.0))
    );
    let host = got.host_alone();
    assert_eq!(host, CallTelemetry { host_rss_bytes_peak: Some(8), ..CallTelemetry::default() });
}

#[test]
fn a_board_is_asked_once_for_what_it_lacks_and_says_so() {
    let board = board([(Reading::Energy, always(5.0)), (Reading::GpuUtil, always(0.5))]);
    let mut opened = open(&board);
    assert_eq!(opened.offer.offered, ["energy counter", "GPU utilisation"]);
    assert_eq!(opened.offer.not_offered["memory temperature"], "not in the script");
    assert_eq!(opened.offer.not_offered[COUNTED], "not in the script");
    assert!(opened.slow.is_none(), "nothing slow is offered, so nothing slow is read");
    for i in 0..10 {
        let sample = filled(opened.at_once.as_mut(), f64::from(i));
        assert_eq!((sample.energy_j, sample.gpu_util, sample.temperature_c), (Some(5.0), Some(0.5), None));
    }
    assert_eq!((board.asked("energy counter"), board.asked("memory temperature")), (11, 1));
    assert_eq!(opened.facts["name"], "a scripted board");
    assert_eq!(opened.facts["telemetry_offered"], serde_json::json!(["energy counter", "GPU utilisation"]));
    assert_eq!(opened.facts["telemetry_not_offered"]["SM clock"], "not in the script");
}

#[test]
fn every_reading_fills_the_field_of_its_name() {
    let all = |scale: f64| {
        let numbered = Reading::AT_ONCE.into_iter().chain(Reading::BLOCKING).enumerate();
        numbered.map(move |(i, reading)| (reading, always(scale * (i as f64 + 1.0))))
    };
    let answers: Vec<_> = all(1.0).collect();
    let board = board::<18>(answers.try_into().unwrap_or_else(|_| panic!("eighteen readings")));
    let mut opened = open(&board);
    let got = filled(opened.at_once.as_mut(), 0.0);
    let slow = filled(opened.slow.as_mut().unwrap().as_mut(), 0.0);
    let expected = TelemetrySample {
        energy_j: Some(1.0),
        power_w: Some(2.0),
        power_average_w: Some(4.0),
        gpu_util: Some(5.0),
        mem_util: Some(6.0),
        device_bytes: Some(7),
        process_device_bytes: Some(8),
        sm_clock_mhz: Some(9.0),
        mem_clock_mhz: Some(10.0),
        video_clock_mhz: Some(11.0),
        throttle_mask: Some(12),
        throttle_reasons: Some("sw_power_cap+hw_slowdown".to_owned()),
        performance_state: Some(13),
        temperature_c: Some(14.0),
        mem_temperature_c: Some(15.0),
        power_limit_w: Some(16.0),
        ..TelemetrySample::default()
    };
    assert_eq!(got, expected);
    assert_eq!((slow.pcie_tx_bytes_per_s, slow.pcie_rx_bytes_per_s), (Some(17.0), Some(18.0)));
}

#[test]
fn averaged_power_stands_in_only_where_there_is_none_of_the_moment() {
    let averaging = board([(Reading::PowerUsage, always(80.0))]);
    assert_eq!(filled(open(&averaging).at_once.as_mut(), 0.0).power_w, Some(80.0));
    let both = board([(Reading::PowerUsage, always(80.0)), (Reading::PowerInstant, always(95.0))]);
    assert_eq!(filled(open(&both).at_once.as_mut(), 0.0).power_w, Some(95.0));
    assert_eq!(both.asked("power"), 0);
}

#[test]
fn a_refusal_for_now_is_asked_again_and_one_for_good_is_not() {
    let at_times = |until: f64, refusal: fn(String) -> Refusal| {
        let answer = move |time_ms| if time_ms < until { Ok(1.0) } else { Err(refusal("gone".to_owned())) };
        Box::new(answer) as Box<dyn Fn(f64) -> Result<f64, Refusal> + Send + Sync>
    };
    let board = board([
        (Reading::SmClock, at_times(10.0, Refusal::NotNow)),
        (Reading::Temperature, at_times(10.0, Refusal::NotOffered)),
    ]);
    let mut opened = open(&board);
    for time_ms in [0.0, 20.0, 30.0] {
        board.set_time(time_ms);
        let sample = filled(opened.at_once.as_mut(), time_ms);
        assert_eq!(sample.sm_clock_mhz.is_some(), time_ms < 10.0);
    }
    assert_eq!((board.asked("SM clock"), board.asked("GPU temperature")), (4, 3));
    assert_eq!(opened.at_once.lost(), None);
}

#[test]
fn a_board_that_is_lost_is_left_alone_and_named() {
    let fails =
        |time_ms| if time_ms < 10.0 { Ok(1.0) } else { Err(Refusal::Lost("fell off the bus".to_owned())) };
    let board = board([(Reading::Energy, Box::new(fails)), (Reading::GpuUtil, always(0.5))]);
    let mut opened = open(&board);
    assert_eq!(filled(opened.at_once.as_mut(), 0.0).gpu_util, Some(0.5));
    board.set_time(10.0);
    for time_ms in [10.0, 20.0] {
        assert_eq!(
            filled(opened.at_once.as_mut(), time_ms),
            TelemetrySample { time_ms, ..TelemetrySample::default() }
        );
    }
    assert_eq!(opened.at_once.lost(), Some("fell off the bus"));
    assert_eq!(board.asked("energy counter"), 3, "at the start, once alive, once lost");
    let telemetry = Telemetry::start(
        RunClock::start(Duration::ZERO),
        Sources { at_once: vec![opened.at_once], slow: vec![] },
        PERIOD,
    );
    assert_eq!(telemetry.lost(), ["fell off the bus"]);
}

#[test]
fn counters_are_read_no_faster_than_they_are_refreshed_and_replace_blocking_reads() {
    let counted = Counted {
        sm_occupancy: Some(0.25),
        tensor_util: Some(0.5),
        dram_bw_util: Some(0.75),
        pcie_tx_bytes_per_s: Some(1e9),
        pcie_rx_bytes_per_s: Some(2e9),
    };
    let board =
        board_with_counters([(Reading::PcieTx, always(7.0)), (Reading::PcieRx, always(7.0))], counted);
    let mut slow = open(&board).slow.unwrap();
    assert_eq!(filled(slow.as_mut(), 0.0).tensor_util, Some(0.5), "since it was opened");
    assert_eq!(filled(slow.as_mut(), 50.0).tensor_util, None);
    assert_eq!(filled(slow.as_mut(), 100.0).tensor_util, None);
    let sample = filled(slow.as_mut(), 150.0);
    assert_eq!((sample.sm_occupancy, sample.dram_bw_util), (Some(0.25), Some(0.75)));
    assert_eq!((sample.pcie_tx_bytes_per_s, sample.pcie_rx_bytes_per_s), (Some(1e9), Some(2e9)));
    assert_eq!(board.asked("PCIe sent"), 1, "asked at the start, never again");
    assert_eq!(board.asked("counters"), 3);
}

#[test]
fn blocking_reads_are_taken_once_a_second() {
    let board = board([(Reading::PcieTx, always(7.0)), (Reading::PcieRx, always(8.0))]);
    let mut slow = open(&board).slow.unwrap();
    let times = (0..=40).map(|i| f64::from(i) * 50.0);
    let seen = times.filter(|&time_ms| filled(slow.as_mut(), time_ms).pcie_rx_bytes_per_s.is_some()).count();
    assert_eq!((seen, board.asked("PCIe received")), (3, 4), "at 0, 1 and 2 s, and when it was opened");
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
    let clock = RunClock::start(Duration::from_secs(60));
    let telemetry = Telemetry::start(clock, at_once(Counter(0)), PERIOD);
    for order_index in [4, 5] {
        telemetry.begin_call(order_index);
        let (call, samples) = telemetry.end_call(Extent::Whole);
        let of_call: Vec<_> = samples.iter().filter(|s| s.order_index == Some(order_index)).collect();
        assert!(of_call.len() >= 2);
        assert_eq!(call.host_rss_bytes_peak, of_call[of_call.len() - 1].host_rss_bytes);
        assert!(samples.iter().all(|s| s.time_ms >= 60_000.0), "the clock goes on where a cut run ended");
        assert!(samples.iter().all(|s| s.order_index.is_none_or(|order| order == order_index)));
        assert!(samples.iter().all(|s| s.sample_cost_ms.is_some_and(|cost| cost >= 0.0)));
    }
    let facts = telemetry.facts();
    assert_eq!(facts["period_ms"], 20.0);
    assert!(facts["samples"].as_u64().unwrap() >= 4);
    assert!(facts["sample_cost_ms_max"].as_f64() >= facts["sample_cost_ms_mean"].as_f64());
}

#[test]
fn without_sources_there_is_nothing() {
    let telemetry = Telemetry::start(RunClock::start(Duration::ZERO), Sources::default(), PERIOD);
    let idle = telemetry.watch_idle(Duration::from_secs(60));
    assert_eq!((idle.energy, idle.power_w()), (None, None), "and nobody waits for it");
    telemetry.begin_call(0);
    let (call, samples) = telemetry.end_call(Extent::Whole);
    assert_eq!((call, samples.len()), (CallTelemetry::default(), 0));
}

/// Says that it has begun, and ends when it is told to.
struct Blocking {
    begun: Sender<()>,
    end: Receiver<()>,
    has_ended: Arc<AtomicBool>,
}

impl Source for Blocking {
    fn fill(&mut self, _sample: &mut TelemetrySample) {
        // Nobody listens any more once the test is through.
        let _ = self.begun.send(());
        let _ = self.end.recv_timeout(Duration::from_secs(20));
        self.has_ended.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_source_that_blocks_holds_up_no_call() {
    let ((begun, has_begun), (end, ends)) = (mpsc::channel(), mpsc::channel());
    let has_ended = Arc::new(AtomicBool::new(false));
    let blocking = Blocking { begun, end: ends, has_ended: Arc::clone(&has_ended) };
    let sources = Sources { at_once: vec![Box::new(Counter(0))], slow: vec![Box::new(blocking)] };
    let telemetry = Telemetry::start(RunClock::start(Duration::ZERO), sources, PERIOD);
    has_begun.recv_timeout(Duration::from_secs(20)).unwrap();
    telemetry.begin_call(0);
    let (_, samples) = telemetry.end_call(Extent::Whole);
    assert!(!has_ended.load(Ordering::SeqCst) && samples.len() == 2);
    drop(end);
}

/// A board that draws 100 W by the run's clock, and whose counter moves every 100 ms.
fn running(clock: RunClock) -> Sources {
    let board = board_by_clock(
        clock,
        [(Reading::Energy, counter(100.0, 100.0)), (Reading::PowerInstant, always(100.0))],
    );
    let mut opened = Opened::default();
    opened.add(open(&board));
    opened.sources
}

#[test]
fn the_idle_baseline_has_a_power_and_the_period_of_the_counter() {
    let clock = RunClock::start(Duration::ZERO);
    let telemetry = Telemetry::start(clock, running(clock), PERIOD);
    let idle = telemetry.watch_idle(Duration::from_millis(1100));
    let (power_w, period_ms) = (idle.power_w().unwrap(), idle.counter_period_ms.unwrap());
    assert!((90.0..110.0).contains(&power_w), "{power_w} W");
    // A machine that is busy with other tests may miss a move or two.
    assert!((80.0..250.0).contains(&period_ms), "{period_ms} ms");
    let facts = telemetry.facts();
    assert!(facts["idle_ms"].as_f64().unwrap() >= 1100.0);
    assert!((facts["idle_power_w"].as_f64().unwrap() - power_w).abs() < 1e-3);
    assert_eq!(facts["idle_method"], "power", "1.1 s is too short for a counter of 100 ms");
}

#[test]
fn what_follows_the_answer_is_not_charged_to_the_call() {
    let clock = RunClock::start(Duration::ZERO);
    let telemetry = Telemetry::start(clock, running(clock), PERIOD);
    telemetry.begin_call(0);
    thread::sleep(Duration::from_millis(1200));
    let (call, samples) = telemetry.end_call(Extent::First(Duration::from_millis(500)));
    // 0.5 s at 100 W, however long the thread was kept from running.
    assert!((call.energy_j.unwrap() - 50.0).abs() < 1e-6, "{call:?}");
    assert_eq!(call.energy_method, Some(EnergyMethod::Power));
    assert!(samples[samples.len() - 1].time_ms - samples[0].time_ms >= 1200.0, "the samples are kept");
}

#[test]
fn this_process_has_a_resident_set_and_a_missing_driver_is_a_sentence() {
    let mut opened = replay::telemetry::open(&Which::Index(0));
    assert_eq!(opened.absent.get("host"), None);
    let sample = filled(opened.sources.at_once[0].as_mut(), 0.0);
    assert!(sample.host_rss_bytes.unwrap() > 1 << 20);
    assert_eq!(sample.host_cpu_cores, None, "one sample spans no time");
    match opened.absent.get("nvml") {
        Some(reason) => {
            assert!(reason.starts_with("no NVIDIA driver answers: "), "{reason}");
            assert!(opened.gpu_offer.is_none() && opened.gpu_facts.is_empty());
        }
        None => assert!(!opened.gpu_offer.unwrap().offered.is_empty()),
    }
}

#[test]
fn cpu_use_is_cpu_time_over_run_time() {
    let mut host = HostSource::open().unwrap();
    let mut at = |time_ms| filled(&mut host, time_ms).host_cpu_cores;
    assert_eq!(at(0.0), None);
    assert_eq!(at(49.0), None, "too short for ticks of 10 ms");
    // The run's clock is given, so that a long time has passed for it and next to none for the process.
    let cores = at(1e9).unwrap();
    assert!((0.0..0.01).contains(&cores), "{cores}");
    assert_eq!(at(1e9 + 1.0), None, "the next window begins there");
}
