//! The drafter reads a text and says how much its last tokens attend to each token. Knows the drafter's weights;
//! knows no message, no chunk and no budget.
//!
//! ```text
//! p[L,h,t,j] = softmax_j( q[L,h,t] . k[L,kv(h),j] / sqrt(head_dim) ),   t the last 8 positions, causal among them
//! M[t,j]     = max over the scored layers and their heads of p
//! score[j]   = mean over t of M[t,j]
//! ```
//! Source: the tail-attention score of the PFlash compressor (Lucebox `lucebox-hub`, PR 70), itself after Speculative
//! Prefill (arXiv 2502.02789) with the prompt's own tail in place of generated look-ahead tokens. Layers run one at a
//! time over the whole text, and a layer's K and V are dropped once its score is folded into `M`: a maximum does not
//! care about order, so the scores are those of keeping every layer, at the memory of one. The last scored layer ends
//! with its queries and keys: nothing that follows them is read.
//!
//! Scoring a middle band alone, before RoPE: Lucebox `lucebox-hub`, issues 724 and 746.

mod cpu;
mod cuda;

use kernels::kv::KvDType;

use crate::error::EngineError;
use crate::model::qwen3::{Loaded, Qwen3, cpu as on_cpu, cuda as on_cuda};
use crate::request::ScorePlace;

/// Queries of the score: the last positions of the text.
pub const N_TAIL: usize = 8;

/// Score of every token of `tokens`; `None` when the text is too short to be scored (`N_TAIL` tokens or fewer).
///
/// # Errors
/// A token id outside the drafter's vocabulary; the card failed.
pub fn tail_scores(
    drafter: &Qwen3<'_>,
    dtype: KvDType,
    tokens: &[u32],
    place: ScorePlace,
) -> Result<Option<Vec<f32>>, EngineError> {
    if tokens.len() <= N_TAIL {
        return Ok(None);
    }
    let config = drafter.config;
    match (drafter.weights, drafter.device.cuda()) {
        (Loaded::Cuda(weights), Some(cuda)) => {
            let drafter = on_cuda::Qwen3 { cuda, config, weights };
            cuda::tail_scores(&drafter, tokens, place).map(Some)
        }
        (Loaded::Cpu(weights), None) => {
            let drafter = on_cpu::Qwen3 { cpu: drafter.device.cpu(), config, weights };
            cpu::tail_scores(&drafter, dtype, tokens, place).map(Some)
        }
        _ => unreachable!("weights are where their device put them"),
    }
}
