//! Tail scores against their spec over odd sizes, folding over heads and layers, and the same bits on any
//! threads.

use std::num::NonZeroUsize;

use kernels::device::{Cpu, Isa};
use kernels::kv::{KvDType, KvLayer, Slot};
use kernels::ops::{kv_store, tail_score};
use proptest::prelude::*;

use crate::seeded::{Seeded, bits_of, nmse};

const DTYPES: [KvDType; 2] = [KvDType::F32, KvDType::BF16];

fn cpu(threads: usize, isa: Isa) -> Cpu {
    Cpu::with_isa(NonZeroUsize::new(threads), isa)
}

/// One layer's keys and the queries of its last tokens.
struct Case {
    n_heads: usize,
    q_tail: Vec<f32>,
    k: KvLayer,
    slots: Vec<Slot>,
    n_tail: usize,
}

impl Case {
    fn new(
        (n_heads, n_kv_heads, head_dim): (usize, usize, usize),
        n_tail: usize,
        kv_len: usize,
        dtype: KvDType,
    ) -> Case {
        let mut seeded = Seeded::new((kv_len * 17 + head_dim * 3 + n_heads) as u64);
        let q_tail = seeded.values(n_tail * n_heads * head_dim).iter().map(|x| x * 4.0).collect();
        let keys = seeded.values(kv_len * n_kv_heads * head_dim);
        let slots: Vec<Slot> = (0..kv_len).rev().map(|i| Slot(i as u32)).collect();
        let mut k = KvLayer::new(kv_len, n_kv_heads, head_dim, dtype);
        kv_store::cpu(&cpu(1, Isa::Portable), &keys, &keys, &slots, &mut k);
        Case { n_heads, q_tail, k, slots, n_tail }
    }

    fn run(&self, cpu: &Cpu) -> Vec<f32> {
        let mut max_probs = vec![0.0; self.n_tail * self.slots.len()];
        tail_score::cpu(cpu, &self.q_tail, &self.k, &self.slots, self.n_heads, &mut max_probs);
        max_probs
    }

    fn spec(&self) -> Vec<f32> {
        let mut max_probs = vec![0.0; self.n_tail * self.slots.len()];
        tail_score::spec(&self.q_tail, &self.k, &self.slots, self.n_heads, &mut max_probs);
        max_probs
    }
}

fn max_nmse(dtype: KvDType) -> f64 {
    match dtype {
        KvDType::F32 => tail_score::MAX_NMSE_F32,
        KvDType::BF16 => tail_score::MAX_NMSE_BF16,
    }
}

#[track_caller]
fn check(case: &Case) {
    let want = case.spec();
    for isa in Isa::available() {
        let got = case.run(&cpu(1, isa));
        let error = nmse(&want, &got);
        assert!(error <= max_nmse(case.k.dtype()), "{isa}, {}: error {error:e}", case.k.dtype());
        for threads in [2, 3] {
            assert_eq!(bits_of(&case.run(&cpu(threads, isa))), bits_of(&got), "{isa}, {threads} threads");
        }
    }
}

#[test]
fn equal_keys_share_the_attention_of_each_tail_token() {
    for dtype in DTYPES {
        let mut k = KvLayer::new(5, 1, 2, dtype);
        let cpu = cpu(2, Isa::detect());
        let slots: Vec<Slot> = (0..5).map(Slot).collect();
        kv_store::cpu(&cpu, &[1.0; 10], &[0.0; 10], &slots, &mut k);
        let mut max_probs = [0.0; 10];
        tail_score::cpu(&cpu, &[0.5; 4], &k, &slots, 1, &mut max_probs);
        assert_eq!(max_probs, [0.25, 0.25, 0.25, 0.25, 0.0, 0.2, 0.2, 0.2, 0.2, 0.2]);
    }
}

#[test]
fn the_largest_head_counts() {
    // Head 0 looks at position 0, head 1 at position 2, both one-hot: each position takes its best head.
    let mut k = KvLayer::new(3, 1, 2, KvDType::F32);
    let cpu = cpu(1, Isa::detect());
    let slots: Vec<Slot> = (0..3).map(Slot).collect();
    kv_store::cpu(&cpu, &[100.0, 0.0, 0.0, 0.0, 0.0, 100.0], &[0.0; 6], &slots, &mut k);
    let mut max_probs = [0.0; 3];
    tail_score::cpu(&cpu, &[9.0, 0.0, 0.0, 9.0], &k, &slots, 2, &mut max_probs);
    assert_eq!(max_probs, [1.0, 0.0, 1.0]);
}

#[test]
fn agrees_with_the_spec_at_every_length() {
    for dtype in DTYPES {
        for kv_len in [8, 9, 63, 64, 65, 700, 1024, 1025, 2500] {
            check(&Case::new((4, 2, 64), 8, kv_len, dtype));
        }
    }
}

#[test]
fn agrees_with_the_spec_at_every_head_shape() {
    for dtype in DTYPES {
        for head_dim in [2, 32, 48, 80, 128] {
            check(&Case::new((2, 1, head_dim), 8, 130, dtype));
        }
        for (heads, n_tail) in
            [((1, 1, 32), 1), ((6, 6, 32), 3), ((6, 2, 48), 8), ((16, 2, 32), 8), ((5, 1, 32), 17)]
        {
            check(&Case::new(heads, n_tail, 77, dtype));
        }
    }
}

#[test]
fn calls_fold_layers_in_any_order() {
    let cpu = cpu(2, Isa::detect());
    let layers = [1, 2].map(|dim| Case::new((4, 2, 32 * dim), 8, 90, KvDType::BF16));
    let fold = |order: [usize; 2]| {
        let mut max_probs = vec![0.0; 8 * 90];
        for i in order {
            let Case { q_tail, k, slots, .. } = &layers[i];
            tail_score::cpu(&cpu, q_tail, k, slots, 4, &mut max_probs);
        }
        max_probs
    };
    let want: Vec<f32> = layers[0].run(&cpu).iter().zip(layers[1].run(&cpu)).map(|(a, b)| a.max(b)).collect();
    assert_eq!(bits_of(&fold([0, 1])), bits_of(&want));
    assert_eq!(bits_of(&fold([1, 0])), bits_of(&want));
}

#[test]
fn no_tail_is_no_work() {
    let k = KvLayer::new(3, 1, 2, KvDType::F32);
    tail_score::cpu(&cpu(2, Isa::detect()), &[], &k, &[Slot(0)], 1, &mut []);
}

#[test]
#[should_panic(expected = "max_probs must be 1 tail tokens x 2 positions")]
fn maxima_of_another_shape_are_refused() {
    let k = KvLayer::new(3, 1, 2, KvDType::F32);
    tail_score::cpu(&cpu(1, Isa::Portable), &[0.0; 2], &k, &[Slot(0), Slot(1)], 1, &mut [0.0; 3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// With a single head, each tail token's probabilities sum to one and nothing lies in its future.
    #[test]
    fn one_head_is_a_distribution(n_tail in 1usize..9, extra in 0usize..1500, seed: u64) {
        let kv_len = n_tail + extra;
        let mut case = Case::new((1, 1, 16), n_tail, kv_len, KvDType::F32);
        case.q_tail = Seeded::new(seed).values(n_tail * 16);
        for (t, row) in case.run(&cpu(2, Isa::detect())).chunks(kv_len).enumerate() {
            let total: f64 = row.iter().map(|p| f64::from(*p)).sum();
            prop_assert!((total - 1.0).abs() < 1e-5, "{total}");
            prop_assert!(row[kv_len - n_tail + t + 1..].iter().all(|p| *p == 0.0));
        }
    }
}
