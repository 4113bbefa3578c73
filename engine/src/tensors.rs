//! The list of tensors that a Qwen3 dense model of given sizes consists of: their names in both formats and
//! their shapes. It reads nothing.

use crate::config::ModelConfig;

/// One tensor of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorId {
    /// Token embedding, `[vocab, hidden]`.
    Embedding,
    /// Final norm, `[hidden]`.
    OutputNorm,
    /// Output matrix, `[vocab, hidden]`; absent in tied models.
    Output,
    /// A tensor of one block.
    Layer(usize, LayerTensor),
}

/// The tensors of one block, in the order in which the forward pass uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerTensor {
    /// Norm before attention, `[hidden]`.
    AttnNorm,
    /// Query projection, `[n_heads * head_dim, hidden]`.
    Wq,
    /// Key projection, `[n_kv_heads * head_dim, hidden]`.
    Wk,
    /// Value projection, `[n_kv_heads * head_dim, hidden]`.
    Wv,
    /// Per-head norm of the queries, `[head_dim]`.
    QNorm,
    /// Per-head norm of the keys, `[head_dim]`.
    KNorm,
    /// Attention output projection, `[hidden, n_heads * head_dim]`.
    Wo,
    /// Norm before the feed-forward layer, `[hidden]`.
    FfnNorm,
    /// Gate projection, `[ffn, hidden]`.
    WGate,
    /// Up projection, `[ffn, hidden]`.
    WUp,
    /// Down projection, `[hidden, ffn]`.
    WDown,
}

/// Every tensor of a block.
pub const LAYER_TENSORS: [LayerTensor; 11] = [
    LayerTensor::AttnNorm,
    LayerTensor::Wq,
    LayerTensor::Wk,
    LayerTensor::Wv,
    LayerTensor::QNorm,
    LayerTensor::KNorm,
    LayerTensor::Wo,
    LayerTensor::FfnNorm,
    LayerTensor::WGate,
    LayerTensor::WUp,
    LayerTensor::WDown,
];

impl TensorId {
    /// Every tensor of a model, embedding first, blocks in order.
    pub fn all(config: &ModelConfig) -> Vec<Self> {
        let mut all = vec![Self::Embedding];
        for layer in 0..config.n_layers {
            all.extend(LAYER_TENSORS.map(|tensor| Self::Layer(layer, tensor)));
        }
        all.push(Self::OutputNorm);
        if !config.tied {
            all.push(Self::Output);
        }
        all
    }

    /// Shape, rows (outputs) first; norms have one dimension.
    pub fn shape(self, config: &ModelConfig) -> Vec<usize> {
        let (hidden, ffn) = (config.hidden, config.ffn);
        let (q_width, kv_width) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
        match self {
            Self::Embedding | Self::Output => vec![config.vocab, hidden],
            Self::OutputNorm => vec![hidden],
            Self::Layer(_, tensor) => match tensor {
                LayerTensor::AttnNorm | LayerTensor::FfnNorm => vec![hidden],
                LayerTensor::QNorm | LayerTensor::KNorm => vec![config.head_dim],
                LayerTensor::Wq => vec![q_width, hidden],
                LayerTensor::Wk | LayerTensor::Wv => vec![kv_width, hidden],
                LayerTensor::Wo => vec![hidden, q_width],
                LayerTensor::WGate | LayerTensor::WUp => vec![ffn, hidden],
                LayerTensor::WDown => vec![hidden, ffn],
            },
        }
    }

    /// Name in a GGUF file.
    pub fn gguf_name(self) -> String {
        let (layer, tensor) = match self {
            Self::Embedding => return "token_embd.weight".to_owned(),
            Self::OutputNorm => return "output_norm.weight".to_owned(),
            Self::Output => return "output.weight".to_owned(),
            Self::Layer(layer, tensor) => (layer, tensor),
        };
        let tensor = match tensor {
            LayerTensor::AttnNorm => "attn_norm",
            LayerTensor::Wq => "attn_q",
            LayerTensor::Wk => "attn_k",
            LayerTensor::Wv => "attn_v",
            LayerTensor::QNorm => "attn_q_norm",
            LayerTensor::KNorm => "attn_k_norm",
            LayerTensor::Wo => "attn_output",
            LayerTensor::FfnNorm => "ffn_norm",
            LayerTensor::WGate => "ffn_gate",
            LayerTensor::WUp => "ffn_up",
            LayerTensor::WDown => "ffn_down",
        };
        format!("blk.{layer}.{tensor}.weight")
    }

    /// Name in a safetensors file.
    pub fn safetensors_name(self) -> String {
        let (layer, tensor) = match self {
            Self::Embedding => return "model.embed_tokens.weight".to_owned(),
            Self::OutputNorm => return "model.norm.weight".to_owned(),
            Self::Output => return "lm_head.weight".to_owned(),
            Self::Layer(layer, tensor) => (layer, tensor),
        };
        let tensor = match tensor {
            LayerTensor::AttnNorm => "input_layernorm",
            LayerTensor::Wq => "self_attn.q_proj",
            LayerTensor::Wk => "self_attn.k_proj",
            LayerTensor::Wv => "self_attn.v_proj",
            LayerTensor::QNorm => "self_attn.q_norm",
            LayerTensor::KNorm => "self_attn.k_norm",
            LayerTensor::Wo => "self_attn.o_proj",
            LayerTensor::FfnNorm => "post_attention_layernorm",
            LayerTensor::WGate => "mlp.gate_proj",
            LayerTensor::WUp => "mlp.up_proj",
            LayerTensor::WDown => "mlp.down_proj",
        };
        format!("model.layers.{layer}.{tensor}.weight")
    }
}
