//! How far the answer to a changed prompt is from the answer to the original one: next-token distributions under both,
//! teacher-forced over an action that is given. Never zero for a compressed prompt, and a question of its own: that a cached
//! prompt equals the same prompt cold is exactness, which `Verify` checks. Knows no arm and no record.

use std::collections::BTreeMap;
use std::sync::Arc;

use transcripts::message::Message;

use crate::chat::{Generation, Thinking};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::kv::eviction::EvictionPlan;

/// Most tokens of an action that are compared; each takes one row of logits of both prompts.
pub const ACTION_TOKENS_MAX: usize = 128;
/// Most memory that [`Originals`] keep.
pub const ORIGINALS_BYTES_MAX: usize = 512 << 20;

/// Distances over the tokens of one action, from the original prompt's distributions to the changed prompt's.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionFidelity {
    /// KL divergence at each token of the action that was compared, its ending token included, nats; never empty.
    pub kl: Vec<f64>,
    /// Share of tokens at which both have the same likeliest next token.
    pub argmax_agreement: f64,
}

/// Two prompts that lead to the same recorded action.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// The prompt as recorded.
    pub original: &'a [&'a Message],
    /// The prompt as sent.
    pub sent: &'a [&'a Message],
    /// Tool definitions of both.
    pub tools: &'a [serde_json::Value],
    /// The recorded turn.
    pub action: &'a Message,
    /// The rows that the sent prompt drops.
    pub evictions: &'a EvictionPlan,
}

/// Rows of logits, `(n, vocab)`.
type Rows = Arc<Vec<Vec<f32>>>;

/// Logits of original prompts, kept because every arm is compared with the same ones. What does not fit any more is
/// computed each time it is asked for: arms ask for all prompts in the same order, so that making room for the newest would
/// drop each one just before it is needed.
#[derive(Default)]
pub struct Originals {
    rows: BTreeMap<Vec<u32>, Rows>,
    bytes: usize,
}

impl Originals {
    /// The rows of these tokens, kept or else computed.
    fn rows<E>(
        &mut self,
        tokens: Vec<u32>,
        compute: impl FnOnce(&[u32]) -> Result<Vec<Vec<f32>>, E>,
    ) -> Result<Rows, E> {
        if let Some(rows) = self.rows.get(&tokens) {
            return Ok(Arc::clone(rows));
        }
        let rows = Arc::new(compute(&tokens)?);
        let n_logits: usize = rows.iter().map(Vec::len).sum();
        let bytes = size_of::<f32>() * n_logits + size_of::<u32>() * tokens.len();
        if self.bytes + bytes <= ORIGINALS_BYTES_MAX {
            self.bytes += bytes;
            self.rows.insert(tokens, Arc::clone(&rows));
        }
        Ok(rows)
    }
}

/// Runs the sent prompt with the action through the target from an empty cache, and the original one unless `originals` hold
/// it. `None` where the template does not render the action as an extension of the prompt: its tokens would not stand where
/// the model writes.
///
/// # Errors
/// The template refuses, or a prompt with the action is longer than the context.
pub fn measure(
    engine: &Engine,
    originals: &mut Originals,
    comparison: &Comparison<'_>,
) -> Result<Option<ActionFidelity>, EngineError> {
    let Some(action) = action_tokens(engine, comparison)? else { return Ok(None) };
    // The last token of the action predicts what comes after it, which nobody asks for.
    let forced = &action[..action.len() - 1];
    let tokens = |messages: &[&Message]| -> Result<Vec<u32>, EngineError> {
        let model = engine.target().model();
        let text = model.chat.render(messages, comparison.tools, Generation::Prompt, Thinking::Default)?;
        let mut tokens = model.tokenizer.encode(&text)?;
        tokens.extend(forced);
        Ok(tokens)
    };
    let first = |tokens: &[u32]| tokens.len() - action.len();
    let whole = |tokens: &[u32]| engine.logits(tokens, first(tokens));
    let original = originals.rows(tokens(comparison.original)?, whole)?;
    let sent = tokens(comparison.sent)?;
    let sent = engine.logits_under(&sent, comparison.evictions, first(&sent))?;
    Ok(Some(compare(&original, &sent)))
}

