//! CUDA kernels against their specs: under the emulator with the feature `emulation`, and on the card where there is
//! one. The same tests in both places.

mod argmax;
mod attention;
mod block_sparse;
mod device;
mod embedding;
mod kv_store;
mod matmul;
mod parity;
mod qk_norm_rope;
mod rms_norm;
mod swiglu;
mod synthetic;
mod tail_score;

use kernels::device::cuda::{Cuda, CudaOptions, detect};

/// Every device to test on: the emulator with four orders of warps and copies, and the first card.
///
/// # Panics
/// If there is no card and `REQUIRE_GPU` is set.
pub fn devices() -> Vec<Cuda> {
    let mut devices = Vec::new();
    #[cfg(feature = "emulation")]
    devices.extend((0..4).map(Cuda::emulated));
    match detect() {
        Ok(_) => devices.push(Cuda::open(0, CudaOptions::default()).expect("the card opens")),
        Err(absence) => {
            let required = std::env::var_os("REQUIRE_GPU").is_some();
            assert!(!required, "REQUIRE_GPU is set, but {absence}");
            if devices.is_empty() {
                eprintln!("skipped: {absence}; --features emulation runs this test on the CPU");
            }
        }
    }
    devices
}

/// The first card, opened with `options`, if `wanted` says that it is one to test on; says so if not.
pub fn card(options: CudaOptions, wanted: impl Fn(&Cuda) -> bool, what: &str) -> Vec<Cuda> {
    let opened = detect().is_ok().then(|| Cuda::open(0, options).expect("the card opens"));
    let found: Vec<_> = opened.into_iter().filter(wanted).collect();
    if found.is_empty() {
        eprintln!("skipped: no {what} here");
    }
    found
}
