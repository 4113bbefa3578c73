//! The loop of a run: for each pass, fresh state; for each call in order, send the recorded prefix, record the facts,
//! go on with the recorded turn. What the model generates is measured and thrown away. The only module that sees the
//! backend, the arms, telemetry and the recorder; these never see each other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reports::check;
use reports::record::{CallRecord, PrefixBreak};
use transcripts::message::Message;
use transcripts::session::Session;

use crate::arm::Arm;
use crate::backend::{Backend, BackendError, CallFacts, CallInput, Device, FidelityCheck, Identity, Verify};
use crate::compression::Policy;
use crate::error::ReplayError;
use crate::growth::{self, Previous};
use crate::idle::Idle;
use crate::plan::{self, Pass, Place, Plan};
use crate::progress::Progress;
use crate::record::{self, Expected, Key};
use crate::recorder::Recorder;
use crate::resume::Done;
use crate::sessions::SourcedSession;
use crate::telemetry::{Extent, Telemetry};

/// Everything a run needs, assembled by the command.
pub struct Runner<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// The sessions, parallel to the plan's.
    pub sessions: &'a [SourcedSession],
    /// Id of the run.
    pub run_id: &'a str,
    /// What answers.
    pub backend: &'a mut dyn Backend,
    /// What that is.
    pub identity: &'a Identity,
    /// Samples of host and GPU.
    pub telemetry: &'a Telemetry,
    /// Where records go.
    pub recorder: &'a mut Recorder,
    /// What the user sees.
    pub progress: &'a mut dyn Progress,
    /// What an earlier part of this run recorded.
    pub done: &'a Done,
    /// Set to end the run after the call in flight.
    pub stop: &'a AtomicBool,
    /// The call before, to see whether the next one extends it.
    pub previous: Option<Previous>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// Every planned call has its record.
    Complete,
    /// It was asked to stop; what was measured is recorded.
    Stopped,
}

