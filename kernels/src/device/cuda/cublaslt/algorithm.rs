//! Which of the library's algorithms is used for a shape, and what is kept of the choice for the record.

use std::fmt;

use cudarc::cublaslt::sys;
use sys::cublasLtMatmulAlgoConfigAttributes_t as Attribute;
use sys::cublasLtReductionScheme_t as Scheme;

/// How many algorithms the library is asked for, best first.
pub(super) const CANDIDATES: usize = 16;

/// Ways to sum the parts of a sum split between blocks that give the same bits in every run: parts in f32 in the
/// workspace, summed by a second step. Not splitting is always allowed. Left out are sums in place and in the output,
/// whose order the blocks' timing may decide.
pub(super) const REPEATING_SCHEMES: u32 = Scheme::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;

/// An algorithm and its settings, as the library names them.
#[derive(Clone, Copy, Debug)]
pub struct Algorithm {
    raw: sys::cublasLtMatmulAlgo_t,
    id: u32,
    tile: u32,
    stages: u32,
    split_k: u32,
    reduction: u32,
    swizzle: u32,
    custom: u32,
    inner_shape: u16,
    cluster_shape: u16,
    workspace_bytes: usize,
}

impl Algorithm {
    /// Reads the settings of an answer; `None` if it is no answer or does not name its settings.
    pub(super) fn of(answer: &sys::cublasLtMatmulHeuristicResult_t) -> Option<Self> {
        answer.state.result().ok()?;
        let raw = answer.algo;
        Some(Self {
            raw,
            id: setting(&raw, Attribute::CUBLASLT_ALGO_CONFIG_ID)?,
            tile: setting(&raw, Attribute::CUBLASLT_ALGO_CONFIG_TILE_ID)?,
            stages: setting(&raw, Attribute::CUBLASLT_ALGO_CONFIG_STAGES_ID)?,
            split_k: setting(&raw, Attribute::CUBLASLT_ALGO_CONFIG_SPLITK_NUM)?,
            reduction: setting(&raw, Attribute::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME)?,
            swizzle: setting(&raw, Attribute::CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING)?,
            custom: setting(&raw, Attribute::CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION)?,
            // Younger than the others: 0, undefined, where an algorithm does not know them.
            inner_shape: setting(&raw, Attribute::CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID).unwrap_or_default(),
            cluster_shape: setting(&raw, Attribute::CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID)
                .unwrap_or_default(),
            workspace_bytes: answer.workspaceSize,
        })
    }

    /// Whether its results are the same bits in every run.
    pub(super) fn repeats(&self) -> bool {
        self.reduction & !REPEATING_SCHEMES == 0
    }

    pub(super) const fn raw(&self) -> *const sys::cublasLtMatmulAlgo_t {
        &raw const self.raw
    }
}

/// A setting, of a type as wide as the library's.
fn setting<T: Default>(algorithm: &sys::cublasLtMatmulAlgo_t, attribute: Attribute) -> Option<T> {
    let (mut value, mut written) = (T::default(), 0);
    // SAFETY: the algorithm was filled in by the library; there is room for as many bytes as are asked for. The types
    // asked for are integers, valid with any bits.
    let status = unsafe {
        let to = (&raw mut value).cast();
        sys::cublasLtMatmulAlgoConfigGetAttribute(algorithm, attribute, to, size_of::<T>(), &raw mut written)
    };
    (status.result().is_ok() && written == size_of::<T>()).then_some(value)
}

impl fmt::Display for Algorithm {
    /// One line for the record.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, tile, stages, split_k, reduction, swizzle, custom, .. } = self;
        let Self { inner_shape, cluster_shape, workspace_bytes, .. } = self;
        write!(
            f,
            "cuBLASLt algorithm {id}: tile {tile}, stages {stages}, split-k {split_k}, reduction {reduction}, swizzle \
             {swizzle}, custom {custom}, inner shape {inner_shape}, cluster shape {cluster_shape}, workspace \
             {workspace_bytes} bytes"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduced_by(scheme: Scheme) -> Algorithm {
        Algorithm {
            raw: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
            id: 66,
            tile: 20,
            stages: 35,
            split_k: 2,
            reduction: scheme as u32,
            swizzle: 0,
            custom: 1,
            inner_shape: 0,
            cluster_shape: 2,
            workspace_bytes: 1024,
        }
    }

    #[test]
    fn sums_whose_order_timing_may_decide_are_refused() {
        assert!(reduced_by(Scheme::CUBLASLT_REDUCTION_SCHEME_NONE).repeats());
        assert!(reduced_by(Scheme::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE).repeats());
        assert!(!reduced_by(Scheme::CUBLASLT_REDUCTION_SCHEME_INPLACE).repeats());
        assert!(!reduced_by(Scheme::CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE).repeats());
        assert!(!reduced_by(Scheme::CUBLASLT_REDUCTION_SCHEME_MASK).repeats());
    }

    #[test]
    fn the_record_names_every_setting() {
        let line = reduced_by(Scheme::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE).to_string();
        assert_eq!(
            line,
            "cuBLASLt algorithm 66: tile 20, stages 35, split-k 2, reduction 2, swizzle 0, custom 1, inner shape 0, \
             cluster shape 2, workspace 1024 bytes"
        );
    }
}
