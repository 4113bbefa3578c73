//! The weights of a model in memory, as the forward pass uses them. Where the bytes come from is behind
//! `TensorSource`; this module knows no file format.

use std::borrow::Cow;
use std::sync::OnceLock;

use kernels::device::Cpu;
use kernels::dtype::DType;
use kernels::ops::matmul::Matrix;
use kernels::ops::synthetic::Fill;

use crate::config::ModelConfig;
use crate::error::EngineError;
use crate::tensors::{LayerTensor, TensorId};

/// The weights of one block.
#[derive(Debug)]
pub struct Layer {
    /// Norm before attention, `[hidden]`.
    pub attn_norm: Vec<f32>,
    /// Query projection, `[n_heads * head_dim, hidden]`.
    pub wq: Matrix,
    /// Key projection, `[n_kv_heads * head_dim, hidden]`.
    pub wk: Matrix,
    /// Value projection, `[n_kv_heads * head_dim, hidden]`.
    pub wv: Matrix,
    /// Per-head norm of the queries, `[head_dim]`.
    pub q_norm: Vec<f32>,
    /// Per-head norm of the keys, `[head_dim]`.
    pub k_norm: Vec<f32>,
    /// Attention output projection, `[hidden, n_heads * head_dim]`.
    pub wo: Matrix,
    /// Norm before the feed-forward layer, `[hidden]`.
    pub ffn_norm: Vec<f32>,
    /// Gate projection, `[ffn, hidden]`.
    pub w_gate: Matrix,
    /// Up projection, `[ffn, hidden]`.
    pub w_up: Matrix,
    /// Down projection, `[hidden, ffn]`.
    pub w_down: Matrix,
}

/// All weights of a model.
#[derive(Debug)]
pub struct Weights {
    /// Token embedding, `[vocab, hidden]`.
    pub embedding: Matrix,
    /// Blocks in order.
    pub layers: Vec<Layer>,
    /// Final norm, `[hidden]`.
    pub output_norm: Vec<f32>,
    /// Output matrix, `[vocab, hidden]`; `None` in tied models.
    pub output: Option<Matrix>,
}

/// A tensor's bytes, row-major, as they are stored.
pub(crate) struct StoredTensor<'a> {
    /// Name in its file, for errors.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// The bytes.
    pub bytes: Cow<'a, [u8]>,
}

/// Where weights come from. Every call reads (or makes) the bytes anew.
pub(crate) trait TensorSource: Sync {
    /// Element type of one tensor; opening the source has checked that it is there.
    fn dtype(&self, id: TensorId) -> DType;

    /// What fills a matrix, where it is drawn at random: a card then makes it itself.
    fn fill(&self, _: TensorId) -> Option<Fill> {
        None
    }

    /// The bytes of one tensor.
    fn tensor(&self, id: TensorId) -> Result<StoredTensor<'_>, EngineError>;
}

impl Weights {
    /// Reads all weights, spread over the threads of `cpu`.
    pub(crate) fn load(
        config: &ModelConfig,
        source: &dyn TensorSource,
        cpu: &Cpu,
    ) -> Result<Self, EngineError> {
        let embedding = OnceLock::new();
        let output = OnceLock::new();
        let layers: Vec<OnceLock<_>> = (0..config.n_layers).map(|_| OnceLock::new()).collect();
        // The two largest tensors go first, so that no thread is left alone with one at the end.
        cpu.parallel(2 + config.n_layers, |item| {
            let load = Loader { config, source };
            let stored = match item {
                0 => embedding.set(load.matrix(TensorId::Embedding)).is_ok(),
                1 if config.tied => true,
                1 => output.set(load.matrix(TensorId::Output)).is_ok(),
                _ => layers[item - 2].set(load.layer(item - 2)).is_ok(),
            };
            debug_assert!(stored, "item {item} ran twice");
        });
        let load = Loader { config, source };
        let take = |cell: OnceLock<_>, id| cell.into_inner().unwrap_or_else(|| load.matrix(id));
        let layers = layers
            .into_iter()
            .enumerate()
            .map(|(index, cell)| cell.into_inner().unwrap_or_else(|| load.layer(index)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            embedding: take(embedding, TensorId::Embedding)?,
            layers,
            output_norm: load.vector(TensorId::OutputNorm)?,
            output: if config.tied { None } else { Some(take(output, TensorId::Output)?) },
        })
    }

    /// The matrix that turns the last hidden state into logits: its own, or the embedding in tied models.
    pub fn output(&self) -> &Matrix {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// Bytes that the weights occupy in memory.
    pub fn resident_bytes(&self) -> u64 {
        let vector = |vector: &Vec<f32>| size_of_val(vector.as_slice()) as u64;
        let layer = |layer: &Layer| {
            let matrices =
                [&layer.wq, &layer.wk, &layer.wv, &layer.wo, &layer.w_gate, &layer.w_up, &layer.w_down];
            let vectors = [&layer.attn_norm, &layer.q_norm, &layer.k_norm, &layer.ffn_norm];
            matrices.iter().map(|matrix| matrix.resident_bytes() as u64).sum::<u64>()
                + vectors.into_iter().map(vector).sum::<u64>()
        };
        self.embedding.resident_bytes() as u64
            + self.output.as_ref().map_or(0, |output| output.resident_bytes() as u64)
            + vector(&self.output_norm)
            + self.layers.iter().map(layer).sum::<u64>()
    }
}

/// Turns stored bytes into matrices and vectors.
struct Loader<'a> {
    config: &'a ModelConfig,
    source: &'a dyn TensorSource,
}

impl Loader<'_> {
    fn layer(&self, index: usize) -> Result<Layer, EngineError> {
        let matrix = |tensor| self.matrix(TensorId::Layer(index, tensor));
        let vector = |tensor| self.vector(TensorId::Layer(index, tensor));
        Ok(Layer {
            attn_norm: vector(LayerTensor::AttnNorm)?,
            wq: matrix(LayerTensor::Wq)?,
            wk: matrix(LayerTensor::Wk)?,
            wv: matrix(LayerTensor::Wv)?,
            q_norm: vector(LayerTensor::QNorm)?,
            k_norm: vector(LayerTensor::KNorm)?,
            wo: matrix(LayerTensor::Wo)?,
            ffn_norm: vector(LayerTensor::FfnNorm)?,
            w_gate: matrix(LayerTensor::WGate)?,
            w_up: matrix(LayerTensor::WUp)?,
            w_down: matrix(LayerTensor::WDown)?,
        })
    }

    fn matrix(&self, id: TensorId) -> Result<Matrix, EngineError> {
        let stored = self.source.tensor(id)?;
        let shape = id.shape(self.config);
        let (rows, columns) = (shape[0], shape[1]);
        Matrix::from_bytes(stored.dtype, rows, columns, &stored.bytes)
            .map_err(|source| EngineError::Kernel { subject: stored.name, source })
    }

    fn vector(&self, id: TensorId) -> Result<Vec<f32>, EngineError> {
        let stored = self.source.tensor(id)?;
        let mut vector = vec![0.0; id.shape(self.config)[0]];
        kernels::quant::dequantize(stored.dtype, &stored.bytes, &mut vector)
            .map_err(|source| EngineError::Kernel { subject: stored.name, source })?;
        Ok(vector)
    }
}
