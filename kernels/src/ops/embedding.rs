//! The rows of the embedding matrix that belong to tokens: `out[t, c] = w[tokens[t], c]`, decoded exactly.
//!
//! Shapes: w (n_vocab, dim) a [`Matrix`]; out (n_tokens, dim) f32, row-major. It knows nothing of what the tokens
//! spell.

use crate::cost::Cost;
use crate::device::Cpu;
use crate::device::cuda::{Args, Cuda, DeviceMatrix, Grid, View, ViewMut};
use crate::dtype::DType;
use crate::error::KernelError;
use crate::ops::matmul::Matrix;

/// The plain version.
///
/// # Errors
/// [`KernelError::Token`] if a token has no row.
///
/// # Panics
/// If `out` is not one row for each token.
pub fn spec(tokens: &[u32], w: &Matrix, out: &mut [f32]) -> Result<(), KernelError> {
    assert_eq!(out.len(), tokens.len() * w.cols(), "embedding: out of {} tokens", tokens.len());
    check(tokens, w)?;
    for (t, token) in tokens.iter().enumerate() {
        w.row(*token as usize, &mut out[t * w.cols()..][..w.cols()]);
    }
    Ok(())
}

/// The fast version: a token is an item of work.
///
/// # Errors
/// [`KernelError::Token`] if a token has no row; nothing is written then.
///
/// # Panics
/// If `out` is not one row for each token.
pub fn cpu(cpu: &Cpu, tokens: &[u32], w: &Matrix, out: &mut [f32]) -> Result<(), KernelError> {
    assert_eq!(out.len(), tokens.len() * w.cols(), "embedding: out of {} tokens", tokens.len());
    check(tokens, w)?;
    cpu.parallel_chunks(out, w.cols(), |t, row| w.row(tokens[t] as usize, row));
    Ok(())
}

/// The same on the device. A token without a row gives a row of NaN, as the tokens are out of the launcher's sight;
/// [`KernelError::Token`] is for whoever makes them.
///
/// # Errors
/// [`KernelError::Launch`] if the driver refuses the launch.
///
/// # Panics
/// If `out` is not one row for each token, or begins off a multiple of 16 bytes.
pub fn cuda(
    cuda: &Cuda,
    tokens: View<'_, u32>,
    w: &DeviceMatrix,
    mut out: ViewMut<'_, f32>,
) -> Result<(), KernelError> {
    assert_eq!(out.len(), tokens.len() * w.cols, "embedding: out of {} tokens", tokens.len());
    assert!(out.address().is_multiple_of(16), "embedding: rows are written in vectors");
    let kernel = match w.dtype {
        DType::F32 => "embedding_f32",
        DType::F16 => "embedding_f16",
        DType::BF16 => "embedding_bf16",
        DType::Q8_0 => "embedding_q8_0",
        DType::Q5_0 => "embedding_q5_0",
        DType::Q4K => "embedding_q4_k",
        DType::Q6K => "embedding_q6_k",
    };
    let blocks = [tokens.len() as u32, w.cols.div_ceil(1024) as u32, 1];
    let args = Args::new().view(tokens).view(w.bytes.view()).view_mut(&mut out).i32(w.rows as i32);
    let args = args.i32(w.cols as i32).u64(w.dtype.row_bytes(w.cols)? as u64);
    // SAFETY: the kernel reads a token a block and a row of w that exists, and writes the token's row of out.
    unsafe { cuda.launch(kernel, Grid { blocks, threads: 128, shared_bytes: 0 }, &args) }
}

/// Reads a row of w and writes one of f32 for each token; no arithmetic.
pub fn cost(n_tokens: usize, w: &Matrix) -> Cost {
    let (n, cols, dtype) = (n_tokens as u64, w.cols() as u64, w.dtype());
    Cost { bytes: n * (cols / dtype.block_len() as u64 * dtype.block_bytes() as u64 + 4 * cols), flops: 0 }
}

/// The largest squared relative error of `cpu` against `spec`: none, both decode the same bytes exactly.
pub const MAX_NMSE: f64 = 0.0;

/// The same of `cuda`: none either, products are exact and Q4_K's one subtraction is rounded alike.
pub const MAX_NMSE_CUDA: f64 = 0.0;

/// Every token has a row.
fn check(tokens: &[u32], w: &Matrix) -> Result<(), KernelError> {
    match tokens.iter().position(|token| *token as usize >= w.rows()) {
        None => Ok(()),
        Some(position) => Err(KernelError::Token { token: tokens[position], position, rows: w.rows() }),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn matrix() -> Matrix {
        let bytes: Vec<u8> = (0..40 * 3).flat_map(|i| (i as f32).to_le_bytes()).collect();
        Matrix::from_bytes(DType::F32, 40, 3, &bytes).unwrap()
    }

    #[test]
    fn each_token_gets_its_row_on_any_number_of_threads() {
        let (w, tokens) = (matrix(), [39, 0, 33, 33]);
        let mut want = vec![0.0; 12];
        spec(&tokens, &w, &mut want).unwrap();
        assert_eq!(want, [117.0, 118.0, 119.0, 0.0, 1.0, 2.0, 99.0, 100.0, 101.0, 99.0, 100.0, 101.0]);
        for threads in 1..=3 {
            let mut got = vec![f32::NAN; 12];
            cpu(&Cpu::new(NonZeroUsize::new(threads)), &tokens, &w, &mut got).unwrap();
            let error: f64 = want.iter().zip(&got).map(|(w, g)| f64::from(w - g).powi(2)).sum();
            assert!(error <= MAX_NMSE);
        }
    }

    #[test]
    fn a_token_without_a_row_is_named_and_nothing_is_written() {
        let mut out = vec![7.0; 6];
        let error = cpu(&Cpu::new(NonZeroUsize::new(1)), &[1, 40], &matrix(), &mut out).unwrap_err();
        assert_eq!(error, KernelError::Token { token: 40, position: 1, rows: 40 });
        assert_eq!(out, [7.0; 6]);
        assert!(spec(&[40], &matrix(), &mut out[..3]).unwrap_err().to_string().contains("40 rows"));
    }

    #[test]
    fn the_cost_counts_rows_not_the_matrix() {
        assert_eq!(cost(2, &matrix()), Cost { bytes: 2 * (12 + 12), flops: 0 });
    }
}
