//! The gathers of the parent module in AVX-512: registers of 16 words, transposed by shuffles. A decode step
//! reads each key and value once, so gathering has to keep up with memory; the plain loops move four bytes a
//! cycle.

use std::arch::x86_64::*;
use std::array::from_fn;

use half::bf16;

use super::{KEY_TILE, KvWord, TileSource, key_rows, value_rows};
use crate::device::{Cpu, Isa};
use crate::tile::{MR, NR};

/// Words of a register.
const WIDTH: usize = 16;

pub(super) fn gather_keys_f32(cpu: &Cpu, source: TileSource<'_, f32>, panels: &mut [[f32; NR]]) {
    assert!(cpu.isa() >= Isa::Avx512 && panels.len() >= key_rows::<f32>(source.head_dim));
    let panels = panels.as_mut_ptr().cast::<[u32; NR]>();
    // SAFETY: the instruction set and the panels were checked above; a `TileSource` has checked its slots. An
    // f32 is one word, and every bit pattern is valid as f32 and as u32.
    unsafe { transpose_rows(source.rows.as_ptr().cast(), source.head_dim, source, panels) }
}

pub(super) fn gather_keys_bf16(cpu: &Cpu, source: TileSource<'_, bf16>, panels: &mut [[u32; NR]]) {
    assert!(cpu.isa() >= Isa::Avx512 && panels.len() >= key_rows::<u32>(source.head_dim));
    // SAFETY: as above; two bf16 are one word and a KV layer has an even `head_dim`.
    unsafe { transpose_rows(source.rows.as_ptr().cast(), source.head_dim / 2, source, panels.as_mut_ptr()) }
}

pub(super) fn gather_values_f32(cpu: &Cpu, source: TileSource<'_, f32>, panels: &mut [[f32; NR]]) {
    assert!(cpu.isa() >= Isa::Avx512 && panels.len() >= value_rows::<f32>(source.head_dim));
    // SAFETY: the instruction set was checked above.
    unsafe { copy_rows(source, panels) }
}

pub(super) fn gather_values_bf16(cpu: &Cpu, source: TileSource<'_, bf16>, panels: &mut [[u32; NR]]) {
    assert!(cpu.isa() >= Isa::Avx512 && panels.len() >= value_rows::<u32>(source.head_dim));
    // SAFETY: as above.
    unsafe { interleave_rows(source, panels) }
}

pub(super) fn transpose_weights<W: KvWord>(cpu: &Cpu, rows: &[W], n: usize, out: &mut [W]) {
    let depth = KEY_TILE / W::VALUES;
    assert!(cpu.isa() >= Isa::Avx512 && n <= MR && rows.len() == n * depth && out.len() >= MR * depth);
    assert!(size_of::<W>() == size_of::<u32>());
    // SAFETY: the instruction set and the lengths were checked above; a word is 32 bits, any of them valid.
    unsafe { transpose_words(rows.as_ptr().cast(), depth, n, out.as_mut_ptr().cast()) }
}

/// `out[c · n + i] = rows[i · depth + c]` for `n <= MR` rows; up to `WIDTH` words are stored at each column's
/// start, in order, so that the next column overwrites what is not its own.
///
/// # Safety
/// The machine has [`Isa::Avx512`]; `rows` holds `n · depth` words and `out` has room for `MR · depth`.
#[target_feature(enable = "avx512f")]
unsafe fn transpose_words(rows: *const u32, depth: usize, n: usize, out: *mut u32) {
    let last = n * depth - n;
    for first in (0..depth).step_by(WIDTH) {
        let block = from_fn(|i| match i < n {
            // SAFETY: row i exists, and `depth` is a multiple of WIDTH.
            true => unsafe { _mm512_loadu_si512(rows.add(i * depth + first).cast()) },
            false => _mm512_setzero_si512(),
        });
        for (c, column) in transpose(block).into_iter().enumerate() {
            let at = (first + c) * n;
            // The last columns end with the tile: only their own words may be stored.
            let words = if at + WIDTH > last + n { u16::MAX >> (WIDTH - n) } else { u16::MAX };
            // SAFETY: the stored words end at or before n · depth.
            unsafe { _mm512_mask_storeu_epi32(out.add(at).cast(), words, column) };
        }
    }
}

