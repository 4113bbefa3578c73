//! The tools of a request: their names and the JSON Schema of their arguments. Takes the definitions as they were
//! recorded, in any API's form; fetches nothing, whatever a schema refers to.

use std::collections::BTreeMap;
use std::fmt;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

/// Violations listed of one call: arguments that break more break them for one reason.
const VIOLATIONS_MAX: usize = 8;
/// Steps that a `pattern` may take over one string: a schema is recorded data and may be hostile.
const PATTERN_STEPS_MAX: usize = 100_000;

/// Tool definitions ready to check calls against.
#[derive(Default)]
pub struct ToolSchemas {
    tools: BTreeMap<String, Tool>,
}

struct Tool {
    parameters: Value,
    /// `None` where the schema is missing or broken: then any arguments will do.
    validator: Option<Validator>,
}

/// What kind of rule the arguments break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViolationKind {
    /// A property that must be there is not.
    Missing,
    /// A property that may not be there is.
    Unexpected,
    /// A value of another type.
    Type,
    /// A value of the right type that the schema rules out: enumeration, range, length, pattern, format.
    Value,
}

/// One place where arguments leave their schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which kind.
    pub kind: ViolationKind,
    /// The keyword of the schema, for instance `required`.
    pub keyword: String,
    /// JSON pointer into the arguments; empty for the arguments themselves.
    pub instance_path: String,
    /// What the schema asks for. Values of the arguments are not in it.
    pub detail: String,
}

impl ToolSchemas {
    /// Reads definitions: chat completions (`function.parameters`), Responses (`parameters`), Anthropic Messages
    /// (`input_schema`). What has no name is no tool; of a name that comes twice the first counts.
    pub fn new(definitions: &[Value]) -> Self {
        let mut tools = BTreeMap::new();
        for definition in definitions {
            let body = definition.get("function").unwrap_or(definition);
            let Some(name) = body.get("name").and_then(Value::as_str) else { continue };
            let parameters = ["parameters", "input_schema"].iter().find_map(|key| body.get(*key));
            tools.entry(name.to_owned()).or_insert_with(|| Tool {
                parameters: parameters.cloned().unwrap_or(Value::Null),
                validator: parameters.filter(|schema| schema.is_object()).and_then(compile),
            });
        }
        Self { tools }
    }

    /// No tools are known: nothing can be said about a name.
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// A tool of this name is among them.
    pub fn knows(&self, name: &str) -> bool {
        self.tools.contains_key(name)
    }

    /// The schema of one property of a tool's arguments, where it is written down in place.
    pub fn property(&self, name: &str, property: &str) -> Option<&Value> {
        self.tools.get(name)?.parameters.get("properties")?.get(property)
    }

    /// Where arguments leave the schema of their tool; empty for an unknown tool. At most eight.
    pub fn violations(&self, name: &str, arguments: &Value) -> Vec<Violation> {
        let validator = self.tools.get(name).and_then(|tool| tool.validator.as_ref());
        let errors = validator.into_iter().flat_map(|validator| validator.iter_errors(arguments));
        errors.take(VIOLATIONS_MAX).map(|error| violation(&error)).collect()
    }
}

impl fmt::Debug for ToolSchemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.tools.keys()).finish()
    }
}

fn compile(schema: &Value) -> Option<Validator> {
    let patterns = PatternOptions::fancy_regex().backtrack_limit(PATTERN_STEPS_MAX);
    jsonschema::options()
        .offline()
        .should_validate_formats(true)
        .with_pattern_options(patterns)
        .build(schema)
        .ok()
}

fn violation(error: &ValidationError<'_>) -> Violation {
    Violation {
        kind: kind(error),
        keyword: error.kind().keyword().to_owned(),
        instance_path: error.instance_path().to_string(),
        detail: error.masked().to_string(),
    }
}

