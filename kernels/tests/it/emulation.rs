//! The emulator of CUDA kernels: what its warps, barriers, copies and matrix instructions compute, and that it finds
//! the mistakes it is there to find. The kernels are those of `emu/tests/`; knows no op.

use half::{bf16, f16};
use kernels::KernelError;
use kernels::buffer::Plain;
use kernels::device::cuda::{Args, Cuda, Grid};

use crate::seeded::Seeded;

/// Every pair of copy order and thread order, then drawn ones.
const SEEDS: std::ops::Range<u64> = 0..12;

const fn grid(blocks: u32, threads: u32, shared_bytes: u32) -> Grid {
    Grid { blocks: [blocks, 1, 1], threads, shared_bytes }
}

/// Runs a test kernel, all of which take what they read, what they write and a count. Gives what was written, or the
/// report if the emulator stops it.
fn run<I: Plain, O: Plain + Default>(
    seed: u64,
    (kernel, grid): (&'static str, Grid),
    input: &[I],
    output: &[O],
    n: usize,
) -> Result<Vec<O>, String> {
    let cuda = Cuda::emulated(seed);
    let (input, mut output) = (cuda.upload(input).unwrap(), cuda.upload(output).unwrap());
    let mut out = output.view_mut();
    let args = Args::new().view(input.view()).view_mut(&mut out).i32(n as i32);
    // SAFETY: these are the kernel's parameters; each test passes buffers of the sizes its kernel uses.
    unsafe { cuda.launch(kernel, grid, &args) }.map_err(|error| match error {
        KernelError::Launch { message, .. } => message,
        other => panic!("{other}"),
    })?;
    drop(args);
    Ok(output.read().unwrap())
}

#[test]
fn shuffles_move_values_as_the_instructions_do() {
    let x: Vec<i32> = (0..32).map(|lane| 100 + 7 * lane).collect();
    let source: [fn(usize) -> usize; 7] = [
        |_| 5,
        |lane| lane / 8 * 8 + 3,
        |lane| lane ^ 9,
        // A segment may read a lower one, not a higher one.
        |lane| if (lane ^ 9) > (lane | 7) { lane } else { lane ^ 9 },
        |lane| if lane % 16 + 3 < 16 { lane + 3 } else { lane },
        |lane| if lane % 8 >= 2 { lane - 2 } else { lane },
        |lane| if lane < 16 { lane ^ 1 } else { lane ^ 2 },
    ];
    let want: Vec<i32> = source.iter().flat_map(|source| (0..32).map(|lane| x[source(lane)])).collect();
    for seed in SEEDS {
        assert_eq!(run(seed, ("emu_shuffles", grid(1, 32, 0)), &x, &[0; 224], 0), Ok(want.clone()));
    }
}

#[test]
fn votes_see_the_lanes_of_their_mask() {
    let x: Vec<i32> = (0..32).map(|lane| lane * lane % 7 + 1).collect();
    let odd = (0..32).filter(|&lane| x[lane] % 2 == 1).fold(0_u32, |votes, lane| votes | 1 << lane);
    for (value, all) in [(&x, 0), (&vec![9; 32], 1)] {
        let odd = if all == 1 { u32::MAX } else { odd };
        let row = |value: fn(usize, u32) -> u32| (0..32).map(move |lane| value(lane, odd));
        let by_parity = row(|lane, odd| odd & if lane % 2 == 1 { 0xaaaa_aaaa } else { 0x5555_5555 });
        let want: Vec<u32> = row(|_, odd| odd).chain([1; 32]).chain([all; 32]).chain(by_parity).collect();
        for seed in SEEDS {
            assert_eq!(run(seed, ("emu_votes", grid(1, 32, 0)), value, &[0; 128], 0), Ok(want.clone()));
        }
    }
}

#[test]
fn every_block_of_a_grid_runs() {
    let n = 301;
    let x: Vec<f32> = (0..6 * n).map(|i| i as f32).collect();
    let want: Vec<f32> = x.chunks(n).map(|row| row.iter().sum()).collect();
    for seed in SEEDS {
        let grid = Grid { blocks: [3, 2, 1], threads: 128, shared_bytes: 16 };
        assert_eq!(run(seed, ("emu_block_sum", grid), &x, &[0.0; 6], n), Ok(want.clone()));
    }
}

#[test]
fn conversions_round_as_the_device_does() {
    let mut seeded = Seeded::new(1);
    let mut x: Vec<f32> = (0..20_000).map(|_| f32::from_bits(seeded.bits() as u32)).collect();
    // Ties, subnormals, infinities, the largest value.
    x.extend([1.003_906_3, 1.011_718_8, 1e-40, -1e-45, f32::INFINITY, -f32::INFINITY, f32::MAX, 0.0, -0.0]);
    let bits = |x: f32| if x.is_nan() { 0x7fff } else { u32::from(bf16::from_f32(x).to_bits()) };
    let want: Vec<u32> =
        x.iter().zip(x.iter().rev()).flat_map(|(&x, &y)| [bits(x), bits(x) | bits(y) << 16]).collect();
    let blocks = x.len().div_ceil(128) as u32;
    let got = run(0, ("emu_to_bf16", grid(blocks, 128, 0)), &x, &vec![0; 2 * x.len()], x.len());
    assert_eq!(got, Ok(want));

    let halves: Vec<u16> = (0..=u16::MAX).collect();
    let got =
        run(0, ("emu_f16_to_f32", grid(512, 128, 0)), &halves, &vec![0.0_f32; 1 << 16], 1 << 16).unwrap();
    for (&half, got) in halves.iter().zip(got) {
        let want = f16::from_bits(half).to_f32();
        assert!(
            got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
            "{half:#x}: {got}, {want}"
        );
    }
}

#[test]
fn powers_of_two_are_exact_and_flushed() {
    let x: Vec<f32> = (-160..=128).map(|x| x as f32).chain([f32::NEG_INFINITY, 0.5, -126.5]).collect();
    let exact = |x: f32| if x < -126.0 { 0.0 } else { x.exp2() };
    let got = run(0, ("emu_exp2", grid(3, 128, 0)), &x, &vec![0.0; x.len()], x.len());
    assert_eq!(got, Ok(x.into_iter().map(exact).collect()));
}

/// Products of 24 bits, so that fusing them with the sum would show.
#[test]
fn products_and_sums_are_rounded_apart_where_asked() {
    let x = Seeded::new(4).values(3 * 32);
    let want: Vec<f32> = x.chunks(3).map(|x| x[0] * x[1] + x[2] - x[0] * x[2]).collect();
    let fused: Vec<f32> = x.chunks(3).map(|x| (-x[0]).mul_add(x[2], x[0].mul_add(x[1], x[2]))).collect();
    assert_ne!(want, fused);
    assert_eq!(run(0, ("emu_rounded_apart", grid(1, 32, 0)), &x, &[0.0; 32], 0), Ok(want));
}

#[test]
fn integer_functions_are_those_of_the_device() {
    let mut seeded = Seeded::new(2);
    let mut x: Vec<u32> = (0..32).map(|_| seeded.bits() as u32 >> (seeded.bits() % 24)).collect();
    // As f32: ties to even, beyond the range, not a number.
    x[..8].copy_from_slice(&[2.5, -3.5, 3e9, -3e9, f32::NAN, 0.49, -0.51, 1e6].map(f32::to_bits));
    x[8] = 0;
    let row = |i: usize| {
        let (x, y) = (x[i], x[(i + 1) % 32]);
        let bytes = (u64::from(y) << 32 | u64::from(x)).to_le_bytes();
        // Selector 5a31: byte 1, byte 3, the sign of byte 2, byte 5.
        let sign = if bytes[2] >= 128 { 0xff } else { 0 };
        let products = x.to_le_bytes().into_iter().zip(y.to_le_bytes());
        let dot: i32 = products.map(|(a, b)| i32::from(a as i8) * i32::from(b as i8)).sum();
        [
            x.count_ones() as i32,
            x.leading_zeros() as i32,
            if x == 0 { 0 } else { x.trailing_zeros() as i32 + 1 },
            i32::from_le_bytes([bytes[1], bytes[3], sign, bytes[5]]),
            dot + 7,
            f32::from_bits(x).round_ties_even() as i32,
            x.min(1000) as i32,
            (x as i32).max(-5),
            ((u64::from(y) << 32 | u64::from(x)) >> 13) as i32,
        ]
    };
    let want: Vec<[i32; 9]> = (0..32).map(row).collect();
    assert_eq!(run(0, ("emu_integers", grid(1, 32, 0)), &x, &[[0; 9]; 32], 0), Ok(want));
}

#[test]
fn matrix_loads_give_each_lane_its_pair() {
    let x: Vec<u16> = (0..256).map(|i| 1000 + i).collect();
    let at = |matrix: usize, row: usize, col: usize| u32::from(x[64 * matrix + 8 * row + col]);
    let words = |pick: &dyn Fn(usize, usize, usize) -> u32| -> Vec<u32> {
        let lanes = (0..32).flat_map(|lane| (0..4).map(move |matrix| (lane, matrix)));
        lanes.map(|(l, m)| pick(m, l / 4, l % 4 * 2) | pick(m, l / 4, l % 4 * 2 + 1) << 16).collect()
    };
    let (plain, transposed) = (words(&at), words(&|matrix, row, col| at(matrix, col, row)));
    let grid = grid(1, 32, 32 * 24 * 2);
    for seed in SEEDS {
        assert_eq!(run(seed, ("emu_ldmatrix", grid), &x, &[0; 128], 0), Ok(plain.clone()));
        assert_eq!(run(seed, ("emu_ldmatrix_trans", grid), &x, &[0; 128], 0), Ok(transposed.clone()));
    }
}

/// Integers small enough that every sum is exact, so that a value at a wrong place shows, whatever the order of sums.
#[test]
fn the_matrix_product_is_that_of_the_fragments() {
    let mut seeded = Seeded::new(3);
    let mut small = |n: usize| -> Vec<i32> { (0..n).map(|_| (seeded.bits() % 127) as i32 - 63).collect() };
    let (a, b, c) = (small(16 * 16), small(8 * 16), small(16 * 8));
    let product =
        |row: usize, col: usize| -> i32 { (0..16).map(|k| a[16 * row + k] * b[16 * col + k]).sum() };
    let want: Vec<f32> = (0..128).map(|i| (c[i] + product(i / 8, i % 8)) as f32).collect();
    let x: Vec<bf16> = a.iter().chain(&b).map(|&x| bf16::from_f32(x as f32)).collect();
    let c: Vec<f32> = c.iter().map(|&x| x as f32).collect();
    for seed in SEEDS {
        assert_eq!(run(seed, ("emu_mma", grid(1, 32, 0)), &x, &c, 0), Ok(want.clone()));
    }
}

/// The seeds under which a kernel gives another result than it should: none, or for the same kernel with a mistake in
/// it those that must show it.
#[test]
fn forgotten_barriers_change_the_result() {
    let x: Vec<i32> = (1..=4 * 128).collect();
    let other_warp = |i: usize| x[i / 128 * 128 + (i + 48) % 128];
    let want: Vec<i32> = (0..x.len()).map(other_warp).collect();
    let wrong = |kernel| {
        let outcome = |seed| run(seed, (kernel, grid(1, 128, 512)), &x, &vec![0; x.len()], 4).unwrap();
        SEEDS.filter(|&seed| outcome(seed) != want).collect::<Vec<_>>()
    };
    assert_eq!(wrong("emu_exchange"), [0; 0]);
    assert_eq!(wrong("emu_exchange_reads_early")[..4], [0, 1, 2, 3]);
    assert_eq!(wrong("emu_exchange_writes_early")[..4], [0, 1, 2, 3]);

    let x: Vec<i32> = (1..=32).collect();
    let want: Vec<i32> = (1..=32).rev().collect();
    for seed in SEEDS {
        assert_eq!(run(seed, ("emu_reverse", grid(1, 32, 128)), &x, &[0; 32], 0), Ok(want.clone()));
        assert_ne!(
            run(seed, ("emu_reverse_reads_early", grid(1, 32, 128)), &x, &[0; 32], 0),
            Ok(want.clone())
        );
    }
}

/// What is right only if one warp runs before another is wrong under half of the seeds, whichever warp that is.
#[test]
fn every_pair_of_warps_runs_in_both_orders() {
    let x: Vec<i32> = (1..=32).collect();
    let right = |kernel| {
        let outcome = |seed| run(seed, (kernel, grid(1, 64, 128)), &x, &[0; 32], 0).unwrap();
        SEEDS.filter(|&seed| outcome(seed) == x).collect::<Vec<_>>()
    };
    let (down, up) = (right("emu_hand_down"), right("emu_hand_up"));
    assert_eq!(down[..2], [0, 1]);
    assert_eq!(up[..2], [2, 3]);
    // Without a barrier it is one or the other, and the drawn orders have both.
    assert_eq!(down.len() + up.len(), SEEDS.count());
    assert!(down.len() > 2 && up.len() > 2, "{down:?} {up:?}");
}

#[test]
fn copies_are_waited_for_before_they_are_used() {
    let (n, tile) = (5, 512);
    let x: Vec<f32> = (0..n * tile).map(|i| i as f32).collect();
    let element = |i: usize| -> f32 { (0..n - 1).map(|t| x[t * tile + (i + 4 * 48) % tile]).sum() };
    let want: Vec<f32> = (0..tile).map(element).collect();
    let wrong = |kernel| {
        let outcome = |seed| run(seed, (kernel, grid(1, 128, 4096)), &x, &vec![0.0; tile], n).unwrap();
        SEEDS.filter(|&seed| outcome(seed) != want).collect::<Vec<_>>()
    };
    assert_eq!(wrong("emu_copies"), [0; 0]);
    // Where copies happen as late as they may, those nobody waited for have not happened.
    assert_eq!(wrong("emu_copies_no_wait"), [0, 2, 4, 6, 8, 10]);
    assert_eq!(wrong("emu_copies_read_early")[..4], [0, 1, 2, 3]);
    // Where they happen as early as they may, they overwrite what a slower warp still reads.
    let early = wrong("emu_copies_early");
    assert!(early.contains(&1) && early.contains(&3), "{early:?}");
    assert!(early.iter().all(|seed| seed % 2 == 1), "{early:?}");
}

/// Each fault is reported with its kernel, its place in the source and its reason, under every seed.
#[test]
fn faults_are_reported_with_their_place() {
    let source = include_str!("../../emu/tests/faults.cu").lines().zip(1..);
    let cases = [
        (
            "emu_divergent_barrier",
            "divergent barrier: other threads of the block wait at emu/tests/faults.cu:",
        ),
        ("emu_deadlock", "deadlock"),
        ("emu_partial_warp", "returned"),
        ("emu_not_in_own_mask", "__shfl_xor_sync: the lane is not in its own mask 0000ffff"),
        ("emu_reads_outside_mask", "reads from lane 20, which is not in the mask 0000ffff"),
        ("emu_different_operations", " of other lanes at emu/tests/faults.cu:"),
        ("emu_misaligned_matrix", "ldmatrix_x4: the shared address is not a multiple of 16"),
        ("emu_matrix_outside", "ldmatrix_x4: offset 512 is outside the block's 512 bytes of shared memory"),
        ("emu_misaligned_copy", "cp_async_16: the source is not a multiple of 16"),
        ("emu_copy_outside", "cp_async_16: offset 512 is outside the block's 512 bytes of shared memory"),
    ];
    for (kernel, reason) in cases {
        let marked: Vec<_> = source
            .clone()
            .filter(|(line, _)| line.ends_with(&format!("// waits in {kernel}")))
            .map(|(_, number)| format!("emu/tests/faults.cu:{number}"))
            .collect();
        for seed in SEEDS {
            let threads = if kernel == "emu_divergent_barrier" { 128 } else { 32 };
            let report =
                run(seed, (kernel, grid(1, threads, 512)), &[0.0_f32; 128], &[0_u32; 128], 0).unwrap_err();
            assert!(report.starts_with(&format!("{kernel}, block (0, 0, 0)")), "{report}");
            assert!(report.contains(reason), "{report}");
            assert!(!marked.is_empty() && marked.iter().all(|place| report.contains(place)), "{report}");
        }
    }
}

#[test]
fn a_deadlock_says_who_waits_for_whom() {
    let report = run(0, ("emu_deadlock", grid(1, 64, 0)), &[0.0_f32], &[0_i32; 64], 0).unwrap_err();
    let line = |marked: &str| {
        let source = include_str!("../../emu/tests/faults.cu");
        1 + source
            .lines()
            .position(|line| line.contains(marked) && line.contains("// waits in emu_deadlock"))
            .unwrap()
    };
    let (shuffle, barrier) = (line("__shfl_sync"), line("__syncthreads"));
    let want = [
        "emu_deadlock, block (0, 0, 0): deadlock".to_owned(),
        format!(
            "  lanes 000000ff of warp 0 wait in __shfl_sync at emu/tests/faults.cu:{shuffle} for lanes ffffff00"
        ),
        format!("  48 threads, first thread 8, wait in __syncthreads at emu/tests/faults.cu:{barrier}"),
        format!(
            "  lanes 000000ff of warp 1 wait in __shfl_sync at emu/tests/faults.cu:{shuffle} for lanes ffffff00"
        ),
    ];
    assert_eq!(report, want.join("\n"));
}

/// The sanitizer finds it earlier.
#[cfg(not(sanitized))]
#[test]
fn a_write_past_shared_memory_is_found_when_the_block_ends() {
    let report = run(0, ("emu_past_shared_memory", grid(1, 32, 512)), &[0.0_f32], &[0_i32; 32], 0);
    let want = "emu_past_shared_memory, block (0, 0, 0): a write to offset 512, past the block's 512 bytes of shared memory";
    assert_eq!(report, Err(want.to_owned()));
}

#[test]
fn a_launch_that_the_kernel_is_not_made_for_is_refused() {
    let refused =
        |kernel, threads| run(0, (kernel, grid(1, threads, 0)), &[0_i32; 32], &[0_i32; 32], 0).unwrap_err();
    assert_eq!(refused("emu_nothing", 32), "no kernel is named emu_nothing");
    for threads in [0, 48, 160] {
        let want =
            format!("emu_exchange takes whole warps of up to 128 threads a block, not {threads} threads");
        assert_eq!(refused("emu_exchange", threads), want);
    }
}

/// After a report the same OS thread goes on with new stacks.
#[test]
fn a_failed_launch_leaves_nothing_behind() {
    let x: Vec<i32> = (1..=128).collect();
    let exchange = || run(5, ("emu_exchange", grid(1, 128, 512)), &x, &[0; 128], 1);
    let before = exchange();
    assert!(run(5, ("emu_deadlock", grid(7, 64, 0)), &[0.0_f32], &[0_i32; 64], 0).is_err());
    assert_eq!(before, exchange());
}

/// The sanitizers see device memory and shared memory byte by byte. A process they stop cannot go on, so this test runs
/// itself as a child, which it knows by `--exact`.
#[cfg(sanitized)]
#[test]
fn sanitizers_name_the_line_that_leaves_its_memory() {
    const NAME: &str = "emulation::sanitizers_name_the_line_that_leaves_its_memory";
    let planted = [
        ("emu_past_global_memory", "heap-buffer-overflow"),
        ("emu_past_shared_memory", "use-after-poison"),
        ("emu_reads_past_shared_memory", "use-after-poison"),
        ("emu_misaligned_vector", "misaligned address"),
    ];
    let args: Vec<String> = std::env::args().collect();
    if args.iter().any(|arg| arg == "--exact") {
        let (kernel, _) =
            planted.into_iter().find(|(kernel, _)| args.iter().any(|arg| arg == kernel)).unwrap();
        let outcome = run(0, (kernel, grid(1, 32, 512)), &[0.0_f32; 136], &[0_i32; 32], 0);
        unreachable!("no sanitizer stopped it: {outcome:?}");
    }
    for (kernel, reason) in planted {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, kernel, "--nocapture"])
            .output()
            .unwrap();
        let report = String::from_utf8_lossy(&child.stderr);
        assert!(!child.status.success() && report.contains(reason), "{kernel}: {report}");
        let mut lines = include_str!("../../emu/tests/faults.cu").lines();
        let line = 1 + lines.position(|line| line.ends_with(&format!("// leaves in {kernel}"))).unwrap();
        assert!(report.contains(&format!("emu/tests/faults.cu:{line}")), "{kernel}: {report}");
    }
}
