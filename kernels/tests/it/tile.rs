//! The micro-kernels and their packing against plain loops, for every instruction set of this machine.

use std::num::NonZeroUsize;

use half::{bf16, f16};
use kernels::device::{Cpu, Isa};
use kernels::tile::lanes::{self, Job, Lanes};
use kernels::tile::{self, MR, NR, Start, Tile};

use crate::seeded::{Seeded, bits_of, nmse};

/// Relative squared error a chain of f32 additions may show against f64 at these depths (at most 300 terms).
const MAX_NMSE: f64 = 1e-12;

fn cpus() -> impl Iterator<Item = Cpu> {
    Isa::available().map(|isa| Cpu::with_isa(Some(NonZeroUsize::MIN), isa))
}

/// A (rows, k) and B (k, n) row-major, and `base + A · B` summed in f64.
struct Case {
    a: Vec<f32>,
    b: Vec<f32>,
    want: Vec<f32>,
    rows: usize,
    k: usize,
    n: usize,
}

impl Case {
    fn new(rows: usize, k: usize, n: usize, round: impl Fn(f32) -> f32) -> Self {
        let mut seeded = Seeded::new((rows * 1000 + k * 10 + n) as u64);
        let a: Vec<f32> = seeded.values(rows * k).into_iter().map(&round).collect();
        let b: Vec<f32> = seeded.values(k * n).into_iter().map(&round).collect();
        let mut want = vec![0.0; rows * n];
        for i in 0..rows {
            for j in 0..n {
                let sum: f64 = (0..k).map(|c| f64::from(a[i * k + c]) * f64::from(b[c * n + j])).sum();
                want[i * n + j] = sum as f32;
            }
        }
        Self { a, b, want, rows, k, n }
    }

    fn column(&self, j: usize) -> Vec<f32> {
        (0..self.k).map(|c| self.b[c * self.n + j]).collect()
    }

    /// C of one f32 kernel call.
    fn run_f32(&self, cpu: &Cpu) -> Vec<f32> {
        let panels = self.n.div_ceil(NR);
        let mut a = vec![f32::NAN; self.rows * self.k];
        tile::f32::pack_a(self.rows, self.k, |i| &self.a[i * self.k..][..self.k], &mut a);
        let mut b = vec![[f32::NAN; NR]; panels * self.k];
        tile::f32::pack_b_rows(self.k, self.n, |c| &self.b[c * self.n..][..self.n], &mut b);
        let mut c = vec![f32::NAN; self.rows * panels * NR];
        let shape = Tile { panels, ..Tile::single(self.rows, self.k, panels * NR, Start::Zero) };
        tile::f32::kernel(cpu, shape, &a, &b, &mut c);
        c.chunks(panels * NR).flat_map(|row| row[..self.n].to_vec()).collect()
    }

    /// C of bf16 kernel calls, the inner dimension split after `split` pairs.
    fn run_bf16(&self, cpu: &Cpu, split: usize) -> Vec<f32> {
        let (panels, depth) = (self.n.div_ceil(NR), tile::bf16::pairs(self.k));
        let mut a = vec![u32::MAX; self.rows * depth];
        tile::bf16::pack_a(cpu, self.rows, self.k, |i| &self.a[i * self.k..][..self.k], &mut a);
        let narrow: Vec<bf16> = self.b.iter().map(|x| bf16::from_f32(*x)).collect();
        let mut b = vec![[u32::MAX; NR]; panels * depth];
        tile::bf16::pack_b_rows(self.k, self.n, |c| &narrow[c * self.n..][..self.n], &mut b);
        let mut c = vec![0.5; self.rows * panels * NR];
        let shape =
            Tile { panels, panel_stride: depth, ..Tile::single(self.rows, split, panels * NR, Start::Zero) };
        tile::bf16::kernel(cpu, shape, &a, &b, &mut c);
        let rest = Tile { k: depth - split, start: Start::Resume, ..shape };
        tile::bf16::kernel(cpu, rest, &a[split * self.rows..], &b[split..], &mut c);
        c.chunks(panels * NR).flat_map(|row| row[..self.n].to_vec()).collect()
    }
}

