//! The forward pass on a card, top to bottom, in the words of [`super::cpu`].
//!
//! Shapes: hidden `(n, hidden)` f32; qkv `(n, (n_heads + 2 n_kv_heads) head_dim)` f32: queries, keys, values;
//! gate_up `(n, 2 ffn)` f32: gate, up; what a matrix reads is bf16. Residuals are added where a projection is written.
//! Source: `modeling_qwen3.py` of Hugging Face transformers; weights as `crate::weights` names them.
//!
//! Decode runs the same launches for every token, so they are recorded once and run as a graph; what changes from token
//! to token (the token, its position) is read from the card's memory.

mod memory;
mod pass;
mod weights;

use half::bf16;
use kernels::KernelError;
use kernels::device::cuda::{Cuda, DeviceBuffer, DeviceKv, View, ViewMut};
use kernels::ops::attention::decode::Decode;
use kernels::ops::attention::prefill::Prefill;
use kernels::ops::kv_store::{Placement, StridedRows};
use kernels::ops::matmul::{Epilogue, Form};
use kernels::ops::qk_norm_rope::{DeviceAngles, DeviceHeads, Rotation};
use kernels::ops::{attention, kv_store, matmul, qk_norm_rope, rms_norm, swiglu};

use crate::config::ModelConfig;
use crate::error::EngineError;

pub use memory::{Memory, Rows};
pub use pass::Pass;
pub use weights::{Layer, Stack, Weights};

/// A model ready to run: borrowed weights on a card.
#[derive(Clone, Copy)]
pub struct Qwen3<'a> {
    /// The card.
    pub cuda: &'a Cuda,
    /// Shapes and constants.
    pub config: &'a ModelConfig,
    /// The weights.
    pub weights: &'a Weights,
}

/// Where the rows of a launch stand in their sequence.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Rows.
    pub n: usize,
    /// Position of the first row, in the card's memory.
    pub position: View<'a, i32>,
    /// Its place in `slots`, in the card's memory: before its position where rows were dropped.
    pub start: View<'a, i32>,
    /// Slots of what the rows attend to, in order of position, then their own.
    pub slots: View<'a, i32>,
    /// Rotation of each position from 0 on, as `qk_norm_rope::Angles` lays them out.
    pub angles: View<'a, f32>,
    /// How attention runs.
    pub attention: Attention,
}

/// Which attention runs.
#[derive(Clone, Copy)]
pub enum Attention {
    /// Rows from this place in the slots on, the same as on the card.
    Prefill(usize),
    /// One row, at whatever place the card holds.
    Decode,
}

