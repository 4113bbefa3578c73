//! Chat prompts against Python's, byte for byte, for the built-in template and (where this machine has it)
//! Qwen3's own.

use std::path::Path;

use engine::chat::{ChatTemplate, Generation, TemplateOrigin, Thinking};
use proptest::prelude::*;
use serde_json::{Value, json};
use transcripts::message::{Message, Part, Reasoning, Role, ToolCall};

use crate::golden;

/// An OpenAI-style message of the golden file as the canonical message.
fn message(value: &Value) -> Message {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let role = match value["role"].as_str().unwrap() {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => panic!("role {other}"),
    };
    let call = |call: &Value| ToolCall {
        id: call["id"].as_str().unwrap().to_owned(),
        name: call["function"]["name"].as_str().unwrap().to_owned(),
        arguments: call["function"]["arguments"].as_str().unwrap().to_owned(),
    };
    let mut message = Message::text(role, "");
    message.content = text("content").map(|text| Part::Text { text }).into_iter().collect();
    message.reasoning = text("reasoning_content").map(|text| Reasoning::Text { text });
    message.tool_calls = value["tool_calls"].as_array().into_iter().flatten().map(call).collect();
    message.tool_call_id = text("tool_call_id");
    message.name = text("name");
    message
}

/// Renders every golden case and compares with what Python wrote.
fn compare_with_python(template: &ChatTemplate, key: &str) {
    let cases = golden::json("chat_cases.json");
    let cases = cases.as_array().unwrap();
    assert!(cases.len() >= 30);
    for case in cases {
        let messages: Vec<Message> = case["messages"].as_array().unwrap().iter().map(message).collect();
        let messages: Vec<&Message> = messages.iter().collect();
        let generation = match case["generation_prompt"].as_bool().unwrap() {
            true => Generation::Prompt,
            false => Generation::None,
        };
        let thinking = match case["thinking"].as_bool() {
            None => Thinking::Default,
            Some(true) => Thinking::On,
            Some(false) => Thinking::Off,
        };
        let rendered =
            template.render(&messages, case["tools"].as_array().unwrap(), generation, thinking).unwrap();
        assert_eq!(rendered, case[key].as_str().unwrap(), "{}", case["name"]);
    }
}

#[test]
fn the_built_in_template_renders_as_in_python() {
    compare_with_python(&ChatTemplate::built_in().unwrap(), "chatml");
}

#[test]
fn the_qwen3_template_renders_as_in_python() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/models/templates/qwen3.jinja");
    let Ok(source) = std::fs::read_to_string(&path) else {
        println!("skipped: {} is not there", path.display());
        return;
    };
    let template = ChatTemplate::new(&source, TemplateOrigin::Model("qwen3.jinja".to_owned())).unwrap();
    compare_with_python(&template, "qwen3");
}

/// Renders a template over one user message.
fn render(source: &str) -> Result<String, engine::error::EngineError> {
    let template = ChatTemplate::new(source, TemplateOrigin::Model("test".to_owned()))?;
    let message = Message::text(Role::User, "hi");
    template.with_token("eos_token", "<|im_end|>").render(
        &[&message],
        &[json!({"b": 1, "a": [true, null, "é"]})],
        Generation::Prompt,
        Thinking::Default,
    )
}

