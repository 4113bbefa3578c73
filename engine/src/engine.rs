//! One request, read top to bottom: render, compress what is new, look up, restore, prefill the rest, sample, decode,
//! publish. Everything else of the crate computes for this file and returns.

use std::borrow::Cow;
use std::time::Duration;

use transcripts::message::{Message, Role};

use crate::backfill::{self, Backfill};
use crate::compress::compressor::{Compressed, Compressor};
use crate::compress::evict::Cuts;
use crate::compress::freeze::OpenReport;
use crate::compress::scorer::{RankedChunk, Scorer};
use crate::device::Device;
use crate::error::EngineError;
use crate::kv::cache::{KvCache, Sequence};
use crate::kv::eviction::EvictionPlan;
use crate::kv::prefix::{Identity, IdentityParts, Prompt};
use crate::model::qwen3::{Pass, Qwen3};
use crate::prefill::prefill;
use crate::request::{
    ArmSettings, CachePolicy, CacheState, CompressionPolicy, EngineOptions, FinishReason, Growth, Request,
    Residency, Response, Verify,
};
use crate::residency::Resident;
use crate::sample::Sampler;
use crate::schedule::Rules;
use crate::spans::{Stage, StageClock};
use crate::tokenizer::Specials;
use crate::written::Written;

/// Models on a device, and the state of one arm.
pub struct Engine {
    options: EngineOptions,
    device: Device,
    target: Resident,
    drafter: Option<Resident>,
    identity: Identity,
    arm: Option<Arm>,
}

/// What an arm builds up from call to call; a fresh one is made by [`Engine::start`].
struct Arm {
    settings: ArmSettings,
    cache: KvCache,
    compressor: Option<Compressor>,
    /// Tokens of the last call's prompt, as history keeps it.
    last_prompt: Vec<u32>,
    /// The last call was answered from another prompt than that.
    owes_backfill: bool,
}

impl Arm {
    /// The tokens of a call as later calls find them in history.
    fn history<'r>(&self, ready: &'r Ready<'_>) -> &'r [u32] {
        let policy = self.settings.compression.as_ref().map(|compression| compression.policy);
        if policy == Some(CompressionPolicy::LatencyOnly) { &ready.raw.tokens } else { ready.tokens() }
    }
}

/// The prompt of a call, ready to run.
struct Ready<'a> {
    /// The messages as they came.
    raw: Written,
    /// The tokens as they are sent, where compression changed a message.
    shortened: Option<Vec<u32>>,
    compressed: Compressed<'a>,
    /// Messages that lose rows of their KV.
    cuts: Cuts,
    frozen_hits: u64,
    tokens_scored: u64,
    messages_scored: u64,
}

impl Ready<'_> {
    /// The tokens as they are sent.
    fn tokens(&self) -> &[u32] {
        self.shortened.as_deref().unwrap_or(&self.raw.tokens)
    }

    /// The messages as the answer can see them, where they lose rows.
    fn seen<'m>(&self, messages: &[&'m Message], settled: &EvictionPlan) -> Option<Compressed<'m>> {
        (!self.cuts.is_empty()).then(|| self.cuts.visible(messages, settled))
    }
}

/// What a forward pass of one call needs.
struct Run<'a> {
    model: Qwen3<'a>,
    eos: &'a [u32],
    sequence: &'a Sequence,
    sampler: Sampler,
}

/// The tokens a call generated, and when.
struct Generated {
    ids: Vec<u32>,
    finish_reason: FinishReason,
    first_logits: Vec<f32>,
    ttft: Duration,
    e2e: Duration,
}

impl Engine {
    /// Opens the device and the models, and loads the target's weights.
    ///
    /// # Errors
    /// The device cannot be used; a model file is missing, damaged or of an unknown kind, or does not fit into memory.
    pub fn open(options: EngineOptions) -> Result<Self, EngineError> {
        let device = Device::open(&options.device, options.threads, options.cuda)?;
        let mut target = Resident::open(&options.target)?;
        let drafter = options.drafter.as_ref().map(Resident::open).transpose()?;
        target.load(&device)?;
        let identity = Identity::new(&IdentityParts {
            model_digest: &target.model().digest,
            kv_dtype: &target.kv_dtype(&device).to_string(),
            kernels: &device.kernels(),
            rules: Rules::new(target.model().tokenizer.id("<|im_start|>")?),
        });
        Ok(Self { options, device, target, drafter, identity, arm: None })
    }

