//! Rows of weights interleaved [`NR`] at a time: unit `u` of all rows lies in one row of `[unit; NR]`, so that
//! a block of [`NR`] rows is decoded with the same instructions for every row. It knows the formats only by
//! [`Format`].

use std::marker::PhantomData;

use crate::buffer::Plain;
use crate::tile::NR;
use crate::tile::lanes::{Job, Lanes};

/// How one block of [`NR`] interleaved rows is decoded, column by column.
pub(crate) trait Format: Sync {
    /// What is interleaved: a byte, or a 16-bit value.
    type Unit: Plain + Sync;
    /// Columns of a block.
    const COLS: usize;
    /// Units of a block.
    const UNITS: usize;

    /// Hands the columns of a block to `sink`, first to last. Implementations are `#[inline(always)]`.
    fn decode<L: Lanes, S: Sink<L>>(lanes: L, block: &[[Self::Unit; NR]], sink: &mut S);
}

/// Where decoded columns go.
pub(crate) trait Sink<L: Lanes> {
    /// Takes the next column: one value of each of the [`NR`] rows.
    fn column(&mut self, lanes: L, values: L::V);
}

/// Decodes whole blocks into panel rows, `out[c][j]` being column `c` of interleaved row `j`.
pub(crate) struct Decode<'a, F: Format> {
    /// The blocks.
    pub blocks: &'a [[F::Unit; NR]],
    /// One row for each column of the blocks.
    pub out: &'a mut [[f32; NR]],
}

impl<F: Format> Job for Decode<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        for (block, out) in self.blocks.chunks_exact(F::UNITS).zip(self.out.chunks_exact_mut(F::COLS)) {
            F::decode(lanes, block, &mut Store { out: out.iter_mut() });
        }
    }
}

/// Writes columns one after the other.
struct Store<'a> {
    out: std::slice::IterMut<'a, [f32; NR]>,
}

impl<L: Lanes> Sink<L> for Store<'_> {
    #[inline(always)]
    fn column(&mut self, lanes: L, values: L::V) {
        if let Some(row) = self.out.next() {
            lanes.store(values, row);
        }
    }
}

/// Rows of A whose sums fit the registers beside what decoding needs.
pub(crate) const MAX_DOT_ROWS: usize = 4;

/// Multiplies a tile of A, packed `[cols][rows]`, by the columns as they are decoded, without storing them: the
/// same chain of additions as decoding followed by the f32 micro-kernel, hence the same bits.
pub(crate) struct Dot<'a, F: Format> {
    /// The blocks of all columns.
    pub blocks: &'a [[F::Unit; NR]],
    /// The tile of A.
    pub a: &'a [f32],
    /// One row of sums for each row of A, 1..=[`MAX_DOT_ROWS`], overwritten.
    pub out: &'a mut [[f32; NR]],
}

impl<F: Format> Dot<'_, F> {
    #[inline(always)]
    fn with_rows<L: Lanes, const R: usize>(self, lanes: L) {
        let (acc, a) = ([lanes.zero(); R], self.a.as_chunks::<R>().0.iter());
        let mut sums = Sums::<L, F, R> { acc, a, ahead: std::ptr::null(), format: PhantomData };
        for block in self.blocks.chunks_exact(F::UNITS) {
            sums.ahead = block.as_ptr_range().end.cast();
            F::decode(lanes, block, &mut sums);
        }
        for (sum, out) in sums.acc.into_iter().zip(self.out) {
            lanes.store(sum, out);
        }
    }
}

impl<F: Format> Job for Dot<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        match self.out.len() {
            1 => self.with_rows::<L, 1>(lanes),
            2 => self.with_rows::<L, 2>(lanes),
            3 => self.with_rows::<L, 3>(lanes),
            _ => self.with_rows::<L, MAX_DOT_ROWS>(lanes),
        }
    }
}

/// Sums of `R` rows and the words of A still to come.
struct Sums<'a, L: Lanes, F, const R: usize> {
    acc: [L::V; R],
    a: std::slice::Iter<'a, [f32; R]>,
    /// What to ask memory for next, a block ahead. A block is read in several short runs, which the hardware does
    /// not foresee as it does one long one.
    ahead: *const u8,
    format: PhantomData<F>,
}

impl<L: Lanes, F: Format, const R: usize> Sink<L> for Sums<'_, L, F, R> {
    #[inline(always)]
    fn column(&mut self, lanes: L, values: L::V) {
        if F::COLS > 1 {
            prefetch(self.ahead);
            self.ahead = self.ahead.wrapping_add(F::UNITS * size_of::<[F::Unit; NR]>() / F::COLS);
        }
        if let Some(words) = self.a.next() {
            for (sum, word) in self.acc.iter_mut().zip(words) {
                *sum = lanes.fma(lanes.splat(*word), values, *sum);
            }
        }
    }
}

/// Asks memory for the cache line at an address, which need not be valid.
#[inline(always)]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and a prefetch neither reads nor faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Half-precision rows: a unit is a value.
pub(crate) struct F16;

impl Format for F16 {
    type Unit = u16;
    const COLS: usize = 1;
    const UNITS: usize = 1;

    #[inline(always)]
    fn decode<L: Lanes, S: Sink<L>>(lanes: L, block: &[[u16; NR]], sink: &mut S) {
        if let [row] = block {
            sink.column(lanes, lanes.load_f16(row));
        }
    }
}

/// The half-precision scales in two rows of bytes, low bytes first.
#[inline(always)]
pub(super) fn scales<L: Lanes>(lanes: L, low: &[u8; NR], high: &[u8; NR]) -> L::V {
    lanes.f16_from_bytes(lanes.load_b(low), lanes.load_b(high))
}
