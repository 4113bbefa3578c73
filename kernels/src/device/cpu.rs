//! The CPU as a device: which instruction set to use, how many threads, and the one way work is spread over them.
//! It knows nothing of the ops that run on it. Results never depend on the number of threads: an item writes its
//! own part of the output and reads no other item's.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An instruction set the kernels have code for. Each level includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust, on any machine. Multiplies and adds are rounded apart.
    Portable,
    /// AVX2 with FMA and F16C (x86-64-v3).
    Avx2,
    /// AVX-512 F, BW, DQ and VL (x86-64-v4).
    Avx512,
    /// AVX-512 with `VDPBF16PS`.
    Avx512Bf16,
}

impl Isa {
    /// All levels, lowest first.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16];

    /// The highest level this machine runs.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c");
            let avx512 = avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
            if avx512 && has!("avx512bf16") {
                return Self::Avx512Bf16;
            }
            if avx512 {
                return Self::Avx512;
            }
            if avx2 {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// The levels this machine runs, lowest first: what a parity test sweeps.
    pub fn available() -> impl Iterator<Item = Self> {
        let highest = Self::detect();
        Self::ALL.into_iter().filter(move |isa| *isa <= highest)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512-bf16",
        })
    }
}

/// The CPU the ops run on. A `Cpu` proves that its instruction set exists on this machine; safe kernels take it
/// as that proof.
#[derive(Debug)]
pub struct Cpu {
    isa: Isa,
    /// One thread fewer than `threads()`: the calling thread works too. `None` with one thread.
    pool: Option<rayon::ThreadPool>,
}

impl Cpu {
    /// A CPU with `threads` threads (`None`: one per core) and the best instruction set of this machine.
    ///
    /// Where the operating system refuses more threads, the calling thread alone is used; [`Cpu::threads`] tells.
    pub fn new(threads: Option<NonZeroUsize>) -> Self {
        Self::with_isa(threads, Isa::detect())
    }

    /// The same with an instruction set of choice, lowered to what this machine has.
    pub fn with_isa(threads: Option<NonZeroUsize>, isa: Isa) -> Self {
        let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let workers = threads.unwrap_or_else(cores).get() - 1;
        let build = || rayon::ThreadPoolBuilder::new().num_threads(workers).build().ok();
        let pool = if workers == 0 { None } else { build() };
        Self { isa: isa.min(Isa::detect()), pool }
    }

    /// Threads that work in [`Cpu::parallel`], the calling one included.
    pub fn threads(&self) -> usize {
        1 + self.pool.as_ref().map_or(0, rayon::ThreadPool::current_num_threads)
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Calls `work(i)` once for every `i < n_items`, on all threads, and returns when all are done.
    ///
    /// Items are handed out one by one as threads become free, so which thread runs an item, and when, is not
    /// determined: an item must write only what belongs to it. A panic in an item reaches the caller.
    pub fn parallel(&self, n_items: usize, work: impl Fn(usize) + Sync) {
        let next = AtomicUsize::new(0);
        let drain = || {
            loop {
                let item = next.fetch_add(1, Ordering::Relaxed);
                if item >= n_items {
                    return;
                }
                work(item);
            }
        };
        match &self.pool {
            Some(pool) if n_items > 1 => pool.in_place_scope(|scope| {
                for _ in 0..pool.current_num_threads().min(n_items - 1) {
                    scope.spawn(|_| drain());
                }
                drain();
            }),
            _ => drain(),
        }
    }

    /// Splits `out` into chunks of `chunk_len` (the last may be shorter) and calls `work(i, chunk_i)` on all
    /// threads.
    ///
    /// # Panics
    /// If `chunk_len` is 0 and `out` is not empty.
    pub fn parallel_chunks<T: Send>(
        &self,
        out: &mut [T],
        chunk_len: usize,
        work: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let len = out.len();
        let parts = Disjoint::new(out);
        self.parallel(if len == 0 { 0 } else { len.div_ceil(chunk_len) }, |i| {
            let range = i * chunk_len..((i + 1) * chunk_len).min(len);
            // SAFETY: every index is handed out once, and chunks of different indices do not overlap.
            work(i, unsafe { parts.slice(range) });
        });
    }
}

/// A mutable slice that several threads write in parts which do not overlap, such as the columns of an output.
#[derive(Debug)]
pub struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: a `Disjoint` hands out parts only through unsafe methods whose callers promise that parts in use at the
// same time do not overlap, so sharing it is sharing distinct `&mut [T]`, which is sound for `T: Send`.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}
// SAFETY: as above; moving it moves the exclusive borrow.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Borrows the slice until the `Disjoint` is gone.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), owner: PhantomData }
    }

    /// The elements `range`.
    ///
    /// # Panics
    /// If the range does not lie in the slice.
    ///
    /// # Safety
    /// No element of `range` may be in use through another part at the same time.
    #[expect(clippy::mut_from_ref, reason = "parts are disjoint by the caller's promise")]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {} elements", self.len);
        // SAFETY: the range lies in the borrowed slice (asserted), and is not aliased (the caller's promise).
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// A pointer to element `index`, for strided parts such as a tile of columns.
    ///
    /// # Panics
    /// If `index` lies outside the slice.
    pub fn at(&self, index: usize) -> *mut T {
        assert!(index < self.len, "element {index} of {}", self.len);
        // SAFETY: the index lies in the borrowed slice (asserted).
        unsafe { self.start.add(index) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(threads: usize) -> Cpu {
        Cpu::new(NonZeroUsize::new(threads))
    }

    #[test]
    fn every_item_runs_exactly_once_on_any_number_of_threads() {
        for threads in 1..=4 {
            let cpu = cpu(threads);
            assert_eq!(cpu.threads(), threads);
            for n_items in [0, 1, 2, 3, 1000] {
                let counts: Vec<AtomicUsize> = (0..n_items).map(|_| AtomicUsize::new(0)).collect();
                cpu.parallel(n_items, |i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn chunks_cover_the_slice_and_the_last_may_be_short() {
        let mut out = vec![0; 10];
        cpu(3).parallel_chunks(&mut out, 4, |i, chunk| chunk.fill(i * 10 + chunk.len()));
        assert_eq!(out, [4, 4, 4, 4, 14, 14, 14, 14, 22, 22]);
        cpu(2).parallel_chunks(&mut [] as &mut [u8], 0, |_, _| unreachable!());
    }

    #[test]
    fn nested_parallel_work_finishes() {
        let cpu = cpu(3);
        let total = AtomicUsize::new(0);
        cpu.parallel(5, |_| {
            cpu.parallel(7, |i| {
                total.fetch_add(i, Ordering::Relaxed);
            });
        });
        assert_eq!(total.into_inner(), 5 * 21);
    }

    #[test]
    fn an_instruction_set_beyond_the_machine_is_lowered_to_it() {
        let one = NonZeroUsize::MIN;
        for isa in Isa::ALL {
            assert_eq!(Cpu::with_isa(Some(one), isa).isa(), isa.min(Isa::detect()));
        }
        assert_eq!(Isa::available().last(), Some(Isa::detect()));
    }

    #[test]
    #[should_panic(expected = "part 3..5 of 4")]
    fn a_part_outside_the_slice_panics() {
        let mut data = [0u8; 4];
        let parts = Disjoint::new(&mut data);
        // SAFETY: no other part exists.
        let _ = unsafe { parts.slice(3..5) };
    }
}