impl Runner<'_> {
    /// Runs every pass that is not done.
    ///
    /// # Errors
    /// A record breaks an invariant, the backend cannot take on an arm, the disk refuses. A call that fails is a
    /// record, not an error.
    pub fn run(&mut self) -> Result<RunEnd, ReplayError> {
        for (pass_index, pass) in self.plan.passes().into_iter().enumerate() {
            let arm = &self.plan.arms[pass.arm_index];
            let places: Vec<Place> = self.plan.places(pass_index).collect();
            let keys: Vec<Key<'_>> = places.iter().map(|place| self.key(arm, pass, place)).collect();
            let Some(last_missing) = keys.iter().rposition(|key| !self.done.contains(key)) else { continue };
            self.progress.pass_begins(&arm.name, pass.repeat);
            self.previous = None;
            self.backend.start(arm).map_err(|source| ReplayError::Arm { arm: arm.name.clone(), source })?;
            for (place, key) in places.iter().zip(keys).take(last_missing + 1) {
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(RunEnd::Stopped);
                }
                if !self.done.contains(&key) {
                    self.measure(arm, place, key)?;
                } else if plan::has_state(arm) {
                    self.rebuild(arm, place);
                }
            }
            self.recorder.sync()?;
            self.progress.pass_ends();
        }
        Ok(RunEnd::Complete)
    }

    /// One measured call.
    fn measure(&mut self, arm: &Arm, place: &Place, key: Key<'_>) -> Result<(), ReplayError> {
        let session = &self.sessions[place.session_index].session;
        let messages = session.prefix(place.call_index as usize);
        let recorded = session.completion(place.call_index as usize);
        let input = CallInput {
            verify: self.plan.settings.verify,
            action: recorded.filter(|_| self.plan.settings.fidelity == FidelityCheck::TeacherForced),
            ..self.input(&messages, session)
        };

        self.progress.call_begins(&key);
        let (idle, prefilled) = self.idle(place);
        self.telemetry.begin_call(place.order_index);
        let result = prefilled.and_then(|()| self.backend.call(&input));
        // Checks run after the answer: their work is not the call's.
        let extent = match &result {
            Ok(facts) if facts.exact.is_some() || input.action.is_some() => Extent::First(facts.e2e),
            _ => Extent::Whole,
        };
        let (mut telemetry, samples) = self.telemetry.end_call(extent);
        if self.identity.device == Device::Cpu {
            telemetry = telemetry.host_alone();
        }

        let expected =
            Expected { prompt: &messages, tools: &session.tools, recorded, thinking: self.identity.thinking };
        let mut record = match &result {
            Ok(facts) => record::answered(key, facts, &idle, telemetry, &expected),
            Err(error) => record::failed(key, error, &idle, telemetry),
        };
        if let Ok(facts) = result {
            record.prefix_break = self.grow(arm, place, facts);
        }
        self.recorder.append(&record, &samples)?;
        self.progress.call_ends(&record);
        self.check(&record)
    }

    /// Brings the backend to the state after a call that was recorded before the run was cut.
    fn rebuild(&mut self, arm: &Arm, place: &Place) {
        let session = &self.sessions[place.session_index].session;
        let messages = session.prefix(place.call_index as usize);
        let input = self.input(&messages, session);
        // Its record is on disk already, and a call that failed then may fail again: state is all that counts here.
        let (_, prefilled) = self.idle(place);
        if let Ok(facts) = prefilled.and_then(|()| self.backend.call(&input)) {
            self.grow(arm, place, facts);
        }
        self.progress.call_rebuilt();
    }

    /// What lies between a call and the one before it in its session, in which the backend does what that one left to be
    /// done. The last call of a session leaves nothing: nobody would read it.
    fn idle(&mut self, place: &Place) -> (Idle, Result<(), BackendError>) {
        let call = self.sessions[place.session_index].session.calls.get(place.call_index as usize);
        let gap = call.and_then(|call| call.gap_ms).map(Duration::from_millis);
        let follows = self.previous.as_ref().is_some_and(|last| last.session_index == place.session_index);
        match if follows { self.backend.backfill() } else { Ok(None) } {
            Ok(backfill) => (Idle { gap, backfill }, Ok(())),
            Err(error) => (Idle { gap, backfill: None }, Err(error)),
        }
    }

    /// Holds an answered call against the one before it in its session, and remembers it for the next.
    fn grow(&mut self, arm: &Arm, place: &Place, facts: CallFacts) -> Option<PrefixBreak> {
        let previous = self.previous.take().filter(|previous| previous.session_index == place.session_index);
        let call = self.sessions[place.session_index].session.calls.get(place.call_index as usize);
        let recorded = call.and_then(|call| call.prefix_break).map(|found| found.cause);
        let policy = arm.compression.as_ref().map(|compression| compression.policy);
        let found = match (&previous, facts.growth) {
            (Some(previous), Some(growth)) => {
                growth::prefix_break(&previous.sent, &facts.sent, growth, recorded, policy)
            }
            _ => None,
        };
        let sent = match policy {
            Some(Policy::LatencyOnly) => {
                let as_it_came = self.sessions[place.session_index].session.prefix(place.call_index as usize);
                as_it_came.into_iter().cloned().collect()
            }
            _ => facts.sent,
        };
        self.previous = Some(Previous { session_index: place.session_index, sent });
        found
    }

    fn check(&self, record: &CallRecord) -> Result<(), ReplayError> {
        match check::check_record(record).into_iter().next() {
            Some(violation) => {
                let path = self.recorder.dir().path().to_owned();
                Err(ReplayError::Invalid { path, violation: Box::new(violation) })
            }
            None => Ok(()),
        }
    }

    fn key<'k>(&self, arm: &'k Arm, pass: Pass, place: &Place) -> Key<'k>
    where
        Self: 'k,
    {
        Key {
            run_id: self.run_id,
            arm: &arm.name,
            repeat: pass.repeat,
            session_id: &self.plan.sessions[place.session_index].session_id,
            call_index: place.call_index,
            order_index: place.order_index,
        }
    }

    /// A call as it is answered, without checks.
    fn input<'i>(&self, messages: &'i [&'i Message], session: &'i Session) -> CallInput<'i> {
        CallInput {
            messages,
            tools: &session.tools,
            max_new_tokens: self.plan.settings.max_new_tokens,
            sampling: self.plan.settings.sampling(),
            verify: Verify::Off,
            action: None,
        }
    }
}
