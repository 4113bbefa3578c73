//! What a pair of models can do, measured on sessions that it was never trained on: whether the target writes well-formed
//! tool calls and copies the right fact into them, how often it still does when tool outputs are compressed, and whether
//! the drafter ranks the fact's chunks high. Knows no command line.
//!
//! Every probe is a generated session cut before a call whose arguments are copied from a fact in an earlier tool output.
//! The same engine answers it under every arm, greedily; an answer counts when its tool calls equal the recorded ones.

mod probe;
mod tally;

use serde::Serialize;
use transcripts::error::TranscriptError;
use transcripts::message::Message;
use transcripts::schema::ToolSchemas;
use transcripts::synth::{FactKind, TRAINING_SEEDS};

use crate::agreement;
use crate::arm::{Arm, ArmDefaults, Residency};
use crate::backend::engine::EngineBackend;
use crate::backend::{Backend, BackendError, CallInput, Sampling, Verify};
use crate::compression::FallbackChoice;
use crate::settings;
use crate::validity::{self, Output, Thinking};

pub use probe::{Ask, CountTokens, Probe};
pub use tally::{ArmTally, Count, KindRow, LengthRow, by_kind, by_length};

/// Most tokens of an answer: more than any acting call of the generator takes.
const ANSWER_TOKENS_MAX: u32 = 160;
/// Share of a tool output's chunks that the fact's chunks must be among, as one over this.
pub const RECALL_ONE_OF: usize = 10;
/// Seeds between the first probes of two lengths, and of two ways to ask.
const SEEDS_PER_ROW: u64 = 1 << 16;

/// First seed of the probes by default: far from the sessions that come with the program.
pub const FIRST_SEED: u64 = 1 << 33;

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Prompt lengths in the target's tokens.
    pub lengths: Vec<usize>,
    /// How facts come into sight.
    pub asks: Vec<Ask>,
    /// Probes of each length and way.
    pub prompts: u64,
    /// Seed of the first probe; above [`TRAINING_SEEDS`].
    pub first_seed: u64,
    /// The arms that answer.
    pub arms: Vec<Arm>,
    /// The arm whose scoring the drafter's ranking is taken from; it compresses.
    pub ranked_by: Option<Arm>,
}

/// What came out of one probe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// How the fact came into sight.
    pub ask: Ask,
    /// Prompt tokens wanted.
    pub tokens: usize,
    /// Prompt tokens of the probe.
    pub prompt_tokens: usize,
    /// Seed of its session.
    pub seed: u64,
    /// What the fact is about.
    pub kind: FactKind,
    /// What each arm answered, in the order of the plan.
    pub answers: Vec<Answer>,
    /// Whether every chunk that holds a value of the fact is in the best tenth of its tool output's chunks, rounded up;
    /// `None` where nothing was ranked.
    pub recalled: Option<bool>,
}

/// One arm's answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Name of the arm.
    pub arm: String,
    /// The output passes every structure check, without repair.
    pub valid: bool,
    /// Its tool calls equal the recorded ones.
    pub exact: bool,
    /// The prompt as sent still held all that the recorded call needs.
    pub kept: bool,
    /// Tokens that compression took from the prompt.
    pub tokens_removed: i64,
    /// What was generated.
    pub output: String,
}

