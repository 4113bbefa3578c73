//! A batch of texts through the drafter: what is kept of each. Moves the models in and out of memory as the residency
//! asks, once per batch and only if a text has to be read by the drafter, and books every part under its own stage.

use std::ops::Range;

use crate::compress::compressor::Candidate;
use crate::compress::control;
use crate::compress::elision::{Form, MARKER};
use crate::compress::floor::forced;
use crate::compress::frozen::Frozen;
use crate::compress::line_selection::{Budget, select_lines};
use crate::compress::lines::{Unit, units};
use crate::compress::score::tail_scores;
use crate::compress::select::{MIN_SCORED, SelectParams, chunks, kept_bytes, ranked, select};
use crate::device::Device;
use crate::error::EngineError;
use crate::request::{CompressionSettings, Floor, LineRules, Residency, ScoreBy, Selection};
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
    /// Texts that went through the drafter.
    pub messages: u64,
}

/// A chunk of a text in the drafter's ranking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankedChunk {
    /// Its bytes of the text; at its ends a character may belong to two chunks.
    pub bytes: Range<usize>,
    /// Chunks that are ranked before it.
    pub rank: usize,
}

/// A text in the drafter's tokens.
struct Tokenized<'a> {
    candidate: &'a Candidate<'a>,
    /// Bytes of the text that each of its tokens comes from.
    bytes: Vec<Range<usize>>,
    /// What the drafter has to read: the tokens of the text, then those of its query. Nothing where the outcome does not
    /// depend on it.
    read: Vec<u32>,
}

