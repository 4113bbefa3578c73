//! A real card through the driver API. The one place that talks to the driver after detection; everything here runs on
//! one stream of the device's primary context.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cudarc::driver::{result, sys};

use crate::device::cuda::CudaOptions;
use crate::device::cuda::cublaslt::{CublasLt, Product};
use crate::device::cuda::graph::Recorded;
use crate::device::cuda::launch::{Args, Grid};
use crate::device::cuda::modules::{Architecture, MODULES};
use crate::error::KernelError;

/// Dynamic shared memory that a kernel may use without asking for more.
const SHARED_BYTES_DEFAULT: u32 = 48 * 1024;

/// An open card.
#[derive(Debug)]
pub(super) struct Card {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    modules: Vec<sys::CUmodule>,
    functions: Mutex<HashMap<&'static str, Function>>,
    cublaslt: Option<CublasLt>,
}

/// An entry point, and the dynamic shared memory it was allowed so far.
#[derive(Clone, Copy, Debug)]
struct Function {
    handle: sys::CUfunction,
    shared_bytes: u32,
}

/// A recorded graph, ready to run.
#[derive(Debug)]
pub(super) struct CardGraph {
    executable: sys::CUgraphExec,
}

// SAFETY: the driver's handles may be used from any thread; every method makes the context current first, and what
// changes on the host is behind a lock.
unsafe impl Send for Card {}
// SAFETY: as above.
unsafe impl Sync for Card {}
// SAFETY: a graph is run through its card alone, on the card's one stream.
unsafe impl Send for CardGraph {}
// SAFETY: as above; running it does not change it.
unsafe impl Sync for CardGraph {}

impl Drop for CardGraph {
    fn drop(&mut self) {
        // SAFETY: the graph was instantiated and is destroyed once. The driver keeps it until a run under way ends.
        // A failure here has nobody to report to; the context's end frees it.
        let _ = unsafe { result::graph::exec_destroy(self.executable) };
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // SAFETY: each handle was made by `open` and is given back once; no buffer is left, as each holds the device.
        // Failures have nobody to report to; the process's end frees everything.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            if let Some(cublaslt) = self.cublaslt.take() {
                let _ = result::free_sync(cublaslt.workspace());
            }
            for module in &self.modules {
                let _ = result::module::unload(*module);
            }
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

/// Names the call that failed.
fn checked<T>(call: &'static str, answer: Result<T, result::DriverError>) -> Result<T, KernelError> {
    answer.map_err(|error| KernelError::Cuda { call, message: message(error) })
}

/// The driver's name of an error and its sentence.
fn message(error: result::DriverError) -> String {
    let sentence = error.error_string().map(|text| text.to_string_lossy().into_owned());
    format!("{:?} ({})", error.0, sentence.unwrap_or_else(|_| "no description".to_owned()))
}

impl Card {
    /// Opens the card, loads every module made for it, and cuBLASLt if it is wanted and there.
    pub(super) fn open(
        ordinal: u32,
        compute_capability: (u32, u32),
        options: CudaOptions,
    ) -> Result<Self, KernelError> {
        let device = checked("cuDeviceGet", result::device::get(ordinal as i32))?;
        // SAFETY: the device comes from cuDeviceGet.
        let context = checked("cuDevicePrimaryCtxRetain", unsafe { result::primary_ctx::retain(device) })?;
        // SAFETY: the context was retained above.
        checked("cuCtxSetCurrent", unsafe { result::ctx::set_current(context) })?;
        let stream =
            checked("cuStreamCreate", result::stream::create(result::stream::StreamKind::NonBlocking))?;
        let (modules, functions) = (Vec::new(), Mutex::default());
        let mut card = Self { device, context, stream, modules, functions, cublaslt: None };
        let hopper = compute_capability == (9, 0);
        for module in MODULES.iter().filter(|module| hopper || module.architecture == Architecture::Any) {
            card.modules.push(load(module.name, module.image)?);
        }
        if options.cublaslt {
            card.cublaslt = CublasLt::open(|bytes| card.alloc(bytes));
        }
        Ok(card)
    }

    /// cuBLASLt, if it is used.
    pub(super) fn cublaslt(&self) -> Option<&CublasLt> {
        self.cublaslt.as_ref()
    }

