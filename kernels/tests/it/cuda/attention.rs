//! Attention on the device: near the spec at every shape, and the same bits wherever the slots are.

use half::bf16;
use kernels::device::cuda::{Cuda, CudaOptions, DeviceBuffer, DeviceKv};
use kernels::device::{Cpu, Isa};
use kernels::kv::{KvDType, KvLayer, Slot};
use kernels::ops::{attention, kv_store};

use crate::cuda::parity::{check, check_on};
use crate::cuda::{card, devices};
use crate::seeded::{Seeded, nmse};

/// Query heads, KV heads, head width.
type Heads = (usize, usize, usize);

/// `n` queries at positions `start..start + n`, everything rounded to bf16.
struct Case {
    heads: Heads,
    n: usize,
    start: usize,
    q: Vec<bf16>,
    /// (kv_len, n_kv_heads, head_dim)
    k: Vec<f32>,
    v: Vec<f32>,
}

/// A case in the slots of a layer.
struct Layer {
    kv: KvLayer,
    slots: Vec<Slot>,
}

impl Case {
    /// `spread` is the size of the queries, so of the scores' spread.
    fn new(heads: Heads, n: usize, start: usize, spread: f32) -> Self {
        let (n_heads, n_kv_heads, head_dim) = heads;
        let kv_len = start + n;
        let mut seeded = Seeded::new((kv_len * 31 + head_dim * 7 + n_heads * 3 + n) as u64);
        let mut values = |len| seeded.values(len);
        let q = values(n * n_heads * head_dim).iter().map(|x| bf16::from_f32(x * spread)).collect();
        let [k, v] = [0; 2].map(|_| values(kv_len * n_kv_heads * head_dim));
        Self { heads, n, start, q, k, v }
    }

    fn kv_len(&self) -> usize {
        self.start + self.n
    }

    /// Position `i` in slot `step · i` of `n_slots`, coprime; what no token holds is NaN.
    fn layer(&self, n_slots: usize, step: usize) -> Layer {
        let (_, n_kv_heads, head_dim) = self.heads;
        let slot = |i: usize| Slot((i * step % n_slots) as u32);
        let cpu = Cpu::with_isa(None, Isa::Portable);
        let mut kv = KvLayer::new(n_slots, n_kv_heads, head_dim, KvDType::BF16);
        let all: Vec<Slot> = (0..n_slots).map(slot).collect();
        let nothing = vec![f32::NAN; n_slots * n_kv_heads * head_dim];
        kv_store::cpu(&cpu, &nothing, &nothing, &all, &mut kv);
        let slots = all[..self.kv_len()].to_vec();
        kv_store::cpu(&cpu, &self.k, &self.v, &slots, &mut kv);
        Layer { kv, slots }
    }

    /// In as many slots as there are positions and some more, in no order.
    fn scattered(&self) -> Layer {
        self.layer((self.kv_len() + 9).next_multiple_of(7) + 1, 7)
    }

    fn spec(&self, layer: &Layer) -> Vec<f32> {
        let q = to_f32(&self.q);
        let mut out = vec![0.0; q.len()];
        attention::spec(&q, &layer.kv, &layer.slots, self.heads.0, &mut out);
        out
    }

    fn prefill(&self, cuda: &Cuda, layer: &Layer) -> Vec<bf16> {
        let (q, kv, slots) = self.upload(cuda, layer);
        let n_heads = self.heads.0;
        let call = attention::prefill::Prefill {
            q: q.view(),
            kv: &kv,
            slots: slots.view(),
            start: self.start,
            n_heads,
        };
        let scratch_len = attention::prefill::scratch_len(self.n, self.kv_len(), n_heads, &kv);
        let (mut scratch, mut out) = (cuda.alloc(scratch_len).unwrap(), cuda.alloc(q.len()).unwrap());
        attention::prefill::cuda(cuda, &call, scratch.view_mut(), out.view_mut()).unwrap();
        out.read().unwrap()
    }

    /// The last of the tokens alone.
    fn decode(&self, cuda: &Cuda, layer: &Layer) -> Vec<bf16> {
        let (q, kv, slots) = self.upload(cuda, layer);
        let n_heads = self.heads.0;
        let start = cuda.upload(&[self.kv_len() as i32 - 1]).unwrap();
        let q = q.slice(q.len() - self.token_len()..q.len());
        let call =
            attention::decode::Decode { q, kv: &kv, slots: slots.view(), start: start.view(), n_heads };
        let mut scratch = cuda.alloc(attention::decode::scratch_len(n_heads, &kv)).unwrap();
        let mut out = cuda.alloc(q.len()).unwrap();
        attention::decode::cuda(cuda, &call, scratch.view_mut(), out.view_mut()).unwrap();
        out.read().unwrap()
    }

    fn token_len(&self) -> usize {
        self.heads.0 * self.heads.2
    }

