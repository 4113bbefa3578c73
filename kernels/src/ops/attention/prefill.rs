//! Launches attention of many queries on a CUDA device: `prefill.cu`, or `any_dim.cu` for head widths without a
//! kernel of their own, or `prefill_wgmma.cu` on a Hopper card that is to use its own kernels. Formula and shapes
//! are those of [`super::spec`], in bf16.
//!
//! The grid is a function of the sizes of the call alone, so that the same tokens after the same number of
//! others give the same bits, wherever their keys came from. Where few queries meet many keys, the keys are
//! split to fill the card, and the parts folded in order.

use half::bf16;

use super::{any_dim, log2_scale, prefill_wgmma, tokens_of};
use crate::device::cuda::{Args, Cuda, DeviceKv, Grid, View, ViewMut};
use crate::error::KernelError;

/// Rows of queries, so tokens times heads of a group, of a block.
pub(super) const ROWS: usize = 128;
/// Keys gathered at a time.
pub(super) const KEYS: usize = 64;
/// Blocks that a launch is split into at most: two for each place on an H200, whose 132 multiprocessors hold
/// two each. On other cards this only costs or gains time.
const BLOCKS: usize = 528;
/// Keys of a split at least: below, writing and reading its part costs more than the keys do.
const MIN_SPLIT: usize = 512;

/// Queries of `n` tokens at positions `start..start + n`, over the keys before them and their own.
#[derive(Clone, Copy, Debug)]
pub struct Prefill<'a> {
    /// (n, n_heads, head_dim), normed and rotated; starts on 16 bytes.
    pub q: View<'a, bf16>,
    /// The layer; the tokens' own keys and values are stored already.
    pub kv: &'a DeviceKv,
    /// Slot of each position, the first `start + n` of them used. What is no slot of the layer reads as zeros.
    pub slots: View<'a, i32>,
    /// Position of the first token.
    pub start: usize,
    /// Query heads, a multiple of the layer's KV heads.
    pub n_heads: usize,
}

/// Number and length of the splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Splits {
    n: usize,
    len: usize,
}

fn splits(n_tokens: usize, kv_len: usize, n_heads: usize, n_kv_heads: usize) -> Splits {
    let blocks = (n_tokens * (n_heads / n_kv_heads)).div_ceil(ROWS) * n_kv_heads;
    let n = (BLOCKS / blocks.max(1)).min(kv_len / MIN_SPLIT).max(1);
    let len = kv_len.div_ceil(n).next_multiple_of(2 * KEYS).max(2 * KEYS);
    Splits { n: kv_len.div_ceil(len).max(1), len }
}

/// Length of the scratch that [`cuda`] needs for `n_tokens` that end at position `kv_len`, at most 34 MiB at a
/// head width of 128.
pub fn scratch_len(n_tokens: usize, kv_len: usize, n_heads: usize, kv: &DeviceKv) -> usize {
    let splits = splits(n_tokens, kv_len, n_heads, kv.n_kv_heads);
    let split = splits.n > 1 && has_kernel(kv.head_dim);
    if split { splits.n * n_tokens * n_heads * (kv.head_dim + 2) } else { 0 }
}

const fn has_kernel(head_dim: usize) -> bool {
    matches!(head_dim, 64 | 128)
}

/// Attention of the queries into `out` (n, n_heads · head_dim).
///
/// # Errors
/// [`KernelError::Launch`] if the driver refuses it.
///
/// # Panics
/// If the shapes do not fit, the head width is odd or above 256, a view starts off its vectors, or `scratch` is
/// shorter than [`scratch_len`].
pub fn cuda(
    cuda: &Cuda,
    call: &Prefill<'_>,
    scratch: ViewMut<'_, f32>,
    mut out: ViewMut<'_, bf16>,
) -> Result<(), KernelError> {
    let Prefill { q, kv, slots, start, n_heads } = *call;
    let n = tokens_of(q, kv, n_heads);
    assert_eq!(out.len(), q.len(), "attention: out of {n} tokens of {n_heads} heads of {}", kv.head_dim);
    assert!(slots.len() >= start + n, "attention: {} slots for {} positions", slots.len(), start + n);
    if n == 0 {
        return Ok(());
    }
    if has_kernel(kv.head_dim) {
        return tiled(cuda, call, scratch, out);
    }
    let grid = any_dim::grid(kv, n_heads, n);
    let args = Args::new().view(q).view(kv.keys.view()).view(kv.values.view()).view(slots);
    let args = any_dim::sizes(args.view_mut(&mut out).i32(start as i32), kv, n_heads);
    // SAFETY: the parameters of the entry point; q and out hold n tokens, the layer n_slots, slots start + n; the
    // kernel keeps what it reads there inside the layer.
    unsafe { cuda.launch("attention_any_dim_prefill", grid, &args) }
}

