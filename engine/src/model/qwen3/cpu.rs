//! The forward pass on the CPU, top to bottom.
//!
//! Shapes: hidden `(n, hidden)`, q `(n, n_heads, head_dim)`, k and v `(n, n_kv_heads, head_dim)`, all f32 row-major.
//! Source: `modeling_qwen3.py` of Hugging Face transformers; weights as `crate::weights` names them.

use kernels::device::Cpu;
use kernels::kv::{KvDType, KvLayer, Slot};
use kernels::ops::qk_norm_rope::{self, Angles, HeadNorm, Rotation};
use kernels::ops::{attention, embedding, kv_store, matmul, rms_norm, swiglu};

use crate::config::ModelConfig;
use crate::error::EngineError;
use crate::weights::{Layer, Weights};

/// A model ready to run: borrowed weights on a device.
#[derive(Clone, Copy)]
pub struct Qwen3<'a> {
    /// The device.
    pub cpu: &'a Cpu,
    /// Shapes and constants.
    pub config: &'a ModelConfig,
    /// The weights.
    pub weights: &'a Weights,
}

/// Queries and keys of one piece, shown to a [`Tap`] before and after RoPE.
pub struct Heads<'a> {
    /// Queries, `(n, n_heads, head_dim)`.
    pub q: &'a [f32],
    /// Keys, `(n, n_kv_heads, head_dim)`.
    pub k: &'a [f32],
}

/// A look at the queries and keys of a layer; scoring uses it.
pub trait Tap {
    /// Whether [`Tap::before_rope`] is wanted, which takes a pass over the heads of its own.
    fn wants_unrotated(&self) -> bool;
    /// After the q/k norm, before RoPE; not called unless wanted.
    fn before_rope(&mut self, heads: &Heads<'_>);
    /// After RoPE.
    fn after_rope(&mut self, heads: &Heads<'_>);
}

/// The tap of an ordinary forward pass.
pub struct NoTap;

impl Tap for NoTap {
    fn wants_unrotated(&self) -> bool {
        false
    }

    fn before_rope(&mut self, _: &Heads<'_>) {}
    fn after_rope(&mut self, _: &Heads<'_>) {}
}

/// The rows of a piece on their way through the layers. Their KV goes to the last `n` of `slots`.
pub struct Rows<'a> {
    /// Hidden state, `(n, hidden)`, updated in place by each layer.
    pub hidden: &'a mut [f32],
    /// Slots of what the rows attend to, in order of position, their own last.
    pub slots: &'a [Slot],
    /// Rotation angles of the rows' positions.
    pub angles: &'a Angles,
}

/// Buffers that a forward pass reuses from layer to layer and piece to piece.
#[derive(Default)]
pub struct Scratch {
    normed: Vec<f32>,
    raw_q: Vec<f32>,
    raw_k: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    heads: Vec<f32>,
    delta: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
}

impl Scratch {
    fn resize(&mut self, n: usize, config: &ModelConfig) {
        let (q_dim, kv_dim) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
        self.normed.resize(n * config.hidden, 0.0);
        self.raw_q.resize(n * q_dim, 0.0);
        self.raw_k.resize(n * kv_dim, 0.0);
        self.q.resize(n * q_dim, 0.0);
        self.k.resize(n * kv_dim, 0.0);
        self.v.resize(n * kv_dim, 0.0);
        self.heads.resize(n * q_dim, 0.0);
        self.delta.resize(n * config.hidden, 0.0);
        self.gate.resize(n * config.ffn, 0.0);
        self.up.resize(n * config.ffn, 0.0);
    }
}

/// Keys and values of every layer, and the buffers of a pass.
pub struct Memory {
    layers: Vec<KvLayer>,
    scratch: Scratch,
    /// Hidden state of the piece that ran last, before the output norm.
    hidden: Vec<f32>,
}

impl Memory {
    /// Layers of `n_slots` slots.
    pub(super) fn new(config: &ModelConfig, dtype: KvDType, n_slots: usize) -> Self {
        let layer = || KvLayer::new(n_slots, config.n_kv_heads, config.head_dim, dtype);
        Self {
            layers: (0..config.n_layers).map(|_| layer()).collect(),
            scratch: Scratch::default(),
            hidden: Vec::new(),
        }
    }
}

/// A model running over one sequence.
pub struct Pass<'a> {
    model: Qwen3<'a>,
    memory: &'a mut Memory,
    slots: Vec<Slot>,
    n_dropped: usize,
}

impl<'a> Pass<'a> {
    pub(super) fn new(model: Qwen3<'a>, memory: &'a mut Memory) -> Self {
        Self { model, memory, slots: Vec::new(), n_dropped: 0 }
    }

    /// Takes up the rows of a sequence.
    pub(super) fn take_up(&mut self, slots: &[Slot], n_dropped: usize) {
        self.slots = slots.to_vec();
        self.n_dropped = n_dropped;
    }

    /// Runs `tokens` at positions `start..` through every layer.
    pub(super) fn run(&mut self, tokens: &[u32], start: usize) -> Result<(), EngineError> {
        let Memory { layers, scratch, hidden } = &mut *self.memory;
        let angles = self.model.angles(start, tokens.len());
        *hidden = self.model.embed(tokens)?;
        let slots = &self.slots[..start - self.n_dropped + tokens.len()];
        let mut rows = Rows { hidden, slots, angles: &angles };
        for (layer, kv) in self.model.weights.layers.iter().zip(layers) {
            self.model.layer(layer, &mut rows, kv, scratch, &mut NoTap);
        }
        Ok(())
    }

    /// Logits of one row of the last piece.
    pub(super) fn logits(&self, row: usize) -> Vec<f32> {
        let width = self.model.config.hidden;
        self.model.logits(&self.memory.hidden[row * width..(row + 1) * width])
    }
}

impl Qwen3<'_> {
    /// Rows of the embedding, `(n, hidden)`.
    ///
    /// # Errors
    /// A token id outside the vocabulary.
    pub fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        let mut hidden = vec![0.0; tokens.len() * self.config.hidden];
        embedding::cpu(self.cpu, tokens, &self.weights.embedding, &mut hidden)
            .map_err(|source| EngineError::Kernel { subject: "embedding".to_owned(), source })?;
        Ok(hidden)
    }