/// The action as the model would write it, up to its ending token.
fn action_tokens(engine: &Engine, comparison: &Comparison<'_>) -> Result<Option<Vec<u32>>, EngineError> {
    let model = engine.target().model();
    let render = |messages: &[&Message], generation| {
        model.chat.render(messages, comparison.tools, generation, Thinking::Default)
    };
    let prompt = render(comparison.original, Generation::Prompt)?;
    let with_action = [comparison.original, &[comparison.action]].concat();
    let whole = render(&with_action, Generation::None)?;
    let Some(text) = whole.strip_prefix(prompt.as_str()) else { return Ok(None) };
    let mut tokens = model.tokenizer.encode(text)?;
    let eos = model.tokenizer.eos_ids();
    if let Some(end) = tokens.iter().position(|token| eos.contains(token)) {
        tokens.truncate(end + 1);
    }
    tokens.truncate(ACTION_TOKENS_MAX);
    Ok((!tokens.is_empty()).then_some(tokens))
}

/// Distances between rows of logits, `(n, vocab)` each. Sums run in f64 from left to right.
///
/// # Panics
/// There is no row, or the two sides differ in shape.
pub fn compare(original: &[Vec<f32>], sent: &[Vec<f32>]) -> ActionFidelity {
    assert!(!original.is_empty() && original.len() == sent.len(), "one row per token on both sides");
    let kl: Vec<f64> = original.iter().zip(sent).map(|(from, to)| divergence(from, to)).collect();
    let n_same = original.iter().zip(sent).filter(|(from, to)| likeliest(from) == likeliest(to)).count();
    ActionFidelity { argmax_agreement: n_same as f64 / kl.len() as f64, kl }
}

/// `sum_i p_i (ln p_i - ln q_i)` with `p = softmax(from)` and `q = softmax(to)`, nats. Not below 0: what rounding takes
/// under it counts as 0.
fn divergence(from: &[f32], to: &[f32]) -> f64 {
    assert_eq!(from.len(), to.len(), "one vocabulary");
    let (p, q) = (log_softmax(from), log_softmax(to));
    let terms = p.iter().zip(&q).map(|(p, q)| if *p == f64::NEG_INFINITY { 0.0 } else { p.exp() * (p - q) });
    terms.sum::<f64>().max(0.0)
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = logits.iter().map(|&x| f64::from(x) - f64::from(most));
    let total = shifted.clone().map(f64::exp).sum::<f64>().ln();
    shifted.map(|x| x - total).collect()
}

/// Index of the largest logit; of equal ones the first.
fn likeliest(logits: &[f32]) -> usize {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rows_are_at_no_distance() {
        let rows = vec![vec![0.5, -1.0, 3.0], vec![f32::NEG_INFINITY, 0.0, 1.0]];
        assert_eq!(compare(&rows, &rows), ActionFidelity { kl: vec![0.0, 0.0], argmax_agreement: 1.0 });
    }

    #[test]
    fn the_distance_is_the_divergence_of_the_first_from_the_second() {
        // p = (3/4, 1/4), q = (1/4, 3/4): KL = 3/4 ln 3 - 1/4 ln 3 = ln(3) / 2.
        let (from, to) = (vec![3_f32.ln(), 0.0], vec![0.0, 3_f32.ln()]);
        let far = compare(std::slice::from_ref(&from), &[to]);
        assert!((far.kl[0] - 3_f64.ln() / 2.0).abs() < 1e-7, "{far:?}");
        assert_eq!(far.argmax_agreement, 0.0);
        let half = compare(&[from.clone(), from.clone()], &[from.clone(), vec![9.0, 0.0]]);
        assert!(half.kl[0] == 0.0 && half.kl[1] > 0.0 && half.argmax_agreement == 1.0);
    }

    #[test]
    fn originals_are_computed_once_and_only_what_fits_is_kept() {
        let mut originals = Originals::default();
        let small = |_: &[u32]| Ok::<_, ()>(vec![vec![1.0, 2.0]]);
        let never = |_: &[u32]| Err(());
        assert_eq!(originals.rows(vec![1, 2], small).as_deref(), Ok(&vec![vec![1.0, 2.0]]));
        assert_eq!(originals.rows(vec![1, 2], never).as_deref(), Ok(&vec![vec![1.0, 2.0]]));
        assert_eq!(originals.rows(vec![1, 3], never), Err(()), "other tokens have other rows");
        originals.bytes = ORIGINALS_BYTES_MAX;
        assert!(originals.rows(vec![4], small).is_ok());
        assert_eq!(originals.rows(vec![4], never), Err(()), "there was no room for it");
    }
}
