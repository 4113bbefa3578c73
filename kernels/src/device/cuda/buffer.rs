//! Memory of a device, and borrowed parts of it. What lies in it is the business of the ops.

use std::marker::PhantomData;
use std::ops::Range;

use crate::buffer::Plain;
use crate::device::cuda::Cuda;
use crate::error::KernelError;

/// `len` elements of device memory, freed with the buffer. Aligned to at least 256 bytes; the memory's length is a
/// multiple of 16 bytes, so that kernels may read it in such pieces to the end.
#[derive(Debug)]
pub struct DeviceBuffer<T> {
    cuda: Cuda,
    address: u64,
    len: usize,
    element: PhantomData<T>,
}

/// Borrowed elements, to be read by kernels.
#[derive(Debug)]
pub struct View<'a, T> {
    address: u64,
    len: usize,
    owner: PhantomData<&'a [T]>,
}

/// Borrowed elements, to be read and written by kernels.
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    address: u64,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

impl<T: Plain> DeviceBuffer<T> {
    pub(super) fn new(cuda: &Cuda, len: usize) -> Result<Self, KernelError> {
        let bytes = (len as u64).checked_mul(size_of::<T>() as u64);
        let Some(bytes) = bytes.filter(|bytes| isize::try_from(*bytes).is_ok()) else {
            return Err(KernelError::DeviceMemory { bytes: u64::MAX, free: 0 });
        };
        Ok(Self { address: cuda.alloc_bytes(bytes)?, cuda: cuda.clone(), len, element: PhantomData })
    }

    /// Copies `values` to the beginning of the buffer.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the device fails.
    ///
    /// # Panics
    /// If `values` is longer than the buffer.
    pub fn write(&mut self, values: &[T]) -> Result<(), KernelError> {
        self.write_at(0, values)
    }

    /// Copies `values` to the elements from `start` on.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the device fails.
    ///
    /// # Panics
    /// If they reach beyond the buffer.
    pub fn write_at(&mut self, start: usize, values: &[T]) -> Result<(), KernelError> {
        let part = self.slice(start..start + values.len());
        // SAFETY: plain elements have no padding, so their memory is initialised bytes.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        self.cuda.copy_in(part.address, bytes)
    }

    /// Copies the first elements, as many as `values` has, to the host, once everything asked for has run.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the device fails.
    ///
    /// # Panics
    /// If `values` is longer than the buffer.
    pub fn read_into(&self, values: &mut [T]) -> Result<(), KernelError> {
        assert!(values.len() <= self.len, "{} values of a buffer of {}", values.len(), self.len);
        // SAFETY: plain elements are valid for any bytes and have no padding; the borrow is exclusive.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast::<u8>(), size_of_val(values)) };
        self.cuda.copy_out(self.address, bytes)
    }
}

impl<T: Plain> DeviceBuffer<T> {
    /// Fills the buffer with zeros.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the device fails.
    pub fn zero(&mut self) -> Result<(), KernelError> {
        self.cuda.zero_bytes(self.address, self.bytes())
    }

    /// Copies all of another buffer of the same length, on the device.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the device fails.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn copy_from(&mut self, source: &Self) -> Result<(), KernelError> {
        assert_eq!(self.len, source.len, "a copy between buffers of one length");
        self.cuda.copy_within(self.address, source.address, self.bytes())
    }
}

impl<T: Plain + Default> DeviceBuffer<T> {
    /// All elements, once everything asked for has run.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the device fails.
    pub fn read(&self) -> Result<Vec<T>, KernelError> {
        let mut values = vec![T::default(); self.len];
        self.read_into(&mut values)?;
        Ok(values)
    }
}

impl<T> DeviceBuffer<T> {
    /// Elements held.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes held.
    pub const fn bytes(&self) -> u64 {
        (self.len * size_of::<T>()) as u64
    }

    /// The whole buffer, to read.
    pub const fn view(&self) -> View<'_, T> {
        View { address: self.address, len: self.len, owner: PhantomData }
    }

    /// The whole buffer, to write.
    pub const fn view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut { address: self.address, len: self.len, owner: PhantomData }
    }

    /// Part of the buffer, to read.
    ///
    /// # Panics
    /// If the range lies outside.
    pub fn slice(&self, range: Range<usize>) -> View<'_, T> {
        self.view().slice(range)
    }

    /// Part of the buffer, to write.
    ///
    /// # Panics
    /// If the range lies outside.
    pub fn slice_mut(&mut self, range: Range<usize>) -> ViewMut<'_, T> {
        self.view_mut().into_slice(range)
    }
}

impl<T> Drop for DeviceBuffer<T> {
    fn drop(&mut self) {
        self.cuda.free_bytes(self.address, self.bytes());
    }
}

fn part<T>(address: u64, len: usize, range: &Range<usize>) -> (u64, usize) {
    assert!(range.start <= range.end && range.end <= len, "part {range:?} of {len} elements");
    (address + (range.start * size_of::<T>()) as u64, range.end - range.start)
}

impl<'a, T> View<'a, T> {
    /// Elements.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements `range`.
    ///
    /// # Panics
    /// If the range lies outside.
    pub fn slice(self, range: Range<usize>) -> View<'a, T> {
        let (address, len) = part::<T>(self.address, self.len, &range);
        View { address, len, owner: PhantomData }
    }

    pub(crate) const fn address(&self) -> u64 {
        self.address
    }
}

impl<'a, T> ViewMut<'a, T> {
    /// Elements.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The same elements, to read, while this is borrowed.
    pub const fn view(&self) -> View<'_, T> {
        View { address: self.address, len: self.len, owner: PhantomData }
    }

    /// The same elements, for as long as this is borrowed.
    pub const fn reborrow(&mut self) -> ViewMut<'_, T> {
        ViewMut { address: self.address, len: self.len, owner: PhantomData }
    }

    /// The elements `range`, for as long as this is borrowed.
    ///
    /// # Panics
    /// If the range lies outside.
    pub fn slice_mut(&mut self, range: Range<usize>) -> ViewMut<'_, T> {
        self.reborrow().into_slice(range)
    }

    /// The elements `range`, in place of all.
    ///
    /// # Panics
    /// If the range lies outside.
    pub fn into_slice(self, range: Range<usize>) -> ViewMut<'a, T> {
        let (address, len) = part::<T>(self.address, self.len, &range);
        ViewMut { address, len, owner: PhantomData }
    }

    pub(crate) const fn address(&self) -> u64 {
        self.address
    }
}
