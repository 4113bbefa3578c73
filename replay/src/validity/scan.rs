//! Cuts an output into reasoning, calls and content, as a careful server would: reasoning ends at the first `</think>`;
//! a call ends at the first `</tool_call>` **outside of a JSON string**, so that a literal tag in an argument does not
//! cut it. One pass, no recursion, no regular expression.

use crate::validity::Thinking;
use crate::validity::code::Code;

const THINK_OPEN: &str = "<think>";
const THINK_CLOSE: &str = "</think>";
const CALL_OPEN: &str = "<tool_call>";
const CALL_CLOSE: &str = "</tool_call>";

/// How a call's block ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockEnd {
    /// At its closing tag.
    Closed,
    /// At another opening tag.
    Nested,
    /// At the end of the output.
    OutputEnd,
}

/// What stands between an opening tag and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// The text of the block, tags excluded.
    pub body: &'a str,
    /// How it ended.
    pub end: BlockEnd,
}

/// An output in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan<'a> {
    /// The reasoning, tags excluded.
    pub reasoning: Option<&'a str>,
    /// Content before the first call, then after each call.
    pub content: Vec<&'a str>,
    /// The calls in order.
    pub blocks: Vec<Block<'a>>,
    /// O06, O19 and O20, where they fired.
    pub codes: Vec<Code>,
}

/// Cuts `text` into its parts.
pub fn scan(text: &str, thinking: Thinking) -> Scan<'_> {
    let mut scan = Scan::default();
    let answer = scan.take_reasoning(text, thinking);
    scan.take_calls(answer);
    let stray = |text: &&str| text.contains(THINK_OPEN) || text.contains(THINK_CLOSE);
    if scan.content.iter().any(stray) {
        scan.codes.push(Code::O20);
    }
    if scan.content.iter().any(|text| text.contains(CALL_CLOSE)) {
        scan.codes.push(Code::O06);
    }
    scan
}

impl<'a> Scan<'a> {
    /// Books the reasoning and returns what follows it.
    fn take_reasoning(&mut self, text: &'a str, thinking: Thinking) -> &'a str {
        let opened_here = text.trim_start().strip_prefix(THINK_OPEN);
        let inside = match (thinking, opened_here) {
            (Thinking::OpenedInPrompt, Some(rest)) => {
                self.codes.push(Code::O20);
                rest
            }
            (Thinking::OpenedInPrompt, None) => text,
            (Thinking::Off, Some(rest)) => {
                self.codes.push(Code::O20);
                rest
            }
            (Thinking::Allowed, Some(rest)) => rest,
            (Thinking::Off | Thinking::Allowed, None) => return text,
        };
        let Some((reasoning, answer)) = inside.split_once(THINK_CLOSE) else {
            self.codes.push(Code::O19);
            self.reasoning = Some(inside);
            return "";
        };
        if reasoning.trim().is_empty() || reasoning.contains(THINK_OPEN) {
            self.codes.push(Code::O20);
        }
        self.reasoning = Some(reasoning);
        answer
    }

    fn take_calls(&mut self, answer: &'a str) {
        let mut rest = answer;
        while let Some((content, after_open)) = rest.split_once(CALL_OPEN) {
            self.content.push(content);
            let (block, after) = take_block(after_open);
            if block.end == BlockEnd::Nested {
                self.codes.push(Code::O06);
            }
            self.blocks.push(block);
            rest = after;
        }
        self.content.push(rest);
    }
}

/// The block that starts here, and the text after it. A nested opening tag stays in that text.
fn take_block(text: &str) -> (Block<'_>, &str) {
    let bytes = text.as_bytes();
    let mut in_string = false;
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' if in_string => i += 1,
            b'"' => in_string = !in_string,
            b'<' if !in_string => {
                // A tag starts with an ASCII byte, so `i` is a char boundary.
                let (body, tail) = text.split_at(i);
                if let Some(after) = tail.strip_prefix(CALL_CLOSE) {
                    return (Block { body, end: BlockEnd::Closed }, after);
                }
                if tail.starts_with(CALL_OPEN) {
                    return (Block { body, end: BlockEnd::Nested }, tail);
                }
            }
            _ => {}
        }
        i += 1;
    }
    // A quote that never closes hides every tag behind it: then the first closing tag counts after all.
    match text.split_once(CALL_CLOSE) {
        Some((body, after)) if in_string => (Block { body, end: BlockEnd::Closed }, after),
        _ => (Block { body: text, end: BlockEnd::OutputEnd }, ""),
    }
}
