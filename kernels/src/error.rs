//! What can go wrong at the door of a kernel with data from outside: a shape, a byte count, a token id. Slices whose
//! lengths the caller computes itself are asserted instead.

use crate::device::cuda::Absence;
use crate::dtype::DType;

/// An input the kernels refuse. Every variant names the subject, what was expected and what came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// A row does not consist of whole blocks.
    #[error(
        "{dtype} rows hold blocks of {block} values, but the matrix has {cols} columns; check the tensor's shape or \
         requantise it to a type with smaller blocks (Q8_0, Q5_0)"
    )]
    Columns {
        /// The number format.
        dtype: DType,
        /// Values in a row.
        cols: usize,
        /// Values in a block.
        block: usize,
    },
    /// A shape asks for more bytes than can be addressed.
    #[error("a {dtype} matrix of {rows} x {cols} does not fit the address space; its shape is corrupt")]
    TooLarge {
        /// The number format.
        dtype: DType,
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        cols: usize,
    },
    /// The bytes of a matrix do not match its shape.
    #[error(
        "a {dtype} matrix of {rows} x {cols} takes {expected} bytes, got {got}; the file is cut short or the shape \
         belongs to another tensor"
    )]
    Bytes {
        /// The number format.
        dtype: DType,
        /// Rows.
        rows: usize,
        /// Values in a row.
        cols: usize,
        /// Bytes the shape asks for.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// A token has no row in the embedding.
    #[error(
        "token {token} at position {position}: the embedding has {rows} rows; the tokenizer and the model do not \
         belong together"
    )]
    Token {
        /// The token id.
        token: u32,
        /// Its place in the tokens handed in.
        position: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// There is no card to use.
    #[error("{0}")]
    NoCuda(#[source] Absence),
    /// The device has not enough memory left.
    #[error(
        "the device has no {bytes} bytes left ({free} are free); lower --kv-budget, take a smaller model, or end \
         what else uses the card (nvidia-smi names it)"
    )]
    DeviceMemory {
        /// Bytes asked for.
        bytes: u64,
        /// Bytes free.
        free: u64,
    },
    /// The driver refused or failed; or a kernel that ran before did.
    #[error("CUDA: {call} failed: {message}")]
    Cuda {
        /// The driver's function.
        call: &'static str,
        /// What it answered.
        message: String,
    },
    /// A kernel could not be launched, or failed under the emulator.
    #[error("kernel {kernel}: {message}")]
    Launch {
        /// The kernel, or the module that holds it.
        kernel: &'static str,
        /// What went wrong.
        message: String,
    },
}
