//! cuBLASLt, where the machine has it: products of bf16 matrices with f32 results, one algorithm for each shape, chosen
//! once and only among those whose results repeat. It knows nothing of tokens or layers, and does without itself.
//!
//! Row-major y (n, rows) = x (n, cols) · W (rows, cols)^T is, in the column-major words of the library, the matrix
//! D (rows x n) = A^T · B with A = W as (cols x rows) and B = x as (cols x n); the leading dimensions are the same.

mod algorithm;
mod library;

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::from_ref;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;

use crate::error::KernelError;
pub use algorithm::Algorithm;

/// Device memory that algorithms may use between their steps: what NVIDIA recommends for Hopper, and what PyTorch gives.
pub(super) const WORKSPACE_BYTES: u64 = 32 << 20;
/// Addresses that algorithms may count on to be multiples of so many bytes.
pub(crate) const ALIGNMENT: usize = 16;

/// `CUBLAS_OP_T` of cublas_api.h, which the bindings of cuBLASLt alone do not have.
const TRANSPOSED: i32 = 1;

/// What an algorithm is chosen by. Addresses have no part in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows of x and y.
    pub n: usize,
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns of both.
    pub cols: usize,
    /// From one row of y to the next, in elements.
    pub ldy: usize,
    /// Whether y is added to.
    pub adds: bool,
}

/// One product: a shape, and where its matrices lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub shape: Shape,
    pub x: u64,
    pub w: u64,
    pub y: u64,
}

/// An open library and what it has chosen so far.
#[derive(Debug)]
pub(super) struct CublasLt {
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    /// `None` for shapes for which the library has no algorithm whose results repeat.
    plans: Mutex<HashMap<Shape, Option<Arc<Plan>>>>,
}

// SAFETY: the library's handles may be used from any thread; descriptions are only read once made.
unsafe impl Send for CublasLt {}
// SAFETY: as above; the plans are behind a lock.
unsafe impl Sync for CublasLt {}

/// What the library needs to be told of a shape, and what it chose.
#[derive(Debug)]
struct Plan {
    operation: Operation,
    w: Layout,
    x: Layout,
    y: Layout,
    algorithm: Algorithm,
}

#[derive(Debug)]
struct Operation(sys::cublasLtMatmulDesc_t);
#[derive(Debug)]
struct Layout(sys::cublasLtMatrixLayout_t);
#[derive(Debug)]
struct Preference(sys::cublasLtMatmulPreference_t);

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: made by `Operation::new`, destroyed once. A failure leaks a few bytes.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made by `Layout::new`, destroyed once. A failure leaks a few bytes.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made by `Preference::new`, destroyed once. A failure leaks a few bytes.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        // SAFETY: made by `open`, destroyed once; the card's context is current, as `Card` sees to.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl Operation {
    /// f32 sums of A^T · B.
    fn new() -> Result<Self, CublasError> {
        let f32 = sys::cudaDataType_t::CUDA_R_32F;
        let operation = Self(result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, f32)?);
        // SAFETY: the description is alive and the attribute is of this type.
        unsafe {
            result::set_matmul_desc_attribute(
                operation.0,
                sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
                from_ref(&TRANSPOSED).cast(),
                size_of_val(&TRANSPOSED),
            )?;
        }
        Ok(operation)
    }
}

impl Layout {
    /// `lines` lines of `length` values one after the other, `stride` apart.
    fn new(
        dtype: sys::cudaDataType,
        length: usize,
        lines: usize,
        stride: usize,
    ) -> Result<Self, CublasError> {
        result::create_matrix_layout(dtype, length as u64, lines as u64, stride as i64).map(Self)
    }
}

impl Preference {
    fn new() -> Result<Self, CublasError> {
        result::create_matmul_pref().map(Self)
    }

    fn set<T>(&self, name: sys::cublasLtMatmulPreferenceAttributes_t, value: &T) -> Result<(), CublasError> {
        // SAFETY: the description is alive; each caller passes the type the attribute has.
        unsafe { result::set_matmul_pref_attribute(self.0, name, from_ref(value).cast(), size_of::<T>()) }
    }
}

/// Version of the library, where it is found; asks no card.
pub(super) fn found_version() -> Option<usize> {
    library::load().then(CublasLt::version)
}

impl CublasLt {
    /// Opens the library if the machine has it and it works with the card, whose context is current. `workspace` gives
    /// [`WORKSPACE_BYTES`] of device memory, and is not asked if there is no library.
    pub(super) fn open(workspace: impl FnOnce(u64) -> Result<u64, KernelError>) -> Option<Self> {
        if !library::load() {
            return None;
        }
        let handle = result::create_handle().ok()?;
        let mut opened = Self { handle, workspace: 0, plans: Mutex::default() };
        opened.workspace = workspace(WORKSPACE_BYTES).ok()?;
        Some(opened)
    }

