//! The house's own engine as a backend: settings and facts translated, nothing computed. The engine does not know that
//! it is measured.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use engine::chat::{Generation, Thinking as EngineThinking};
use engine::compress::scorer::RankedChunk;
use engine::device::{Cuda, CudaOptions, Device as OpenDevice, DeviceChoice as EngineDevice, KernelError};
use engine::engine::Engine;
use engine::error::EngineError;
use engine::fidelity::{self, Comparison, Originals};
use engine::model_source::ModelSource;
use engine::request::{
    ArmSettings, CachePolicy, CacheState as EngineCacheState, CompressionPolicy,
    CompressionSettings as EngineCompression, EngineOptions, FinishReason, Floor, LineRules, Request,
    Residency as EngineResidency, Response, ScoreBy as EngineScoreBy, ScoreLayers as EngineLayers,
    ScorePlace, ScoreRope as EngineRope, Selection as EngineSelection, UserFallback as EngineFallback,
    Verify as EngineVerify, WithTools as EngineTools,
};
use engine::residency::Resident;
use engine::sample::Sampling as EngineSampling;
use engine::spans::Stage;
use serde_json::{Value, json};
use transcripts::message::{Message, Role};

use crate::arm::{Arm, Cache, Residency};
use crate::backend::{
    ActionFidelity, Backend, BackendError, Backfill, CacheState, CallFacts, CallInput, Device, Growth,
    Identity, Sampling, StageTimes, Verify,
};
use crate::compression::{
    CompressionSettings, Policy, ScoreBy, ScoreLayers, ScoreRope, Selection, UserFallback, WithTools,
};
use crate::settings::{DeviceChoice, Settings};
use crate::validity::{Finish, Thinking};

/// The engine and the models it holds.
pub struct EngineBackend {
    engine: Engine,
    originals: Originals,
}

impl EngineBackend {
    /// Opens the models that the settings name and loads the target.
    ///
    /// # Errors
    /// A model is missing, damaged or too large, each with what to do.
    pub fn open(settings: &Settings) -> Result<Self, BackendError> {
        let options = EngineOptions {
            cuda: CudaOptions { hopper_kernels: settings.hopper_kernels, ..CudaOptions::DEFAULT },
            threads: settings.threads,
            kv_budget_bytes: settings.kv_budget_bytes,
            ..options(&settings.model, settings.drafter.as_deref(), settings.device)?
        };
        let mut engine = Engine::open(options)?;
        warm_up(&mut engine);
        Ok(Self { engine, originals: Originals::default() })
    }

    /// Opens two models for answers alone: nothing is warmed up, and everything else is the engine's default.
    ///
    /// # Errors
    /// As [`EngineBackend::open`].
    pub fn of_models(
        model: &str,
        drafter: Option<&str>,
        device: DeviceChoice,
        threads: Option<NonZeroUsize>,
    ) -> Result<Self, BackendError> {
        let options = EngineOptions { threads, ..options(model, drafter, device)? };
        Ok(Self { engine: Engine::open(options)?, originals: Originals::default() })
    }

    /// Tokens of a prompt without tool definitions, as the target's template and tokenizer write it.
    ///
    /// # Errors
    /// The template or the tokenizer refuses it.
    pub fn prompt_tokens(&self, messages: &[&Message]) -> Result<usize, BackendError> {
        let model = self.engine.target().model();
        let text = model.chat.render(messages, &[], Generation::Prompt, EngineThinking::Default)?;
        Ok(model.tokenizer.encode(&text)?.len())
    }

    /// How the drafter ranks the chunks of the message at `index`, under the arm that was started; `None` if that arm does
    /// not compress or the message is too short to be scored.
    ///
    /// # Errors
    /// The drafter cannot be loaded, or the message not tokenised.
    pub fn ranked_chunks(
        &mut self,
        messages: &[&Message],
        index: usize,
    ) -> Result<Option<Vec<RankedChunk>>, BackendError> {
        Ok(self.engine.ranked_chunks(messages, index)?)
    }
}

