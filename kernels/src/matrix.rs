//! A weight matrix as matmul reads it: rows (output features) interleaved [`NR`] at a time into panels, in the
//! number format they came in, so that memory holds the weights once and at their own size. It knows nothing of
//! files, of where the bytes came from, or of what is multiplied by it.

use crate::buffer::{Buffer, Plain, scratch};
use crate::dtype::DType;
use crate::error::KernelError;
use crate::quant;
use crate::tile::NR;

/// A matrix of `rows` output features by `cols` input features.
///
/// Layout: `panels` of [`NR`] rows (the last one filled up with zero rows); within a panel, unit `u` of all rows is
/// one row of `[unit; NR]`. A unit is an f32; a pair of bf16 values (an odd last one paired with zero); an f16; or
/// one byte of a quantised block.
#[derive(Debug, Clone)]
pub struct Matrix {
    dtype: DType,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    data: Buffer,
}

impl Matrix {
    /// Interleaves a row-major matrix of `rows` x `cols`, as GGUF and safetensors hold it.
    ///
    /// # Errors
    /// [`KernelError::Columns`], [`KernelError::TooLarge`] or [`KernelError::Bytes`] if shape and bytes do not
    /// belong together.
    pub fn from_bytes(dtype: DType, rows: usize, cols: usize, bytes: &[u8]) -> Result<Self, KernelError> {
        let row_bytes = dtype.row_bytes(cols)?;
        let expected = rows.checked_mul(row_bytes).ok_or(KernelError::TooLarge { dtype, rows, cols })?;
        if bytes.len() != expected {
            return Err(KernelError::Bytes { dtype, rows, cols, expected, got: bytes.len() });
        }
        let mut matrix = Self { dtype, rows, cols, row_bytes, data: Buffer::default() };
        // A panel is padded by at most NR rows and a row by at most one value, so with few rows this may exceed the
        // bytes given, but never by more than a panel.
        let panel_bytes = matrix.panel_units().saturating_mul(NR * matrix.unit_bytes());
        let total =
            panel_bytes.checked_mul(matrix.panels()).ok_or(KernelError::TooLarge { dtype, rows, cols })?;
        matrix.data = Buffer::zeroed(total);
        for (panel, rows) in bytes.chunks(NR * row_bytes.max(1)).enumerate() {
            match matrix.unit_bytes() {
                4 => matrix.interleave::<4>(panel, rows),
                2 => matrix.interleave::<2>(panel, rows),
                _ => matrix.interleave::<1>(panel, rows),
            }
        }
        Ok(matrix)
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The number format of the values.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Bytes of memory held.
    pub fn resident_bytes(&self) -> usize {
        self.data.bytes()
    }

    /// Decodes row `row` exactly into `out`.
    ///
    /// # Panics
    /// If there is no such row or `out` is not `cols` long.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows, "row {row} of a matrix of {} rows", self.rows);
        assert_eq!(out.len(), self.cols, "a row of {} columns", self.cols);
        scratch(self.row_bytes, |bytes: &mut [u8]| {
            match self.unit_bytes() {
                4 => self.gather::<4>(row, bytes),
                2 => self.gather::<2>(row, bytes),
                _ => self.gather::<1>(row, bytes),
            }
            let decoded = quant::dequantize(self.dtype, bytes, out);
            debug_assert!(decoded.is_ok(), "the shape was checked when the matrix was made");
        });
    }

    /// Panels of [`NR`] rows.
    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(NR)
    }

    /// Units in a row, and rows of `[unit; NR]` in a panel.
    pub(crate) fn panel_units(&self) -> usize {
        self.row_bytes.div_ceil(self.unit_bytes())
    }

    /// Panels `first..first + n`, one after the other; `T` is the unit.
    pub(crate) fn panel_rows<T: Plain>(&self, first: usize, n: usize) -> &[[T; NR]] {
        assert_eq!(size_of::<T>(), self.unit_bytes(), "the unit of a {} matrix", self.dtype);
        let units = self.panel_units();
        &self.data.as_slice()[first * units..(first + n) * units]
    }

    fn unit_bytes(&self) -> usize {
        match self.dtype {
            DType::F32 | DType::BF16 => 4,
            DType::F16 => 2,
            DType::Q8_0 | DType::Q5_0 | DType::Q4K | DType::Q6K => 1,
        }
    }

    /// Writes up to [`NR`] row-major rows into a panel.
    fn interleave<const U: usize>(&mut self, panel: usize, rows: &[u8]) {
        let (units, row_bytes) = (self.panel_units(), self.row_bytes);
        let panel = &mut self.data.as_mut_slice::<[[u8; U]; NR]>()[panel * units..(panel + 1) * units];
        // In blocks of a cache line of each row, so that the panel's part stays in the nearest cache.
        for (block, panel) in panel.chunks_mut(64 / U).enumerate() {
            for (j, row) in rows.chunks_exact(row_bytes).enumerate() {
                let (whole, rest) = row[64 * block..].as_chunks::<U>();
                for (to, unit) in panel.iter_mut().zip(whole) {
                    to[j] = *unit;
                }
                if let Some(to) = panel.get_mut(whole.len()) {
                    to[j][..rest.len()].copy_from_slice(rest);
                }
            }
        }
    }

    /// Reads one row back out of its panel.
    fn gather<const U: usize>(&self, row: usize, out: &mut [u8]) {
        let panel = self.panel_rows::<[u8; U]>(row / NR, 1);
        for (unit, from) in out.chunks_mut(U).zip(panel) {
            unit.copy_from_slice(&from[row % NR][..unit.len()]);
        }
    }
}
