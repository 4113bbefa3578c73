//! RMS norm on the device.

use half::bf16;
use kernels::ops::rms_norm;

use crate::cuda::parity::check;
use crate::seeded::Seeded;

const EPS: f32 = 1e-6;

#[test]
fn agrees_with_the_spec_at_every_length() {
    for dim in [1, 2, 7, 8, 31, 128, 1000, 1024, 1025, 1032, 4096, 5120] {
        for rows in [1, 3] {
            let mut seeded = Seeded::new((dim * 10 + rows) as u64);
            let (x, weight) = (seeded.values(rows * dim), seeded.values(dim));
            let mut want = vec![0.0; x.len()];
            rms_norm::spec(&x, &weight, EPS, &mut want);
            check(rms_norm::MAX_NMSE_CUDA, &want, |cuda| {
                let (x, weight) = (cuda.upload(&x).unwrap(), cuda.upload(&weight).unwrap());
                let mut y = cuda.alloc::<bf16>(want.len()).unwrap();
                rms_norm::cuda(cuda, x.view(), weight.view(), EPS, y.view_mut()).unwrap();
                y.read().unwrap().iter().map(|y| y.to_f32()).collect()
            });
        }
    }
}

#[test]
fn a_hand_made_row_is_exact() {
    // mean square (9 + 16) / 2 = 12.5; with eps 3.5 the root is 4.
    check(0.0, &[3.0, 8.0, -3.0, 8.0], |cuda| {
        let (x, weight) = (cuda.upload(&[3.0, 4.0, -3.0, 4.0]).unwrap(), cuda.upload(&[4.0, 8.0]).unwrap());
        let mut y = cuda.alloc::<bf16>(4).unwrap();
        rms_norm::cuda(cuda, x.view(), weight.view(), 3.5, y.view_mut()).unwrap();
        y.read().unwrap().iter().map(|y| y.to_f32()).collect()
    });
}

#[test]
fn eps_keeps_a_row_of_zeros_zero() {
    check(0.0, &[0.0; 16], |cuda| {
        let (x, weight) = (cuda.zeroed(16).unwrap(), cuda.upload(&[1.0; 8]).unwrap());
        let mut y = cuda.alloc::<bf16>(16).unwrap();
        rms_norm::cuda(cuda, x.view(), weight.view(), EPS, y.view_mut()).unwrap();
        y.read().unwrap().iter().map(|y| y.to_f32()).collect()
    });
}
