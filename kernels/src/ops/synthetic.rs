//! Weights made from a seed: `w[r, c] = mean + (s − 510) · deviation / 147.8`, `s` the sum of four bytes of the
//! SplitMix64 word of row and column pair. Close enough to a normal distribution (Irwin-Hall), several times cheaper,
//! and free of library functions whose last bit differs between machines: the CPU and the device give the same bits.
//!
//! Shapes: w (rows, cols) bf16 row-major, as little-endian bytes. It must not know which tensor it fills.
//! Source: Steele, Lea and Flood 2014 for the words.

use half::bf16;

use crate::cost::Cost;
use crate::device::Cpu;
use crate::device::cuda::{Args, Cuda, Grid, ViewMut};
use crate::error::KernelError;

/// [`cpu`] and [`cuda`] equal [`spec`] bit for bit: the few f32 operations are rounded apart everywhere.
pub const MAX_NMSE: f64 = 0.0;

/// The odd constant of SplitMix64: the golden ratio in 64 bits.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
/// Mean of a sum of four bytes.
const CENTRE: f32 = 510.0;
/// Its standard deviation, `sqrt(4 * (256^2 - 1) / 12)`.
const SPREAD: f32 = 147.800_54;

/// What fills a matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fill {
    /// Which of 2^64 matrices.
    pub seed: u64,
    /// Mean of the elements.
    pub mean: f32,
    /// Their standard deviation.
    pub deviation: f32,
}

impl Fill {
    fn scale(self) -> f32 {
        self.deviation / SPREAD
    }
}

/// The element at `row` and `col`.
pub fn spec(fill: Fill, row: usize, col: usize) -> bf16 {
    let row_seed = mix(fill.seed ^ (row as u64).wrapping_mul(GOLDEN));
    let word = mix(row_seed.wrapping_add((col as u64 / 2).wrapping_mul(GOLDEN)));
    // Of the word's four-byte halves, the even column has the low one.
    let bytes = (word >> (32 * (col % 2))) as u32;
    let sum: u32 = bytes.to_le_bytes().into_iter().map(u32::from).sum();
    bf16::from_f32(fill.mean + (sum as f32 - CENTRE) * fill.scale())
}

/// The fast version: fills rows of `cols` elements, 2 bytes each, a row being an item of work.
///
/// # Panics
/// If `out` is not whole rows.
pub fn cpu(cpu: &Cpu, fill: Fill, cols: usize, out: &mut [u8]) {
    assert!(
        cols > 0 && out.len().is_multiple_of(2 * cols),
        "synthetic: {} bytes of rows of {cols}",
        out.len()
    );
    cpu.parallel_chunks(out, 2 * cols, |row, out| {
        fill_row(mix(fill.seed ^ (row as u64).wrapping_mul(GOLDEN)), fill.mean, fill.scale(), out);
    });
}

/// The same on the device, on bytes because that is what a matrix holds
/// ([`DeviceMatrix`](crate::device::cuda::DeviceMatrix)).
///
/// # Errors
/// [`KernelError::Launch`] if the driver refuses the launch.
///
/// # Panics
/// If `out` is not whole rows, or begins off a multiple of 16 bytes.
pub fn cuda(cuda: &Cuda, fill: Fill, cols: usize, mut out: ViewMut<'_, u8>) -> Result<(), KernelError> {
    assert!(
        cols > 0 && out.len().is_multiple_of(2 * cols),
        "synthetic: {} bytes of rows of {cols}",
        out.len()
    );
    assert!(out.address().is_multiple_of(16), "synthetic: rows are written in vectors");
    let blocks = [(out.len() / (2 * cols)) as u32, cols.div_ceil(1024) as u32, 1];
    let args =
        Args::new().view_mut(&mut out).u64(fill.seed).f32(fill.mean).f32(fill.scale()).i32(cols as i32);
    // SAFETY: blocks of a row write that row.
    unsafe { cuda.launch("synthetic", Grid { blocks, threads: 128, shared_bytes: 0 }, &args) }
}

/// Writes every element once.
pub const fn cost(rows: usize, cols: usize) -> Cost {
    Cost { bytes: 2 * (rows * cols) as u64, flops: 2 * (rows * cols) as u64 }
}

/// Fills a row two elements at a time, one from each half of a word.
fn fill_row(seed: u64, mean: f32, scale: f32, out: &mut [u8]) {
    for (index, pair) in out.chunks_mut(4).enumerate() {
        let word = mix(seed.wrapping_add((index as u64).wrapping_mul(GOLDEN)));
        // Adds neighbouring bytes, then neighbouring sums: one sum of four bytes in each half of the word.
        let pairs = (word & 0x00FF_00FF_00FF_00FF) + ((word >> 8) & 0x00FF_00FF_00FF_00FF);
        let sums = (pairs & 0x0000_FFFF_0000_FFFF) + ((pairs >> 16) & 0x0000_FFFF_0000_FFFF);
        for (element, sum) in pair.chunks_exact_mut(2).zip([sums as u32, (sums >> 32) as u32]) {
            let value = mean + (sum as f32 - CENTRE) * scale;
            element.copy_from_slice(&bf16::from_f32(value).to_le_bytes());
        }
    }
}

/// The finaliser of SplitMix64.
const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn rows_are_those_of_the_spec_on_any_number_of_threads() {
        let fill = Fill { seed: 0x1234_5678_9ABC_DEF0, mean: 1.4, deviation: 0.2 };
        for cols in [1, 2, 7, 64] {
            let want: Vec<u8> =
                (0..5 * cols).flat_map(|i| spec(fill, i / cols, i % cols).to_le_bytes()).collect();
            for threads in 1..=3 {
                let mut got = vec![0; want.len()];
                cpu(&Cpu::new(NonZeroUsize::new(threads)), fill, cols, &mut got);
                assert_eq!(got, want);
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_are_the_sums_of_no_and_of_full_bytes() {
        let fill = Fill { seed: 3, mean: 0.0, deviation: SPREAD };
        let values: Vec<f32> = (0..1000).map(|col| spec(fill, 2, col).to_f32()).collect();
        assert!(values.iter().all(|v| v.abs() <= CENTRE + 2.0), "bf16 keeps eight bits");
        let mean = values.iter().sum::<f32>() / 1000.0;
        assert!(mean.abs() < 5.0 * SPREAD / 1000f32.sqrt(), "{mean}");
    }
}
