//! Time-stamped samples of the host and the GPU, taken by one thread, and what they say about a call. Knows no backend,
//! no arm and no session; a call is a number here.

pub mod call;
pub mod host;
pub mod nvml;

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use reports::record::TelemetrySample;

use crate::clock::{RunClock, ms};
use crate::telemetry::call::CallTelemetry;

/// Time between two samples.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// Something that fills fields of a sample.
pub trait Source: Send {
    /// Fills what it knows; leaves absent what cannot be read.
    fn fill(&mut self, sample: &mut TelemetrySample);
}

/// The sampler: a thread between calls, and one sample at each end of a call.
pub struct Telemetry {
    shared: Arc<Mutex<Shared>>,
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

struct Shared {
    clock: RunClock,
    sources: Vec<Box<dyn Source>>,
    current: Option<u64>,
    samples: Vec<TelemetrySample>,
}

/// What the sampler of a run can and cannot see.
pub struct Opened {
    /// The sources that answered.
    pub sources: Vec<Box<dyn Source>>,
    /// Why each of the others is absent.
    pub absent: BTreeMap<String, String>,
    /// Facts of the GPU, where there is one.
    pub gpu_facts: BTreeMap<String, serde_json::Value>,
}

/// Opens every source of this machine; `gpu` is the index of the board.
pub fn open(gpu: u32) -> Opened {
    let mut opened = Opened { sources: Vec::new(), absent: BTreeMap::new(), gpu_facts: BTreeMap::new() };
    match host::HostSource::open() {
        Ok(source) => opened.sources.push(Box::new(source)),
        Err(reason) => {
            opened.absent.insert("host".to_owned(), reason);
        }
    }
    match nvml::NvmlSource::open(gpu) {
        Ok(source) => {
            opened.gpu_facts = source.facts();
            opened.sources.push(Box::new(source));
        }
        Err(reason) => {
            opened.absent.insert("nvml".to_owned(), reason);
        }
    }
    opened
}

impl Telemetry {
    /// Starts the thread. Without sources nothing is ever sampled and no thread runs.
    pub fn start(clock: RunClock, sources: Vec<Box<dyn Source>>) -> Self {
        let is_off = sources.is_empty();
        let shared = Arc::new(Mutex::new(Shared { clock, sources, current: None, samples: Vec::new() }));
        if is_off {
            return Self { shared, thread: None };
        }
        let (stop, stopped) = mpsc::channel::<()>();
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                lock(&of_thread).sample();
            }
        });
        Self { shared, thread: Some((stop, thread)) }
    }

    /// A call begins: samples from here on belong to it.
    pub fn begin_call(&self, order_index: u64) {
        let mut shared = lock(&self.shared);
        shared.current = Some(order_index);
        shared.sample();
    }

    /// The call ends. Returns what its samples say and every sample since the last call's end.
    pub fn end_call(&self) -> (CallTelemetry, Vec<TelemetrySample>) {
        let mut shared = lock(&self.shared);
        shared.sample();
        let current = shared.current.take();
        let samples = std::mem::take(&mut shared.samples);
        let of_call: Vec<&TelemetrySample> =
            samples.iter().filter(|sample| sample.order_index == current).collect();
        (call::summarise(&of_call), samples)
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
    fn sample(&mut self) {
        if self.sources.is_empty() {
            return;
        }
        let mut sample = TelemetrySample {
            time_ms: ms(self.clock.elapsed()),
            order_index: self.current,
            ..TelemetrySample::default()
        };
        for source in &mut self.sources {
            source.fill(&mut sample);
        }
        self.samples.push(sample);
    }
}

/// The lock, also after a panic of the other thread: samples are plain values and stay whole.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