    /// The target, as opened.
    pub const fn target(&self) -> &Resident {
        &self.target
    }

    /// The drafter, as opened, if there is one.
    pub const fn drafter(&self) -> Option<&Resident> {
        self.drafter.as_ref()
    }

    /// What opening the memo of frozen messages found, for an arm that keeps it in a file.
    pub fn memo(&self) -> Option<&OpenReport> {
        self.arm.as_ref()?.compressor.as_ref()?.opened()
    }

    /// Recounts the slots and prefixes of the arm's cache. Linear in the slots; for tests.
    ///
    /// # Errors
    /// The first count that is wrong, or no arm was started.
    pub fn check_invariants(&self) -> Result<(), EngineError> {
        self.arm.as_ref().ok_or(EngineError::NotStarted)?.cache.check_invariants()
    }

    /// The device.
    pub const fn device(&self) -> &Device {
        &self.device
    }

    /// Begins an arm from a fresh state: empty cache, empty memo (or the one of its file), models as its residency
    /// wants them between calls.
    ///
    /// # Errors
    /// The arm compresses and there is no drafter; the KV budget holds no token; the memo's file cannot be read.
    pub fn start(&mut self, settings: ArmSettings) -> Result<(), EngineError> {
        self.arm = None;
        let compressor = match &settings.compression {
            None => None,
            Some(compression) => {
                let drafter = self.drafter.as_mut().ok_or(EngineError::NoDrafter)?;
                match settings.residency {
                    Residency::Resident => drafter.load(&self.device)?,
                    Residency::Parked => drafter.park(),
                }
                Some(Compressor::new(compression.clone(), drafter.model())?)
            }
        };
        self.target.load(&self.device)?;
        let config = &self.target.model().config;
        let dtype = self.target.kv_dtype(&self.device);
        let budget = self.options.kv_budget_bytes;
        let cache = KvCache::new(&self.device, config, dtype, budget, settings.cache)?;
        self.arm = Some(Arm { settings, cache, compressor, last_prompt: Vec::new(), owes_backfill: false });
        Ok(())
    }