/// The models that a user names on the device that a user names.
fn options(model: &str, drafter: Option<&str>, device: DeviceChoice) -> Result<EngineOptions, BackendError> {
    Ok(EngineOptions {
        drafter: drafter.map(ModelSource::parse_drafter).transpose()?,
        device: match device {
            DeviceChoice::Auto => EngineDevice::Auto,
            DeviceChoice::Cpu => EngineDevice::Cpu,
            DeviceChoice::Cuda(ordinal) => EngineDevice::Cuda(ordinal),
        },
        ..EngineOptions::new(ModelSource::parse(model)?)
    })
}

/// Answers one short call through target and drafter before anything is measured, so that the first arm does not pay for
/// threads, scratch memory and weights that were never touched. Every arm starts from fresh state afterwards.
fn warm_up(engine: &mut Engine) {
    let text = Message::text(Role::User, "Which part of this is measured first? ".repeat(24));
    let compression = engine.drafter().is_some().then_some(EngineCompression {
        policy: CompressionPolicy::Rescore,
        keep_permille: 500,
        score_by: EngineScoreBy::OwnTail,
        score_place: ScorePlace { layers: EngineLayers::All, rope: EngineRope::Rope },
        selection: EngineSelection::Compat,
        threshold_tokens: 0,
        with_tools: EngineTools::Compress,
        user_fallback: EngineFallback::LastUser,
        freeze_file: None,
    });
    let arm = ArmSettings { cache: CachePolicy::Off, compression, residency: EngineResidency::Resident };
    let request = Request {
        messages: &[&text],
        tools: &[],
        max_new_tokens: 2,
        sampling: EngineSampling::Greedy,
        verify: EngineVerify::Off,
    };
    // What fails here fails in the first call too, and is recorded there.
    let _ = engine.start(arm).and_then(|()| engine.generate(&request));
}

impl Backend for EngineBackend {
    fn identity(&self) -> Identity {
        let mut models =
            BTreeMap::from([("target".to_owned(), model_facts(self.engine.target(), self.engine.device()))]);
        if let Some(drafter) = self.engine.drafter() {
            models.insert("drafter".to_owned(), model_facts(drafter, self.engine.device()));
        }
        Identity {
            device: match self.engine.device().cuda() {
                None => Device::Cpu,
                Some(cuda) => Device::Cuda(cuda.info().ordinal),
            },
            device_facts: device_facts(self.engine.device()),
            models,
            // The template is asked for its default, which leaves reasoning to the model.
            thinking: Thinking::Allowed,
        }
    }

    fn start(&mut self, arm: &Arm) -> Result<(), BackendError> {
        self.engine.start(arm_settings(arm))?;
        if let Some(report) = self.engine.memo()
            && let Some(copy) = &report.damaged_copy
        {
            eprintln!(
                "warning: {} bytes of the freeze store are damaged and not used; the file as it was is {}",
                report.damaged_bytes,
                copy.display()
            );
        }
        Ok(())
    }

    fn call(&mut self, input: &CallInput<'_>) -> Result<CallFacts, BackendError> {
        let response = self.engine.generate(&Request {
            messages: input.messages,
            tools: input.tools,
            max_new_tokens: input.max_new_tokens,
            sampling: sampling(input.sampling),
            verify: match input.verify {
                Verify::Off => EngineVerify::Off,
                Verify::Bitwise => EngineVerify::Bitwise,
            },
        })?;
        let fidelity = match input.action {
            Some(action) => self.fidelity(input, &response, action)?,
            None => None,
        };
        Ok(CallFacts { fidelity, ..facts(response) })
    }

    fn backfill(&mut self) -> Result<Option<Backfill>, BackendError> {
        let done = self.engine.backfill()?;
        Ok(done.map(|done| Backfill { tokens: done.tokens, time: done.time }))
    }
}

impl EngineBackend {
    /// The sent prompt, with the rows that it dropped, against the original one, over the recorded turn.
    fn fidelity(
        &mut self,
        input: &CallInput<'_>,
        response: &Response,
        action: &Message,
    ) -> Result<Option<ActionFidelity>, BackendError> {
        let sent: Vec<&Message> = response.sent.iter().collect();
        let comparison = Comparison {
            original: input.messages,
            sent: &sent,
            tools: input.tools,
            action,
            evictions: &response.evictions,
        };
        let measured = fidelity::measure(&self.engine, &mut self.originals, &comparison)?;
        Ok(measured
            .map(|fidelity::ActionFidelity { kl, argmax_agreement }| ActionFidelity { kl, argmax_agreement }))
    }
}

