//! The closed list of repairs behind the lenient verdict. Each belongs to one code; a code that fired strictly and not
//! leniently names the repair that was used. Adding one changes what `lenient` means, so the list is a constant that a
//! test pins.

use serde_json::{Map, Value};

use crate::validity::code::Code;

/// Every repair: the code it lifts and what it does.
pub const REPAIRS: [(Code, &str); 6] = [
    (Code::O04, "close an unterminated call whose JSON is complete"),
    (Code::O07, "strip one to three closing braces after the JSON"),
    (Code::O09, "hoist a name out of the arguments"),
    (Code::O10, "decode arguments given as a JSON string"),
    (Code::O10, "ignore keys besides name and arguments"),
    (Code::O16, "read <function=..><parameter=..>, values taken by the tool's schema"),
];

/// O07: whether what follows the JSON value is one to three closing braces.
pub fn is_surplus_braces(rest: &str) -> bool {
    let braces = rest.chars().filter(|c| !c.is_whitespace()).count();
    (1..=3).contains(&braces) && rest.chars().all(|c| c == '}' || c.is_whitespace())
}

/// O09: the name out of the arguments, which lose it.
pub fn hoist_name(object: &mut Map<String, Value>) -> Option<String> {
    let arguments = object.get_mut("arguments")?.as_object_mut()?;
    let name = arguments.get("name")?.as_str()?.to_owned();
    arguments.shift_remove("name");
    Some(name)
}

/// O10: the object that a string of JSON holds.
pub fn decode_arguments(text: &str) -> Option<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}
