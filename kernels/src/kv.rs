//! Keys and values of one layer, addressed by slot.
//!
//! A slot holds one token: `head_dim` keys and `head_dim` values for each KV head. Which token sits in which
//! slot is the caller's business: this module knows no positions, prefixes or sessions, it only stores rows
//! and finds them again.
//!
//! Layout of keys and of values: `(n_kv_heads, n_slots, head_dim)`. Attention walks one KV head over many
//! slots, so the head is the outermost index: neighbouring slots then lie next to each other and a long
//! context is read as one stream.

use std::fmt;
use std::ops::Range;

use half::bf16;
use half::slice::HalfFloatSliceExt;
use half::vec::HalfBitsVecExt;

/// One token's place in a [`KvLayer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// How keys and values are stored, which also decides how attention computes (see `ops::attention`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvDType {
    /// 4 bytes a value; scores and weights in f32.
    F32,
    /// 2 bytes a value, rounded to nearest even; queries and weights are rounded to bf16 as well, sums stay
    /// in f32.
    BF16,
}

impl KvDType {
    /// Bytes of one stored value.
    pub fn bytes(self) -> usize {
        match self {
            KvDType::F32 => 4,
            KvDType::BF16 => 2,
        }
    }
}

impl fmt::Display for KvDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KvDType::F32 => "F32",
            KvDType::BF16 => "BF16",
        })
    }
}

/// Keys and values of one layer for a fixed number of slots. Fresh slots read as zero.
#[derive(Clone, Debug)]
pub struct KvLayer {
    n_slots: usize,
    n_kv_heads: usize,
    head_dim: usize,
    store: Store,
}

#[derive(Clone, Debug)]
enum Store {
    F32(Rows<Vec<f32>>),
    BF16(Rows<Vec<bf16>>),
}

/// Keys and values, each `(n_kv_heads, n_slots, head_dim)`, owned or borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<T> {
    pub keys: T,
    pub values: T,
}

