//! A CUDA card as a device: one stream, on which everything runs in the order it was asked for.
//!
//! How a kernel gets from a `.cu` file to a launch: `kernels/prebuilt/` holds each file compiled for every supported
//! architecture; `modules.rs` lists those images in the binary; `card.rs` hands them to the driver when a device is
//! opened and finds entry points by name; an op's `.rs` computes the grid and calls [`Cuda::launch`]. No CUDA
//! toolkit takes part, at build time or at run time.
//!
//! With the feature `emulation` a [`Cuda`] may also be the emulator, which runs the same kernels on the CPU, one
//! fiber per CUDA thread: how the kernels, and everything built on them, are tested on machines without a card.
//!
//! Safety: memory is reached through [`View`] and [`ViewMut`] alone, which borrow their [`DeviceBuffer`]. Launches
//! return before they ran, but whatever touches the buffer later (a copy, a launch, freeing it) is ordered after
//! them, because there is one stream.

mod buffer;
mod card;
mod cublaslt;
mod detect;
#[cfg(feature = "emulation")]
mod emulated;
#[cfg(feature = "emulation")]
mod emulator;
mod graph;
mod kv;
mod launch;
mod ledger;
mod matrix;
mod modules;
mod tensor_map;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use buffer::{DeviceBuffer, View, ViewMut};
pub use cublaslt::{Algorithm, Shape};
pub use detect::{Absence, DeviceInfo, detect};
pub use graph::Graph;
pub use kv::DeviceKv;
pub use launch::{Args, Grid};
pub use matrix::DeviceMatrix;
pub use tensor_map::TensorMap;

use crate::buffer::Plain;
use crate::error::KernelError;
use card::Card;
use cublaslt::CublasLt;
pub(crate) use cublaslt::{ALIGNMENT, Product};
#[cfg(feature = "emulation")]
use emulated::Emulated;
use ledger::Ledger;

/// What a device may use beyond its default kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaOptions {
    /// Whether cuBLASLt multiplies matrices in prefill where it is found; the own kernels do otherwise.
    pub cublaslt: bool,
    /// Whether kernels written for Hopper alone (`wgmma`, bulk tensor copies) run on a Hopper card.
    pub hopper_kernels: bool,
}

impl CudaOptions {
    /// cuBLASLt where it is found; no Hopper kernels, since they cannot be emulated and have no record of a
    /// run on a card yet.
    pub const DEFAULT: Self = Self { cublaslt: true, hopper_kernels: false };
}

impl Default for CudaOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What multiplies several tokens with bf16 weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GemmPath {
    /// cuBLASLt, of which version: 130101 is 13.1.1.
    CublasLt {
        /// As the library gives it.
        version: usize,
    },
    /// The kernels for Hopper alone.
    Hopper,
    /// The kernels for every card.
    Own,
}

/// Version of the cuBLASLt that prefill would use, 130101 being 13.1.1; `None` if it is not found.
pub fn cublaslt_version() -> Option<usize> {
    cublaslt::found_version()
}

impl fmt::Display for GemmPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CublasLt { version } => write!(f, "cublaslt-{version}"),
            Self::Hopper => f.write_str("hopper"),
            Self::Own => f.write_str("own"),
        }
    }
}

/// One card, or the emulator. Clones are handles of the same device; it closes with the last of them.
#[derive(Clone, Debug)]
pub struct Cuda {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    driver: Driver,
    info: DeviceInfo,
    options: CudaOptions,
    memory: Ledger,
    /// Addresses that the launches of a recording under way were given.
    recording: Mutex<Option<Vec<u64>>>,
}

/// What carries out the work.
#[derive(Debug)]
enum Driver {
    Card(Card),
    #[cfg(feature = "emulation")]
    Emulated(Emulated),
}

/// Runs one method of whichever driver there is.
macro_rules! on_driver {
    ($cuda:expr, $driver:ident => $call:expr) => {
        match &$cuda.inner.driver {
            Driver::Card($driver) => $call,
            #[cfg(feature = "emulation")]
            Driver::Emulated($driver) => $call,
        }
    };
}

/// A point in the stream's order, whose time the device notes when it gets there.
#[derive(Debug)]
pub struct Mark {
    owner: Cuda,
    /// The driver's event; 0 when emulated, where device time means nothing.
    event: u64,
}

impl Drop for Mark {
    fn drop(&mut self) {
        on_driver!(self.owner, driver => driver.drop_event(self.event));
    }
}