/// Pairs of rows as words: key `i` in the low half, key `i + KEY_TILE / 2` in the high half.
///
/// # Safety
/// The machine has [`Isa::Avx512`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn interleave_rows(source: TileSource<'_, bf16>, panels: &mut [[u32; NR]]) {
    // Half-word lane 2i takes value i of the first row, lane 2i + 1 value i of the second; `high` starts at
    // value 16.
    let [low, high] = [0, 16].map(|first| {
        let lanes: [u16; 2 * WIDTH] = from_fn(|i| (first + i / 2 + 32 * (i % 2)) as u16);
        // SAFETY: the array is 64 bytes.
        unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
    });
    for (start, panel) in (0..source.head_dim).step_by(NR).zip(panels.chunks_exact_mut(KEY_TILE / 2)) {
        for (key, words) in panel.iter_mut().enumerate() {
            let (a, b) = (load_values(&source, key, start), load_values(&source, key + KEY_TILE / 2, start));
            // SAFETY: a panel row is two registers.
            unsafe {
                _mm512_storeu_si512(words.as_mut_ptr().cast(), _mm512_permutex2var_epi16(a, low, b));
                _mm512_storeu_si512(
                    words.as_mut_ptr().add(WIDTH).cast(),
                    _mm512_permutex2var_epi16(a, high, b),
                );
            }
        }
    }
}

/// Rows as they are, cut into panels.
///
/// # Safety
/// The machine has [`Isa::Avx512`].
#[target_feature(enable = "avx512f")]
unsafe fn copy_rows(source: TileSource<'_, f32>, panels: &mut [[f32; NR]]) {
    for (start, panel) in (0..source.head_dim).step_by(NR).zip(panels.chunks_exact_mut(KEY_TILE)) {
        for (key, values) in panel.iter_mut().enumerate() {
            for first in (start..start + NR).step_by(WIDTH) {
                fetch_next(&source, key, first);
                let mask = ((1_u32 << source.head_dim.saturating_sub(first).min(WIDTH)) - 1) as u16;
                let row = match source.slots.get(key) {
                    // SAFETY: the slot exists, and the mask ends the load at the end of its row.
                    Some(slot) => unsafe {
                        let row = source.rows.as_ptr().add(slot.0 as usize * source.head_dim);
                        _mm512_maskz_loadu_ps(mask, row.wrapping_add(first))
                    },
                    None => _mm512_setzero_ps(),
                };
                // SAFETY: half of a panel row.
                unsafe { _mm512_storeu_ps(values.as_mut_ptr().add(first - start), row) };
            }
        }
    }
}

/// Up to `NR` values of a key from `start` on, then zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_values(source: &TileSource<'_, bf16>, key: usize, start: usize) -> __m512i {
    fetch_next(source, key, start);
    let Some(slot) = source.slots.get(key) else { return _mm512_setzero_si512() };
    let mask = u32::MAX >> (NR - (source.head_dim - start).min(NR));
    // SAFETY: the slot exists (checked by `TileSource`), and the mask ends the load at the end of its row.
    unsafe {
        _mm512_maskz_loadu_epi16(
            mask,
            source.rows.as_ptr().add(slot.0 as usize * source.head_dim + start).cast(),
        )
    }
}

