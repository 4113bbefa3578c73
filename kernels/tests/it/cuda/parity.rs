//! What every parity test asks of a kernel: near its spec on each device, the same bits when it runs again, and the same
//! bits in whatever order the emulator runs its warps and copies.

use kernels::device::cuda::Cuda;

use crate::cuda::devices;
use crate::seeded::{bits_of, nmse};

/// Runs `run` twice on every device.
#[track_caller]
pub fn check(max_nmse: f64, want: &[f32], run: impl Fn(&Cuda) -> Vec<f32>) {
    check_on(&devices(), max_nmse, want, run);
}

/// Runs `run` twice on each of these devices.
#[track_caller]
pub fn check_on(devices: &[Cuda], max_nmse: f64, want: &[f32], run: impl Fn(&Cuda) -> Vec<f32>) {
    let mut emulated: Option<Vec<u32>> = None;
    for cuda in devices {
        let got = run(cuda);
        let error = nmse(want, &got);
        assert!(error <= max_nmse, "{}: error {error:e} over {max_nmse:e}", cuda.info().name);
        let bits = bits_of(&got);
        assert_eq!(bits_of(&run(cuda)), bits, "{}: a second launch", cuda.info().name);
        if cuda.is_emulated() {
            assert_eq!(emulated.get_or_insert_with(|| bits.clone()), &bits, "another order of warps");
        }
    }
}
