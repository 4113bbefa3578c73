//! RMS norm, SwiGLU and the KV store: the fast versions against their specs, on every instruction set,
//! and the same bits on any number of threads.

use std::num::NonZeroUsize;

use half::bf16;
use kernels::device::{Cpu, Isa};
use kernels::kv::{KvDType, KvLayer, Slot};
use kernels::ops::{kv_store, rms_norm, swiglu};
use proptest::prelude::*;

use crate::seeded::{Seeded, bits_of, nmse};

const EPS: f32 = 1e-6;

fn cpu(threads: usize, isa: Isa) -> Cpu {
    Cpu::with_isa(NonZeroUsize::new(threads), isa)
}

/// Runs `op` on every instruction set and on 1, 2 and 3 threads: near `want` on all, the same bits on any
/// threads.
#[track_caller]
fn check(max_nmse: f64, want: &[f32], op: impl Fn(&Cpu) -> Vec<f32>) {
    for isa in Isa::available() {
        let got = op(&cpu(1, isa));
        let error = nmse(want, &got);
        assert!(error <= max_nmse, "{isa}: error {error:e} over {max_nmse:e}");
        for threads in [2, 3] {
            assert_eq!(bits_of(&op(&cpu(threads, isa))), bits_of(&got), "{isa}, {threads} threads");
        }
    }
}

#[test]
fn rms_norm_of_a_hand_made_row() {
    // mean square (9 + 16) / 2 = 12.5; with eps 3.5 the root is 4.
    let mut y = [0.0; 4];
    rms_norm::cpu(&cpu(1, Isa::Portable), &[3.0, 4.0, -3.0, 4.0], &[4.0, 8.0], 3.5, &mut y);
    assert_eq!(y, [3.0, 8.0, -3.0, 8.0]);
    rms_norm::spec(&[3.0, 4.0, -3.0, 4.0], &[4.0, 8.0], 3.5, &mut y);
    assert_eq!(y, [3.0, 8.0, -3.0, 8.0]);
}

#[test]
fn rms_norm_agrees_with_its_spec() {
    for dim in [1, 2, 31, 32, 33, 48, 64, 128, 1000, 5120] {
        for rows in [1, 2, 17, 130] {
            let mut seeded = Seeded::new((dim * 1000 + rows) as u64);
            let (x, weight) = (seeded.values(rows * dim), seeded.values(dim));
            let mut want = vec![0.0; x.len()];
            rms_norm::spec(&x, &weight, EPS, &mut want);
            check(rms_norm::MAX_NMSE, &want, |cpu| {
                let mut y = vec![f32::NAN; x.len()];
                rms_norm::cpu(cpu, &x, &weight, EPS, &mut y);
                y
            });
        }
    }
}

#[test]
fn fused_residual_equals_the_two_steps() {
    let (rows, dim) = (70, 640);
    let mut seeded = Seeded::new(5);
    let [x, delta] = [0; 2].map(|_| seeded.values(rows * dim));
    let weight = seeded.values(dim);
    let sum: Vec<f32> = x.iter().zip(&delta).map(|(x, d)| x + d).collect();
    for isa in Isa::available() {
        for threads in [1, 2, 3] {
            let cpu = cpu(threads, isa);
            let mut want = vec![0.0; sum.len()];
            rms_norm::cpu(&cpu, &sum, &weight, EPS, &mut want);
            let (mut residual, mut y) = (x.clone(), vec![f32::NAN; x.len()]);
            rms_norm::add_cpu(&cpu, &mut residual, &delta, &weight, EPS, &mut y);
            assert_eq!(bits_of(&residual), bits_of(&sum));
            assert_eq!(bits_of(&y), bits_of(&want));
        }
    }
}

#[test]
#[should_panic(expected = "x has 5 values, not whole rows of 2")]
fn rms_norm_refuses_a_partial_row() {
    rms_norm::cpu(&cpu(1, Isa::Portable), &[0.0; 5], &[0.0; 2], EPS, &mut [0.0; 5]);
}

#[test]
fn swiglu_agrees_with_its_spec() {
    for n in [0, 1, 15, 16, 33, 1000, 50_000] {
        let mut seeded = Seeded::new(n as u64);
        let gate: Vec<f32> = seeded.values(n).iter().map(|x| x * 20.0).collect();
        let up = seeded.values(n);
        let mut want = gate.clone();
        swiglu::spec(&mut want, &up);
        check(swiglu::MAX_NMSE, &want, |cpu| {
            let mut y = gate.clone();
            swiglu::cpu(cpu, &mut y, &up);
            y
        });
    }
}

#[test]
fn swiglu_is_finite_at_the_ends_of_the_range() {
    for isa in Isa::available() {
        let mut gate = [0.0, -200.0, 200.0, f32::MIN, f32::MAX, -88.0];
        swiglu::cpu(&cpu(1, isa), &mut gate, &[2.0; 6]);
        assert_eq!(gate[0], 0.0, "{isa}");
        assert_eq!(gate[1], 0.0, "{isa}");
        assert_eq!(gate[2], 400.0, "{isa}");
        assert_eq!(gate[3], 0.0, "{isa}");
        assert_eq!(gate[4], f32::INFINITY, "{isa}: twice the largest f32");
        assert!(gate[5].abs() < 1e-35, "{isa}");
    }
}

