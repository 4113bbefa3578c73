//! Several tokens times bf16 weights on Hopper's tensor cores: what [`super::gemm`] computes, by bulk tensor copies and
//! `wgmma`. It cannot be emulated; see wgmma.cu for how the work is cut.

use half::bf16;

use crate::device::cuda::{Args, Cuda, Grid, TensorMap, View, ViewMut};
use crate::dtype::DType;
use crate::error::KernelError;
use crate::ops::matmul::{Form, MatrixView, int};

/// Tokens of a tile.
const TOKENS: usize = 128;
/// Columns of a tile.
const COLS: usize = 64;
/// Wide tiles from so many on: most of a large card's multiprocessors have one then.
const ENOUGH_TILES: usize = 96;

/// How many rows of the matrix a tile takes beside its 128 tokens. Does not show in the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 128, two blocks to a multiprocessor.
    Narrow,
    /// 256: a quarter fewer bytes for as many products.
    Wide,
}

impl Width {
    /// What suits `n` tokens and so many rows. The card has no say: a shape is always cut alike.
    pub fn of(n: usize, rows: usize) -> Self {
        let wide = n.div_ceil(TOKENS) * rows.div_ceil(256);
        if wide >= ENOUGH_TILES { Self::Wide } else { Self::Narrow }
    }

    const fn rows(self) -> usize {
        match self {
            Self::Narrow => 128,
            Self::Wide => 256,
        }
    }

    /// Tiles of both operands that are under way.
    const fn stages(self) -> usize {
        match self {
            Self::Narrow => 3,
            Self::Wide => 4,
        }
    }

    const fn kernel(self) -> &'static str {
        match self {
            Self::Narrow => "wgmma_128",
            Self::Wide => "wgmma_256",
        }
    }
}

/// y = x·W^T, or y += x·W^T, in tiles of the width asked for. Memory as for [`super::cuda`], its rows beginning on
/// multiples of 16 bytes.
///
/// # Errors
/// [`KernelError::Cuda`] or [`KernelError::Launch`] if the driver refuses the tensor maps or the launch.
///
/// # Panics
/// If the shapes do not belong together, if the card is not a Hopper or Hopper's kernels were not asked for, or if the
/// weights are not bf16.
pub fn cuda<'a>(
    cuda: &Cuda,
    x: View<'_, bf16>,
    w: impl Into<MatrixView<'a>>,
    mut y: ViewMut<'_, f32>,
    form: Form,
    width: Width,
) -> Result<(), KernelError> {
    let w = w.into();
    form.check(x, w, &y);
    assert!(cuda.hopper_kernels(), "Hopper's kernels on {}", cuda.info().name);
    assert_eq!(w.dtype, DType::BF16, "weights of Hopper's kernels");
    let x = TensorMap::boxes(x, form.n, w.cols, TOKENS as u32)?;
    let weights = TensorMap::boxes(w.bytes, w.rows, w.cols, width.rows() as u32)?;
    let blocks = [int(form.n.div_ceil(TOKENS)) as u32, int(w.rows.div_ceil(width.rows())) as u32, 1];
    assert!(blocks[1] <= 65_535, "a matrix of {} rows", w.rows);
    // Tiles in bf16, and two barriers of 8 bytes for each stage.
    let stage = (TOKENS + width.rows()) * COLS * 2;
    let grid = Grid { blocks, threads: 288, shared_bytes: int(width.stages() * (stage + 16)) as u32 };
    let args = Args::new().tensor_map(&x).tensor_map(&weights).view_mut(&mut y);
    let args = args.i32(int(form.n)).i32(int(w.rows)).i32(int(w.cols)).i32(int(form.ldy));
    let args = args.i32(form.epilogue.adds());
    // SAFETY: the copies stay inside the matrices that the maps describe, and the kernel writes `rows` of each row of y;
    // that they are there was checked.
    unsafe { cuda.launch(width.kernel(), grid, &args) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_tiles_are_for_shapes_that_have_many_of_them() {
        let cases = [((512, 4096), Width::Narrow), ((512, 6144), Width::Wide), ((2, 151_936), Width::Wide)];
        for ((n, rows), expected) in cases {
            assert_eq!(Width::of(n, rows), expected, "{n} x {rows}");
        }
    }

    #[test]
    fn tiles_fit_the_shared_memory_of_a_hopper() {
        for width in [Width::Narrow, Width::Wide] {
            let bytes = width.stages() * ((TOKENS + width.rows()) * COLS * 2 + 16);
            assert!(bytes <= 227 * 1024, "{width:?}: {bytes}");
        }
    }
}
