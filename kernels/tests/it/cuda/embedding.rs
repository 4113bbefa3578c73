//! Embedding rows on the device, of every number format.

use kernels::device::cuda::DeviceMatrix;
use kernels::dtype::DType;
use kernels::ops::embedding;

use crate::cuda::devices;
use crate::cuda::parity::check;
use crate::seeded::random_matrix;

#[test]
fn rows_of_every_format_are_exact() {
    for dtype in DType::ALL {
        for (rows, cols) in [(5, 256), (3, 1280), (2, 2304)] {
            let (bytes, matrix) = random_matrix(dtype, rows, cols);
            let tokens: Vec<u32> = [1, 0, rows as u32 - 1, 1].to_vec();
            let mut want = vec![0.0; tokens.len() * cols];
            embedding::spec(&tokens, &matrix, &mut want).unwrap();
            check(embedding::MAX_NMSE_CUDA, &want, |cuda| {
                let w = DeviceMatrix::upload(cuda, dtype, rows, cols, &bytes).unwrap();
                let (tokens, mut out) = (cuda.upload(&tokens).unwrap(), cuda.alloc(want.len()).unwrap());
                embedding::cuda(cuda, tokens.view(), &w, out.view_mut()).unwrap();
                out.read().unwrap()
            });
        }
    }
}

#[test]
fn rows_of_odd_lengths_are_exact() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for cols in [1, 2, 7, 9, 130] {
            let (bytes, matrix) = random_matrix(dtype, 4, cols);
            let mut want = vec![0.0; 3 * cols];
            embedding::spec(&[3, 3, 0], &matrix, &mut want).unwrap();
            check(embedding::MAX_NMSE_CUDA, &want, |cuda| {
                let w = DeviceMatrix::upload(cuda, dtype, 4, cols, &bytes).unwrap();
                let (tokens, mut out) =
                    (cuda.upload(&[3u32, 3, 0]).unwrap(), cuda.alloc(want.len()).unwrap());
                embedding::cuda(cuda, tokens.view(), &w, out.view_mut()).unwrap();
                out.read().unwrap()
            });
        }
    }
}

#[test]
fn a_token_without_a_row_gives_no_number() {
    for (dtype, cols) in [(DType::Q8_0, 32), (DType::F32, 3)] {
        for cuda in devices() {
            let (bytes, _) = random_matrix(dtype, 2, cols);
            let w = DeviceMatrix::upload(&cuda, dtype, 2, cols, &bytes).unwrap();
            let (tokens, mut out) =
                (cuda.upload(&[2u32, u32::MAX, 1]).unwrap(), cuda.zeroed(3 * cols).unwrap());
            embedding::cuda(&cuda, tokens.view(), &w, out.view_mut()).unwrap();
            let got: Vec<f32> = out.read().unwrap();
            assert!(got[..2 * cols].iter().all(|x| x.is_nan()));
            assert!(got[2 * cols..].iter().all(|x| x.is_finite()));
        }
    }
}

#[test]
fn no_token_is_no_work() {
    for cuda in devices() {
        let w = DeviceMatrix::upload(&cuda, DType::F32, 1, 8, &[0; 32]).unwrap();
        let (tokens, mut out) = (cuda.alloc(0).unwrap(), cuda.alloc(0).unwrap());
        embedding::cuda(&cuda, tokens.view(), &w, out.view_mut()).unwrap();
    }
}
