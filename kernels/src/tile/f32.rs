//! The f32 micro-kernel: words are f32 values, each step is one fused multiply-add per element.

use super::kernel::{self, Word};
use super::lanes::Lanes;
use super::{NR, Tile};
use crate::device::Cpu;

impl Word for f32 {
    fn words(k: usize) -> usize {
        k
    }
    fn pack_a<'a>(_: &Cpu, rows: usize, k: usize, row: impl Fn(usize) -> &'a [Self], out: &mut [Self]) {
        pack_a(rows, k, row, out);
    }
    #[inline(always)]
    fn multiply<L: Lanes>(lanes: L, a: Self, b: &[Self; NR], acc: L::V) -> L::V {
        lanes.fma(lanes.splat(a), lanes.load(b), acc)
    }
}

/// Multiplies a packed tile of A by packed panels of B into `c`; shapes and layouts in [`super`].
///
/// # Panics
/// If a slice is shorter than the tile says, or the tile has no row or more than [`super::MR`].
pub fn kernel(cpu: &Cpu, tile: Tile, a: &[f32], b: &[[f32; NR]], c: &mut [f32]) {
    assert!(c.len() >= tile.c_extent(), "C: {} elements for a tile of {tile:?}", c.len());
    // SAFETY: C is borrowed exclusively and holds every row and column of the tile.
    unsafe { kernel_at(cpu, tile, a, b, c.as_mut_ptr()) }
}

/// [`kernel`] into memory that other threads may be writing beside the tile.
///
/// # Safety
/// `c` must be valid for reads and writes over the tile's rows and columns, and those elements not in use
/// elsewhere.
///
/// # Panics
/// As [`kernel`], for A and B.
pub unsafe fn kernel_at(cpu: &Cpu, tile: Tile, a: &[f32], b: &[[f32; NR]], c: *mut f32) {
    // SAFETY: the caller's promise is passed on.
    unsafe { kernel::kernel_at(cpu, tile, a, b, c) }
}

/// Packs rows `row(0) .. row(rows - 1)`, `k` values each, into a tile of A: `out[c · rows + i] = row(i)[c]`.
///
/// # Panics
/// If `out` is not `rows · k` long or a row is shorter than `k`.
pub fn pack_a<'a>(rows: usize, k: usize, row: impl Fn(usize) -> &'a [f32], out: &mut [f32]) {
    assert_eq!(out.len(), rows * k, "a tile of {rows} rows and {k} values");
    for i in 0..rows {
        for (word, x) in out[i..].iter_mut().step_by(rows).zip(&row(i)[..k]) {
            *word = *x;
        }
    }
}

/// Packs columns, each contiguous in memory as a row of a weight or a key is, into a panel:
/// `out[c][j] = column(j)[c]` for `j < columns`, zero beyond. The panel is `out.len()` values deep.
///
/// # Panics
/// If there are more than [`NR`] columns or a column is shorter than the panel is deep.
pub fn pack_b_columns<'a>(columns: usize, column: impl Fn(usize) -> &'a [f32], out: &mut [[f32; NR]]) {
    assert!(columns <= NR, "{columns} columns in a panel of {NR}");
    let depth = out.len();
    for j in 0..NR {
        if j < columns {
            for (row, x) in out.iter_mut().zip(&column(j)[..depth]) {
                row[j] = *x;
            }
        } else {
            out.iter_mut().for_each(|row| row[j] = 0.0);
        }
    }
}

/// Packs rows of `n` values, each contiguous in memory as a value vector is, into `n.div_ceil(NR)` panels of
/// `depth` rows: `out[p · depth + c][j] = row(c)[NR · p + j]`, zero beyond `n`.
///
/// # Panics
/// If `out` is not that many panels or a row is shorter than `n`.
pub fn pack_b_rows<'a>(depth: usize, n: usize, row: impl Fn(usize) -> &'a [f32], out: &mut [[f32; NR]]) {
    assert_eq!(out.len(), n.div_ceil(NR) * depth, "panels of {depth} rows for {n} columns");
    for c in 0..depth {
        for (p, part) in row(c)[..n].chunks(NR).enumerate() {
            let panel_row = &mut out[p * depth + c];
            panel_row[..part.len()].copy_from_slice(part);
            panel_row[part.len()..].fill(0.0);
        }
    }
}
