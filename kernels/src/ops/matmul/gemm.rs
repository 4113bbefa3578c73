//! Several tokens times a weight matrix on the device's tensor cores: prefill, for every weight format and card from
//! sm_80 on. See gemm.cu for how the work is cut.

use half::bf16;

use crate::device::cuda::{Args, Cuda, Grid, View, ViewMut};
use crate::dtype::DType;
use crate::error::KernelError;
use crate::ops::matmul::{Form, MatrixView, int};

/// The largest squared relative error of the device against a sum in f64 over the same bf16 activations and the
/// weights rounded to bf16 as the device rounds them: f32 sums. Seen: 1.4e-14 at up to 512 columns, emulated; the
/// tensor core keeps somewhat fewer bits of a sum than the emulator.
pub const MAX_NMSE_CUDA: f64 = 1e-11;

/// The same against the exact weights, where they are of another type than bf16: rounding them to 8 bits is off by
/// 2^-9 at most, 1.3e-6 squared if evenly spread. Seen: 3.0e-6 for Q4_K, where a minimum is subtracted.
pub const MAX_NMSE_CUDA_WIDENED: f64 = 5e-6;

/// Tiles of 128 x 128 from so many on: about one for each multiprocessor of a large card. Below, smaller ones keep
/// more of the card busy.
const ENOUGH_TILES: usize = 96;

/// How the output is cut. Does not show in the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tile {
    /// 128 tokens by 128 rows.
    Large,
    /// 64 tokens by 64 rows.
    Small,
}

impl Tile {
    /// What suits `n` tokens and so many rows. The card has no say: a shape is always cut alike.
    pub fn of(n: usize, rows: usize) -> Self {
        let large = n.div_ceil(128) * rows.div_ceil(128);
        if n > 64 && large >= ENOUGH_TILES { Self::Large } else { Self::Small }
    }

    const fn edge(self) -> usize {
        match self {
            Self::Large => 128,
            Self::Small => 64,
        }
    }

    const fn threads(self) -> u32 {
        match self {
            Self::Large => 256,
            Self::Small => 128,
        }
    }
}

/// The entry point. F32, which no model of a size to matter comes in, and rows of odd lengths have small tiles only.
fn kernel(dtype: DType, loose: bool, tile: Tile) -> &'static str {
    match (dtype, loose, tile) {
        (DType::F32, true, _) => "gemm_f32_loose_64",
        (DType::F16, true, _) => "gemm_f16_loose_64",
        (DType::BF16, true, _) => "gemm_bf16_loose_64",
        (DType::F32, false, _) => "gemm_f32_64",
        (DType::F16, false, Tile::Large) => "gemm_f16_128",
        (DType::F16, false, Tile::Small) => "gemm_f16_64",
        (DType::BF16, false, Tile::Large) => "gemm_bf16_128",
        (DType::BF16, false, Tile::Small) => "gemm_bf16_64",
        (DType::Q8_0, _, Tile::Large) => "gemm_q8_0_128",
        (DType::Q8_0, _, Tile::Small) => "gemm_q8_0_64",
        (DType::Q5_0, _, Tile::Large) => "gemm_q5_0_128",
        (DType::Q5_0, _, Tile::Small) => "gemm_q5_0_64",
        (DType::Q4K, _, Tile::Large) => "gemm_q4_k_128",
        (DType::Q4K, _, Tile::Small) => "gemm_q4_k_64",
        (DType::Q6K, _, Tile::Large) => "gemm_q6_k_128",
        (DType::Q6K, _, Tile::Small) => "gemm_q6_k_64",
    }
}

/// y = x·W^T, or y += x·W^T, in tiles of the size asked for; otherwise as [`super::cuda`], which picks the size.
///
/// # Errors
/// [`KernelError::Launch`] if the driver refuses the launch.
///
/// # Panics
/// If the shapes do not belong together.
pub fn cuda<'a>(
    cuda: &Cuda,
    x: View<'_, bf16>,
    w: impl Into<MatrixView<'a>>,
    mut y: ViewMut<'_, f32>,
    form: Form,
    tile: Tile,
) -> Result<(), KernelError> {
    let w = w.into();
    form.check(x, w, &y);
    let loose = w.is_loose();
    let small_only = loose || w.dtype == DType::F32;
    let tile = if small_only { Tile::Small } else { tile };
    assert!(loose || x.address().is_multiple_of(16), "x does not begin on a multiple of 16 bytes");
    let blocks = [int(form.n.div_ceil(tile.edge())) as u32, int(w.rows.div_ceil(tile.edge())) as u32, 1];
    assert!(blocks[1] <= 65_535, "a matrix of {} rows", w.rows);
    // Both operands, two bytes a value: four tiles under way of 32 columns, or two of 64.
    let grid = Grid { blocks, threads: tile.threads(), shared_bytes: 512 * tile.edge() as u32 };
    let args = Args::new().view(w.bytes).view(x).view_mut(&mut y).i32(int(form.n)).i32(int(w.rows));
    let args = args.i32(int(w.cols)).i32(int(form.ldy)).i32(form.epilogue.adds());
    // SAFETY: the kernel reads x and the matrix, up to 14 bytes beyond a block but never past the multiple of 16
    // bytes that memory ends on, and writes `rows` of each row of y; that they are there was checked.
    unsafe { cuda.launch(kernel(w.dtype, loose, tile), grid, &args) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_tiles_are_for_shapes_that_have_many_of_them() {
        let cases = [
            ((512, 4096), Tile::Large),
            ((512, 1024), Tile::Small),
            ((64, 151_936), Tile::Small),
            ((65, 151_936), Tile::Large),
        ];
        for ((n, rows), expected) in cases {
            assert_eq!(Tile::of(n, rows), expected, "{n} x {rows}");
        }
    }
}
