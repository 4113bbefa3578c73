//! The lists of kept blocks in device memory, as [`KeptBlocks`] on the CPU.

use super::{Blocks, KeptBlocks};
use crate::device::cuda::{Cuda, DeviceBuffer};
use crate::error::KernelError;

/// For each head and query block the key blocks it attends to, ascending.
#[derive(Debug)]
pub struct DeviceKeptBlocks {
    /// Lengths of the lists, (n_heads, n_query_blocks).
    pub(crate) counts: DeviceBuffer<u32>,
    /// The lists, (n_heads, n_query_blocks, n_key_blocks); what lies beyond a list's length means nothing.
    pub(crate) indices: DeviceBuffer<u32>,
    n_heads: usize,
    blocks: Blocks,
}

impl DeviceKeptBlocks {
    /// Lists of no block, for `block_select` to fill.
    ///
    /// # Errors
    /// [`KernelError::DeviceMemory`] if the device has not so much left.
    pub fn new(cuda: &Cuda, n_heads: usize, blocks: Blocks) -> Result<Self, KernelError> {
        let n_lists = n_heads * blocks.n_query_blocks();
        let (counts, indices) = (cuda.zeroed(n_lists)?, cuda.alloc(n_lists * blocks.n_key_blocks())?);
        Ok(Self { counts, indices, n_heads, blocks })
    }

    /// A copy of `kept`, the lists of a call of `blocks`.
    ///
    /// # Errors
    /// As [`DeviceKeptBlocks::new`].
    ///
    /// # Panics
    /// If a list does not end with the query block's own, or the lists were made for other blocks.
    pub fn upload(cuda: &Cuda, kept: &KeptBlocks, blocks: Blocks) -> Result<Self, KernelError> {
        kept.check(blocks);
        let (counts, indices) = (cuda.upload(kept.counts())?, cuda.upload(kept.indices())?);
        Ok(Self { counts, indices, n_heads: kept.n_heads(), blocks })
    }

    /// The lists on the host: how much was kept, for reports and tests.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if a kernel failed.
    pub fn read(&self) -> Result<KeptBlocks, KernelError> {
        let (counts, indices) = (self.counts.read()?, self.indices.read()?);
        let mut kept = KeptBlocks::empty(self.n_heads, self.blocks);
        let (n_query_blocks, n_key_blocks) = (self.blocks.n_query_blocks(), self.blocks.n_key_blocks());
        for (i, count) in counts.iter().enumerate() {
            let list = &indices[i * n_key_blocks..][..*count as usize];
            kept.set(i / n_query_blocks, i % n_query_blocks, list);
        }
        Ok(kept)
    }

    /// Heads.
    pub fn n_heads(&self) -> usize {
        self.n_heads
    }

    /// The blocks of the call the lists are made for.
    pub fn blocks(&self) -> Blocks {
        self.blocks
    }
}
