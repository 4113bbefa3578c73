//! Dropping rows on the way against its meaning: one causal pass over the whole prompt in which every token sees what the
//! plan leaves it, written out in plain loops over f64. Slow, and knows nothing of pieces, slots or caches but the mask.

use std::num::NonZeroUsize;

use engine::config::ModelConfig;
use engine::engine::Engine;
use engine::kv::eviction::{Eviction, EvictionPlan, Rows};
use engine::model_source::ModelSource;
use engine::request::EngineOptions;
use engine::schedule::{Rules, schedule};
use engine::weights::{Layer, Weights};
use kernels::device::Cpu;
use kernels::ops::matmul::Matrix;
use proptest::prelude::*;

use crate::golden::pico;

type Vector = Vec<f64>;

fn times(matrix: &Matrix, x: &[f64]) -> Vector {
    let mut row = vec![0.0; x.len()];
    (0..matrix.rows())
        .map(|index| {
            matrix.row(index, &mut row);
            row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum()
        })
        .collect()
}

fn normed(x: &[f64], weight: &[f32], eps: f32) -> Vector {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean + f64::from(eps)).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * scale * f64::from(*w)).collect()
}

/// The heads of a row, each normed and turned by its position.
fn heads(x: &[f64], weight: &[f32], position: usize, config: &ModelConfig) -> Vec<Vector> {
    let turn = |head: &[f64]| {
        let head = normed(head, weight, config.rms_eps);
        let half = head.len() / 2;
        let mut turned = head.clone();
        for i in 0..half {
            let frequency = config.rope_theta.powf(-2.0 * i as f64 / head.len() as f64);
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            turned[i] = head[i] * cos - head[i + half] * sin;
            turned[i + half] = head[i + half] * cos + head[i] * sin;
        }
        turned
    };
    x.chunks(config.head_dim).map(turn).collect()
}

