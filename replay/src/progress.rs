//! What a user sees on stderr while a run is going: a bar on a terminal, one line per pass elsewhere. Sees finished
//! records and nothing of how they came about.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reports::record::CallRecord;

use crate::plan::Plan;
use crate::record::Key;

/// Listens to a run.
pub trait Progress {
    /// A pass begins.
    fn pass_begins(&mut self, arm: &str, repeat: u32);
    /// A call begins.
    fn call_begins(&mut self, key: &Key<'_>);
    /// A call ended and is recorded.
    fn call_ends(&mut self, record: &CallRecord);
    /// A call recorded earlier was run again to rebuild state.
    fn call_rebuilt(&mut self);
    /// The pass ended.
    fn pass_ends(&mut self);
}

/// A bar over all calls of the run, with the last call beside it.
pub struct Bar {
    bar: ProgressBar,
    tally: Tally,
}

impl Bar {
    /// A bar on stderr for the calls of `plan`, of which `n_done` are recorded.
    pub fn new(plan: &Plan, n_done: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(plan.calls_planned()), ProgressDrawTarget::stderr());
        // The template is a constant of this file; where it did not parse, the plain bar is as good.
        let style = ProgressStyle::with_template("{bar:12} {pos}/{len} [{elapsed} < {eta}] {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_position(n_done);
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, tally: Tally::new(plan, n_done) }
    }
}

impl Progress for Bar {
    fn pass_begins(&mut self, arm: &str, repeat: u32) {
        self.tally.begin(arm, repeat);
        self.bar.set_message(format!("{arm}: loading"));
    }

    fn call_begins(&mut self, key: &Key<'_>) {
        self.bar.set_message(self.tally.call_line(key));
    }

    fn call_ends(&mut self, record: &CallRecord) {
        self.tally.add(record);
        self.bar.inc(1);
        if let Some(line) = self.tally.failure(record) {
            self.bar.println(line);
        }
    }

    fn call_rebuilt(&mut self) {
        self.bar.set_message(self.tally.rebuilt());
    }

    fn pass_ends(&mut self) {
        self.bar.println(self.tally.pass_line());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// One plain line per pass, and one per failed call.
pub struct Lines {
    tally: Tally,
}

impl Lines {
    /// Lines on stderr for `plan`, of which `n_done` calls are recorded.
    pub fn new(plan: &Plan, n_done: u64) -> Self {
        Self { tally: Tally::new(plan, n_done) }
    }
}

impl Progress for Lines {
    fn pass_begins(&mut self, arm: &str, repeat: u32) {
        self.tally.begin(arm, repeat);
    }

    fn call_begins(&mut self, _key: &Key<'_>) {}

    fn call_ends(&mut self, record: &CallRecord) {
        self.tally.add(record);
        if let Some(line) = self.tally.failure(record) {
            eprintln!("{line}");
        }
    }

    fn call_rebuilt(&mut self) {
        self.tally.rebuilt();
    }

    fn pass_ends(&mut self) {
        eprintln!("{}", self.tally.pass_line());
    }
}

/// Counts of the run and of the pass that is going.
struct Tally {
    calls_of: std::collections::BTreeMap<String, u32>,
    repeats: u32,
    calls_planned: u64,
    n_recorded: u64,
    arm: String,
    repeat: u32,
    pass: PassTally,
    last: Option<String>,
}

#[derive(Default)]
struct PassTally {
    n_calls: u64,
    n_failed: u64,
    n_rebuilt: u64,
    ttft_ms_sum: f64,
    tokens_raw: u64,
    tokens_prefix_hit: u64,
}

impl Tally {
    fn new(plan: &Plan, n_done: u64) -> Self {
        Self {
            calls_of: plan.sessions.iter().map(|s| (s.session_id.clone(), s.calls)).collect(),
            repeats: plan.settings.repeats,
            calls_planned: plan.calls_planned(),
            n_recorded: n_done,
            arm: String::new(),
            repeat: 0,
            pass: PassTally::default(),
            last: None,
        }
    }

    fn begin(&mut self, arm: &str, repeat: u32) {
        self.arm = arm.to_owned();
        self.repeat = repeat;
        self.pass = PassTally::default();
        self.last = None;
    }

    fn add(&mut self, record: &CallRecord) {
        self.n_recorded += 1;
        self.pass.n_calls += 1;
        self.pass.n_failed += u64::from(record.error.is_some());
        self.pass.ttft_ms_sum += record.ttft_ms.unwrap_or(0.0);
        self.pass.tokens_raw += record.tokens_raw.unwrap_or(0);
        self.pass.tokens_prefix_hit += record.tokens_prefix_hit.unwrap_or(0);
        self.last = Some(match (record.tokens_raw, record.ttft_ms) {
            (Some(raw), Some(ttft_ms)) => {
                let hit = percent(record.tokens_prefix_hit.unwrap_or(0), raw);
                format!("{raw} tokens, hit {hit}, TTFT {}", seconds(ttft_ms))
            }
            _ => "failed".to_owned(),
        });
    }

    fn failure(&self, record: &CallRecord) -> Option<String> {
        let error = record.error.as_ref()?;
        Some(format!("{} failed: {}", self.place(&record.session_id, record.call_index), error.message))
    }

    fn rebuilt(&mut self) -> String {
        self.pass.n_rebuilt += 1;
        format!("{}: rebuilding state, {} calls run again", self.title(), self.pass.n_rebuilt)
    }

    fn title(&self) -> String {
        if self.repeats > 1 {
            format!("{} (repeat {} of {})", self.arm, self.repeat + 1, self.repeats)
        } else {
            self.arm.clone()
        }
    }

    /// The call in flight, and what the last one gave: short enough for 80 columns.
    fn call_line(&self, key: &Key<'_>) -> String {
        let place = self.place(key.session_id, key.call_index);
        match &self.last {
            Some(last) => format!("{place} · last {last}"),
            None => place,
        }
    }

    fn place(&self, session_id: &str, call_index: u32) -> String {
        let session: String = session_id.chars().take(8).collect();
        let calls = self.calls_of.get(session_id).copied().unwrap_or(0);
        format!("{} {session} {}/{calls}", self.title(), call_index + 1)
    }

    fn pass_line(&self) -> String {
        let pass = &self.pass;
        let mut line = format!(
            "{}: {} calls, TTFT sum {}, prefix hit {} of raw tokens",
            self.title(),
            pass.n_calls,
            seconds(pass.ttft_ms_sum),
            percent(pass.tokens_prefix_hit, pass.tokens_raw)
        );
        if pass.n_failed > 0 {
            line += &format!(", {} failed", pass.n_failed);
        }
        if pass.n_rebuilt > 0 {
            line += &format!(", {} run again to rebuild state", pass.n_rebuilt);
        }
        line + &format!(" [{}/{}]", self.n_recorded, self.calls_planned)
    }
}

fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".to_owned(),
        _ => format!("{:.0} %", part as f64 * 100.0 / whole as f64),
    }
}

fn seconds(time_ms: f64) -> String {
    if time_ms < 1000.0 { format!("{time_ms:.1} ms") } else { format!("{:.2} s", time_ms / 1e3) }
}