    fn upload(&self, cuda: &Cuda, layer: &Layer) -> (DeviceBuffer<bf16>, DeviceKv, DeviceBuffer<i32>) {
        let (_, n_kv_heads, head_dim) = self.heads;
        let (mut keys, mut values, mut row) = (Vec::new(), Vec::new(), vec![0.0; head_dim]);
        let n_slots = layer.kv.n_slots();
        for (head, slot) in (0..n_kv_heads).flat_map(|head| (0..n_slots).map(move |slot| (head, slot))) {
            layer.kv.key(head, Slot(slot as u32), &mut row);
            keys.extend(row.iter().map(|x| bf16::from_f32(*x)));
            layer.kv.value(head, Slot(slot as u32), &mut row);
            values.extend(row.iter().map(|x| bf16::from_f32(*x)));
        }
        let (keys, values) = (cuda.upload(&keys).unwrap(), cuda.upload(&values).unwrap());
        let slots: Vec<i32> = layer.slots.iter().map(|slot| slot.0 as i32).collect();
        let kv = DeviceKv { keys, values, n_slots, n_kv_heads, head_dim };
        (cuda.upload(&self.q).unwrap(), kv, cuda.upload(&slots).unwrap())
    }
}

fn bits_of(values: &[bf16]) -> Vec<u16> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn to_f32(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|x| x.to_f32()).collect()
}

/// Every device, and once more the card, if it is a Hopper, with its own kernels.
fn devices_and_hopper() -> Vec<Cuda> {
    let options = CudaOptions { hopper_kernels: true, ..CudaOptions::DEFAULT };
    devices().into_iter().chain(card(options, Cuda::hopper_kernels, "Hopper card")).collect()
}

#[track_caller]
fn check_prefill(heads: Heads, n: usize, start: usize, spread: f32) {
    eprintln!("prefill, {heads:?}: {n} after {start}");
    let case = Case::new(heads, n, start, spread);
    let layer = case.scattered();
    check_on(&devices_and_hopper(), attention::MAX_NMSE_CUDA, &case.spec(&layer), |cuda| {
        to_f32(&case.prefill(cuda, &layer))
    });
}

#[track_caller]
fn check_decode(heads: Heads, start: usize, spread: f32) {
    eprintln!("decode, {heads:?}: one after {start}");
    let case = Case::new(heads, 1, start, spread);
    let layer = case.scattered();
    check(attention::MAX_NMSE_CUDA, &case.spec(&layer), |cuda| to_f32(&case.decode(cuda, &layer)));
}

/// (query heads, KV heads): groups of 1, 2, 4 and 8, of a width between the kernels' and of one beyond them.
const GROUPS: [(usize, usize); 7] = [(1, 1), (4, 2), (4, 1), (8, 1), (3, 1), (5, 1), (11, 1)];

#[test]
fn prefill_agrees_with_the_spec_at_every_number_of_tokens() {
    for (n, start) in [(1, 0), (1, 63), (3, 1), (16, 64), (64, 0), (65, 63), (130, 0), (64, 200), (130, 200)]
    {
        check_prefill((1, 1, 64), n, start, 3.0);
        check_prefill((1, 1, 128), n, start, 3.0);
    }
}

#[test]
fn prefill_agrees_with_the_spec_at_every_head_shape() {
    for (n_heads, n_kv_heads) in GROUPS {
        check_prefill((n_heads, n_kv_heads, 64), 17, 63, 2.0);
        check_prefill((n_heads, n_kv_heads, 128), 40, 1, 2.0);
    }
    for head_dim in [2, 32, 48, 80, 256] {
        check_prefill((4, 2, head_dim), 5, 60, 2.0);
    }
}

#[test]
fn prefill_in_splits_agrees_with_the_spec() {
    // Two splits of 640 keys; of 300 tokens the first 40 end before the second.
    for (heads, n, start) in [((2, 1, 64), 3, 1100), ((1, 1, 128), 1, 1199), ((1, 1, 64), 300, 800)] {
        let case = Case::new(heads, n, start, 4.0);
        for cuda in devices() {
            let (_, kv, _) = case.upload(&cuda, &case.scattered());
            assert!(
                attention::prefill::scratch_len(n, start + n, heads.0, &kv) > 0,
                "{n} after {start}: no splits"
            );
        }
        check_prefill(heads, n, start, 4.0);
    }
}

#[test]
fn decode_agrees_with_the_spec_at_every_head_shape() {
    for (n_heads, n_kv_heads) in GROUPS {
        check_decode((n_heads, n_kv_heads, 64), 77, 2.0);
        check_decode((n_heads, n_kv_heads, 128), 77, 2.0);
    }
    for head_dim in [2, 32, 48, 80, 256] {
        check_decode((4, 2, head_dim), 140, 2.0);
    }
}

#[test]
fn decode_agrees_with_the_spec_at_every_position() {
    for start in [0, 1, 31, 32, 127, 128, 300, 1000] {
        check_decode((2, 1, 64), start, 4.0);
    }
    // More than a step for each warp: 65 KV heads leave room for 7 splits.
    check_decode((65, 65, 64), 1500, 4.0);
}

#[test]
fn scores_far_apart_neither_overflow_nor_lose_the_winner() {
    for heads in [(2, 1, 64), (4, 1, 128), (2, 2, 32)] {
        check_prefill(heads, 66, 70, 3e4);
        check_decode(heads, 200, 3e4);
    }
}