/// Softmax attention of one head over the keys and values that it sees.
fn attend(q: &[f64], seen: &[(&Vector, &[f64])]) -> Vector {
    let dot = |k: &Vector| q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (q.len() as f64).sqrt();
    let scores: Vector = seen.iter().map(|(k, _)| dot(k)).collect();
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vector = scores.iter().map(|score| (score - most).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut out = vec![0.0; q.len()];
    for (weight, (_, v)) in weights.iter().zip(seen) {
        out.iter_mut().zip(*v).for_each(|(out, v)| *out += weight / total * v);
    }
    out
}

fn add(hidden: &mut [Vector], delta: impl Fn(usize, &Vector) -> Vector) {
    for (token, x) in hidden.iter_mut().enumerate() {
        let delta = delta(token, x);
        x.iter_mut().zip(delta).for_each(|(x, delta)| *x += delta);
    }
}

fn layer(layer: &Layer, config: &ModelConfig, hidden: &mut [Vector], sees: &dyn Fn(usize, usize) -> bool) {
    let input: Vec<Vector> = hidden.iter().map(|x| normed(x, &layer.attn_norm, config.rms_eps)).collect();
    let rows = || input.iter().enumerate();
    let q: Vec<_> = rows().map(|(t, x)| heads(&times(&layer.wq, x), &layer.q_norm, t, config)).collect();
    let k: Vec<_> = rows().map(|(t, x)| heads(&times(&layer.wk, x), &layer.k_norm, t, config)).collect();
    let v: Vec<Vector> = input.iter().map(|x| times(&layer.wv, x)).collect();
    let group = config.n_heads / config.n_kv_heads;
    add(hidden, |token, _| {
        let of_head = |head: usize| {
            let kv_head = head / group;
            let columns = kv_head * config.head_dim..(kv_head + 1) * config.head_dim;
            let seen: Vec<_> = (0..=token)
                .filter(|&row| sees(token, row))
                .map(|row| (&k[row][kv_head], &v[row][columns.clone()]))
                .collect();
            attend(&q[token][head], &seen)
        };
        times(&layer.wo, &(0..config.n_heads).flat_map(of_head).collect::<Vector>())
    });
    add(hidden, |_, x| {
        let x = normed(x, &layer.ffn_norm, config.rms_eps);
        let (gate, up) = (times(&layer.w_gate, &x), times(&layer.w_up, &x));
        let activated: Vector = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
        times(&layer.w_down, &activated)
    });
}

/// Logits of every position.
fn logits(
    config: &ModelConfig,
    weights: &Weights,
    tokens: &[u32],
    sees: &dyn Fn(usize, usize) -> bool,
) -> Vec<Vector> {
    let embedded = |token: &u32| {
        let mut row = vec![0.0; config.hidden];
        weights.embedding.row(*token as usize, &mut row);
        row.into_iter().map(f64::from).collect()
    };
    let mut hidden: Vec<Vector> = tokens.iter().map(embedded).collect();
    weights.layers.iter().for_each(|weights| layer(weights, config, &mut hidden, sees));
    let output = |x: &Vector| times(weights.output(), &normed(x, &weights.output_norm, config.rms_eps));
    hidden.iter().map(output).collect()
}

/// Segments of these lengths, and what is dropped: rows of a segment that begin at a share of it, where a later segment
/// begins.
fn prompt() -> impl Strategy<Value = (Vec<usize>, Vec<(usize, usize, usize)>)> {
    let cuts = prop::collection::vec((0usize..3, 0usize..60, 1usize..3), 1..4);
    (prop::collection::vec(20usize..90, 4..6), cuts)
}

fn largest_difference(a: &[Vector], b: &[Vector]) -> f64 {
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn dropping_rows_is_a_causal_pass_under_a_mask_that_grows((lengths, cuts) in prompt()) {
        let model = ModelSource::parse(pico("pico-f32.gguf").to_str().unwrap()).unwrap();
        let options = EngineOptions {
            threads: NonZeroUsize::new(2),
            kv_budget_bytes: 16 << 20,
            ..EngineOptions::new(model.clone())
        };
        let engine = Engine::open(options).unwrap();
        let target = engine.target().model();
        let rules = Rules::new(target.tokenizer.id("<|im_start|>").unwrap());
        let weights = model.open().unwrap().load_weights(&Cpu::new(NonZeroUsize::new(2))).unwrap();

        let segment = |n: &usize| {
            let n = *n;
            (0..n).map(move |i| if i == 0 { rules.boundary } else { (i * 37 + n * 11) as u32 % 1000 })
        };
        let tokens: Vec<u32> = lengths.iter().flat_map(segment).collect();
        let starts: Vec<usize> = (0..lengths.len()).map(|i| lengths[..i].iter().sum()).collect();
        let mut evictions: Vec<Eviction> = Vec::new();
        for (index, skip, later) in cuts {
            let Some(&from) = starts.get(index + later) else { continue };
            let rows = Rows { start: starts[index] + skip, end: starts[index] + lengths[index] };
            let is_new = evictions.iter().all(|e| e.rows.end <= rows.start || rows.end <= e.rows.start);
            if rows.start < rows.end && is_new {
                evictions.push(Eviction { rows, from });
            }
        }

        let pieces = schedule(&tokens, &rules).pieces;
        let piece_of = |token: usize| pieces.iter().find(|piece| token < piece.end).unwrap().start;
        let sees = |token: usize, row: usize| {
            !evictions.iter().any(|e| e.rows.positions().contains(&row) && e.from <= piece_of(token))
        };
        let truth = logits(&target.config, &weights, &tokens, &sees);
        let got = engine.logits_under(&tokens, &EvictionPlan::new(evictions.clone()), 0).unwrap();
        let got: Vec<Vector> = got.into_iter().map(|row| row.into_iter().map(f64::from).collect()).collect();
        // The bound of the whole forward pass in f32 against float64.
        prop_assert!(largest_difference(&truth, &got) < 1e-3, "{}", largest_difference(&truth, &got));

        let takes_effect = (0..tokens.len()).any(|token| (0..=token).any(|row| !sees(token, row)));
        let whole = logits(&target.config, &weights, &tokens, &|_, _| true);
        prop_assert_eq!(takes_effect, largest_difference(&truth, &whole) > 1e-6, "the mask is what is tested");
    }
}
