//! Activations times a weight matrix: `y[t, r] = sum_c x[t, c] · w[r, c]`.
//!
//! On the CPU, x (n_tokens, cols) f32 and y (n_tokens, rows) f32, row-major; w (rows, cols) a [`Matrix`]. With F32, F16
//! and quantised weights everything is f32: values are decoded exactly and multiplied with FMA. With BF16 weights the
//! activations are rounded to bf16 as well (to nearest even) and the products, exact in f32, are summed in f32. Each y
//! is one chain of additions over c, first to last. Its bits depend on the row of x, the row of w and the instruction
//! set; not on n_tokens, its place among them, or the number of threads. So decoding one token gives the bits of
//! prefilling it among others.
//!
//! On a CUDA device, x is bf16 whatever the weights are, sums are f32. One token ([`gemv`]) meets weights widened to
//! f32, several ([`gemm`]) meet weights rounded to bf16. The bits of a row of y depend on its row of x, on w, and on
//! whether there is one token or more.
//!
//! It knows nothing of layers or of what the features mean.

mod cpu;
pub mod gemm;
pub mod gemv;
pub mod wgmma;

use std::ops::Range;

use half::bf16;

use crate::cost::Cost;
use crate::device::cuda::{ALIGNMENT, Cuda, DeviceMatrix, GemmPath, Product, Shape, View, ViewMut};
use crate::dtype::DType;
use crate::error::KernelError;
pub use crate::matrix::Matrix;
pub use cpu::cpu;

/// The plain version: sums in f64, rounded once.
///
/// # Panics
/// If the lengths of `x` and `y` do not belong to one number of tokens.
pub fn spec(x: &[f32], w: &Matrix, y: &mut [f32]) {
    let n_tokens = n_tokens(x, w, y);
    let round: fn(f32) -> f32 = match w.dtype() {
        DType::BF16 => |x| bf16::from_f32(x).to_f32(),
        _ => |x| x,
    };
    let mut row = vec![0.0; w.cols()];
    for r in 0..w.rows() {
        w.row(r, &mut row);
        for t in 0..n_tokens {
            let x = &x[t * w.cols()..][..w.cols()];
            let sum: f64 = x.iter().zip(&row).map(|(x, w)| f64::from(round(*x)) * f64::from(*w)).sum();
            y[t * w.rows() + r] = sum as f32;
        }
    }
}

/// What becomes of the products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// `y = x·W^T`.
    Store,
    /// `y += x·W^T`.
    Add,
}

impl Epilogue {
    /// As the kernels take it.
    const fn adds(self) -> i32 {
        matches!(self, Self::Add) as i32
    }
}

/// How many tokens there are and where their rows of y lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Tokens: rows of x and y.
    pub n: usize,
    /// From one row of y to the next, in elements: the matrix's rows, or more where y is part of a wider matrix.
    pub ldy: usize,
    /// What becomes of the products.
    pub epilogue: Epilogue,
}

impl Form {
    /// # Panics
    /// If x, w and y do not belong together.
    fn check(self, x: View<'_, bf16>, w: MatrixView<'_>, y: &ViewMut<'_, f32>) {
        let Self { n, ldy, .. } = self;
        assert!(x.len() == n * w.cols, "x: {} elements for {n} tokens of {} columns", x.len(), w.cols);
        assert!(n < 2 || ldy >= w.rows, "rows of y {ldy} apart for {} elements", w.rows);
        let needed = n.saturating_sub(1) * ldy + w.rows;
        assert!(n == 0 || y.len() >= needed, "y: {} elements, {needed} are written", y.len());
    }
}

/// A matrix in device memory, or some rows of one.
#[derive(Clone, Copy, Debug)]
pub struct MatrixView<'a> {
    /// Number format.
    pub dtype: DType,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// The rows, as GGUF and safetensors hold them. The memory they are part of begins and ends on multiples of 16
    /// bytes.
    pub bytes: View<'a, u8>,
}

impl<'a> From<&'a DeviceMatrix> for MatrixView<'a> {
    fn from(matrix: &'a DeviceMatrix) -> Self {
        let DeviceMatrix { dtype, rows, cols, bytes } = matrix;
        Self { dtype: *dtype, rows: *rows, cols: *cols, bytes: bytes.view() }
    }
}

impl MatrixView<'_> {
    /// The rows `range` alone.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn slice(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of {}", self.rows);
        let row = self.cols / self.dtype.block_len() * self.dtype.block_bytes();
        Self { rows: range.len(), bytes: self.bytes.slice(range.start * row..range.end * row), ..self }
    }

    /// Whether rows of values that stand alone do not begin on multiples of 16 bytes, or do not end there.
    ///
    /// # Panics
    /// If Q4_K blocks do not begin there: parts of a buffer that begin with a row do.
    fn is_loose(&self) -> bool {
        let aligned = self.bytes.address().is_multiple_of(16);
        assert!(
            aligned || self.dtype != DType::Q4K,
            "a Q4_K matrix does not begin on a multiple of 16 bytes"
        );
        self.dtype.block_len() == 1 && !(aligned && self.cols.is_multiple_of(8))
    }
}