    /// Rotation angles of positions `start..start + n`.
    pub fn angles(&self, start: usize, n: usize) -> Angles {
        Angles::new(self.config.head_dim, self.config.rope_theta, start, n)
    }

    /// One layer over one piece.
    pub fn layer(
        &self,
        layer: &Layer,
        rows: &mut Rows<'_>,
        kv: &mut KvLayer,
        scratch: &mut Scratch,
        tap: &mut dyn Tap,
    ) {
        self.project(layer, rows, scratch, tap);
        self.attend(layer, rows, kv, scratch);
    }

    /// The part of a layer that a [`Tap`] looks at: queries, keys and values of one piece, in `scratch`.
    pub fn project(&self, layer: &Layer, rows: &Rows<'_>, scratch: &mut Scratch, tap: &mut dyn Tap) {
        let (cpu, config) = (self.cpu, self.config);
        let Rows { hidden, angles, .. } = rows;
        scratch.resize(hidden.len() / config.hidden, config);
        let s = scratch;

        rms_norm::cpu(cpu, hidden, &layer.attn_norm, config.rms_eps, &mut s.normed);
        matmul::cpu(cpu, &s.normed, &layer.wq, &mut s.raw_q);
        matmul::cpu(cpu, &s.normed, &layer.wk, &mut s.raw_k);
        matmul::cpu(cpu, &s.normed, &layer.wv, &mut s.v);
        if tap.wants_unrotated() {
            self.heads(layer, Rotation::Off, s);
            tap.before_rope(&Heads { q: &s.q, k: &s.k });
        }
        self.heads(layer, Rotation::By(angles), s);
        tap.after_rope(&Heads { q: &s.q, k: &s.k });
    }

    /// The rest of a layer: attention and what follows it.
    fn attend(&self, layer: &Layer, rows: &mut Rows<'_>, kv: &mut KvLayer, s: &mut Scratch) {
        let (cpu, config) = (self.cpu, self.config);
        let eps = config.rms_eps;
        let Rows { hidden, slots, .. } = rows;
        let own = &slots[slots.len() - hidden.len() / config.hidden..];
        kv_store::cpu(cpu, &s.k, &s.v, own, kv);
        attention::cpu(cpu, &s.q, kv, slots, config.n_heads, &mut s.heads);
        matmul::cpu(cpu, &s.heads, &layer.wo, &mut s.delta);

        rms_norm::add_cpu(cpu, hidden, &s.delta, &layer.ffn_norm, eps, &mut s.normed);
        matmul::cpu(cpu, &s.normed, &layer.w_gate, &mut s.gate);
        matmul::cpu(cpu, &s.normed, &layer.w_up, &mut s.up);
        swiglu::cpu(cpu, &mut s.gate, &s.up);
        matmul::cpu(cpu, &s.gate, &layer.w_down, &mut s.delta);
        for (h, d) in hidden.iter_mut().zip(&s.delta) {
            *h += d;
        }
    }

    /// Queries and keys as attention takes them, from the raw ones in `s`.
    fn heads(&self, layer: &Layer, rotation: Rotation<&Angles>, s: &mut Scratch) {
        let ModelConfig { n_heads, n_kv_heads, rms_eps: eps, .. } = *self.config;
        let q_norm = HeadNorm { n_heads, weight: &layer.q_norm, eps };
        let k_norm = HeadNorm { n_heads: n_kv_heads, weight: &layer.k_norm, eps };
        qk_norm_rope::cpu(self.cpu, &s.raw_q, q_norm, rotation, &mut s.q);
        qk_norm_rope::cpu(self.cpu, &s.raw_k, k_norm, rotation, &mut s.k);
    }

    /// Logits of hidden rows `(n, hidden)`: `(n, vocab)`.
    pub fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        let n = hidden.len() / self.config.hidden;
        let mut normed = vec![0.0; hidden.len()];
        rms_norm::cpu(self.cpu, hidden, &self.weights.output_norm, self.config.rms_eps, &mut normed);
        let mut logits = vec![0.0; n * self.config.vocab];
        matmul::cpu(self.cpu, &normed, self.weights.output(), &mut logits);
        logits
    }
}
