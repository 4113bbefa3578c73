//! The drafter reads a text and says how much its last tokens attend to each token. Knows the drafter's weights;
//! knows no message, no chunk and no budget.
//!
//! ```text
//! p[L,h,t,j] = softmax_j( q[L,h,t] . k[L,kv(h),j] / sqrt(head_dim) ),   t the last 8 positions, causal among them
//! M[t,j]     = max over layers and heads of p
//! score[j]   = mean over t of M[t,j]
//! ```
//! Source: the tail-attention score of the PFlash compressor (Lucebox `lucebox-hub`, PR 70), itself after Speculative
//! Prefill (arXiv 2502.02789) with the prompt's own tail in place of generated look-ahead tokens. Layers run one at a
//! time over the whole text, and a layer's K and V are dropped once its score is folded into `M`: a maximum does not
//! care about order, so the scores are those of keeping every layer, at the memory of one.

use kernels::kv::{KvDType, KvLayer, Slot};
use kernels::ops::{kv_store, tail_score};

use crate::error::EngineError;
use crate::model::qwen3::{Heads, Qwen3, Rows, Scratch, Tap};
use crate::request::ScoreRope;

/// Queries of the score: the last positions of the text.
pub const N_TAIL: usize = 8;

/// Rows per forward step of the drafter.
const PIECE: usize = 512;

/// Score of every token of `tokens`; `None` when the text is too short to be scored (`N_TAIL` tokens or fewer).
///
/// # Errors
/// A token id outside the drafter's vocabulary.
pub fn tail_scores(
    drafter: &Qwen3<'_>,
    dtype: KvDType,
    tokens: &[u32],
    rope: ScoreRope,
) -> Result<Option<Vec<f32>>, EngineError> {
    let n = tokens.len();
    if n <= N_TAIL {
        return Ok(None);
    }
    let config = drafter.config;
    let slots: Vec<Slot> = (0..n as u32).map(Slot).collect();
    let mut hidden = drafter.embed(tokens)?;
    let mut max_probs = vec![0.0f32; N_TAIL * n];
    let mut scratch = Scratch::default();
    for layer in &drafter.weights.layers {
        let new_layer = || KvLayer::new(n, config.n_kv_heads, config.head_dim, dtype);
        let mut kv = new_layer();
        let mut tail =
            TailTap { drafter, rope, q_tail: Vec::new(), unrotated: None, slots: &slots, start: 0 };
        if rope == ScoreRope::Nope {
            tail.unrotated = Some(new_layer());
        }
        for start in (0..n).step_by(PIECE) {
            let end = (start + PIECE).min(n);
            let angles = drafter.angles(start, end - start);
            let piece = &mut hidden[start * config.hidden..end * config.hidden];
            let mut rows = Rows { hidden: piece, slots: &slots[..end], angles: &angles };
            tail.start = start;
            drafter.layer(layer, &mut rows, &mut kv, &mut scratch, &mut tail);
        }
        let keys = tail.unrotated.as_ref().unwrap_or(&kv);
        tail_score::cpu(drafter.cpu, &tail.q_tail, keys, &slots, config.n_heads, &mut max_probs);
    }
    Ok(Some(mean_over_tail(&max_probs, n)))
}

/// `score[j] = mean over t of M[t, j]`, summed in f64 in the order of `t`.
fn mean_over_tail(max_probs: &[f32], n: usize) -> Vec<f32> {
    (0..n)
        .map(|j| {
            let sum: f64 = (0..N_TAIL).map(|t| f64::from(max_probs[t * n + j])).sum();
            (sum / N_TAIL as f64) as f32
        })
        .collect()
}

/// Keeps the tail's queries, and all keys before RoPE where the score wants them.
struct TailTap<'a> {
    drafter: &'a Qwen3<'a>,
    rope: ScoreRope,
    /// `(N_TAIL, n_heads, head_dim)` once the last piece has run.
    q_tail: Vec<f32>,
    unrotated: Option<KvLayer>,
    slots: &'a [Slot],
    start: usize,
}

impl TailTap<'_> {
    /// Appends the rows of this piece that belong to the tail.
    fn keep_tail(&mut self, q: &[f32]) {
        let width = self.drafter.config.n_heads * self.drafter.config.head_dim;
        let first = (self.slots.len() - N_TAIL).saturating_sub(self.start);
        if first * width < q.len() {
            self.q_tail.extend_from_slice(&q[first * width..]);
        }
    }
}

impl Tap for TailTap<'_> {
    fn wants_unrotated(&self) -> bool {
        self.rope == ScoreRope::Nope
    }

    fn before_rope(&mut self, heads: &Heads<'_>) {
        let width = self.drafter.config.n_kv_heads * self.drafter.config.head_dim;
        let own = &self.slots[self.start..self.start + heads.k.len() / width];
        if let Some(keys) = &mut self.unrotated {
            // Only the keys are read; the store takes values too.
            kv_store::cpu(self.drafter.cpu, heads.k, heads.k, own, keys);
        }
        self.keep_tail(heads.q);
    }

    fn after_rope(&mut self, heads: &Heads<'_>) {
        if self.rope == ScoreRope::Rope {
            self.keep_tail(heads.q);
        }
    }
}
