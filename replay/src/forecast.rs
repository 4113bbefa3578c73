//! What each built-in arm would cost on a session, from the sizes of its messages and a few rates: no model is opened and
//! nothing is replayed. Pure; how messages are counted is the caller's choice. It knows the formulas of `reports::cost` and
//! what an arm does, and no command line.

use std::collections::{BTreeMap, BTreeSet};

use reports::cost::{Costs, Kept};
use serde::Serialize;
use transcripts::message::{Message, Role};
use transcripts::session::Session;

use crate::arm::{self, ArmSpec, Cache, Compression};

/// The arms that are forecast, by name: those whose cost follows from sizes alone.
pub const ARMS: [&str; 6] =
    ["cold", "warm", "cache-only", "cache+compression", "cache+rescore", "freeze-only"];

/// The sizes of a session: what a forecast is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionSizes {
    /// Session id.
    pub session_id: String,
    /// Tokens of each message, and whether it is a tool message; `Session::messages` in order.
    pub messages: Vec<MessageSize>,
    /// Tokens that stand before every prompt: the tool definitions.
    pub base_tokens: f64,
    /// The requests, each as indices into `messages`; empty ones left out.
    pub prompts: Vec<Vec<u32>>,
}

/// The size of one message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MessageSize {
    /// Tokens, whole or estimated.
    pub tokens: f64,
    /// It is a tool message: the kind that compression touches.
    pub is_tool: bool,
}

impl SessionSizes {
    /// The sizes of a session; `base_tokens` stand before every prompt.
    ///
    /// # Errors
    /// The first error of `count`.
    pub fn new<E>(
        session: &Session,
        base_tokens: f64,
        count: impl Fn(&Message) -> Result<f64, E>,
    ) -> Result<Self, E> {
        let size = |message: &Message| {
            Ok(MessageSize { tokens: count(message)?, is_tool: message.role == Role::Tool })
        };
        let in_range = |index: &u32| (*index as usize) < session.messages.len();
        let prompts = session.calls.iter().map(|call| call.prefix.iter().copied().filter(in_range).collect());
        Ok(Self {
            session_id: session.id.clone(),
            messages: session.messages.iter().map(size).collect::<Result<_, _>>()?,
            base_tokens,
            prompts: prompts.filter(|prompt: &Vec<u32>| !prompt.is_empty()).collect(),
        })
    }

    /// Tokens of the tool messages that some call sent, each once.
    pub fn tool_tokens(&self) -> Vec<f64> {
        let sent: BTreeSet<u32> = self.prompts.iter().flatten().copied().collect();
        let size = |index: u32| self.messages[index as usize];
        sent.into_iter().map(size).filter(|size| size.is_tool).map(|size| size.tokens).collect()
    }

    /// Tokens of a prompt before compression.
    pub fn prompt_tokens(&self, prompt: &[u32]) -> f64 {
        self.base_tokens + prompt.iter().map(|&index| self.messages[index as usize].tokens).sum::<f64>()
    }
}

/// One arm on one session, TTFT summed over the calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ArmForecast {
    /// Arm name.
    pub arm: String,
    /// The sum of the parts below, ms.
    pub ttft_ms_sum: f64,
    /// Target prefill, attention included, ms.
    pub prefill_ms: f64,
    /// Drafter at work, ms.
    pub score_ms: f64,
    /// Parking and loading, ms.
    pub batch_ms: f64,
    /// Lookup and restore, ms.
    pub lookup_ms: f64,
    /// What every call costs, ms.
    pub call_ms: f64,
    /// Tokens through the target.
    pub tokens_prefilled: f64,
    /// Tokens through the drafter.
    pub tokens_scored: f64,
    /// Scorings of tool messages.
    pub messages_scored: u64,
}

/// All arms on one session.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// Session id.
    pub session_id: String,
    /// Calls with a request.
    pub calls: u64,
    /// Prompt tokens of all calls, before compression.
    pub tokens_raw: f64,
    /// Prompt tokens of the longest call, before compression.
    pub tokens_raw_max: f64,
    /// Tool messages that some call sent.
    pub messages_tool: u64,
    /// Their mean size, tokens; `None` without any.
    pub message_tokens_mean: Option<f64>,
    /// Tokens of the smallest tool message whose compression at birth pays; `None` where no size does.
    pub pays_from_tokens: Option<f64>,
    /// Tool messages of the session that are at least as large.
    pub messages_that_pay: u64,
    /// Largest kept share at which a message of the mean size still pays; `None` where none does.
    pub keep_ratio_max: Option<f64>,
    /// One row per arm, in the order of [`ARMS`].
    pub arms: Vec<ArmForecast>,
    /// The arm with the smallest TTFT sum.
    pub fastest: String,
}

impl Forecast {
    /// The row of an arm.
    pub fn arm(&self, name: &str) -> Option<&ArmForecast> {
        self.arms.iter().find(|row| row.arm == name)
    }
}

