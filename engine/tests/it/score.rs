//! The tail score against its rule written plainly, over layers and places, and what is not run above the last scored
//! layer.

use std::num::NonZeroUsize;

use engine::compress::score::{N_TAIL, tail_scores};
use engine::device::{CudaOptions, Device, DeviceChoice};
use engine::model::qwen3::cpu::{Heads, Qwen3 as OnCpu, Rows, Scratch, Tap};
use engine::model::qwen3::{Loaded, Qwen3};
use engine::model_source::{Model, ModelSource};
use engine::request::{ScoreLayers, ScorePlace, ScoreRope};
use engine::weights::Weights;
use kernels::kv::{KvDType, KvLayer, Slot};

/// Every place where scores are taken.
pub const PLACES: [ScorePlace; 4] = [
    ScorePlace { layers: ScoreLayers::All, rope: ScoreRope::Rope },
    ScorePlace { layers: ScoreLayers::All, rope: ScoreRope::Nope },
    ScorePlace { layers: ScoreLayers::Mid, rope: ScoreRope::Rope },
    ScorePlace { layers: ScoreLayers::Mid, rope: ScoreRope::Nope },
];

fn cpu() -> Device {
    Device::open(&DeviceChoice::Cpu, NonZeroUsize::new(2), CudaOptions::DEFAULT).unwrap()
}

/// Four layers, so that the middle band is neither all of them nor one.
fn model(device: &Device) -> (Model, Weights) {
    let model = ModelSource::parse("synthetic:nano").unwrap().open().unwrap();
    let weights = model.load_weights(device.cpu()).unwrap();
    (model, weights)
}

fn tokens(n: u32) -> Vec<u32> {
    (0..n).map(|i| i * 61 % 2000).collect()
}

fn scores(device: &Device, model: &Model, weights: &Loaded, tokens: &[u32], place: ScorePlace) -> Vec<f32> {
    let drafter = Qwen3 { device, config: &model.config, weights };
    tail_scores(&drafter, KvDType::BF16, tokens, place).unwrap().unwrap()
}

/// Queries and keys of one layer, before and after RoPE.
#[derive(Default)]
struct Seen {
    before: [Vec<f32>; 2],
    after: [Vec<f32>; 2],
}

impl Tap for Seen {
    fn wants_unrotated(&self) -> bool {
        true
    }

    fn before_rope(&mut self, heads: &Heads<'_>) {
        self.before = [heads.q.to_vec(), heads.k.to_vec()];
    }

    fn after_rope(&mut self, heads: &Heads<'_>) {
        self.after = [heads.q.to_vec(), heads.k.to_vec()];
    }
}

/// The rule of `compress::score`, over one forward pass in one piece.
fn twin(device: &Device, model: &Model, weights: &Weights, tokens: &[u32], place: ScorePlace) -> Vec<f64> {
    let config = &model.config;
    let drafter = OnCpu { cpu: device.cpu(), config, weights };
    let slots: Vec<Slot> = (0..tokens.len() as u32).map(Slot).collect();
    let mut hidden = drafter.embed(tokens).unwrap();
    let angles = drafter.angles(0, tokens.len());
    let (n, d) = (tokens.len(), config.head_dim);
    let mut best = vec![0.0f64; N_TAIL * n];
    for (index, layer) in weights.layers.iter().enumerate() {
        let mut seen = Seen::default();
        let mut kv = KvLayer::new(n, config.n_kv_heads, d, KvDType::F32);
        let mut rows = Rows { hidden: &mut hidden, slots: &slots, angles: &angles };
        drafter.layer(layer, &mut rows, &mut kv, &mut Scratch::default(), &mut seen);
        if !place.layers.of(config.n_layers).contains(&index) {
            continue;
        }
        let [q, k] = if place.rope == ScoreRope::Nope { seen.before } else { seen.after };
        for head in 0..config.n_heads {
            let kv_head = head * config.n_kv_heads / config.n_heads;
            for t in 0..N_TAIL {
                let row = n - N_TAIL + t;
                let query = &q[(row * config.n_heads + head) * d..][..d];
                let dot = |j: usize| -> f64 {
                    let key = &k[(j * config.n_kv_heads + kv_head) * d..][..d];
                    query.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
                        / (d as f64).sqrt()
                };
                let logits: Vec<f64> = (0..=row).map(dot).collect();
                let top = logits.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = logits.iter().map(|logit| (logit - top).exp()).sum();
                for (j, logit) in logits.iter().enumerate() {
                    let p = (logit - top).exp() / sum;
                    best[t * n + j] = best[t * n + j].max(p);
                }
            }
        }
    }
    (0..n).map(|j| (0..N_TAIL).map(|t| best[t * n + j]).sum::<f64>() / N_TAIL as f64).collect()
}

#[test]
fn scores_are_the_plain_rule_wherever_they_are_taken() {
    let device = cpu();
    let (model, weights) = model(&device);
    // One piece, and two.
    for n in [40, 600] {
        let tokens = tokens(n);
        let truth: Vec<Vec<f64>> =
            PLACES.iter().map(|&place| twin(&device, &model, &weights, &tokens, place)).collect();
        let loaded = Loaded::Cpu(model.load_weights(device.cpu()).unwrap());
        for (place, want) in PLACES.iter().zip(&truth) {
            let got = scores(&device, &model, &loaded, &tokens, *place);
            let error: f64 = want.iter().zip(&got).map(|(w, g)| (w - f64::from(*g)).powi(2)).sum();
            let signal: f64 = want.iter().map(|w| w.powi(2)).sum();
            // Keys and values are BF16 in the score and f32 here; another place would be off by as much as the signal.
            assert!(error / signal < 1e-3, "{place:?}, {n} tokens: {}", error / signal);
        }
        for (i, one) in truth.iter().enumerate() {
            assert!(truth[i + 1..].iter().all(|other| other != one), "every place has scores of its own");
        }
    }
}

#[test]
fn what_stands_above_the_last_scored_layer_is_not_run() {
    let device = cpu();
    let (model, weights) = model(&device);
    let tokens = tokens(600);
    let whole = Loaded::Cpu(weights);
    let expected: Vec<Vec<f32>> =
        PLACES.iter().map(|&place| scores(&device, &model, &whole, &tokens, place)).collect();
    let Loaded::Cpu(mut cut) = whole else { unreachable!() };
    assert_eq!(ScoreLayers::Mid.of(cut.layers.len()), 1..3);
    cut.layers.truncate(3);
    let cut = Loaded::Cpu(cut);
    for (place, expected) in PLACES.iter().zip(expected).skip(2) {
        assert_eq!(scores(&device, &model, &cut, &tokens, *place), expected, "{place:?}");
    }
}

#[test]
fn the_band_is_the_middle_third_and_never_empty() {
    for (n_layers, band) in [(1, 0..1), (2, 0..2), (3, 1..2), (4, 1..3), (28, 9..19), (36, 12..24)] {
        assert_eq!(ScoreLayers::Mid.of(n_layers), band);
        assert_eq!(ScoreLayers::All.of(n_layers), 0..n_layers);
    }
}
