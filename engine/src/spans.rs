//! The engine's only clock: one monotonic start per call, and the time each stage took, on the host and on the card.
//! Stages never nest.

use std::time::{Duration, Instant};

use crate::device::Device;
use crate::error::EngineError;

/// A stage of TTFT, in the order of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Chat template.
    Render,
    /// Text to token ids.
    Tokenize,
    /// Dropping the target's weights.
    TargetPark,
    /// Reading the drafter's weights.
    DrafterLoad,
    /// Drafter forward pass and tail scores.
    Score,
    /// Smoothing, choosing, cutting the text, and the memo.
    Select,
    /// Dropping the drafter and reading the target's weights again.
    TargetLoad,
    /// Search of the prefix index.
    Lookup,
    /// Pinning the found prefix and making room for the rest.
    Restore,
    /// Target forward pass over the tokens that were not reused.
    Prefill,
    /// Logits of the last position and the first sample.
    FirstToken,
}

/// Time per stage; `None` where the stage did not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    host: [Option<Duration>; 11],
    device: [Option<Duration>; 11],
}

impl Spans {
    /// Time of one stage on the host's clock.
    pub fn get(&self, stage: Stage) -> Option<Duration> {
        self.host[stage as usize]
    }

    /// The part of that time in which the card worked, on the card's clock; `None` without one.
    pub fn device(&self, stage: Stage) -> Option<Duration> {
        self.device[stage as usize]
    }

    /// Sum of the stages that ran.
    pub fn total(&self) -> Duration {
        self.host.iter().flatten().sum()
    }
}

/// Times the stages of one call.
#[derive(Debug)]
pub struct StageClock {
    start: Instant,
    spans: Spans,
}

impl StageClock {
    /// Starts at the arrival of a request.
    pub fn start() -> Self {
        Self { start: Instant::now(), spans: Spans::default() }
    }

    /// Runs `work` and books its time under `stage`; several runs of a stage add up.
    pub fn run<T>(&mut self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        *self.spans.host[stage as usize].get_or_insert_default() += start.elapsed();
        result
    }

    /// Runs `work` on `device`, waits for it, and books the host's time and the card's own.
    ///
    /// # Errors
    /// Those of `work`, or that the card failed.
    pub fn run_on<T>(
        &mut self,
        device: &Device,
        stage: Stage,
        work: impl FnOnce() -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let (result, time) = self.run(stage, || device.timed(work))?;
        if let Some(time) = time {
            *self.spans.device[stage as usize].get_or_insert_default() += time;
        }
        Ok(result)
    }

    /// Time since the request arrived.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// What was booked so far.
    pub const fn spans(&self) -> Spans {
        self.spans
    }
}