impl From<EngineError> for BackendError {
    fn from(error: EngineError) -> Self {
        let kind = match &error {
            EngineError::ContextLength { .. } => "context_length",
            EngineError::OutOfMemory { .. } | EngineError::KvBudget { .. } => "out_of_memory",
            EngineError::Device { source: KernelError::DeviceMemory { .. } } => "out_of_memory",
            EngineError::Device { .. } => "device",
            EngineError::Template { .. } => "template",
            EngineError::EmptyRequest { .. } => "request",
            _ => "backend",
        };
        Self { kind, message: error.to_string() }
    }
}

/// What the models run on, for `run.json`.
fn device_facts(device: &OpenDevice) -> BTreeMap<String, Value> {
    let cpu = device.cpu();
    let mut facts = BTreeMap::from([
        ("kind", json!("cpu")),
        ("threads", json!(cpu.threads())),
        ("isa", json!(cpu.isa().to_string())),
    ]);
    if let Some(reason) = device.no_cuda() {
        facts.insert("no_cuda", json!(reason.to_string()));
    }
    if let Some(cuda) = device.cuda() {
        facts.extend(cuda_facts(cuda));
    }
    facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn cuda_facts(cuda: &Cuda) -> [(&'static str, Value); 9] {
    let info = cuda.info();
    let (major, minor) = info.compute_capability;
    let version = info.driver_version;
    [
        ("kind", json!("cuda")),
        ("ordinal", json!(info.ordinal)),
        ("name", json!(info.name)),
        ("uuid", json!(info.uuid)),
        ("compute_capability", json!(format!("{major}.{minor}"))),
        ("n_sms", json!(info.n_sms)),
        ("memory_bytes", json!(info.memory_bytes)),
        ("driver_cuda_version", json!(format!("{}.{}", version / 1000, version % 1000 / 10))),
        ("kernels", json!(cuda.kernels())),
    ]
}

fn model_facts(resident: &Resident, device: &OpenDevice) -> Value {
    let description = resident.model().describe();
    json!({
        "name": description.name,
        "digest": description.digest,
        "architecture": description.config.architecture,
        "parameters": description.parameters,
        "file_bytes": description.file_bytes,
        "weight_bytes": description.memory.weight_bytes,
        "tensors_by_dtype": description.tensors_by_dtype,
        "kv_dtype": resident.kv_dtype(device).to_string(),
        "context_length": description.config.context_length,
        "tokenizer_digest": description.tokenizer.digest,
        "chat_template": description.chat_template.to_string(),
        "random_weights": description.file_bytes == 0,
    })
}

fn arm_settings(arm: &Arm) -> ArmSettings {
    ArmSettings {
        cache: match arm.cache {
            Cache::Off => CachePolicy::Off,
            Cache::On => CachePolicy::On,
        },
        compression: arm.compression.as_ref().map(compression),
        residency: match arm.residency {
            Residency::Resident => EngineResidency::Resident,
            Residency::Parked => EngineResidency::Parked,
        },
    }
}

fn compression(settings: &CompressionSettings) -> EngineCompression {
    let keep_verbatim_newest = settings.keep_verbatim_newest.unwrap_or_default() as usize;
    EngineCompression {
        policy: match settings.policy {
            Policy::Freeze => CompressionPolicy::Freeze,
            Policy::Rescore => CompressionPolicy::Rescore,
            Policy::LatencyOnly => CompressionPolicy::LatencyOnly,
            Policy::Rolling => CompressionPolicy::Rolling { keep_verbatim_newest },
            Policy::Evict => CompressionPolicy::Evict { keep_verbatim_newest },
        },
        keep_permille: settings.keep_permille,
        score_by: match settings.score_by {
            ScoreBy::OwnTail => EngineScoreBy::OwnTail,
            ScoreBy::Birth => EngineScoreBy::Birth,
            ScoreBy::Random => EngineScoreBy::Random { seed: settings.score_seed.unwrap_or_default() },
            ScoreBy::HeadTail => EngineScoreBy::HeadTail,
        },
        score_place: ScorePlace {
            layers: match settings.score_layers {
                ScoreLayers::All => EngineLayers::All,
                ScoreLayers::Mid => EngineLayers::Mid,
            },
            rope: match settings.score_rope {
                ScoreRope::Rope => EngineRope::Rope,
                ScoreRope::Nope => EngineRope::Nope,
            },
        },
        selection: selection(settings),
        threshold_tokens: settings.threshold_tokens,
        with_tools: match settings.with_tools {
            WithTools::Bypass => EngineTools::Bypass,
            WithTools::Compress => EngineTools::Compress,
        },
        user_fallback: match settings.user_fallback {
            UserFallback::On => EngineFallback::LastUser,
            UserFallback::Off => EngineFallback::Off,
        },
        freeze_file: settings.freeze_store.clone(),
    }
}

fn selection(settings: &CompressionSettings) -> EngineSelection {
    let lines = |floor| {
        EngineSelection::Lines(LineRules {
            floor,
            keep_floor_tokens: settings.keep_floor_tokens.unwrap_or_default(),
            verbatim_tools: settings.verbatim_tools.clone(),
        })
    };
    match settings.selection {
        Selection::Compat => EngineSelection::Compat,
        Selection::Lines => lines(Floor::None),
        Selection::Structural => lines(Floor::Structural),
    }
}

fn sampling(sampling: Sampling) -> EngineSampling {
    if sampling.temperature == 0.0 {
        return EngineSampling::Greedy;
    }
    EngineSampling::Seeded { seed: sampling.seed, temperature: sampling.temperature, top_k: 0, top_p: 1.0 }
}

fn facts(response: Response) -> CallFacts {
    CallFacts {
        tokens_raw: response.tokens_raw,
        tokens_removed: response.tokens_removed,
        tokens_prefix_hit: response.tokens_prefix_hit,
        tokens_prefilled: response.tokens_prefilled,
        tokens_output: response.tokens_output,
        tokens_scored: response.tokens_scored,
        messages_scored: response.messages_scored,
        messages_tool: response.messages_tool,
        messages_compressed: response.messages_compressed,
        messages_frozen_hit: response.messages_frozen_hit,
        keep_ratio_realised: response.keep_ratio_realised,
        cache_state: match response.cache_state {
            EngineCacheState::Off => CacheState::Off,
            EngineCacheState::Miss => CacheState::Miss,
            EngineCacheState::Hit => CacheState::Hit,
        },
        growth: response.growth.map(|growth| Growth {
            previous: growth.previous,
            shared: growth.shared,
            turns_previous: growth.turns_previous,
            turns_shared: growth.turns_shared,
        }),
        stages: stage_times(|stage| response.spans.get(stage)),
        device_stages: stage_times(|stage| response.spans.device(stage)),
        ttft: response.ttft,
        decode: response.decode,
        e2e: response.e2e,
        kv_bytes: response.kv_bytes,
        device_bytes_peak: response.device_bytes_peak,
        finish: match response.finish_reason {
            FinishReason::Stop => Finish::EndToken,
            FinishReason::Length => Finish::Length,
        },
        output_text: response.output_text,
        output_ids: response.output_ids,
        first_logits_digest: Some(response.first_logits_digest),
        exact: response.exact,
        fidelity: None,
        sent: response.sent,
        visible: response.visible,
    }
}

fn stage_times(time: impl Fn(Stage) -> Option<Duration>) -> StageTimes {
    StageTimes {
        render: time(Stage::Render),
        tokenize: time(Stage::Tokenize),
        target_park: time(Stage::TargetPark),
        drafter_load: time(Stage::DrafterLoad),
        score: time(Stage::Score),
        select: time(Stage::Select),
        target_load: time(Stage::TargetLoad),
        lookup: time(Stage::Lookup),
        restore: time(Stage::Restore),
        prefill: time(Stage::Prefill),
        first_token: time(Stage::FirstToken),
    }
}
