//! The index of the largest logit: `argmax_i x[i]`, the lowest index of equal ones. NaN and minus infinity never win.
//!
//! Shapes: x (n) f32. Bound by memory. Order: which of two logits is larger does not depend on when they are compared, so
//! the result does not depend on threads or blocks. It must not know what the indices stand for; whether NaN among the
//! logits is an error is for the sampler to say.

use crate::cost::Cost;
use crate::device::cuda::{Args, Cuda, Grid, View, ViewMut};
use crate::device::{Cpu, Disjoint};
use crate::error::KernelError;

/// What is given where no logit is above minus infinity.
pub const NONE: u32 = u32::MAX;

/// [`cpu`] and [`cuda`] give the index of [`spec`]: there is nothing to round.
pub const MAX_NMSE: f64 = 0.0;

/// Logits of an item of parallel work, or of a block.
const CPU_PART: usize = 16 * 1024;
const CUDA_PART: usize = 1024;

/// The plain version.
pub fn spec(logits: &[f32]) -> u32 {
    let mut best = NONE;
    let mut largest = f32::NEG_INFINITY;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > largest {
            (best, largest) = (index as u32, *logit);
        }
    }
    best
}

/// The fast version: each part's largest logit, then the first part with the largest of these.
pub fn cpu(cpu: &Cpu, logits: &[f32]) -> u32 {
    let n_parts = logits.len().div_ceil(CPU_PART);
    let mut largest = vec![f32::NEG_INFINITY; n_parts];
    let split = Disjoint::new(&mut largest);
    cpu.parallel(n_parts, |part| {
        let logits = &logits[part * CPU_PART..logits.len().min((part + 1) * CPU_PART)];
        // SAFETY: an item writes its own element.
        let largest = unsafe { split.slice(part..part + 1) };
        largest[0] = logits.iter().fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
    });
    let part = spec(&largest);
    if part == NONE {
        return NONE;
    }
    let first = part as usize * CPU_PART;
    let at = logits[first..].iter().position(|logit| *logit == largest[part as usize]);
    at.map_or(NONE, |at| (first + at) as u32)
}

/// Numbers of scratch that [`cuda`] needs for `n` logits.
pub const fn cuda_scratch_len(n: usize) -> usize {
    2 * n.div_ceil(CUDA_PART)
}

/// The index on the device, as the one number of `index`; [`NONE`] where no logit is above minus infinity.
///
/// # Errors
/// [`KernelError::Launch`] if the driver refuses a launch.
///
/// # Panics
/// If `scratch` is shorter than [`cuda_scratch_len`], `index` is not one number, there are no logits, or logits or
/// scratch begin off a multiple of 16 bytes.
pub fn cuda(
    cuda: &Cuda,
    logits: View<'_, f32>,
    mut scratch: ViewMut<'_, u32>,
    mut index: ViewMut<'_, u32>,
) -> Result<(), KernelError> {
    let n_parts = logits.len().div_ceil(CUDA_PART);
    assert!(!logits.is_empty() && index.len() == 1, "argmax: an index of at least one logit");
    assert!(scratch.len() >= cuda_scratch_len(logits.len()), "argmax: scratch of {}", scratch.len());
    let aligned = logits.address().is_multiple_of(16) && scratch.address().is_multiple_of(16);
    assert!(aligned, "argmax: logits are read in vectors");
    // Eight bytes of shared memory for each warp.
    let parts = Grid { blocks: [n_parts as u32, 1, 1], threads: 128, shared_bytes: 4 * 8 };
    let args = Args::new().view(logits).view_mut(&mut scratch).i32(logits.len() as i32);
    // SAFETY: a block reads its logits and writes its two words of scratch.
    unsafe { cuda.launch("argmax_parts", parts, &args)? };
    let whole = Grid { blocks: [1, 1, 1], threads: 256, shared_bytes: 8 * 8 };
    let args = Args::new().view(scratch.view()).view_mut(&mut index).i32(n_parts as i32);
    // SAFETY: the block reads what the launch before wrote, and writes one number.
    unsafe { cuda.launch("argmax_whole", whole, &args) }
}

/// Reads the logits once.
pub const fn cost(n: usize) -> Cost {
    Cost { bytes: 4 * n as u64, flops: 0 }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[track_caller]
    fn check(logits: &[f32], want: u32) {
        assert_eq!(spec(logits), want);
        for threads in [1, 3] {
            assert_eq!(cpu(&Cpu::new(NonZeroUsize::new(threads)), logits), want);
        }
    }

    #[test]
    fn the_first_of_the_largest_wins() {
        check(&[], NONE);
        check(&[-3.0], 0);
        check(&[1.0, 2.0, 2.0], 1);
        check(&[-0.0, 0.0], 0);
        check(&[f32::NAN, -5.0, f32::NAN, -4.0], 3);
        check(&[f32::NAN, f32::NEG_INFINITY], NONE);
        check(&[f32::MAX, f32::INFINITY], 1);
    }

    #[test]
    fn parts_are_joined_in_order() {
        let mut logits = vec![0.5; 3 * CPU_PART + 7];
        check(&logits, 0);
        logits[0] = 0.0;
        check(&logits, 1);
        for last in [3 * CPU_PART + 6, 2 * CPU_PART, 2 * CPU_PART - 1] {
            logits[last] = 1.0;
            check(&logits, last as u32);
        }
    }
}
