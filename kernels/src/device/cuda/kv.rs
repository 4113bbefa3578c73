//! Keys and values of one layer in device memory, addressed by slot, as [`crate::kv::KvLayer`] on the CPU.

use half::bf16;

use crate::device::cuda::{Cuda, DeviceBuffer};
use crate::error::KernelError;

/// One layer of a KV cache: keys and values `(n_kv_heads, n_slots, head_dim)`, always bf16.
#[derive(Debug)]
pub struct DeviceKv {
    /// Keys.
    pub keys: DeviceBuffer<bf16>,
    /// Values.
    pub values: DeviceBuffer<bf16>,
    /// Slots.
    pub n_slots: usize,
    /// KV heads.
    pub n_kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
}

impl DeviceKv {
    /// A layer of zeros.
    ///
    /// # Errors
    /// [`KernelError::DeviceMemory`] if the device has not so much left.
    pub fn new(cuda: &Cuda, n_slots: usize, n_kv_heads: usize, head_dim: usize) -> Result<Self, KernelError> {
        let len = n_slots.saturating_mul(n_kv_heads).saturating_mul(head_dim);
        Ok(Self { keys: cuda.zeroed(len)?, values: cuda.zeroed(len)?, n_slots, n_kv_heads, head_dim })
    }

    /// A layer without memory for values, for keys that are scored and never attended to.
    ///
    /// # Errors
    /// As [`DeviceKv::new`].
    pub fn keys_alone(
        cuda: &Cuda,
        n_slots: usize,
        n_kv_heads: usize,
        head_dim: usize,
    ) -> Result<Self, KernelError> {
        let len = n_slots.saturating_mul(n_kv_heads).saturating_mul(head_dim);
        Ok(Self { keys: cuda.zeroed(len)?, values: cuda.alloc(0)?, n_slots, n_kv_heads, head_dim })
    }
}
