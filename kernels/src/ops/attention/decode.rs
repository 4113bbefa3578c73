//! Launches attention of one token on a CUDA device, from inside a recording: the position is read on the device
//! and the grid is the same at every position. Formula and shapes are those of [`super::spec`], in bf16.
//!
//! The keys are cut into a fixed number of splits whose length follows from the position; a split past the
//! context ends at once. The heads of a group share a block, so that keys and values are read once.

use half::bf16;

use super::prefill::combine_shared_bytes;
use super::{any_dim, log2_scale, tokens_of};
use crate::device::cuda::{Args, Cuda, DeviceKv, Grid, View, ViewMut};
use crate::error::KernelError;

/// Blocks of a launch at most: four, as many as fit at a group of 4 and a head width of 128, for each of the 132
/// multiprocessors of an H200, nearly. On other cards this only costs or gains time.
const BLOCKS: usize = 512;
/// Splits at most: folding more than these costs more than it gains.
const MAX_SPLITS: usize = 128;

/// The query of one token at position `*start`, over the keys before it and its own.
#[derive(Clone, Copy, Debug)]
pub struct Decode<'a> {
    /// (n_heads, head_dim), normed and rotated; starts on 16 bytes.
    pub q: View<'a, bf16>,
    /// The layer; the token's own key and value are stored already.
    pub kv: &'a DeviceKv,
    /// Slot of each position, at least `*start + 1` of them, each one of the layer's.
    pub slots: View<'a, i32>,
    /// The token's position, one number. What has no place in `slots` counts as the last that has.
    pub start: View<'a, i32>,
    /// Query heads, a multiple of the layer's KV heads.
    pub n_heads: usize,
}

/// How the heads and the keys are cut.
struct Cut {
    /// Query heads of a block: as many of a group as there is a kernel for.
    heads: usize,
    /// Blocks for a group.
    parts: usize,
    n_splits: usize,
}

fn cut(n_heads: usize, kv: &DeviceKv) -> Cut {
    let group = n_heads / kv.n_kv_heads;
    let kernels: &[usize] = if kv.head_dim == 64 { &[1, 2, 4, 8] } else { &[1, 2, 4, 5, 8] };
    let heads = kernels.iter().copied().find(|heads| *heads >= group).unwrap_or(8);
    let parts = group.div_ceil(heads);
    Cut { heads, parts, n_splits: (BLOCKS / (kv.n_kv_heads * parts)).clamp(1, MAX_SPLITS) }
}

/// Length of the scratch that [`cuda`] needs.
pub fn scratch_len(n_heads: usize, kv: &DeviceKv) -> usize {
    if matches!(kv.head_dim, 64 | 128) { cut(n_heads, kv).n_splits * n_heads * (kv.head_dim + 2) } else { 0 }
}

/// Attention of the token into `out` (n_heads · head_dim).
///
/// # Errors
/// [`KernelError::Launch`] if the driver refuses it.
///
/// # Panics
/// If the shapes do not fit, the head width is odd or above 256, a view starts off its vectors, or `scratch` is
/// shorter than [`scratch_len`].
pub fn cuda(
    cuda: &Cuda,
    call: &Decode<'_>,
    mut scratch: ViewMut<'_, f32>,
    mut out: ViewMut<'_, bf16>,
) -> Result<(), KernelError> {
    let Decode { q, kv, slots, start, n_heads } = *call;
    let head_dim = kv.head_dim;
    assert_eq!(tokens_of(q, kv, n_heads), 1, "attention: decode takes one token");
    assert_eq!(out.len(), q.len(), "attention: out of one token of {n_heads} heads of {head_dim}");
    assert!(!slots.is_empty() && start.len() == 1, "attention: slots and one position");
    let max_kv_len = slots.len() as i32;
    let args = Args::new().view(q).view(kv.keys.view()).view(kv.values.view()).view(slots);
    let (kernel, combine) = match (head_dim, cut(n_heads, kv).heads) {
        (64, 1) => ("attention_decode_d64_h1", "attention_decode_combine_d64"),
        (64, 2) => ("attention_decode_d64_h2", "attention_decode_combine_d64"),
        (64, 4) => ("attention_decode_d64_h4", "attention_decode_combine_d64"),
        (64, _) => ("attention_decode_d64_h8", "attention_decode_combine_d64"),
        (128, 1) => ("attention_decode_d128_h1", "attention_decode_combine_d128"),
        (128, 2) => ("attention_decode_d128_h2", "attention_decode_combine_d128"),
        (128, 4) => ("attention_decode_d128_h4", "attention_decode_combine_d128"),
        (128, 5) => ("attention_decode_d128_h5", "attention_decode_combine_d128"),
        (128, _) => ("attention_decode_d128_h8", "attention_decode_combine_d128"),
        _ => {
            let args = args.view_mut(&mut out).view(start).i32(max_kv_len);
            let args = any_dim::sizes(args, kv, n_heads);
            // SAFETY: the parameters of the entry point; q and out hold one token, the layer n_slots, slots
            // max_kv_len; the kernel keeps the position inside slots, and what it reads there inside the layer.
            return unsafe { cuda.launch("attention_any_dim_decode", any_dim::grid(kv, n_heads, 1), &args) };
        }
    };

    let Cut { heads, parts, n_splits } = cut(n_heads, kv);
    let needed = scratch_len(n_heads, kv);
    assert!(scratch.len() >= needed, "attention: scratch of {}, {needed} needed", scratch.len());
    let aligned = [q.address(), scratch.address()].iter().all(|at| at.is_multiple_of(16));
    assert!(aligned, "attention: rows are read in vectors of 16 bytes");
    let blocks = [kv.n_kv_heads, parts, n_splits].map(|n| n as u32);
    let grid = Grid { blocks, threads: 128, shared_bytes: shared_bytes(head_dim, heads) };
    let args = args.view_mut(&mut scratch).view(start).i32((n_heads / kv.n_kv_heads) as i32);
    let args = args.i32(max_kv_len).i32(kv.n_slots as i32).f32(log2_scale(head_dim));
    // SAFETY: the parameters of the entry point; q holds one token, the layer n_slots, slots max_kv_len, scratch a part
    // for each split; the kernel keeps the position inside slots, and what it reads there inside the layer.
    unsafe { cuda.launch(kernel, grid, &args)? };

    let shared_bytes = combine_shared_bytes(head_dim);
    let grid = Grid { blocks: [n_heads as u32, 1, 1], threads: 128, shared_bytes };
    let args = Args::new().view(scratch.view()).view_mut(&mut out).i32(n_splits as i32);
    // SAFETY: the parameters of the entry point; scratch holds the parts that the launch before wrote, out a row for
    // each block.
    unsafe { cuda.launch(combine, grid, &args.view(start).i32(max_kv_len)) }
}

/// `sizeof(DecodeShared<head_dim, heads>)`: queries, a step's weights, the warps' sums and their pairs.
const fn shared_bytes(head_dim: usize, heads: usize) -> u32 {
    let bytes = heads * head_dim * 2 + 4 * 32 * heads * 4 + 4 * heads * head_dim * 4 + 4 * heads * 8;
    bytes.next_multiple_of(16) as u32
}
