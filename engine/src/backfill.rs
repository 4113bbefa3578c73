//! Prefill that no call waits for: the reusable part of a prompt is computed and published while the caller's tools run.
//! Same pieces, same kernels and same cache as a call's own prefill; no logits are taken. Knows no message and no arm.

use std::time::Duration;

use crate::error::EngineError;
use crate::kv::cache::KvCache;
use crate::kv::prefix::Prompt;
use crate::model::qwen3::{Pass, Qwen3};
use crate::prefill::prefill;
use crate::spans::{Stage, StageClock};

/// What was prefilled between two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// Tokens that went through the target.
    pub tokens: u64,
    /// How long it took, search and publication included.
    pub time: Duration,
}

/// Makes a prompt reusable up to its last reuse point.
///
/// # Errors
/// The KV budget does not hold so much of the prompt; the device failed. What was cached before stays.
pub(crate) fn run(
    model: &Qwen3<'_>,
    cache: &mut KvCache,
    prompt: &Prompt<'_>,
) -> Result<Backfill, EngineError> {
    let mut clock = StageClock::start();
    let reusable = prompt.schedule().pieces.iter().rfind(|piece| piece.reusable).map_or(0, |piece| piece.end);
    let hit = cache.lookup(prompt)?;
    let sequence = cache.open(hit, reusable)?;
    let n_hit = sequence.n_hit();
    let outcome = clock.run_on(model.device, Stage::Prefill, || {
        prefill(&mut Pass::new(model, cache.memory()), prompt, &sequence, |_, _| Ok(()))
    });
    let n_written = if outcome.is_ok() { reusable } else { n_hit };
    cache.close(prompt, sequence, n_written)?;
    outcome?;
    Ok(Backfill { tokens: (reusable - n_hit) as u64, time: clock.elapsed() })
}
