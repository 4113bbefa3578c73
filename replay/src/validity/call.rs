//! One call of an output: its JSON against the grammar, strictly and after the repairs.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use transcripts::json_text;
use transcripts::schema::{ToolSchemas, ViolationKind};

use crate::validity::code::Code;
use crate::validity::scan::{Block, BlockEnd};
use crate::validity::{family, repair};

/// A call that can be carried out, perhaps after repairs.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedCall {
    /// Name of the tool.
    pub name: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
}

/// The verdict on one block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallCheck {
    /// Codes of the block as it is.
    pub strict: BTreeSet<Code>,
    /// Codes left after the repairs.
    pub lenient: BTreeSet<Code>,
    /// The call, where the lenient reading finds one.
    pub call: Option<CheckedCall>,
}

impl CallCheck {
    /// A call without any repair. A call of an unknown tool (O11), with arguments that its schema refuses (O12 to
    /// O15) or with half a character (O26) is a call all the same.
    pub fn is_call_as_it_stands(&self) -> bool {
        const OF_A_CALL: [Code; 6] = [Code::O11, Code::O12, Code::O13, Code::O14, Code::O15, Code::O26];
        self.call.is_some() && self.strict.iter().all(|code| OF_A_CALL.contains(code))
    }

    /// Holds a call against the tools of the request: O11 to O15.
    fn settle(&mut self, call: CheckedCall, tools: &ToolSchemas) {
        if !tools.is_empty() && !tools.knows(&call.name) {
            self.fail(Code::O11);
        }
        let arguments = Value::Object(call.arguments);
        for found in tools.violations(&call.name, &arguments) {
            self.fail(match found.kind {
                ViolationKind::Missing => Code::O12,
                ViolationKind::Unexpected => Code::O13,
                ViolationKind::Type => Code::O14,
                ViolationKind::Value => Code::O15,
            });
        }
        if let Value::Object(arguments) = arguments {
            self.call = Some(CheckedCall { name: call.name, arguments });
        }
    }

    fn fail(&mut self, code: Code) {
        self.strict.insert(code);
        self.lenient.insert(code);
    }
}

/// Checks one block. `tools` are those of the request; empty where they are not known.
pub fn check(block: &Block<'_>, tools: &ToolSchemas) -> CallCheck {
    let mut check = CallCheck::default();
    if block.end == BlockEnd::Nested && block.body.trim().is_empty() {
        // A doubled opening tag: O06 says it all, and the inner block is the call.
        return check;
    }
    if family::is_xml(block.body) {
        let mut check = check_foreign(block.body, tools);
        match (block.end, &check.call) {
            (BlockEnd::OutputEnd, Some(_)) => _ = check.strict.insert(Code::O04),
            (BlockEnd::OutputEnd, None) => check.fail(Code::O05),
            _ => {}
        }
        return check;
    }
    let Some(value) = parse(block, &mut check) else { return check };
    let Value::Object(mut object) = value else {
        check.fail(Code::O08);
        return check;
    };
    let name = take_name(&mut object, &mut check);
    let arguments = take_arguments(&mut object, &mut check);
    if !object.is_empty() {
        check.strict.insert(Code::O10);
    }
    if let (Some(name), Some(arguments)) = (name, arguments) {
        check.settle(CheckedCall { name, arguments }, tools);
    }
    check
}

/// Checks a call in another family's form: O16, and lifted where the form is the one that a repair reads.
pub fn check_foreign(text: &str, tools: &ToolSchemas) -> CallCheck {
    let mut check = CallCheck::default();
    check.strict.insert(Code::O16);
    match family::read_xml(text, tools) {
        Some(call) => check.settle(call, tools),
        None => _ = check.lenient.insert(Code::O16),
    }
    check
}

/// Exactly one JSON value with nothing but white space after it.
fn parse(block: &Block<'_>, check: &mut CallCheck) -> Option<Value> {
    // The grammar of JSON allows an escape of half a surrogate pair; that it is no character is O26. NaN stays O07.
    let reading = json_text::read(block.body);
    let body = if reading.lone_surrogate && !reading.not_finite { &*reading.text } else { block.body };
    if reading.lone_surrogate {
        check.fail(Code::O26);
    }
    let mut values = serde_json::Deserializer::from_str(body).into_iter::<Value>();
    let value = values.next().and_then(Result::ok);
    let rest = body.get(values.byte_offset()..).unwrap_or_default();
    let Some(value) = value else {
        check.fail(if block.end == BlockEnd::OutputEnd { Code::O05 } else { Code::O07 });
        return None;
    };
    if block.end == BlockEnd::OutputEnd {
        check.strict.insert(Code::O04);
    }
    if rest.trim().is_empty() {
        return Some(value);
    }
    check.strict.insert(Code::O07);
    if repair::is_surplus_braces(rest) {
        return Some(value);
    }
    check.lenient.insert(Code::O07);
    None
}

fn take_name(object: &mut Map<String, Value>, check: &mut CallCheck) -> Option<String> {
    match object.shift_remove("name") {
        Some(Value::String(name)) if !name.is_empty() => Some(name),
        Some(_) => {
            check.fail(Code::O09);
            None
        }
        None => {
            check.strict.insert(Code::O09);
            let hoisted = repair::hoist_name(object);
            if hoisted.is_none() {
                check.lenient.insert(Code::O09);
            }
            hoisted
        }
    }
}

fn take_arguments(object: &mut Map<String, Value>, check: &mut CallCheck) -> Option<Map<String, Value>> {
    match object.shift_remove("arguments") {
        Some(Value::Object(arguments)) => Some(arguments),
        Some(Value::String(text)) => {
            check.strict.insert(Code::O10);
            let decoded = repair::decode_arguments(&text);
            if decoded.is_none() {
                check.lenient.insert(Code::O10);
            }
            decoded
        }
        _ => {
            check.fail(Code::O10);
            None
        }
    }
}