#[test]
fn tojson_takes_the_arguments_of_transformers() {
    // Right: what Python's json.dumps writes with the same arguments.
    let cases = [
        ("{{ tools[0] | tojson }}", r#"{"b": 1, "a": [true, null, "é"]}"#),
        ("{{ tools[0] | tojson(sort_keys=true) }}", r#"{"a": [true, null, "é"], "b": 1}"#),
        ("{{ tools[0] | tojson(ensure_ascii=true) }}", r#"{"b": 1, "a": [true, null, "\u00e9"]}"#),
        ("{{ tools[0] | tojson(separators=(',', ':')) }}", r#"{"b":1,"a":[true,null,"é"]}"#),
        (
            "{{ tools[0] | tojson(indent=2) }}",
            "{\n  \"b\": 1,\n  \"a\": [\n    true,\n    null,\n    \"é\"\n  ]\n}",
        ),
        ("{{ [[], {}] | tojson(indent=1) }}", "[\n [],\n {}\n]"),
        ("{{ '<b>&\\'\u{7f}' | tojson }}", "\"<b>&'\u{7f}\""),
        ("{{ '\\u0001🦙' | tojson(ensure_ascii=true) }}", r#""\u0001\ud83e\udd99""#),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source).unwrap(), expected, "{source}");
    }
    assert!(render("{{ nothing | tojson }}").is_err());
    assert!(render("{{ 1 | tojson(colour=1) }}").is_err());
}

#[test]
fn the_environment_is_the_one_of_transformers() {
    let cases = [
        // Blocks are trimmed on both sides of their line.
        ("a\n  {% if true %}\nb\n  {% endif %}\nc", "a\nb\nc"),
        ("{{ messages[::-1][0].content.startswith('h') }}", "True"),
        ("{{ none }} {{ 1.0 }} {{ 1e16 }} {{ nothing }}", "None 1.0 1e+16 "),
        ("{{ '  a\n'.strip() ~ 'a-b'.split('-')[-1] }}", "ab"),
        ("{{ eos_token }} {{ documents is none }} {{ add_generation_prompt }}", "<|im_end|> True True"),
        ("{{ enable_thinking is defined }} {{ strftime_now is defined }}", "False False"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = 5 %}{% endfor %}{{ ns.n }}", "5"),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source).unwrap(), expected, "{source}");
    }
}

#[test]
fn a_template_that_loops_without_end_is_stopped() {
    let source = "{% for i in range(9999) %}{% for j in range(9999) %}{{ j }}{% endfor %}{% endfor %}";
    assert!(render(source).unwrap_err().to_string().contains("fuel"));
}

#[test]
fn errors_name_the_template_and_say_what_it_said() {
    let raised = render("\n{{ raise_exception('roles must alternate') }}").unwrap_err().to_string();
    assert!(raised.contains("test") && raised.contains("roles must alternate"), "{raised}");
    let broken = render("\n\n{% for %}").unwrap_err().to_string();
    assert!(broken.contains("chat:3"), "{broken}");
    assert!(render("{{ tools }}").unwrap_err().to_string().contains("tojson"));
    assert!(render("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").is_err(), "endless recursion ends");
}

#[test]
fn arguments_that_python_would_print_otherwise_stay_as_recorded() {
    let template = ChatTemplate::built_in().unwrap();
    for arguments in
        ["{\"n\": 123456789012345678901234567890}", "{\"n\": -0}", "{\"n\": NaN}", "{\"s\": \"\\ud800\"}"]
    {
        let mut turn = Message::text(Role::Assistant, "");
        turn.tool_calls =
            vec![ToolCall { id: "1".to_owned(), name: "f".to_owned(), arguments: arguments.to_owned() }];
        let text = template.render(&[&turn], &[], Generation::None, Thinking::Default).unwrap();
        assert!(text.contains(&format!("\"arguments\": {arguments}}}")), "{text}");
    }
}

/// A random message list that a client could send: tool results only after calls, all answered.
fn session() -> impl Strategy<Value = Vec<Message>> {
    let turn = (".{0,20}", prop::option::of(".{0,20}"), prop::collection::vec(".{0,20}", 0..3));
    prop::collection::vec(turn, 1..6).prop_map(|turns| {
        let mut messages = Vec::new();
        for (index, (text, reasoning, results)) in turns.into_iter().enumerate() {
            messages.push(Message::text(Role::User, format!("question {index}")));
            let mut turn = Message::text(Role::Assistant, text);
            turn.reasoning = reasoning.map(|text| Reasoning::Text { text });
            for (call, result) in results.iter().enumerate() {
                let (id, arguments) = (format!("{index}-{call}"), json!({"x": result}).to_string());
                turn.tool_calls.push(ToolCall { id, name: "f".to_owned(), arguments });
            }
            messages.push(turn);
            messages.extend(results.into_iter().map(|result| Message::text(Role::Tool, result)));
        }
        messages
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The built-in template never rewrites history: the prompt of each call is a prefix of the next call's.
    #[test]
    fn the_built_in_template_is_append_only(messages in session(), off in any::<bool>()) {
        let template = ChatTemplate::built_in().unwrap();
        let thinking = if off { Thinking::Off } else { Thinking::Default };
        let mut messages = messages;
        if off {
            // A model that does not think leaves no reasoning.
            messages.iter_mut().for_each(|message| message.reasoning = None);
        }
        let messages: Vec<&Message> = messages.iter().collect();
        let whole = template.render(&messages, &[], Generation::None, thinking).unwrap();
        for end in 1..messages.len() {
            // A call's prompt ends where the assistant speaks next.
            if messages[end].role != Role::Assistant {
                continue;
            }
            let prompt = template.render(&messages[..end], &[], Generation::Prompt, thinking).unwrap();
            prop_assert!(whole.starts_with(&prompt), "{:?} is not a prefix of {:?}", prompt, whole);
        }
    }

    /// Any text in any place renders, and comes out as it went in.
    #[test]
    fn contents_are_copied_verbatim(text in "\\PC{0,100}") {
        let template = ChatTemplate::built_in().unwrap();
        let message = Message::text(Role::User, text.clone());
        let rendered = template.render(&[&message], &[], Generation::None, Thinking::Default).unwrap();
        prop_assert_eq!(rendered, format!("<|im_start|>user\n{text}<|im_end|>\n"));
    }
}
