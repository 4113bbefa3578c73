//! Decoding of blocks against the values of the `gguf` Python package, bit for bit, and of matrices against blocks.

use half::bf16;
use kernels::KernelError;
use kernels::dtype::DType;
use kernels::ops::matmul::Matrix;
use kernels::quant::dequantize;
use safetensors::SafeTensors;

use crate::seeded::{Seeded, bits_of, random_matrix};

/// Bytes and values of a format in the golden file.
fn golden(dtype: DType) -> (Vec<u8>, Vec<f32>) {
    let file = SafeTensors::deserialize(include_bytes!("../golden/quant_blocks.safetensors")).unwrap();
    let bytes = file.tensor(&format!("{dtype}.bytes")).unwrap().data().to_vec();
    let values = file.tensor(&format!("{dtype}.f32")).unwrap().data().to_vec();
    let values = values.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    (bytes, values)
}

const GOLDEN: [DType; 6] = [DType::F16, DType::BF16, DType::Q8_0, DType::Q5_0, DType::Q4K, DType::Q6K];

#[test]
fn blocks_decode_to_the_bits_of_gguf_py() {
    for dtype in GOLDEN {
        let (bytes, want) = golden(dtype);
        assert!(want.len() >= 384, "{dtype}");
        let mut got = vec![f32::NAN; want.len()];
        dequantize(dtype, &bytes, &mut got).unwrap();
        assert_eq!(bits_of(&got), bits_of(&want), "{dtype}");
    }
}

#[test]
fn matrix_rows_decode_to_the_bits_of_gguf_py() {
    for dtype in GOLDEN {
        let (bytes, want) = golden(dtype);
        for rows in [1, 2, 4] {
            let cols = want.len() / rows;
            let matrix = Matrix::from_bytes(dtype, rows, cols, &bytes).unwrap();
            let mut got = vec![f32::NAN; cols];
            for r in 0..rows {
                matrix.row(r, &mut got);
                assert_eq!(bits_of(&got), bits_of(&want[r * cols..][..cols]), "{dtype} row {r}");
            }
        }
    }
}

#[test]
fn f32_and_bf16_values_are_taken_as_they_are() {
    let mut seeded = Seeded::new(1);
    let bytes = seeded.bytes(4000);
    let mut got = vec![0.0; 1000];
    dequantize(DType::F32, &bytes, &mut got).unwrap();
    let want: Vec<u32> = bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(bits_of(&got), want);

    for bits in 0..=u16::MAX {
        let mut got = [0.0];
        dequantize(DType::BF16, &bits.to_le_bytes(), &mut got).unwrap();
        let want = bf16::from_bits(bits).to_f32();
        assert!(got[0].to_bits() == u32::from(bits) << 16 || (got[0].is_nan() && want.is_nan()));
    }
}

#[test]
fn rows_survive_interleaving_at_odd_shapes() {
    for dtype in DType::ALL {
        let block = dtype.block_len();
        for (rows, blocks) in [(1, 1), (31, 2), (32, 1), (33, 3), (70, 5)] {
            let cols = block * blocks;
            let (bytes, matrix) = random_matrix(dtype, rows, cols);
            assert_eq!((matrix.rows(), matrix.cols(), matrix.dtype()), (rows, cols, dtype));
            assert!(matrix.resident_bytes() >= bytes.len());
            let (mut got, mut want) = (vec![0.0; cols], vec![1.0; cols]);
            for (r, row) in bytes.chunks_exact(bytes.len() / rows).enumerate() {
                matrix.row(r, &mut got);
                dequantize(dtype, row, &mut want).unwrap();
                assert_eq!(bits_of(&got), bits_of(&want), "{dtype} {rows}x{cols} row {r}");
            }
        }
    }
}

#[test]
fn weights_are_held_once_at_their_own_size() {
    for dtype in DType::ALL {
        let (bytes, matrix) = random_matrix(dtype, 64, 512);
        assert_eq!(matrix.resident_bytes(), bytes.len(), "{dtype}");
    }
}

#[test]
fn a_shape_that_does_not_fit_its_bytes_is_refused_with_both_named() {
    let error = Matrix::from_bytes(DType::Q6K, 2, 300, &[]).unwrap_err();
    assert_eq!(error, KernelError::Columns { dtype: DType::Q6K, cols: 300, block: 256 });

    let error = Matrix::from_bytes(DType::Q8_0, 3, 64, &[0; 203]).unwrap_err();
    let want = KernelError::Bytes { dtype: DType::Q8_0, rows: 3, cols: 64, expected: 204, got: 203 };
    assert_eq!(error, want);
    assert!(error.to_string().contains("3 x 64") && error.to_string().contains("203"));

    let error = Matrix::from_bytes(DType::BF16, usize::MAX / 2, 2, &[0; 4]).unwrap_err();
    assert_eq!(error, KernelError::TooLarge { dtype: DType::BF16, rows: usize::MAX / 2, cols: 2 });

    let error = dequantize(DType::Q4K, &[0; 144], &mut [0.0; 512]).unwrap_err();
    assert!(matches!(error, KernelError::Bytes { expected: 288, got: 144, .. }));
}

#[test]
fn empty_matrices_are_matrices() {
    for dtype in DType::ALL {
        for (rows, cols) in [(0, 0), (0, 256), (5, 0)] {
            let matrix = Matrix::from_bytes(dtype, rows, cols, &[]).unwrap();
            assert_eq!((matrix.rows(), matrix.cols(), matrix.resident_bytes()), (rows, cols, 0));
        }
    }
}
