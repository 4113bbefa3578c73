//! The tail score on the CPU.

use kernels::kv::{KvDType, KvLayer, Slot};
use kernels::ops::{kv_store, tail_score};

use crate::compress::score::N_TAIL;
use crate::error::EngineError;
use crate::model::qwen3::cpu::{Heads, Qwen3, Rows, Scratch, Tap};
use crate::request::ScoreRope;

/// Rows per forward step of the drafter.
const PIECE: usize = 512;

/// Score of every token of `tokens`, which are more than [`N_TAIL`].
pub(super) fn tail_scores(
    drafter: &Qwen3<'_>,
    dtype: KvDType,
    tokens: &[u32],
    rope: ScoreRope,
) -> Result<Vec<f32>, EngineError> {
    let n = tokens.len();
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
    Ok(tail_score::mean(&max_probs, N_TAIL))
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
