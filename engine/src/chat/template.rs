//! One compiled chat template and how messages become its variables.

use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use serde::Serialize;
use serde_json::{Map, json};
use transcripts::message::{Message, Role, ToolCall};

use super::python;
use crate::error::EngineError;

/// The template of models that carry none: ChatML turns with Hermes tool calls, the format Qwen3 speaks. It
/// never strips reasoning from history, so the prompt of each call extends that of the call before.
const BUILT_IN: &str = include_str!("../../data/chatml.jinja");

/// Instructions that one rendering may take. A template comes out of a model file and may loop for ever; a prompt of a
/// thousand messages takes well under a hundredth of this.
const FUEL: u64 = 50_000_000;

/// Name of the only template in an environment.
const NAME: &str = "chat";

/// Whether the prompt ends with the opening of an assistant turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// It does: the model speaks next.
    Prompt,
    /// It ends with the last message.
    None,
}

/// The template's `enable_thinking`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Thinking {
    /// Not defined: the template decides.
    #[default]
    Default,
    /// `true`.
    On,
    /// `false`.
    Off,
}

/// Where a template comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateOrigin {
    /// The model's own, from this file or metadata key.
    Model(String),
    /// The one built into this crate.
    BuiltIn,
}

impl std::fmt::Display for TemplateOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Model(place) => f.write_str(place),
            Self::BuiltIn => f.write_str("built-in"),
        }
    }
}

/// A compiled template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    origin: TemplateOrigin,
    source: String,
    /// Special tokens by the names that templates use, such as `eos_token`.
    tokens: Map<String, serde_json::Value>,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// [`EngineError::Template`] with the line of a syntax error.
    pub fn new(source: &str, origin: TemplateOrigin) -> Result<Self, EngineError> {
        let mut environment = Environment::new();
        let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let refuse = |error: Error| template_error(&origin, &error);
        environment.set_syntax(syntax.map_err(refuse)?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(|out, _, value| match value.as_str() {
            Some(text) => out.write_str(text).map_err(Error::from),
            None => out.write_str(&python::str(value)?).map_err(Error::from),
        });
        environment.set_fuel(Some(FUEL));
        environment.add_filter("tojson", python::tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_template_owned(NAME, source.to_owned()).map_err(refuse)?;
        Ok(Self { environment, origin, source: source.to_owned(), tokens: Map::new() })
    }

    /// The template of models that carry none.
    ///
    /// # Errors
    /// [`EngineError::Template`]; a test compiles it.
    pub fn built_in() -> Result<Self, EngineError> {
        Self::new(BUILT_IN, TemplateOrigin::BuiltIn)
    }

    /// Defines a special token that templates name, such as `eos_token`.
    #[must_use]
    pub fn with_token(mut self, name: &str, text: &str) -> Self {
        self.tokens.insert(name.to_owned(), text.into());
        self
    }

    /// The prompt text of `messages`, with `tools` as JSON schemas in the order given.
    ///
    /// # Errors
    /// [`EngineError::Template`] with the template's own words where it raises, and its line.
    pub fn render(
        &self,
        messages: &[&Message],
        tools: &[serde_json::Value],
        generation: Generation,
        thinking: Thinking,
    ) -> Result<String, EngineError> {
        self.render_with(messages, |_| None, tools, generation, thinking)
    }

    /// The same with a character put before the content of each message that `prefix` gives one for.
    pub(super) fn render_with(
        &self,
        messages: &[&Message],
        prefix: impl Fn(&Message) -> Option<char>,
        tools: &[serde_json::Value],
        generation: Generation,
        thinking: Thinking,
    ) -> Result<String, EngineError> {
        let mut context = self.tokens.clone();
        let messages = messages.iter().map(|message| dictionary(message, prefix(message))).collect();
        context.insert("messages".to_owned(), messages);
        // transformers passes None, not an empty list, where a request has no tools.
        let tools = if tools.is_empty() { serde_json::Value::Null } else { tools.to_vec().into() };
        context.insert("tools".to_owned(), tools);
        context.insert("documents".to_owned(), serde_json::Value::Null);
        context.insert("add_generation_prompt".to_owned(), (generation == Generation::Prompt).into());
        match thinking {
            Thinking::Default => None,
            Thinking::On => context.insert("enable_thinking".to_owned(), true.into()),
            Thinking::Off => context.insert("enable_thinking".to_owned(), false.into()),
        };
        let render = || self.environment.get_template(NAME)?.render(Value::from(Serde(&context)));
        render().map_err(|error| template_error(&self.origin, &error))
    }

    /// Where it comes from.
    pub fn origin(&self) -> &TemplateOrigin {
        &self.origin
    }

    /// Its text.
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// A message as the dictionary that templates expect: role, content (always a text, here with a prefix), and what else it
/// has.
fn dictionary(message: &Message, prefix: Option<char>) -> serde_json::Value {
    let mut fields = Map::new();
    fields.insert("role".to_owned(), message.role.as_str().into());
    let mut content = message.flat_text();
    if let Some(prefix) = prefix {
        content.insert(0, prefix);
    }
    fields.insert("content".to_owned(), content.into());
    if let Some(reasoning) = message.reasoning_text() {
        fields.insert("reasoning_content".to_owned(), reasoning.into());
    }
    if message.role == Role::Assistant && !message.tool_calls.is_empty() {
        fields.insert("tool_calls".to_owned(), message.tool_calls.iter().map(call_dictionary).collect());
    }
    if let Some(id) = &message.tool_call_id {
        fields.insert("tool_call_id".to_owned(), id.as_str().into());
    }
    if let Some(name) = &message.name {
        fields.insert("name".to_owned(), name.as_str().into());
    }
    fields.into()
}

fn call_dictionary(call: &ToolCall) -> serde_json::Value {
    let arguments = arguments(&call.arguments);
    json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
}

/// Arguments as users of transformers pass them: the parsed object, which the template writes in one
/// canonical spelling. What does not parse as an object, or holds a number that Python would print otherwise
/// than this program could (beyond 64 bits), stays the recorded text, which templates copy as it is.
fn arguments(text: &str) -> serde_json::Value {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) if value.is_object() && prints_like_python(&value) => value,
        _ => text.into(),
    }
}

/// False for numbers of which JSON parsing keeps too little: integers beyond 64 bits were rounded to floats,
/// and of `-0` and `-0.0` the first is an integer to Python. Depth is bounded by the parser.
fn prints_like_python(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => {
                float.abs() < 9.2e18 && !(float == 0.0 && float.is_sign_negative())
            }
            _ => true,
        },
        serde_json::Value::Array(items) => items.iter().all(prints_like_python),
        serde_json::Value::Object(fields) => fields.values().all(prints_like_python),
        _ => true,
    }
}

/// What templates call to refuse a list of messages.
fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn template_error(origin: &TemplateOrigin, error: &Error) -> EngineError {
    let mut problem = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        problem.push_str(": ");
        problem.push_str(&error.to_string());
        cause = error.source();
    }
    EngineError::Template { origin: origin.to_string(), problem }
}
