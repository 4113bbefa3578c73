//! Writes the keys and values of new tokens into their slots, converting to the layer's stored type (bf16 by
//! rounding to nearest even; f32 unchanged).
//!
//! Shapes: k, v (n_tokens, n_kv_heads · head_dim) f32 row-major; slots (n_tokens), slot `t` for token `t`.
//! Bound by memory. Heads are written in parallel, tokens of a head in order: should a slot be listed twice,
//! the last token wins on any number of threads. It must not know positions or which slots are free.

use half::bf16;

use crate::cost::Cost;
use crate::device::cuda::{Args, Cuda, DeviceKv, Grid, View};
use crate::device::{Cpu, Disjoint};
use crate::error::KernelError;
use crate::kv::{KvDType, KvLayer, Rows, Slot, StoredRowsMut};
use crate::tile::lanes::{self, Job, Lanes};

/// [`cpu`] equals [`spec`] bit for bit: both round the same way.
pub const MAX_NMSE: f64 = 0.0;

/// The device rounds alike, too.
pub const MAX_NMSE_CUDA: f64 = 0.0;

/// What is written to a slot, value by value: the plain twin of [`cpu`], read back through [`KvLayer::key`].
pub fn spec(x: f32, dtype: KvDType) -> f32 {
    match dtype {
        KvDType::F32 => x,
        KvDType::BF16 => bf16::from_f32(x).to_f32(),
    }
}

/// Stores `k` and `v` at `slots`.
///
/// # Panics
/// If a slot is outside the layer, or `k` or `v` is not one row of the layer for each slot.
pub fn cpu(cpu: &Cpu, k: &[f32], v: &[f32], slots: &[Slot], layer: &mut KvLayer) {
    let (n_slots, n_kv_heads, head_dim) = (layer.n_slots(), layer.n_kv_heads(), layer.head_dim());
    let expected = slots.len() * n_kv_heads * head_dim;
    assert!(
        k.len() == expected && v.len() == expected,
        "kv_store: {} slots of {n_kv_heads} x {head_dim} need {expected} values, got {} keys and {} values",
        slots.len(),
        k.len(),
        v.len()
    );
    layer.check_slots(slots);
    let shape = Shape { n_slots, n_kv_heads, head_dim };
    match layer.rows_mut() {
        StoredRowsMut::F32(Rows { keys, values }) => {
            scatter(cpu, k, slots, keys, shape);
            scatter(cpu, v, slots, values, shape);
        }
        StoredRowsMut::BF16(Rows { keys, values }) => {
            scatter(cpu, k, slots, keys, shape);
            scatter(cpu, v, slots, values, shape);
        }
    }
}

/// Rows in device memory that need not lie next to each other: row `t` begins at `t · stride`.
#[derive(Clone, Copy, Debug)]
pub struct StridedRows<'a> {
    /// From the first row's first value on.
    pub rows: View<'a, f32>,
    /// Values from the beginning of a row to that of the next.
    pub stride: usize,
}

/// Where the device puts the rows of a piece: row `t` goes to slot `slots[*start + t]`.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    /// Slots of positions from 0 on.
    pub slots: View<'a, i32>,
    /// Position of the first row, one number.
    pub start: View<'a, i32>,
}

