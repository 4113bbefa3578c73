//! Prompts of a wanted length that end where a generated session's next call needs a fact of an earlier tool output. Knows
//! no model; how many tokens a prompt has, it is told.

use serde::Serialize;
use transcripts::message::Message;
use transcripts::session::Session;
use transcripts::synth::{Needle, Shape, generate};

use crate::abilities::AbilityError;
use crate::backend::BackendError;

/// Characters of a token, about, to begin with; what a prompt has then corrects it.
const CHARS_PER_TOKEN: f64 = 3.0;
/// Corrections of a prompt's length before the nearest one is taken.
const FITS_MAX: usize = 6;
/// A prompt this near to the wanted length, as a share of it, is near enough.
const FIT_RATIO: f64 = 0.02;
/// Sessions drawn to find one that asks as wanted.
const DRAWS_MAX: u64 = 256;
/// Distance between two seeds of such draws, so that the draws of neighbouring seeds differ.
const DRAW_STRIDE: u64 = 1 << 40;

/// How the fact came into sight of the call that needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// The session's first request: one exploring turn, whose output fills the prompt.
    First,
    /// A later request of a session of several, with an exploring turn of its own.
    Later,
    /// A later request for a fact that an output of an earlier one happened to show.
    Delayed,
}

impl Ask {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::First, Self::Later, Self::Delayed];

    /// What it is, for the head of a table.
    pub const fn about(self) -> &'static str {
        match self {
            Self::First => "one request, and the output that it led to fills the prompt",
            Self::Later => "the last of several requests, with an exploring call of its own",
            Self::Delayed => "the last of several requests, for a fact that an earlier output had shown",
        }
    }

    fn is_asked_by(self, needle: &Needle) -> bool {
        match self {
            Self::First => needle.call_index == 1,
            Self::Later => needle.call_index > 1 && !needle.delayed,
            Self::Delayed => needle.delayed,
        }
    }
}

/// One prompt with what the next turn must be.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// How it asks.
    pub ask: Ask,
    /// Seed of its session.
    pub seed: u64,
    /// The messages.
    pub prompt: Vec<Message>,
    /// Its length in the target's tokens, generation prompt included.
    pub prompt_tokens: usize,
    /// The turn that follows in the session.
    pub recorded: Message,
    /// The fact that this turn needs; its message indices are those of `prompt`.
    pub needle: Needle,
}

/// Counts the tokens of a prompt.
pub type CountTokens<'a> = dyn Fn(&[&Message]) -> Result<usize, BackendError> + 'a;

impl Probe {
    /// The probe of a seed, of about `tokens` tokens: as near as a few corrections of its filler bring it, and longer
    /// where its requests and calls alone are.
    ///
    /// # Errors
    /// The tokenizer fails, or no session near the seed asks as wanted.
    pub fn draw(ask: Ask, seed: u64, tokens: usize, count: &CountTokens<'_>) -> Result<Self, AbilityError> {
        let mut chars = tokens as f64 * CHARS_PER_TOKEN;
        let Shape { seed, calls, .. } = shape(ask, seed, chars as usize)?;
        let mut nearest: Option<Self> = None;
        for _ in 0..FITS_MAX {
            let probe = Self::of_shape(ask, &Shape { seed, calls, chars: Some(chars as usize) }, count)?;
            let miss = |probe: &Self| probe.prompt_tokens.abs_diff(tokens);
            let got = probe.prompt_tokens;
            let best = nearest.as_ref().map_or(usize::MAX, miss);
            if miss(&probe) < best {
                nearest = Some(probe);
            }
            if best.min(got.abs_diff(tokens)) as f64 <= FIT_RATIO * tokens as f64 {
                break;
            }
            chars = (chars + (tokens as f64 - got as f64) * CHARS_PER_TOKEN).max(1.0);
        }
        nearest.ok_or(AbilityError::NoProbe { ask, seed, tokens })
    }

