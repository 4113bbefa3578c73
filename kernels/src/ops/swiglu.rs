//! SwiGLU: `gate[i] = silu(gate[i]) · up[i]`, `silu(x) = x / (1 + e^-x)`, in place.
//!
//! Shapes: gate and up of any equal length, f32. Bound by memory once `e^x` is vectorised ([`crate::exp`]).
//! Source: Shazeer 2020, "GLU variants improve transformer", SwiGLU without biases. It must not know of the
//! matmuls around it.

use crate::cost::Cost;
use crate::device::Cpu;
use crate::exp::exp;
use crate::tile::lanes::{self, Job, Lanes};

/// Largest relative squared error of [`cpu`] against [`spec`]: `e^x` errs by 2.5e-7, the three operations
/// around it by a rounding each.
pub const MAX_NMSE: f64 = 2e-14;

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
