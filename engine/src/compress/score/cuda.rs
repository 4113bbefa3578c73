//! The tail score on a card: nothing comes back to the host but the scores.

use kernels::KernelError;
use kernels::device::cuda::DeviceKv;
use kernels::ops::attention::prefill;
use kernels::ops::kv_store::{Placement, StridedRows};
use kernels::ops::qk_norm_rope::{Angles, Rotation};
use kernels::ops::tail_score::{self, DeviceTail};
use kernels::ops::{embedding, kv_store};

use crate::compress::score::N_TAIL;
use crate::error::EngineError;
use crate::model::qwen3::cuda::{Attention, Place, Qwen3, Rows};
use crate::request::{ScorePlace, ScoreRope};

/// Most rows of a launch. More than the target's pieces: nothing of this is kept, and a small model needs many rows to
/// fill a card.
const PIECE: usize = 2048;

/// Score of every token of `tokens`, which are more than [`N_TAIL`].
pub(super) fn tail_scores(
    drafter: &Qwen3<'_>,
    tokens: &[u32],
    place: ScorePlace,
) -> Result<Vec<f32>, EngineError> {
    drafter.check(tokens)?;
    on_card(drafter, tokens, place).map_err(|source| EngineError::Device { source })
}

fn on_card(drafter: &Qwen3<'_>, tokens: &[u32], place: ScorePlace) -> Result<Vec<f32>, KernelError> {
    let Qwen3 { cuda, config, weights } = *drafter;
    let (n, width) = (tokens.len(), config.hidden);
    let tail = tail_score::cuda_scratch_len(N_TAIL, config.n_heads, n);
    let mut scratch = cuda.alloc(tail)?;
    let mut max_probs = cuda.zeroed(N_TAIL * n)?;
    let mut kv = DeviceKv::new(cuda, n, config.n_kv_heads, config.head_dim)?;
    let mut unrotated = match place.rope {
        ScoreRope::Rope => None,
        ScoreRope::Nope => Some(DeviceKv::keys_alone(cuda, n, config.n_kv_heads, config.head_dim)?),
    };
    let pieces = pieces(n);
    let starts = cuda.upload(&pieces.iter().map(|piece| piece.start as i32).collect::<Vec<_>>())?;
    let slots = cuda.upload(&(0..n as i32).collect::<Vec<_>>())?;
    let angles = Angles::new(config.head_dim, config.rope_theta, 0, n);
    let angles = cuda.upload(angles.table())?;
    let mut rows = Rows::new(cuda, config, pieces[0].len())?;
    for piece in &pieces {
        rows.reserve_splits(cuda, prefill::scratch_len(piece.len(), piece.end, config.n_heads, &kv))?;
    }
    let mut hidden = cuda.alloc(n * width)?;
    embedding::cuda(cuda, cuda.upload(tokens)?.view(), &weights.embedding, hidden.view_mut())?;

    let scored = place.layers.of(config.n_layers);
    for (depth, layer) in weights.layers[..scored.end].iter().enumerate() {
        let (is_scored, is_last) = (scored.contains(&depth), depth + 1 == scored.end);
        for (index, piece) in pieces.iter().enumerate() {
            let place = Place {
                n: piece.len(),
                position: starts.slice(index..index + 1),
                start: starts.slice(index..index + 1),
                slots: slots.view(),
                angles: angles.view(),
                attention: Attention::Prefill(piece.start),
            };
            let mut hidden = hidden.slice_mut(piece.start * width..piece.end * width);
            let mut score = |rows: &Rows, keys: &DeviceKv| {
                if piece.end < n || !is_scored {
                    return Ok(());
                }
                let q_dim = config.n_heads * config.head_dim;
                let q = rows.q.slice((piece.len() - N_TAIL) * q_dim..piece.len() * q_dim);
                let tail = DeviceTail { q, n_tail: N_TAIL, n_heads: config.n_heads };
                tail_score::cuda(cuda, tail, keys, slots.view(), scratch.view_mut(), max_probs.view_mut())
            };
            drafter.project_heads(layer, place.n, hidden.view(), &mut rows)?;
            if let Some(keys) = unrotated.as_mut().filter(|_| is_scored) {
                drafter.ready_heads(layer, place, Rotation::Off, &mut rows)?;
                let kv_dim = config.n_kv_heads * config.head_dim;
                let k = StridedRows { rows: rows.k.slice(0..place.n * kv_dim), stride: kv_dim };
                let at = Placement { slots: place.slots, start: place.start };
                kv_store::cuda(cuda, place.n, k, None, at, keys)?;
                score(&rows, keys)?;
            }
            drafter.ready_heads(layer, place, Rotation::By(()), &mut rows)?;
            drafter.store(place, &rows, &mut kv)?;
            if unrotated.is_none() {
                score(&rows, &kv)?;
            }
            if !is_last {
                drafter.attend(layer, place, &kv, &mut hidden, &mut rows)?;
            }
        }
    }
    let mut scores = cuda.alloc(n)?;
    tail_score::mean_cuda(cuda, max_probs.view(), N_TAIL, scores.view_mut())?;
    scores.read()
}

/// Pieces of nearly equal length, so that the last one holds the whole tail.
fn pieces(n: usize) -> Vec<std::ops::Range<usize>> {
    let len = n.div_ceil(n.div_ceil(PIECE));
    (0..n).step_by(len).map(|start| start..(start + len).min(n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_tile_the_text_and_the_last_holds_the_tail() {
        for n in (N_TAIL + 1..3 * PIECE + 20).chain([100_000, 131_071]) {
            let pieces = pieces(n);
            assert_eq!((pieces[0].start, pieces[pieces.len() - 1].end), (0, n));
            assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(pieces.iter().all(|piece| piece.len() <= PIECE));
            assert!(pieces[pieces.len() - 1].len() >= N_TAIL, "{n}");
        }
    }
}
