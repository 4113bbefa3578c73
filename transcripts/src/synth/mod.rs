//! Generated agent sessions: seeded, in the form that Claude Code records, about facts that a later call needs. A person
//! asks for something by its key, a tool call shows it among other lines, and the next call's arguments are copied from
//! there. So it is known of every acting call which bytes of which tool output decide it: its needle.
//!
//! A session is a pure function of its shape. What is generated is plain ASCII.

mod claude_code;
mod draw;
mod fact;
mod filler;
mod names;
mod plan;
mod sizes;
mod story;

use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};

use crate::error::TranscriptError;
use crate::import::{Import, TextFile, import_texts};
use crate::synth::draw::Draw;
pub use crate::synth::fact::FactKind;

/// Seeds of the sessions that the sample models were trained on. Everything above is held out.
pub const TRAINING_SEEDS: RangeInclusive<u64> = 0..=u32::MAX as u64;

/// A seed that no training used: of the first forty, one whose ten-call session of 71,000 characters grows most evenly.
pub const DEFAULT_SEED: u64 = (1 << 32) + 17;

/// Most calls of one session.
pub const CALLS_MAX: usize = 10_000;
/// Most characters of one session.
pub const CHARS_MAX: usize = 64 << 20;

/// Which session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Which of 2^64 streams of draws.
    pub seed: u64,
    /// Model calls, 1 to [`CALLS_MAX`].
    pub calls: usize,
    /// Characters of the last call's messages, about, at most [`CHARS_MAX`]; tool outputs are as long as recorded ones
    /// where it is absent.
    pub chars: Option<usize>,
}

impl Shape {
    /// A session of about `chars` characters and of few or many calls, as the seed says.
    pub fn of_row(seed: u64, chars: usize) -> Self {
        // A turn takes about 300 characters of requests, calls and template.
        let most = (chars / 250).clamp(3, 40);
        let calls = Draw::new(!seed).within(2..=most);
        Self { seed, calls, chars: Some(chars) }
    }
}

/// A generated session.
#[derive(Clone, Debug, PartialEq)]
pub struct Synthetic {
    /// The file.
    pub jsonl: String,
    /// What its acting calls need.
    pub needles: Vec<Needle>,
}

/// A fact and the call that needs it. Indices are those of the imported session; ranges are bytes of the message named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needle {
    /// What the fact is about.
    pub kind: FactKind,
    /// The call whose arguments are copied from the fact.
    pub call_index: usize,
    /// The fact was shown for an earlier request.
    pub delayed: bool,
    /// The request.
    pub ask_message_index: usize,
    /// The key in the request, then other names that the exploring call copies.
    pub names: Vec<Range<usize>>,
    /// The tool message that holds the fact.
    pub message_index: usize,
    /// Its lines.
    pub fact: Range<usize>,
    /// The key in them.
    pub key: Range<usize>,
    /// The values in them, in order.
    pub values: Vec<Range<usize>>,
    /// The lines of other facts of its form in the same message, in order: a later request may ask for any of them.
    pub others: Vec<Range<usize>>,
}

/// Generates the session of a shape. Numbers outside their bounds count as the nearest bound.
pub fn generate(shape: &Shape) -> Synthetic {
    let mut draw = Draw::new(shape.seed);
    let n_calls = shape.calls.clamp(1, CALLS_MAX);
    let chars = shape.chars.map(|chars| chars.min(CHARS_MAX));
    let turns = plan::turns(&mut draw, n_calls);
    let (entries, needles) = story::tell(&mut draw, &turns, n_calls, chars);
    Synthetic { jsonl: claude_code::write(&mut draw, &entries), needles }
}

impl Synthetic {
    /// Imports the file as any recording.
    ///
    /// # Errors
    /// As [`import_texts`].
    pub fn import(&self, name: &str) -> Result<Import, TranscriptError> {
        import_texts(&[TextFile { name, text: &self.jsonl }])
    }
}
