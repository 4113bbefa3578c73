//! The block formats of GGUF: how each is decoded, once as the plain formula over a block ([`dequantize`]) and once
//! for [`NR`](crate::tile::NR) interleaved rows at a time, as matmul reads them. It knows nothing of files, nor of
//! what is done with the values.
//!
//! Every decoded value is exact: scale (11 bits) x sub-scale (at most 7) x quant (at most 8, or 6 beside a
//! sub-scale) fits the 24 bits of an f32, so the order of the products does not matter; Q4_K alone rounds, once,
//! when it subtracts the minimum. Hence both ways, and ggml's own, give the same bits.

pub(crate) mod interleaved;
mod q4_k;
mod q5_0;
mod q6_k;
mod q8_0;

use half::{bf16, f16};

use crate::dtype::DType;
use crate::error::KernelError;
pub(crate) use q4_k::Q4K;
pub(crate) use q5_0::Q5_0;
pub(crate) use q6_k::Q6K;
pub(crate) use q8_0::Q8_0;

/// Decodes `out.len()` values from `bytes`, whole blocks one after the other, exactly as ggml and gguf-py do.
///
/// # Errors
/// [`KernelError::Columns`] if `out` is not whole blocks, [`KernelError::Bytes`] if `bytes` are not theirs.
pub fn dequantize(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), KernelError> {
    let (cols, expected) = (out.len(), dtype.row_bytes(out.len())?);
    if bytes.len() != expected {
        return Err(KernelError::Bytes { dtype, rows: 1, cols, expected, got: bytes.len() });
    }
    let decode: fn(&[u8], &mut [f32]) = match dtype {
        DType::F32 => |bytes, out| out[0] = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        DType::F16 => |bytes, out| out[0] = half(bytes),
        DType::BF16 => |bytes, out| out[0] = bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        DType::Q8_0 => q8_0::dequantize,
        DType::Q5_0 => q5_0::dequantize,
        DType::Q4K => q4_k::dequantize,
        DType::Q6K => q6_k::dequantize,
    };
    for (block, values) in
        bytes.chunks_exact(dtype.block_bytes()).zip(out.chunks_exact_mut(dtype.block_len()))
    {
        decode(block, values);
    }
    Ok(())
}

/// The half-precision value in the first two bytes.
fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}
