//! The one body behind every micro-kernel, generic over the instruction set and the kind of word. It knows no
//! layout but the one in the parent's table.

use super::lanes::{self, Job, Lanes};
use super::{MR, NR, Start, Tile};
use crate::buffer::Plain;
use crate::device::Cpu;

/// A word of the inner dimension: how activations become words and how two words are multiplied into the sums.
pub(crate) trait Word: Plain + Send + Sync {
    /// Words that hold `k` values.
    fn words(k: usize) -> usize;
    /// Packs rows of `k` values into a tile of A.
    fn pack_a<'a>(cpu: &Cpu, rows: usize, k: usize, row: impl Fn(usize) -> &'a [f32], out: &mut [Self]);
    /// `acc[j] + a · b[j]` for one word of A and a row of a panel.
    fn multiply<L: Lanes>(lanes: L, a: Self, b: &[Self; NR], acc: L::V) -> L::V;
}

/// Multiplies a packed tile of A by packed panels of B into `c`; shapes and layouts in [`super`].
///
/// # Safety
/// `c` must be valid for reads and writes over the tile's rows and columns, and those elements not in use
/// elsewhere.
///
/// # Panics
/// If A or B is shorter than the tile says, or the tile has no row or more than [`MR`].
pub(crate) unsafe fn kernel_at<W: Word>(cpu: &Cpu, tile: Tile, a: &[W], b: &[[W; NR]], c: *mut f32) {
    // SAFETY: the caller's promise is passed on.
    lanes::run(cpu, unsafe { Call::new(tile, a, b, c) });
}

/// One call of a micro-kernel, checked and ready to run.
struct Call<'a, W> {
    tile: Tile,
    a: &'a [W],
    b: &'a [[W; NR]],
    c: *mut f32,
}

impl<'a, W: Word> Call<'a, W> {
    /// Checks that A and B are as long as the tile says.
    ///
    /// # Safety
    /// `c` must be valid for reads and writes over the tile's rows and columns (see [`Tile::c_extent`]) and not in
    /// use elsewhere.
    ///
    /// # Panics
    /// If the tile has no row, more than [`MR`], or A or B are too short.
    unsafe fn new(tile: Tile, a: &'a [W], b: &'a [[W; NR]], c: *mut f32) -> Self {
        assert!((1..=MR).contains(&tile.rows), "a tile has 1..={MR} rows, not {}", tile.rows);
        assert!(a.len() >= tile.k * tile.rows, "A: {} words for a tile of {tile:?}", a.len());
        let b_rows = if tile.panels == 0 { 0 } else { (tile.panels - 1) * tile.panel_stride + tile.k };
        assert!(b.len() >= b_rows, "B: {} rows for a tile of {tile:?}", b.len());
        Self { tile, a, b, c }
    }

    /// Rows `first..first + R` of the tile over panels `panel..panel + P`.
    #[inline(always)]
    fn block<L: Lanes, const R: usize, const P: usize>(&self, lanes: L, first: usize, panel: usize) {
        let Tile { rows, k, panel_stride, ldc, start, .. } = self.tile;
        // SAFETY: `first + R <= rows` and `panel + P <= panels` by the callers below, so each address lies inside
        // A and B as checked in `new`, and inside C as its caller promised.
        unsafe {
            let c = |i: usize, p: usize| self.c.add((first + i) * ldc + (panel + p) * NR).cast::<[f32; NR]>();
            let mut acc = [[lanes.zero(); P]; R];
            if start == Start::Resume {
                for (i, row) in acc.iter_mut().enumerate() {
                    for (p, sum) in row.iter_mut().enumerate() {
                        *sum = lanes.load(&*c(i, p));
                    }
                }
            }
            let mut a = self.a.as_ptr().add(first);
            let mut b = self.b.as_ptr().add(panel * panel_stride);
            for _ in 0..k {
                for (i, row) in acc.iter_mut().enumerate() {
                    for (p, sum) in row.iter_mut().enumerate() {
                        *sum = W::multiply(lanes, *a.add(i), &*b.add(p * panel_stride), *sum);
                    }
                }
                a = a.wrapping_add(rows);
                b = b.wrapping_add(1);
            }
            for (i, row) in acc.iter().enumerate() {
                for (p, sum) in row.iter().enumerate() {
                    lanes.store(*sum, &mut *c(i, p));
                }
            }
        }
    }

    /// `R` rows over all panels: `P` panels at a time, so that few rows still keep the multipliers busy.
    #[inline(always)]
    fn rows<L: Lanes, const R: usize, const P: usize>(&self, lanes: L, first: usize) {
        if R > L::MAX_ROWS {
            return;
        }
        let mut panel = 0;
        while P > 1 && P * R <= L::MAX_ROWS && panel + P <= self.tile.panels {
            self.block::<L, R, P>(lanes, first, panel);
            panel += P;
        }
        while panel < self.tile.panels {
            self.block::<L, R, 1>(lanes, first, panel);
            panel += 1;
        }
    }
}

impl<W: Word> Job for Call<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        for first in (0..self.tile.rows).step_by(L::MAX_ROWS) {
            match (self.tile.rows - first).min(L::MAX_ROWS) {
                1 => self.rows::<L, 1, 4>(lanes, first),
                2 => self.rows::<L, 2, 4>(lanes, first),
                3 => self.rows::<L, 3, 4>(lanes, first),
                4 => self.rows::<L, 4, 2>(lanes, first),
                5 => self.rows::<L, 5, 2>(lanes, first),
                6 => self.rows::<L, 6, 2>(lanes, first),
                7 => self.rows::<L, 7, 1>(lanes, first),
                8 => self.rows::<L, 8, 1>(lanes, first),
                9 => self.rows::<L, 9, 1>(lanes, first),
                10 => self.rows::<L, 10, 1>(lanes, first),
                11 => self.rows::<L, 11, 1>(lanes, first),
                _ => self.rows::<L, MR, 1>(lanes, first),
            }
        }
    }
}
