//! One token times a weight matrix on the device: decode. Weights are widened to f32 and the sums are f32; x is bf16.
//! See gemv.cu for how the work is cut. It must not know whether others use another path for more tokens.

use half::bf16;

use crate::device::cuda::{Args, Cuda, Grid, View, ViewMut};
use crate::dtype::DType;
use crate::error::KernelError;
use crate::ops::matmul::{Epilogue, MatrixView, int};

/// Warps of a block.
const WARPS: usize = 4;
/// Columns that a warp takes at a time, 32 a lane.
const GROUP: usize = 1024;
/// Warps wanted at least, where the matrix has work for them: about 16 for each multiprocessor of a large card, so
/// that enough loads are under way to cover the memory's latency. A constant, so that results depend on the shape
/// alone and not on the card.
const ENOUGH_WARPS: usize = 2048;

/// The largest squared relative error of the device against a sum in f64 over the same bf16 activations and exact
/// weights: chains of 32 and a tree, all in f32. Seen: 2.4e-14 at up to 4608 columns,
/// emulated.
pub const MAX_NMSE_CUDA: f64 = 1e-11;

/// An entry point, and how many rows a warp takes.
struct Kernel {
    name: &'static str,
    rows: usize,
}

impl Kernel {
    fn of(dtype: DType, loose: bool) -> Self {
        let (name, rows) = match (dtype, loose) {
            (DType::F32, false) => ("gemv_f32", 1),
            (DType::F16, false) => ("gemv_f16", 2),
            (DType::BF16, false) => ("gemv_bf16", 2),
            (DType::F32, true) => ("gemv_f32_loose", 1),
            (DType::F16, true) => ("gemv_f16_loose", 1),
            (DType::BF16, true) => ("gemv_bf16_loose", 1),
            (DType::Q8_0, _) => ("gemv_q8_0", 2),
            (DType::Q5_0, _) => ("gemv_q5_0", 2),
            (DType::Q4K, _) => ("gemv_q4_k", 2),
            (DType::Q6K, _) => ("gemv_q6_k", 2),
        };
        Self { name, rows }
    }
}

/// Warps that share their rows: 1, 2 or 4, more where there are few rows, at most one for each group of columns.
fn split(warps: usize, groups: usize) -> usize {
    let mut split = 1;
    while split < WARPS && 2 * split <= groups && warps * split < ENOUGH_WARPS {
        split *= 2;
    }
    split
}

/// y = W·x, or y += W·x; shapes were checked by [`super::cuda`].
pub(super) fn cuda(
    cuda: &Cuda,
    x: View<'_, bf16>,
    w: MatrixView<'_>,
    mut y: ViewMut<'_, f32>,
    epilogue: Epilogue,
) -> Result<(), KernelError> {
    let Kernel { name, rows } = Kernel::of(w.dtype, w.is_loose());
    let groups = w.cols.div_ceil(GROUP);
    let split = split(w.rows.div_ceil(rows), groups);
    let blocks = w.rows.div_ceil(rows * WARPS / split);
    let grid = Grid {
        blocks: [int(blocks) as u32, 1, 1],
        threads: 32 * WARPS as u32,
        // x, two bytes a column, and a sum for each warp and row.
        shared_bytes: int(groups * GROUP * 2 + WARPS * rows * 4) as u32,
    };
    let args = Args::new().view(w.bytes).view(x).view_mut(&mut y).i32(int(w.rows)).i32(int(w.cols));
    let args = args.i32(int(split)).i32(epilogue.adds());
    // SAFETY: the kernel reads `cols` of x and the matrix, up to 14 bytes beyond a block but never past the multiple
    // of 16 bytes that memory ends on, and writes `rows` of y; the door checked that they are there.
    unsafe { cuda.launch(name, grid, &args) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warps_share_rows_where_rows_are_few_and_columns_many() {
        let cases = [((1, 1), 1), ((64, 2), 2), ((64, 3), 2), ((64, 9), 4), ((1024, 4), 2), ((2048, 4), 1)];
        for ((warps, groups), expected) in cases {
            assert_eq!(split(warps, groups), expected, "{warps} warps, {groups} groups");
        }
    }
}
