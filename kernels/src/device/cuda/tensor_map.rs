//! Descriptions of matrices for Hopper's bulk tensor copies (TMA), as the driver encodes them. Which kernels use them is
//! the business of the ops.

use std::ffi::c_void;
use std::marker::PhantomData;

use cudarc::driver::sys;

use crate::device::cuda::View;
use crate::error::KernelError;

/// Columns of a box: 64 bf16 values are 128 bytes, as wide as the widest swizzle.
const BOX_COLS: u32 = 64;

/// A bf16 matrix in device memory and the boxes of it that a kernel copies to shared memory, where they lie under the
/// 128-byte swizzle. Borrows the matrix.
#[derive(Clone, Debug)]
pub struct TensorMap<'a> {
    map: sys::CUtensorMap,
    address: u64,
    owner: PhantomData<&'a ()>,
}

impl<'a> TensorMap<'a> {
    /// Boxes of `box_rows` rows by 64 columns of a row-major matrix (rows, cols) of bf16, in whatever elements its
    /// memory was borrowed. What of a box lies outside of the matrix is zeros.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses it.
    ///
    /// # Panics
    /// If the memory is not a matrix of that shape, is empty, does not begin on a multiple of 16 bytes, or has rows
    /// that do not; or if a box has no rows or more than 256: the limits of the encoding.
    pub fn boxes<T>(
        matrix: View<'a, T>,
        rows: usize,
        cols: usize,
        box_rows: u32,
    ) -> Result<Self, KernelError> {
        assert_eq!(
            matrix.len() * size_of::<T>(),
            2 * rows * cols,
            "the bytes of {rows} x {cols} bf16 values"
        );
        assert!(rows > 0 && cols > 0, "an empty matrix of {rows} x {cols}");
        assert!(
            matrix.address().is_multiple_of(16) && cols.is_multiple_of(8),
            "rows on multiples of 16 bytes"
        );
        assert!((1..=256).contains(&box_rows), "{box_rows} rows of a box");
        // Innermost dimension first; the stride of the first is an element and not given.
        let (dims, strides) = ([cols as u64, rows as u64], [2 * cols as u64]);
        let (box_dims, steps) = ([BOX_COLS, box_rows], [1, 1]);
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: the arrays have as many elements as the rank says (one less for strides), and the map, aligned as the
        // driver wants it, is written before it is read. The address is only encoded.
        let answer = unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                dims.len() as u32,
                matrix.address() as *mut c_void,
                dims.as_ptr(),
                strides.as_ptr(),
                box_dims.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        answer.result().map_err(|error| KernelError::Cuda {
            call: "cuTensorMapEncodeTiled",
            message: error.to_string(),
        })?;
        Ok(Self { map, address: matrix.address(), owner: PhantomData })
    }

    pub(super) const fn map(&self) -> sys::CUtensorMap {
        self.map
    }

    pub(super) const fn address(&self) -> u64 {
        self.address
    }
}
