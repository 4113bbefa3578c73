//! The shapes that `synthetic:<name>` can take: the published hyper-parameters of the Qwen3 dense family, and
//! a pair small enough for tests. A table; it makes no weights.

use crate::config::{ARCHITECTURE, ModelConfig};

/// A named shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Name after `synthetic:`.
    pub name: &'static str,
    n_layers: usize,
    hidden: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    ffn: usize,
    /// `None` means the size of the built-in tokenizer.
    vocab: Option<usize>,
    tied: bool,
}

/// Rows of the embedding in every published Qwen3 dense model.
const QWEN3_VOCAB: Option<usize> = Some(151_936);

/// Every shape, smallest first. Source: `config.json` of Qwen/Qwen3-0.6B ... Qwen/Qwen3-32B.
#[rustfmt::skip]
pub const SHAPES: [Shape; 8] = [
    Shape { name: "nano-drafter", n_layers: 2, hidden: 128, n_heads: 2, n_kv_heads: 1, head_dim: 64, ffn: 384, vocab: None, tied: true },
    Shape { name: "nano", n_layers: 4, hidden: 256, n_heads: 4, n_kv_heads: 2, head_dim: 64, ffn: 768, vocab: None, tied: true },
    Shape { name: "qwen3-0.6b", n_layers: 28, hidden: 1024, n_heads: 16, n_kv_heads: 8, head_dim: 128, ffn: 3072, vocab: QWEN3_VOCAB, tied: true },
    Shape { name: "qwen3-1.7b", n_layers: 28, hidden: 2048, n_heads: 16, n_kv_heads: 8, head_dim: 128, ffn: 6144, vocab: QWEN3_VOCAB, tied: true },
    Shape { name: "qwen3-4b", n_layers: 36, hidden: 2560, n_heads: 32, n_kv_heads: 8, head_dim: 128, ffn: 9728, vocab: QWEN3_VOCAB, tied: true },
    Shape { name: "qwen3-8b", n_layers: 36, hidden: 4096, n_heads: 32, n_kv_heads: 8, head_dim: 128, ffn: 12288, vocab: QWEN3_VOCAB, tied: false },
    Shape { name: "qwen3-14b", n_layers: 40, hidden: 5120, n_heads: 40, n_kv_heads: 8, head_dim: 128, ffn: 17408, vocab: QWEN3_VOCAB, tied: false },
    Shape { name: "qwen3-32b", n_layers: 64, hidden: 5120, n_heads: 64, n_kv_heads: 8, head_dim: 128, ffn: 25600, vocab: QWEN3_VOCAB, tied: false },
];

impl Shape {
    /// The shape of that name.
    pub fn named(name: &str) -> Option<Self> {
        SHAPES.into_iter().find(|shape| shape.name == name)
    }

    /// The full configuration, for a tokenizer of `tokenizer_len` entries.
    pub fn config(&self, tokenizer_len: usize) -> ModelConfig {
        ModelConfig {
            architecture: ARCHITECTURE.to_owned(),
            n_layers: self.n_layers,
            hidden: self.hidden,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            ffn: self.ffn,
            vocab: self.vocab.unwrap_or(tokenizer_len),
            context_length: 40_960,
            rope_theta: 1_000_000.0,
            rms_eps: 1e-6,
            tied: self.tied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_shapes_have_the_published_number_of_parameters() {
        // The totals in the safetensors indexes of the published models.
        let published = [
            ("qwen3-0.6b", 596_049_920),
            ("qwen3-1.7b", 1_720_574_976),
            ("qwen3-4b", 4_022_468_096),
            ("qwen3-8b", 8_190_735_360),
            ("qwen3-14b", 14_768_307_200),
            ("qwen3-32b", 32_762_123_264),
        ];
        for (name, expected) in published {
            let shape = Shape::named(name).unwrap();
            assert_eq!(shape.config(1024).parameters(), expected, "{name}");
        }
    }

    #[test]
    fn the_small_pair_takes_its_vocabulary_from_the_tokenizer() {
        for name in ["nano", "nano-drafter"] {
            assert_eq!(Shape::named(name).unwrap().config(777).vocab, 777, "{name}");
        }
        assert!(Shape::named("qwen3-5b").is_none());
    }
}
