//! A batch of texts through the drafter: what is kept of each. Moves the models in and out of memory as the residency
//! asks, once per batch, and books every part under its own stage.

use crate::compress::compressor::Candidate;
use crate::compress::freeze::Frozen;
use crate::compress::score::tail_scores;
use crate::compress::select::{SelectParams, kept_bytes, select};
use crate::device::Device;
use crate::error::EngineError;
use crate::request::{Residency, ScoreRope};
use crate::residency::Resident;
use crate::spans::{Stage, StageClock};

/// The models and settings of a batch.
pub struct Scorer<'a> {
    /// The device.
    pub device: &'a Device,
    /// The model that has to make room.
    pub target: &'a mut Resident,
    /// The model that scores.
    pub drafter: &'a mut Resident,
    /// Whether the target makes room.
    pub residency: Residency,
    /// Scores before or after RoPE.
    pub rope: ScoreRope,
    /// Units and share of the selection.
    pub select: SelectParams,
}

/// Outcome of a batch.
#[derive(Debug, Default)]
pub struct Scored {
    /// One outcome per text, in order.
    pub outcomes: Vec<Frozen>,
    /// Tokens that went through the drafter.
    pub tokens: u64,
}

impl Scorer<'_> {
    /// Scores every candidate. Target and drafter are where the residency wants them afterwards, whatever happened.
    ///
    /// # Errors
    /// A model cannot be loaded, or a text cannot be tokenised.
    pub fn score(&mut self, candidates: &[Candidate], clock: &mut StageClock) -> Result<Scored, EngineError> {
        if candidates.is_empty() {
            return Ok(Scored::default());
        }
        if self.residency == Residency::Parked {
            clock.run(Stage::TargetPark, || self.target.park());
        }
        let scored = self.score_loaded(candidates, clock);
        if self.residency == Residency::Parked {
            clock.run(Stage::TargetLoad, || {
                self.drafter.park();
                self.target.load(self.device)
            })?;
        }
        scored
    }

    fn score_loaded(
        &mut self,
        candidates: &[Candidate],
        clock: &mut StageClock,
    ) -> Result<Scored, EngineError> {
        if !self.drafter.is_loaded() {
            clock.run(Stage::DrafterLoad, || self.drafter.load(self.device))?;
        }
        let drafter = self.drafter.on(self.device)?;
        let mut scored = Scored::default();
        for Candidate { text, .. } in candidates {
            let tokenizer = &self.drafter.model().tokenizer;
            let (tokens, bytes) = clock.run(Stage::Tokenize, || tokenizer.encode_with_offsets(text))?;
            let dtype = self.drafter.kv_dtype(self.device);
            let score = || tail_scores(&drafter, dtype, &tokens, self.rope);
            let scores = clock.run_on(self.device, Stage::Score, score)?;
            let Some(scores) = scores else {
                scored.outcomes.push(Frozen::Verbatim);
                continue;
            };
            scored.tokens += tokens.len() as u64;
            scored.outcomes.push(clock.run(Stage::Select, || {
                let selection = select(&scores, &self.select);
                if selection.kept == tokens.len() {
                    return Frozen::Verbatim;
                }
                Frozen::Compressed {
                    ranges: kept_bytes(text, &bytes, &selection.ranges),
                    tokens_raw: tokens.len() as u64,
                    tokens_kept: selection.kept as u64,
                }
            }));
        }
        Ok(scored)
    }
}
