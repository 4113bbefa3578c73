//! Tool definitions of every API in the form of chat completions, which chat templates read. Knows the forms, not the
//! tools.

use serde_json::{Map, Value, json};

/// Definitions in the form of chat completions. What is no object is left out.
pub(super) fn to_chat(tools: Vec<Value>) -> Vec<Value> {
    tools
        .into_iter()
        .filter_map(|tool| if let Value::Object(tool) = tool { Some(one(tool)) } else { None })
        .collect()
}

/// Flat definitions (`name`, `description`, and the schema under the name of each API) move into `function`; a tool
/// that the provider runs has no schema and stays as it is.
fn one(mut tool: Map<String, Value>) -> Value {
    let schema = ["parameters", "input_schema", "inputSchema"].iter().find_map(|name| tool.remove(*name));
    if tool.contains_key("function") || !tool.contains_key("name") || schema.is_none() {
        return Value::Object(tool);
    }
    let mut function = Map::new();
    for name in ["name", "description", "strict"] {
        if let Some(value) = tool.remove(name) {
            function.insert(name.to_owned(), value);
        }
    }
    function.insert("parameters".to_owned(), schema.unwrap_or_else(|| json!({})));
    json!({"type": "function", "function": function})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_becomes_a_function() {
        let expected =
            json!({"type": "function", "function": {"name": "ls", "parameters": {"type": "object"}}});
        let given = vec![
            expected.clone(),
            json!({"type": "function", "name": "ls", "parameters": {"type": "object"}}),
            json!({"name": "ls", "input_schema": {"type": "object"}}),
            json!({"name": "ls", "inputSchema": {"type": "object"}}),
        ];
        assert_eq!(to_chat(given), vec![expected; 4]);
        let hosted = json!({"type": "web_search", "name": "web_search"});
        assert_eq!(to_chat(vec![hosted.clone(), json!(7)]), [hosted]);
    }
}
