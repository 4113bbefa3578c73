//! Tiles of keys and values, gathered by slot and laid out as the right-hand panels of the micro-kernels.
//!
//! A tile is [`KEY_TILE`] neighbouring positions of one KV head. As keys it is the right-hand side of `Q·Kᵀ`:
//! panels of `NR` keys, the head's values running down. As values it is the right-hand side of `P·V`: panels
//! of `NR` head values, the keys running down. Positions past the end of the context are zeros, so that a
//! tile always has its full size and what is computed from it does not depend on how far it is filled. It
//! knows no queries and no softmax.

use half::bf16;

use crate::buffer::Plain;
use crate::device::Cpu;
#[cfg(target_arch = "x86_64")]
use crate::device::Isa;
use crate::kv::Slot;
use crate::tile::{self, MR, NR, Tile};

#[cfg(target_arch = "x86_64")]
mod avx512;

/// Positions in a tile.
pub(crate) const KEY_TILE: usize = 64;

/// Where the rows of a tile are found.
#[derive(Clone, Copy)]
pub(crate) struct TileSource<'a, T> {
    /// Keys or values of one KV head, `(n_slots, head_dim)`.
    pub rows: &'a [T],
    /// Values of a row.
    pub head_dim: usize,
    /// At most [`KEY_TILE`] slots, in position order, each inside `rows`.
    pub slots: &'a [Slot],
    /// The slots of the tile that will be gathered next, to be fetched from memory meanwhile; empty for the
    /// last.
    pub next: &'a [Slot],
}

impl<'a, T> TileSource<'a, T> {
    /// The tile that starts at position `first` of `slots`, checked once so that the gathers may index
    /// freely.
    ///
    /// # Panics
    /// If one of its slots lies outside the rows or `first` beyond the slots.
    pub fn new(rows: &'a [T], head_dim: usize, slots: &'a [Slot], first: usize) -> Self {
        let n_slots = rows.len() / head_dim;
        let (tile, rest) = slots[first..].split_at(KEY_TILE.min(slots.len() - first));
        assert!(tile.iter().all(|s| (s.0 as usize) < n_slots), "a slot outside its layer");
        Self { rows, head_dim, slots: tile, next: &rest[..KEY_TILE.min(rest.len())] }
    }

    fn row(&self, key: usize) -> Option<&'a [T]> {
        let start = self.slots.get(key)?.0 as usize * self.head_dim;
        Some(&self.rows[start..start + self.head_dim])
    }
}

/// A word of the micro-kernels' inner dimension: an f32, or two bf16 in a `u32`. It decides the arithmetic of
/// every op that reads a KV layer.
pub(crate) trait KvWord: Plain + Default + Send + Sync {
    /// What a KV layer stores.
    type Stored: Copy + Send + Sync;
    /// Values in a word.
    const VALUES: usize;

    /// `C (+)= A · B`, see [`tile`].
    fn multiply(cpu: &Cpu, tile: Tile, a: &[Self], b: &[[Self; NR]], c: &mut [f32]);