    /// Answers one call. The state of the arm moves on; what is generated is returned and not kept.
    ///
    /// # Errors
    /// The request is empty, the prompt is longer than the context or the KV budget, or the template refuses it. The
    /// arm's state stays usable.
    pub fn generate(&mut self, request: &Request<'_>) -> Result<Response, EngineError> {
        let mut clock = StageClock::start();
        self.device.take_bytes_peak();
        let ready = self.prepare(request, &mut clock)?;
        let tokens = ready.tokens();
        let prompt = Prompt::evicting(&self.identity, tokens, &ready.cuts.plan());
        let arm = self.arm.as_mut().ok_or(EngineError::NotStarted)?;
        let model = self.target.on(&self.device)?;

        let hit = clock.run(Stage::Lookup, || arm.cache.lookup(&prompt))?;
        let n_slots = tokens.len() + request.max_new_tokens as usize - 1;
        let sequence = clock.run(Stage::Restore, || arm.cache.open(hit, n_slots))?;
        let sampler = Sampler::new(request.sampling)?;
        let run = Run { model, eos: self.target.model().tokenizer.eos_ids(), sequence: &sequence, sampler };
        let outcome = run.generate(arm, &prompt, request.max_new_tokens, &mut clock);
        let kv_bytes = arm.cache.bytes_in_use();
        let device_bytes_peak = self.device.take_bytes_peak();
        let (n_hit, n_reused) = (sequence.n_hit(), sequence.n_reused());
        let history = arm.history(&ready);
        // What history will not hold is dropped with the call.
        let n_kept = tokens.iter().zip(history).take_while(|(sent, kept)| sent == kept).count();
        arm.cache.close(&prompt, sequence, if outcome.is_ok() { n_kept } else { n_hit })?;
        let generated = outcome?;
        if let Some(compressor) = &mut arm.compressor {
            compressor.sync()?;
        }
        let turn_start = self.target.model().tokenizer.id("<|im_start|>")?;
        let growth = growth(&arm.last_prompt, tokens, turn_start);
        arm.owes_backfill = history != tokens;
        history.clone_into(&mut arm.last_prompt);

        let keeps_prefixes = arm.cache.keeps_prefixes();
        let exact = match request.verify {
            Verify::Bitwise if keeps_prefixes => Some(self.is_exact(&prompt, &generated.first_logits)?),
            _ => None,
        };
        let seen = ready.seen(request.messages, prompt.evictions());
        let compressed = seen.as_ref().unwrap_or(&ready.compressed);
        let (tokens_raw, n_run) = (ready.raw.tokens.len() as u64, tokens.len() - n_hit);
        Ok(Response {
            tokens_raw,
            tokens_removed: tokens_raw as i64 - (n_reused + n_run) as i64,
            tokens_prefix_hit: n_reused as u64,
            tokens_prefilled: n_run as u64,
            tokens_output: generated.ids.len() as u64,
            tokens_scored: ready.tokens_scored,
            messages_scored: ready.messages_scored,
            messages_tool: request.messages.iter().filter(|m| m.role == Role::Tool).count() as u64,
            messages_compressed: compressed.n_compressed,
            messages_frozen_hit: ready.frozen_hits,
            keep_ratio_realised: compressed.keep_ratio(),
            cache_state: CacheState::of(keeps_prefixes, n_reused),
            growth,
            spans: clock.spans(),
            ttft: generated.ttft,
            decode: generated.e2e - generated.ttft,
            e2e: generated.e2e,
            kv_bytes,
            device_bytes_peak,
            finish_reason: generated.finish_reason,
            output_text: self.text_of(&generated)?,
            output_ids: generated.ids,
            first_logits_digest: digest_of(&generated.first_logits),
            exact,
            evictions: prompt.evictions().clone(),
            visible: seen.map(owned),
            sent: owned(ready.compressed),
        })
    }

    /// Prefills and publishes the last call's prompt as history keeps it, where the call was answered from another one:
    /// work for the time in which the caller's tools run. `None` if there is nothing to do.
    ///
    /// # Errors
    /// No arm was started, or the KV budget does not hold the prompt; the next call finds less to reuse then.
    pub fn backfill(&mut self) -> Result<Option<Backfill>, EngineError> {
        let arm = self.arm.as_mut().ok_or(EngineError::NotStarted)?;
        if !std::mem::take(&mut arm.owes_backfill) {
            return Ok(None);
        }
        let prompt = Prompt::new(&self.identity, &arm.last_prompt);
        backfill::run(&self.target.on(&self.device)?, &mut arm.cache, &prompt).map(Some)
    }

