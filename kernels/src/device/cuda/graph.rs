//! Recorded launches that run many times at the price of one call: what decode does for every token.

use crate::device::cuda::{Cuda, Driver};
use crate::error::KernelError;

/// Launches recorded by [`Cuda::capture`].
#[derive(Debug)]
pub struct Graph {
    cuda: Cuda,
    recorded: Recorded,
}

/// What the driver keeps of a recording.
#[derive(Debug)]
pub(super) enum Recorded {
    Card(super::card::CardGraph),
    #[cfg(feature = "emulation")]
    Emulated(super::emulated::EmulatedGraph),
}

impl Graph {
    pub(super) fn new(cuda: &Cuda, recorded: Recorded) -> Self {
        Self { cuda: cuda.clone(), recorded }
    }

    /// Asks for one run of all launches, in their order.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses, [`KernelError::Launch`] if an emulated kernel fails.
    pub fn run(&self) -> Result<(), KernelError> {
        match (&self.cuda.inner.driver, &self.recorded) {
            (Driver::Card(card), Recorded::Card(graph)) => card.run(graph),
            #[cfg(feature = "emulation")]
            (Driver::Emulated(emulated), Recorded::Emulated(graph)) => emulated.run(graph),
            #[cfg(feature = "emulation")]
            _ => unreachable!("a graph belongs to the device that recorded it"),
        }
    }
}