#[test]
fn f32_kernel_agrees_with_plain_loops() {
    for cpu in cpus() {
        for rows in 1..=MR {
            for (k, n) in [(1, 1), (2, 32), (37, 33), (300, 160)] {
                let case = Case::new(rows, k, n, |x| x);
                let got = case.run_f32(&cpu);
                assert!(nmse(&case.want, &got) < MAX_NMSE, "{} {rows}x{k}x{n}", cpu.isa());
            }
        }
    }
}

#[test]
fn bf16_kernel_agrees_with_plain_loops_over_rounded_values() {
    for cpu in cpus() {
        for rows in 1..=MR {
            for (k, n) in [(1, 1), (2, 32), (37, 33), (300, 160)] {
                let case = Case::new(rows, k, n, |x| bf16::from_f32(x).to_f32());
                let got = case.run_bf16(&cpu, 0);
                assert!(nmse(&case.want, &got) < MAX_NMSE, "{} {rows}x{k}x{n}", cpu.isa());
            }
        }
    }
}

#[test]
fn a_split_inner_dimension_gives_the_same_bits() {
    for cpu in cpus() {
        for rows in [1, 5, MR] {
            let case = Case::new(rows, 75, 70, |x| x);
            let whole = bits_of(&case.run_bf16(&cpu, 0));
            for split in [1, 19, 37, 38] {
                assert_eq!(bits_of(&case.run_bf16(&cpu, split)), whole, "{} {rows} {split}", cpu.isa());
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_tile() {
    for cpu in cpus() {
        for n in [32, 64, 150] {
            let all = Case::new(MR, 41, n, |x| x);
            let (f32_all, bf16_all) = (all.run_f32(&cpu), all.run_bf16(&cpu, 0));
            for rows in 1..MR {
                let part =
                    Case { a: all.a[..rows * 41].to_vec(), b: all.b.clone(), want: vec![], rows, ..all };
                assert_eq!(bits_of(&part.run_f32(&cpu)), bits_of(&f32_all[..rows * n]));
                assert_eq!(bits_of(&part.run_bf16(&cpu, 0)), bits_of(&bf16_all[..rows * n]));
            }
        }
    }
}

#[test]
fn columns_and_rows_pack_into_the_same_panel() {
    for (k, n) in [(1, 1), (7, 20), (64, 32)] {
        let case = Case::new(1, k, n, |x| bf16::from_f32(x).to_f32());
        let columns: Vec<Vec<f32>> = (0..n).map(|j| case.column(j)).collect();
        let (mut by_row, mut by_column) = (vec![[1.0; NR]; k], vec![[2.0; NR]; k]);
        tile::f32::pack_b_rows(k, n, |c| &case.b[c * n..][..n], &mut by_row);
        tile::f32::pack_b_columns(n, |j| &columns[j], &mut by_column);
        assert_eq!(by_row, by_column);

        let narrow: Vec<bf16> = case.b.iter().map(|x| bf16::from_f32(*x)).collect();
        let columns: Vec<Vec<bf16>> =
            columns.iter().map(|c| c.iter().map(|x| bf16::from_f32(*x)).collect()).collect();
        let depth = tile::bf16::pairs(k);
        let (mut by_row, mut by_column) = (vec![[1; NR]; depth], vec![[2; NR]; depth]);
        tile::bf16::pack_b_rows(k, n, |c| &narrow[c * n..][..n], &mut by_row);
        tile::bf16::pack_b_columns(n, k, |j| &columns[j], &mut by_column);
        assert_eq!(by_row, by_column);
    }
}

#[test]
fn rounding_to_bf16_equals_the_reference_conversion() {
    let edges = [
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN_POSITIVE,
        1e-45,
        1.003_906_2,
        1.011_718_8,
    ];
    let mut seeded = Seeded::new(3);
    let random = (0..100_000).map(|_| f32::from_bits(seeded.bits() as u32));
    for x in edges.into_iter().chain(random) {
        let (got, want) = (tile::bf16::round(x), u32::from(bf16::from_f32(x).to_bits()));
        assert_eq!(got, want, "{x:e}");
    }
}

#[test]
#[should_panic(expected = "C: 95 elements")]
fn an_output_too_short_for_the_tile_panics() {
    let cpu = Cpu::new(Some(NonZeroUsize::MIN));
    let shape = Tile::single(3, 1, 32, Start::Zero);
    tile::f32::kernel(&cpu, shape, &[0.0; 3], &[[0.0; NR]], &mut [0.0; 95]);
}

/// Every elementwise operation of [`Lanes`] on one row of inputs, as bits.
struct Every {
    a: [f32; NR],
    b: [f32; NR],
    bytes: [u8; NR],
    others: [u8; NR],
}

impl Job for Every {
    type Output = Vec<[u32; NR]>;

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> Self::Output {
        let (a, b) = (l.load(&self.a), l.load(&self.b));
        let (x, y) = (l.load_b(&self.bytes), l.load_b(&self.others));
        let rows = [
            l.zero(),
            l.splat(self.a[3]),
            a,
            l.mul(a, b),
            l.sub(a, b),
            l.u8_to_f32(x),
            l.i8_to_f32(x),
            l.u8_to_f32(l.and(x, y)),
            l.u8_to_f32(l.or(x, y)),
            l.u8_to_f32(l.sub_b(x, y)),
            l.u8_to_f32(l.shl(x, 3)),
            l.u8_to_f32(l.shr(x, 5)),
            l.u8_to_f32(l.splat_b(self.bytes[0])),
        ];
        rows.into_iter()
            .map(|row| {
                let mut out = [0.0; NR];
                l.store(row, &mut out);
                out.map(f32::to_bits)
            })
            .collect()
    }
}

#[test]
fn every_lane_operation_equals_its_portable_twin() {
    let mut seeded = Seeded::new(11);
    let portable = Cpu::with_isa(Some(NonZeroUsize::MIN), Isa::Portable);
    for _ in 0..100 {
        let a = std::array::from_fn(|_| seeded.value() * 1e3);
        let b = std::array::from_fn(|_| seeded.value());
        let bytes = std::array::from_fn(|_| seeded.bits() as u8);
        let others = std::array::from_fn(|_| seeded.bits() as u8);
        let every = || Every { a, b, bytes, others };
        let want = lanes::run(&portable, every());
        // The portable rows against Rust's own arithmetic, where a mistake would be every instruction set's.
        assert_eq!(want[8][7], f32::from(bytes[7] | others[7]).to_bits());
        assert_eq!(want[10][7], f32::from(bytes[7] << 3).to_bits());
        for cpu in cpus() {
            for (row, (got, want)) in lanes::run(&cpu, every()).into_iter().zip(&want).enumerate() {
                assert_eq!(got, *want, "{} row {row}", cpu.isa());
            }
        }
    }
}

/// Half-precision bits of one row to f32, from memory and from bytes.
struct Widen([u16; NR]);

impl Job for Widen {
    type Output = [[f32; NR]; 2];

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        let mut out = [[0.0; NR]; 2];
        lanes.store(lanes.load_f16(&self.0), &mut out[0]);
        let byte = |at: usize| lanes.load_b(&self.0.map(|bits| bits.to_le_bytes()[at]));
        lanes.store(lanes.f16_from_bytes(byte(0), byte(1)), &mut out[1]);
        out
    }
}

#[test]
fn every_half_precision_value_widens_exactly() {
    for cpu in cpus() {
        for first in (0..=u16::MAX).step_by(NR) {
            let bits = std::array::from_fn(|i| first + i as u16);
            for row in lanes::run(&cpu, Widen(bits)) {
                for (got, bits) in row.into_iter().zip(bits) {
                    let want = f16::from_bits(bits).to_f32();
                    let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
                    assert!(same, "{} {bits:#x}", cpu.isa());
                }
            }
        }
    }
}
