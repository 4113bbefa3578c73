//! How far the answer to a changed prompt is from the answer to the original one: next-token distributions under both,
//! teacher-forced over an action that is given. Never zero for a compressed prompt, and a question of its own: that a cached
//! prompt equals the same prompt cold is exactness, which `Verify` checks. Knows no arm and no record.

use transcripts::message::Message;

use crate::chat::{Generation, Thinking};
use crate::engine::Engine;
use crate::error::EngineError;

/// Most tokens of an action that are compared; each takes one row of logits of both prompts.
pub const ACTION_TOKENS_MAX: usize = 128;

/// Distances over the tokens of one action, from the original prompt's distributions to the changed prompt's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActionFidelity {
    /// Tokens of the action that were compared, its ending token included.
    pub n_tokens: usize,
    /// KL divergence at the first token, nats.
    pub kl_first: f64,
    /// Mean KL divergence over the tokens, nats.
    pub kl_mean: f64,
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
}

/// Runs both prompts with the action through the target, each from an empty cache. `None` where the template does not
/// render the action as an extension of the prompt: its tokens would not stand where the model writes.
///
/// # Errors
/// The template refuses, or a prompt with the action is longer than the context.
pub fn measure(engine: &Engine, comparison: &Comparison<'_>) -> Result<Option<ActionFidelity>, EngineError> {
    let Some(action) = action_tokens(engine, comparison)? else { return Ok(None) };
    let rows = |messages: &[&Message]| {
        let model = engine.target().model();
        let text = model.chat.render(messages, comparison.tools, Generation::Prompt, Thinking::Default)?;
        let mut tokens = model.tokenizer.encode(&text)?;
        let first = tokens.len() - 1;
        tokens.extend(&action[..action.len() - 1]);
        engine.logits(&tokens, first)
    };
    Ok(Some(compare(&rows(comparison.original)?, &rows(comparison.sent)?)))
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
    let n_tokens = kl.len();
    ActionFidelity {
        n_tokens,
        kl_first: kl[0],
        kl_mean: kl.iter().sum::<f64>() / n_tokens as f64,
        argmax_agreement: n_same as f64 / n_tokens as f64,
    }
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
        let same = compare(&rows, &rows);
        assert_eq!((same.kl_first, same.kl_mean, same.argmax_agreement, same.n_tokens), (0.0, 0.0, 1.0, 2));
    }

    #[test]
    fn the_distance_is_the_divergence_of_the_first_from_the_second() {
        // p = (3/4, 1/4), q = (1/4, 3/4): KL = 3/4 ln 3 - 1/4 ln 3 = ln(3) / 2.
        let (from, to) = (vec![3_f32.ln(), 0.0], vec![0.0, 3_f32.ln()]);
        let far = compare(std::slice::from_ref(&from), &[to]);
        assert!((far.kl_first - 3_f64.ln() / 2.0).abs() < 1e-7, "{far:?}");
        assert_eq!(far.argmax_agreement, 0.0);
        let half = compare(&[from.clone(), from.clone()], &[from.clone(), vec![9.0, 0.0]]);
        assert!(half.kl_first == 0.0 && half.kl_mean > 0.0 && half.argmax_agreement == 1.0);
    }
}
