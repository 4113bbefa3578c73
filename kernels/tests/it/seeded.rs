//! Seeded inputs for the tests: the same values on every machine and in every run.

use half::{bf16, f16};
use kernels::dtype::DType;
use kernels::ops::matmul::Matrix;

/// A stream of pseudo-random numbers (splitmix64, Steele, Lea and Flood 2014).
pub struct Seeded(u64);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in -1..1, with 24 bits.
    pub fn value(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.bits() as u8).collect()
    }
}

/// The mean squared error of `got` relative to the mean square of `want`.
pub fn nmse(want: &[f32], got: &[f32]) -> f64 {
    assert_eq!(want.len(), got.len());
    let error: f64 = want.iter().zip(got).map(|(w, g)| (f64::from(*w) - f64::from(*g)).powi(2)).sum();
    let signal: f64 = want.iter().map(|w| f64::from(*w).powi(2)).sum();
    if error == 0.0 { 0.0 } else { error / signal }
}

pub fn bits_of(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Random bytes that are valid values of `dtype`, of moderate size, for `rows` x `cols`; and their matrix.
pub fn random_matrix(dtype: DType, rows: usize, cols: usize) -> (Vec<u8>, Matrix) {
    let mut seeded = Seeded::new((rows * 7919 + cols) as u64);
    let n_blocks = rows * cols / dtype.block_len();
    let mut bytes = Vec::new();
    for _ in 0..n_blocks {
        let scale = |seeded: &mut Seeded| f16::from_f32(seeded.value() * 0.01).to_le_bytes();
        let mut block = match dtype {
            DType::F32 => seeded.value().to_le_bytes().to_vec(),
            DType::F16 => f16::from_f32(seeded.value()).to_le_bytes().to_vec(),
            DType::BF16 => bf16::from_f32(seeded.value()).to_le_bytes().to_vec(),
            DType::Q8_0 | DType::Q5_0 | DType::Q4K | DType::Q6K => seeded.bytes(dtype.block_bytes()),
        };
        let scales: &[usize] = match dtype {
            DType::F32 | DType::F16 | DType::BF16 => &[],
            DType::Q8_0 | DType::Q5_0 => &[0],
            DType::Q4K => &[0, 2],
            DType::Q6K => &[208],
        };
        for at in scales {
            block[*at..at + 2].copy_from_slice(&scale(&mut seeded));
        }
        bytes.extend(block);
    }
    let matrix = Matrix::from_bytes(dtype, rows, cols, &bytes).unwrap();
    (bytes, matrix)
}
