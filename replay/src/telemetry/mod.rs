//! Time-stamped samples of the host and the GPU, taken by one thread, and what they say about a call. Knows no backend,
//! no arm and no session; a call is a number here.

pub mod call;
pub mod energy;
pub mod gpu;
pub mod host;
pub mod nvml;
pub mod probe;

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use reports::record::TelemetrySample;
use serde_json::Value;

use crate::clock::{RunClock, ms};
use crate::telemetry::call::CallTelemetry;
use crate::telemetry::energy::{Energy, Evidence, Window};
use crate::telemetry::gpu::{Board, Offer};
use crate::telemetry::nvml::{NvmlProbe, Which};

/// How long the board is watched at rest before the first call, where calls run on it.
pub const IDLE_TIME: Duration = Duration::from_secs(2);
/// Time between two samples while it is: short, so that the energy counter's update period shows.
const IDLE_PERIOD: Duration = Duration::from_millis(5);

/// Something that fills fields of a sample.
pub trait Source: Send {
    /// Fills what it knows; leaves absent what cannot be read.
    fn fill(&mut self, sample: &mut TelemetrySample);

    /// Why it will never fill anything again, where that happened.
    fn lost(&self) -> Option<&str> {
        None
    }
}

/// What is sampled, and how often.
#[derive(Default)]
pub struct Sources {
    /// Read for every sample; they answer at once.
    pub at_once: Vec<Box<dyn Source>>,
    /// Read by the sampler's thread alone, between samples; they may block for tens of milliseconds and hold up no call.
    pub slow: Vec<Box<dyn Source>>,
}

/// What the sampler of a run can and cannot see.
#[derive(Default)]
pub struct Opened {
    /// The sources that answered.
    pub sources: Sources,
    /// Why each of the others is absent.
    pub absent: BTreeMap<String, String>,
    /// Facts of the GPU, where there is one.
    pub gpu_facts: BTreeMap<String, Value>,
    /// What that GPU offers and lacks, where there is one.
    pub gpu_offer: Option<Offer>,
}

/// Opens every source of this machine.
pub fn open(which: &Which) -> Opened {
    let mut opened = Opened::default();
    match host::HostSource::open() {
        Ok(source) => opened.sources.at_once.push(Box::new(source)),
        Err(reason) => {
            opened.absent.insert("host".to_owned(), reason);
        }
    }
    let probes = NvmlProbe::open(which).and_then(|at_once| Ok((at_once, NvmlProbe::open(which)?)));
    match probes {
        Ok((at_once, slow)) => opened.add(Board::open(Box::new(at_once), Box::new(slow))),
        Err(reason) => {
            opened.absent.insert("nvml".to_owned(), reason);
        }
    }
    opened
}

impl Opened {
    /// Adds a board to what is sampled.
    pub fn add(&mut self, board: Board) {
        self.sources.at_once.push(board.at_once);
        self.sources.slow.extend(board.slow);
        self.gpu_facts = board.facts;
        self.gpu_offer = Some(board.offer);
    }
}

/// The sampler: a thread between calls, and one sample at each end of a call.
pub struct Telemetry {
    shared: Arc<Mutex<Shared>>,
    period: Duration,
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

/// Which part of the time between [`Telemetry::begin_call`] and [`Telemetry::end_call`] is the call's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// So much from its start; what came after it checked the answer.
    First(Duration),
}

struct Shared {
    clock: RunClock,
    sources: Vec<Box<dyn Source>>,
    current: Option<u64>,
    begin_ms: f64,
    samples: Vec<TelemetrySample>,
    cost: Cost,
    idle: Option<Idle>,
}

/// What sampling cost.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    samples: u64,
    sum_ms: f64,
    max_ms: f64,
    slow_sum_ms: f64,
}

/// The board at rest: models loaded, nothing running.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Idle {
    /// How long it was watched, ms.
    pub time_ms: f64,
    /// What it drew meanwhile; absent where the board does not say.
    pub energy: Option<Energy>,
    /// Time between two updates of the energy counter, ms, to the 5 ms at which it was read.
    pub counter_period_ms: Option<f64>,
}

impl Idle {
    /// Mean power, W.
    pub fn power_w(&self) -> Option<f64> {
        self.energy.filter(|_| self.time_ms > 0.0).map(|energy| energy.joules / self.time_ms * 1e3)
    }
}