/// The tensor core's kernels.
fn tiled(
    cuda: &Cuda,
    call: &Prefill<'_>,
    mut scratch: ViewMut<'_, f32>,
    mut out: ViewMut<'_, bf16>,
) -> Result<(), KernelError> {
    let Prefill { q, kv, slots, start, n_heads } = *call;
    let (head_dim, group) = (kv.head_dim, n_heads / kv.n_kv_heads);
    let n = q.len() / (n_heads * head_dim);
    let splits = splits(n, start + n, n_heads, kv.n_kv_heads);
    let needed = scratch_len(n, start + n, n_heads, kv);
    assert!(scratch.len() >= needed, "attention: scratch of {}, {needed} needed", scratch.len());
    let aligned = [q.address(), out.address(), scratch.address()].iter().all(|at| at.is_multiple_of(16));
    assert!(aligned, "attention: rows are copied in vectors of 16 bytes");

    let walk = match cuda.hopper_kernels() {
        true => prefill_wgmma::walk(head_dim, splits.n),
        false => walk(head_dim, splits.n),
    };
    let blocks = [(n * group).div_ceil(ROWS), kv.n_kv_heads, splits.n].map(|n| n as u32);
    let grid = Grid { blocks, threads: walk.threads, shared_bytes: walk.shared_bytes };
    let args = Args::new().view(q).view(kv.keys.view()).view(kv.values.view()).view(slots);
    let args = args.view_mut(&mut out).view_mut(&mut scratch);
    let args =
        [n, start, group, n_heads, kv.n_slots, splits.len].iter().fold(args, |args, n| args.i32(*n as i32));
    // SAFETY: the parameters of the entry point; q and out hold n tokens, the layer n_slots, slots start + n, scratch
    // a part for each split; the kernel keeps what it reads in slots inside the layer.
    unsafe { cuda.launch(walk.kernel, grid, &args.f32(log2_scale(head_dim)))? };
    if splits.n == 1 {
        return Ok(());
    }

    let combine =
        if head_dim == 64 { "attention_prefill_combine_d64" } else { "attention_prefill_combine_d128" };
    let shared_bytes = combine_shared_bytes(head_dim);
    let grid = Grid { blocks: [(n * n_heads) as u32, 1, 1], threads: 128, shared_bytes };
    let args = Args::new().view(scratch.view()).view_mut(&mut out);
    let args = [splits.n, n_heads, start, splits.len].iter().fold(args, |args, n| args.i32(*n as i32));
    // SAFETY: the parameters of the entry point; scratch holds the parts that the launch before wrote, out a row for
    // each block.
    unsafe { cuda.launch(combine, grid, &args) }
}

/// A kernel that walks over the keys; its parameters and its grid are those of `prefill.cu`.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) kernel: &'static str,
    pub(super) threads: u32,
    pub(super) shared_bytes: u32,
}

fn walk(head_dim: usize, n_splits: usize) -> Walk {
    let kernel = match (head_dim, n_splits) {
        (64, 1) => "attention_prefill_d64",
        (64, _) => "attention_prefill_split_d64",
        (_, 1) => "attention_prefill_d128",
        _ => "attention_prefill_split_d128",
    };
    // `sizeof(FlashShared<head_dim>)`.
    let shared_bytes = (ROWS + 2 * KEYS) * head_dim * 2 + 2 * KEYS * 4 + ROWS * 4 + 4 * 128 * 8;
    Walk { kernel, threads: 128, shared_bytes: shared_bytes as u32 }
}

/// What `combine_splits` lays out: the sums of four warps.
pub(super) const fn combine_shared_bytes(head_dim: usize) -> u32 {
    (4 * (head_dim + 1) * 4) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_fill_the_card_and_leave_none_empty() {
        // Qwen3-8B, 32 heads over 8: 64 tokens after a long prefix are 2 x 8 blocks, a whole piece 16 x 8.
        assert_eq!(splits(64, 96_064, 32, 8), Splits { n: 33, len: 2944 });
        assert_eq!(splits(512, 94_720, 32, 8), Splits { n: 4, len: 23_680 });
        assert_eq!(splits(512, 512, 32, 8), Splits { n: 1, len: 512 });
        for (n, kv_len, n_heads, n_kv_heads) in
            [(1, 1, 1, 1), (3, 1100, 4, 2), (512, 40_960, 16, 8), (1, 99_999, 2, 1)]
        {
            let Splits { n: n_splits, len } = splits(n, kv_len, n_heads, n_kv_heads);
            assert!(
                n_splits * len >= kv_len && (n_splits - 1) * len < kv_len,
                "{kv_len}: {n_splits} of {len}"
            );
        }
    }
}
