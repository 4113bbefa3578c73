//! The tail score on the CPU.

use kernels::kv::{KvDType, KvLayer, Slot};
use kernels::ops::{kv_store, tail_score};

use crate::compress::score::N_TAIL;
use crate::error::EngineError;
use crate::model::qwen3::cpu::{Heads, NoTap, Qwen3, Rows, Scratch, Tap};
use crate::request::{ScorePlace, ScoreRope};

/// Rows per forward step of the drafter.
const PIECE: usize = 512;

/// Score of every token of `tokens`, which are more than [`N_TAIL`].
pub(super) fn tail_scores(
    drafter: &Qwen3<'_>,
    dtype: KvDType,
    tokens: &[u32],
    place: ScorePlace,
) -> Result<Vec<f32>, EngineError> {
    let n = tokens.len();
    let config = drafter.config;
    let slots: Vec<Slot> = (0..n as u32).map(Slot).collect();
    let mut hidden = drafter.embed(tokens)?;
    let mut max_probs = vec![0.0f32; N_TAIL * n];
    let mut scratch = Scratch::default();
    let scored = place.layers.of(config.n_layers);
    for (index, layer) in drafter.weights.layers[..scored.end].iter().enumerate() {
        let is_last = index + 1 == scored.end;
        let new_layer = || KvLayer::new(n, config.n_kv_heads, config.head_dim, dtype);
        let mut kv = (!is_last).then(new_layer);
        let mut tail = TailTap {
            drafter,
            rope: place.rope,
            q_tail: Vec::new(),
            // The keys of attention are those of the score where both stand after RoPE.
            keys: (is_last || place.rope == ScoreRope::Nope).then(new_layer),
            slots: &slots,
            start: 0,
        };
        for start in (0..n).step_by(PIECE) {
            let end = (start + PIECE).min(n);
            let angles = drafter.angles(start, end - start);
            let piece = &mut hidden[start * config.hidden..end * config.hidden];
            let mut rows = Rows { hidden: piece, slots: &slots[..end], angles: &angles };
            tail.start = start;
            let tap: &mut dyn Tap = if scored.contains(&index) { &mut tail } else { &mut NoTap };
            match &mut kv {
                Some(kv) => drafter.layer(layer, &mut rows, kv, &mut scratch, tap),
                None => drafter.project(layer, &rows, &mut scratch, tap),
            }
        }
        if let (true, Some(keys)) = (scored.contains(&index), tail.keys.as_ref().or(kv.as_ref())) {
            tail_score::cpu(drafter.cpu, &tail.q_tail, keys, &slots, config.n_heads, &mut max_probs);
        }
    }
    Ok(tail_score::mean(&max_probs, N_TAIL))
}

/// Keeps the tail's queries, and all keys where attention's own are not those of the score.
struct TailTap<'a> {
    drafter: &'a Qwen3<'a>,
    rope: ScoreRope,
    /// `(N_TAIL, n_heads, head_dim)` once the last piece has run.
    q_tail: Vec<f32>,
    keys: Option<KvLayer>,
    slots: &'a [Slot],
    start: usize,
}

impl TailTap<'_> {
    /// Takes the keys of this piece, and those of its queries that belong to the tail.
    fn keep(&mut self, heads: &Heads<'_>) {
        let config = self.drafter.config;
        let own = &self.slots[self.start..self.start + heads.k.len() / (config.n_kv_heads * config.head_dim)];
        if let Some(keys) = &mut self.keys {
            // Only the keys are read; the store takes values too.
            kv_store::cpu(self.drafter.cpu, heads.k, heads.k, own, keys);
        }
        let width = config.n_heads * config.head_dim;
        let first = (self.slots.len() - N_TAIL).saturating_sub(self.start);
        if first * width < heads.q.len() {
            self.q_tail.extend_from_slice(&heads.q[first * width..]);
        }
    }
}

impl Tap for TailTap<'_> {
    fn wants_unrotated(&self) -> bool {
        self.rope == ScoreRope::Nope
    }

    fn before_rope(&mut self, heads: &Heads<'_>) {
        self.keep(heads);
    }

    fn after_rope(&mut self, heads: &Heads<'_>) {
        if self.rope == ScoreRope::Rope {
            self.keep(heads);
        }
    }
}