/// Stores `n` rows of `k` and `v`, (n_kv_heads · head_dim) values each, on the device. Without `v` only keys are
/// stored, for a layer that is scored and never attended to, and the layer need not have memory for values. Rows without
/// a slot, and slots outside the layer, are left out: both are out of the launcher's sight. No slot may be listed twice.
///
/// # Errors
/// [`KernelError::Launch`] if the driver refuses the launch.
///
/// # Panics
/// If there are fewer than `n` rows, or rows or the layer are not as long as its shape says, or rows begin off a
/// multiple of 16 bytes.
pub fn cuda(
    cuda: &Cuda,
    n: usize,
    k: StridedRows<'_>,
    v: Option<StridedRows<'_>>,
    at: Placement<'_>,
    layer: &mut DeviceKv,
) -> Result<(), KernelError> {
    let (n_slots, n_kv_heads, head_dim) = (layer.n_slots, layer.n_kv_heads, layer.head_dim);
    let cols = n_kv_heads * head_dim;
    for rows in std::iter::once(k).chain(v) {
        let enough = n == 0 || rows.rows.len() >= (n - 1) * rows.stride + cols;
        assert!(
            enough && rows.stride >= cols,
            "kv_store: {} values are not {n} rows of {cols}",
            rows.rows.len()
        );
        let aligned = rows.rows.address().is_multiple_of(16) && rows.stride.is_multiple_of(4);
        assert!(aligned || !head_dim.is_multiple_of(8), "kv_store: rows are read in vectors");
    }
    assert_eq!(layer.keys.len(), n_slots * cols, "kv_store: keys of {n_slots} slots of {cols}");
    let n_values = v.map_or(layer.values.len(), |_| n_slots * cols);
    assert_eq!(layer.values.len(), n_values, "kv_store: values of {n_slots} slots of {cols}");
    assert_eq!(at.start.len(), 1, "kv_store: one position to start at");
    let planes = if v.is_some() { 2 } else { 1 };
    let grid = Grid { blocks: [n as u32, cols.div_ceil(1024) as u32, planes], threads: 128, shared_bytes: 0 };
    let (mut keys, mut values, v) = (layer.keys.view_mut(), layer.values.view_mut(), v.unwrap_or(k));
    let args = Args::new().view(k.rows).view(v.rows).view(at.slots).view(at.start);
    let args = args.view_mut(&mut keys).view_mut(&mut values).i32(k.stride as i32).i32(v.stride as i32);
    let args =
        args.i32(at.slots.len() as i32).i32(n_kv_heads as i32).i32(n_slots as i32).i32(head_dim as i32);
    // SAFETY: blocks of row t read row t, its slot if it is listed, and write that slot's rows if the layer has it; the
    // values are touched by the second plane alone.
    unsafe { cuda.launch("kv_store", grid, &args) }
}

/// Cost of [`cpu`].
pub fn cost(n_tokens: usize, n_kv_heads: usize, head_dim: usize, dtype: KvDType) -> Cost {
    let values = 2 * (n_tokens * n_kv_heads * head_dim) as u64;
    Cost { bytes: values * (4 + dtype.bytes() as u64), flops: 0 }
}

#[derive(Clone, Copy)]
struct Shape {
    n_slots: usize,
    n_kv_heads: usize,
    head_dim: usize,
}

/// A type values are stored in.
trait Stored: Send {
    fn from_f32(x: f32) -> Self;
}

impl Stored for f32 {
    #[inline(always)]
    fn from_f32(x: f32) -> f32 {
        x
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn from_f32(x: f32) -> bf16 {
        bf16::from_bits(crate::tile::bf16::round(x) as u16)
    }
}

/// Spreads rows of all heads, token by token, to `out`, head by head.
fn scatter<T: Stored>(cpu: &Cpu, rows: &[f32], slots: &[Slot], out: &mut [T], shape: Shape) {
    let Shape { n_slots, n_kv_heads, head_dim } = shape;
    let heads = Disjoint::new(out);
    cpu.parallel(n_kv_heads, |head| {
        for (slot, token) in slots.iter().zip(rows.chunks_exact(n_kv_heads * head_dim)) {
            let start = (head * n_slots + slot.0 as usize) * head_dim;
            // SAFETY: an item writes rows of its own head only, one after the other.
            let to = unsafe { heads.slice(start..start + head_dim) };
            lanes::run(cpu, Convert { from: &token[head * head_dim..][..head_dim], to });
        }
    });
}

struct Convert<'a, T> {
    from: &'a [f32],
    to: &'a mut [T],
}

impl<T: Stored> Job for Convert<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for (to, from) in self.to.iter_mut().zip(self.from) {
            *to = T::from_f32(*from);
        }
    }
}
