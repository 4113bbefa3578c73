//! The engine on a card: under the emulator with the feature `emulation`, on the first card where there is one.

use std::num::NonZeroUsize;

use engine::compress::score::tail_scores;
use engine::device::{Cuda, CudaOptions, Device, DeviceChoice, detect};
use engine::engine::Engine;
use engine::error::EngineError;
use engine::kv::cache::KvCache;
use engine::kv::eviction::EvictionPlan;
use engine::model::qwen3::Pass;
use engine::model_source::ModelSource;
use engine::request::{
    ArmSettings, CachePolicy, CacheState, CompressionPolicy, EngineOptions, Residency, Response,
};
use engine::residency::Resident;
use engine::sample::{Sampler, Sampling};
use transcripts::message::{Message, Role};

use crate::golden::{Tensors, pico};
use crate::logits::distance;
use crate::requests::{arm, ask, logits};
use crate::score::PLACES;

const ROOMY: u64 = 64 << 20;

/// The emulator with two orders of warps and copies, and the first card.
///
/// # Panics
/// If there is no card and `REQUIRE_GPU` is set.
fn devices() -> Vec<Cuda> {
    let mut devices = Vec::new();
    #[cfg(feature = "emulation")]
    devices.extend([Cuda::emulated(0), Cuda::emulated(1)]);
    match detect() {
        Ok(_) => devices.push(Cuda::open(0, CudaOptions::DEFAULT).unwrap()),
        Err(absence) => {
            assert!(std::env::var_os("REQUIRE_GPU").is_none(), "REQUIRE_GPU is set, but {absence}");
            if devices.is_empty() {
                eprintln!("skipped: {absence}; --features emulation runs this test on the CPU");
            }
        }
    }
    devices
}

fn options(model: &str, device: DeviceChoice) -> EngineOptions {
    EngineOptions {
        drafter: Some(ModelSource::parse("synthetic:nano-drafter").unwrap()),
        device,
        threads: NonZeroUsize::new(2),
        kv_budget_bytes: ROOMY,
        ..EngineOptions::new(ModelSource::parse(model).unwrap())
    }
}

fn engine(model: &str, cuda: &Cuda) -> Engine {
    Engine::open(options(model, DeviceChoice::Opened(cuda.clone()))).unwrap()
}

/// A short session, since emulated launches take their time: a message, a call, its result.
fn replay(engine: &mut Engine, settings: ArmSettings) -> Vec<Response> {
    let listing =
        |part: u32| -> String { (0..6).map(|i| format!("{i} value {part}: {}\n", i * 7)).collect() };
    let mut messages = vec![Message::text(Role::User, "Where is the retry limit set?")];
    for part in 0..2 {
        let mut result = Message::text(Role::Tool, listing(part));
        result.tool_call_id = Some(format!("call_{part}"));
        messages.extend([Message::text(Role::Assistant, "Reading."), result]);
    }
    engine.start(settings).unwrap();
    let prompts = [1, 3, 5].map(|n| messages[..n].iter().collect::<Vec<_>>());
    prompts.iter().map(|prompt| ask(engine, prompt)).collect()
}

/// Against transformers in float64, weights of every kind within what BF16 is held to on the CPU: on a card activations
/// are BF16 whatever the weights are.
#[test]
fn logits_stay_near_the_truth_of_transformers() {
    let tensors = Tensors::open("text_full.safetensors");
    let (ids, (_, truth)) = (tensors.ids("ids"), tensors.f32("logits"));
    for cuda in devices() {
        for (file, max_abs, kl) in [
            ("pico-f32.gguf", 0.25, 2e-3),
            ("pico-f16.gguf", 0.25, 2e-3),
            ("pico-bf16.gguf", 0.25, 2e-3),
            // What rounding the weights loses on the CPU, too.
            ("pico-q8_0.gguf", 1.0, 1e-2),
        ] {
            let logits = engine(pico(file).to_str().unwrap(), &cuda).logits(&ids, 0).unwrap();
            let distance = distance(&truth, &logits);
            assert!(distance.max_abs < max_abs && distance.kl_mean < kl, "{file}: {distance:?}");
        }
    }
}

#[test]
fn cached_calls_give_the_bits_of_cold_calls_on_a_card_too() {
    let mut seen: Option<Vec<String>> = None;
    for cuda in devices() {
        let mut engine = engine("synthetic:nano-drafter", &cuda);
        let cold = replay(&mut engine, arm(CachePolicy::Off, None));
        let cached = replay(&mut engine, arm(CachePolicy::On, None));
        assert_eq!(logits(&cold), logits(&cached));
        assert_eq!(cached[2].cache_state, CacheState::Hit);
        for (cold, cached) in cold.iter().zip(&cached) {
            assert_eq!((cold.exact, cached.exact), (None, Some(true)));
            assert_eq!(cold.output_ids, cached.output_ids);
        }
        if cuda.is_emulated() {
            // Whatever order warps run in.
            let bits = logits(&cold).into_iter().map(str::to_owned).collect();
            assert_eq!(*seen.get_or_insert_with(|| Vec::clone(&bits)), bits);
        }
    }
}

