//! The Qwen3 dense forward pass; target and drafter both use it.
//!
//! [`cpu`] and [`cuda`] are the same pass in the same words on two devices; this module is the door to both. A model is
//! [`Loaded`] where it runs, a [`Memory`] holds the keys and values of its layers there, and a [`Pass`] runs it over
//! one sequence.

pub mod cpu;
pub mod cuda;

use kernels::kv::{KvDType, Slot};

use crate::config::ModelConfig;
use crate::device::Device;
use crate::error::EngineError;
use crate::sample::Sampler;
use crate::weights::Weights;

/// A model's weights, where it runs.
#[derive(Debug)]
pub enum Loaded {
    /// In memory, as the CPU reads them.
    Cpu(Weights),
    /// On a card.
    Cuda(cuda::Weights),
}

/// Keys and values of every layer, and what a pass reuses from piece to piece, on the device that made it.
#[expect(clippy::large_enum_variant, reason = "an arm has one of it, and never moves it")]
pub enum Memory {
    /// On the CPU.
    Cpu(cpu::Memory),
    /// On a card.
    Cuda(cuda::Memory),
}

impl Memory {
    /// Memory for `n_slots` tokens. On the CPU it is reserved and touched as slots are used; on a card it is taken.
    ///
    /// # Errors
    /// The card has not so much left.
    pub fn new(
        device: &Device,
        config: &ModelConfig,
        dtype: KvDType,
        n_slots: usize,
    ) -> Result<Self, EngineError> {
        Ok(match device.cuda() {
            None => Self::Cpu(cpu::Memory::new(config, dtype, n_slots)),
            Some(cuda) => Self::Cuda(cuda::Memory::new(cuda, config, n_slots)?),
        })
    }
}

/// A loaded model with its shapes and its device.
#[derive(Clone, Copy)]
pub struct Qwen3<'a> {
    /// The device.
    pub device: &'a Device,
    /// Shapes and constants.
    pub config: &'a ModelConfig,
    /// The weights.
    pub weights: &'a Loaded,
}

/// A model running over one sequence. Position and place are two things: `position` turns heads, and the row of a position
/// lies in slot `slots[position - n_dropped]`, where `n_dropped` rows before it are no longer there.
pub enum Pass<'a> {
    /// On the CPU.
    Cpu(cpu::Pass<'a>),
    /// On a card.
    Cuda(cuda::Pass<'a>),
}

impl<'a> Pass<'a> {
    /// A pass that has taken up no sequence yet.
    ///
    /// # Panics
    /// If model and memory are on different devices.
    pub fn new(model: &Qwen3<'a>, memory: &'a mut Memory) -> Self {
        match (model.weights, memory, model.device.cuda()) {
            (Loaded::Cpu(weights), Memory::Cpu(memory), None) => {
                let model = cpu::Qwen3 { cpu: model.device.cpu(), config: model.config, weights };
                Self::Cpu(cpu::Pass::new(model, memory))
            }
            (Loaded::Cuda(weights), Memory::Cuda(memory), Some(cuda)) => {
                let model = cuda::Qwen3 { cuda, config: model.config, weights };
                Self::Cuda(cuda::Pass::new(model, memory))
            }
            _ => unreachable!("weights and KV are where their device put them"),
        }
    }

    /// Takes up a sequence, or goes on with fewer of its rows: those of `slots`, in order of position, with `n_dropped`
    /// rows gone before the next one that runs.
    ///
    /// # Errors
    /// The card failed.
    pub fn take_up(&mut self, slots: &[Slot], n_dropped: usize) -> Result<(), EngineError> {
        match self {
            Self::Cpu(pass) => {
                pass.take_up(slots, n_dropped);
                Ok(())
            }
            Self::Cuda(pass) => pass.take_up(slots, n_dropped),
        }
    }

    /// Runs `tokens` at positions `start..`, writing their KV. Their hidden states stay on the device, for
    /// [`Pass::logits`].
    ///
    /// # Errors
    /// A token id outside the vocabulary; the card failed.
    pub fn run(&mut self, tokens: &[u32], start: usize) -> Result<(), EngineError> {
        match self {
            Self::Cpu(pass) => pass.run(tokens, start),
            Self::Cuda(pass) => pass.run(tokens, start),
        }
    }

    /// Logits after row `row` of the piece that ran last, one for each token of the vocabulary.
    ///
    /// # Errors
    /// The card failed.
    pub fn logits(&mut self, row: usize) -> Result<Vec<f32>, EngineError> {
        match self {
            Self::Cpu(pass) => Ok(pass.logits(row)),
            Self::Cuda(pass) => pass.logits(row),
        }
    }

    /// Runs one generated token at `position` and draws the next.
    ///
    /// # Errors
    /// A logit is not a number; the card failed.
    pub fn decode(&mut self, token: u32, position: usize, sampler: &mut Sampler) -> Result<u32, EngineError> {
        match self {
            Self::Cpu(pass) => {
                pass.run(&[token], position)?;
                sampler.sample(&pass.logits(0))
            }
            Self::Cuda(pass) => pass.decode(token, position, sampler),
        }
    }
}
