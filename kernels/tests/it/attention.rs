//! Attention against its spec over odd sizes, and its promise about bits: a token's output depends on its
//! query and on the keys and values before it, not on threads, slots, neighbours in the call, or where a
//! prefix was cut.

use std::num::NonZeroUsize;

use kernels::device::{Cpu, Isa};
use kernels::kv::{KvDType, KvLayer, Slot};
use kernels::ops::{attention, kv_store};
use proptest::prelude::*;

use crate::seeded::{Seeded, bits_of, nmse};

fn cpu(threads: usize, isa: Isa) -> Cpu {
    Cpu::with_isa(NonZeroUsize::new(threads), isa)
}

/// A context whose last `n_tokens` are the queries.
struct Case {
    n_heads: usize,
    n_tokens: usize,
    q: Vec<f32>,
    /// (kv_len, n_kv_heads, head_dim)
    k: Vec<f32>,
    v: Vec<f32>,
    kv: KvLayer,
    slots: Vec<Slot>,
}

/// Query heads, KV heads, head_dim.
type Heads = (usize, usize, usize);

impl Case {
    /// Random inputs in scattered slots; `spread` is the size of the queries, so of the scores' spread.
    fn new(heads: Heads, n_tokens: usize, prefix: usize, dtype: KvDType, spread: f32) -> Case {
        let (n_heads, n_kv_heads, head_dim) = heads;
        let kv_len = prefix + n_tokens;
        let mut seeded = Seeded::new((kv_len * 31 + head_dim * 7 + n_heads) as u64);
        let q = seeded.values(n_tokens * n_heads * head_dim).iter().map(|x| x * spread).collect();
        let [k, v] = [0; 2].map(|_| seeded.values(kv_len * n_kv_heads * head_dim));
        // A permutation of more slots than needed: 7 is coprime to n_slots by choice of n_slots.
        let n_slots = (kv_len + 5).next_multiple_of(7) + 1;
        let slots: Vec<Slot> = (0..kv_len).map(|i| Slot((i * 7 % n_slots) as u32)).collect();
        let mut kv = KvLayer::new(n_slots, n_kv_heads, head_dim, dtype);
        kv_store::cpu(&cpu(1, Isa::Portable), &k, &v, &slots, &mut kv);
        Case { n_heads, n_tokens, q, k, v, kv, slots }
    }

    fn run(&self, cpu: &Cpu) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.q.len()];
        attention::cpu(cpu, &self.q, &self.kv, &self.slots, self.n_heads, &mut out);
        out
    }

    fn token_len(&self) -> usize {
        self.n_heads * self.kv.head_dim()
    }

    /// The tokens `range` alone, as their own call.
    fn run_part(&self, cpu: &Cpu, range: std::ops::Range<usize>) -> Vec<f32> {
        let kv_len = self.slots.len() - self.n_tokens + range.end;
        let q = &self.q[range.start * self.token_len()..range.end * self.token_len()];
        let mut out = vec![f32::NAN; q.len()];
        attention::cpu(cpu, q, &self.kv, &self.slots[..kv_len], self.n_heads, &mut out);
        out
    }
}

fn max_nmse(dtype: KvDType) -> f64 {
    match dtype {
        KvDType::F32 => attention::MAX_NMSE_F32,
        KvDType::BF16 => attention::MAX_NMSE_BF16,
    }
}

/// Near the spec on every instruction set, the same bits on 1, 2 and 3 threads.
#[track_caller]
fn check(case: &Case) {
    let mut want = vec![0.0; case.q.len()];
    attention::spec(&case.q, &case.kv, &case.slots, case.n_heads, &mut want);
    for isa in Isa::available() {
        let got = case.run(&cpu(1, isa));
        let (error, dtype) = (nmse(&want, &got), case.kv.dtype());
        assert!(error <= max_nmse(dtype), "{isa}, {dtype}: error {error:e}");
        for threads in [2, 3] {
            assert_eq!(bits_of(&case.run(&cpu(threads, isa))), bits_of(&got), "{isa}, {threads} threads");
        }
    }
}

const DTYPES: [KvDType; 2] = [KvDType::F32, KvDType::BF16];