impl Cuda {
    /// Opens card `ordinal` (0 is the first) and loads the kernels.
    ///
    /// # Errors
    /// [`KernelError::NoCuda`] with the reason, in words, why there is no such card to use.
    pub fn open(ordinal: u32, options: CudaOptions) -> Result<Self, KernelError> {
        let info = detect::device(ordinal)?;
        let card = Card::open(ordinal, info.compute_capability, options)?;
        Ok(Self::with_driver(Driver::Card(card), info, options))
    }

    /// The emulator. `seed` decides the order in which warps run, and whether asynchronous copies happen at once
    /// (odd) or as late as they may (even): results must not depend on it.
    #[cfg(feature = "emulation")]
    pub fn emulated(seed: u64) -> Self {
        let options = CudaOptions { cublaslt: false, hopper_kernels: false };
        Self::with_driver(Driver::Emulated(Emulated::new(seed)), Emulated::info(), options)
    }

    fn with_driver(driver: Driver, info: DeviceInfo, options: CudaOptions) -> Self {
        Self {
            inner: Arc::new(Inner {
                driver,
                info,
                options,
                memory: Ledger::default(),
                recording: Mutex::default(),
            }),
        }
    }

    /// What the device is.
    pub fn info(&self) -> &DeviceInfo {
        &self.inner.info
    }

    /// Which kernels run: what, beside the inputs, decides the bits of a result. `sm_90a` stands for Hopper's own.
    pub fn kernels(&self) -> String {
        let (major, minor) = self.inner.info.compute_capability;
        let own = if self.hopper_kernels() { "a" } else { "" };
        format!("cuda-sm_{major}{minor}{own}/{}", self.gemm_path())
    }

    /// Whether the kernels run on the CPU under the emulator.
    pub fn is_emulated(&self) -> bool {
        self.inner.info.driver_version == 0
    }

    /// Whether Hopper's own kernels are to be used: asked for, and the card is one.
    pub fn hopper_kernels(&self) -> bool {
        self.inner.options.hopper_kernels && self.inner.info.compute_capability == (9, 0)
    }

    /// What multiplies several tokens with bf16 weights. Other weights, and shapes that suit neither library nor
    /// Hopper's kernels, are always for the own kernels.
    pub fn gemm_path(&self) -> GemmPath {
        if self.cublaslt().is_some() {
            GemmPath::CublasLt { version: CublasLt::version() }
        } else if self.hopper_kernels() {
            GemmPath::Hopper
        } else {
            GemmPath::Own
        }
    }

    /// What cuBLASLt uses for products of a shape, in words for the record; `None` if it is not used for them.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the library fails.
    pub fn cublaslt_algorithm(&self, shape: Shape) -> Result<Option<Algorithm>, KernelError> {
        self.cublaslt().map_or(Ok(None), |cublaslt| cublaslt.algorithm(shape))
    }

    fn cublaslt(&self) -> Option<&CublasLt> {
        match &self.inner.driver {
            Driver::Card(card) => card.cublaslt(),
            #[cfg(feature = "emulation")]
            Driver::Emulated(_) => None,
        }
    }

    /// Asks cuBLASLt for a product; `false` if it is not used, or not for such a product.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the library fails.
    ///
    /// # Safety
    /// The matrices are views of this device's memory, at multiples of [`cublaslt::ALIGNMENT`] bytes; y is borrowed to
    /// be written.
    pub(crate) unsafe fn cublaslt_multiply(&self, product: &Product) -> Result<bool, KernelError> {
        let mut recording = self.inner.recording.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(addresses) = recording.as_mut() {
            addresses.extend([product.x, product.w, product.y]);
        }
        drop(recording);
        match &self.inner.driver {
            // SAFETY: the caller's promise; memory is freed in the stream's order.
            Driver::Card(card) => unsafe { card.multiply(product) },
            #[cfg(feature = "emulation")]
            Driver::Emulated(_) => Ok(false),
        }
    }

    /// What the device was opened with.
    pub fn options(&self) -> CudaOptions {
        self.inner.options
    }

    /// Bytes of device memory that buffers hold.
    pub fn bytes_in_use(&self) -> u64 {
        self.inner.memory.bytes_in_use()
    }

    /// The most bytes they held since the last call, and begins to count anew from what they hold now.
    pub fn take_bytes_peak(&self) -> u64 {
        self.inner.memory.take_bytes_peak()
    }

    /// Memory for `len` elements with arbitrary contents.
    ///
    /// # Errors
    /// [`KernelError::DeviceMemory`] if the device has not so much left.
    pub fn alloc<T: Plain>(&self, len: usize) -> Result<DeviceBuffer<T>, KernelError> {
        DeviceBuffer::new(self, len)
    }

