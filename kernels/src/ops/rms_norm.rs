//! RMS norm: `y[t, i] = x[t, i] · w[i] / sqrt(mean_i x[t, i]² + eps)`, alone and fused with the residual sum
//! before it. Rows are whatever the weight is long.
//!
//! Shapes: x, y (rows, dim) f32 row-major; weight (dim). Bound by memory: the fused form saves one pass.
//! Order: each row sums its squares in 32 lanes, then lane by lane: it depends on dim alone.
//! Source: Zhang and Sennrich 2019, equation 4; the eps as in Llama and Qwen. It must not know what a row
//! means.

use half::bf16;

use crate::cost::Cost;
use crate::device::cuda::{Args, Cuda, Grid, View, ViewMut};
use crate::device::{Cpu, Disjoint};
use crate::error::KernelError;
use crate::rms;
use crate::tile::lanes::{self, Job, Lanes};

/// Largest relative squared error of [`cpu`] against [`spec`]. A sum of at most a few hundred f32 terms per
/// lane errs by about 1e-7 relative, its root by half of that, the two products by a rounding each.
pub const MAX_NMSE: f64 = 2e-13;

/// Largest relative squared error of [`cuda`] against [`spec`]: the result is rounded to bf16, by at most 2^-8 of each
/// value, which squared is 1.5e-5. 3e-6 is seen over long rows.
pub const MAX_NMSE_CUDA: f64 = 1.6e-5;

/// Elements one item of parallel work handles: 64 KiB of f32, enough to outweigh handing it out.
const ITEM_ELEMENTS: usize = 16 * 1024;

/// The formula in plain loops, in f64.
///
/// # Panics
/// If `x` is not whole rows or `y` differs from it in length.
pub fn spec(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    check("x", x.len(), weight.len(), y.len());
    for (x, y) in x.chunks_exact(weight.len()).zip(y.chunks_exact_mut(weight.len())) {
        let sum: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let root = (sum / x.len() as f64 + f64::from(eps)).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            *y = (f64::from(*x) * f64::from(*w) / root) as f32;
        }
    }
}

/// Norms rows of `x` into `y`.
///
/// # Panics
/// If `x` is not whole rows or `y` differs from it in length.
pub fn cpu(cpu: &Cpu, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    check("x", x.len(), weight.len(), y.len());
    let item = item_len(weight.len());
    cpu.parallel_chunks(y, item, |i, y| {
        y.copy_from_slice(&x[i * item..i * item + y.len()]);
        lanes::run(cpu, NormRows { rows: y, weight, eps });
    });
}

/// `residual += delta; y = norm(residual) · weight`, in one pass over the rows; the same bits as the two
/// steps apart.
///
/// # Panics
/// If `residual` is not whole rows, or `delta` or `y` differ from it in length.
pub fn add_cpu(cpu: &Cpu, residual: &mut [f32], delta: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    check("residual", residual.len(), weight.len(), y.len());
    check("delta", delta.len(), weight.len(), y.len());
    let item = item_len(weight.len());
    let sums = Disjoint::new(residual);
    cpu.parallel_chunks(y, item, |i, y| {
        let range = i * item..i * item + y.len();
        // SAFETY: items are disjoint ranges of the residual, as they are of y.
        let sums = unsafe { sums.slice(range.clone()) };
        sums.iter_mut().zip(&delta[range]).for_each(|(sum, delta)| *sum += delta);
        y.copy_from_slice(sums);
        lanes::run(cpu, NormRows { rows: y, weight, eps });
    });
}

/// Norms rows of `x` into `y`, rounded to bf16, on the device.
///
/// # Errors
/// [`KernelError::Launch`] if the driver refuses the launch.
///
/// # Panics
/// If `x` is not whole rows, `y` differs from it in length, or one begins off a multiple of 16 bytes.
pub fn cuda(
    cuda: &Cuda,
    x: View<'_, f32>,
    weight: View<'_, f32>,
    eps: f32,
    mut y: ViewMut<'_, bf16>,
) -> Result<(), KernelError> {
    let dim = weight.len();
    check("x", x.len(), dim, y.len());
    let addresses = [x.address(), weight.address(), y.address()];
    assert!(addresses.iter().all(|a| a.is_multiple_of(16)), "rms_norm: rows are read in vectors");
    // Eight values a thread: wide rows want the latency of their loads spread over more warps.
    let (kernel, threads) = if dim <= 1024 { ("rms_norm_128", 128) } else { ("rms_norm_512", 512) };
    let grid = Grid { blocks: [(x.len() / dim) as u32, 1, 1], threads, shared_bytes: threads / 32 * 4 };
    let args = Args::new().view(x).view(weight).view_mut(&mut y).i32(dim as i32).f32(eps);
    // SAFETY: a block reads the weights and its row of x, and writes its row of y.
    unsafe { cuda.launch(kernel, grid, &args) }
}

/// Cost of [`cpu`] over `rows` rows.
pub fn cost(rows: usize, dim: usize) -> Cost {
    let elements = (rows * dim) as u64;
    Cost { bytes: 8 * elements + 4 * dim as u64, flops: 4 * elements }
}

/// Cost of [`add_cpu`]: the residual is written too, and `delta` read and added.
pub fn add_cost(rows: usize, dim: usize) -> Cost {
    let elements = (rows * dim) as u64;
    cost(rows, dim) + Cost { bytes: 8 * elements, flops: elements }
}

fn item_len(dim: usize) -> usize {
    (ITEM_ELEMENTS / dim).max(1) * dim
}

#[track_caller]
fn check(name: &str, len: usize, dim: usize, y_len: usize) {
    assert!(dim > 0 && len.is_multiple_of(dim), "rms_norm: {name} has {len} values, not whole rows of {dim}");
    assert_eq!(len, y_len, "rms_norm: {name} and y must have the same length");
}

/// Norms rows in place.
struct NormRows<'a> {
    rows: &'a mut [f32],
    weight: &'a [f32],
    eps: f32,
}

impl Job for NormRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for row in self.rows.chunks_exact_mut(self.weight.len()) {
            rms::divide(row, self.weight, self.eps);
        }
    }
}
