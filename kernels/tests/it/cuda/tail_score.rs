//! The score of a tail on the device.

use half::bf16;
use kernels::device::Cpu;
use kernels::device::cuda::{Cuda, DeviceKv};
use kernels::kv::{KvDType, KvLayer, Slot};
use kernels::ops::kv_store;
use kernels::ops::tail_score::{self, DeviceTail};

use crate::cuda::devices;
use crate::cuda::parity::check;
use crate::seeded::{Seeded, bits_of};

/// A tail over a layer whose slots are neither in order nor all in use.
struct Case {
    n_heads: usize,
    n_tail: usize,
    /// Already values of bf16, as attention's queries are.
    q_tail: Vec<f32>,
    slots: Vec<Slot>,
    layer: KvLayer,
}

impl Case {
    fn new((n_heads, n_kv_heads, head_dim): (usize, usize, usize), n_tail: usize, kv_len: usize) -> Self {
        let mut seeded = Seeded::new((n_heads * 31 + head_dim * 7 + kv_len) as u64);
        // Seven slots on from position to position, in a number of slots that seven does not divide.
        let n_slots = if (kv_len + 5).is_multiple_of(7) { kv_len + 6 } else { kv_len + 5 };
        let slots: Vec<Slot> = (0..kv_len).map(|i| Slot((7 * i % n_slots) as u32)).collect();
        let mut layer = KvLayer::new(n_slots, n_kv_heads, head_dim, KvDType::BF16);
        let keys = seeded.values(kv_len * n_kv_heads * head_dim);
        kv_store::cpu(&Cpu::new(None), &keys, &keys, &slots, &mut layer);
        let q = seeded.values(n_tail * n_heads * head_dim);
        let q_tail = q.iter().map(|q| bf16::from_f32(4.0 * q).to_f32()).collect();
        Self { n_heads, n_tail, q_tail, slots, layer }
    }

    fn spec(&self) -> Vec<f32> {
        let mut max_probs = vec![0.0; self.n_tail * self.slots.len()];
        tail_score::spec(&self.q_tail, &self.layer, &self.slots, self.n_heads, &mut max_probs);
        max_probs
    }

    /// Raises `max_probs` on the device.
    fn raise(&self, cuda: &Cuda, max_probs: &[f32]) -> Vec<f32> {
        let (n_slots, n_kv_heads, head_dim) =
            (self.layer.n_slots(), self.layer.n_kv_heads(), self.layer.head_dim());
        let mut keys = vec![bf16::ZERO; n_slots * n_kv_heads * head_dim];
        let mut key = vec![0.0; head_dim];
        for (i, stored) in keys.chunks_mut(head_dim).enumerate() {
            self.layer.key(i / n_slots, Slot((i % n_slots) as u32), &mut key);
            stored.iter_mut().zip(&key).for_each(|(to, from)| *to = bf16::from_f32(*from));
        }
        let (keys, values) = (cuda.upload(&keys).unwrap(), cuda.alloc(0).unwrap());
        let layer = DeviceKv { keys, values, n_slots, n_kv_heads, head_dim };
        let q: Vec<bf16> = self.q_tail.iter().map(|q| bf16::from_f32(*q)).collect();
        let (q, n_tail, n_heads) = (cuda.upload(&q).unwrap(), self.n_tail, self.n_heads);
        let slots: Vec<i32> = self.slots.iter().map(|slot| slot.0 as i32).collect();
        let slots = cuda.upload(&slots).unwrap();
        let scratch_len = tail_score::cuda_scratch_len(n_tail, n_heads, slots.len());
        let mut scratch = cuda.alloc(scratch_len).unwrap();
        let mut max_probs = cuda.upload(max_probs).unwrap();
        let tail = DeviceTail { q: q.view(), n_tail, n_heads };
        tail_score::cuda(cuda, tail, &layer, slots.view(), scratch.view_mut(), max_probs.view_mut()).unwrap();
        max_probs.read().unwrap()
    }

    fn run(&self, cuda: &Cuda) -> Vec<f32> {
        self.raise(cuda, &vec![0.0; self.n_tail * self.slots.len()])
    }
}

#[test]
fn agrees_with_the_spec_at_every_length() {
    for kv_len in [8, 9, 63, 255, 256, 257, 700, 1025] {
        let case = Case::new((4, 2, 64), 8, kv_len);
        check(tail_score::MAX_NMSE_CUDA, &case.spec(), |cuda| case.run(cuda));
    }
}

#[test]
fn agrees_with_the_spec_at_every_head_shape() {
    let shapes = [
        ((2, 1, 128), 8),
        ((16, 8, 128), 8),
        ((4, 1, 128), 8),
        ((6, 2, 48), 8),
        ((5, 1, 32), 7),
        ((1, 1, 8), 1),
        ((3, 3, 80), 3),
        ((2, 1, 256), 4),
        ((2, 2, 200), 17),
    ];
    for (heads, n_tail) in shapes {
        let case = Case::new(heads, n_tail, 300);
        check(tail_score::MAX_NMSE_CUDA, &case.spec(), |cuda| case.run(cuda));
    }
}

#[test]
fn what_was_larger_before_stays() {
    let case = Case::new((4, 2, 32), 8, 270);
    let visible = |i: usize| i % 270 < 270 - 8 + i / 270 + 1;
    let before = Seeded::new(2).values(8 * 270).into_iter().enumerate();
    // A negative maximum never occurs; here it shows that nothing is written after a tail token's own position.
    let before: Vec<f32> = before.map(|(i, x)| if visible(i) { x.abs() * 0.01 } else { -1.0 }).collect();
    for cuda in devices() {
        let alone = case.run(&cuda);
        let larger = |i: usize| if visible(i) { alone[i].max(before[i]) } else { before[i] };
        let want: Vec<f32> = (0..before.len()).map(larger).collect();
        assert_eq!(bits_of(&case.raise(&cuda, &before)), bits_of(&want));
    }
}

#[test]
fn one_head_looking_at_one_key_gives_it_all() {
    let mut case = Case::new((1, 1, 8), 1, 600);
    let mut key = [0.0; 8];
    case.layer.key(0, case.slots[421], &mut key);
    case.q_tail = key.map(|k| bf16::from_f32(300.0 * k).to_f32()).to_vec();
    let want = case.spec();
    check(tail_score::MAX_NMSE_CUDA, &want, |cuda| case.run(cuda));
    let best = (0..600).max_by(|a, b| want[*a].total_cmp(&want[*b])).unwrap_or(0);
    assert!(want[best] > 0.9, "the case is peaked: {}", want[best]);
}

#[test]
fn the_mean_has_the_bits_of_the_cpu() {
    for (n_tail, kv_len) in [(8, 1), (8, 700), (3, 257)] {
        let max_probs = Seeded::new(kv_len as u64).values(n_tail * kv_len);
        let want = tail_score::mean(&max_probs, n_tail);
        for cuda in devices() {
            let (from, mut score) = (cuda.upload(&max_probs).unwrap(), cuda.alloc(kv_len).unwrap());
            tail_score::mean_cuda(&cuda, from.view(), n_tail, score.view_mut()).unwrap();
            assert_eq!(bits_of(&score.read().unwrap()), bits_of(&want));
        }
    }
}
