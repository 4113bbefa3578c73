//! The micro-kernels every fast path is built from: a small tile of `C += A · B` kept in registers, where B is a
//! *panel* of [`NR`] columns and A a tile of at most [`MR`] rows, both packed so that one step of the inner loop
//! reads contiguous memory. They know nothing of weights, heads or tokens.
//!
//! Layouts, in *words* (an `f32`, or a pair of bf16 values along the inner dimension held in a `u32`, the first
//! in the low half):
//!
//! | operand | layout | packed by |
//! |---|---|---|
//! | A, `rows <= MR` rows | `[k][rows]` words | `pack_a` |
//! | B, one panel of `NR` columns | `[k][NR]` words | `pack_b_columns` (from columns), `pack_b_rows` (from rows) |
//! | C | row-major f32, row stride `ldc` | |
//!
//! **Order.** Each element of C is one chain of additions over k, first to last, starting from 0 or from what C
//! holds. It does not depend on the number of rows in the tile or the number of panels, and splitting k over
//! several calls with [`Start::Resume`] gives the same bits as one call.
//!
//! [`lanes`] holds the few vector operations a kernel needs for each instruction set and the functions through
//! which every kernel is compiled for them.

pub mod bf16;
pub mod f32;
mod kernel;
pub mod lanes;

pub(crate) use kernel::{Word, kernel_at};

/// Rows of the largest tile: 12 x 32 accumulators fill 24 of the 32 AVX-512 registers.
pub const MR: usize = 12;

/// Columns of a panel.
pub const NR: usize = 32;

/// Where the sums of a tile start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At zero; what C held is overwritten.
    Zero,
    /// At what C holds.
    Resume,
}

/// The shape of one micro-kernel call: `C[i, 32 p + j] (+)= sum_k A[k, i] · B_p[k, j]`.
#[derive(Debug, Clone, Copy)]
pub struct Tile {
    /// Rows of A and C, 1..=[`MR`].
    pub rows: usize,
    /// Words of the inner dimension: f32 values, or bf16 pairs.
    pub k: usize,
    /// Panels of B side by side; C has `32 · panels` columns.
    pub panels: usize,
    /// Distance between the starts of neighbouring panels, in panel rows (`[word; NR]`).
    pub panel_stride: usize,
    /// Distance between rows of C, in f32.
    pub ldc: usize,
    /// Whether the sums start at zero or at what C holds.
    pub start: Start,
}

impl Tile {
    /// A tile over one panel.
    pub fn single(rows: usize, k: usize, ldc: usize, start: Start) -> Self {
        Self { rows, k, panels: 1, panel_stride: k, ldc, start }
    }

    /// Elements of C between its first and its last, plus one.
    pub fn c_extent(&self) -> usize {
        (self.rows - 1) * self.ldc + self.panels * NR
    }
}
