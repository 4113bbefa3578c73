//! Matmul against its specification, and the independence of each output from everything but its own inputs.

use std::num::NonZeroUsize;

use half::bf16;
use kernels::device::{Cpu, Isa};
use kernels::dtype::DType;
use kernels::ops::matmul::{self, MAX_NMSE, Matrix};
use proptest::prelude::*;

use crate::seeded::{Seeded, bits_of, nmse, random_matrix};

fn cpu(threads: usize, isa: Isa) -> Cpu {
    Cpu::with_isa(NonZeroUsize::new(threads), isa)
}

fn multiply(cpu: &Cpu, x: &[f32], w: &Matrix) -> Vec<f32> {
    let n_tokens = x.len() / w.cols();
    let mut y = vec![f32::NAN; n_tokens * w.rows()];
    matmul::cpu(cpu, x, w, &mut y);
    y
}

fn specified(x: &[f32], w: &Matrix) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len() / w.cols() * w.rows()];
    matmul::spec(x, w, &mut y);
    y
}

/// (n_tokens, rows, columns in blocks): one, odd, around the tile's 12 rows, the panel's 32, the blocks of the inner
/// dimension and of tokens.
const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (1, 33, 3),
    (2, 31, 2),
    (3, 64, 1),
    (5, 70, 4),
    (12, 32, 2),
    (13, 97, 3),
    (31, 130, 1),
    (300, 40, 1),
];

#[test]
fn agrees_with_the_specification_for_every_format_and_instruction_set() {
    for dtype in DType::ALL {
        for (n_tokens, rows, blocks) in SHAPES {
            let cols = if dtype.block_len() == 1 { 173 * blocks } else { dtype.block_len() * blocks };
            let (_, w) = random_matrix(dtype, rows, cols);
            let x = Seeded::new(9).values(n_tokens * cols);
            let want = specified(&x, &w);
            for isa in Isa::available() {
                let error = nmse(&want, &multiply(&cpu(2, isa), &x, &w));
                assert!(error < MAX_NMSE, "{dtype} {isa} {n_tokens}x{rows}x{cols}: {error:e}");
            }
        }
    }
}

#[test]
fn agrees_with_the_specification_at_a_real_depth() {
    for dtype in DType::ALL {
        let (_, w) = random_matrix(dtype, 48, 2560);
        let x = Seeded::new(10).values(17 * 2560);
        let want = specified(&x, &w);
        for isa in Isa::available() {
            let error = nmse(&want, &multiply(&cpu(1, isa), &x, &w));
            assert!(error < MAX_NMSE, "{dtype} {isa}: {error:e}");
        }
    }
}

#[test]
fn a_token_has_the_same_bits_alone_and_among_others_on_any_number_of_threads() {
    for dtype in DType::ALL {
        let (rows, cols) = (75, if dtype.block_len() == 1 { 601 } else { 768 });
        let (_, w) = random_matrix(dtype, rows, cols);
        let x = Seeded::new(11).values(29 * cols);
        for isa in Isa::available() {
            let all = bits_of(&multiply(&cpu(1, isa), &x, &w));
            for threads in [2, 3] {
                assert_eq!(bits_of(&multiply(&cpu(threads, isa), &x, &w)), all, "{dtype} {isa} {threads}");
            }
            // Every way of cutting the tokens into calls: one by one, by fours (the most that are multiplied while
            // they are decoded), and by odd numbers that move each token to another place in its tile.
            for step in [1, 4, 5, 11] {
                let parts = x.chunks(step * cols).flat_map(|x| bits_of(&multiply(&cpu(1, isa), x, &w)));
                assert_eq!(parts.collect::<Vec<_>>(), all, "{dtype} {isa} by {step}");
            }
        }
    }
}

#[test]
fn blocks_of_tokens_and_depth_do_not_show() {
    // Beyond 264 tokens and 512 words, x is cut into blocks.
    let cols = 1100;
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let (_, w) = random_matrix(dtype, 33, cols);
        let x = Seeded::new(12).values(600 * cols);
        let cpu = cpu(2, Isa::detect());
        let all = bits_of(&multiply(&cpu, &x, &w));
        for t in [0, 1, 263, 264, 265, 599] {
            assert_eq!(
                bits_of(&multiply(&cpu, &x[t * cols..][..cols], &w)),
                all[t * 33..][..33],
                "{dtype} {t}"
            );
        }
    }
}