impl Scorer<'_> {
    /// Scores every candidate. Target and drafter are where the residency wants them afterwards, whatever happened.
    ///
    /// # Errors
    /// A model cannot be loaded, or a text cannot be tokenised.
    pub fn score(
        &mut self,
        candidates: &[Candidate<'_>],
        clock: &mut StageClock,
    ) -> Result<Scored, EngineError> {
        let texts: Vec<Tokenized<'_>> =
            candidates.iter().map(|candidate| self.tokenize(candidate, clock)).collect::<Result<_, _>>()?;
        if texts.iter().all(|text| text.read.is_empty()) {
            let outcome = |text| clock.run(Stage::Select, || self.unread(text));
            let outcomes = texts.iter().map(outcome).collect::<Result<_, _>>()?;
            return Ok(Scored { outcomes, ..Scored::default() });
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
        candidate: &'a Candidate<'a>,
        clock: &mut StageClock,
    ) -> Result<Tokenized<'a>, EngineError> {
        let model = self.drafter.model();
        let (mut read, bytes) =
            clock.run(Stage::Tokenize, || model.tokenizer.encode_with_offsets(&candidate.text))?;
        if !self.asks_drafter() || self.stays(bytes.len()) {
            read.clear();
        } else {
            read.extend(self.query(candidate, clock)?);
        }
        Ok(Tokenized { candidate, bytes, read })
    }

    fn asks_drafter(&self) -> bool {
        matches!(self.settings.score_by, ScoreBy::OwnTail | ScoreBy::Birth)
    }

    /// What the drafter reads behind the text: nothing where the text's own tail asks.
    fn query(&self, candidate: &Candidate<'_>, clock: &mut StageClock) -> Result<Vec<u32>, EngineError> {
        let model = self.drafter.model();
        let (ScoreBy::Birth, Some(birth)) = (self.settings.score_by, &candidate.birth) else {
            return Ok(Vec::new());
        };
        let query = clock.run(Stage::Render, || birth.query(&model.chat, &model.tokenizer))?;
        clock.run(Stage::Tokenize, || model.tokenizer.encode(&query))
    }

    /// Every chunk of a text with its rank, in the order of the text, however short the text; `None` if it has too few
    /// tokens to be scored, or the arm does not ask the drafter. For judging a drafter: nothing is kept or dropped.
    ///
    /// # Errors
    /// As [`Scorer::score`].
    pub fn rank(&mut self, candidate: &Candidate<'_>) -> Result<Option<Vec<RankedChunk>>, EngineError> {
        let (mut read, bytes) = self.drafter.model().tokenizer.encode_with_offsets(&candidate.text)?;
        if !self.asks_drafter() || bytes.len() < MIN_SCORED {
            return Ok(None);
        }
        read.extend(self.query(candidate, &mut StageClock::start())?);
        self.drafter.load(self.device)?;
        let (drafter, dtype) = (self.drafter.on(self.device)?, self.drafter.kv_dtype(self.device));
        let scores = tail_scores(&drafter, dtype, &read, self.settings.score_place)?;
        let params = self.params();
        let chunks = chunks(bytes.len(), params.chunk);
        let order = |scores: Vec<f32>| ranked(&scores[..bytes.len()], &chunks, params.pool);
        Ok(scores.map(|scores| ranked_chunks(&order(scores), &chunks, &bytes)))
    }

    /// Whether a text of `n` tokens stays as it is, whatever its scores.
    fn stays(&self, n: usize) -> bool {
        let may_keep_all = match &self.settings.selection {
            Selection::Compat => false,
            Selection::Lines(rules) => {
                n as u64 <= rules.keep_floor_tokens || self.settings.keep_permille >= 1000
            }
        };
        n < MIN_SCORED || may_keep_all
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
            let score = || tail_scores(&drafter, dtype, &text.read, self.settings.score_place);
            let scores = match text.read.is_empty() {
                true => None,
                false => clock.run_on(self.device, Stage::Score, score)?,
            };
            scored.tokens += text.read.len() as u64;
            scored.messages += u64::from(!text.read.is_empty());
            let select = || match scores {
                Some(scores) => self.select(text, &scores[..text.bytes.len()]),
                None => self.unread(text),
            };
            scored.outcomes.push(clock.run(Stage::Select, select)?);
        }
        Ok(scored)
    }

    /// What is kept of a text that the drafter did not read.
    fn unread(&self, text: &Tokenized<'_>) -> Result<Frozen, EngineError> {
        let n = text.bytes.len();
        match self.settings.score_by {
            _ if self.stays(n) => Ok(Frozen::Verbatim),
            ScoreBy::Random { seed } => {
                let units = match &self.settings.selection {
                    Selection::Compat => chunks(n, SelectParams::CHUNK),
                    Selection::Lines(_) => tokens_of(&self.units(text)),
                };
                self.select(text, &control::random(&text.candidate.text, &units, seed))
            }
            ScoreBy::HeadTail => self.select(text, &control::head_tail(n)),
            ScoreBy::OwnTail | ScoreBy::Birth => Ok(Frozen::Verbatim),
        }
    }

    /// Units and share of the selection. Smoothing would favour the ends of a text that is scored by chance, since their
    /// chunks have one neighbour to be averaged with.
    fn params(&self) -> SelectParams {
        let params = SelectParams::keep(self.settings.keep_permille);
        match self.settings.score_by {
            ScoreBy::OwnTail | ScoreBy::Birth => params,
            ScoreBy::Random { .. } | ScoreBy::HeadTail => SelectParams { pool: 1, ..params },
        }
    }

    /// What is kept of a text, by the scores of its tokens.
    fn select(&self, text: &Tokenized<'_>, scores: &[f32]) -> Result<Frozen, EngineError> {
        let params = self.params();
        match &self.settings.selection {
            Selection::Compat => {
                let selection = select(scores, &params);
                if selection.kept == scores.len() {
                    return Ok(Frozen::Verbatim);
                }
                let raw = &text.candidate.text;
                let ranges = kept_bytes(raw, &text.bytes, &selection.ranges);
                let tokens = [scores.len() as u64, selection.kept as u64];
                Frozen::compressed(raw, ranges, Form::Joined, tokens)
            }
            Selection::Lines(rules) => self.select_lines(text, scores, rules),
        }
    }

    fn units(&self, text: &Tokenized<'_>) -> Vec<Unit> {
        units(&text.candidate.text, &text.bytes, self.params().chunk)
    }

    fn select_lines(
        &self,
        text: &Tokenized<'_>,
        scores: &[f32],
        rules: &LineRules,
    ) -> Result<Frozen, EngineError> {
        let tokenizer = &self.drafter.model().tokenizer;
        let params = self.params();
        let Candidate { text: raw, birth, .. } = text.candidate;
        let call = birth.as_ref().and_then(|birth| birth.call());
        let forced = match rules.floor {
            Floor::None => Vec::new(),
            Floor::Structural => forced(raw, call.map(|call| call.arguments.as_str())),
        };
        let n = text.bytes.len();
        let budget = Budget {
            tokens: Budget::of_text(n, &params, rules.keep_floor_tokens as usize),
            marker_tokens: tokenizer.encode(MARKER)?.len(),
        };
        let units = self.units(text);
        let kept = select_lines(&units, &forced, &ranked(scores, &tokens_of(&units), params.pool), budget);
        if kept.tokens == n {
            return Ok(Frozen::Verbatim);
        }
        Frozen::compressed(raw, kept.ranges, Form::Marked, [n as u64, kept.tokens as u64])
    }
}

fn tokens_of(units: &[Unit]) -> Vec<Range<usize>> {
    units.iter().map(|unit| unit.tokens.clone()).collect()
}

/// Chunks with their ranks, from their order and the bytes of their tokens.
fn ranked_chunks(order: &[usize], chunks: &[Range<usize>], token_bytes: &[Range<usize>]) -> Vec<RankedChunk> {
    let bytes = chunks.iter().map(|chunk| match &token_bytes[chunk.clone()] {
        [first, .., last] => first.start..last.end,
        [only] => only.clone(),
        [] => 0..0,
    });
    let mut chunks: Vec<RankedChunk> = bytes.map(|bytes| RankedChunk { bytes, rank: 0 }).collect();
    for (rank, &index) in order.iter().enumerate() {
        chunks[index].rank = rank;
    }
    chunks
}
