//! Keys and values put into their slots on the device.

use std::panic::{AssertUnwindSafe, catch_unwind};

use half::bf16;
use kernels::device::cuda::{Cuda, DeviceKv};
use kernels::kv::KvDType;
use kernels::ops::kv_store::{self, Placement, StridedRows};

use crate::cuda::devices;
use crate::cuda::parity::check;
use crate::seeded::Seeded;

/// Slots of positions 0.., of a layer of nine.
const SLOTS: [i32; 6] = [3, 8, 7, 0, 4, 5];
const N_SLOTS: usize = 9;

/// Rows of `lead` other values, then `cols` keys, then `cols` values.
struct Case {
    n: usize,
    start: usize,
    n_kv_heads: usize,
    head_dim: usize,
    lead: usize,
    rows: Vec<f32>,
}

impl Case {
    fn new((n, start): (usize, usize), (n_kv_heads, head_dim): (usize, usize)) -> Self {
        let (cols, lead) = (n_kv_heads * head_dim, 2 * head_dim);
        let rows = Seeded::new((n * 100 + cols) as u64).values(n * (lead + 2 * cols));
        Self { n, start, n_kv_heads, head_dim, lead, rows }
    }

    /// Keys, then values, as the layer holds them; zeros where nothing was stored.
    fn spec(&self) -> Vec<f32> {
        let (cols, plane) = (self.n_kv_heads * self.head_dim, N_SLOTS * self.n_kv_heads * self.head_dim);
        let mut layer = vec![0.0; 2 * plane];
        for t in 0..self.n {
            let row = &self.rows[t * (self.lead + 2 * cols) + self.lead..];
            for i in 0..2 * cols {
                let (head, d) = (i % cols / self.head_dim, i % self.head_dim);
                let slot = head * N_SLOTS + SLOTS[self.start + t] as usize;
                layer[i / cols * plane + slot * self.head_dim + d] = kv_store::spec(row[i], KvDType::BF16);
            }
        }
        layer
    }

    fn run(&self, cuda: &Cuda) -> Vec<f32> {
        let cols = self.n_kv_heads * self.head_dim;
        let mut layer = DeviceKv::new(cuda, N_SLOTS, self.n_kv_heads, self.head_dim).unwrap();
        let (rows, slots) = (cuda.upload(&self.rows).unwrap(), cuda.upload(&SLOTS).unwrap());
        let start = cuda.upload(&[self.start as i32]).unwrap();
        let at = Placement { slots: slots.view(), start: start.view() };
        let from =
            |first| StridedRows { rows: rows.slice(first..self.rows.len()), stride: self.lead + 2 * cols };
        kv_store::cuda(cuda, self.n, from(self.lead), Some(from(self.lead + cols)), at, &mut layer).unwrap();
        let all = [layer.keys.read().unwrap(), layer.values.read().unwrap()];
        all.iter().flatten().map(|x| x.to_f32()).collect()
    }
}

#[test]
fn each_head_goes_to_its_slot_and_nothing_else_is_written() {
    for heads in [(1, 8), (3, 6), (2, 64), (8, 128), (9, 128), (1, 2)] {
        for piece in [(1, 0), (1, 5), (4, 2)] {
            let case = Case::new(piece, heads);
            check(kv_store::MAX_NMSE_CUDA, &case.spec(), |cuda| case.run(cuda));
        }
    }
}

#[test]
fn keys_can_be_stored_alone() {
    for cuda in devices() {
        let mut layer = DeviceKv::new(&cuda, N_SLOTS, 2, 8).unwrap();
        layer.values = cuda.alloc(0).unwrap();
        let rows: Vec<f32> = (0..16).map(|i| i as f32).collect();
        let (rows, slots) = (cuda.upload(&rows).unwrap(), cuda.upload(&SLOTS).unwrap());
        let start = cuda.upload(&[1i32]).unwrap();
        let at = Placement { slots: slots.view(), start: start.view() };
        let keys = StridedRows { rows: rows.view(), stride: 16 };
        kv_store::cuda(&cuda, 1, keys, None, at, &mut layer).unwrap();
        let mut want = vec![bf16::ZERO; N_SLOTS * 16];
        for i in 0..16 {
            want[(i / 8 * N_SLOTS + 8) * 8 + i % 8] = bf16::from_f32(i as f32);
        }
        assert_eq!(layer.keys.read().unwrap(), want);
    }
}

#[test]
fn rows_without_a_slot_are_left_out() {
    for (cuda, head_dim) in devices().into_iter().flat_map(|cuda| [8, 6].map(|dim| (cuda.clone(), dim))) {
        let mut layer = DeviceKv::new(&cuda, 2, 1, head_dim).unwrap();
        let rows = cuda.upload(&vec![1.0; 4 * head_dim]).unwrap();
        let slots = cuda.upload(&[2i32, -1, 1]).unwrap();
        let start = cuda.upload(&[0i32]).unwrap();
        let at = Placement { slots: slots.view(), start: start.view() };
        let rows = StridedRows { rows: rows.view(), stride: head_dim };
        kv_store::cuda(&cuda, 4, rows, Some(rows), at, &mut layer).unwrap();
        let got: Vec<f32> = layer.keys.read().unwrap().iter().map(|x| x.to_f32()).collect();
        let want: Vec<f32> = (0..2 * head_dim).map(|i| if i < head_dim { 0.0 } else { 1.0 }).collect();
        assert_eq!(got, want);
    }
}

#[test]
fn too_few_rows_are_refused() {
    for cuda in devices() {
        let mut layer = DeviceKv::new(&cuda, 2, 1, 8).unwrap();
        let (rows, zero) = (cuda.upload(&[0.0; 15]).unwrap(), cuda.upload(&[0i32]).unwrap());
        let rows = StridedRows { rows: rows.view(), stride: 8 };
        let at = Placement { slots: zero.view(), start: zero.view() };
        let store = AssertUnwindSafe(|| kv_store::cuda(&cuda, 2, rows, None, at, &mut layer));
        let refusal = catch_unwind(store).unwrap_err();
        let message = refusal.downcast_ref::<String>().unwrap();
        assert_eq!(message, "kv_store: 15 values are not 2 rows of 8");
    }
}