#[test]
fn every_compressing_arm_runs_on_a_card() {
    for cuda in devices() {
        let mut engine = engine("synthetic:nano-drafter", &cuda);
        let frozen = replay(&mut engine, arm(CachePolicy::On, Some(CompressionPolicy::Freeze)));
        assert!(frozen[2].exact == Some(true) && frozen[2].messages_frozen_hit == 1, "{:?}", frozen[2]);
        assert!(frozen[2].tokens_removed > 0 && frozen[2].device_bytes_peak > Some(0));
        let rescored = replay(&mut engine, arm(CachePolicy::On, Some(CompressionPolicy::Rescore)));
        assert_eq!(rescored[2].messages_compressed, 2);
        let evict = CompressionPolicy::Evict { keep_verbatim_newest: 1 };
        let whole = replay(&mut engine, arm(CachePolicy::On, None));
        let evicting = replay(&mut engine, arm(CachePolicy::On, Some(evict)));
        assert_eq!(logits(&evicting[..2]), logits(&whole[..2]), "nothing has aged yet");
        assert_ne!(logits(&evicting[2..]), logits(&whole[2..]));
        assert!(evicting[2].exact == Some(true) && evicting[2].tokens_removed > 0, "{:?}", evicting[2]);
        assert!(evicting[2].kv_bytes < whole[2].kv_bytes);
        let cold = replay(&mut engine, arm(CachePolicy::Off, Some(evict)));
        assert_eq!(logits(&cold), logits(&evicting));
        let ids = |responses: &[Response]| responses.iter().map(|r| r.output_ids.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&cold), ids(&evicting), "decode finds its rows behind the gap");
        // A parked model's memory is given back, and what was recorded with it is recorded anew.
        let mut parked = arm(CachePolicy::On, Some(CompressionPolicy::Freeze));
        parked.residency = Residency::Parked;
        let both = cuda.bytes_in_use();
        let parked = replay(&mut engine, parked);
        assert_eq!(logits(&frozen), logits(&parked));
        assert!(cuda.bytes_in_use() < both, "the drafter is parked between calls");
    }
}

/// The recorded launches of decode against prefill of the same tokens: each token drawn is the likeliest of prefill, or as
/// good as that within what rounding attention's weights to BF16 costs, which prefill does and decode does not.
#[test]
fn decode_agrees_with_prefill() {
    let ids: Vec<u32> = (0..70).map(|i| i * 37 % 1000).collect();
    for cuda in devices() {
        let device = Device::open(&DeviceChoice::Opened(cuda.clone()), None, CudaOptions::DEFAULT).unwrap();
        let mut target = Resident::open(&ModelSource::parse("synthetic:nano-drafter").unwrap()).unwrap();
        target.load(&device).unwrap();
        let model = target.on(&device).unwrap();
        let mut cache =
            KvCache::new(&device, model.config, target.kv_dtype(&device), ROOMY, CachePolicy::Off).unwrap();
        let sequence = cache.open(None, 80).unwrap();
        let mut pass = Pass::new(&model, cache.memory());
        pass.take_up(&sequence.slots_from(0, &EvictionPlan::default()), 0).unwrap();
        let mut sampler = Sampler::new(Sampling::Greedy).unwrap();
        pass.run(&ids, 0).unwrap();
        let mut all = ids.clone();
        all.push(sampler.sample(&pass.logits(ids.len() - 1).unwrap()).unwrap());
        for position in ids.len()..ids.len() + 5 {
            all.push(pass.decode(all[position], position, &mut sampler).unwrap());
        }
        for (n, drawn) in all.iter().enumerate().skip(ids.len()) {
            pass.run(&all[..n], 0).unwrap();
            let logits = pass.logits(n - 1).unwrap();
            let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let worse_by = best - logits[*drawn as usize];
            assert!(worse_by < 0.1, "token {n}: {drawn} is {worse_by} worse than the best");
        }
    }
}

#[test]
fn scores_are_those_of_the_cpu_within_bf16() {
    let tokens: Vec<u32> = (0..150).map(|i| i * 61 % 2000).collect();
    let source = ModelSource::parse("synthetic:nano").unwrap();
    let scores = |choice: DeviceChoice, place| {
        let device = Device::open(&choice, None, CudaOptions::DEFAULT).unwrap();
        let mut drafter = Resident::open(&source).unwrap();
        drafter.load(&device).unwrap();
        let dtype = drafter.kv_dtype(&device);
        tail_scores(&drafter.on(&device).unwrap(), dtype, &tokens, place).unwrap().unwrap()
    };
    for place in PLACES {
        let want = scores(DeviceChoice::Cpu, place);
        for cuda in devices() {
            let got = scores(DeviceChoice::Opened(cuda.clone()), place);
            let error: f32 = want.iter().zip(&got).map(|(w, g)| (w - g).powi(2)).sum();
            let signal: f32 = want.iter().map(|w| w.powi(2)).sum();
            assert!(error / signal < 1e-3, "{place:?}: {}", error / signal);
        }
    }
}

#[test]
fn a_budget_beyond_the_card_is_an_error_and_the_engine_stays_usable() {
    for cuda in devices().into_iter().filter(|cuda| !cuda.is_emulated()) {
        let options = EngineOptions {
            kv_budget_bytes: 1 << 50,
            ..options("synthetic:nano", DeviceChoice::Opened(cuda.clone()))
        };
        let mut engine = Engine::open(options).unwrap();
        let refused = engine.start(arm(CachePolicy::On, None));
        assert!(matches!(refused, Err(EngineError::Device { .. })), "{refused:?}");
    }
}