    /// Asks cuBLASLt for a product; `false` if it is not used, or not for such a product.
    ///
    /// # Safety
    /// As [`CublasLt::multiply`], but for the stream.
    pub(super) unsafe fn multiply(&self, product: &Product) -> Result<bool, KernelError> {
        let Some(cublaslt) = &self.cublaslt else { return Ok(false) };
        self.bind()?;
        // SAFETY: the stream is ours; the rest is the caller's promise.
        unsafe { cublaslt.multiply(product, self.stream.cast()) }
    }

    /// Makes the context current on this thread, which may not be the one that opened the card.
    fn bind(&self) -> Result<(), KernelError> {
        // SAFETY: the context lives as long as `self`.
        checked("cuCtxSetCurrent", unsafe { result::ctx::set_current(self.context) })
    }

    pub(super) fn alloc(&self, bytes: u64) -> Result<u64, KernelError> {
        self.bind()?;
        // SAFETY: the memory's contents are declared arbitrary. The driver refuses zero bytes.
        match unsafe { result::malloc_sync(bytes.max(1).next_multiple_of(16) as usize) } {
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let free = result::mem_get_info().map_or(0, |(free, _)| free as u64);
                Err(KernelError::DeviceMemory { bytes, free })
            }
            answer => checked("cuMemAlloc", answer),
        }
    }

    pub(super) fn free(&self, address: u64, _: u64) {
        // SAFETY: the address comes from `alloc` and is freed once; the driver waits for the kernels that use it.
        // A failure here means that a kernel failed before, which the next call reports.
        let _ = self.bind().map(|()| unsafe { result::free_sync(address) });
    }

    pub(super) fn zero(&self, address: u64, bytes: u64) -> Result<(), KernelError> {
        self.bind()?;
        // SAFETY: the caller owns so many bytes at the address; zero is a valid value of every plain element.
        let answer = unsafe { result::memset_d8_async(address, 0, bytes as usize, self.stream) };
        checked("cuMemsetD8Async", answer)
    }

    pub(super) fn copy_in(&self, address: u64, bytes: &[u8]) -> Result<(), KernelError> {
        self.bind()?;
        // SAFETY: the caller owns so many bytes at the address. The source is pageable memory, which the driver has
        // read or staged when the call returns.
        let answer = unsafe { result::memcpy_htod_async(address, bytes, self.stream) };
        checked("cuMemcpyHtoDAsync", answer)
    }

    pub(super) fn copy_out(&self, address: u64, bytes: &mut [u8]) -> Result<(), KernelError> {
        self.bind()?;
        // SAFETY: the caller owns so many bytes at the address; the destination is not touched before the wait below.
        let answer = unsafe { result::memcpy_dtoh_async(bytes, address, self.stream) };
        checked("cuMemcpyDtoHAsync", answer)?;
        self.synchronize()
    }

    pub(super) fn copy_within(&self, to: u64, from: u64, bytes: u64) -> Result<(), KernelError> {
        self.bind()?;
        // SAFETY: the caller owns so many bytes at both addresses, in two buffers.
        let answer = unsafe { result::memcpy_dtod_async(to, from, bytes as usize, self.stream) };
        checked("cuMemcpyDtoDAsync", answer)
    }

    pub(super) fn synchronize(&self) -> Result<(), KernelError> {
        self.bind()?;
        // SAFETY: the stream lives as long as `self`.
        checked("cuStreamSynchronize", unsafe { result::stream::synchronize(self.stream) })
    }

    /// # Safety
    /// As [`crate::device::cuda::Cuda::launch`].
    pub(super) unsafe fn launch(
        &self,
        kernel: &'static str,
        grid: Grid,
        args: &Args<'_>,
    ) -> Result<(), KernelError> {
        self.bind()?;
        let function = self.function(kernel, grid.shared_bytes)?;
        let [x, y, z] = grid.blocks;
        let mut pointers = args.pointers();
        // SAFETY: the function belongs to a loaded module; the rest is the caller's promise.
        let answer = unsafe {
            result::launch_kernel(
                function,
                (x, y, z),
                (grid.threads, 1, 1),
                grid.shared_bytes,
                self.stream,
                &mut pointers,
            )
        };
        answer.map_err(|error| KernelError::Launch { kernel, message: message(error) })
    }