#[test]
fn one_key_passes_its_value_through() {
    for dtype in DTYPES {
        let mut kv = KvLayer::new(1, 1, 2, dtype);
        let cpu = cpu(1, Isa::detect());
        kv_store::cpu(&cpu, &[9.0, -3.0], &[0.5, -4.0], &[Slot(0)], &mut kv);
        let mut out = [0.0; 4];
        attention::cpu(&cpu, &[1.0, 2.0, -50.0, 80.0], &kv, &[Slot(0)], 2, &mut out);
        assert_eq!(out, [0.5, -4.0, 0.5, -4.0]);
    }
}

#[test]
fn equal_scores_average_the_visible_values() {
    for dtype in DTYPES {
        let mut kv = KvLayer::new(4, 1, 2, dtype);
        let cpu = cpu(1, Isa::detect());
        let slots = [Slot(2), Slot(0), Slot(3), Slot(1)];
        kv_store::cpu(&cpu, &[1.0; 8], &[1.0, 0.0, 3.0, 0.0, 8.0, 0.0, 4.0, 8.0], &slots, &mut kv);
        let mut out = [0.0; 8];
        attention::cpu(&cpu, &[0.0; 8], &kv, &slots, 1, &mut out);
        assert_eq!(out, [1.0, 0.0, 2.0, 0.0, 4.0, 0.0, 4.0, 2.0]);
    }
}

#[test]
fn a_key_far_above_the_others_is_taken_alone() {
    // Scores of ±1e4: one-hot, without overflow, wherever in the tiles the winner is.
    for (dtype, winner) in DTYPES.into_iter().flat_map(|d| [0, 63, 64, 199].map(|w| (d, w))) {
        let mut kv = KvLayer::new(200, 1, 2, dtype);
        let cpu = cpu(2, Isa::detect());
        let slots: Vec<Slot> = (0..200).map(Slot).collect();
        let k: Vec<f32> = (0..200).flat_map(|i| [if i == winner { 100.0 } else { -100.0 }, 0.0]).collect();
        let v: Vec<f32> = (0..200).flat_map(|i| [i as f32, 1.0]).collect();
        kv_store::cpu(&cpu, &k, &v, &slots, &mut kv);
        let mut out = [0.0; 2];
        attention::cpu(&cpu, &[141.0, 0.0], &kv, &slots, 1, &mut out);
        assert_eq!(out, [winner as f32, 1.0]);
    }
}

#[test]
fn agrees_with_the_spec_at_every_number_of_tokens_and_prefix() {
    for dtype in DTYPES {
        for (n_tokens, prefix) in
            [(1, 0), (1, 1), (1, 700), (2, 0), (2, 63), (17, 0), (17, 700), (64, 1), (130, 63), (300, 0)]
        {
            check(&Case::new((4, 2, 64), n_tokens, prefix, dtype, 3.0));
        }
    }
}

#[test]
fn agrees_with_the_spec_at_every_head_shape() {
    for dtype in DTYPES {
        for head_dim in [2, 32, 48, 64, 80, 128, 256] {
            check(&Case::new((2, 1, head_dim), 17, 63, dtype, 1.0));
        }
        for heads in [(1, 1, 32), (6, 6, 32), (6, 2, 48), (16, 2, 32), (13, 1, 32)] {
            check(&Case::new(heads, 33, 40, dtype, 2.0));
        }
    }
}

#[test]
fn agrees_with_the_spec_over_several_splits() {
    for dtype in DTYPES {
        check(&Case::new((2, 1, 32), 1, 3000, dtype, 4.0));
        check(&Case::new((2, 1, 32), 40, 2030, dtype, 4.0));
    }
}

#[test]
fn a_full_piece_agrees_with_the_spec() {
    for dtype in DTYPES {
        check(&Case::new((3, 1, 32), 512, 700, dtype, 2.0));
    }
}

