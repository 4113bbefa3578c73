//! Matmul on the CPU: work items of panels by tiles of tokens over the micro-kernels, weights decoded panel by panel.
//!
//! Few tokens stream every panel of w once (memory bound); many are cut into blocks that stay in the second-level
//! cache, as in Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).
//!
//! Rate: 512 x 3072 x 1024, BF16: 383 GFLOP/s, 81 % of the `VDPBF16PS` peak of two EPYC (Zen 4) cores, the best call
//! of twelve runs of `cargo bench -p kernels --bench matmul` beside other work.

use std::marker::PhantomData;
use std::ops::Range;

use crate::buffer::scratch;
use crate::device::{Cpu, Disjoint};
use crate::dtype::DType;
use crate::matrix::Matrix;
use crate::ops::matmul::n_tokens;
use crate::quant::interleaved::{Decode, Dot, F16, Format, MAX_DOT_ROWS};
use crate::quant::{Q4K, Q5_0, Q6K, Q8_0};
use crate::tile::{MR, NR, Start, Tile, Word, kernel_at, lanes};

/// Words of the inner dimension multiplied before moving on: a panel's part is 64 KiB, and y is touched once for so
/// many. Blocks of 256, whose part would fit the first-level cache, are 5 % slower.
const K_BLOCK: usize = 512;
/// Tiles whose part of x, at most 264 tokens of [`K_BLOCK`] words, stays in a second-level cache of 1 MiB.
const TILES_PER_BLOCK: usize = 22;
/// Panels of one work item, at most.
const PANELS_PER_ITEM: usize = 8;
/// Work items per thread, at least, where there are panels enough: threads that are slowed down take fewer.
const ITEMS_PER_THREAD: usize = 4;

/// The fast version, on the threads and with the instruction set of `cpu`.
///
/// # Panics
/// If the lengths of `x` and `y` do not belong to one number of tokens.
pub fn cpu(cpu: &Cpu, x: &[f32], w: &Matrix, y: &mut [f32]) {
    let n_tokens = n_tokens(x, w, y);
    if n_tokens == 0 {
        return;
    }
    let y = Output { y: Disjoint::new(y), n_tokens, rows: w.rows() };
    let call = Multiply { cpu, x, w, tiling: Tiling::new(n_tokens), y };
    match w.dtype() {
        DType::F32 => call.run(&Stored::<f32> { w, word: PhantomData }),
        DType::BF16 => call.run(&Stored::<u32> { w, word: PhantomData }),
        DType::F16 => call.run(&Decoded::<F16> { w, format: PhantomData }),
        DType::Q8_0 => call.run(&Decoded::<Q8_0> { w, format: PhantomData }),
        DType::Q5_0 => call.run(&Decoded::<Q5_0> { w, format: PhantomData }),
        DType::Q4K => call.run(&Decoded::<Q4K> { w, format: PhantomData }),
        DType::Q6K => call.run(&Decoded::<Q6K> { w, format: PhantomData }),
    }
}

/// How tokens are cut into tiles of nearly equal height.
#[derive(Clone, Copy)]
struct Tiling {
    n_tokens: usize,
    tile_rows: usize,
    n_tiles: usize,
}

impl Tiling {
    fn new(n_tokens: usize) -> Self {
        let tile_rows = n_tokens.div_ceil(n_tokens.div_ceil(MR));
        Self { n_tokens, tile_rows, n_tiles: n_tokens.div_ceil(tile_rows) }
    }

    /// First token and number of tokens of a tile.
    fn tile(&self, tile: usize) -> (usize, usize) {
        let first = tile * self.tile_rows;
        (first, self.tile_rows.min(self.n_tokens - first))
    }
}

/// Weights as a source of panels in one kind of word.
trait Weights: Sync {
    /// What is multiplied.
    type Word: Word;
    /// Tokens up to which [`Weights::few`] is used.
    const FEW: usize;

    /// Words `k` of panel `panel`, decoded into `spare` (as long as `k`) where they are not stored as words.
    fn block<'a>(
        &'a self,
        cpu: &Cpu,
        panel: usize,
        k: Range<usize>,
        spare: &'a mut [[Self::Word; NR]],
    ) -> &'a [[Self::Word; NR]];

    /// Multiplies all of a few tokens, packed as the tile `a`, by whole panels.
    ///
    /// # Safety
    /// The columns of `panels` in `y` must not be in use elsewhere.
    unsafe fn few(&self, cpu: &Cpu, a: &[Self::Word], panels: Range<usize>, y: &Output<'_>);
}

