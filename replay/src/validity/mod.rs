//! Is a generated output well formed? Pure functions over one output: a strict verdict (the Hermes grammar with no
//! repair) and a lenient one (after the closed list of repairs in [`repair`]). Knows no backend, no session and no
//! record; what was expected comes in as plain data.
//!
//! ```text
//! output = [think] text? { call ws } END
//! think  = "<think>" ws reasoning "</think>" ws
//! call   = "<tool_call>" ws json ws "</tool_call>"
//! json   = an object with exactly "name": string and "arguments": object
//! ```

pub mod call;
pub mod code;
pub mod family;
pub mod repair;
pub mod repetition;
pub mod scan;

use std::collections::BTreeSet;

use transcripts::schema::ToolSchemas;

use crate::validity::call::{CallCheck, CheckedCall};
use crate::validity::code::Code;
use crate::validity::scan::{BlockEnd, Scan};

/// Whether the output may hold reasoning, and who opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thinking {
    /// The model was told not to think: a `<think>` is out of place.
    Off,
    /// The model may open a `<think>` itself.
    Allowed,
    /// The prompt ended inside an open `<think>`.
    OpenedInPrompt,
}

/// Why generation ended, as the backend says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model's ending token was sampled; an engine says no more than that.
    EndToken,
    /// A server's `stop`: the answer is a text.
    Stop,
    /// A server's `tool_calls`: the answer calls tools.
    ToolCalls,
    /// The limit of new tokens was reached.
    Length,
}

/// One output and what it is held against.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    /// Generated text, specials included.
    pub text: &'a str,
    /// Generated token ids; empty where the backend does not give them.
    pub token_ids: &'a [u32],
    /// Why it ended.
    pub finish: Finish,
    /// Reasoning.
    pub thinking: Thinking,
    /// Tools that the request carried; empty where they are not known (O11 to O15 then cannot fire).
    pub tools: &'a ToolSchemas,
    /// Tool calls of the recorded turn; `None` without an expectation (O01 to O03 then cannot fire).
    pub calls_recorded: Option<usize>,
}

/// The verdict on one output.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Codes that fired on the output as it is, in order.
    pub strict: BTreeSet<Code>,
    /// Codes left after the repairs, in order.
    pub lenient: BTreeSet<Code>,
    /// The calls that stand in the output without any repair, in order.
    pub calls: Vec<CheckedCall>,
}

impl Verdict {
    /// No strict code fired but those of mere information. A repaired output never counts.
    pub fn is_valid(&self) -> bool {
        self.strict.iter().all(|code| code.is_information())
    }
}

/// Checks one output.
pub fn check(output: &Output<'_>) -> Verdict {
    let text = without_end_token(output);
    let scan = scan::scan(text, output.thinking);
    let mut calls: Vec<CallCheck> =
        scan.blocks.iter().map(|block| call::check(block, output.tools)).collect();
    let foreign = scan.content.iter().flat_map(|content| family::foreign(content, output.tools));
    calls.extend(foreign.map(|text| call::check_foreign(text, output.tools)));

    let mut shared: BTreeSet<Code> = scan.codes.iter().copied().collect();
    shared.extend(content_codes(&scan));
    if text.contains(char::REPLACEMENT_CHARACTER) {
        shared.insert(Code::O26);
    }
    if text.trim().is_empty() || (scan.is_answer_empty() && !shared.contains(&Code::O19)) {
        shared.insert(Code::O24);
    }
    let mut strict = shared.clone();
    let mut lenient = shared;
    for check in &calls {
        strict.extend(check.strict.iter().copied());
        lenient.extend(check.lenient.iter().copied());
    }
    let found: Vec<&CheckedCall> = calls.iter().filter_map(|check| check.call.as_ref()).collect();
    let n_strict = calls.iter().filter(|check| check.is_call_as_it_stands()).count();
    for (codes, n_calls) in [(&mut strict, n_strict), (&mut lenient, found.len())] {
        codes.extend(finish_code(output.finish, n_calls, codes));
        codes.extend(output.calls_recorded.and_then(|expected| expectation_code(expected, n_calls)));
        if repetition::is_loop(output.token_ids, output.finish) || repetition::is_same_call_again(&found) {
            codes.insert(Code::O23);
        }
        if repetition::is_duplicate_call(&found) {
            codes.insert(Code::O25);
        }
    }
    let as_they_stand = calls.into_iter().filter(CallCheck::is_call_as_it_stands);
    Verdict { strict, lenient, calls: as_they_stand.filter_map(|check| check.call).collect() }
}

/// The text without the one ending token that some backends leave at its end.
fn without_end_token<'a>(output: &Output<'a>) -> &'a str {
    if output.finish == Finish::Length {
        return output.text;
    }
    ["<|im_end|>", "<|endoftext|>"]
        .iter()
        .find_map(|marker| output.text.trim_end().strip_suffix(marker))
        .unwrap_or(output.text)
}

/// Special tokens that leaked into the content, and content out of place.
fn content_codes(scan: &Scan<'_>) -> BTreeSet<Code> {
    const SPECIALS: [&str; 5] =
        ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<tool_response>", "</tool_response>"];
    let mut codes = BTreeSet::new();
    if scan.content.iter().any(|text| SPECIALS.iter().any(|special| text.contains(special))) {
        codes.insert(Code::O22);
    }
    let after_first = scan.content.iter().skip(1).any(|text| !text.trim().is_empty());
    if !scan.blocks.is_empty() && after_first {
        codes.insert(Code::O17);
    }
    if scan.reasoning.is_some_and(|text| text.contains("<tool_call>")) {
        codes.insert(Code::O18);
    }
    codes
}

/// O21: the reason contradicts the output. `length` never does: the caller set that limit, and what it cut off has a
/// code of its own.
fn finish_code(finish: Finish, n_calls: usize, codes: &BTreeSet<Code>) -> Option<Code> {
    let is_cut = codes.contains(&Code::O05) || codes.contains(&Code::O19);
    let disagrees = match finish {
        Finish::Length => false,
        Finish::EndToken => is_cut,
        Finish::Stop => is_cut || n_calls > 0,
        Finish::ToolCalls => is_cut || n_calls == 0,
    };
    disagrees.then_some(Code::O21)
}

/// O01 to O03: the number of calls against the recorded turn. Information, not invalidity.
fn expectation_code(expected: usize, found: usize) -> Option<Code> {
    match (expected, found) {
        (expected, found) if expected == found => None,
        (_, 0) => Some(Code::O01),
        (0, _) => Some(Code::O02),
        _ => Some(Code::O03),
    }
}

impl Scan<'_> {
    fn is_answer_empty(&self) -> bool {
        self.blocks.iter().all(|block| block.end == BlockEnd::Nested && block.body.trim().is_empty())
            && self.content.iter().all(|text| text.trim().is_empty())
    }
}
