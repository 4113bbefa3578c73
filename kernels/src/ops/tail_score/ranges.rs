//! The score on the device: see ranges.cu for how the work is cut. It must not know chunks or budgets, nor that there
//! are layers.

use std::f32::consts::LOG2_E;

use half::bf16;

use crate::device::cuda::{Args, Cuda, DeviceKv, Grid, View, ViewMut};
use crate::error::KernelError;

/// Largest relative squared error of [`cuda`] against [`spec`](super::spec), given the queries as it gets them,
/// rounded: sums and exponentials in f32. 1e-13 is seen.
pub const MAX_NMSE_CUDA: f64 = 4e-12;

/// Positions of a range on the device, where many short ones keep its processors busy: part of the result's
/// definition, too.
const CUDA_RANGE: usize = 256;

/// Values of a head that a warp of the device holds.
const MAX_CUDA_HEAD_DIM: usize = 256;

/// Rows of a block on the device, which are those of its tensor cores.
const CUDA_ROWS: usize = 16;

/// Queries of the tail on the device, as attention takes them.
#[derive(Clone, Copy, Debug)]
pub struct DeviceTail<'a> {
    /// (n_tail, n_heads, head_dim)
    pub q: View<'a, bf16>,
    /// Tail tokens.
    pub n_tail: usize,
    /// Query heads.
    pub n_heads: usize,
}

/// Numbers of scratch that [`cuda`] needs: every raw score, and a maximum and a sum for each range and for each row.
pub const fn cuda_scratch_len(n_tail: usize, n_heads: usize, kv_len: usize) -> usize {
    let ranges = kv_len.div_ceil(CUDA_RANGE);
    n_tail * n_heads * (ranges * (CUDA_RANGE + 2) + 2)
}

/// Raises `max_probs` (n_tail, slots.len()) to the probabilities of one layer, on the device. Only the layer's keys are
/// read; those of slots outside the layer count as zeros, as slots are out of the launcher's sight.
///
/// # Errors
/// [`KernelError::Launch`] if the driver refuses a launch.
///
/// # Panics
/// If lengths do not fit, the query heads cannot share the KV heads evenly, `head_dim` is not a multiple of 8 up to 256,
/// or queries, keys or scratch begin off a multiple of 16 bytes.
pub fn cuda(
    cuda: &Cuda,
    tail: DeviceTail<'_>,
    layer: &DeviceKv,
    slots: View<'_, i32>,
    mut scratch: ViewMut<'_, f32>,
    mut max_probs: ViewMut<'_, f32>,
) -> Result<(), KernelError> {
    let shape = DeviceShape::check(tail, layer, slots, &scratch, &max_probs);
    let DeviceShape { n_tail, n_heads, group, head_dim, kv_len, ranges, .. } = shape;
    let kernel = match head_dim {
        ..=64 => "tail_score_ranges_64",
        65..=128 => "tail_score_ranges_128",
        _ => "tail_score_ranges_256",
    };
    let row_blocks = (n_tail * group).div_ceil(CUDA_ROWS);
    // A maximum and a sum for each of the block's eight warps and each row.
    let shared_bytes = 2 * 8 * CUDA_ROWS as u32 * 4;
    let blocks = [ranges as u32, layer.n_kv_heads as u32, row_blocks as u32];
    let args = Args::new().view(tail.q).view(layer.keys.view()).view(slots).view_mut(&mut scratch);
    // SAFETY: a block reads its rows of q, the slots of its range and the keys of those inside the layer; it writes the
    // scores and sums of its rows and range, for which the scratch was found long enough.
    unsafe { cuda.launch(kernel, Grid { blocks, threads: 256, shared_bytes }, &shape.append_to(args))? };
    let totals = Grid { blocks: [(n_heads * n_tail) as u32, 1, 1], threads: 32, shared_bytes: 0 };
    let args = shape.append_to(Args::new().view_mut(&mut scratch));
    // SAFETY: a block reads the sums of one row's ranges and writes those of the row.
    unsafe { cuda.launch("tail_score_totals", totals, &args)? };
    let raise =
        Grid { blocks: [kv_len.div_ceil(256) as u32, n_tail as u32, 1], threads: 256, shared_bytes: 0 };
    let args = shape.append_to(Args::new().view_mut(&mut scratch).view_mut(&mut max_probs));
    // SAFETY: a thread reads the scores and sums of one position and raises that position's maximum.
    unsafe { cuda.launch("tail_score_raise", raise, &args) }
}