#[test]
fn decode_and_any_cut_of_the_tokens_give_the_bits_of_the_whole() {
    for (dtype, isa) in DTYPES.into_iter().flat_map(|d| Isa::available().map(move |i| (d, i))) {
        let case = Case::new((6, 2, 48), 150, 990, dtype, 3.0);
        let whole = case.run(&cpu(2, isa));
        for cuts in [vec![1, 2, 64, 149], vec![34, 35, 98], vec![]] {
            let mut parts = Vec::new();
            for (start, end) in std::iter::once(&0).chain(&cuts).zip(cuts.iter().chain([&150])) {
                parts.extend(case.run_part(&cpu(3, isa), *start..*end));
            }
            assert_eq!(bits_of(&parts), bits_of(&whole), "{isa}, {dtype}, cut at {cuts:?}");
        }
        for token in [0, 33, 34, 149] {
            let want = &whole[token * case.token_len()..][..case.token_len()];
            assert_eq!(
                bits_of(&case.run_part(&cpu(4, isa), token..token + 1)),
                bits_of(want),
                "{isa}, {dtype}"
            );
        }
    }
}

#[test]
fn the_place_of_slots_does_not_matter() {
    for dtype in DTYPES {
        let case = Case::new((4, 2, 32), 70, 60, dtype, 3.0);
        let cpu = cpu(2, Isa::detect());
        let in_order: Vec<Slot> = (0..130).map(Slot).collect();
        let mut kv = KvLayer::new(130, 2, 32, dtype);
        kv_store::cpu(&cpu, &case.k, &case.v, &in_order, &mut kv);
        let mut out = vec![f32::NAN; case.q.len()];
        attention::cpu(&cpu, &case.q, &kv, &in_order, 4, &mut out);
        assert_eq!(bits_of(&out), bits_of(&case.run(&cpu)));
    }
}

#[test]
fn a_poisoned_key_shows_as_nan_only_after_it() {
    let mut case = Case::new((2, 1, 32), 100, 0, KvDType::F32, 1.0);
    let cpu = cpu(2, Isa::detect());
    kv_store::cpu(&cpu, &[f32::NAN; 32], &[1.0; 32], &[case.slots[70]], &mut case.kv);
    let out = case.run(&cpu);
    for (token, row) in out.chunks(case.token_len()).enumerate() {
        assert!(row.iter().all(|x| x.is_nan() == (token >= 70)), "token {token}");
    }
}

#[test]
fn no_tokens_is_no_work() {
    let kv = KvLayer::new(1, 1, 2, KvDType::F32);
    attention::cpu(&cpu(2, Isa::detect()), &[], &kv, &[Slot(0)], 1, &mut []);
}

#[test]
#[should_panic(expected = "3 query heads cannot share 2 KV heads evenly")]
fn uneven_heads_are_refused() {
    let kv = KvLayer::new(1, 2, 2, KvDType::F32);
    attention::cpu(&cpu(1, Isa::Portable), &[0.0; 6], &kv, &[Slot(0)], 3, &mut [0.0; 6]);
}

#[test]
#[should_panic(expected = "1 slots for 2 tokens: the last slots must be the tokens' own")]
fn fewer_slots_than_tokens_are_refused() {
    let kv = KvLayer::new(4, 1, 2, KvDType::F32);
    attention::cpu(&cpu(1, Isa::Portable), &[0.0; 4], &kv, &[Slot(0)], 1, &mut [0.0; 4]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any shape agrees with the spec, and every output lies between the least and greatest value it
    /// averages.
    #[test]
    fn any_shape_agrees_with_the_spec(
        n_kv_heads in 1usize..4,
        group in 1usize..5,
        half_dim in 1usize..40,
        n_tokens in 1usize..40,
        prefix in 0usize..200,
        threads in 1usize..5,
        bf16: bool,
    ) {
        let dtype = if bf16 { KvDType::BF16 } else { KvDType::F32 };
        let case = Case::new((n_kv_heads * group, n_kv_heads, 2 * half_dim), n_tokens, prefix, dtype, 2.0);
        let mut want = vec![0.0; case.q.len()];
        attention::spec(&case.q, &case.kv, &case.slots, case.n_heads, &mut want);
        let got = case.run(&cpu(threads, Isa::detect()));
        prop_assert!(nmse(&want, &got) <= max_nmse(dtype), "{:e}", nmse(&want, &got));
        let bound = case.v.iter().fold(0f32, |m, v| m.max(v.abs())) * 1.01;
        prop_assert!(got.iter().all(|x| x.abs() <= bound));
    }
}