    fn of_shape(ask: Ask, shape: &Shape, count: &CountTokens<'_>) -> Result<Self, AbilityError> {
        let missing = || AbilityError::NoProbe { ask, seed: shape.seed, tokens: 0 };
        let synthetic = generate(shape);
        let session = synthetic.import("probe.jsonl")?.sessions.into_iter().next().ok_or_else(missing)?;
        let needle = synthetic.needles.into_iter().next_back().filter(|needle| ask.is_asked_by(needle));
        let needle = needle.ok_or_else(missing)?;
        let prompt = prompt(&session, needle.call_index);
        let recorded = session.completion(needle.call_index).ok_or_else(missing)?.clone();
        let prompt_tokens = count(&prompt.iter().collect::<Vec<_>>())?;
        Ok(Self { ask, seed: shape.seed, prompt, prompt_tokens, recorded, needle })
    }
}

/// The prompt of a call; in a generated session its messages are the session's first ones.
fn prompt(session: &Session, call_index: usize) -> Vec<Message> {
    session.prefix(call_index).into_iter().cloned().collect()
}

/// A session that ends with a call that asks as wanted. What is asked does not depend on how much filler stands around
/// it, so a session without any shows it.
fn shape(ask: Ask, seed: u64, chars: usize) -> Result<Shape, AbilityError> {
    for draw in 0..DRAWS_MAX {
        let seed = seed.saturating_add(draw * DRAW_STRIDE);
        let of_row = Shape::of_row(seed, chars);
        let calls = if ask == Ask::First { 2 } else { of_row.calls };
        let needles = generate(&Shape { seed, calls, chars: Some(0) }).needles;
        if let Some(needle) = needles.iter().rfind(|needle| ask.is_asked_by(needle)) {
            return Ok(Shape { seed, calls: needle.call_index + 1, chars: Some(chars) });
        }
    }
    Err(AbilityError::NoProbe { ask, seed, tokens: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use transcripts::message::Role;
    use transcripts::synth::DEFAULT_SEED;

    /// Three characters are a token.
    fn by_chars(messages: &[&Message]) -> Result<usize, BackendError> {
        Ok(messages.iter().map(|message| message.flat_text().len()).sum::<usize>() / 3)
    }

    #[test]
    fn a_probe_has_the_wanted_length_and_asks_as_wanted() {
        for ask in Ask::ALL {
            for (i, tokens) in [600, 2000, 9000].into_iter().enumerate() {
                let probe = Probe::draw(ask, DEFAULT_SEED + 1 + i as u64, tokens, &by_chars).unwrap();
                let miss = probe.prompt_tokens.abs_diff(tokens) as f64 / tokens as f64;
                assert!(miss < 0.1, "{ask:?} of {tokens}: {}", probe.prompt_tokens);
                assert_eq!(probe.needle.delayed, ask == Ask::Delayed);
                assert_eq!(
                    ask == Ask::First,
                    probe.prompt.iter().filter(|m| m.role == Role::User).count() == 1
                );
                assert_eq!(probe, Probe::draw(ask, DEFAULT_SEED + 1 + i as u64, tokens, &by_chars).unwrap());
            }
        }
    }

    #[test]
    fn the_recorded_turn_holds_every_value_of_the_needle() {
        for seed in 0..40 {
            for ask in Ask::ALL {
                let probe = Probe::draw(ask, DEFAULT_SEED + seed, 1500, &by_chars).unwrap();
                let holder = &probe.prompt[probe.needle.message_index];
                assert_eq!(holder.role, Role::Tool);
                let text = holder.flat_text();
                let arguments = &probe.recorded.tool_calls[0].arguments;
                for value in &probe.needle.values {
                    assert!(
                        arguments.contains(&text[value.clone()]),
                        "{arguments} lacks {:?}",
                        &text[value.clone()]
                    );
                }
                assert!(!probe.needle.values.is_empty());
            }
        }
    }
}