/// Every value is the mean of what is visible where scores are equal, and the winner's where one stands out.
#[test]
fn hand_made_scores_give_exact_outputs() {
    for (head_dim, winner) in [64, 128, 32].into_iter().flat_map(|d| [0, 63, 64, 127].map(|w| (d, w))) {
        let mut case = Case::new((1, 1, head_dim), 1, 127, 1.0);
        let unit = |at: usize, size: f32| (0..head_dim).map(move |i| if i == at { size } else { 0.0 });
        case.q = unit(0, 100.0).map(bf16::from_f32).collect();
        case.k = (0..128).flat_map(|i| unit(0, if i == winner { 100.0 } else { -100.0 })).collect();
        case.v = (0..128).flat_map(|i| unit(1, i as f32)).collect();
        let layer = case.scattered();
        let one_hot: Vec<f32> = unit(1, winner as f32).collect();
        case.q = unit(2, 100.0).map(bf16::from_f32).collect();
        let mean: Vec<f32> = unit(1, 63.5).collect();
        let equal = Case { q: case.q.clone(), k: case.k.clone(), v: case.v.clone(), ..case };
        case.q = unit(0, 100.0).map(bf16::from_f32).collect();
        for cuda in devices_and_hopper() {
            for (case, want) in [(&case, &one_hot), (&equal, &mean)] {
                let want: Vec<bf16> = want.iter().map(|x| bf16::from_f32(*x)).collect();
                assert_eq!(case.prefill(&cuda, &layer), want, "head width {head_dim}, winner {winner}");
                assert_eq!(case.decode(&cuda, &layer), want, "head width {head_dim}, winner {winner}");
            }
        }
    }
}

#[test]
fn decode_is_near_prefill_of_the_same_token() {
    let case = Case::new((4, 2, 128), 1, 150, 3.0);
    let layer = case.scattered();
    for cuda in devices() {
        let error = nmse(&to_f32(&case.prefill(&cuda, &layer)), &to_f32(&case.decode(&cuda, &layer)));
        assert!(error <= 2.0 * attention::MAX_NMSE_CUDA, "error {error:e}");
    }
}

#[test]
fn the_place_of_slots_does_not_show() {
    for (heads, n, start) in
        [((4, 2, 64), 70, 60), ((2, 1, 128), 20, 130), ((2, 1, 32), 9, 40), ((1, 1, 64), 2, 1100)]
    {
        let case = Case::new(heads, n, start, 3.0);
        let (scattered, in_order) = (case.scattered(), case.layer(case.kv_len(), 1));
        for cuda in devices_and_hopper() {
            let bits = |layer| (bits_of(&case.prefill(&cuda, layer)), bits_of(&case.decode(&cuda, layer)));
            assert!(bits(&scattered) == bits(&in_order), "{heads:?}, {n} after {start}");
        }
    }
}

#[test]
fn a_recorded_decode_follows_the_position() {
    let case = Case::new((4, 2, 64), 300, 0, 3.0);
    let layer = case.scattered();
    for cuda in devices() {
        let (q, kv, slots) = case.upload(&cuda, &layer);
        let mut start = cuda.upload(&[0i32]).unwrap();
        let mut query = cuda.upload(&case.q[..case.token_len()]).unwrap();
        let mut out = cuda.alloc::<bf16>(case.token_len()).unwrap();
        let mut scratch = cuda.alloc(attention::decode::scratch_len(4, &kv)).unwrap();
        let graph = cuda
            .capture(|| {
                let call = attention::decode::Decode {
                    q: query.view(),
                    kv: &kv,
                    slots: slots.view(),
                    start: start.view(),
                    n_heads: 4,
                };
                attention::decode::cuda(&cuda, &call, scratch.view_mut(), out.view_mut())
            })
            .unwrap();
        drop(q);
        for position in [0, 5, 130, 299] {
            let token = position * case.token_len()..(position + 1) * case.token_len();
            query.write(&case.q[token.clone()]).unwrap();
            start.write(&[position as i32]).unwrap();
            graph.run().unwrap();
            let got = to_f32(&out.read().unwrap());
            let error = nmse(&case.spec(&layer)[token], &got);
            assert!(error <= attention::MAX_NMSE_CUDA, "position {position}: error {error:e}");
        }
    }
}

#[test]
fn no_tokens_is_no_work() {
    let case = Case::new((2, 1, 64), 0, 3, 1.0);
    for cuda in devices() {
        assert!(case.prefill(&cuda, &case.scattered()).is_empty());
    }
}

#[test]
#[should_panic(expected = "no kernel for heads of 258: even, and 256 at most")]
fn a_head_too_wide_is_refused() {
    let case = Case::new((1, 1, 258), 1, 0, 1.0);
    let layer = case.scattered();
    for cuda in devices() {
        case.prefill(&cuda, &layer);
    }
    // Where there is no device there is nothing to refuse.
    assert!(!devices().is_empty(), "no kernel for heads of 258: even, and 256 at most");
}
