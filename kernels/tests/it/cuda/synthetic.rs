//! Weights made from a seed, on the device.

use kernels::ops::synthetic::{self, Fill};

use crate::cuda::devices;

#[test]
fn the_device_gives_the_bits_of_the_cpu() {
    let fill = Fill { seed: 0xFEDC_BA98_7654_3210, mean: 1.4, deviation: 0.2 };
    let others = [Fill { seed: 1, mean: 0.0, deviation: 1.0 / 32.0 }, Fill { seed: u64::MAX, ..fill }];
    for fill in [fill].into_iter().chain(others) {
        for (rows, cols) in [(1, 1), (3, 2), (5, 7), (2, 64), (3, 1030), (2, 4096)] {
            let bytes = |i: usize| synthetic::spec(fill, i / cols, i % cols).to_le_bytes();
            let want: Vec<u8> = (0..rows * cols).flat_map(bytes).collect();
            for cuda in devices() {
                let mut out = cuda.alloc::<u8>(want.len()).unwrap();
                synthetic::cuda(&cuda, fill, cols, out.view_mut()).unwrap();
                assert!(out.read().unwrap() == want, "{}: {rows} x {cols}", cuda.info().name);
            }
        }
    }
}