    /// Packs rows of `k` values each into a tile of A.
    fn pack_a<'a>(cpu: &Cpu, rows: usize, k: usize, row: impl Fn(usize) -> &'a [f32], out: &mut [Self]);

    /// Gathers keys: `(KEY_TILE / NR, head_dim / VALUES, NR)` words.
    fn gather_keys(cpu: &Cpu, source: TileSource<'_, Self::Stored>, panels: &mut [[Self; NR]]);

    /// Gathers values: `(head_dim / NR rounded up, KEY_TILE / VALUES, NR)` words. A pair holds the keys `i`
    /// and `i + KEY_TILE / 2`, which lets weights be paired without moving them between lanes.
    fn gather_values(cpu: &Cpu, source: TileSource<'_, Self::Stored>, panels: &mut [[Self; NR]]);

    /// The weights of one row of a tile as `KEY_TILE / VALUES` words, in the order of
    /// [`KvWord::gather_values`].
    fn pack_weights(weights: &[f32; KEY_TILE], words: &mut [Self]);
}

/// Turns `n` rows of packed weights, each `KEY_TILE / VALUES` words, into a tile of A: `out[c · n + i] =
/// rows[i][c]`.
///
/// # Panics
/// If `rows` is not `n` rows or `out` has no room for `MR` of them.
pub(crate) fn transpose_weights<W: KvWord>(cpu: &Cpu, rows: &[W], n: usize, out: &mut [W]) {
    let depth = KEY_TILE / W::VALUES;
    assert!(n <= MR && rows.len() == n * depth && out.len() >= MR * depth, "{n} rows of {depth} weights");
    #[cfg(target_arch = "x86_64")]
    if cpu.isa() >= Isa::Avx512 {
        return avx512::transpose_weights(cpu, rows, n, out);
    }
    for (i, row) in rows.chunks_exact(depth).enumerate() {
        for (c, word) in row.iter().enumerate() {
            out[c * n + i] = *word;
        }
    }
}

/// Panel rows of a key tile.
pub(crate) fn key_rows<W: KvWord>(head_dim: usize) -> usize {
    KEY_TILE / NR * head_dim / W::VALUES
}

/// Panel rows of a value tile.
pub(crate) fn value_rows<W: KvWord>(head_dim: usize) -> usize {
    head_dim.div_ceil(NR) * KEY_TILE / W::VALUES
}

impl KvWord for f32 {
    type Stored = f32;
    const VALUES: usize = 1;

    fn multiply(cpu: &Cpu, tile: Tile, a: &[f32], b: &[[f32; NR]], c: &mut [f32]) {
        tile::f32::kernel(cpu, tile, a, b, c);
    }

    fn pack_a<'a>(_: &Cpu, rows: usize, k: usize, row: impl Fn(usize) -> &'a [f32], out: &mut [f32]) {
        tile::f32::pack_a(rows, k, row, out);
    }

    fn gather_keys(cpu: &Cpu, source: TileSource<'_, f32>, panels: &mut [[f32; NR]]) {
        #[cfg(target_arch = "x86_64")]
        if cpu.isa() >= Isa::Avx512 {
            return avx512::gather_keys_f32(cpu, source, panels);
        }
        for (first, panel) in (0..KEY_TILE).step_by(NR).zip(panels.chunks_exact_mut(source.head_dim)) {
            let columns = source.slots.len().saturating_sub(first).min(NR);
            tile::f32::pack_b_columns(columns, |j| source.row(first + j).unwrap_or(&[]), panel);
        }
    }

    fn gather_values(cpu: &Cpu, source: TileSource<'_, f32>, panels: &mut [[f32; NR]]) {
        #[cfg(target_arch = "x86_64")]
        if cpu.isa() >= Isa::Avx512 {
            return avx512::gather_values_f32(cpu, source, panels);
        }
        let zeros = vec![0.0; source.head_dim];
        let row = |key| source.row(key).unwrap_or(&zeros);
        tile::f32::pack_b_rows(KEY_TILE, source.head_dim, row, panels);
    }

    #[inline(always)]
    fn pack_weights(weights: &[f32; KEY_TILE], words: &mut [f32]) {
        words.copy_from_slice(weights);
    }
}

impl KvWord for u32 {
    type Stored = bf16;
    const VALUES: usize = 2;

    fn multiply(cpu: &Cpu, tile: Tile, a: &[u32], b: &[[u32; NR]], c: &mut [f32]) {
        tile::bf16::kernel(cpu, tile, a, b, c);
    }

