//! Recorded launches that run many times at the price of one call: what decode does for every token.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::device::cuda::ledger::Block;
use crate::device::cuda::{Cuda, Driver};
use crate::error::KernelError;

/// Launches recorded by [`Cuda::capture`].
#[derive(Debug)]
pub struct Graph {
    cuda: Cuda,
    recorded: Recorded,
    /// The memory that the launches use.
    blocks: Vec<Block>,
    /// Blocks the device had freed when all of `blocks` were last known to be held.
    n_removed: AtomicU64,
}

/// What the driver keeps of a recording.
#[derive(Debug)]
pub(super) enum Recorded {
    Card(super::card::CardGraph),
    #[cfg(feature = "emulation")]
    Emulated(super::emulated::EmulatedGraph),
}

impl Graph {
    pub(super) fn new(cuda: &Cuda, recorded: Recorded, blocks: Vec<Block>) -> Self {
        let n_removed = AtomicU64::new(u64::MAX);
        Self { cuda: cuda.clone(), recorded, blocks, n_removed }
    }

    /// Whether every buffer that was passed to a recorded launch is still there.
    pub fn is_valid(&self) -> bool {
        let memory = &self.cuda.inner.memory;
        let n_removed = memory.n_removed();
        if self.n_removed.load(Ordering::Relaxed) == n_removed {
            return true;
        }
        let valid = memory.holds_all(&self.blocks);
        if valid {
            self.n_removed.store(n_removed, Ordering::Relaxed);
        }
        valid
    }

    /// Asks for one run of all launches, in their order.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if a buffer of the recording was freed or the driver refuses; [`KernelError::Launch`] if
    /// an emulated kernel fails.
    pub fn run(&self) -> Result<(), KernelError> {
        if !self.is_valid() {
            let message = "memory that the recording uses was freed".to_owned();
            return Err(KernelError::Cuda { call: "graph", message });
        }
        match (&self.cuda.inner.driver, &self.recorded) {
            (Driver::Card(card), Recorded::Card(graph)) => card.run(graph),
            #[cfg(feature = "emulation")]
            (Driver::Emulated(emulated), Recorded::Emulated(graph)) => emulated.run(graph),
            #[cfg(feature = "emulation")]
            _ => unreachable!("a graph belongs to the device that recorded it"),
        }
    }
}