impl Telemetry {
    /// Starts the thread, one sample every `period`. Without sources nothing is ever sampled and no thread runs.
    pub fn start(clock: RunClock, sources: Sources, period: Duration) -> Self {
        let Sources { at_once, mut slow } = sources;
        let is_off = at_once.is_empty() && slow.is_empty();
        let shared = Arc::new(Mutex::new(Shared {
            clock,
            sources: at_once,
            current: None,
            begin_ms: 0.0,
            samples: Vec::new(),
            cost: Cost::default(),
            idle: None,
        }));
        if is_off {
            return Self { shared, period, thread: None };
        }
        let (stop, stopped) = mpsc::channel::<()>();
        let of_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                // Outside of the lock, so that no call waits for what blocks.
                let begun_ms = ms(clock.elapsed());
                let mut read = TelemetrySample { time_ms: begun_ms, ..TelemetrySample::default() };
                for source in &mut slow {
                    source.fill(&mut read);
                }
                let mut shared = lock(&of_thread);
                shared.cost.slow_sum_ms += ms(clock.elapsed()) - begun_ms;
                shared.sample(read);
            }
        });
        Self { shared, period, thread: Some((stop, thread)) }
    }

    /// Watches the machine at rest for so long, so that a report can tell what calls cost above it. No call may be in
    /// flight.
    pub fn watch_idle(&self, time: Duration) -> Idle {
        let begin_ms = self.sample_now();
        let mut end_ms = begin_ms;
        while end_ms - begin_ms < ms(time) && self.thread.is_some() {
            thread::sleep(IDLE_PERIOD);
            end_ms = self.sample_now();
        }
        let mut shared = lock(&self.shared);
        let counter = call::points(&shared.samples, |s| s.energy_j);
        let power = call::points(&shared.samples, |s| s.power_w);
        let counter_period_ms = energy::update_period_ms(&counter);
        let evidence = Evidence { counter: &counter, counter_period_ms, power: &power };
        let window = Window { begin_ms, end_ms };
        let idle = Idle {
            time_ms: window.length_ms(),
            energy: energy::energy(&evidence, window),
            counter_period_ms,
        };
        shared.idle = Some(idle);
        idle
    }

    fn sample_now(&self) -> f64 {
        lock(&self.shared).sample(TelemetrySample::default())
    }

    /// A call begins: samples from here on belong to it.
    pub fn begin_call(&self, order_index: u64) {
        let mut shared = lock(&self.shared);
        shared.current = Some(order_index);
        shared.sample(TelemetrySample::default());
        // After the sample: what reading it took is not the call's.
        shared.begin_ms = ms(shared.clock.elapsed());
    }

    /// The call ends. Returns what its samples say and every sample since the last call's end.
    pub fn end_call(&self, extent: Extent) -> (CallTelemetry, Vec<TelemetrySample>) {
        let mut shared = lock(&self.shared);
        let closing_ms = shared.sample(TelemetrySample::default());
        shared.current = None;
        let samples = std::mem::take(&mut shared.samples);
        let end_ms = match extent {
            Extent::Whole => closing_ms,
            Extent::First(time) => closing_ms.min(shared.begin_ms + ms(time)),
        };
        let window = Window { begin_ms: shared.begin_ms, end_ms };
        let counter_period_ms = shared.idle.and_then(|idle| idle.counter_period_ms);
        (call::summarise(&samples, window, counter_period_ms), samples)
    }

    /// How the run was sampled, for `run.json`: period, cost, idle baseline.
    pub fn facts(&self) -> BTreeMap<String, Value> {
        let shared = lock(&self.shared);
        let mut facts = BTreeMap::new();
        let mut put = |key: &str, value: Value| facts.insert(key.to_owned(), value);
        let Cost { samples, sum_ms, max_ms, slow_sum_ms } = shared.cost;
        put("period_ms", ms(self.period).into());
        put("samples", samples.into());
        if samples > 0 {
            put("sample_cost_ms_mean", rounded(sum_ms / samples as f64));
            put("sample_cost_ms_max", rounded(max_ms));
            put("slow_cost_ms_sum", rounded(slow_sum_ms));
        }
        if let Some(idle) = shared.idle {
            put("idle_ms", rounded(idle.time_ms));
            put("idle_power_w", idle.power_w().map_or(Value::Null, rounded));
            put("idle_method", idle.energy.map_or(Value::Null, |energy| energy.method.as_str().into()));
            put("energy_counter_period_ms", idle.counter_period_ms.map_or(Value::Null, rounded));
        }
        facts
    }

    /// Why sources that answered at first stopped for good.
    pub fn lost(&self) -> Vec<String> {
        lock(&self.shared).sources.iter().filter_map(|source| source.lost().map(str::to_owned)).collect()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            // A sampler that panicked has nothing more to give, and the run's facts do not depend on it.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Takes a sample over what was `read` before; returns its time, ms.
    fn sample(&mut self, read: TelemetrySample) -> f64 {
        let time_ms = ms(self.clock.elapsed());
        if self.sources.is_empty() {
            return time_ms;
        }
        let mut sample = TelemetrySample { time_ms, order_index: self.current, ..read };
        for source in &mut self.sources {
            source.fill(&mut sample);
        }
        let cost_ms = ms(self.clock.elapsed()) - time_ms;
        sample.sample_cost_ms = Some(cost_ms);
        self.cost.samples += 1;
        self.cost.sum_ms += cost_ms;
        self.cost.max_ms = self.cost.max_ms.max(cost_ms);
        self.samples.push(sample);
        time_ms
    }
}

/// To the microsecond: a manifest is read by people.
fn rounded(value: f64) -> Value {
    ((value * 1e3).round() / 1e3).into()
}

/// The lock, also after a panic of the other thread: samples are plain values and stay whole.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