    /// Messages to tokens: render, and compress what the arm compresses.
    fn prepare<'a>(
        &mut self,
        request: &Request<'a>,
        clock: &mut StageClock,
    ) -> Result<Ready<'a>, EngineError> {
        if request.messages.is_empty() {
            let reason = "its prompt holds no message; the session's file has none before this turn";
            return Err(EngineError::EmptyRequest { reason });
        }
        if request.max_new_tokens == 0 {
            return Err(EngineError::EmptyRequest { reason: "it asks for no token; ask for at least one" });
        }
        let arm = self.arm.as_mut().ok_or(EngineError::NotStarted)?;
        let (model, messages, tools) = (self.target.model(), request.messages, request.tools);
        let evicts = arm.compressor.as_ref().and_then(|compressor| compressor.settings().policy.evicts());
        let mut ready = Ready {
            raw: match evicts {
                Some(_) => Written::with_bytes(model, messages, tools, clock)?,
                None => Written::new(model, messages, tools, clock)?,
            },
            shortened: None,
            cuts: Cuts::default(),
            compressed: Compressed::verbatim(request.messages),
            frozen_hits: 0,
            tokens_scored: 0,
            messages_scored: 0,
        };
        if let (Some(compressor), Some(drafter)) = (&mut arm.compressor, &mut self.drafter) {
            let plan =
                clock.run(Stage::Select, || compressor.plan(messages, tools, ready.raw.tokens.len()))?;
            let mut scorer = Scorer {
                device: &self.device,
                target: &mut self.target,
                drafter,
                residency: arm.settings.residency,
                settings: compressor.settings(),
            };
            let scored = scorer.score(&plan.unseen, clock)?;
            ready.frozen_hits = plan.frozen_hits;
            ready.tokens_scored = scored.tokens;
            ready.messages_scored = scored.messages;
            let decided = clock.run(Stage::Select, || compressor.decide(plan, scored.outcomes))?;
            ready.compressed = clock.run(Stage::Select, || compressor.apply(messages, &decided))?;
            let model = self.target.model();
            if ready.compressed.n_compressed > 0 {
                let sent: Vec<&Message> = ready.compressed.messages.iter().map(Cow::as_ref).collect();
                ready.shortened = Some(Written::new(model, &sent, tools, clock)?.tokens);
            }
            if let Some(newest) = evicts {
                ready.cuts = ready.raw.cuts(model, request, &decided, newest, clock)?;
            }
        }
        let context_length = self.target.model().config.context_length as u64;
        let (prompt_tokens, new_tokens) = (ready.tokens().len() as u64, u64::from(request.max_new_tokens));
        if prompt_tokens + new_tokens > context_length {
            return Err(EngineError::ContextLength { context_length, prompt_tokens, new_tokens });
        }
        Ok(ready)
    }

    /// How the arm's drafter ranks the chunks of the message at `index`: what compression would keep first. `None` if the
    /// arm does not compress, or the message is too short to be scored. The drafter stays in memory.
    ///
    /// # Errors
    /// No arm was started; the drafter cannot be loaded; the message cannot be tokenised.
    pub fn ranked_chunks(
        &mut self,
        messages: &[&Message],
        index: usize,
    ) -> Result<Option<Vec<RankedChunk>>, EngineError> {
        let arm = self.arm.as_mut().ok_or(EngineError::NotStarted)?;
        let (Some(compressor), Some(drafter)) = (&arm.compressor, &mut self.drafter) else { return Ok(None) };
        let mut scorer = Scorer {
            device: &self.device,
            target: &mut self.target,
            drafter,
            residency: arm.settings.residency,
            settings: compressor.settings(),
        };
        scorer.rank(&compressor.candidate(messages, index))
    }

    /// Logits of every position from `first` on, `(n - first, vocab)` row by row, from an empty cache.
    ///
    /// # Errors
    /// No token, more tokens than the context holds, or an id outside the vocabulary.
    pub fn logits(&self, tokens: &[u32], first: usize) -> Result<Vec<Vec<f32>>, EngineError> {
        self.logits_under(tokens, &EvictionPlan::default(), first)
    }

    /// As [`Engine::logits`], with rows dropped on the way as `plan` says.
    ///
    /// # Errors
    /// As [`Engine::logits`].
    pub fn logits_under(
        &self,
        tokens: &[u32],
        plan: &EvictionPlan,
        first: usize,
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        let model = self.target.on(&self.device)?;
        let context_length = model.config.context_length as u64;
        if first >= tokens.len() {
            return Err(EngineError::EmptyRequest { reason: "it needs a token" });
        }
        if tokens.len() as u64 > context_length {
            let prompt_tokens = tokens.len() as u64;
            return Err(EngineError::ContextLength { context_length, prompt_tokens, new_tokens: 0 });
        }
        let dtype = self.target.kv_dtype(&self.device);
        let budget = KvCache::bytes_per_token(model.config, dtype) * tokens.len() as u64;
        let mut cold = KvCache::new(&self.device, model.config, dtype, budget, CachePolicy::Off)?;
        let sequence = cold.open(None, tokens.len())?;
        let prompt = Prompt::evicting(&self.identity, tokens, plan);
        let mut logits = Vec::with_capacity(tokens.len() - first);
        prefill(&mut Pass::new(&model, cold.memory()), &prompt, &sequence, |pass, piece| {
            for position in piece.start.max(first)..piece.end {
                logits.push(pass.logits(position - piece.start)?);
            }
            Ok(())
        })?;
        Ok(logits)
    }

    /// Prefills the prompt once more in an empty cache, dropping what it drops, and compares the first logits bit for bit.
    fn is_exact(&self, prompt: &Prompt<'_>, first_logits: &[f32]) -> Result<bool, EngineError> {
        let tokens = prompt.tokens();
        let cold = self.logits_under(tokens, prompt.evictions(), tokens.len() - 1)?;
        let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        Ok(cold.len() == 1 && bits(&cold[0]) == bits(first_logits))
    }

    /// Generated text, without the ending token.
    fn text_of(&self, generated: &Generated) -> Result<String, EngineError> {
        let ids = match generated.finish_reason {
            FinishReason::Stop => &generated.ids[..generated.ids.len() - 1],
            FinishReason::Length => &generated.ids[..],
        };
        self.target.model().tokenizer.decode(ids, Specials::Keep)
    }
}