/// A number for the kernels.
///
/// # Panics
/// If it is not below 2^31.
fn int(value: usize) -> i32 {
    assert!(i32::try_from(value).is_ok(), "{value} is too large for a kernel");
    value as i32
}

/// The device's version: x (n, cols) bf16, y (n, rows) f32 with rows `form.ldy` apart. y may be part of a wider matrix,
/// so that the products of several matrices come to lie side by side; matrices that follow one another in memory and
/// have one type are one matrix and take one launch.
///
/// # Errors
/// [`KernelError::Launch`] if the driver refuses the launch.
///
/// # Panics
/// If the shapes do not belong together.
pub fn cuda<'a>(
    cuda: &Cuda,
    x: View<'_, bf16>,
    w: impl Into<MatrixView<'a>>,
    y: ViewMut<'_, f32>,
    form: Form,
) -> Result<(), KernelError> {
    let w = w.into();
    form.check(x, w, &y);
    match form.n {
        0 => Ok(()),
        1 => gemv::cuda(cuda, x, w, y, form.epilogue),
        _ => several(cuda, x, w, y, form),
    }
}

/// More tokens than one, by the device's path for bf16 weights where these are such and fit it.
fn several(
    cuda: &Cuda,
    x: View<'_, bf16>,
    w: MatrixView<'_>,
    y: ViewMut<'_, f32>,
    form: Form,
) -> Result<(), KernelError> {
    if w.dtype == DType::BF16 && !w.is_loose() && w.rows > 0 && w.cols > 0 {
        match cuda.gemm_path() {
            GemmPath::CublasLt { .. } if cublaslt(cuda, x, w, &y, form)? => return Ok(()),
            GemmPath::Hopper => {
                return wgmma::cuda(cuda, x, w, y, form, wgmma::Width::of(form.n, w.rows));
            }
            GemmPath::CublasLt { .. } | GemmPath::Own => {}
        }
    }
    gemm::cuda(cuda, x, w, y, form, gemm::Tile::of(form.n, w.rows))
}

/// Multiplies with cuBLASLt; `false`, with nothing done, where it has no algorithm for the shape whose results repeat or
/// the matrices do not lie as its algorithms count on.
fn cublaslt(
    cuda: &Cuda,
    x: View<'_, bf16>,
    w: MatrixView<'_>,
    y: &ViewMut<'_, f32>,
    form: Form,
) -> Result<bool, KernelError> {
    let Form { n, ldy, epilogue } = form;
    let shape = Shape { n, rows: w.rows, cols: w.cols, ldy, adds: epilogue == Epilogue::Add };
    let product = Product { shape, x: x.address(), w: w.bytes.address(), y: y.address() };
    let aligned = |address: u64| address.is_multiple_of(ALIGNMENT as u64);
    if !(aligned(product.x) && aligned(product.w) && aligned(product.y) && ldy.is_multiple_of(ALIGNMENT / 4))
    {
        return Ok(false);
    }
    // SAFETY: the views are of the device's memory and lie as the library counts on; y was borrowed to be written, and
    // that it has its rows was checked.
    unsafe { cuda.cublaslt_multiply(&product) }
}

/// Reads w and x, writes y; two operations for each element of w and token.
pub fn cost(n_tokens: usize, w: &Matrix) -> Cost {
    let (n, rows, cols) = (n_tokens as u64, w.rows() as u64, w.cols() as u64);
    let weights = rows * (cols / w.dtype().block_len() as u64) * w.dtype().block_bytes() as u64;
    Cost { bytes: weights + 4 * n * (rows + cols), flops: 2 * n * rows * cols }
}

/// The largest squared relative error of `cpu` against `spec`: each of a few thousand additions in a chain rounds
/// by up to 2^-24 of the sum so far; the roundings partly cancel and stay below 3e-6 of the result. Both sides see
/// the same rounded activations and exact weights.
pub const MAX_NMSE: f64 = 1e-11;

/// The number of tokens both slices agree on; 0 if there is nothing to compute.
fn n_tokens(x: &[f32], w: &Matrix, y: &[f32]) -> usize {
    let (rows, cols) = (w.rows(), w.cols());
    let n = y.len().checked_div(rows).unwrap_or(0);
    assert!(y.len() == n * rows, "y: {} elements are no whole tokens of {rows} rows", y.len());
    assert!(rows == 0 || x.len() == n * cols, "x: {} elements for {n} tokens of {cols} columns", x.len());
    n
}
