//! SwiGLU on the device.

use half::bf16;
use kernels::device::cuda::Cuda;
use kernels::ops::swiglu;

use crate::cuda::devices;
use crate::cuda::parity::check;
use crate::seeded::Seeded;

fn run(cuda: &Cuda, gate_up: &[f32], n: usize) -> Vec<f32> {
    let gate_up = cuda.upload(gate_up).unwrap();
    let mut y = cuda.alloc::<bf16>(gate_up.len() / 2).unwrap();
    swiglu::cuda(cuda, gate_up.view(), n, y.view_mut()).unwrap();
    y.read().unwrap().iter().map(|y| y.to_f32()).collect()
}

#[test]
fn agrees_with_the_spec_at_every_length() {
    for ffn in [1, 3, 8, 13, 64, 1000, 1024, 3072] {
        for n in [1, 3] {
            let gate_up: Vec<f32> =
                Seeded::new((ffn + n) as u64).values(2 * n * ffn).iter().map(|x| x * 20.0).collect();
            let mut want = Vec::new();
            for row in gate_up.chunks(2 * ffn) {
                let mut gate = row[..ffn].to_vec();
                swiglu::spec(&mut gate, &row[ffn..]);
                want.extend(gate);
            }
            check(swiglu::MAX_NMSE_CUDA, &want, |cuda| run(cuda, &gate_up, n));
        }
    }
}

#[test]
fn is_finite_at_the_ends_of_the_range() {
    let gate_up =
        [0.0, -200.0, 200.0, f32::MIN, 1e30, -88.0, 1.0, -1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0];
    for cuda in devices() {
        let y = run(&cuda, &gate_up, 1);
        assert_eq!((y[0], y[1], y[2], y[3], y[6], y[7]), (0.0, 0.0, 400.0, 0.0, 0.0, 0.0));
        assert!((y[4] / 2e30 - 1.0).abs() < 0.01, "{}", y[4]);
        assert!(y[5].abs() < 1e-35, "{}", y[5]);
    }
}