    /// The device memory it was given.
    pub(super) const fn workspace(&self) -> u64 {
        self.workspace
    }

    /// As in 130101 for 13.1.1.
    pub(super) fn version() -> usize {
        // SAFETY: the library is loaded, or there would be no `CublasLt` to ask about.
        unsafe { sys::cublasLtGetVersion() }
    }

    /// What was chosen for a shape; chooses if it was not asked before.
    pub(super) fn algorithm(&self, shape: Shape) -> Result<Option<Algorithm>, KernelError> {
        Ok(self.plan(shape)?.map(|plan| plan.algorithm))
    }

    fn plan(&self, shape: Shape) -> Result<Option<Arc<Plan>>, KernelError> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.get(&shape) {
            return Ok(plan.clone());
        }
        let plan = self.make_plan(shape).map_err(|error| failed("cublasLtMatmulAlgoGetHeuristic", error))?;
        let plan = plan.map(Arc::new);
        plans.insert(shape, plan.clone());
        Ok(plan)
    }

    fn make_plan(&self, shape: Shape) -> Result<Option<Plan>, CublasError> {
        use sys::cudaDataType_t::{CUDA_R_16BF, CUDA_R_32F};
        let Shape { n, rows, cols, ldy, .. } = shape;
        let operation = Operation::new()?;
        let w = Layout::new(CUDA_R_16BF, cols, rows, cols)?;
        let x = Layout::new(CUDA_R_16BF, cols, n, cols)?;
        let y = Layout::new(CUDA_R_32F, rows, n, ldy)?;
        let preference = preference()?;
        let mut answers = [const { std::mem::MaybeUninit::zeroed() }; algorithm::CANDIDATES];
        let mut n_answers = 0;
        // SAFETY: handle and descriptions are alive; there is room for as many answers as are asked for.
        let status = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                operation.0,
                w.0,
                x.0,
                y.0,
                y.0,
                preference.0,
                answers.len() as i32,
                answers.as_mut_ptr().cast(),
                &raw mut n_answers,
            )
        };
        match status {
            sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED => return Ok(None),
            status => status.result()?,
        }
        let n_answers = (n_answers.max(0) as usize).min(answers.len());
        // SAFETY: the library wrote so many; its structures are plain numbers, of which any zeros are valid.
        let answers = answers[..n_answers].iter().map(|answer| unsafe { answer.assume_init() });
        let chosen = answers.filter_map(|answer| Algorithm::of(&answer)).find(Algorithm::repeats);
        Ok(chosen.map(|algorithm| Plan { operation, w, x, y, algorithm }))
    }

    /// Asks for a product on `stream`; `false` if the library has no algorithm for it whose results repeat.
    ///
    /// # Safety
    /// The matrices lie at multiples of [`ALIGNMENT`] bytes where the product says and live until it has run, and y is
    /// not used by others meanwhile; the stream is one of the current context.
    pub(super) unsafe fn multiply(
        &self,
        product: &Product,
        stream: *mut c_void,
    ) -> Result<bool, KernelError> {
        let Some(plan) = self.plan(product.shape)? else { return Ok(false) };
        let (one, beta) = (1.0_f32, if product.shape.adds { 1.0_f32 } else { 0.0 });
        // SAFETY: handle, descriptions and algorithm are alive and belong together; the rest is the caller's promise.
        // One stream uses the workspace, so that no two products do at a time.
        let answer = unsafe {
            result::matmul(
                self.handle,
                plan.operation.0,
                from_ref(&one).cast(),
                from_ref(&beta).cast(),
                product.w as *const c_void,
                plan.w.0,
                product.x as *const c_void,
                plan.x.0,
                product.y as *const c_void,
                plan.y.0,
                product.y as *mut c_void,
                plan.y.0,
                plan.algorithm.raw(),
                self.workspace as *mut c_void,
                WORKSPACE_BYTES as usize,
                stream.cast(),
            )
        };
        answer.map_err(|error| failed("cublasLtMatmul", error))?;
        Ok(true)
    }
}

/// Algorithms within the workspace, for any matrices so aligned, that reduce in a fixed order.
fn preference() -> Result<Preference, CublasError> {
    use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
    let preference = Preference::new()?;
    preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE_BYTES)?;
    preference.set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &algorithm::REPEATING_SCHEMES)?;
    for alignment in [
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
    ] {
        preference.set(alignment, &(ALIGNMENT as u32))?;
    }
    Ok(preference)
}

fn failed(call: &'static str, error: CublasError) -> KernelError {
    KernelError::Cuda { call, message: error.to_string() }
}
