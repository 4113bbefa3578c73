//! The norm and rotation of heads: the fast version against its spec, on every instruction set, and the same bits on
//! any number of threads.

use std::num::NonZeroUsize;

use kernels::device::{Cpu, Isa};
use kernels::ops::qk_norm_rope::{self, Angles, HeadNorm, Positions, Rotation};
use kernels::ops::rms_norm;
use proptest::prelude::*;

use crate::seeded::{Seeded, bits_of, nmse};

const EPS: f32 = 1e-6;
const THETA: f64 = 1e6;

fn cpu(threads: usize, isa: Isa) -> Cpu {
    Cpu::with_isa(NonZeroUsize::new(threads), isa)
}

#[test]
fn a_quarter_circle_turns() {
    // One pair and theta 1: the angle is the position itself, in radians; at position 0 nothing turns. The mean square
    // of each head is 12.5, so that eps 3.5 makes the divisor 4.
    let x = [3.0, 4.0, 5.0, 0.0];
    let mut y = [f32::NAN; 4];
    let norm = HeadNorm { n_heads: 1, weight: &[4.0, 8.0], eps: 3.5 };
    let angles = Angles::new(2, 1.0, 0, 2);
    qk_norm_rope::cpu(&cpu(1, Isa::Portable), &x, norm, Rotation::By(&angles), &mut y);
    assert_eq!(y, [3.0, 8.0, 5.0 * 1f64.cos() as f32, 5.0 * 1f64.sin() as f32]);
    qk_norm_rope::cpu(&cpu(1, Isa::Portable), &x, norm, Rotation::Off, &mut y);
    assert_eq!(y, [3.0, 8.0, 5.0, 0.0]);
    qk_norm_rope::spec(&x, norm, Rotation::Off, &mut y);
    assert_eq!(y, [3.0, 8.0, 5.0, 0.0]);
    assert_eq!((angles.head_dim(), angles.n_positions(), angles.table().len()), (2, 2, 4));
}

#[test]
fn the_halves_of_a_head_are_paired() {
    // Only value 1 is set: it must turn with value 1 + 2, by the second frequency, and touch nothing else.
    let mut y = [f32::NAN; 4];
    let norm = HeadNorm { n_heads: 1, weight: &[1.0; 4], eps: 0.0 };
    let angles = Angles::new(4, 16.0, 8, 1);
    qk_norm_rope::cpu(&cpu(1, Isa::Portable), &[0.0, 2.0, 0.0, 0.0], norm, Rotation::By(&angles), &mut y);
    let angle = 8.0 / 16f64.sqrt();
    assert_eq!(y, [0.0, 2.0 * angle.cos() as f32, 0.0, 2.0 * angle.sin() as f32]);
}

#[test]
fn agrees_with_the_spec_at_any_position() {
    for head_dim in [2, 32, 48, 64, 128] {
        for (n_tokens, n_heads, start) in [(1, 1, 0), (2, 3, 63), (17, 6, 700), (130, 16, 100_000)] {
            let mut seeded = Seeded::new((head_dim + start) as u64);
            let (x, weight) = (seeded.values(n_tokens * n_heads * head_dim), seeded.values(head_dim));
            let norm = HeadNorm { n_heads, weight: &weight, eps: EPS };
            let angles = Angles::new(head_dim, THETA, start, n_tokens);
            let mut want = vec![0.0; x.len()];
            qk_norm_rope::spec(&x, norm, Rotation::By(Positions { theta: THETA, start }), &mut want);
            for isa in Isa::available() {
                let run = |threads| {
                    let mut y = vec![f32::NAN; x.len()];
                    qk_norm_rope::cpu(&cpu(threads, isa), &x, norm, Rotation::By(&angles), &mut y);
                    y
                };
                let got = run(1);
                let error = nmse(&want, &got);
                assert!(error <= qk_norm_rope::MAX_NMSE, "{isa}: error {error:e}");
                for threads in [2, 3] {
                    assert_eq!(bits_of(&run(threads)), bits_of(&got), "{isa}, {threads} threads");
                }
            }
        }
    }
}

#[test]
fn without_rotation_it_is_the_norm_of_rows() {
    let mut seeded = Seeded::new(3);
    let (x, weight) = (seeded.values(130 * 3 * 48), seeded.values(48));
    let norm = HeadNorm { n_heads: 3, weight: &weight, eps: EPS };
    for isa in Isa::available() {
        let [mut want, mut got] = [0; 2].map(|_| vec![f32::NAN; x.len()]);
        rms_norm::cpu(&cpu(1, isa), &x, &weight, EPS, &mut want);
        qk_norm_rope::cpu(&cpu(2, isa), &x, norm, Rotation::Off, &mut got);
        assert_eq!(bits_of(&got), bits_of(&want), "{isa}");
    }
}

#[test]
#[should_panic(expected = "x must be 2 tokens of 3 heads of 4")]
fn angles_of_other_tokens_are_refused() {
    let norm = HeadNorm { n_heads: 3, weight: &[1.0; 4], eps: EPS };
    let angles = Angles::new(4, THETA, 0, 2);
    qk_norm_rope::cpu(&cpu(1, Isa::Portable), &[0.0; 12], norm, Rotation::By(&angles), &mut [0.0; 12]);
}

#[test]
#[should_panic(expected = "x has 23 values, not whole tokens of 3 heads of an even 4")]
fn a_partial_token_is_refused() {
    let norm = HeadNorm { n_heads: 3, weight: &[1.0; 4], eps: EPS };
    qk_norm_rope::cpu(&cpu(1, Isa::Portable), &[0.0; 23], norm, Rotation::Off, &mut [0.0; 23]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A rotation keeps the length of every pair, whatever the position.
    #[test]
    fn lengths_are_kept(start in 0usize..200_000, seed: u64) {
        let x = Seeded::new(seed).values(4 * 2 * 16);
        let [mut normed, mut turned] = [0; 2].map(|_| vec![f32::NAN; x.len()]);
        let norm = HeadNorm { n_heads: 2, weight: &[1.0; 16], eps: EPS };
        let (cpu, angles) = (cpu(1, Isa::detect()), Angles::new(16, THETA, start, 4));
        qk_norm_rope::cpu(&cpu, &x, norm, Rotation::Off, &mut normed);
        qk_norm_rope::cpu(&cpu, &x, norm, Rotation::By(&angles), &mut turned);
        for (x, y) in normed.chunks(16).zip(turned.chunks(16)) {
            for i in 0..8 {
                let length = |h: &[f32]| f64::from(h[i]).hypot(f64::from(h[i + 8]));
                prop_assert!((length(x) - length(y)).abs() < 1e-6);
            }
        }
    }
}
