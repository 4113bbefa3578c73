//! A board that says what a script says, at a time that the test or the run's clock sets: steps of the energy counter,
//! refusals, a loss half way. Counts what it is asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use replay::clock::RunClock;
use replay::telemetry::probe::{Counted, Probe, Reading, Refusal};
use serde_json::Value;

/// What a board answers to a reading at a time, ms.
pub type Answer = Box<dyn Fn(f64) -> Result<f64, Refusal> + Send + Sync>;

/// The script, shared by every probe of the board.
#[derive(Clone)]
pub struct ScriptedBoard(Arc<Script>);

struct Script {
    time: Time,
    answers: BTreeMap<Reading, Answer>,
    counters: Option<Counted>,
    asked: Mutex<BTreeMap<&'static str, u64>>,
}

/// Whose time it is.
enum Time {
    Run(RunClock),
    Set(Mutex<f64>),
}

/// A board of these answers whose time the test sets; what has no answer is not offered.
pub fn board<const N: usize>(answers: [(Reading, Answer); N]) -> ScriptedBoard {
    scripted(Time::Set(Mutex::new(0.0)), answers, None)
}

/// As [`board`], with hardware counters.
pub fn board_with_counters<const N: usize>(
    answers: [(Reading, Answer); N],
    counters: Counted,
) -> ScriptedBoard {
    scripted(Time::Set(Mutex::new(0.0)), answers, Some(counters))
}

/// As [`board`], by the clock of a run.
pub fn board_by_clock<const N: usize>(clock: RunClock, answers: [(Reading, Answer); N]) -> ScriptedBoard {
    scripted(Time::Run(clock), answers, None)
}

fn scripted<const N: usize>(
    time: Time,
    answers: [(Reading, Answer); N],
    counters: Option<Counted>,
) -> ScriptedBoard {
    let answers = answers.into_iter().collect();
    ScriptedBoard(Arc::new(Script { time, answers, counters, asked: Mutex::default() }))
}

/// The same value at any time.
pub fn always(value: f64) -> Answer {
    Box::new(move |_| Ok(value))
}

/// A counter under constant power that moves once in `period_ms`.
pub fn counter(power_w: f64, period_ms: f64) -> Answer {
    Box::new(move |time_ms| Ok((time_ms / period_ms).floor() * period_ms * power_w / 1e3))
}

impl ScriptedBoard {
    /// A probe of it.
    pub fn probe(&self) -> Box<dyn Probe> {
        Box::new(ScriptedProbe { board: self.clone(), has_counted: false })
    }

    /// Sets the time, ms.
    pub fn set_time(&self, time_ms: f64) {
        if let Time::Set(time) = &self.0.time {
            *time.lock().unwrap() = time_ms;
        }
    }

    /// How often a reading was asked for.
    pub fn asked(&self, name: &str) -> u64 {
        self.0.asked.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    fn note(&self, name: &'static str) {
        *self.0.asked.lock().unwrap().entry(name).or_default() += 1;
    }

    fn now_ms(&self) -> f64 {
        match &self.0.time {
            Time::Run(clock) => clock.elapsed().as_secs_f64() * 1e3,
            Time::Set(time) => *time.lock().unwrap(),
        }
    }
}

struct ScriptedProbe {
    board: ScriptedBoard,
    has_counted: bool,
}

impl Probe for ScriptedProbe {
    fn facts(&self) -> BTreeMap<String, Value> {
        BTreeMap::from([("name".to_owned(), "a scripted board".into())])
    }

    fn read(&mut self, reading: Reading) -> Result<f64, Refusal> {
        self.board.note(reading.name());
        match self.board.0.answers.get(&reading) {
            Some(answer) => answer(self.board.now_ms()),
            None => Err(Refusal::NotOffered("not in the script".to_owned())),
        }
    }

    fn count(&mut self) -> Result<Counted, Refusal> {
        self.board.note("counters");
        match self.board.0.counters {
            Some(counted) if self.has_counted => Ok(counted),
            Some(_) => {
                self.has_counted = true;
                Ok(Counted::default())
            }
            None => Err(Refusal::NotOffered("not in the script".to_owned())),
        }
    }
}
