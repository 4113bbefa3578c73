//! The emulator of CUDA kernels: what its warps, barriers, copies and matrix instructions compute, and that it finds
//! the mistakes it is there to find. The kernels are those of `emu/tests/`; knows no op.

use kernels::KernelError;
use kernels::device::cuda::{Args, Cuda, Grid};

/// Every pair of copy order and thread order, and two shuffled ones.
const SEEDS: std::ops::Range<u64> = 0..6;

const fn grid(blocks: u32, threads: u32, shared_bytes: u32) -> Grid {
    Grid { blocks: [blocks, 1, 1], threads, shared_bytes }
}

/// Runs a test kernel; the report if the emulator stops it.
fn launch(cuda: &Cuda, kernel: &'static str, grid: Grid, args: &Args<'_>) -> Result<(), String> {
    // SAFETY: each test passes what its kernel in `emu/tests/` takes, in buffers of the sizes it uses.
    unsafe { cuda.launch(kernel, grid, args) }.map_err(|error| match error {
        KernelError::Launch { message, .. } => message,
        other => panic!("{other}"),
    })
}

#[test]
fn a_block_sum_is_the_sum_under_every_seed() {
    for cuda in SEEDS.map(Cuda::emulated) {
        let n = 1000;
        let x: Vec<f32> = (0..3 * n).map(|i| i as f32).collect();
        let (x, mut sums) = (cuda.upload(&x).unwrap(), cuda.alloc::<f32>(3).unwrap());
        let mut out = sums.view_mut();
        let args = Args::new().view(x.view()).view_mut(&mut out).i32(n);
        launch(&cuda, "emu_block_sum", grid(3, 128, 16), &args).unwrap();
        drop(args);
        assert_eq!(sums.read().unwrap(), [499_500.0, 1_499_500.0, 2_499_500.0]);
    }
}

#[test]
fn an_unknown_kernel_is_refused_by_name() {
    let report = launch(&Cuda::emulated(0), "emu_nothing", grid(1, 32, 0), &Args::new());
    assert_eq!(report, Err("no kernel is named emu_nothing".to_owned()));
}
