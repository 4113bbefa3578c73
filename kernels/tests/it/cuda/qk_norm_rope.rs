//! The norm and rotation of heads on the device.

use half::bf16;
use kernels::device::cuda::Cuda;
use kernels::ops::qk_norm_rope::{
    self, Angles, DeviceAngles, DeviceHeads, HeadNorm, MAX_NMSE_CUDA, MAX_NMSE_CUDA_KEYS, Positions, Rotation,
};

use crate::cuda::devices;
use crate::cuda::parity::check;
use crate::seeded::Seeded;

const EPS: f32 = 1e-6;
const THETA: f64 = 1e6;

struct Case {
    n: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    start: usize,
    qkv: Vec<f32>,
    q_weight: Vec<f32>,
    k_weight: Vec<f32>,
}

impl Case {
    fn new(n: usize, (n_heads, n_kv_heads, head_dim): (usize, usize, usize), start: usize) -> Self {
        let mut seeded = Seeded::new((n * 1000 + head_dim + start) as u64);
        Self {
            n,
            n_heads,
            n_kv_heads,
            head_dim,
            start,
            qkv: seeded.values(n * (n_heads + 2 * n_kv_heads) * head_dim),
            q_weight: seeded.values(head_dim),
            k_weight: seeded.values(head_dim),
        }
    }

    /// Columns `first..first + n_heads · head_dim` of every row.
    fn heads(&self, first: usize, n_heads: usize) -> Vec<f32> {
        let rows = self.qkv.chunks((self.n_heads + 2 * self.n_kv_heads) * self.head_dim);
        rows.flat_map(|row| row[first..first + n_heads * self.head_dim].to_vec()).collect()
    }

    fn spec(&self, rotation: Rotation<Positions>) -> (Vec<f32>, Vec<f32>) {
        let run = |first, n_heads, weight: &[f32]| {
            let x = self.heads(first, n_heads);
            let mut y = vec![0.0; x.len()];
            qk_norm_rope::spec(&x, HeadNorm { n_heads, weight, eps: EPS }, rotation, &mut y);
            y
        };
        let q = run(0, self.n_heads, &self.q_weight);
        (q, run(self.n_heads * self.head_dim, self.n_kv_heads, &self.k_weight))
    }

    /// Queries and keys; a table of `n_positions` positions, or no rotation.
    fn run(&self, cuda: &Cuda, n_positions: Option<usize>) -> (Vec<f32>, Vec<f32>) {
        let values = self.n * self.head_dim;
        let (mut q, mut k) = (
            cuda.alloc::<bf16>(values * self.n_heads).unwrap(),
            cuda.alloc(values * self.n_kv_heads).unwrap(),
        );
        let (qkv, q_weight) = (cuda.upload(&self.qkv).unwrap(), cuda.upload(&self.q_weight).unwrap());
        let k_weight = cuda.upload(&self.k_weight).unwrap();
        let heads = DeviceHeads {
            qkv: qkv.view(),
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            q_weight: q_weight.view(),
            k_weight: k_weight.view(),
            eps: EPS,
        };
        let table = Angles::new(self.head_dim, THETA, 0, n_positions.unwrap_or(0));
        let (table, start) =
            (cuda.upload(table.table()).unwrap(), cuda.upload(&[self.start as i32]).unwrap());
        let rotation = match n_positions {
            None => Rotation::Off,
            Some(_) => Rotation::By(DeviceAngles { table: table.view(), start: start.view() }),
        };
        qk_norm_rope::cuda(cuda, &heads, rotation, q.view_mut(), k.view_mut()).unwrap();
        assert_eq!(qkv.read().unwrap(), self.qkv, "the heads stay as they are");
        (q.read().unwrap().iter().map(|q| q.to_f32()).collect(), k.read().unwrap())
    }
}

#[test]
fn agrees_with_the_spec_at_every_shape() {
    for heads in [(1, 1, 2), (4, 2, 64), (16, 8, 128), (3, 1, 32), (5, 5, 48), (2, 2, 80), (4, 1, 256)] {
        for (n, start) in [(1, 0), (1, 777), (3, 62)] {
            let case = Case::new(n, heads, start);
            let (q, k) = case.spec(Rotation::By(Positions { theta: THETA, start }));
            check(MAX_NMSE_CUDA, &q, |cuda| case.run(cuda, Some(start + n)).0);
            check(MAX_NMSE_CUDA_KEYS, &k, |cuda| case.run(cuda, Some(start + n)).1);
        }
    }
}

#[test]
fn without_rotation_heads_are_only_normed() {
    for heads in [(4, 2, 64), (2, 1, 128), (3, 3, 6)] {
        let case = Case::new(2, heads, 9);
        let (q, k) = case.spec(Rotation::Off);
        check(MAX_NMSE_CUDA, &q, |cuda| case.run(cuda, None).0);
        check(MAX_NMSE_CUDA_KEYS, &k, |cuda| case.run(cuda, None).1);
    }
}

#[test]
fn a_position_beyond_the_table_gives_no_number() {
    for cuda in devices() {
        let case = Case::new(3, (2, 1, 64), 4);
        let (q, k) = case.run(&cuda, Some(6));
        assert!(q[..4 * 64].iter().chain(&k[..2 * 64]).all(|x| x.is_finite()));
        assert!(q[4 * 64..].iter().chain(&k[2 * 64..]).all(|x| x.is_nan()));
    }
}