/// Starts fetching into L2 what this load's twin in the next tile will read. The hardware fetches ahead
/// within a row or a page, not from row to row of a head, and a decode step has too little else to do to hide
/// the latency itself.
#[inline(always)]
fn fetch_next<T>(source: &TileSource<'_, T>, key: usize, start: usize) {
    if let Some(slot) = source.next.get(key) {
        let at = source.rows.as_ptr().wrapping_add(slot.0 as usize * source.head_dim + start);
        // SAFETY: a prefetch reads nothing and cannot fault, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
}

/// Writes rows of `row_words` words as columns: `(KEY_TILE / NR, row_words, NR)`. `words` are the rows of
/// `source`.
///
/// # Safety
/// The machine has [`Isa::Avx512`]; `words` holds `row_words` words for each slot, `panels` has room for the
/// tile.
#[target_feature(enable = "avx512f")]
unsafe fn transpose_rows<T>(
    words: *const u32,
    row_words: usize,
    source: TileSource<'_, T>,
    panels: *mut [u32; NR],
) {
    for first_key in (0..KEY_TILE).step_by(WIDTH) {
        for word in (0..row_words).step_by(WIDTH) {
            let width = (row_words - word).min(WIDTH);
            let mask = u16::MAX >> (WIDTH - width);
            for i in 0..WIDTH {
                fetch_next(&source, first_key + i, word * source.head_dim / row_words);
            }
            let block = from_fn(|i| match source.slots.get(first_key + i) {
                // SAFETY: the slot exists, and the mask ends the load at the end of its row.
                Some(slot) => unsafe {
                    _mm512_maskz_loadu_epi32(mask, words.add(slot.0 as usize * row_words + word).cast())
                },
                None => _mm512_setzero_si512(),
            });
            for (i, column) in transpose(block).into_iter().enumerate().take(width) {
                // SAFETY: one of the panel's rows, and half of it: first_key % NR is 0 or 16.
                unsafe {
                    let row = panels.add(first_key / NR * row_words + word + i);
                    _mm512_storeu_si512(row.cast::<u32>().add(first_key % NR).cast(), column);
                }
            }
        }
    }
}

/// The transpose of 16 rows of 16 words: pairs, then quads inside 128-bit lanes, then the lanes themselves.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; WIDTH]) -> [__m512i; WIDTH] {
    let zero = _mm512_setzero_si512();
    // quads[4g + c], 128-bit lane L: rows 4g..4g + 4 of column 4L + c.
    let mut quads = [zero; WIDTH];
    for (quad, rows) in quads.chunks_exact_mut(4).zip(rows.chunks_exact(4)) {
        let (ab_low, ab_high) =
            (_mm512_unpacklo_epi32(rows[0], rows[1]), _mm512_unpackhi_epi32(rows[0], rows[1]));
        let (cd_low, cd_high) =
            (_mm512_unpacklo_epi32(rows[2], rows[3]), _mm512_unpackhi_epi32(rows[2], rows[3]));
        quad[0] = _mm512_unpacklo_epi64(ab_low, cd_low);
        quad[1] = _mm512_unpackhi_epi64(ab_low, cd_low);
        quad[2] = _mm512_unpacklo_epi64(ab_high, cd_high);
        quad[3] = _mm512_unpackhi_epi64(ab_high, cd_high);
    }
    let mut columns = [zero; WIDTH];
    for c in 0..4 {
        let (a, b, d, e) = (quads[c], quads[4 + c], quads[8 + c], quads[12 + c]);
        let (ab_even, ab_odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
        let (de_even, de_odd) = (_mm512_shuffle_i32x4::<0x88>(d, e), _mm512_shuffle_i32x4::<0xdd>(d, e));
        columns[c] = _mm512_shuffle_i32x4::<0x88>(ab_even, de_even);
        columns[4 + c] = _mm512_shuffle_i32x4::<0x88>(ab_odd, de_odd);
        columns[8 + c] = _mm512_shuffle_i32x4::<0xdd>(ab_even, de_even);
        columns[12 + c] = _mm512_shuffle_i32x4::<0xdd>(ab_odd, de_odd);
    }
    columns
}
