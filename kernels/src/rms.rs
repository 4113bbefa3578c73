//! The root mean square of a row and its division, in place: what the norm of hidden states and the norm of single
//! heads share. It knows no rows beside the one it is given.
//!
//! Order: a row sums its squares in 32 lanes, then lane by lane: the bits depend on its length alone.

use crate::tile::NR;

/// `row[i] = row[i] · weight[i] / sqrt(mean(row²) + eps)`. The lengths are equal. Inlined, so that it is compiled for
/// the instruction set of its caller.
#[inline(always)]
pub(crate) fn divide(row: &mut [f32], weight: &[f32], eps: f32) {
    let mean = sum_of_squares(row) / row.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    for (x, w) in row.iter_mut().zip(weight) {
        *x = *x * scale * w;
    }
}

#[inline(always)]
fn sum_of_squares(row: &[f32]) -> f32 {
    let mut sums = [0.0; NR];
    let blocks = row.chunks_exact(NR);
    let rest = blocks.remainder();
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += x * x;
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += x * x;
    }
    sums.iter().sum()
}