/// Forecasts every arm on a session.
pub fn forecast(sizes: &SessionSizes, costs: &Costs, kept: Kept) -> Forecast {
    let specs = arm::built_in();
    let spec = |name: &&str| specs.iter().find(|spec| spec.name == *name);
    let arms: Vec<ArmForecast> =
        ARMS.iter().filter_map(spec).map(|spec| arm_forecast(sizes, spec, costs, kept)).collect();
    let fastest = arms.iter().min_by(|a, b| a.ttft_ms_sum.total_cmp(&b.ttft_ms_sum));
    let prompts = || sizes.prompts.iter().map(|prompt| sizes.prompt_tokens(prompt));
    let tools = sizes.tool_tokens();
    let mean = (!tools.is_empty()).then(|| tools.iter().sum::<f64>() / tools.len() as f64);
    // Behind nothing: the prompt that a message comes after can only make smaller ones pay.
    let pays_from_tokens = costs.pays_from_tokens(kept, 0.0);
    let pays =
        |tokens: &&f64| pays_from_tokens.is_some_and(|smallest| **tokens > 0.0 && **tokens >= smallest);
    Forecast {
        session_id: sizes.session_id.clone(),
        calls: sizes.prompts.len() as u64,
        tokens_raw: prompts().sum(),
        tokens_raw_max: prompts().fold(0.0, f64::max),
        messages_tool: tools.len() as u64,
        message_tokens_mean: mean,
        pays_from_tokens,
        messages_that_pay: tools.iter().filter(pays).count() as u64,
        keep_ratio_max: mean.and_then(|tokens| costs.keep_ratio_max(tokens, 0.0)),
        fastest: fastest.map(|row| row.arm.clone()).unwrap_or_default(),
        arms,
    }
}

fn arm_forecast(sizes: &SessionSizes, spec: &ArmSpec, costs: &Costs, kept: Kept) -> ArmForecast {
    let sent = |index: u32| {
        let MessageSize { tokens, is_tool } = sizes.messages[index as usize];
        if is_tool && spec.compression != Compression::None { kept.of(tokens) } else { tokens }
    };
    let mut row = ArmForecast { arm: spec.name.clone(), ..ArmForecast::default() };
    let mut prefixes = Prefixes::default();
    let mut born: BTreeSet<u32> = BTreeSet::new();
    for prompt in &sizes.prompts {
        let is_scored = |index: &u32| match spec.compression {
            Compression::None => false,
            Compression::Rescore => true,
            Compression::Freeze | Compression::Rolling | Compression::LatencyOnly | Compression::Evict => {
                !born.contains(index)
            }
        };
        let tool = |index: &&u32| sizes.messages[**index as usize].is_tool;
        let scored: Vec<f64> = prompt
            .iter()
            .filter(tool)
            .filter(|&index| is_scored(index))
            .map(|&index| sizes.messages[index as usize].tokens)
            .collect();
        born.extend(prompt.iter().filter(tool));
        let tokens_scored: f64 = scored.iter().sum();
        row.messages_scored += scored.len() as u64;
        row.tokens_scored += tokens_scored;
        row.score_ms += costs.score_ms * tokens_scored;
        row.batch_ms += costs.score(tokens_scored) - costs.score_ms * tokens_scored;

        let n_held = if spec.cache == Cache::On { prefixes.add(prompt) } else { 0 };
        let tokens = |part: &[u32]| part.iter().map(|&index| sent(index)).sum::<f64>();
        let base = |is_there: bool| if is_there { sizes.base_tokens } else { 0.0 };
        let held = base(n_held > 0) + tokens(&prompt[..n_held]);
        let new = base(n_held == 0) + tokens(&prompt[n_held..]);
        row.tokens_prefilled += new;
        row.prefill_ms += costs.prefill(held, new);
        row.lookup_ms += if n_held > 0 { costs.lookup_ms } else { 0.0 };
        row.call_ms += costs.call_ms;
    }
    row.ttft_ms_sum = row.prefill_ms + row.score_ms + row.batch_ms + row.lookup_ms + row.call_ms;
    row
}

/// The prompts that a cache has seen, as a tree of message indices.
#[derive(Default)]
struct Prefixes {
    /// Node and next message to node; node 0 is the empty prefix.
    edges: BTreeMap<(usize, u32), usize>,
}

impl Prefixes {
    /// Messages at the start of the prompt that an earlier one shared, never all of them; the prompt is added.
    fn add(&mut self, prompt: &[u32]) -> usize {
        let (mut node, mut n_held, mut is_known) = (0, 0, true);
        for &index in prompt {
            let next = self.edges.len() + 1;
            let to = *self.edges.entry((node, index)).or_insert(next);
            is_known &= to != next;
            n_held += usize::from(is_known);
            node = to;
        }
        n_held.min(prompt.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_held_as_far_as_any_earlier_one_goes_but_never_whole() {
        let mut prefixes = Prefixes::default();
        let held: Vec<usize> = [&[1, 2][..], &[1, 2, 3], &[1, 2, 3], &[1, 9], &[1, 2, 3, 4], &[7]]
            .map(|p| prefixes.add(p))
            .to_vec();
        assert_eq!(held, [0, 2, 2, 1, 3, 0]);
    }
}
