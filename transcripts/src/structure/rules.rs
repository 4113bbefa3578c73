//! The table of request checks: code, severity, rule. Data only; the checks are in the sibling files.

use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing, never wrong.
    Info,
    /// Accepted by some servers.
    Warning,
    /// Refused by an OpenAI-compatible server.
    Error,
}

/// A request check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Code {
    /// Roles; not empty; a user among them.
    R01,
    /// System at the start only.
    R02,
    /// The prefix ends in user or tool.
    R03,
    /// An assistant message says or calls something.
    R04,
    /// The form of a tool call.
    R05,
    /// Ids unique inside one message.
    R06,
    /// Ids unique over messages.
    R07,
    /// Every call answered once.
    R08,
    /// Every answer has its call.
    R09,
    /// Nothing between calls and answers.
    R10,
    /// Answers in the order of the calls.
    R11,
    /// Arguments are JSON.
    R12,
    /// Arguments are an object.
    R13,
    /// Arguments say one thing to every parser.
    R14,
    /// The tool is one of the request's.
    R15,
    /// Arguments fit the tool's schema.
    R16,
    /// Tool content is text.
    R17,
    /// Images reach the model.
    R18,
    /// User and assistant take turns.
    R19,
    /// The next request starts with this one and its completion.
    R20,
    /// Every result came from its tool.
    R21,
    /// The provider's tokens fit the messages.
    R22,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// The code.
    pub code: Code,
    /// Severity of a violation; a check may lower it for a case of its own and says so in the detail.
    pub severity: Severity,
    /// What must hold.
    pub text: &'static str,
}

const fn rule(code: Code, severity: Severity, text: &'static str) -> Rule {
    Rule { code, severity, text }
}

/// Every check, in the order of the codes.
pub const RULES: [Rule; 22] = [
    rule(Code::R01, Severity::Error, "a request has messages, and at least one is by the user"),
    rule(Code::R02, Severity::Warning, "a system message stands at index 0 only"),
    rule(Code::R03, Severity::Error, "the prefix of a call ends in a user or a tool message"),
    rule(Code::R04, Severity::Error, "an assistant message has content or tool calls"),
    rule(Code::R05, Severity::Error, "a tool call has an id and a name that matches ^[A-Za-z0-9_-]{1,64}$"),
    rule(Code::R06, Severity::Error, "tool call ids are unique inside one message"),
    rule(Code::R07, Severity::Info, "a tool call id is not used again in a later message"),
    rule(
        Code::R08,
        Severity::Error,
        "each tool call is answered by exactly one tool message in the run right after its message",
    ),
    rule(
        Code::R09,
        Severity::Error,
        "a tool message answers a call of the nearest assistant message before it",
    ),
    rule(
        Code::R10,
        Severity::Error,
        "nothing stands between an assistant message and the results of its calls",
    ),
    rule(Code::R11, Severity::Info, "results stand in the order of the calls"),
    rule(Code::R12, Severity::Error, "arguments parse as JSON without trailing data"),
    rule(Code::R13, Severity::Error, "arguments are a JSON object"),
    rule(
        Code::R14,
        Severity::Warning,
        "arguments hold no duplicate key, no lone surrogate, no NaN or Infinity and no NUL",
    ),
    rule(Code::R15, Severity::Warning, "a tool call names a tool of the request, where those are known"),
    rule(Code::R16, Severity::Warning, "arguments are valid against the JSON Schema of their tool"),
    rule(
        Code::R17,
        Severity::Error,
        "the content of a tool message is text: chat templates render a list as nothing",
    ),
    rule(
        Code::R18,
        Severity::Warning,
        "an image has a media type and bytes that a model reads: it is sent as a placeholder in words",
    ),
    rule(
        Code::R19,
        Severity::Info,
        "no two messages by the user, and no two by the assistant, stand side by side",
    ),
    rule(Code::R20, Severity::Info, "a request starts with the previous request and its completion"),
    rule(
        Code::R21,
        Severity::Info,
        "a tool result came from its tool, not from a client that was interrupted",
    ),
    rule(
        Code::R22,
        Severity::Info,
        "the provider's prompt tokens follow the size of the rebuilt prefix, and grow where the prefix does",
    ),
];

impl Code {
    /// The code as text, for instance `R08`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::R01 => "R01",
            Self::R02 => "R02",
            Self::R03 => "R03",
            Self::R04 => "R04",
            Self::R05 => "R05",
            Self::R06 => "R06",
            Self::R07 => "R07",
            Self::R08 => "R08",
            Self::R09 => "R09",
            Self::R10 => "R10",
            Self::R11 => "R11",
            Self::R12 => "R12",
            Self::R13 => "R13",
            Self::R14 => "R14",
            Self::R15 => "R15",
            Self::R16 => "R16",
            Self::R17 => "R17",
            Self::R18 => "R18",
            Self::R19 => "R19",
            Self::R20 => "R20",
            Self::R21 => "R21",
            Self::R22 => "R22",
        }
    }

    /// The code's row of [`RULES`].
    pub const fn rule(self) -> &'static Rule {
        &RULES[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_codes() {
        for (index, row) in RULES.iter().enumerate() {
            assert_eq!(row.code as usize, index);
            assert_eq!(row.code.rule(), row);
            assert_eq!(format!("{:?}", row.code), row.code.as_str());
        }
    }
}
