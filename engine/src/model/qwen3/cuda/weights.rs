//! The weights on a card, in the number format they came in. Matrices that read the same activations lie one after the
//! other, so that one launch multiplies with all of them.

use kernels::device::cuda::{Cuda, DeviceBuffer, DeviceMatrix};
use kernels::ops::synthetic;

use crate::config::ModelConfig;
use crate::error::EngineError;
use crate::tensors::{LayerTensor, TensorId};
use crate::weights::{StoredTensor, TensorSource};

/// The weights of one block.
#[derive(Debug)]
pub struct Layer {
    /// Norm before attention, `[hidden]`.
    pub attn_norm: DeviceBuffer<f32>,
    /// Query, key and value projections, `[(n_heads + 2 n_kv_heads) * head_dim, hidden]` together.
    pub wqkv: Stack,
    /// Per-head norm of the queries, `[head_dim]`.
    pub q_norm: DeviceBuffer<f32>,
    /// Per-head norm of the keys, `[head_dim]`.
    pub k_norm: DeviceBuffer<f32>,
    /// Attention output projection, `[hidden, n_heads * head_dim]`.
    pub wo: Stack,
    /// Norm before the feed-forward layer, `[hidden]`.
    pub ffn_norm: DeviceBuffer<f32>,
    /// Gate and up projections, `[2 ffn, hidden]` together.
    pub w_gate_up: Stack,
    /// Down projection, `[hidden, ffn]`.
    pub w_down: Stack,
}

/// All weights of a model.
#[derive(Debug)]
pub struct Weights {
    /// Token embedding, `[vocab, hidden]`.
    pub embedding: DeviceMatrix,
    /// Blocks in order.
    pub layers: Vec<Layer>,
    /// Final norm, `[hidden]`.
    pub output_norm: DeviceBuffer<f32>,
    /// Output matrix, `[vocab, hidden]`; `None` in tied models.
    pub output: Option<DeviceMatrix>,
}

/// Matrices whose outputs stand side by side in one row of activations. Neighbours of one number format are one matrix:
/// mixed quantisations keep the values in a wider one.
#[derive(Debug)]
pub struct Stack {
    /// The matrices, in order.
    pub parts: Vec<DeviceMatrix>,
}

impl Stack {
    /// Output features of all matrices together.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|matrix| matrix.rows).sum()
    }
}

impl Weights {
    /// Reads all weights to the card; those of a named shape are made there.
    pub(crate) fn load(
        config: &ModelConfig,
        source: &dyn TensorSource,
        cuda: &Cuda,
    ) -> Result<Self, EngineError> {
        let load = Loader { config, source, cuda };
        Ok(Self {
            embedding: load.matrix(TensorId::Embedding)?,
            layers: (0..config.n_layers).map(|index| load.layer(index)).collect::<Result<_, _>>()?,
            output_norm: load.vector(TensorId::OutputNorm)?,
            output: if config.tied { None } else { Some(load.matrix(TensorId::Output)?) },
        })
    }

    /// The matrix that turns the last hidden state into logits: its own, or the embedding in tied models.
    pub fn output(&self) -> &DeviceMatrix {
        self.output.as_ref().unwrap_or(&self.embedding)
    }
}

/// Brings stored tensors to the card.
struct Loader<'a> {
    config: &'a ModelConfig,
    source: &'a dyn TensorSource,
    cuda: &'a Cuda,
}

impl Loader<'_> {
    fn layer(&self, index: usize) -> Result<Layer, EngineError> {
        let stack = |tensors: &[LayerTensor]| {
            self.stack(&tensors.iter().map(|tensor| TensorId::Layer(index, *tensor)).collect::<Vec<_>>())
        };
        let vector = |tensor| self.vector(TensorId::Layer(index, tensor));
        Ok(Layer {
            attn_norm: vector(LayerTensor::AttnNorm)?,
            wqkv: stack(&[LayerTensor::Wq, LayerTensor::Wk, LayerTensor::Wv])?,
            q_norm: vector(LayerTensor::QNorm)?,
            k_norm: vector(LayerTensor::KNorm)?,
            wo: stack(&[LayerTensor::Wo])?,
            ffn_norm: vector(LayerTensor::FfnNorm)?,
            w_gate_up: stack(&[LayerTensor::WGate, LayerTensor::WUp])?,
            w_down: stack(&[LayerTensor::WDown])?,
        })
    }

    /// One matrix for each run of neighbours of the same number format.
    fn stack(&self, ids: &[TensorId]) -> Result<Stack, EngineError> {
        let mut runs: Vec<Vec<TensorId>> = Vec::new();
        for id in ids {
            match runs.last_mut() {
                Some(run) if self.source.dtype(run[0]) == self.source.dtype(*id) => run.push(*id),
                _ => runs.push(vec![*id]),
            }
        }
        let parts = runs.iter().map(|run| self.joined(run)).collect::<Result<_, _>>()?;
        Ok(Stack { parts })
    }

    fn matrix(&self, id: TensorId) -> Result<DeviceMatrix, EngineError> {
        self.joined(&[id])
    }

    /// Matrices of one number format and width, row after row in one.
    fn joined(&self, ids: &[TensorId]) -> Result<DeviceMatrix, EngineError> {
        let shape = |id: &TensorId| id.shape(self.config);
        let rows = ids.iter().map(|id| shape(id)[0]).sum();
        let (dtype, columns) = (self.source.dtype(ids[0]), shape(&ids[0])[1]);
        let failed = |source| self.failed(ids[0], source);
        let mut matrix = DeviceMatrix::alloc(self.cuda, dtype, rows, columns).map_err(failed)?;
        let mut start = 0;
        for id in ids {
            start += self.fill(*id, &mut matrix, start)?;
        }
        Ok(matrix)
    }

    /// Brings one tensor to byte `start` of `matrix`; returns how many bytes it has.
    fn fill(&self, id: TensorId, matrix: &mut DeviceMatrix, start: usize) -> Result<usize, EngineError> {
        let failed = |source| self.failed(id, source);
        let shape = id.shape(self.config);
        let len = matrix.dtype.row_bytes(shape[1]).map_err(failed)? * shape[0];
        if let Some(fill) = self.source.fill(id) {
            let out = matrix.bytes.slice_mut(start..start + len);
            synthetic::cuda(self.cuda, fill, shape[1], out).map_err(failed)?;
            return Ok(len);
        }
        let StoredTensor { dtype, bytes, .. } = self.source.tensor(id)?;
        if bytes.len() != len {
            let (rows, cols) = (shape[0], shape[1]);
            return Err(failed(kernels::KernelError::Bytes {
                dtype,
                rows,
                cols,
                expected: len,
                got: bytes.len(),
            }));
        }
        matrix.bytes.write_at(start, &bytes).map_err(failed)?;
        Ok(len)
    }

    fn vector(&self, id: TensorId) -> Result<DeviceBuffer<f32>, EngineError> {
        let stored = self.source.tensor(id)?;
        let mut vector = vec![0.0; id.shape(self.config)[0]];
        kernels::quant::dequantize(stored.dtype, &stored.bytes, &mut vector)
            .and_then(|()| self.cuda.upload(&vector))
            .map_err(|source| self.failed(id, source))
    }

    /// Running out of memory is about the device, everything else about the tensor.
    fn failed(&self, id: TensorId, source: kernels::KernelError) -> EngineError {
        match source {
            kernels::KernelError::DeviceMemory { .. } => EngineError::Device { source },
            source => EngineError::Kernel { subject: id.safetensors_name(), source },
        }
    }
}