/// Weights stored as words.
struct Stored<'a, W> {
    w: &'a Matrix,
    word: PhantomData<W>,
}

impl<W: Word> Weights for Stored<'_, W> {
    type Word = W;
    const FEW: usize = MR;

    fn block<'a>(&'a self, _: &Cpu, panel: usize, k: Range<usize>, _: &'a mut [[W; NR]]) -> &'a [[W; NR]] {
        &self.w.panel_rows(panel, 1)[k]
    }

    unsafe fn few(&self, cpu: &Cpu, a: &[W], panels: Range<usize>, y: &Output<'_>) {
        let k = self.w.panel_units();
        let (rows, n) = (y.n_tokens, panels.len());
        let tile = Tile { panels: n, ..Tile::single(rows, k, y.rows, Start::Zero) };
        // SAFETY: the caller's promise is passed on.
        unsafe { y.multiply(cpu, tile, (0, panels.start), a, self.w.panel_rows(panels.start, n)) };
    }
}

/// Weights decoded to f32 as they are used.
struct Decoded<'a, F> {
    w: &'a Matrix,
    format: PhantomData<F>,
}

impl<F: Format> Weights for Decoded<'_, F> {
    type Word = f32;
    const FEW: usize = MAX_DOT_ROWS;

    fn block<'a>(
        &'a self,
        cpu: &Cpu,
        panel: usize,
        k: Range<usize>,
        spare: &'a mut [[f32; NR]],
    ) -> &'a [[f32; NR]] {
        let units = k.start / F::COLS * F::UNITS..k.end / F::COLS * F::UNITS;
        let blocks = &self.w.panel_rows::<F::Unit>(panel, 1)[units];
        lanes::run(cpu, Decode::<F> { blocks, out: &mut *spare });
        spare
    }

    unsafe fn few(&self, cpu: &Cpu, a: &[f32], panels: Range<usize>, y: &Output<'_>) {
        for panel in panels {
            let mut sums = [[0.0; NR]; MAX_DOT_ROWS];
            let out = &mut sums[..y.n_tokens];
            lanes::run(cpu, Dot::<F> { blocks: self.w.panel_rows(panel, 1), a, out: &mut *out });
            for (token, sums) in out.iter().enumerate() {
                // SAFETY: the caller's promise is passed on.
                unsafe { y.row(token, panel) }.copy_from_slice(&sums[..y.width(panel)]);
            }
        }
    }
}

/// The output, of which threads write different panels' columns or different tokens' rows.
struct Output<'a> {
    y: Disjoint<'a, f32>,
    n_tokens: usize,
    rows: usize,
}

impl Output<'_> {
    /// Columns of a panel that exist: fewer than [`NR`] in the last.
    fn width(&self, panel: usize) -> usize {
        NR.min(self.rows - panel * NR)
    }

    /// The part of a token's row that a panel yields.
    ///
    /// # Safety
    /// It must not be in use elsewhere.
    #[expect(clippy::mut_from_ref, reason = "parts are disjoint by the caller's promise")]
    unsafe fn row(&self, token: usize, panel: usize) -> &mut [f32] {
        let start = token * self.rows + panel * NR;
        // SAFETY: the caller's promise is passed on.
        unsafe { self.y.slice(start..start + self.width(panel)) }
    }

    /// Runs the micro-kernel for the tile at (token, panel), writing only columns that exist.
    ///
    /// # Safety
    /// The tile's tokens in its panels' columns must not be in use elsewhere.
    unsafe fn multiply<W: Word>(&self, cpu: &Cpu, tile: Tile, at: (usize, usize), a: &[W], b: &[[W; NR]]) {
        let (token, panel) = at;
        let whole = tile.panels.min(self.rows / NR - panel);
        if whole > 0 {
            let c = self.y.at(token * self.rows + panel * NR);
            // SAFETY: the columns of whole panels exist, the tokens too; the caller's promise is passed on.
            unsafe { kernel_at(cpu, Tile { panels: whole, ..tile }, a, b, c) };
        }
        if whole < tile.panels {
            // SAFETY: the caller's promise is passed on.
            unsafe {
                self.multiply_last(cpu, tile, (token, panel + whole), a, &b[whole * tile.panel_stride..])
            };
        }
    }

    /// The last panel of a matrix whose rows are not whole panels, by way of a buffer as wide as the panel.
    ///
    /// # Safety
    /// As [`Output::multiply`].
    #[cold]
    unsafe fn multiply_last<W: Word>(
        &self,
        cpu: &Cpu,
        tile: Tile,
        at: (usize, usize),
        a: &[W],
        b: &[[W; NR]],
    ) {
        let (token, panel) = at;
        let mut c = [[0.0; NR]; MR];
        let rows = &mut c[..tile.rows];
        for (i, row) in rows.iter_mut().enumerate() {
            // SAFETY: the caller's promise is passed on.
            row[..self.width(panel)].copy_from_slice(unsafe { self.row(token + i, panel) });
        }
        let single = Tile { start: tile.start, ..Tile::single(tile.rows, tile.k, NR, tile.start) };
        // SAFETY: the buffer has as many rows as the tile, each a panel wide, and is ours alone.
        unsafe { kernel_at(cpu, single, a, b, rows.as_mut_ptr().cast()) };
        for (i, row) in rows.iter().enumerate() {
            // SAFETY: the caller's promise is passed on.
            unsafe { self.row(token + i, panel) }.copy_from_slice(&row[..self.width(panel)]);
        }
    }
}

