//! The door to the emulator of `emu/`, which runs a CUDA kernel on the CPU, one fiber per thread. What it runs on is
//! ordinary memory. It must not know what a kernel computes, nor who owns the memory.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

/// Longest report of a failed launch; a longer one is cut.
const MESSAGE_BYTES: usize = 4096;

unsafe extern "C" {
    /// Runs a kernel and waits for it. Returns 0, or writes a report that ends in 0 into `message`.
    fn reprise_emulate(
        kernel: *const c_char,
        blocks: *const c_uint,
        threads: c_uint,
        shared_bytes: usize,
        arguments: *const *mut c_void,
        seed: u64,
        message: *mut c_char,
        message_bytes: usize,
    ) -> c_int;
}

/// Runs `kernel` over a grid of `blocks` blocks of `threads` threads. `args[i]` points at the value of parameter `i`, as
/// `cuLaunchKernel` takes them. The same `seed` gives the same run: its lowest bit decides whether asynchronous copies
/// happen when asked for (1) or when waited for (0), the next whether threads run in descending order; from 4 on the
/// order of warps is drawn.
///
/// # Errors
/// A report that names the kernel and, for what goes wrong while it runs, the block, the thread and the line: an
/// unknown name, a block the kernel is not compiled for, a barrier or an operation of the warp that some threads do not
/// reach, a misaligned matrix row or copy, a write past the end of shared memory.
///
/// # Safety
/// `args` match the kernel's parameters in number and type, and with these arguments the kernel reads and writes only
/// memory that is valid for it and that nobody else uses meanwhile.
pub(super) unsafe fn launch(
    kernel: &str,
    blocks: [u32; 3],
    threads: u32,
    shared_bytes: u32,
    args: &mut [*mut c_void],
    seed: u64,
) -> Result<(), String> {
    let name = CString::new(kernel).map_err(|_| format!("a 0 byte in the kernel name {kernel:?}"))?;
    let mut message = [0; MESSAGE_BYTES];
    // SAFETY: all pointers are valid for the call, `blocks` for three values and `message` for its length; what the
    // kernel does with `args` is the caller's promise.
    let status = unsafe {
        reprise_emulate(
            name.as_ptr(),
            blocks.as_ptr(),
            threads,
            shared_bytes as usize,
            args.as_ptr(),
            seed,
            message.as_mut_ptr(),
            message.len(),
        )
    };
    if status == 0 {
        return Ok(());
    }
    // SAFETY: a failed launch leaves a text that ends in 0, within the length given.
    Err(unsafe { CStr::from_ptr(message.as_ptr()) }.to_string_lossy().into_owned())
}
