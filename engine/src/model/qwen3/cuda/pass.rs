//! One sequence through a model on a card: pieces of the prompt, then token after token.

use kernels::KernelError;
use kernels::device::cuda::Graph;
use kernels::kv::Slot;
use kernels::ops::{argmax, attention, embedding};

use crate::error::EngineError;
use crate::model::qwen3::cuda::{Attention, Memory, Place, Qwen3};
use crate::sample::{Sampler, Sampling};

/// A model running over one sequence.
pub struct Pass<'a> {
    model: Qwen3<'a>,
    memory: &'a mut Memory,
    n_dropped: usize,
}

fn failed(source: KernelError) -> EngineError {
    EngineError::Device { source }
}

impl<'a> Pass<'a> {
    pub(in crate::model::qwen3) fn new(model: Qwen3<'a>, memory: &'a mut Memory) -> Self {
        Self { model, memory, n_dropped: 0 }
    }

    /// Brings the slots of a sequence to the card.
    pub(in crate::model::qwen3) fn take_up(
        &mut self,
        slots: &[Slot],
        n_dropped: usize,
    ) -> Result<(), EngineError> {
        self.n_dropped = n_dropped;
        self.memory.begin(self.model.config, slots, slots.len() + n_dropped).map_err(failed)
    }

    /// Runs `tokens` at positions `position..` through every layer.
    pub(in crate::model::qwen3) fn run(
        &mut self,
        tokens: &[u32],
        position: usize,
    ) -> Result<(), EngineError> {
        self.model.check(tokens)?;
        let start = position - self.n_dropped;
        let placed = self.memory.place(tokens, position, start);
        placed.and_then(|()| self.launch_piece(tokens.len(), start)).map_err(failed)
    }

    fn launch_piece(&mut self, n: usize, start: usize) -> Result<(), KernelError> {
        let Qwen3 { cuda, config, weights } = self.model;
        let Memory { layers, slots, angles, position, start: first, tokens, hidden, prefill, .. } =
            &mut *self.memory;
        let place = Place {
            n,
            position: position.view(),
            start: first.view(),
            slots: slots.view(),
            angles: angles.view(),
            attention: Attention::Prefill(start),
        };
        if let Some(kv) = layers.first() {
            let needed = attention::prefill::scratch_len(n, start + n, config.n_heads, kv);
            prefill.reserve_splits(cuda, needed)?;
        }
        let mut hidden = hidden.slice_mut(0..n * config.hidden);
        embedding::cuda(cuda, tokens.slice(0..n), &weights.embedding, hidden.reborrow())?;
        for (layer, kv) in weights.layers.iter().zip(layers) {
            self.model.layer(layer, place, kv, &mut hidden, prefill)?;
        }
        Ok(())
    }

    /// Logits of one row of the last piece.
    pub(in crate::model::qwen3) fn logits(&mut self, row: usize) -> Result<Vec<f32>, EngineError> {
        let Memory { hidden, decode, logits, .. } = &mut *self.memory;
        let width = self.model.config.hidden;
        let hidden = hidden.slice(row * width..(row + 1) * width);
        self.model.logits(hidden, &mut decode.normed, logits).map_err(failed)?;
        logits.read().map_err(failed)
    }

    /// Runs one generated token at `position` and draws the next.
    pub(in crate::model::qwen3) fn decode(
        &mut self,
        token: u32,
        position: usize,
        sampler: &mut Sampler,
    ) -> Result<u32, EngineError> {
        self.model.check(&[token])?;
        self.run_recorded(token, position).map_err(failed)?;
        match sampler.sampling() {
            Sampling::Greedy => {
                let mut best = [0];
                self.memory.best.read_into(&mut best).map_err(failed)?;
                sampler.accept(best[0], self.model.config.vocab)
            }
            Sampling::Seeded { .. } => sampler.sample(&self.memory.logits.read().map_err(failed)?),
        }
    }

    /// Runs the recorded launches of one token, recording them first where they are not yet, or where memory that they
    /// used is gone: weights that were parked.
    fn run_recorded(&mut self, token: u32, position: usize) -> Result<(), KernelError> {
        self.memory.place(&[token], position, position - self.n_dropped)?;
        let graph = match self.memory.graph.take().filter(Graph::is_valid) {
            Some(graph) => graph,
            None => self.record()?,
        };
        let outcome = graph.run();
        self.memory.graph = Some(graph);
        outcome
    }

    /// Records the launches of one token. They run once before: the driver loads a kernel when it is first launched, which
    /// it cannot do while it records. Running a token twice changes nothing.
    fn record(&mut self) -> Result<Graph, KernelError> {
        self.launch_token()?;
        let cuda = self.model.cuda;
        cuda.capture(|| self.launch_token())
    }

    /// One generated token through every layer, to its logits and the likeliest next one.
    fn launch_token(&mut self) -> Result<(), KernelError> {
        let model = self.model;
        let memory = &mut *self.memory;
        let place = Place {
            n: 1,
            position: memory.position.view(),
            start: memory.start.view(),
            slots: memory.slots.view(),
            angles: memory.angles.view(),
            attention: Attention::Decode,
        };
        let token = memory.tokens.slice(0..1);
        let mut hidden = memory.decode_hidden.view_mut();
        embedding::cuda(model.cuda, token, &model.weights.embedding, hidden.reborrow())?;
        for (layer, kv) in model.weights.layers.iter().zip(&mut memory.layers) {
            model.layer(layer, place, kv, &mut hidden, &mut memory.decode)?;
        }
        model.logits(hidden.view(), &mut memory.decode.normed, &mut memory.logits)?;
        argmax::cuda(model.cuda, memory.logits.view(), memory.scratch.view_mut(), memory.best.view_mut())
    }
}
