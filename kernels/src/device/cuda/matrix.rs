//! A weight matrix in device memory, row after row in the number format it came in: memory holds the weights once
//! and at their own size.

use crate::device::cuda::{Cuda, DeviceBuffer};
use crate::dtype::DType;
use crate::error::KernelError;

/// `rows` output features by `cols` input features, row-major as GGUF and safetensors hold it.
#[derive(Debug)]
pub struct DeviceMatrix {
    /// Number format.
    pub dtype: DType,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// The rows, `DType::row_bytes(cols)` each.
    pub bytes: DeviceBuffer<u8>,
}

impl DeviceMatrix {
    /// Copies a matrix to the device.
    ///
    /// # Errors
    /// [`KernelError::Columns`], [`KernelError::TooLarge`] or [`KernelError::Bytes`] if shape and bytes do not belong
    /// together; [`KernelError::DeviceMemory`] if the device has not so much left.
    pub fn upload(
        cuda: &Cuda,
        dtype: DType,
        rows: usize,
        cols: usize,
        bytes: &[u8],
    ) -> Result<Self, KernelError> {
        let mut matrix = Self::alloc(cuda, dtype, rows, cols)?;
        if bytes.len() != matrix.bytes.len() {
            let expected = matrix.bytes.len();
            return Err(KernelError::Bytes { dtype, rows, cols, expected, got: bytes.len() });
        }
        matrix.bytes.write(bytes)?;
        Ok(matrix)
    }

    /// Memory for a matrix, to be filled by rows: parts of it may come from several tensors, or be made on the
    /// device.
    ///
    /// # Errors
    /// As [`DeviceMatrix::upload`], but for the bytes.
    pub fn alloc(cuda: &Cuda, dtype: DType, rows: usize, cols: usize) -> Result<Self, KernelError> {
        let len =
            rows.checked_mul(dtype.row_bytes(cols)?).ok_or(KernelError::TooLarge { dtype, rows, cols })?;
        Ok(Self { dtype, rows, cols, bytes: cuda.alloc(len)? })
    }
}
