//! The whole forward pass against an independent implementation: Hugging Face transformers with every step in float64,
//! on a small model of random weights (tests/golden/SOURCE.md).
//!
//! The bounds are those that two independent implementations show against that truth: float32 transformers stay within
//! 7e-5 of it, bfloat16 ones within 0.22 and a mean KL of 3.5e-4 nats on this model (`report.json` of the generator).

use std::num::NonZeroUsize;

use engine::engine::Engine;
use engine::model_source::ModelSource;
use engine::request::EngineOptions;

use crate::golden::{Tensors, json, pico};

fn engine(file: &str) -> Engine {
    let target = ModelSource::parse(pico(file).to_str().unwrap()).unwrap();
    let options = EngineOptions {
        threads: NonZeroUsize::new(2),
        kv_budget_bytes: 16 << 20,
        ..EngineOptions::new(target)
    };
    Engine::open(options).unwrap()
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    logits.iter().map(|&x| f64::from(x - max) - sum.ln()).collect()
}

/// KL divergence of `got` from `truth`, nats.
fn kl(truth: &[f32], got: &[f32]) -> f64 {
    let (p, q) = (log_softmax(truth), log_softmax(got));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}

/// How far logits are from the truth.
#[derive(Debug)]
pub struct Distance {
    /// The largest difference.
    pub max_abs: f32,
    /// Mean KL divergence over the rows, nats.
    pub kl_mean: f64,
}

/// Distance of rows of logits from those of `truth`.
pub fn distance(truth: &[f32], got: &[Vec<f32>]) -> Distance {
    let width = got[0].len();
    assert_eq!(truth.len(), got.len() * width);
    let rows = || truth.chunks(width).zip(got);
    let max_abs = rows().flat_map(|(t, g)| t.iter().zip(g)).map(|(t, g)| (t - g).abs()).fold(0.0, f32::max);
    let kl_mean = rows().map(|(t, g)| kl(t, g)).sum::<f64>() / got.len() as f64;
    Distance { max_abs, kl_mean }
}

/// Distance from the truth on a short text (every position) and on the last 4 of 700 and of 4096 random tokens.
fn distances(file: &str) -> [Distance; 3] {
    let engine = engine(file);
    [("text_full", "logits"), ("rand700", "logits_last4"), ("long4096", "logits_last4")].map(
        |(golden, name)| {
            let tensors = Tensors::open(&format!("{golden}.safetensors"));
            let (ids, (shape, truth)) = (tensors.ids("ids"), tensors.f32(name));
            distance(&truth, &engine.logits(&ids, ids.len() - shape[0]).unwrap())
        },
    )
}

#[test]
fn f32_weights_give_the_truth() {
    for file in ["pico-f32.gguf", "pico-f16.gguf"] {
        for d in distances(file) {
            // The weights are BF16 numbers, so F16 holds nearly all of them exactly; both compute in f32.
            assert!(d.max_abs < 1e-3, "{file}: {} off", d.max_abs);
            assert!(d.kl_mean < 1e-8, "{file}: KL {}", d.kl_mean);
        }
    }
}

#[test]
fn bf16_weights_stay_as_close_as_another_bf16_implementation() {
    for file in ["pico-bf16.gguf", "hf"] {
        for d in distances(file) {
            assert!(d.max_abs < 0.25, "{file}: {} off", d.max_abs);
            assert!(d.kl_mean < 2e-3, "{file}: KL {}", d.kl_mean);
        }
    }
}

#[test]
fn q8_0_weights_lose_what_their_rounding_loses() {
    // Exact arithmetic on Q8_0 weights is 0.7 off and 4e-3 nats away on a model of this kind.
    for d in distances("pico-q8_0.gguf") {
        assert!(d.max_abs < 1.0, "{} off", d.max_abs);
        assert!(d.kl_mean < 1e-2, "KL {}", d.kl_mean);
    }
}

#[test]
fn a_gguf_file_and_its_folder_give_the_same_bits() {
    let ids = Tensors::open("text_full.safetensors").ids("ids");
    assert_eq!(engine("pico-bf16.gguf").logits(&ids, 0).unwrap(), engine("hf").logits(&ids, 0).unwrap());
}

#[test]
fn greedy_tokens_follow_the_truth_where_its_margin_allows() {
    let golden = json("pico/greedy.json");
    let list = |key: &str| golden[key].as_array().unwrap().clone();
    let mut ids: Vec<u32> = list("prompt_ids").iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let engine = engine("pico-f32.gguf");
    for (truth, margin) in list("greedy_ids").iter().zip(list("top1_minus_top2_logit")) {
        let logits = &engine.logits(&ids, ids.len() - 1).unwrap()[0];
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u64;
        if margin.as_f64().unwrap() > 1e-3 {
            assert_eq!(best, truth.as_u64().unwrap(), "after {} tokens", ids.len());
        }
        ids.push(truth.as_u64().unwrap() as u32);
    }
}

#[test]
fn a_sequence_that_cannot_run_is_refused() {
    let engine = engine("pico-f32.gguf");
    assert!(engine.logits(&[], 0).unwrap_err().to_string().contains("needs a token"));
    let too_long = vec![0; engine.target().model().config.context_length + 1];
    assert!(engine.logits(&too_long, 0).unwrap_err().to_string().contains("maximum context length"));
    assert!(engine.logits(&[1_000_000], 0).unwrap_err().to_string().contains("embedding"));
}