/// A layer's keys and values of one head, slot by slot.
fn read(layer: &KvLayer, head: usize) -> (Vec<f32>, Vec<f32>) {
    let dim = layer.head_dim();
    let (mut keys, mut values) = (vec![0.0; layer.n_slots() * dim], vec![0.0; layer.n_slots() * dim]);
    for slot in 0..layer.n_slots() {
        layer.key(head, Slot(slot as u32), &mut keys[slot * dim..][..dim]);
        layer.value(head, Slot(slot as u32), &mut values[slot * dim..][..dim]);
    }
    (keys, values)
}

#[test]
fn kv_store_writes_each_head_to_its_slot_and_nothing_else() {
    let (n_slots, n_kv_heads, head_dim) = (9, 3, 6);
    let slots = [Slot(7), Slot(0), Slot(4)];
    let mut seeded = Seeded::new(1);
    let [k, v] = [0; 2].map(|_| seeded.values(slots.len() * n_kv_heads * head_dim));
    for (isa, threads, dtype) in Isa::available()
        .flat_map(|isa| [1, 2, 3].map(|n| (isa, n)))
        .flat_map(|(isa, n)| [KvDType::F32, KvDType::BF16].map(|d| (isa, n, d)))
    {
        let mut layer = KvLayer::new(n_slots, n_kv_heads, head_dim, dtype);
        kv_store::cpu(&cpu(threads, isa), &k, &v, &slots, &mut layer);
        for head in 0..n_kv_heads {
            let (keys, values) = read(&layer, head);
            for slot in 0..n_slots {
                let token = slots.iter().position(|s| s.0 as usize == slot);
                for d in 0..head_dim {
                    let want = |x: &[f32]| {
                        token
                            .map_or(0.0, |t| kv_store::spec(x[(t * n_kv_heads + head) * head_dim + d], dtype))
                    };
                    assert_eq!(keys[slot * head_dim + d], want(&k));
                    assert_eq!(values[slot * head_dim + d], want(&v));
                }
            }
        }
    }
}

#[test]
fn the_last_token_of_a_slot_listed_twice_wins() {
    let mut layer = KvLayer::new(1, 1, 2, KvDType::F32);
    let (k, v) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
    kv_store::cpu(&cpu(3, Isa::Portable), &k, &v, &[Slot(0), Slot(0)], &mut layer);
    assert_eq!(read(&layer, 0), (vec![3.0, 4.0], vec![7.0, 8.0]));
}

#[test]
#[should_panic(expected = "slot 4 is outside a KV layer of 4 slots")]
fn kv_store_refuses_a_slot_outside_the_layer() {
    let mut layer = KvLayer::new(4, 1, 2, KvDType::F32);
    kv_store::cpu(&cpu(1, Isa::Portable), &[0.0; 2], &[0.0; 2], &[Slot(4)], &mut layer);
}

#[test]
#[should_panic(expected = "1 slots of 2 x 2 need 4 values, got 4 keys and 2 values")]
fn kv_store_refuses_a_partial_row() {
    let mut layer = KvLayer::new(4, 2, 2, KvDType::F32);
    kv_store::cpu(&cpu(1, Isa::Portable), &[0.0; 4], &[0.0; 2], &[Slot(3)], &mut layer);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Scaling a row leaves its norm's direction: y is the same up to eps.
    #[test]
    fn rms_norm_ignores_the_scale_of_a_row(scale in 0.5f32..100.0, seed: u64) {
        let x: Vec<f32> = Seeded::new(seed).values(96);
        let scaled: Vec<f32> = x.iter().map(|x| x * scale).collect();
        let weight = vec![1.0; 96];
        let [mut a, mut b] = [vec![0.0; 96], vec![0.0; 96]];
        rms_norm::cpu(&cpu(1, Isa::detect()), &x, &weight, 0.0, &mut a);
        rms_norm::cpu(&cpu(1, Isa::detect()), &scaled, &weight, 0.0, &mut b);
        prop_assert!(nmse(&a, &b) < 1e-12);
    }

    /// What is stored is what bf16 can hold nearest to the input.
    #[test]
    fn kv_store_rounds_to_the_nearest(x in -1e30f32..1e30) {
        let mut layer = KvLayer::new(1, 1, 2, KvDType::BF16);
        kv_store::cpu(&cpu(1, Isa::detect()), &[x, -x], &[x, x], &[Slot(0)], &mut layer);
        let mut row = [0.0; 2];
        layer.key(0, Slot(0), &mut row);
        let want = bf16::from_f32(x).to_f32();
        prop_assert_eq!(row, [want, -want]);
        prop_assert!((f64::from(row[0]) - f64::from(x)).abs() <= f64::from(x).abs() / 256.0);
    }
}
