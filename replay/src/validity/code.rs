//! The codes of the output checks and the rule behind each, as data.

use std::fmt;

/// A failure of an output. The numbers are those of the reference list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// A call was recorded, none was found.
    O01,
    /// No call was recorded, one was found.
    O02,
    /// Another number of calls than recorded.
    O03,
    /// Unterminated call whose JSON is complete.
    O04,
    /// Unterminated call whose JSON is cut.
    O05,
    /// Closing tag without an opening one; nested or doubled opening tag.
    O06,
    /// JSON syntax.
    O07,
    /// The JSON of a call is no object.
    O08,
    /// Name missing, not a string, or inside the arguments.
    O09,
    /// Arguments missing or not an object; keys besides `name` and `arguments`.
    O10,
    /// The tool is not among the request's.
    O11,
    /// The arguments lack a property that the tool's schema requires.
    O12,
    /// The arguments have a property that the schema does not allow.
    O13,
    /// A value of another type than the schema's.
    O14,
    /// A value that the schema rules out: enumeration, range, length, pattern, format.
    O15,
    /// A call in the form of another family of models.
    O16,
    /// Text between or after calls.
    O17,
    /// A call inside the reasoning.
    O18,
    /// Reasoning never closed.
    O19,
    /// Second or stray reasoning tag, empty reasoning, reasoning where none may be.
    O20,
    /// The finish reason disagrees with the output.
    O21,
    /// Special tokens in the content.
    O22,
    /// Repetition.
    O23,
    /// Empty response.
    O24,
    /// The same call twice.
    O25,
    /// Text that is cut inside a character.
    O26,
}

/// Every code with its rule, in order.
pub const RULES: [(Code, &str); 26] = [
    (Code::O01, "a call was recorded, the output holds none (information)"),
    (Code::O02, "no call was recorded, the output holds one (information)"),
    (Code::O03, "another number of calls than recorded (information)"),
    (Code::O04, "<tool_call> is not closed, its JSON is complete"),
    (Code::O05, "<tool_call> is not closed, its JSON is cut"),
    (Code::O06, "</tool_call> without an opener, or an opener inside a call"),
    (Code::O07, "the JSON of a call does not parse, or data follows it"),
    (Code::O08, "the JSON of a call is not an object"),
    (Code::O09, "name is missing, not a string, or inside the arguments"),
    (Code::O10, "arguments are missing or not an object, or there are further keys"),
    (Code::O11, "the tool is not among those of the request"),
    (Code::O12, "the arguments lack a property that the tool's schema requires"),
    (Code::O13, "the arguments have a property that the tool's schema does not allow"),
    (Code::O14, "an argument is of another type than the tool's schema says"),
    (Code::O15, "an argument breaks an enumeration, range, length, pattern or format of the tool's schema"),
    (Code::O16, "a call in another family's form: <function=..>, [TOOL_CALLS], fenced JSON, [name(..)]"),
    (Code::O17, "text between or after calls"),
    (Code::O18, "a call inside the reasoning"),
    (Code::O19, "<think> is never closed"),
    (Code::O20, "a second <think>, a stray </think>, empty reasoning, or reasoning where none may be"),
    (Code::O21, "the finish reason disagrees with the output"),
    (Code::O22, "special tokens in the content"),
    (Code::O23, "the same call again and again, or a loop of tokens"),
    (Code::O24, "nothing but white space"),
    (Code::O25, "the same call with the same arguments twice in one response"),
    (Code::O26, "U+FFFD from a cut or invalid character, or a lone surrogate escape in a call"),
];

impl Code {
    /// The code as the record holds it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::O01 => "O01",
            Self::O02 => "O02",
            Self::O03 => "O03",
            Self::O04 => "O04",
            Self::O05 => "O05",
            Self::O06 => "O06",
            Self::O07 => "O07",
            Self::O08 => "O08",
            Self::O09 => "O09",
            Self::O10 => "O10",
            Self::O11 => "O11",
            Self::O12 => "O12",
            Self::O13 => "O13",
            Self::O14 => "O14",
            Self::O15 => "O15",
            Self::O16 => "O16",
            Self::O17 => "O17",
            Self::O18 => "O18",
            Self::O19 => "O19",
            Self::O20 => "O20",
            Self::O21 => "O21",
            Self::O22 => "O22",
            Self::O23 => "O23",
            Self::O24 => "O24",
            Self::O25 => "O25",
            Self::O26 => "O26",
        }
    }

    /// The code compares with the recorded turn: a different but well-formed choice is information, not invalidity.
    pub const fn is_information(self) -> bool {
        matches!(self, Self::O01 | Self::O02 | Self::O03)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