#[test]
fn small_integers_multiply_exactly() {
    // x = (1, 2, 3; -1, 0, 4), w = (1, 0, 2; 5, 6, 7): sums small enough to be exact in every format.
    let x = [1.0, 2.0, 3.0, -1.0, 0.0, 4.0];
    let w = [1.0, 0.0, 2.0, 5.0, 6.0, 7.0_f32];
    let bytes: Vec<u8> = w.iter().flat_map(|v| v.to_le_bytes()).collect();
    let narrow: Vec<u8> = w.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
    for (dtype, bytes) in [(DType::F32, bytes), (DType::BF16, narrow)] {
        let w = Matrix::from_bytes(dtype, 2, 3, &bytes).unwrap();
        assert_eq!(specified(&x, &w), [7.0, 38.0, 7.0, 23.0]);
        for isa in Isa::available() {
            assert_eq!(multiply(&cpu(1, isa), &x, &w), [7.0, 38.0, 7.0, 23.0]);
        }
    }
}

#[test]
fn bf16_weights_round_the_activations() {
    // 1 + 2^-9 lies between the bf16 values 1 and 1 + 2^-7, nearer to 1; 1 + 2^-8 is a tie and goes to even, 1.
    let w = Matrix::from_bytes(DType::BF16, 1, 2, &[0x80, 0x3f, 0x80, 0x3f]).unwrap();
    let x = [1.0 + 2.0_f32.powi(-9), 1.0 + 2.0_f32.powi(-8)];
    assert_eq!(specified(&x, &w), [2.0]);
    for isa in Isa::available() {
        assert_eq!(multiply(&cpu(1, isa), &x, &w), [2.0]);
    }
}

#[test]
fn infinities_and_nan_reach_the_output_and_stay_in_their_row() {
    for dtype in DType::ALL {
        let cols = 2 * dtype.block_len().max(8);
        let (_, w) = random_matrix(dtype, 40, cols);
        let mut x = Seeded::new(13).values(3 * cols);
        let clean = multiply(&cpu(1, Isa::detect()), &x, &w);
        x[cols + 1] = f32::NAN;
        for isa in Isa::available() {
            let y = multiply(&cpu(1, isa), &x, &w);
            assert!(y[40..80].iter().all(|v| v.is_nan()), "{dtype} {isa}");
            assert!(y[..40].iter().chain(&y[80..]).all(|v| v.is_finite()), "{dtype} {isa}");
        }
        assert!(clean.iter().all(|v| v.is_finite()));
    }
}

#[test]
fn nothing_by_nothing_is_nothing_and_an_empty_sum_is_zero() {
    let cpu = cpu(2, Isa::detect());
    for dtype in DType::ALL {
        let empty = Matrix::from_bytes(dtype, 0, 256, &[]).unwrap();
        matmul::cpu(&cpu, &[], &empty, &mut []);
        let (_, w) = random_matrix(dtype, 3, 256);
        matmul::cpu(&cpu, &[], &w, &mut []);
        let flat = Matrix::from_bytes(dtype, 3, 0, &[]).unwrap();
        for n_tokens in [1, 20] {
            let mut y = vec![f32::NAN; 3 * n_tokens];
            matmul::cpu(&cpu, &[], &flat, &mut y);
            assert_eq!(y, vec![0.0; 3 * n_tokens], "{dtype}");
        }
    }
}

#[test]
#[should_panic(expected = "x: 7 elements for 2 tokens of 4 columns")]
fn activations_of_another_shape_panic() {
    let (_, w) = random_matrix(DType::F32, 3, 4);
    matmul::cpu(&cpu(1, Isa::detect()), &[0.0; 7], &w, &mut [0.0; 6]);
}

#[test]
fn the_cost_counts_weights_once_and_two_operations_each() {
    let (bytes, w) = random_matrix(DType::Q4K, 10, 512);
    let cost = matmul::cost(3, &w);
    assert_eq!(cost.flops, 2 * 3 * 10 * 512);
    assert_eq!(cost.bytes, bytes.len() as u64 + 4 * 3 * (10 + 512));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_shape_agrees_with_the_specification(
        n_tokens in 1usize..40, rows in 1usize..80, blocks in 1usize..40, format in 0usize..7, isa in 0usize..4,
    ) {
        let (dtype, isa) = (DType::ALL[format], Isa::ALL[isa]);
        let cols = dtype.block_len() * if dtype.block_len() == 256 { blocks.div_ceil(10) } else { blocks };
        let (_, w) = random_matrix(dtype, rows, cols);
        let x = Seeded::new(14).values(n_tokens * cols);
        let error = nmse(&specified(&x, &w), &multiply(&cpu(2, isa), &x, &w));
        prop_assert!(error < MAX_NMSE, "{dtype} {isa} {n_tokens}x{rows}x{cols}: {error:e}");
    }
}
