//! The number formats weights come in: how many values a block holds and how many bytes it takes. It knows nothing
//! of files or of how the values are decoded.

use std::fmt;

use crate::error::KernelError;

/// A number format of weights. Quantised formats hold blocks of values that share scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// 32 signed bytes and a scale.
    Q8_0,
    /// 32 values of 5 bits and a scale.
    Q5_0,
    /// 256 values of 4 bits in 8 sub-blocks with scales and minima of 6 bits.
    Q4K,
    /// 256 values of 6 bits in 16 sub-blocks with scales of 8 bits.
    Q6K,
}

impl DType {
    /// All formats.
    pub const ALL: [Self; 7] =
        [Self::F32, Self::F16, Self::BF16, Self::Q8_0, Self::Q5_0, Self::Q4K, Self::Q6K];

    /// Values in a block; 1 where values stand alone.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q8_0 | Self::Q5_0 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q8_0 => 34,
            Self::Q5_0 => 22,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// Bytes of a row of `cols` values.
    ///
    /// # Errors
    /// [`KernelError::Columns`] if the row is not whole blocks, [`KernelError::TooLarge`] if its bytes overflow.
    pub fn row_bytes(self, cols: usize) -> Result<usize, KernelError> {
        if !cols.is_multiple_of(self.block_len()) {
            return Err(KernelError::Columns { dtype: self, cols, block: self.block_len() });
        }
        let bytes = (cols / self.block_len()).checked_mul(self.block_bytes());
        bytes.ok_or(KernelError::TooLarge { dtype: self, rows: 1, cols })
    }
}

impl fmt::Display for DType {
    /// The name ggml and the GGUF specification use.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q5_0 => "Q5_0",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(DType::F16.row_bytes(3), Ok(6));
        assert_eq!(DType::Q8_0.row_bytes(64), Ok(68));
        assert_eq!(DType::Q4K.row_bytes(512), Ok(288));
        assert_eq!(DType::Q6K.row_bytes(0), Ok(0));
        let error = DType::Q4K.row_bytes(192).unwrap_err();
        assert_eq!(error, KernelError::Columns { dtype: DType::Q4K, cols: 192, block: 256 });
        assert!(error.to_string().contains("Q4_K") && error.to_string().contains("192"));
    }

    #[test]
    fn a_row_beyond_the_address_space_is_refused() {
        let cols = usize::MAX - 3;
        assert_eq!(
            DType::F32.row_bytes(cols),
            Err(KernelError::TooLarge { dtype: DType::F32, rows: 1, cols })
        );
    }
}