/// [`mean`](super::mean) on the device, with the same bits.
///
/// # Errors
/// [`KernelError::Launch`] if the driver refuses the launch.
///
/// # Panics
/// As [`mean`](super::mean), and if `score` is not such a row.
pub fn mean_cuda(
    cuda: &Cuda,
    max_probs: View<'_, f32>,
    n_tail: usize,
    mut score: ViewMut<'_, f32>,
) -> Result<(), KernelError> {
    let kv_len = score.len();
    assert!(n_tail > 0 && max_probs.len() == n_tail * kv_len, "tail_score: maxima of {n_tail} tail tokens");
    let grid = Grid { blocks: [kv_len.div_ceil(256) as u32, 1, 1], threads: 256, shared_bytes: 0 };
    let args = Args::new().view(max_probs).view_mut(&mut score).i32(n_tail as i32).i32(kv_len as i32);
    // SAFETY: a thread reads one position of each row of maxima and writes its score.
    unsafe { cuda.launch("tail_score_mean", grid, &args) }
}

/// The sizes of one call on the device, checked.
#[derive(Clone, Copy, Debug)]
struct DeviceShape {
    n_tail: usize,
    n_heads: usize,
    group: usize,
    n_slots: usize,
    head_dim: usize,
    kv_len: usize,
    ranges: usize,
}

impl DeviceShape {
    #[track_caller]
    fn check(
        tail: DeviceTail<'_>,
        layer: &DeviceKv,
        slots: View<'_, i32>,
        scratch: &ViewMut<'_, f32>,
        max_probs: &ViewMut<'_, f32>,
    ) -> DeviceShape {
        let DeviceTail { q, n_tail, n_heads } = tail;
        let DeviceKv { n_slots, n_kv_heads, head_dim, .. } = *layer;
        let kv_len = slots.len();
        assert!(
            n_heads > 0
                && n_heads.is_multiple_of(n_kv_heads)
                && head_dim.is_multiple_of(8)
                && head_dim <= MAX_CUDA_HEAD_DIM,
            "tail_score: {n_heads} query heads of {head_dim} over {n_kv_heads} KV heads"
        );
        assert!(
            q.len() == n_tail * n_heads * head_dim && max_probs.len() == n_tail * kv_len && kv_len >= n_tail,
            "tail_score: {} query values and {} maxima, not of {n_tail} tokens and {kv_len} positions",
            q.len(),
            max_probs.len()
        );
        assert_eq!(
            layer.keys.len(),
            n_slots * n_kv_heads * head_dim,
            "tail_score: keys of the layer's shape"
        );
        let enough = cuda_scratch_len(n_tail, n_heads, kv_len);
        assert!(scratch.len() >= enough, "tail_score: scratch of {}, not {enough}", scratch.len());
        let addresses = [q.address(), layer.keys.view().address(), scratch.address()];
        assert!(addresses.iter().all(|a| a.is_multiple_of(16)), "tail_score: heads are read in vectors");
        let (group, ranges) = (n_heads / n_kv_heads, kv_len.div_ceil(CUDA_RANGE));
        DeviceShape { n_tail, n_heads, group, n_slots, head_dim, kv_len, ranges }
    }

    /// The arguments that all kernels of the op end with.
    fn append_to<'a>(&self, args: Args<'a>) -> Args<'a> {
        let sizes =
            [self.n_tail, self.n_heads, self.group, self.n_slots, self.head_dim, self.kv_len, self.ranges];
        let args = sizes.into_iter().fold(args, |args, size| args.i32(size as i32));
        args.f32(LOG2_E / (self.head_dim as f32).sqrt())
    }
}
