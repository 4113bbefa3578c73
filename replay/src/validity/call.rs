//! One call of an output: its JSON against the grammar, strictly and after the repairs.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::validity::code::Code;
use crate::validity::repair;
use crate::validity::scan::{Block, BlockEnd};

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
    /// A call without any repair. An unknown tool (O11) is a call all the same.
    pub fn is_call_as_it_stands(&self) -> bool {
        self.call.is_some() && self.strict.iter().all(|code| *code == Code::O11)
    }

    fn fail(&mut self, code: Code) {
        self.strict.insert(code);
        self.lenient.insert(code);
    }
}

/// Checks one block. `tools` are the names the request carried, if they are known.
pub fn check(block: &Block<'_>, tools: Option<&BTreeSet<&str>>) -> CallCheck {
    let mut check = CallCheck::default();
    if block.end == BlockEnd::Nested && block.body.trim().is_empty() {
        // A doubled opening tag: O06 says it all, and the inner block is the call.
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
        if tools.is_some_and(|tools| !tools.contains(name.as_str())) {
            check.fail(Code::O11);
        }
        check.call = Some(CheckedCall { name, arguments });
    }
    check
}

/// Exactly one JSON value with nothing but white space after it.
fn parse(block: &Block<'_>, check: &mut CallCheck) -> Option<Value> {
    let mut values = serde_json::Deserializer::from_str(block.body).into_iter::<Value>();
    let value = values.next().and_then(Result::ok);
    let rest = block.body.get(values.byte_offset()..).unwrap_or_default();
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
