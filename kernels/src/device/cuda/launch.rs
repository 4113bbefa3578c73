//! What a launch needs beside the kernel's name: the grid, and the arguments as the driver takes them.

use std::ffi::c_void;
use std::marker::PhantomData;

use cudarc::driver::sys;

use crate::device::cuda::{TensorMap, View, ViewMut};

/// How many blocks of how many threads, and the dynamic shared memory of each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks in x, y and z. A grid with a zero is not launched.
    pub blocks: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: u32,
}

/// The arguments of a kernel, in the order of its parameters. Keeps the borrows of the views it was given.
#[derive(Clone, Debug, Default)]
pub struct Args<'a> {
    /// Tensor maps, which come before all else.
    maps: Vec<sys::CUtensorMap>,
    /// Each argument in the low bytes of a word: the driver reads as many as the parameter has.
    words: Vec<u64>,
    /// Those of them that are addresses.
    addresses: Vec<u64>,
    views: PhantomData<&'a mut u8>,
}

impl<'a> Args<'a> {
    /// No arguments yet.
    pub fn new() -> Self {
        let (words, addresses) = (Vec::with_capacity(16), Vec::with_capacity(8));
        Self { maps: Vec::new(), words, addresses, views: PhantomData }
    }

    /// A `const __grid_constant__ TensorMap`.
    ///
    /// # Panics
    /// If an argument of another kind came before.
    pub fn tensor_map(mut self, map: &TensorMap<'a>) -> Self {
        assert!(self.words.is_empty(), "tensor maps are a kernel's first parameters");
        self.maps.push(map.map());
        self.addresses.push(map.address());
        self
    }

    /// A `const T*`.
    pub fn view<T>(self, view: View<'a, T>) -> Self {
        self.address(view.address())
    }

    /// A `T*`.
    pub fn view_mut<T>(self, view: &'a mut ViewMut<'_, T>) -> Self {
        self.address(view.address())
    }

    /// A null pointer, where a kernel takes one for "none".
    pub fn null(self) -> Self {
        self.u64(0)
    }

    /// An `int`.
    pub fn i32(self, value: i32) -> Self {
        self.u64(u64::from(value as u32))
    }

    /// A `uint32_t`.
    pub fn u32(self, value: u32) -> Self {
        self.u64(u64::from(value))
    }

    /// A `float`.
    pub fn f32(self, value: f32) -> Self {
        self.u64(u64::from(value.to_bits()))
    }

    /// A `uint64_t`.
    pub fn u64(mut self, value: u64) -> Self {
        self.words.push(value);
        self
    }

    fn address(mut self, address: u64) -> Self {
        self.addresses.push(address);
        self.u64(address)
    }

    /// The addresses of the views given.
    pub(super) fn addresses(&self) -> impl Iterator<Item = u64> {
        self.addresses.iter().copied()
    }

    /// The same arguments without their borrows, for a recording, whose caller vouches for the buffers.
    #[cfg(feature = "emulation")]
    pub(super) fn words_alone(&self) -> Args<'static> {
        Args { maps: self.maps.clone(), words: self.words.clone(), addresses: Vec::new(), views: PhantomData }
    }

    /// One pointer to each argument, as `cuLaunchKernel` takes them; valid as long as `self`.
    pub(super) fn pointers(&self) -> Vec<*mut c_void> {
        let maps = self.maps.iter().map(|map| std::ptr::from_ref(map).cast_mut().cast());
        maps.chain(self.words.iter().map(|word| std::ptr::from_ref(word).cast_mut().cast())).collect()
    }
}
