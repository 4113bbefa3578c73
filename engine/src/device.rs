//! Where models run: the CPU, or a CUDA card with the CPU at its side. Opened once and borrowed by everything that
//! computes; knows no model.

use std::num::NonZeroUsize;
use std::time::Duration;

use kernels::device::Cpu;
// Callers choose and describe devices without knowing the kernels.
pub use kernels::KernelError;
pub use kernels::device::cuda::{Absence, Cuda, CudaOptions, DeviceInfo, cublaslt_version, detect};

use crate::error::EngineError;

/// Where models are to run.
#[derive(Clone, Debug, Default)]
pub enum DeviceChoice {
    /// The first card where one works, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A card by its number, or an error.
    Cuda(u32),
    /// A card that is open already; the emulator comes this way.
    Opened(Cuda),
}

/// An open device.
#[derive(Debug)]
pub struct Device {
    cpu: Cpu,
    cuda: Option<Cuda>,
    /// Why the CPU was taken where a card would have been.
    no_cuda: Option<Absence>,
}

impl Device {
    /// Opens what was chosen. `threads` are those of the CPU, which reads and prepares weights for a card, too.
    ///
    /// # Errors
    /// A card was asked for by number and cannot be used; or it cannot be opened though it was found.
    pub fn open(
        choice: &DeviceChoice,
        threads: Option<NonZeroUsize>,
        options: CudaOptions,
    ) -> Result<Self, EngineError> {
        let (cuda, no_cuda) = match choice {
            DeviceChoice::Cpu => (None, None),
            DeviceChoice::Opened(cuda) => (Some(cuda.clone()), None),
            DeviceChoice::Cuda(ordinal) => (Some(open(*ordinal, options)?), None),
            DeviceChoice::Auto => match detect() {
                Ok(_) => match Cuda::open(0, options) {
                    Ok(cuda) => (Some(cuda), None),
                    Err(KernelError::NoCuda(absence)) => (None, Some(absence)),
                    Err(source) => return Err(EngineError::Device { source }),
                },
                Err(absence) => (None, Some(absence)),
            },
        };
        Ok(Self { cpu: Cpu::new(threads), cuda, no_cuda })
    }

    /// The CPU.
    pub const fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// The card that models run on; `None` where they run on the CPU.
    pub const fn cuda(&self) -> Option<&Cuda> {
        self.cuda.as_ref()
    }

    /// Why no card was taken though one would have been.
    pub const fn no_cuda(&self) -> Option<&Absence> {
        self.no_cuda.as_ref()
    }

    /// Bytes of device memory in use; `None` on the CPU.
    pub fn bytes_in_use(&self) -> Option<u64> {
        self.cuda.as_ref().map(Cuda::bytes_in_use)
    }

    /// What of the device decides the bits of a result: part of a cache entry's identity.
    pub fn kernels(&self) -> String {
        match &self.cuda {
            Some(cuda) => cuda.kernels(),
            None => self.cpu.isa().to_string(),
        }
    }

    /// The most memory of a card that was held since the last call; `None` on the CPU.
    pub fn take_bytes_peak(&self) -> Option<u64> {
        self.cuda.as_ref().map(Cuda::take_bytes_peak)
    }

    /// Runs `work` and waits for what it asked of the card; returns the time that took on the card's own clock, or
    /// `None` where there is none.
    ///
    /// # Errors
    /// Those of `work`, or that the card failed.
    pub fn timed<T>(
        &self,
        work: impl FnOnce() -> Result<T, EngineError>,
    ) -> Result<(T, Option<Duration>), EngineError> {
        let Some(cuda) = &self.cuda else { return Ok((work()?, None)) };
        let failed = |source| EngineError::Device { source };
        let start = cuda.mark().map_err(failed)?;
        let result = work()?;
        let end = cuda.mark().map_err(failed)?;
        let time = cuda.between(&start, &end).map_err(failed)?;
        Ok((result, time))
    }
}

fn open(ordinal: u32, options: CudaOptions) -> Result<Cuda, EngineError> {
    Cuda::open(ordinal, options).map_err(|source| EngineError::Device { source })
}