impl Qwen3<'_> {
    /// Refuses tokens without a row in the embedding: the card would read beyond it.
    pub(crate) fn check(&self, tokens: &[u32]) -> Result<(), EngineError> {
        let rows = self.config.vocab;
        match tokens.iter().position(|token| *token as usize >= rows) {
            None => Ok(()),
            Some(position) => {
                let source = KernelError::Token { token: tokens[position], position, rows };
                Err(EngineError::Kernel { subject: "embedding".to_owned(), source })
            }
        }
    }

    /// One layer over `place.n` rows, whose hidden states it updates.
    pub(crate) fn layer(
        &self,
        layer: &Layer,
        place: Place<'_>,
        kv: &mut DeviceKv,
        hidden: &mut ViewMut<'_, f32>,
        rows: &mut Rows,
    ) -> Result<(), KernelError> {
        self.project_heads(layer, place.n, hidden.view(), rows)?;
        self.ready_heads(layer, place, Rotation::By(()), rows)?;
        self.store(place, rows, kv)?;
        self.attend(layer, place, kv, hidden, rows)
    }

    /// Queries, keys and values as the matrices give them, to `rows.qkv`.
    pub(crate) fn project_heads(
        &self,
        layer: &Layer,
        n: usize,
        hidden: View<'_, f32>,
        rows: &mut Rows,
    ) -> Result<(), KernelError> {
        let Rows { normed, qkv, .. } = rows;
        let mut normed = normed.slice_mut(0..n * self.config.hidden);
        rms_norm::cuda(self.cuda, hidden, layer.attn_norm.view(), self.config.rms_eps, normed.reborrow())?;
        self.project(&layer.wqkv, normed.view(), qkv.slice_mut(0..n * self.qkv_dim()), n, Epilogue::Store)
    }

    /// Queries and keys as attention takes them, from `rows.qkv` to `rows.q` and `rows.k`: normed, and turned unless
    /// the rotation is off.
    pub(crate) fn ready_heads(
        &self,
        layer: &Layer,
        place: Place<'_>,
        rotation: Rotation<()>,
        rows: &mut Rows,
    ) -> Result<(), KernelError> {
        let ModelConfig { n_heads, n_kv_heads, head_dim, rms_eps: eps, .. } = *self.config;
        let Rows { qkv, q, k, .. } = rows;
        let heads = DeviceHeads {
            qkv: qkv.slice(0..place.n * self.qkv_dim()),
            n_heads,
            n_kv_heads,
            q_weight: layer.q_norm.view(),
            k_weight: layer.k_norm.view(),
            eps,
        };
        let rotation = match rotation {
            Rotation::Off => Rotation::Off,
            Rotation::By(()) => Rotation::By(DeviceAngles { table: place.angles, start: place.position }),
        };
        let q = q.slice_mut(0..place.n * n_heads * head_dim);
        let k = k.slice_mut(0..place.n * n_kv_heads * head_dim);
        qk_norm_rope::cuda(self.cuda, &heads, rotation, q, k)
    }

    /// Keys and values of the rows to their slots.
    pub(crate) fn store(&self, place: Place<'_>, rows: &Rows, kv: &mut DeviceKv) -> Result<(), KernelError> {
        let (n, kv_dim) = (place.n, self.config.n_kv_heads * self.config.head_dim);
        let first_value = self.qkv_dim() - kv_dim;
        let keys = StridedRows { rows: rows.k.slice(0..n * kv_dim), stride: kv_dim };
        let values = rows.qkv.slice(first_value..n * self.qkv_dim());
        let values = StridedRows { rows: values, stride: self.qkv_dim() };
        let at = Placement { slots: place.slots, start: place.start };
        kv_store::cuda(self.cuda, n, keys, Some(values), at, kv)
    }

    /// What follows once the keys and values of the rows are stored: attention, its projection, the feed-forward layer.
    pub(crate) fn attend(
        &self,
        layer: &Layer,
        place: Place<'_>,
        kv: &DeviceKv,
        hidden: &mut ViewMut<'_, f32>,
        rows: &mut Rows,
    ) -> Result<(), KernelError> {
        let (cuda, config, n) = (self.cuda, self.config, place.n);
        let (eps, width, ffn) = (config.rms_eps, config.hidden, config.ffn);
        let Rows { normed, q, heads, gate_up, activated, splits, .. } = rows;
        let q_dim = config.n_heads * config.head_dim;

        let (q, slots, n_heads) = (q.slice(0..n * q_dim), place.slots, config.n_heads);
        let mut heads = heads.slice_mut(0..n * q_dim);
        match place.attention {
            Attention::Prefill(start) => {
                let call = Prefill { q, kv, slots, start, n_heads };
                attention::prefill::cuda(cuda, &call, splits.view_mut(), heads.reborrow())?;
            }
            Attention::Decode => {
                let call = Decode { q, kv, slots, start: place.start, n_heads };
                attention::decode::cuda(cuda, &call, splits.view_mut(), heads.reborrow())?;
            }
        }
        self.project(&layer.wo, heads.view(), hidden.reborrow(), n, Epilogue::Add)?;

        let mut normed = normed.slice_mut(0..n * width);
        rms_norm::cuda(cuda, hidden.view(), layer.ffn_norm.view(), eps, normed.reborrow())?;
        let mut gate_up = gate_up.slice_mut(0..n * 2 * ffn);
        self.project(&layer.w_gate_up, normed.view(), gate_up.reborrow(), n, Epilogue::Store)?;
        let mut activated = activated.slice_mut(0..n * ffn);
        swiglu::cuda(cuda, gate_up.view(), n, activated.reborrow())?;
        self.project(&layer.w_down, activated.view(), hidden.reborrow(), n, Epilogue::Add)
    }

    /// Logits of one hidden row.
    pub(crate) fn logits(
        &self,
        hidden: View<'_, f32>,
        normed: &mut DeviceBuffer<bf16>,
        logits: &mut DeviceBuffer<f32>,
    ) -> Result<(), KernelError> {
        let weights = self.weights;
        let mut normed = normed.slice_mut(0..self.config.hidden);
        rms_norm::cuda(
            self.cuda,
            hidden,
            weights.output_norm.view(),
            self.config.rms_eps,
            normed.reborrow(),
        )?;
        let form = Form { n: 1, ldy: self.config.vocab, epilogue: Epilogue::Store };
        matmul::cuda(self.cuda, normed.view(), weights.output(), logits.view_mut(), form)
    }

    /// Rows of activations times every matrix of a stack, side by side.
    fn project(
        &self,
        stack: &Stack,
        x: View<'_, bf16>,
        mut y: ViewMut<'_, f32>,
        n: usize,
        epilogue: Epilogue,
    ) -> Result<(), KernelError> {
        let ldy = stack.rows();
        let mut column = 0;
        for matrix in &stack.parts {
            let part = y.slice_mut(column..y.len());
            matmul::cuda(self.cuda, x, matrix, part, Form { n, ldy, epilogue })?;
            column += matrix.rows;
        }
        Ok(())
    }

    /// Values of a row of queries, keys and values.
    const fn qkv_dim(&self) -> usize {
        (self.config.n_heads + 2 * self.config.n_kv_heads) * self.config.head_dim
    }
}