/// The rows of a layer in their stored type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StoredRows<'a> {
    F32(Rows<&'a [f32]>),
    BF16(Rows<&'a [bf16]>),
}

/// As [`StoredRows`], to be written.
#[derive(Debug)]
pub(crate) enum StoredRowsMut<'a> {
    F32(Rows<&'a mut [f32]>),
    BF16(Rows<&'a mut [bf16]>),
}

impl KvLayer {
    /// A layer of zeros. The size is fixed for life; see [`KvLayer::bytes_for`] to budget it first.
    ///
    /// # Panics
    /// If a dimension is zero, `head_dim` is odd (bf16 is computed in pairs, RoPE turns pairs), or the byte
    /// count does not fit the address space.
    pub fn new(n_slots: usize, n_kv_heads: usize, head_dim: usize, dtype: KvDType) -> KvLayer {
        let bytes = KvLayer::bytes_for(n_slots, n_kv_heads, head_dim, dtype);
        assert!(
            n_slots > 0
                && n_kv_heads > 0
                && head_dim > 0
                && head_dim.is_multiple_of(2)
                && bytes.is_some_and(|b| b <= isize::MAX as u64),
            "a KV layer of {n_slots} slots x {n_kv_heads} heads x {head_dim} {dtype} cannot exist: check its shape \
             and budget first"
        );
        let len = n_slots * n_kv_heads * head_dim;
        let store = match dtype {
            KvDType::F32 => Store::F32(Rows { keys: vec![0.0; len], values: vec![0.0; len] }),
            // Zeroed integers come from the system untouched, so that slots cost memory when they are first
            // used.
            KvDType::BF16 => {
                let zeros = || vec![0u16; len].reinterpret_into();
                Store::BF16(Rows { keys: zeros(), values: zeros() })
            }
        };
        KvLayer { n_slots, n_kv_heads, head_dim, store }
    }

    /// Bytes that [`KvLayer::new`] with the same arguments allocates; `None` if the number overflows.
    pub fn bytes_for(n_slots: usize, n_kv_heads: usize, head_dim: usize, dtype: KvDType) -> Option<u64> {
        let values = (n_slots as u64).checked_mul(n_kv_heads as u64)?.checked_mul(head_dim as u64)?;
        values.checked_mul(2 * dtype.bytes() as u64)
    }

    /// Bytes allocated for keys and values together.
    pub fn bytes(&self) -> u64 {
        let values = self.n_slots * self.n_kv_heads * self.head_dim;
        (2 * values * self.dtype().bytes()) as u64
    }

    /// Number of slots.
    pub fn n_slots(&self) -> usize {
        self.n_slots
    }

    /// Number of KV heads; a GQA model has fewer than query heads.
    pub fn n_kv_heads(&self) -> usize {
        self.n_kv_heads
    }

    /// Values per head and slot.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// The stored type.
    pub fn dtype(&self) -> KvDType {
        match self.store {
            Store::F32(_) => KvDType::F32,
            Store::BF16(_) => KvDType::BF16,
        }
    }

    /// Reads the key of one head and slot, `(head_dim)`, widened to f32 (exact).
    ///
    /// # Panics
    /// If the head or slot is outside the layer or `out` is not `head_dim` long.
    pub fn key(&self, kv_head: usize, slot: Slot, out: &mut [f32]) {
        let row = self.row(kv_head, slot, out);
        match self.rows() {
            StoredRows::F32(rows) => out.copy_from_slice(&rows.keys[row]),
            StoredRows::BF16(rows) => rows.keys[row].convert_to_f32_slice(out),
        }
    }

    /// Reads the value of one head and slot, as [`KvLayer::key`] does.
    ///
    /// # Panics
    /// As [`KvLayer::key`].
    pub fn value(&self, kv_head: usize, slot: Slot, out: &mut [f32]) {
        let row = self.row(kv_head, slot, out);
        match self.rows() {
            StoredRows::F32(rows) => out.copy_from_slice(&rows.values[row]),
            StoredRows::BF16(rows) => rows.values[row].convert_to_f32_slice(out),
        }
    }

    /// Asserts that every slot exists: the one check at the door of an op, after which rows are indexed
    /// freely.
    ///
    /// # Panics
    /// If a slot is outside the layer.
    pub(crate) fn check_slots(&self, slots: &[Slot]) {
        if let Some(bad) = slots.iter().find(|s| s.0 as usize >= self.n_slots) {
            panic!(
                "slot {} is outside a KV layer of {} slots: the caller's list is wrong",
                bad.0, self.n_slots
            );
        }
    }

    pub(crate) fn rows(&self) -> StoredRows<'_> {
        match &self.store {
            Store::F32(rows) => StoredRows::F32(Rows { keys: &rows.keys, values: &rows.values }),
            Store::BF16(rows) => StoredRows::BF16(Rows { keys: &rows.keys, values: &rows.values }),
        }
    }

    pub(crate) fn rows_mut(&mut self) -> StoredRowsMut<'_> {
        match &mut self.store {
            Store::F32(rows) => StoredRowsMut::F32(Rows { keys: &mut rows.keys, values: &mut rows.values }),
            Store::BF16(rows) => StoredRowsMut::BF16(Rows { keys: &mut rows.keys, values: &mut rows.values }),
        }
    }

    /// Where a row lies, after checking that it exists and fits `out`.
    fn row(&self, kv_head: usize, slot: Slot, out: &[f32]) -> Range<usize> {
        assert!(kv_head < self.n_kv_heads, "KV head {kv_head} of {}", self.n_kv_heads);
        self.check_slots(&[slot]);
        assert_eq!(out.len(), self.head_dim, "a row of this KV layer holds head_dim values");
        let start = (kv_head * self.n_slots + slot.0 as usize) * self.head_dim;
        start..start + self.head_dim
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_keys_and_values() {
        // Qwen3-0.6B: 8 KV heads of 128, so 4 KiB a token and layer in bf16 (reference figure of the
        // drafter's cost).
        assert_eq!(KvLayer::new(1, 8, 128, KvDType::BF16).bytes(), 4096);
        assert_eq!(KvLayer::new(3, 2, 48, KvDType::F32).bytes(), 3 * 2 * 48 * 2 * 4);
        assert_eq!(KvLayer::bytes_for(3, 2, 48, KvDType::F32), Some(3 * 2 * 48 * 2 * 4));
        assert_eq!(KvLayer::bytes_for(usize::MAX, 8, 128, KvDType::F32), None);
    }

    #[test]
    fn fresh_slots_read_as_zero() {
        let layer = KvLayer::new(2, 1, 4, KvDType::BF16);
        let mut row = [1.0; 4];
        layer.key(0, Slot(1), &mut row);
        assert_eq!(row, [0.0; 4]);
    }

    #[test]
    #[should_panic(expected = "slot 2 is outside a KV layer of 2 slots")]
    fn a_slot_outside_the_layer_is_refused() {
        KvLayer::new(2, 1, 4, KvDType::F32).value(0, Slot(2), &mut [0.0; 4]);
    }

    #[test]
    #[should_panic(expected = "check its shape and budget first")]
    fn an_odd_head_dim_is_refused() {
        KvLayer::new(2, 1, 33, KvDType::F32);
    }

    #[test]
    #[should_panic(expected = "check its shape and budget first")]
    fn an_impossible_size_is_refused() {
        KvLayer::new(usize::MAX, 8, 128, KvDType::F32);
    }
}
