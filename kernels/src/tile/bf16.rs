//! The bf16 micro-kernel: a word is a pair of bf16 values along the inner dimension, sums are f32. With
//! `VDPBF16PS` a step multiplies two pairs at once; elsewhere the values are widened to f32 and multiplied, which
//! is exact, and added one after the other.

use half::bf16;

use super::kernel::{self, Word};
use super::lanes::{self, Job, Lanes};
use super::{NR, Tile};
use crate::device::Cpu;

impl Word for u32 {
    fn words(k: usize) -> usize {
        pairs(k)
    }
    fn pack_a<'a>(cpu: &Cpu, rows: usize, k: usize, row: impl Fn(usize) -> &'a [f32], out: &mut [Self]) {
        pack_a(cpu, rows, k, row, out);
    }
    #[inline(always)]
    fn multiply<L: Lanes>(lanes: L, a: Self, b: &[Self; NR], acc: L::V) -> L::V {
        lanes.dot_bf16(lanes.splat_i(a), lanes.load_i(b), acc)
    }
}

/// Pairs that hold `k` values; an odd last value is paired with zero.
pub const fn pairs(k: usize) -> usize {
    k.div_ceil(2)
}

/// Multiplies a packed tile of A by packed panels of B into `c`; shapes and layouts in [`super`], `tile.k` counts
/// pairs.
///
/// # Panics
/// If a slice is shorter than the tile says, or the tile has no row or more than [`super::MR`].
pub fn kernel(cpu: &Cpu, tile: Tile, a: &[u32], b: &[[u32; NR]], c: &mut [f32]) {
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
pub unsafe fn kernel_at(cpu: &Cpu, tile: Tile, a: &[u32], b: &[[u32; NR]], c: *mut f32) {
    // SAFETY: the caller's promise is passed on.
    unsafe { kernel::kernel_at(cpu, tile, a, b, c) }
}

/// The bits of `x` rounded to bf16, to nearest even; NaN stays NaN. Equal to [`bf16::from_f32`], but written so
/// that loops over it vectorise.
#[inline(always)]
pub fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if x.is_nan() { (bits >> 16) | 0x40 } else { rounded }
}

/// Rounds rows `row(0) .. row(rows - 1)`, `k` values each, to bf16 and packs them into a tile of A:
/// `out[c · rows + i]` holds values `2c` and `2c + 1` of row `i`, zero beyond `k`.
///
/// # Panics
/// If `out` is not `rows · pairs(k)` long or a row is shorter than `k`.
pub fn pack_a<'a>(cpu: &Cpu, rows: usize, k: usize, row: impl Fn(usize) -> &'a [f32], out: &mut [u32]) {
    assert_eq!(out.len(), rows * pairs(k), "a tile of {rows} rows and {k} values");
    for i in 0..rows {
        lanes::run(cpu, PackRow { row: &row(i)[..k], out: &mut out[i..], stride: rows });
    }
}

/// Rounds one row and writes its pairs `stride` apart.
struct PackRow<'a> {
    row: &'a [f32],
    out: &'a mut [u32],
    stride: usize,
}

impl Job for PackRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        // Rounding in blocks keeps the arithmetic in vectors; only the strided store goes one by one.
        for (block, values) in self.row.chunks(2 * NR).enumerate() {
            let mut full = [0.0; 2 * NR];
            full[..values.len()].copy_from_slice(values);
            let mut words = [0; NR];
            for (word, pair) in words.iter_mut().zip(full.chunks_exact(2)) {
                *word = round(pair[0]) | (round(pair[1]) << 16);
            }
            let out = self.out[block * NR * self.stride..].iter_mut().step_by(self.stride);
            out.zip(&words[..pairs(values.len())]).for_each(|(to, word)| *to = *word);
        }
    }
}

/// Packs columns of `k` values, each contiguous in memory as a row of a weight or a key is, into a panel of
/// `pairs(k)` rows: `out[c][j]` holds values `2c` and `2c + 1` of `column(j)` for `j < columns`, zero beyond.
///
/// # Panics
/// If there are more than [`NR`] columns, `out` is not `pairs(k)` long, or a column is shorter than `k`.
pub fn pack_b_columns<'a>(
    columns: usize,
    k: usize,
    column: impl Fn(usize) -> &'a [bf16],
    out: &mut [[u32; NR]],
) {
    assert!(columns <= NR, "{columns} columns in a panel of {NR}");
    assert_eq!(out.len(), pairs(k), "a panel of {k} values");
    for j in 0..NR {
        if j < columns {
            for (row, pair) in out.iter_mut().zip(column(j)[..k].chunks(2)) {
                row[j] = join(pair[0], pair.get(1).copied());
            }
        } else {
            out.iter_mut().for_each(|row| row[j] = 0);
        }
    }
}

/// Packs `depth` rows of `n` values, each contiguous in memory as a value vector is, into `n.div_ceil(NR)` panels
/// of `pairs(depth)` rows: `out[p · pairs(depth) + c][j]` holds `row(2c)[NR · p + j]` and `row(2c + 1)[NR · p + j]`,
/// zero beyond `n` and `depth`.
///
/// # Panics
/// If `out` is not that many panels or a row is shorter than `n`.
pub fn pack_b_rows<'a>(depth: usize, n: usize, row: impl Fn(usize) -> &'a [bf16], out: &mut [[u32; NR]]) {
    let panel_rows = pairs(depth);
    assert_eq!(out.len(), n.div_ceil(NR) * panel_rows, "panels of {panel_rows} pairs for {n} columns");
    for c in 0..panel_rows {
        let first = &row(2 * c)[..n];
        let second = if 2 * c + 1 < depth { Some(&row(2 * c + 1)[..n]) } else { None };
        for p in 0..n.div_ceil(NR) {
            let panel_row = &mut out[p * panel_rows + c];
            for (j, word) in panel_row.iter_mut().enumerate() {
                let at = p * NR + j;
                *word = if at < n { join(first[at], second.map(|s| s[at])) } else { 0 };
            }
        }
    }
}

/// A word of two values.
#[inline(always)]
fn join(low: bf16, high: Option<bf16>) -> u32 {
    u32::from(low.to_bits()) | u32::from(high.unwrap_or(bf16::ZERO).to_bits()) << 16
}
