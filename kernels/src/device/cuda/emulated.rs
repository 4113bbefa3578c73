//! The emulator as a device: memory is the host's, a launch has run when it returns, a recording is the list of its
//! launches. Kernels run through [`super::emulator`].

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::device::cuda::graph::Recorded;
use crate::device::cuda::launch::{Args, Grid};
use crate::device::cuda::{DeviceInfo, emulator};
use crate::error::KernelError;

/// As the driver aligns.
const ALIGNMENT: usize = 256;

/// A device made of host memory.
#[derive(Debug)]
pub(super) struct Emulated {
    seed: u64,
    /// The launches of a recording under way.
    capture: Mutex<Option<Vec<Launched>>>,
}

/// One recorded launch.
#[derive(Debug)]
struct Launched {
    kernel: &'static str,
    grid: Grid,
    /// Keeps the words, not the borrows: before a run, the graph checks that the buffers are there.
    args: Args<'static>,
}

/// A recording.
#[derive(Debug)]
pub(super) struct EmulatedGraph {
    launches: Vec<Launched>,
}

fn layout(bytes: u64) -> Layout {
    // Buffers are refused beyond isize::MAX bytes; rounding up to the alignment stays below it in practice.
    Layout::from_size_align(bytes.max(1).next_multiple_of(16) as usize, ALIGNMENT)
        .unwrap_or(Layout::new::<u8>())
}

impl Emulated {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, capture: Mutex::default() }
    }

    pub(super) fn info() -> DeviceInfo {
        DeviceInfo {
            ordinal: 0,
            name: "emulator".to_owned(),
            uuid: "emulator".to_owned(),
            compute_capability: (8, 0),
            n_sms: 1,
            l2_bytes: 0,
            memory_bytes: u64::MAX,
            driver_version: 0,
        }
    }

    pub(super) fn alloc(&self, bytes: u64) -> Result<u64, KernelError> {
        if self.is_capturing() {
            return Err(not_in_a_recording("an allocation"));
        }
        let layout = layout(bytes);
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc(layout) };
        if memory.is_null() {
            handle_alloc_error(layout);
        }
        // Not zeros: what a kernel forgets to write, or reads too early, shows as NaN.
        // SAFETY: so many bytes were just allocated.
        unsafe { memory.write_bytes(0xFF, layout.size()) };
        Ok(memory.expose_provenance() as u64)
    }

    pub(super) fn free(&self, address: u64, bytes: u64) {
        // SAFETY: made by `alloc` with the same layout, freed once.
        unsafe { dealloc(pointer(address), layout(bytes)) };
    }

    pub(super) fn zero(&self, address: u64, bytes: u64) -> Result<(), KernelError> {
        if self.is_capturing() {
            return Err(not_in_a_recording("filling memory"));
        }
        // SAFETY: the caller owns so many bytes at the address.
        unsafe { pointer(address).write_bytes(0, bytes as usize) };
        Ok(())
    }

    pub(super) fn copy_in(&self, address: u64, bytes: &[u8]) -> Result<(), KernelError> {
        if self.is_capturing() {
            return Err(not_in_a_recording("a copy"));
        }
        // SAFETY: the caller owns so many bytes at the address, and device memory is no Rust object.
        unsafe { pointer(address).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    pub(super) fn copy_out(&self, address: u64, bytes: &mut [u8]) -> Result<(), KernelError> {
        if self.is_capturing() {
            return Err(not_in_a_recording("a copy"));
        }
        // SAFETY: as in `copy_in`.
        unsafe { pointer(address).copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    pub(super) fn copy_within(&self, to: u64, from: u64, bytes: u64) -> Result<(), KernelError> {
        if self.is_capturing() {
            return Err(not_in_a_recording("a copy"));
        }
        // SAFETY: the caller owns so many bytes at both addresses, in two buffers.
        unsafe { pointer(to).copy_from_nonoverlapping(pointer(from), bytes as usize) };
        Ok(())
    }

    pub(super) fn synchronize(&self) -> Result<(), KernelError> {
        if self.is_capturing() {
            return Err(not_in_a_recording("waiting"));
        }
        Ok(())
    }

    /// # Safety
    /// As [`crate::device::cuda::Cuda::launch`].
    pub(super) unsafe fn launch(
        &self,
        kernel: &'static str,
        grid: Grid,
        args: &Args<'_>,
    ) -> Result<(), KernelError> {
        let mut capture = self.capture.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(launches) = capture.as_mut() {
            launches.push(Launched { kernel, grid, args: args.words_alone() });
            return Ok(());
        }
        drop(capture);
        let mut pointers = args.pointers();
        let Grid { blocks, threads, shared_bytes } = grid;
        // SAFETY: the caller's promise.
        unsafe { emulator::launch(kernel, blocks, threads, shared_bytes, &mut pointers, self.seed) }
            .map_err(|message| KernelError::Launch { kernel, message })
    }

    pub(super) fn record_event(&self) -> Result<u64, KernelError> {
        Ok(0)
    }

    pub(super) fn elapsed(&self, _: u64, _: u64) -> Result<Option<Duration>, KernelError> {
        Ok(None)
    }

    pub(super) fn drop_event(&self, _: u64) {}

    pub(super) fn begin_capture(&self) -> Result<(), KernelError> {
        *self.capture.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
        Ok(())
    }

    pub(super) fn end_capture(&self) -> Result<Recorded, KernelError> {
        let launches = self.capture.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(Recorded::Emulated(EmulatedGraph { launches: launches.unwrap_or_default() }))
    }

    pub(super) fn run(&self, graph: &EmulatedGraph) -> Result<(), KernelError> {
        for Launched { kernel, grid, args } in &graph.launches {
            // SAFETY: promised when the launch was recorded; the buffers are there, as `Graph::run` has just checked.
            unsafe { self.launch(kernel, *grid, args)? };
        }
        Ok(())
    }

    fn is_capturing(&self) -> bool {
        self.capture.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// A device address, which here is one of the host.
fn pointer(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

/// What a real card refuses while it records.
fn not_in_a_recording(what: &str) -> KernelError {
    KernelError::Cuda { call: "capture", message: format!("{what} cannot be part of a recording") }
}