/// Why abilities could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum AbilityError {
    /// A seed that training may have seen.
    #[error("seed {seed} is one of training's; held-out seeds start at {}", TRAINING_SEEDS.end() + 1)]
    TrainingSeed {
        /// The seed.
        seed: u64,
    },
    /// No session of a seed ends in a call that asks as wanted.
    #[error(
        "no generated session of seed {seed} and about {tokens} tokens asks as {ask:?}; ask for longer prompts"
    )]
    NoProbe {
        /// The way to ask.
        ask: Ask,
        /// The seed.
        seed: u64,
        /// Prompt tokens wanted.
        tokens: usize,
    },
    /// A generated session does not import.
    #[error(transparent)]
    Transcript(#[from] TranscriptError),
    /// The models cannot answer.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// What arms take that name nothing of their own: every output is compressed to this share, in thousandths, but for so many
/// tokens that it keeps at least; all else as in a run.
pub fn arm_defaults(keep_permille: u32, keep_floor_tokens: u64) -> ArmDefaults {
    ArmDefaults {
        keep_verbatim_newest: settings::KEEP_VERBATIM_NEWEST,
        keep_permille,
        threshold_tokens: 1,
        score_by: None,
        score_layers: None,
        score_rope: None,
        selection: None,
        keep_floor_tokens,
        verbatim_tools: settings::VERBATIM_TOOLS.split(',').map(str::to_owned).collect(),
        seed: 0,
        with_tools: None,
        user_fallback: FallbackChoice::Off,
        residency: Residency::Resident,
        freeze_store: None,
    }
}

/// Runs every probe of the plan; `done` hears of each outcome.
///
/// # Errors
/// [`AbilityError`]: the first probe that cannot be made or answered ends it.
pub fn measure(
    plan: &Plan,
    backend: &mut EngineBackend,
    done: &mut dyn FnMut(&Outcome),
) -> Result<Vec<Outcome>, AbilityError> {
    if TRAINING_SEEDS.contains(&plan.first_seed) {
        return Err(AbilityError::TrainingSeed { seed: plan.first_seed });
    }
    let mut outcomes = Vec::new();
    let rows = plan.lengths.iter().flat_map(|&tokens| plan.asks.iter().map(move |&ask| (ask, tokens)));
    for ((ask, tokens), row) in rows.zip(0_u64..) {
        for prompt in 0..plan.prompts {
            let seed = plan.first_seed.saturating_add(row * SEEDS_PER_ROW + prompt);
            let probe = Probe::draw(ask, seed, tokens, &|messages| backend.prompt_tokens(messages))?;
            let outcome = outcome(plan, backend, &probe, tokens)?;
            done(&outcome);
            outcomes.push(outcome);
        }
    }
    Ok(outcomes)
}

fn outcome(
    plan: &Plan,
    backend: &mut EngineBackend,
    probe: &Probe,
    tokens: usize,
) -> Result<Outcome, AbilityError> {
    let messages: Vec<&Message> = probe.prompt.iter().collect();
    let answers: Result<_, BackendError> =
        plan.arms.iter().map(|arm| answer(backend, arm, &messages, &probe.recorded)).collect();
    Ok(Outcome {
        ask: probe.ask,
        tokens,
        prompt_tokens: probe.prompt_tokens,
        seed: probe.seed,
        kind: probe.needle.kind,
        answers: answers?,
        recalled: match &plan.ranked_by {
            Some(arm) => recalled(backend, arm, &messages, probe)?,
            None => None,
        },
    })
}

/// One call of an arm that starts from nothing.
fn answer(
    backend: &mut EngineBackend,
    arm: &Arm,
    messages: &[&Message],
    recorded: &Message,
) -> Result<Answer, BackendError> {
    backend.start(arm)?;
    let facts = backend.call(&CallInput {
        messages,
        tools: &[],
        max_new_tokens: ANSWER_TOKENS_MAX,
        sampling: Sampling { temperature: 0.0, seed: 0 },
        verify: Verify::Off,
        action: None,
    })?;
    let verdict = validity::check(&Output {
        text: &facts.output_text,
        token_ids: &facts.output_ids,
        finish: facts.finish,
        thinking: Thinking::Allowed,
        tools: &ToolSchemas::new(&[]),
        calls_recorded: Some(recorded.tool_calls.len()),
    });
    let needles = agreement::needles(recorded, messages, facts.seen());
    Ok(Answer {
        arm: arm.name.clone(),
        valid: verdict.is_valid(),
        exact: agreement::calls_agree(&verdict.calls, recorded) == Some(true),
        kept: needles.survival.is_none_or(|share| share == 1.0),
        tokens_removed: facts.tokens_removed,
        output: facts.output_text,
    })
}

/// Whether the drafter ranks every chunk that holds a value of the fact in the best tenth.
fn recalled(
    backend: &mut EngineBackend,
    arm: &Arm,
    messages: &[&Message],
    probe: &Probe,
) -> Result<Option<bool>, BackendError> {
    backend.start(arm)?;
    let Some(chunks) = backend.ranked_chunks(messages, probe.needle.message_index)? else { return Ok(None) };
    let best = chunks.len().div_ceil(RECALL_ONE_OF);
    let holds_value = |bytes: &std::ops::Range<usize>| {
        probe.needle.values.iter().any(|value| bytes.start < value.end && value.start < bytes.end)
    };
    Ok(Some(chunks.iter().filter(|chunk| holds_value(&chunk.bytes)).all(|chunk| chunk.rank < best)))
}
