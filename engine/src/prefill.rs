//! The one loop over a prompt's launches: the pieces that a sequence has no KV of, in order, each behind the evictions
//! before it. Cold and cached calls, backfills, and what all of them are checked with, prefill here. Knows no message and
//! no time.

use crate::error::EngineError;
use crate::kv::cache::Sequence;
use crate::kv::prefix::Prompt;
use crate::model::qwen3::Pass;
use crate::schedule::Piece;

/// Runs the pieces of `prompt` from the end of the sequence's hit on, as far as it has slots for whole ones, and calls
/// `after` behind each.
///
/// # Errors
/// A token id outside the vocabulary; the card failed; those of `after`.
pub fn prefill<'a>(
    pass: &mut Pass<'a>,
    prompt: &Prompt<'_>,
    sequence: &Sequence,
    mut after: impl FnMut(&mut Pass<'a>, Piece) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let evictions = prompt.evictions();
    let pieces = prompt.schedule().pieces_from(sequence.n_hit()).iter();
    for (nth, piece) in pieces.take_while(|piece| piece.end <= sequence.n_positions()).enumerate() {
        if nth == 0 || !evictions.dropped_at(piece.start).is_empty() {
            let slots = sequence.slots_from(piece.start, evictions);
            pass.take_up(&slots, evictions.n_gone(piece.start))?;
        }
        pass.run(&prompt.tokens()[piece.start..piece.end], piece.start)?;
        after(pass, *piece)?;
    }
    Ok(())
}