    /// Finds an entry point, and allows it the shared memory it needs.
    fn function(&self, kernel: &'static str, shared_bytes: u32) -> Result<sys::CUfunction, KernelError> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(kernel).filter(|known| shared_bytes <= known.shared_bytes) {
            return Ok(function.handle);
        }
        let failed = |message| KernelError::Launch { kernel, message };
        let name = CString::new(kernel).map_err(|error| failed(error.to_string()))?;
        // SAFETY: the modules stay loaded as long as `self`.
        let find =
            |module: &sys::CUmodule| unsafe { result::module::get_function(*module, name.clone()) }.ok();
        let no_kernel = || failed("no such kernel was compiled for this card".to_owned());
        let handle = self.modules.iter().find_map(find).ok_or_else(no_kernel)?;
        let allowed = shared_bytes.max(SHARED_BYTES_DEFAULT);
        if allowed > SHARED_BYTES_DEFAULT {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was found above.
            unsafe { result::function::set_function_attribute(handle, attribute, allowed as i32) }
                .map_err(|error| failed(message(error)))?;
        }
        functions.insert(kernel, Function { handle, shared_bytes: allowed });
        Ok(handle)
    }

    pub(super) fn record_event(&self) -> Result<u64, KernelError> {
        self.bind()?;
        let flags = sys::CUevent_flags::CU_EVENT_DEFAULT;
        let event = checked("cuEventCreate", result::event::create(flags))?;
        // SAFETY: event and stream are alive.
        checked("cuEventRecord", unsafe { result::event::record(event, self.stream) })?;
        Ok(event as u64)
    }

    pub(super) fn elapsed(&self, start: u64, end: u64) -> Result<Option<Duration>, KernelError> {
        self.bind()?;
        let (start, end) = (start as sys::CUevent, end as sys::CUevent);
        // SAFETY: both events are alive: they are borrowed from their marks.
        let ms = unsafe {
            checked("cuEventSynchronize", result::event::synchronize(end))?;
            checked("cuEventElapsedTime", result::event::elapsed(start, end))?
        };
        Ok(Some(Duration::from_secs_f64(f64::from(ms.max(0.0)) / 1e3)))
    }

    pub(super) fn drop_event(&self, event: u64) {
        // SAFETY: made by `record_event`, destroyed once. A failure leaks one event.
        let _ = self.bind().map(|()| unsafe { result::event::destroy(event as sys::CUevent) });
    }

    pub(super) fn begin_capture(&self) -> Result<(), KernelError> {
        self.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive and was created by us, so that it can be captured.
        checked("cuStreamBeginCapture", unsafe { result::stream::begin_capture(self.stream, mode) })
    }

    pub(super) fn end_capture(&self) -> Result<Recorded, KernelError> {
        // SAFETY: the stream is alive and capturing.
        let graph = checked("cuStreamEndCapture", unsafe { result::stream::end_capture(self.stream) })?;
        let flags = sys::CUgraphInstantiate_flags(0);
        // SAFETY: the graph was just made; it is not needed once instantiated.
        let (executable, _) =
            unsafe { (result::graph::instantiate(graph, flags), result::graph::destroy(graph)) };
        Ok(Recorded::Card(CardGraph { executable: checked("cuGraphInstantiate", executable)? }))
    }

    pub(super) fn run(&self, graph: &CardGraph) -> Result<(), KernelError> {
        self.bind()?;
        // SAFETY: graph and stream are alive; the graph's buffers are, as `Graph::run` has just checked.
        checked("cuGraphLaunch", unsafe { result::graph::launch(graph.executable, self.stream) })
    }
}

/// Hands an image to the driver, which picks the code for its card or compiles the PTX in it.
fn load(name: &'static str, image: &'static [u8]) -> Result<sys::CUmodule, KernelError> {
    // The driver reads 64-bit fields, and bytes in a binary have no alignment: a copy made of words has.
    let mut words = vec![0u64; image.len().div_ceil(8)];
    for (word, bytes) in words.iter_mut().zip(image.chunks(8)) {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(padded);
    }
    // SAFETY: the words hold a whole fatbin, made by nvcc and checked in; the driver copies what it needs.
    unsafe { result::module::load_data(words.as_ptr().cast()) }
        .map_err(|error| KernelError::Launch { kernel: name, message: message(error) })
}
