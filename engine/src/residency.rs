//! Which model holds memory. A model is resident when its weights are loaded, parked when they were dropped; loading
//! reads the files again, as a card without room for both models must.

use kernels::dtype::DType;
use kernels::kv::KvDType;

use crate::device::Device;
use crate::error::EngineError;
use crate::model::qwen3::{Loaded, Qwen3};
use crate::model_source::{Model, ModelSource};

/// A model and, while it is resident, its weights.
pub struct Resident {
    model: Model,
    weights: Option<Loaded>,
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

    /// Reads the weights to the device, unless they are there.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load(&mut self, device: &Device) -> Result<(), EngineError> {
        if self.weights.is_none() {
            self.weights = Some(self.model.load(device)?);
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
    pub fn on<'a>(&'a self, device: &'a Device) -> Result<Qwen3<'a>, EngineError> {
        let weights = self.weights.as_ref().ok_or_else(|| EngineError::Parked(self.model.name.clone()))?;
        Ok(Qwen3 { device, config: &self.model.config, weights })
    }

    /// Element type of this model's KV cache. On the CPU BF16 where its key projection is BF16 (that precision is already
    /// that of the activations), F32 for every other weight type; on a card, whose activations are BF16 for any
    /// weights, BF16. So caching never costs precision.
    pub fn kv_dtype(&self, device: &Device) -> KvDType {
        match (device.cuda(), self.model.matrix_dtype()) {
            (Some(_), _) | (None, DType::BF16) => KvDType::BF16,
            (None, _) => KvDType::F32,
        }
    }
}