    fn pack_a<'a>(cpu: &Cpu, rows: usize, k: usize, row: impl Fn(usize) -> &'a [f32], out: &mut [u32]) {
        tile::bf16::pack_a(cpu, rows, k, row, out);
    }

    fn gather_keys(cpu: &Cpu, source: TileSource<'_, bf16>, panels: &mut [[u32; NR]]) {
        #[cfg(target_arch = "x86_64")]
        if cpu.isa() >= Isa::Avx512 {
            return avx512::gather_keys_bf16(cpu, source, panels);
        }
        for (first, panel) in (0..KEY_TILE).step_by(NR).zip(panels.chunks_exact_mut(source.head_dim / 2)) {
            let columns = source.slots.len().saturating_sub(first).min(NR);
            let column = |j| source.row(first + j).unwrap_or(&[]);
            tile::bf16::pack_b_columns(columns, source.head_dim, column, panel);
        }
    }

    fn gather_values(cpu: &Cpu, source: TileSource<'_, bf16>, panels: &mut [[u32; NR]]) {
        #[cfg(target_arch = "x86_64")]
        if cpu.isa() >= Isa::Avx512 {
            return avx512::gather_values_bf16(cpu, source, panels);
        }
        let zeros = vec![bf16::ZERO; source.head_dim];
        let row = |i: usize| source.row(i / 2 + i % 2 * (KEY_TILE / 2)).unwrap_or(&zeros);
        tile::bf16::pack_b_rows(KEY_TILE, source.head_dim, row, panels);
    }

    #[inline(always)]
    fn pack_weights(weights: &[f32; KEY_TILE], words: &mut [u32]) {
        let (low, high) = weights.split_at(KEY_TILE / 2);
        for (word, (low, high)) in words.iter_mut().zip(low.iter().zip(high)) {
            *word = tile::bf16::round(*low) | tile::bf16::round(*high) << 16;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    /// 100 rows whose values all differ from their neighbours, and a scattered slot list.
    fn rows(head_dim: usize, n_keys: usize) -> (Vec<bf16>, Vec<Slot>) {
        let rows = (0..100 * head_dim).map(|i| bf16::from_bits((i * 7 + 1) as u16 & 0x7f7f)).collect();
        (rows, (0..n_keys).map(|i| Slot(((i * 37 + 5) % 100) as u32)).collect())
    }

    #[track_caller]
    fn check(cpu: &Cpu, head_dim: usize, n_keys: usize) {
        let (narrow, slots) = rows(head_dim, n_keys);
        let wide: Vec<f32> = narrow.iter().map(|x| x.to_f32()).collect();
        let (f32_source, bf16_source) =
            (TileSource::new(&wide, head_dim, &slots, 0), TileSource::new(&narrow, head_dim, &slots, 0));
        let mut f32_keys = vec![[f32::NAN; NR]; key_rows::<f32>(head_dim)];
        let mut f32_values = vec![[f32::NAN; NR]; value_rows::<f32>(head_dim)];
        let mut bf16_keys = vec![[u32::MAX; NR]; key_rows::<u32>(head_dim)];
        let mut bf16_values = vec![[u32::MAX; NR]; value_rows::<u32>(head_dim)];
        f32::gather_keys(cpu, f32_source, &mut f32_keys);
        f32::gather_values(cpu, f32_source, &mut f32_values);
        u32::gather_keys(cpu, bf16_source, &mut bf16_keys);
        u32::gather_values(cpu, bf16_source, &mut bf16_values);
        for (key, d) in
            (0..KEY_TILE).flat_map(|key| (0..head_dim.next_multiple_of(NR)).map(move |d| (key, d)))
        {
            let slot = slots.get(key).filter(|_| d < head_dim);
            let want = slot.map_or(bf16::ZERO, |s| narrow[s.0 as usize * head_dim + d]);
            let half = |word: u32, side: usize| bf16::from_bits((word >> (16 * side)) as u16);
            assert_eq!(f32_values[d / NR * KEY_TILE + key][d % NR], want.to_f32());
            let pair = bf16_values[(d / NR * KEY_TILE + key % (KEY_TILE / 2) * 2) / 2][d % NR];
            assert_eq!(half(pair, key / (KEY_TILE / 2)), want);
            if d < head_dim {
                assert_eq!(f32_keys[key / NR * head_dim + d][key % NR], want.to_f32());
                let word = bf16_keys[(key / NR * head_dim + d) / 2][key % NR];
                assert_eq!(half(word, d % 2), want);
            }
        }
    }

    #[test]
    fn panels_hold_every_key_and_value_in_its_place() {
        for isa in Isa::available() {
            let cpu = Cpu::with_isa(Some(NonZeroUsize::MIN), isa);
            for head_dim in [2, 32, 48, 80, 128] {
                for n_keys in [1, 31, 32, 33, KEY_TILE] {
                    check(&cpu, head_dim, n_keys);
                }
            }
        }
    }

    #[test]
    fn weights_are_transposed_for_any_number_of_rows() {
        for isa in Isa::available() {
            let cpu = Cpu::with_isa(Some(NonZeroUsize::MIN), isa);
            for n in 1..=MR {
                let rows: Vec<u32> = (0..n as u32 * 32).collect();
                let mut out = vec![u32::MAX; MR * 32];
                transpose_weights(&cpu, &rows, n, &mut out);
                for (i, c) in (0..n).flat_map(|i| (0..32).map(move |c| (i, c))) {
                    assert_eq!(out[c * n + i], rows[i * 32 + c], "{isa}, {n} rows");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "a slot outside its layer")]
    fn a_slot_outside_the_rows_is_refused() {
        TileSource::new(&[0.0; 8], 4, &[Slot(0), Slot(2)], 1);
    }
}
