//! The harness's only clock: one monotonic start per run, and the wall time that names a run. The engine times its own
//! calls; this clock orders telemetry samples and calls against each other and times nothing that is reported as TTFT.

use std::time::{Duration, Instant};

use jiff::{Timestamp, Unit};

/// Monotonic time since a run started.
#[derive(Clone, Copy, Debug)]
pub struct RunClock {
    start: Instant,
    before: Duration,
}

impl RunClock {
    /// Starts now, for a run that went on for `before` until it was cut; zero for a new one.
    pub fn start(before: Duration) -> Self {
        Self { start: Instant::now(), before }
    }

    /// Time since the run's start, without the pause of a cut.
    pub fn elapsed(&self) -> Duration {
        self.before + self.start.elapsed()
    }
}

/// Wall time in UTC to the second, RFC 3339 (`2026-01-31T08:15:00Z`).
pub fn now_rfc3339() -> String {
    let now = Timestamp::now();
    now.round(Unit::Second).unwrap_or(now).to_string()
}

/// Nanoseconds of the wall clock: tells runs apart that begin in the same second.
pub fn now_nanos() -> i128 {
    Timestamp::now().as_nanosecond()
}

/// A duration as milliseconds: the form of the record. Inside the harness time is a [`Duration`].
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
