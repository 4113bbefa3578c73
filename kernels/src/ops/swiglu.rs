//! SwiGLU: `gate[i] = silu(gate[i]) · up[i]`, `silu(x) = x / (1 + e^-x)`, in place.
//!
//! Shapes: gate and up of any equal length, f32. Bound by memory once `e^x` is vectorised ([`crate::exp`]).
//! Source: Shazeer 2020, "GLU variants improve transformer", SwiGLU without biases. It must not know of the
//! matmuls around it.

use half::bf16;

use crate::cost::Cost;
use crate::device::Cpu;
use crate::device::cuda::{Args, Cuda, Grid, View, ViewMut};
use crate::error::KernelError;
use crate::exp::exp;
use crate::tile::lanes::{self, Job, Lanes};

/// Largest relative squared error of [`cpu`] against [`spec`]: `e^x` errs by 2.5e-7, the three operations
/// around it by a rounding each.
pub const MAX_NMSE: f64 = 2e-14;

/// Largest relative squared error of [`cuda`] against [`spec`]: the result is rounded to bf16, by at most 2^-8 of each
/// value, which squared is 1.5e-5. 3e-6 is seen over long rows.
pub const MAX_NMSE_CUDA: f64 = 1.6e-5;

/// Elements one item of parallel work handles: 64 KiB of f32, enough to outweigh handing it out.
const ITEM_ELEMENTS: usize = 16 * 1024;

/// The formula in plain loops, in f64.
///
/// # Panics
/// If the lengths differ.
pub fn spec(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "swiglu: gate and up must have the same length");
    for (gate, up) in gate.iter_mut().zip(up) {
        let g = f64::from(*gate);
        *gate = (g / (1.0 + (-g).exp()) * f64::from(*up)) as f32;
    }
}

/// `gate = silu(gate) · up`.
///
/// # Panics
/// If the lengths differ.
pub fn cpu(cpu: &Cpu, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "swiglu: gate and up must have the same length");
    cpu.parallel_chunks(gate, ITEM_ELEMENTS, |i, gate| {
        let start = i * ITEM_ELEMENTS;
        let up = &up[start..start + gate.len()];
        lanes::run(cpu, Activate { gate, up });
    });
}

/// `y = silu(gate) · up`, rounded to bf16, on the device. `gate_up` is (n, 2 · ffn), a row's gates before its ups; `y` is
/// (n, ffn).
///
/// # Errors
/// [`KernelError::Launch`] if the driver refuses the launch.
///
/// # Panics
/// If a length is not `n` rows of these, or one begins off a multiple of 16 bytes.
pub fn cuda(
    cuda: &Cuda,
    gate_up: View<'_, f32>,
    n: usize,
    mut y: ViewMut<'_, bf16>,
) -> Result<(), KernelError> {
    let ffn = y.len() / n.max(1);
    assert!(
        y.len() == n * ffn && gate_up.len() == 2 * y.len(),
        "swiglu: {} gates and ups and {} results are not {n} rows",
        gate_up.len(),
        y.len()
    );
    let addresses = [gate_up.address(), y.address()];
    assert!(addresses.iter().all(|a| a.is_multiple_of(16)), "swiglu: rows are read in vectors");
    let grid = Grid { blocks: [n as u32, ffn.div_ceil(1024) as u32, 1], threads: 128, shared_bytes: 0 };
    let args = Args::new().view(gate_up).view_mut(&mut y).i32(ffn as i32);
    // SAFETY: blocks of row t read row t of gate_up and write row t of y.
    unsafe { cuda.launch("swiglu", grid, &args) }
}

/// Cost of [`cpu`] over `n` elements; `e^x` counts as 20 flops.
pub fn cost(n: usize) -> Cost {
    Cost { bytes: 12 * n as u64, flops: 23 * n as u64 }
}

struct Activate<'a> {
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl Job for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for (gate, up) in self.gate.iter_mut().zip(self.up) {
            *gate = *gate / (1.0 + exp(-*gate)) * up;
        }
    }
}