fn kind(error: &ValidationError<'_>) -> ViolationKind {
    match error.kind() {
        ValidationErrorKind::Required { .. } => ViolationKind::Missing,
        ValidationErrorKind::AdditionalProperties { .. }
        | ValidationErrorKind::UnevaluatedProperties { .. }
        | ValidationErrorKind::FalseSchema
        | ValidationErrorKind::PropertyNames { .. } => ViolationKind::Unexpected,
        ValidationErrorKind::Type { .. } => ViolationKind::Type,
        // `string or null` is often written as a choice: a value that no branch takes for its type has the wrong type.
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            let is_type = |branch: &Vec<ValidationError<'_>>| {
                branch.iter().any(|inner| {
                    matches!(inner.kind(), ValidationErrorKind::Type { .. })
                        && inner.instance_path() == error.instance_path()
                })
            };
            if context.iter().all(is_type) { ViolationKind::Type } else { ViolationKind::Value }
        }
        _ => ViolationKind::Value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(schema: Value, arguments: Value) -> Vec<(ViolationKind, String, String)> {
        let tools = ToolSchemas::new(&[json!({"function": {"name": "t", "parameters": schema}})]);
        let all = tools.violations("t", &arguments).into_iter();
        all.map(|found| (found.kind, found.keyword, found.instance_path)).collect()
    }

    #[test]
    fn each_kind_of_violation_is_told() {
        let schema = json!({
            "type": "object", "required": ["path"], "additionalProperties": false,
            "properties": {
                "path": {"type": "string", "pattern": "^/"},
                "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                "mode": {"enum": ["r", "w"]},
                "at": {"type": "string", "format": "date"},
                "lines": {"type": "array", "items": {"type": "integer", "minimum": 1}},
            },
        });
        assert_eq!(
            found(schema.clone(), json!({"path": "/a", "limit": null, "mode": "r", "lines": [1]})),
            []
        );
        let cases = [
            (json!({}), ViolationKind::Missing, "required", ""),
            (json!({"path": "/a", "x": 1}), ViolationKind::Unexpected, "additionalProperties", ""),
            (json!({"path": 1}), ViolationKind::Type, "type", "/path"),
            (json!({"path": "/a", "limit": "7"}), ViolationKind::Type, "anyOf", "/limit"),
            (json!({"path": "a"}), ViolationKind::Value, "pattern", "/path"),
            (json!({"path": "/a", "mode": "x"}), ViolationKind::Value, "enum", "/mode"),
            (json!({"path": "/a", "at": "soon"}), ViolationKind::Value, "format", "/at"),
            (json!({"path": "/a", "lines": [1, 0]}), ViolationKind::Value, "minimum", "/lines/1"),
        ];
        for (arguments, kind, keyword, path) in cases {
            let expected = [(kind, keyword.to_owned(), path.to_owned())];
            assert_eq!(found(schema.clone(), arguments.clone()), expected, "{arguments}");
        }
    }

    #[test]
    fn definitions_are_read_in_every_form() {
        let schema = json!({"type": "object", "required": ["a"]});
        for definition in [
            json!({"type": "function", "function": {"name": "t", "parameters": schema}}),
            json!({"type": "function", "name": "t", "parameters": schema}),
            json!({"name": "t", "input_schema": schema}),
        ] {
            let tools = ToolSchemas::new(&[definition]);
            assert!(tools.knows("t") && !tools.knows("u"));
            assert_eq!(tools.violations("t", &json!({})).len(), 1);
            assert_eq!(tools.violations("u", &json!({})), []);
        }
        assert!(ToolSchemas::new(&[json!({"type": "web_search"}), json!(1)]).is_empty());
    }

    #[test]
    fn details_hold_no_value_of_the_arguments() {
        let tools = ToolSchemas::new(&[
            json!({"name": "t", "parameters": {"additionalProperties": {"type": "integer"}}}),
        ]);
        let found = tools.violations("t", &json!({"key": "hunter2"}));
        assert!(found.len() == 1 && !found[0].detail.contains("hunter2"), "{found:?}");
    }

    #[test]
    fn hostile_and_broken_schemas_are_survived() {
        let circles = [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}}}),
        ];
        for schema in circles {
            found(schema, json!({"a": 1}));
        }
        for broken in
            [json!({"type": "no such type"}), json!({"$ref": "https://example.invalid/x"}), json!(7)]
        {
            assert_eq!(found(broken, json!({"a": 1})), []);
        }
        let slow = json!({"properties": {"a": {"pattern": "^(?=(a+)+$)\\1b"}}});
        assert!(!found(slow, json!({"a": "a".repeat(64)})).is_empty(), "a pattern that gives up is no match");
        let many: serde_json::Map<String, Value> = (0..50).map(|n| (n.to_string(), json!("x"))).collect();
        let schema = json!({"additionalProperties": {"type": "integer"}});
        assert_eq!(found(schema, Value::Object(many)).len(), VIOLATIONS_MAX);
    }
}
