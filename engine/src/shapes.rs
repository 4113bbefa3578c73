//! The shapes that `synthetic:<name>` can take: the published hyper-parameters of the Qwen3 dense family, and
//! small ones: a pair for tests, and a target that a CPU replays whole sessions on. A table; it makes no weights.

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

/// The size of the built-in tokenizer, whatever it is.
const FROM_TOKENIZER: Option<usize> = None;
/// Rows of the embedding in every published Qwen3 dense model.
const QWEN3: Option<usize> = Some(151_936);

/// Every shape, smallest first. Source: `config.json` of Qwen/Qwen3-0.6B ... Qwen/Qwen3-32B.
pub const SHAPES: [Shape; 9] = [
    //                   layers, hidden, heads, KV heads, head width, ffn
    tied("nano-drafter", [2, 128, 2, 1, 64, 384], FROM_TOKENIZER),
    tied("nano", [4, 256, 4, 2, 64, 768], FROM_TOKENIZER),
    tied("mini", [8, 512, 8, 4, 64, 1536], FROM_TOKENIZER),
    tied("qwen3-0.6b", [28, 1024, 16, 8, 128, 3072], QWEN3),
    tied("qwen3-1.7b", [28, 2048, 16, 8, 128, 6144], QWEN3),
    tied("qwen3-4b", [36, 2560, 32, 8, 128, 9728], QWEN3),
    untied("qwen3-8b", [36, 4096, 32, 8, 128, 12_288], QWEN3),
    untied("qwen3-14b", [40, 5120, 40, 8, 128, 17_408], QWEN3),
    untied("qwen3-32b", [64, 5120, 64, 8, 128, 25_600], QWEN3),
];

/// A shape whose output matrix is its embedding.
const fn tied(name: &'static str, sizes: [usize; 6], vocab: Option<usize>) -> Shape {
    let [n_layers, hidden, n_heads, n_kv_heads, head_dim, ffn] = sizes;
    Shape { name, n_layers, hidden, n_heads, n_kv_heads, head_dim, ffn, vocab, tied: true }
}

/// A shape with an output matrix of its own.
const fn untied(name: &'static str, sizes: [usize; 6], vocab: Option<usize>) -> Shape {
    Shape { tied: false, ..tied(name, sizes, vocab) }
}

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
    fn small_shapes_take_their_vocabulary_from_the_tokenizer() {
        for name in ["nano", "nano-drafter", "mini"] {
            assert_eq!(Shape::named(name).unwrap().config(777).vocab, 777, "{name}");
        }
        assert!(Shape::named("qwen3-5b").is_none());
    }

    #[test]
    fn the_small_target_for_whole_sessions_is_over_twenty_times_the_small_drafter() {
        let parameters = |name: &str| Shape::named(name).unwrap().config(4096).parameters();
        assert!(parameters("mini") > 20 * parameters("nano-drafter"));
    }
}
