//! Which model holds memory. A model is resident when its weights are loaded, parked when they were dropped; loading
//! reads the files again, as a card without room for both models must.

use kernels::device::Cpu;
use kernels::dtype::DType;
use kernels::kv::KvDType;

use crate::error::EngineError;
use crate::model::qwen3::Qwen3;
use crate::model_source::{Model, ModelSource};
use crate::weights::Weights;

/// A model and, while it is resident, its weights.
pub struct Resident {
    model: Model,
    weights: Option<Weights>,
}

impl Resident {
    /// Opens a model without loading its weights.
    ///
    /// # Errors
    /// As [`ModelSource::open`].
    pub fn open(source: &ModelSource) -> Result<Self, EngineError> {
        Ok(Self { model: source.open()?, weights: None })
    }

    /// The model's description, tokenizer and template; there whether or not it is loaded.
    pub const fn model(&self) -> &Model {
        &self.model
    }

    /// Whether the weights are in memory.
    pub const fn is_loaded(&self) -> bool {
        self.weights.is_some()
    }

    /// Reads the weights, unless they are in memory.
    ///
    /// # Errors
    /// As [`Model::load_weights`].
    pub fn load(&mut self, cpu: &Cpu) -> Result<(), EngineError> {
        if self.weights.is_none() {
            self.weights = Some(self.model.load_weights(cpu)?);
        }
        Ok(())
    }

    /// Drops the weights.
    pub fn park(&mut self) {
        self.weights = None;
    }

    /// The model, ready to run.
    ///
    /// # Errors
    /// The model is parked.
    pub fn on<'a>(&'a self, cpu: &'a Cpu) -> Result<Qwen3<'a>, EngineError> {
        let weights = self.weights.as_ref().ok_or_else(|| EngineError::Parked(self.model.name.clone()))?;
        Ok(Qwen3 { cpu, config: &self.model.config, weights })
    }

    /// Element type of this model's KV cache: BF16 where its key projection is BF16 (that precision is already that of
    /// the activations), F32 for every other weight type, so that caching never costs precision.
    pub fn kv_dtype(&self) -> KvDType {
        match self.model.matrix_dtype() {
            DType::BF16 => KvDType::BF16,
            _ => KvDType::F32,
        }
    }
}
