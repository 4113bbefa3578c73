//! What a pass needs on a card besides weights: keys and values, where the sequence stands, activations. Taken once and
//! kept, so that a recording finds everything where it was.

use half::bf16;
use kernels::KernelError;
use kernels::device::cuda::{Cuda, DeviceBuffer, DeviceKv, Graph};
use kernels::kv::Slot;
use kernels::ops::qk_norm_rope::Angles;
use kernels::ops::{argmax, attention};

use crate::config::ModelConfig;
use crate::error::EngineError;
use crate::schedule::Rules;

/// Keys and values of every layer, and the buffers of a pass.
pub struct Memory {
    /// One for each layer.
    pub(super) layers: Vec<DeviceKv>,
    /// Slots of the sequence under way, in order of position.
    pub(super) slots: DeviceBuffer<i32>,
    /// Rotation of each position, `(n_slots, head_dim)`.
    pub(super) angles: DeviceBuffer<f32>,
    /// Positions whose rotation was filled in.
    n_angles: usize,
    /// Position of the first row of a launch.
    pub(super) position: DeviceBuffer<i32>,
    /// Its place in `slots`.
    pub(super) start: DeviceBuffer<i32>,
    /// Token of each row of a launch.
    pub(super) tokens: DeviceBuffer<u32>,
    /// Residual stream of the piece that ran last, `(n, hidden)`.
    pub(super) hidden: DeviceBuffer<f32>,
    /// The other activations of a piece.
    pub(super) prefill: Rows,
    /// Residual stream of a generated token.
    pub(super) decode_hidden: DeviceBuffer<f32>,
    /// The other activations of a generated token.
    pub(super) decode: Rows,
    /// Logits of one row.
    pub(super) logits: DeviceBuffer<f32>,
    /// First stage of the search for the largest logit.
    pub(super) scratch: DeviceBuffer<u32>,
    /// Token of the largest logit.
    pub(super) best: DeviceBuffer<u32>,
    /// Recorded launches of a generated token.
    pub(super) graph: Option<Graph>,
}

/// Activations of at most `n` rows, but for the residual stream.
pub struct Rows {
    /// Normed, `(n, hidden)`.
    pub normed: DeviceBuffer<bf16>,
    /// Queries, keys and values as projected, `(n, q + 2 kv)`.
    pub qkv: DeviceBuffer<f32>,
    /// Queries as attention reads them, `(n, n_heads, head_dim)`.
    pub q: DeviceBuffer<bf16>,
    /// Keys, normed and turned, `(n, n_kv_heads, head_dim)`.
    pub k: DeviceBuffer<f32>,
    /// Heads as attention leaves them, `(n, n_heads * head_dim)`.
    pub heads: DeviceBuffer<bf16>,
    /// Gate and up, `(n, 2 ffn)`.
    pub gate_up: DeviceBuffer<f32>,
    /// Their product, `(n, ffn)`.
    pub activated: DeviceBuffer<bf16>,
    /// Parts of attention over splits of the keys.
    pub splits: DeviceBuffer<f32>,
}

impl Memory {
    /// Memory for `n_slots` tokens.
    pub(in crate::model::qwen3) fn new(
        cuda: &Cuda,
        config: &ModelConfig,
        n_slots: usize,
    ) -> Result<Self, EngineError> {
        Self::alloc(cuda, config, n_slots).map_err(|source| EngineError::Device { source })
    }

    fn alloc(cuda: &Cuda, config: &ModelConfig, n_slots: usize) -> Result<Self, KernelError> {
        let layer = || DeviceKv::new(cuda, n_slots, config.n_kv_heads, config.head_dim);
        let layers: Vec<_> = (0..config.n_layers).map(|_| layer()).collect::<Result<_, _>>()?;
        let mut decode = Rows::new(cuda, config, 1)?;
        if let Some(kv) = layers.first() {
            decode.reserve_splits(cuda, attention::decode::scratch_len(config.n_heads, kv))?;
        }
        Ok(Self {
            layers,
            slots: cuda.alloc(n_slots)?,
            angles: cuda.alloc(n_slots * config.head_dim)?,
            n_angles: 0,
            position: cuda.alloc(1)?,
            start: cuda.alloc(1)?,
            tokens: cuda.alloc(Rules::PIECE)?,
            hidden: cuda.alloc(Rules::PIECE * config.hidden)?,
            prefill: Rows::new(cuda, config, Rules::PIECE)?,
            decode_hidden: cuda.alloc(config.hidden)?,
            decode,
            logits: cuda.alloc(config.vocab)?,
            scratch: cuda.alloc(argmax::cuda_scratch_len(config.vocab))?,
            best: cuda.alloc(1)?,
            graph: None,
        })
    }

    /// Takes up a sequence of `n_positions`: its slots, and the rotation of positions no sequence had before.
    pub(super) fn begin(
        &mut self,
        config: &ModelConfig,
        slots: &[Slot],
        n_positions: usize,
    ) -> Result<(), KernelError> {
        let ids: Vec<i32> = slots.iter().map(|slot| slot.0 as i32).collect();
        self.slots.write(&ids)?;
        if n_positions > self.n_angles {
            let n_new = n_positions - self.n_angles;
            let angles = Angles::new(config.head_dim, config.rope_theta, self.n_angles, n_new);
            self.angles.write_at(self.n_angles * config.head_dim, angles.table())?;
            self.n_angles = n_positions;
        }
        Ok(())
    }

    /// Says which tokens come next, at which position, and at which place in the slots.
    pub(super) fn place(&mut self, tokens: &[u32], position: usize, start: usize) -> Result<(), KernelError> {
        self.tokens.write(tokens)?;
        self.position.write(&[position as i32])?;
        self.start.write(&[start as i32])
    }
}

impl Rows {
    /// Activations of at most `n` rows.
    pub(crate) fn new(cuda: &Cuda, config: &ModelConfig, n: usize) -> Result<Self, KernelError> {
        let (q, kv) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
        Ok(Self {
            normed: cuda.alloc(n * config.hidden)?,
            qkv: cuda.alloc(n * (q + 2 * kv))?,
            q: cuda.alloc(n * q)?,
            k: cuda.alloc(n * kv)?,
            heads: cuda.alloc(n * q)?,
            gate_up: cuda.alloc(n * 2 * config.ffn)?,
            activated: cuda.alloc(n * config.ffn)?,
            splits: cuda.alloc(0)?,
        })
    }

    /// Takes memory for parts of attention, where there is not enough.
    pub(crate) fn reserve_splits(&mut self, cuda: &Cuda, len: usize) -> Result<(), KernelError> {
        if self.splits.len() < len {
            self.splits = cuda.alloc(len)?;
        }
        Ok(())
    }
}
