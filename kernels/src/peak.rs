//! What this machine can do at most, measured: arithmetic from registers and reading from memory, on all threads.
//! The yardstick of benches and of `doctor`. It knows nothing of ops.

use std::hint::black_box;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crate::buffer::Buffer;
use crate::device::{Cpu, Isa};
use crate::tile::NR;
use crate::tile::lanes::{self, Job, Lanes};

/// The best rates of a machine, over all threads of a [`Cpu`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// f32 multiply-adds from registers, in 10^9 operations per second (a multiply-add is two).
    pub f32_gflops: f64,
    /// bf16 pair products summed in f32, from registers; `None` without an instruction for them.
    pub bf16_gflops: Option<f64>,
    /// Reading memory far larger than the caches, in 10^9 bytes per second.
    pub read_gb_s: f64,
}

/// Time spent on each rate.
const BUDGET: Duration = Duration::from_millis(100);
/// Multiply-adds of every chain between two looks at the clock: some tens of microseconds.
const STEPS: usize = 4096;
/// Memory read, in bytes: several times the caches that few cores share.
const READ_BYTES: usize = 256 << 20;
/// Looks at the clock while reading that memory once: each window is about a millisecond's worth.
const READ_WINDOWS: usize = 8;
/// Memory read by one item of work, in bytes.
const READ_ITEM_BYTES: usize = 1 << 20;

impl Peak {
    /// Measures for about 0.3 seconds, beside filling 256 MiB, with all threads of `cpu`.
    ///
    /// Each rate is the best window seen, so that other work on the machine disturbs it little.
    pub fn measure(cpu: &Cpu) -> Self {
        let has_bf16 = cpu.isa() >= Isa::Avx512Bf16;
        Self {
            f32_gflops: arithmetic(cpu, || lanes::run(cpu, Chains::<Fma>::default())),
            bf16_gflops: has_bf16.then(|| arithmetic(cpu, || lanes::run(cpu, Chains::<DotBf16>::default()))),
            read_gb_s: read(cpu),
        }
    }
}

/// The sum over threads of the best rate each reaches, in 10^9 operations per second; `work` returns how many
/// operations it did.
fn arithmetic(cpu: &Cpu, work: impl Fn() -> usize + Sync) -> f64 {
    let mut rates = vec![0.0_f64; cpu.threads()];
    cpu.parallel_chunks(&mut rates, 1, |_, rate| {
        let begin = Instant::now();
        while begin.elapsed() < BUDGET {
            let window = Instant::now();
            let operations = work() as f64;
            rate[0] = rate[0].max(operations / window.elapsed().as_secs_f64() / 1e9);
        }
    });
    rates.iter().sum()
}

/// The best rate at which all threads together read a window of [`READ_BYTES`], in 10^9 bytes per second. The
/// windows follow each other around the memory, so each has long left the caches when its turn comes again.
fn read(cpu: &Cpu) -> f64 {
    let mut buffer = Buffer::zeroed(READ_BYTES);
    // Zeroed pages may all be one page until they are written.
    let item = READ_ITEM_BYTES / size_of::<[f32; NR]>();
    cpu.parallel_chunks(buffer.as_mut_slice::<[f32; NR]>(), item, |_, rows| rows.fill([1.0; NR]));
    let items: Vec<&[[f32; NR]]> = buffer.as_slice().chunks(item).collect();
    let mut best = 0.0_f64;
    let begin = Instant::now();
    for window in items.chunks(items.len() / READ_WINDOWS).cycle() {
        let pass = Instant::now();
        cpu.parallel(window.len(), |i| lanes::run(cpu, Read { rows: window[i] }));
        best = best.max((window.len() * READ_ITEM_BYTES) as f64 / pass.elapsed().as_secs_f64() / 1e9);
        if begin.elapsed() > BUDGET {
            break;
        }
    }
    best
}

/// A multiply-add on rows of values.
trait MultiplyAdd: Default {
    /// Operations for each value of a row.
    const OPERATIONS: usize;

    /// The next sums, with factors of any bits.
    fn step<L: Lanes>(lanes: L, bits: u32, acc: L::V) -> L::V;
}

/// f32 multiply-add.
#[derive(Default)]
struct Fma;

impl MultiplyAdd for Fma {
    const OPERATIONS: usize = 2;

    #[inline(always)]
    fn step<L: Lanes>(lanes: L, bits: u32, acc: L::V) -> L::V {
        let factor = lanes.splat(f32::from_bits(bits));
        lanes.fma(factor, factor, acc)
    }
}

/// Multiply-add of pairs of bf16.
#[derive(Default)]
struct DotBf16;

impl MultiplyAdd for DotBf16 {
    const OPERATIONS: usize = 4;

    #[inline(always)]
    fn step<L: Lanes>(lanes: L, bits: u32, acc: L::V) -> L::V {
        lanes.dot_bf16(lanes.splat_i(bits), lanes.splat_i(bits), acc)
    }
}

/// [`STEPS`] multiply-adds on as many independent rows as the registers hold; returns the operations done.
#[derive(Default)]
struct Chains<M>(PhantomData<M>);

impl<M: MultiplyAdd> Chains<M> {
    #[inline(always)]
    fn rows<L: Lanes, const R: usize>(self, lanes: L) -> usize {
        let mut acc = [lanes.zero(); R];
        // Unknown to the compiler, or it would multiply the factors once and for all.
        let bits = black_box(0x3f80_3f80);
        for _ in 0..STEPS {
            for row in &mut acc {
                *row = M::step(lanes, bits, *row);
            }
        }
        for row in acc {
            let mut out = [0.0; NR];
            lanes.store(row, &mut out);
            black_box(out);
        }
        STEPS * R * NR * M::OPERATIONS
    }
}

impl<M: MultiplyAdd> Job for Chains<M> {
    type Output = usize;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> usize {
        match L::MAX_ROWS {
            8.. => self.rows::<L, 8>(lanes),
            2.. => self.rows::<L, 3>(lanes),
            _ => self.rows::<L, 1>(lanes),
        }
    }
}

/// Reads rows, keeping a sum so that no read is left out.
struct Read<'a> {
    rows: &'a [[f32; NR]],
}

impl Job for Read<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let mut acc = [lanes.zero(); 4];
        for rows in self.rows.as_chunks::<4>().0 {
            for (sum, row) in acc.iter_mut().zip(rows) {
                *sum = lanes.sub(*sum, lanes.load(row));
            }
        }
        for row in acc {
            let mut out = [0.0; NR];
            lanes.store(row, &mut out);
            black_box(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn rates_are_positive_and_bf16_is_measured_where_it_exists() {
        for isa in Isa::available() {
            let peak = Peak::measure(&Cpu::with_isa(Some(NonZeroUsize::MIN), isa));
            assert!(peak.f32_gflops.is_finite() && peak.f32_gflops > 0.0);
            assert!(peak.read_gb_s.is_finite() && peak.read_gb_s > 0.0);
            assert_eq!(peak.bf16_gflops.is_some(), isa == Isa::Avx512Bf16);
            assert!(peak.bf16_gflops.is_none_or(|rate| rate > 0.0));
        }
    }
}