    /// Memory for `len` zeros.
    ///
    /// # Errors
    /// As [`Cuda::alloc`].
    pub fn zeroed<T: Plain>(&self, len: usize) -> Result<DeviceBuffer<T>, KernelError> {
        let mut buffer = self.alloc(len)?;
        buffer.zero()?;
        Ok(buffer)
    }

    /// A copy of `values` on the device.
    ///
    /// # Errors
    /// As [`Cuda::alloc`].
    pub fn upload<T: Plain>(&self, values: &[T]) -> Result<DeviceBuffer<T>, KernelError> {
        let mut buffer = self.alloc(values.len())?;
        buffer.write(values)?;
        Ok(buffer)
    }

    /// Waits until everything asked for has run.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if a kernel failed.
    pub fn synchronize(&self) -> Result<(), KernelError> {
        on_driver!(self, driver => driver.synchronize())
    }

    /// Asks for one launch of `kernel`.
    ///
    /// # Errors
    /// [`KernelError::Launch`] if the driver refuses it or no such kernel was shipped; what goes wrong while it runs
    /// comes with a later call, from the emulator at once.
    ///
    /// # Safety
    /// The arguments are the kernel's parameters in number, order and type, and with them the kernel reads and
    /// writes inside the views passed, writing only inside the mutable ones.
    pub unsafe fn launch(
        &self,
        kernel: &'static str,
        grid: Grid,
        args: &Args<'_>,
    ) -> Result<(), KernelError> {
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        let mut recording = self.inner.recording.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(addresses) = recording.as_mut() {
            addresses.extend(args.addresses());
        }
        drop(recording);
        // SAFETY: the caller's promise.
        on_driver!(self, driver => unsafe { driver.launch(kernel, grid, args) })
    }

    /// Notes the device's time when everything asked for so far has run.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver refuses it.
    pub fn mark(&self) -> Result<Mark, KernelError> {
        let event = on_driver!(self, driver => driver.record_event())?;
        Ok(Mark { owner: self.clone(), event })
    }

    /// Device time between two marks, waiting for the later one; `None` when emulated.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if a kernel failed.
    pub fn between(&self, start: &Mark, end: &Mark) -> Result<Option<Duration>, KernelError> {
        on_driver!(self, driver => driver.elapsed(start.event, end.event))
    }

    /// Records the launches that `work` asks for, without running them, as a graph that can run many times, as long
    /// as every buffer they use is there.
    ///
    /// # Errors
    /// What `work` gives, or [`KernelError::Cuda`] if it did what cannot be recorded: allocate, copy or wait.
    pub fn capture(&self, work: impl FnOnce() -> Result<(), KernelError>) -> Result<Graph, KernelError> {
        let recording = || self.inner.recording.lock().unwrap_or_else(PoisonError::into_inner);
        on_driver!(self, driver => driver.begin_capture())?;
        *recording() = Some(Vec::new());
        let outcome = work();
        let addresses = recording().take().unwrap_or_default();
        // The capture has to end whatever happened, or the stream stays unusable.
        let recorded = on_driver!(self, driver => driver.end_capture());
        outcome?;
        Ok(Graph::new(self, recorded?, self.inner.memory.blocks_at(addresses)))
    }

    /// Copies `bytes` of host memory to a device address this module handed out.
    fn copy_in(&self, address: u64, bytes: &[u8]) -> Result<(), KernelError> {
        on_driver!(self, driver => driver.copy_in(address, bytes))
    }

    /// Copies device memory to the host and waits for it.
    fn copy_out(&self, address: u64, bytes: &mut [u8]) -> Result<(), KernelError> {
        on_driver!(self, driver => driver.copy_out(address, bytes))
    }

    fn zero_bytes(&self, address: u64, bytes: u64) -> Result<(), KernelError> {
        on_driver!(self, driver => driver.zero(address, bytes))
    }

    fn copy_within(&self, to: u64, from: u64, bytes: u64) -> Result<(), KernelError> {
        on_driver!(self, driver => driver.copy_within(to, from, bytes))
    }

    fn alloc_bytes(&self, bytes: u64) -> Result<u64, KernelError> {
        let address = on_driver!(self, driver => driver.alloc(bytes))?;
        self.inner.memory.add(address, bytes);
        Ok(address)
    }

    fn free_bytes(&self, address: u64, bytes: u64) {
        self.inner.memory.remove(address);
        on_driver!(self, driver => driver.free(address, bytes));
    }
}
