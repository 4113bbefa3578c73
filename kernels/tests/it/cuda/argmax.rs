//! The index of the largest logit on the device.

use kernels::device::cuda::Cuda;
use kernels::ops::argmax;

use crate::cuda::devices;
use crate::seeded::Seeded;

fn run(cuda: &Cuda, logits: &[f32]) -> u32 {
    let logits = cuda.upload(logits).unwrap();
    let (mut scratch, mut index) =
        (cuda.alloc(argmax::cuda_scratch_len(logits.len())).unwrap(), cuda.alloc(1).unwrap());
    argmax::cuda(cuda, logits.view(), scratch.view_mut(), index.view_mut()).unwrap();
    index.read().unwrap()[0]
}

#[track_caller]
fn check(logits: &[f32]) {
    let want = argmax::spec(logits);
    for cuda in devices() {
        assert_eq!(run(&cuda, logits), want, "{} of {} logits", cuda.info().name, logits.len());
    }
}

#[test]
fn agrees_with_the_spec_at_every_length() {
    for n in [1, 7, 8, 9, 1023, 1024, 1025, 5000, 151_936] {
        check(&Seeded::new(n as u64).values(n));
    }
}

#[test]
fn the_lowest_of_equal_indices_wins_in_every_place() {
    let mut logits = vec![-1.0; 3000];
    check(&logits);
    for at in [2999, 2048, 2047, 1024, 1023, 9, 8, 7, 1] {
        logits[at] = 2.0;
        check(&logits);
    }
}

#[test]
fn negative_logits_and_both_zeros_are_in_order() {
    check(&[-3.0, -2.5, -2.5, -1e-40, -7.0]);
    check(&[-1.0, -0.0, 0.0]);
    check(&[-0.0, f32::MIN_POSITIVE, 1e-40]);
    check(&[-2.0, 0.0, -0.0, 1e-40]);
}

#[test]
fn neither_nan_nor_minus_infinity_wins() {
    check(&[f32::NAN, f32::MIN, -f32::NAN, f32::NEG_INFINITY]);
    check(&[f32::NAN, f32::NEG_INFINITY]);
    check(&[f32::MAX, f32::NAN, f32::INFINITY]);
    check(&[f32::NAN; 1030]);
}