/// One multiplication, cut into tiles of tokens and items of work.
struct Multiply<'a> {
    cpu: &'a Cpu,
    x: &'a [f32],
    w: &'a Matrix,
    tiling: Tiling,
    y: Output<'a>,
}

impl Multiply<'_> {
    /// Packs the activations, then hands out items of (block of tokens) x (group of panels).
    fn run<S: Weights>(&self, weights: &S) {
        let depth = S::Word::words(self.w.cols());
        let Tiling { n_tokens, tile_rows, n_tiles } = self.tiling;
        scratch(n_tokens * depth, |a: &mut [S::Word]| {
            self.cpu.parallel_chunks(a, (tile_rows * depth).max(1), |tile, out| {
                let (first, rows) = self.tiling.tile(tile);
                let cols = self.w.cols();
                S::Word::pack_a(self.cpu, rows, cols, |i| &self.x[(first + i) * cols..][..cols], out);
            });
            let a = &*a;
            let (panels, blocks) = (self.w.panels(), n_tiles.div_ceil(TILES_PER_BLOCK));
            let enough = (panels * blocks).div_ceil(ITEMS_PER_THREAD * self.cpu.threads());
            let group = enough.clamp(1, PANELS_PER_ITEM);
            let groups = panels.div_ceil(group);
            self.cpu.parallel(groups * blocks, |item| {
                let (block, first) = (item / groups, item % groups * group);
                let group = first..panels.min(first + group);
                if n_tokens <= S::FEW {
                    // SAFETY: each item has panels of its own.
                    unsafe { weights.few(self.cpu, a, group, &self.y) };
                } else {
                    let tiles = block * TILES_PER_BLOCK..n_tiles.min((block + 1) * TILES_PER_BLOCK);
                    self.item(weights, a, tiles, group);
                }
            });
        });
    }

    /// A block of tiles by a group of panels, the inner dimension cut so that a part of x serves every panel.
    fn item<S: Weights>(&self, weights: &S, a: &[S::Word], tiles: Range<usize>, panels: Range<usize>) {
        let depth = S::Word::words(self.w.cols());
        scratch(K_BLOCK.min(depth), |spare: &mut [[S::Word; NR]]| {
            // An empty inner dimension still has to write zeros.
            for first_k in (0..depth.max(1)).step_by(K_BLOCK) {
                let k = first_k..depth.min(first_k + K_BLOCK);
                let start = if first_k == 0 { Start::Zero } else { Start::Resume };
                for panel in panels.clone() {
                    let b = weights.block(self.cpu, panel, k.clone(), &mut spare[..k.len()]);
                    for tile in tiles.clone() {
                        let (first, rows) = self.tiling.tile(tile);
                        let a = &a[first * depth + k.start * rows..][..k.len() * rows];
                        let tile = Tile::single(rows, k.len(), self.y.rows, start);
                        // SAFETY: each item has tokens or panels of its own.
                        unsafe { self.y.multiply(self.cpu, tile, (first, panel), a, b) };
                    }
                }
            }
        });
    }
}
