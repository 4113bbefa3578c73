//! What a run will do, before it does any of it: sessions x calls x arms x repeats, in which order, with every default
//! spelled out. A pure function of settings and sessions; knows no backend and no clock.

use serde::Serialize;
use transcripts::session::Session;

use crate::arm::{Arm, Cache};
use crate::compression::{Policy, WithTools};
use crate::error::ReplayError;
use crate::sessions::SourcedSession;
use crate::settings::Settings;

/// A session as the plan uses it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedSession {
    /// Session id.
    pub session_id: String,
    /// `main` or `subagent`.
    pub kind: String,
    /// Path given by the user, or `bundled:NAME`.
    pub source: String,
    /// BLAKE3 of the session, hex.
    pub digest: String,
    /// Calls of the session.
    pub calls: u32,
    /// The calls replayed, from 0: those of the range whose request holds a message.
    pub call_indices: Vec<u32>,
    /// Calls of the range whose request is empty: nothing was recorded before them.
    pub calls_empty: u32,
    /// UTF-8 bytes of the longest replayed prompt: texts, reasoning, tool names and arguments.
    pub prompt_bytes_max: u64,
    /// Level of the import's fidelity.
    pub fidelity_level: String,
    /// Reasons for that level.
    pub fidelity_reasons: Vec<String>,
}

/// One pass: an arm over all calls, from fresh state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pass {
    /// Repeat, from 0.
    pub repeat: u32,
    /// Index into the plan's arms.
    pub arm_index: usize,
}

/// One call within a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index into the plan's sessions.
    pub session_index: usize,
    /// Call within the session, from 0.
    pub call_index: u32,
    /// Position in the order of execution of the whole run, from 0.
    pub order_index: u64,
}

/// Everything a run will do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Settings.
    pub settings: Settings,
    /// Arms in the order given.
    pub arms: Vec<Arm>,
    /// Sessions in the order given.
    pub sessions: Vec<PlannedSession>,
    /// What the user should know before starting: choices made for them, and what will not happen.
    pub notes: Vec<String>,
}

impl Plan {
    /// Plans a run over `sessions`.
    ///
    /// # Errors
    /// No session has a call in the range; an arm needs a drafter and there is none; a session cannot be digested.
    pub fn build(
        settings: Settings,
        arms: Vec<Arm>,
        sessions: &[SourcedSession],
    ) -> Result<Self, ReplayError> {
        if settings.drafter.is_none()
            && let Some(arm) = arms.iter().find(|arm| arm.compression.is_some())
        {
            return Err(ReplayError::DrafterMissing { arm: arm.name.clone(), model: settings.model.clone() });
        }
        let planned: Vec<PlannedSession> =
            sessions.iter().map(|sourced| planned(&settings, sourced)).collect::<Result<_, _>>()?;
        if planned.iter().all(|session| session.call_indices.is_empty()) {
            return Err(ReplayError::NoCalls {
                range: settings.calls,
                calls_max: planned.iter().map(|session| session.calls).max().unwrap_or(0),
                calls_empty: planned.iter().map(|session| session.calls_empty).sum(),
                sessions: planned.len(),
            });
        }
        let mut plan = Self { settings, arms, sessions: planned, notes: Vec::new() };
        plan.notes = plan.find_notes(sessions);
        Ok(plan)
    }

    /// The passes in order of execution: the arms forwards on even repeats and backwards on odd ones (ABBA), so that a
    /// slow drift of the machine cancels.
    pub fn passes(&self) -> Vec<Pass> {
        (0..self.settings.repeats)
            .flat_map(|repeat| {
                let n_arms = self.arms.len();
                (0..n_arms).map(move |i| Pass {
                    repeat,
                    arm_index: if repeat % 2 == 0 { i } else { n_arms - 1 - i },
                })
            })
            .collect()
    }

    /// The calls of a pass in order; `pass_index` counts [`Self::passes`].
    pub fn places(&self, pass_index: usize) -> impl Iterator<Item = Place> {
        let first_order = pass_index as u64 * self.calls_per_pass();
        self.sessions
            .iter()
            .enumerate()
            .flat_map(|(session_index, session)| {
                session.call_indices.iter().map(move |&call_index| (session_index, call_index))
            })
            .enumerate()
            .map(move |(position, (session_index, call_index))| Place {
                session_index,
                call_index,
                order_index: first_order + position as u64,
            })
    }

    /// Calls of one pass.
    pub fn calls_per_pass(&self) -> u64 {
        self.sessions.iter().map(|session| session.call_indices.len() as u64).sum()
    }

    /// Calls of the whole run.
    pub fn calls_planned(&self) -> u64 {
        self.calls_per_pass() * self.arms.len() as u64 * u64::from(self.settings.repeats)
    }

