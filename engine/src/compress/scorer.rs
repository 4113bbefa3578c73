//! A batch of texts through the drafter: what is kept of each. Moves the models in and out of memory as the residency
//! asks, once per batch and only if a text has to be read by the drafter, and books every part under its own stage.

use std::ops::Range;

use crate::compress::compressor::Candidate;
use crate::compress::freeze::Frozen;
use crate::compress::score::tail_scores;
use crate::compress::select::{MIN_SCORED, SelectParams, kept_bytes, select};
use crate::device::Device;
use crate::error::EngineError;
use crate::request::{CompressionSettings, Residency};
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
    /// How the arm scores and selects.
    pub settings: &'a CompressionSettings,
}

/// Outcome of a batch.
#[derive(Debug, Default)]
pub struct Scored {
    /// One outcome per text, in order.
    pub outcomes: Vec<Frozen>,
    /// Tokens that went through the drafter.
    pub tokens: u64,
}

/// A text in the drafter's tokens.
struct Tokenized<'a> {
    text: &'a str,
    /// Tokens of the text, then those of the query.
    tokens: Vec<u32>,
    /// Bytes of `text` that each of its tokens comes from.
    bytes: Vec<Range<usize>>,
}

impl Scorer<'_> {
    /// Scores every candidate. Target and drafter are where the residency wants them afterwards, whatever happened.
    ///
    /// # Errors
    /// A model cannot be loaded, or a text cannot be tokenised.
    pub fn score(&mut self, candidates: &[Candidate], clock: &mut StageClock) -> Result<Scored, EngineError> {
        let texts: Vec<Tokenized<'_>> =
            candidates.iter().map(|candidate| self.tokenize(candidate, clock)).collect::<Result<_, _>>()?;
        if texts.iter().all(Tokenized::is_decided) {
            let outcomes = vec![Frozen::Verbatim; texts.len()];
            return Ok(Scored { outcomes, tokens: 0 });
        }
        if self.residency == Residency::Parked {
            clock.run(Stage::TargetPark, || self.target.park());
        }
        let scored = self.score_loaded(&texts, clock);
        if self.residency == Residency::Parked {
            clock.run(Stage::TargetLoad, || {
                self.drafter.park();
                self.target.load(self.device)
            })?;
        }
        scored
    }

    /// The candidate's tokens, and behind them those of its query. The two are tokenised apart, so that no token
    /// belongs to both.
    fn tokenize<'a>(
        &self,
        candidate: &'a Candidate,
        clock: &mut StageClock,
    ) -> Result<Tokenized<'a>, EngineError> {
        let model = self.drafter.model();
        let text = candidate.text.as_str();
        let (mut tokens, bytes) = clock.run(Stage::Tokenize, || model.tokenizer.encode_with_offsets(text))?;
        if let Some(birth) = &candidate.birth {
            let query = clock.run(Stage::Render, || birth.query(&model.chat, &model.tokenizer))?;
            tokens.extend(clock.run(Stage::Tokenize, || model.tokenizer.encode(&query))?);
        }
        Ok(Tokenized { text, tokens, bytes })
    }

    fn score_loaded(
        &mut self,
        texts: &[Tokenized<'_>],
        clock: &mut StageClock,
    ) -> Result<Scored, EngineError> {
        if !self.drafter.is_loaded() {
            clock.run(Stage::DrafterLoad, || self.drafter.load(self.device))?;
        }
        let drafter = self.drafter.on(self.device)?;
        let dtype = self.drafter.kv_dtype(self.device);
        let mut scored = Scored::default();
        for text in texts {
            let score = || tail_scores(&drafter, dtype, &text.tokens, self.settings.score_rope);
            let scores = match text.is_decided() {
                true => None,
                false => clock.run_on(self.device, Stage::Score, score)?,
            };
            let Some(scores) = scores else {
                scored.outcomes.push(Frozen::Verbatim);
                continue;
            };
            scored.tokens += text.tokens.len() as u64;
            scored.outcomes.push(clock.run(Stage::Select, || self.select(text, &scores)));
        }
        Ok(scored)
    }

    /// What is kept of a text, by the scores of its tokens and its query's.
    fn select(&self, Tokenized { text, bytes, .. }: &Tokenized<'_>, scores: &[f32]) -> Frozen {
        let n = bytes.len();
        let selection = select(&scores[..n], &SelectParams::keep(self.settings.keep_permille));
        if selection.kept == n {
            return Frozen::Verbatim;
        }
        Frozen::Compressed {
            ranges: kept_bytes(text, bytes, &selection.ranges),
            tokens_raw: n as u64,
            tokens_kept: selection.kept as u64,
        }
    }
}

impl Tokenized<'_> {
    /// Too short to be scored: it stays verbatim.
    fn is_decided(&self) -> bool {
        self.bytes.len() < MIN_SCORED
    }
}
