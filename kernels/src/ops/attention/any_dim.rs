//! What the launches of `any_dim.cu` have in common: the kernel for head widths that have none of their own, so
//! that any model runs. Every row of queries reads its keys itself; nothing here is tuned.

use super::log2_scale;
use crate::device::cuda::{Args, DeviceKv, Grid};

/// `ANY_DIM_MAX`.
const MAX_HEAD_DIM: usize = 256;

/// A block for each token and head.
///
/// # Panics
/// If the head width is odd or above 256.
pub(super) fn grid(kv: &DeviceKv, n_heads: usize, n_tokens: usize) -> Grid {
    let head_dim = kv.head_dim;
    let fits = head_dim.is_multiple_of(2) && head_dim <= MAX_HEAD_DIM;
    assert!(fits, "attention: no kernel for heads of {head_dim}: even, and {MAX_HEAD_DIM} at most");
    // AnyDimShared: a row of queries, and for each of four warps a row of sums and a pair.
    let shared_bytes = (5 * MAX_HEAD_DIM * 4 + 4 * 8) as u32;
    Grid { blocks: [n_heads as u32, n_tokens as u32, 1], threads: 128, shared_bytes }
}

/// `args` and the sizes, which come last in both entry points.
pub(super) fn sizes<'a>(args: Args<'a>, kv: &DeviceKv, n_heads: usize) -> Args<'a> {
    let args = args.i32((n_heads / kv.n_kv_heads) as i32).i32(kv.n_slots as i32);
    args.i32(kv.head_dim as i32).f32(log2_scale(kv.head_dim))
}