    fn find_notes(&self, sessions: &[SourcedSession]) -> Vec<String> {
        let mut notes = Vec::new();
        let settings = &self.settings;
        if settings.is_bundled() {
            notes.push(format!(
                "no SESSION given: replaying a bundled session, with --compress-threshold {}",
                settings.compress_threshold_tokens
            ));
        }
        if settings.model.starts_with("synthetic:") {
            notes.push(format!(
                "{} has random weights: times and counts are true for its shape, outputs, scores and their codes \
                 mean nothing",
                settings.model
            ));
        }
        notes.extend(self.compression_notes(sessions));
        let n_outside =
            self.sessions.iter().filter(|s| s.call_indices.is_empty() && s.calls_empty == 0).count();
        if n_outside > 0 {
            notes.push(format!("{n_outside} sessions have no call in {} and are left out", settings.calls));
        }
        let n_empty: u32 = self.sessions.iter().map(|session| session.calls_empty).sum();
        if n_empty > 0 {
            notes.push(format!(
                "{n_empty} calls have an empty request, as nothing was recorded before them, and are left out; \
                 --system-prompt gives them one"
            ));
        }
        if settings.calls.first > 1 && self.arms.iter().any(has_state) {
            notes.push(format!(
                "calls before {} are not replayed: the first replayed call of each session meets an empty cache",
                settings.calls.first
            ));
        }
        if let Some(arm) = self.arms.iter().find(|arm| backfills(arm)) {
            notes.extend(self.gap_note(arm, sessions));
        }
        if let (Some(file), true) = (&settings.freeze_store, settings.repeats > 1) {
            notes.push(format!(
                "{} outlives each pass: from the second repeat on nothing is scored in arms that freeze",
                file.display()
            ));
        }
        notes
    }

    /// Calls that wait for the whole backfill before them.
    fn gap_note(&self, arm: &Arm, sessions: &[SourcedSession]) -> Option<String> {
        let follow = |(planned, sourced): (&PlannedSession, &SourcedSession)| {
            let later = planned.call_indices.iter().skip(1);
            let gaps = later.map(|&call| sourced.session.calls.get(call as usize)?.gap_ms);
            gaps.filter(Option::is_none).count()
        };
        let n_without: usize = self.sessions.iter().zip(sessions).map(follow).sum();
        (n_without > 0).then(|| {
            format!(
                "arm {}: calls without a recorded gap before them, which wait for all that is prefilled in it: {n_without}",
                arm.name
            )
        })
    }

    /// What keeps an arm from compressing, as far as it is certain before tokenizing.
    fn compression_notes(&self, sessions: &[SourcedSession]) -> Vec<String> {
        let prompt_bytes_max =
            self.sessions.iter().map(|session| session.prompt_bytes_max).max().unwrap_or(0);
        let carries_tools = sessions.iter().any(|sourced| !sourced.session.tools.is_empty());
        let mut notes = Vec::new();
        for arm in &self.arms {
            let Some(compression) = &arm.compression else { continue };
            // A byte-level tokenizer makes at most one token of a byte, and about one of four in practice.
            let tokens_likely = prompt_bytes_max / 4;
            if tokens_likely < compression.threshold_tokens {
                notes.push(format!(
                    "arm {}: the longest prompt has {prompt_bytes_max} bytes, about {tokens_likely} tokens, under \
                     the threshold of {} tokens: nothing {} be compressed; lower --compress-threshold to change that",
                    arm.name,
                    compression.threshold_tokens,
                    if prompt_bytes_max < compression.threshold_tokens { "will" } else { "may" }
                ));
            }
            if carries_tools && compression.with_tools == WithTools::Bypass {
                notes.push(format!(
                    "arm {}: requests that carry tool definitions are not compressed; --compress-with-tools \
                     changes that",
                    arm.name
                ));
            }
        }
        notes
    }
}

/// Whether this arm prefills between calls.
fn backfills(arm: &Arm) -> bool {
    arm.compression.as_ref().is_some_and(|settings| settings.policy == Policy::LatencyOnly)
}

/// Whether a call of this arm depends on the calls before it.
pub fn has_state(arm: &Arm) -> bool {
    let freezes = arm.compression.as_ref().is_some_and(|settings| settings.policy.freezes());
    arm.cache == Cache::On || freezes
}

fn planned(settings: &Settings, sourced: &SourcedSession) -> Result<PlannedSession, ReplayError> {
    let SourcedSession { source, session } = sourced;
    let calls = u32::try_from(session.calls.len()).unwrap_or(u32::MAX);
    let range = settings.calls.of_session(calls);
    let (call_indices, empty): (Vec<u32>, Vec<u32>) =
        range.partition(|&call| session.calls.get(call as usize).is_some_and(|call| !call.prefix.is_empty()));
    let digest =
        session.digest().map_err(|source| ReplayError::Digest { session_id: session.id.clone(), source })?;
    Ok(PlannedSession {
        session_id: session.id.clone(),
        kind: session.kind.as_str().to_owned(),
        source: source.clone(),
        digest,
        calls,
        prompt_bytes_max: call_indices.iter().map(|&call| prompt_bytes(session, call)).max().unwrap_or(0),
        calls_empty: empty.len() as u32,
        call_indices,
        fidelity_level: session.fidelity.level.as_str().to_owned(),
        fidelity_reasons: session.fidelity.reasons.iter().map(ToString::to_string).collect(),
    })
}

fn prompt_bytes(session: &Session, call_index: u32) -> u64 {
    let messages = session.prefix(call_index as usize);
    let bytes = messages.iter().map(|message| {
        let calls: usize = message.tool_calls.iter().map(|call| call.name.len() + call.arguments.len()).sum();
        message.flat_text().len() + message.reasoning_text().map_or(0, str::len) + calls
    });
    bytes.sum::<usize>() as u64
}