impl Run<'_> {
    /// Prefill, first token, decode.
    fn generate(
        mut self,
        arm: &mut Arm,
        prompt: &Prompt<'_>,
        max_new_tokens: u32,
        clock: &mut StageClock,
    ) -> Result<Generated, EngineError> {
        let Self { model, sequence, eos, sampler } = &mut self;
        let tokens = prompt.tokens();
        let mut pass = Pass::new(model, arm.cache.memory());
        let mut last_row = 0;
        clock.run_on(model.device, Stage::Prefill, || {
            prefill(&mut pass, prompt, sequence, |_, piece| {
                last_row = piece.n_tokens() - 1;
                Ok(())
            })
        })?;
        let (first_logits, first) = clock.run_on(model.device, Stage::FirstToken, || {
            let logits = pass.logits(last_row)?;
            let first = sampler.sample(&logits)?;
            Ok((logits, first))
        })?;
        let ttft = clock.elapsed();
        let mut ids = vec![first];
        while !eos.contains(&ids[ids.len() - 1]) && ids.len() < max_new_tokens as usize {
            let position = tokens.len() + ids.len() - 1;
            ids.push(pass.decode(ids[ids.len() - 1], position, sampler)?);
        }
        let ended = self.eos.contains(&ids[ids.len() - 1]);
        let finish_reason = if ended { FinishReason::Stop } else { FinishReason::Length };
        Ok(Generated { ids, finish_reason, first_logits, ttft, e2e: clock.elapsed() })
    }
}

/// How `tokens` stands to `last`; `None` without a last prompt.
fn growth(last: &[u32], tokens: &[u32], turn_start: u32) -> Option<Growth> {
    // The opening of the model's turn is replaced by the turn.
    let previous = &last[..last.iter().rposition(|&token| token == turn_start)?];
    let shared = previous.iter().zip(tokens).take_while(|(old, new)| old == new).count();
    let turns = |tokens: &[u32]| tokens.iter().filter(|&&token| token == turn_start).count() as u64;
    Some(Growth {
        previous: previous.len() as u64,
        shared: shared as u64,
        turns_previous: turns(previous),
        turns_shared: turns(&previous[..shared]),
    })
}

/// Messages that outlive the request.
fn owned(compressed: Compressed<'_>) -> Vec<Message> {
    compressed.messages.into_iter().map(Cow::into_owned).collect()
}

/// BLAKE3 over the little-endian bits, hex.
fn digest_of(logits: &[f32]) -> String {
    let bytes: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
    blake3::hash(&bytes).to_hex().to_string()
}
