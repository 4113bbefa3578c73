//! Seeded random weights of a named shape: true timing without a download. Deterministic on every machine:
//! each element is a pure function of schema, tensor name, row and column. It knows no file.
//!
//! The distributions make errors loud rather than look like a trained model: projections have standard
//! deviation `1/sqrt(fan_in)` (half of it on the two that write to the residual stream), norms `1 ± 0.2`,
//! query and key norms `1.4 ± 0.2` (peaky attention), embedding and output `2/sqrt(hidden)` (logits with
//! standard deviation near 2).

use std::borrow::Cow;
use std::num::NonZeroUsize;

use kernels::device::Cpu;
use kernels::dtype::DType;
use kernels::ops::synthetic::{self, Fill};

use crate::config::ModelConfig;
use crate::error::EngineError;
use crate::tensors::{LayerTensor, TensorId};
use crate::weights::{StoredTensor, TensorSource};

/// Changes whenever the same name would give other weights; part of the model's digest.
pub(crate) const SCHEMA: &str = "reprise synthetic weights 1";

/// Makes the tensors of a shape.
#[derive(Clone, Debug)]
pub(crate) struct SyntheticTensors {
    pub name: &'static str,
    pub config: ModelConfig,
}

impl TensorSource for SyntheticTensors {
    fn dtype(&self, _: TensorId) -> DType {
        DType::BF16
    }

    fn fill(&self, id: TensorId) -> Option<Fill> {
        let (mean, deviation) = distribution(id, &self.config);
        let key = blake3::hash(format!("{SCHEMA}/{}/{}", self.name, id.safetensors_name()).as_bytes());
        let seed = key.as_bytes().iter().take(8).fold(0, |seed, &byte| (seed << 8) | u64::from(byte));
        Some(Fill { seed, mean, deviation })
    }

    fn tensor(&self, id: TensorId) -> Result<StoredTensor<'_>, EngineError> {
        let shape = id.shape(&self.config);
        let columns = shape.last().copied().unwrap_or(1);
        let mut bytes = vec![0; shape.iter().product::<usize>() * 2];
        if let Some(fill) = self.fill(id) {
            // Tensors are read side by side, one a thread.
            synthetic::cpu(&Cpu::new(Some(NonZeroUsize::MIN)), fill, columns, &mut bytes);
        }
        Ok(StoredTensor { name: id.safetensors_name(), dtype: DType::BF16, bytes: Cow::Owned(bytes) })
    }
}

/// Mean and standard deviation of a tensor's elements.
fn distribution(id: TensorId, config: &ModelConfig) -> (f32, f32) {
    let fan_in = |width: usize| 1.0 / (width as f32).sqrt();
    match id {
        TensorId::Embedding | TensorId::Output => (0.0, 2.0 * fan_in(config.hidden)),
        TensorId::OutputNorm => (1.0, 0.2),
        TensorId::Layer(_, tensor) => match tensor {
            LayerTensor::AttnNorm | LayerTensor::FfnNorm => (1.0, 0.2),
            LayerTensor::QNorm | LayerTensor::KNorm => (1.4, 0.2),
            LayerTensor::Wo => (0.0, 0.5 * fan_in(config.n_heads * config.head_dim)),
            LayerTensor::WDown => (0.0, 0.5 * fan_in(config.ffn)),
            LayerTensor::Wq | LayerTensor::Wk | LayerTensor::Wv | LayerTensor::WGate | LayerTensor::WUp => {
                (0.0, fan_in(config.hidden))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::shapes::Shape;

    fn nano() -> SyntheticTensors {
        SyntheticTensors { name: "nano", config: Shape::named("nano").unwrap().config(1024) }
    }

    fn values(id: TensorId) -> Vec<f32> {
        let source = nano();
        let stored = source.tensor(id).unwrap();
        stored.bytes.chunks_exact(2).map(|pair| bf16::from_le_bytes([pair[0], pair[1]]).to_f32()).collect()
    }

    #[test]
    fn elements_have_the_documented_mean_and_deviation() {
        let config = nano().config;
        for id in TensorId::all(&config) {
            let values = values(id);
            let (mean, deviation) = distribution(id, &config);
            let n = values.len() as f64;
            let got_mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / n;
            let variance = values.iter().map(|&value| (f64::from(value) - got_mean).powi(2)).sum::<f64>() / n;
            // Five standard errors of a sample of this size.
            let slack = 5.0 / n.sqrt();
            assert!(
                (got_mean - f64::from(mean)).abs() < slack * f64::from(deviation),
                "{id:?}: mean {got_mean}"
            );
            assert!((variance.sqrt() / f64::from(deviation) - 1.0).abs() < slack, "{id:?}: {variance}");
        }
    }

    #[test]
    fn tensors_rows_and_models_differ_and_repeat() {
        let id = TensorId::Layer(1, LayerTensor::Wq);
        let first = values(id);
        assert_eq!(first, values(id));
        assert_ne!(first, values(TensorId::Layer(2, LayerTensor::Wq)));
        assert_ne!(first[..256], first[256..512]);
        let other = SyntheticTensors { name: "other", ..nano() };
        assert_ne!(other.tensor(id).unwrap().bytes, nano().tensor(id).unwrap().bytes);
    }

    /// The first numbers of one tensor, so that a change of the generator cannot pass unseen: it needs a new
    /// `SCHEMA`.
    #[test]
    fn the_generator_is_pinned() {
        let first: Vec<u32> = values(TensorId::Embedding)[..4].iter().map(|value| value.to_bits()).collect();
        assert_eq!(first, PINNED);
    }

    const PINNED: [u32; 4] = [0x3C79_0000, 0xBD1C_0000, 0xBDE5_0000, 0x3C0B_0000];
}
