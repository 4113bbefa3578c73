//! Memory for numbers: zeroed, aligned to cache lines, readable as any plain element, and per-thread scratch of
//! the same kind. It knows nothing of what the numbers mean.

use std::cell::RefCell;

use half::{bf16, f16};

/// A cache line, so that a row of 32 values is read in whole lines.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE_BYTES]);

const LINE_BYTES: usize = 64;

/// Elements without padding, pointers or invalid bit patterns, aligned to at most a cache line.
///
/// # Safety
/// Implementations must be valid for any bytes, have no padding and an alignment of at most 64.
pub unsafe trait Plain: Copy + 'static {}

// SAFETY: numbers of any bits are valid and have no padding.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
// SAFETY: 16 bits with a name.
unsafe impl Plain for bf16 {}
// SAFETY: as above.
unsafe impl Plain for f16 {}
// SAFETY: an array is its elements, one after the other.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// A block of zeroed memory that starts on a cache line.
#[derive(Debug, Clone, Default)]
pub struct Buffer {
    lines: Vec<Line>,
}

impl Buffer {
    /// At least `bytes` zero bytes; the length is rounded up to whole cache lines.
    pub fn zeroed(bytes: usize) -> Self {
        Self { lines: vec![Line([0; LINE_BYTES]); bytes.div_ceil(LINE_BYTES)] }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.lines.len() * LINE_BYTES
    }

    /// The memory as elements of `T`, as many as fit.
    pub fn as_slice<T: Plain>(&self) -> &[T] {
        // SAFETY: the memory is initialised, aligned to 64 and valid as any plain element; the length fits in it.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.bytes() / size_of::<T>()) }
    }

    /// The memory as elements of `T`, as many as fit, to write.
    pub fn as_mut_slice<T: Plain>(&mut self) -> &mut [T] {
        let len = self.bytes() / size_of::<T>();
        // SAFETY: as in `as_slice`, and borrowed exclusively; any element written is valid as bytes.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }
}

thread_local! {
    /// Buffers this thread is not using: as many as its deepest nesting of [`scratch`] needed.
    static IDLE: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with `len` elements of this thread's scratch memory, whose contents are arbitrary. Calls may nest;
/// the memory is kept for the next call.
pub fn scratch<T: Plain, R>(len: usize, work: impl FnOnce(&mut [T]) -> R) -> R {
    let mut buffer = IDLE.with_borrow_mut(Vec::pop).unwrap_or_default();
    let bytes = len * size_of::<T>();
    if buffer.bytes() < bytes {
        buffer = Buffer::zeroed(bytes);
    }
    let result = work(&mut buffer.as_mut_slice()[..len]);
    IDLE.with_borrow_mut(|idle| idle.push(buffer));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_aligned_and_long_enough() {
        for bytes in [0, 1, 63, 64, 65, 1000] {
            let buffer = Buffer::zeroed(bytes);
            assert!(buffer.bytes() >= bytes && buffer.bytes() < bytes + 64);
            assert!(buffer.as_slice::<u8>().iter().all(|b| *b == 0));
            assert_eq!(buffer.as_slice::<f32>().as_ptr().align_offset(64), 0);
        }
    }

    #[test]
    fn elements_written_one_way_are_read_another() {
        let mut buffer = Buffer::zeroed(8);
        buffer.as_mut_slice::<u32>()[1] = 0x3f80_0000;
        assert_eq!(buffer.as_slice::<f32>()[1], 1.0);
        assert_eq!(buffer.as_slice::<[u8; 4]>()[1], [0, 0, 0x80, 0x3f]);
    }

    #[test]
    fn nested_scratch_does_not_overlap() {
        scratch(10, |outer: &mut [u32]| {
            outer.fill(1);
            scratch(10, |inner: &mut [u32]| inner.fill(2));
            assert_eq!(outer, [1; 10]);
        });
    }
}
