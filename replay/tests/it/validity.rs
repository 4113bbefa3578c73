//! The output checks: one table per subject, each row an output and the codes it must give.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use proptest::prelude::*;
use replay::validity::code::{Code, RULES};
use replay::validity::repair::REPAIRS;
use replay::validity::{Finish, Output, Thinking, Verdict, check};
use serde_json::{Value, json};
use transcripts::schema::ToolSchemas;

static NO_TOOLS: LazyLock<ToolSchemas> = LazyLock::new(ToolSchemas::default);

const CALL: &str = r#"<tool_call>{"name": "read", "arguments": {"path": "a"}}</tool_call>"#;

fn output(text: &str) -> Output<'_> {
    Output {
        text,
        token_ids: &[],
        finish: Finish::EndToken,
        thinking: Thinking::Allowed,
        tools: &NO_TOOLS,
        calls_recorded: None,
    }
}

fn words(codes: &BTreeSet<Code>) -> String {
    codes.iter().map(|code| code.as_str()).collect::<Vec<_>>().join(" ")
}

fn expect(got: &Output<'_>, strict: &str, lenient: &str) {
    let Verdict { strict: got_strict, lenient: got_lenient, .. } = check(got);
    assert_eq!(words(&got_strict), strict, "strict codes of {got:?}");
    assert_eq!(words(&got_lenient), lenient, "lenient codes of {got:?}");
}

#[test]
fn well_formed_outputs_have_no_code() {
    let two = format!("{CALL}\n{CALL}").replacen("\"a\"", "\"b\"", 1);
    let cases = [
        "a text",
        CALL,
        two.as_str(),
        "<think>\nwhy\n</think>\n\na text",
        "<tool_call>\n{\"name\": \"read\", \"arguments\": {}}\n</tool_call>\n",
        // A literal closing tag, an opening tag and an escaped quote inside JSON strings end nothing.
        r#"<tool_call>{"name": "w", "arguments": {"t": "</tool_call> \" <tool_call> \\"}}</tool_call>"#,
        r#"<tool_call>{"name": "w", "arguments": {"t": {"deep": [{"x": null}]}}}</tool_call>"#,
        "a text<|im_end|>",
    ];
    for text in cases {
        expect(&output(text), "", "");
        assert!(check(&output(text)).is_valid());
    }
    let with_text = format!("I will read it.\n{CALL}");
    expect(&output(&with_text), "", "");
}

#[test]
fn calls_that_do_not_end() {
    expect(&output(r#"<tool_call>{"name": "read", "arguments": {}}"#), "O04", "");
    expect(&output("<tool_call>{\"name\": \"read\", \"arguments\": {}} "), "O04", "");
    // Cut by the limit: O05. Cut though the model ended by itself: the reason disagrees, too.
    let cut = r#"<tool_call>{"name": "read", "argu"#;
    expect(&Output { finish: Finish::Length, ..output(cut) }, "O05", "O05");
    expect(&output(cut), "O05 O21", "O05 O21");
    expect(&Output { finish: Finish::Length, ..output("<tool_call>") }, "O05", "O05");
    expect(&Output { finish: Finish::Length, ..output(r#"<tool_call>{"a": "x</tool_cal"#) }, "O05", "O05");
}

#[test]
fn tags_out_of_place() {
    expect(&output("text</tool_call>"), "O06", "O06");
    expect(&output(&format!("<tool_call>{CALL}")), "O06", "O06");
    expect(&output(&format!("{CALL}</tool_call>")), "O06 O17", "O06 O17");
    let unclosed_then_next = format!(r#"<tool_call>{{"name": "read", "arguments": {{}}}}{CALL}"#);
    expect(&output(&unclosed_then_next), "O06", "O06");
}

#[test]
fn json_that_does_not_parse() {
    let call = |json: &str| format!("<tool_call>{json}</tool_call>");
    for json in [
        "",
        "not json",
        r#"{'name': 'read', 'arguments': {}}"#,
        r#"{"name": "read", "arguments": {}"#,
        r#"{"name": "read", "arguments": {},}"#,
        "{\"name\": \"read\", \"arguments\": {\"a\": \"line\nbreak\"}}",
        r#"{"name": "read", "arguments": {"a": "\x"}}"#,
        r#"{"name": "read", "arguments": {"a": "never closed}}"#,
        r#"{"name": "read", "arguments": {}} and more"#,
        r#"{"name": "read", "arguments": {}}}}}}"#,
        r#"{"name": "read", "arguments": {}}{"name": "read", "arguments": {}}"#,
    ] {
        expect(&output(&call(json)), "O07", "O07");
    }
    expect(&output(&call(r#"{"name": "read", "arguments": {}}}"#)), "O07", "");
    expect(&output(&call("{\"name\": \"read\", \"arguments\": {}}} }\n}")), "O07", "");
    let deep = format!(r#"{{"name": "r", "arguments": {}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
    expect(&output(&call(&deep)), "O07", "O07");
}

#[test]
fn json_of_another_shape() {
    let call = |json: &str| format!("<tool_call>{json}</tool_call>");
    for json in ["1", "\"read\"", "null", r#"[{"name": "read", "arguments": {}}]"#] {
        expect(&output(&call(json)), "O08", "O08");
    }
    for json in
        [r#"{"arguments": {}}"#, r#"{"name": 1, "arguments": {}}"#, r#"{"name": "", "arguments": {}}"#]
    {
        expect(&output(&call(json)), "O09", "O09");
    }
    expect(&output(&call(r#"{"arguments": {"name": "read", "path": "a"}}"#)), "O09", "");
    for json in [
        r#"{"name": "read"}"#,
        r#"{"name": "read", "arguments": null}"#,
        r#"{"name": "read", "arguments": ["a"]}"#,
        r#"{"name": "read", "parameters": {"path": "a"}}"#,
        r#"{"name": "read", "arguments": "not json"}"#,
        r#"{"name": "read", "arguments": "[1]"}"#,
    ] {
        expect(&output(&call(json)), "O10", "O10");
    }
    expect(&output(&call(r#"{"name": "read", "arguments": "{\"path\": \"a\"}"}"#)), "O10", "");
    expect(&output(&call(r#"{"name": "read", "arguments": {}, "id": 1}"#)), "O10", "");
    expect(&output(&call("{}")), "O09 O10", "O09 O10");
}

#[test]
fn tools_are_known_or_not() {
    let tools = ToolSchemas::new(&[json!({"name": "write"})]);
    expect(&Output { tools: &tools, ..output(CALL) }, "O11", "O11");
    let tools = ToolSchemas::new(&[json!({"name": "read"}), json!({"name": "write"})]);
    expect(&Output { tools: &tools, ..output(CALL) }, "", "");
}

fn edit_tool() -> ToolSchemas {
    let schema = json!({
        "type": "object", "required": ["path"], "additionalProperties": false,
        "properties": {
            "path": {"type": "string"}, "line": {"type": "integer", "minimum": 1},
            "mode": {"enum": ["r", "w"]}, "all": {"type": "boolean"},
        },
    });
    ToolSchemas::new(&[json!({"type": "function", "function": {"name": "edit", "parameters": schema}})])
}

#[test]
fn arguments_are_held_against_the_schema() {
    let tools = edit_tool();
    let with = |arguments: Value| {
        format!("<tool_call>{}</tool_call>", json!({"name": "edit", "arguments": arguments}))
    };
    for (arguments, codes) in [
        (json!({"path": "a", "line": 1, "mode": "w"}), ""),
        (json!({"line": 1}), "O12"),
        (json!({"path": "a", "force": 1}), "O13"),
        (json!({"path": 1}), "O14"),
        (json!({"path": "a", "mode": "x"}), "O15"),
        (json!({"path": "a", "line": 0}), "O15"),
        (json!({"line": "1", "force": 1}), "O12 O13 O14"),
    ] {
        let text = with(arguments);
        expect(&Output { tools: &tools, ..output(&text) }, codes, codes);
        // A call that the schema refuses is a call all the same: the finish reason agrees with it.
        expect(&Output { tools: &tools, finish: Finish::ToolCalls, ..output(&text) }, codes, codes);
        expect(&output(&text), "", "");
    }
    let repaired = r#"<tool_call>{"name": "edit", "arguments": "{\"line\": 1}"}</tool_call>"#;
    expect(&Output { tools: &tools, ..output(repaired) }, "O10 O12", "O12");
}

#[test]
fn other_families() {
    let xml = "<function=edit>\n<parameter=path>\na b\n</parameter>\n<parameter=line>\n3\n</parameter>\n</function>";
    let wrapped = format!("<tool_call>\n{xml}\n</tool_call>");
    let tools = edit_tool();
    for text in [xml, &wrapped] {
        expect(&Output { tools: &tools, ..output(text) }, "O16", "");
        assert!(
            !check(&Output { tools: &tools, ..output(text) }).is_valid(),
            "a repaired call is never valid"
        );
    }
    let wrong = wrapped.replace("\n3\n", "\nthree\n");
    expect(&Output { tools: &tools, ..output(&wrong) }, "O14 O16", "O14");
    // Without a call in the strict reading the reason disagrees; the repair finds the call.
    expect(&Output { tools: &tools, finish: Finish::ToolCalls, ..output(&wrapped) }, "O16 O21", "");
    for cut in ["<function=edit>", "<function=edit>\nx</function>"] {
        expect(&output(cut), "O16", "O16");
    }
    let cut = "<tool_call>\n<function=edit>\n<parameter=path>\na";
    expect(&Output { finish: Finish::Length, ..output(cut) }, "O05 O16", "O05 O16");
    expect(&Output { tools: &tools, ..output(&format!("<tool_call>\n{xml}")) }, "O04 O16", "");
    for foreign in [
        "[TOOL_CALLS]edit[ARGS]{\"path\": \"a\"}",
        "[TOOL_CALLS] [{\"name\": \"edit\", \"arguments\": {}}]",
        "I edit:\n```json\n{\"name\": \"edit\", \"arguments\": {\"path\": \"a\"}}\n```\n",
        "[edit(path=\"a\")]",
    ] {
        expect(&Output { tools: &tools, ..output(foreign) }, "O16", "O16");
    }
    for plain in [
        "```json\n{\"name\": \"a package\"}\n```",
        "```\nfn main() {}\n```",
        "[see(also)]",
        "a list [1, f(2)]",
        "write <function=[a name]> or <function=> for [TOOL_CALLS]",
    ] {
        expect(&Output { tools: &tools, ..output(plain) }, "", "");
    }
    let inside =
        r#"<tool_call>{"name": "edit", "arguments": {"path": "<function=x>[TOOL_CALLS]"}}</tool_call>"#;
    expect(&Output { tools: &tools, ..output(inside) }, "", "");
}

#[test]
fn the_same_call_twice() {
    expect(&output(&CALL.repeat(2)), "O25", "O25");
    let other_order = [r#"{"a": 1, "b": 2}"#, r#"{"b": 2, "a": 1}"#]
        .map(|arguments| format!(r#"<tool_call>{{"name": "r", "arguments": {arguments}}}</tool_call>"#));
    expect(&output(&other_order.concat()), "O25", "O25");
    expect(&output(&format!("{CALL}{}", CALL.replace("read", "write"))), "", "");
}

#[test]
fn characters_that_are_cut() {
    expect(&output("a \u{fffd}"), "O26", "O26");
    expect(&output("<think>\u{fffd}</think>a"), "O26", "O26");
    expect(&output("a \u{1f600}"), "", "");
    let call =
        |text: &str| format!(r#"<tool_call>{{"name": "r", "arguments": {{"a": "{text}"}}}}</tool_call>"#);
    expect(&output(&call(r"\ud83d")), "O26", "O26");
    expect(&output(&call(r"\ud83d\ude00")), "", "");
    expect(&output(&call(r"\\ud83d")), "", "");
    // It is a call all the same.
    expect(&Output { finish: Finish::ToolCalls, ..output(&call(r"\ud83d")) }, "O26", "O26");
    expect(&output(r#"<tool_call>{"name": "r", "arguments": {"a": NaN}}</tool_call>"#), "O07", "O07");
}

#[test]
fn content_between_calls_and_specials() {
    expect(&output(&format!("{CALL} and {}", CALL.replace("read", "write"))), "O17", "O17");
    for special in ["<|im_start|>", "<|endoftext|>", "<tool_response>", "</tool_response>"] {
        expect(&output(&format!("a {special} b")), "O22", "O22");
    }
    expect(&output("two <|im_end|> ends<|im_end|>"), "O22", "O22");
    let inside = CALL.replace("\"a\"", "\"<|im_start|>\"");
    expect(&output(&inside), "", "");
}

#[test]
fn reasoning() {
    expect(&Output { finish: Finish::Length, ..output("<think>and on") }, "O19", "O19");
    expect(&output("<think>and on"), "O19 O21", "O19 O21");
    expect(&output("<think> </think>text"), "O20", "O20");
    expect(&output("<think>a</think>b<think>c</think>"), "O20", "O20");
    expect(&output("a</think>b"), "O20", "O20");
    expect(&output("<think>a<think>b</think>text"), "O20", "O20");
    expect(&Output { thinking: Thinking::Off, ..output("<think>a</think>text") }, "O20", "O20");
    expect(&Output { thinking: Thinking::OpenedInPrompt, ..output("why</think>text") }, "", "");
    expect(&Output { thinking: Thinking::OpenedInPrompt, ..output("why, and on") }, "O19 O21", "O19 O21");
    expect(&Output { thinking: Thinking::OpenedInPrompt, ..output("<think>why</think>text") }, "O20", "O20");
    expect(&output(&format!("<think>{CALL}</think>text")), "O18", "O18");
}

#[test]
fn finish_reasons() {
    let with = |finish, text| Output { finish, ..output(text) };
    expect(&with(Finish::Stop, "text"), "", "");
    expect(&with(Finish::Stop, CALL), "O21", "O21");
    expect(&with(Finish::ToolCalls, CALL), "", "");
    expect(&with(Finish::ToolCalls, "text"), "O21", "O21");
    expect(&with(Finish::Length, "a text that just st"), "", "");
    expect(&with(Finish::EndToken, CALL), "", "");
    // Strictly there is no call; the repair finds one.
    let repaired = r#"<tool_call>{"name": "read", "arguments": {}}"#;
    expect(&with(Finish::ToolCalls, repaired), "O04 O21", "");
}

#[test]
fn repetition() {
    let ids = [7; 8];
    expect(&Output { token_ids: &ids, ..output("aaaaaaaa") }, "O23", "O23");
    expect(&Output { token_ids: &ids[..7], ..output("aaaaaaa") }, "", "");
    let looped: Vec<u32> = [1, 2, 3].into_iter().chain([5, 6, 7, 8].into_iter().cycle().take(16)).collect();
    expect(&Output { token_ids: &looped, finish: Finish::Length, ..output("x") }, "O23", "O23");
    expect(&Output { token_ids: &looped, ..output("x") }, "", "");
    expect(&Output { token_ids: &looped[..18], finish: Finish::Length, ..output("x") }, "", "");
    let counting: Vec<u32> = (0..64).collect();
    expect(&Output { token_ids: &counting, finish: Finish::Length, ..output("x") }, "", "");
    expect(&output(&CALL.repeat(2)), "O25", "O25");
    expect(&output(&CALL.repeat(3)), "O23 O25", "O23 O25");
}

#[test]
fn nothing_at_all() {
    for text in ["", " \n", "<|im_end|>"] {
        expect(&output(text), "O24", "O24");
    }
    expect(&output("<think>why</think>\n"), "O24", "O24");
    expect(&Output { finish: Finish::Length, ..output("<think>why") }, "O19", "O19");
}

#[test]
fn the_recorded_turn_is_information_and_never_decides() {
    let with = |calls, text| Output { calls_recorded: Some(calls), ..output(text) };
    expect(&with(1, "text"), "O01", "O01");
    expect(&with(0, CALL), "O02", "O02");
    expect(&with(2, CALL), "O03", "O03");
    expect(&with(1, CALL), "", "");
    expect(&with(0, "text"), "", "");
    for (calls, text) in [(1, "text"), (0, CALL), (2, CALL)] {
        assert!(check(&with(calls, text)).is_valid());
    }
}

#[test]
fn a_repaired_call_is_never_valid() {
    let verdict = check(&output(r#"<tool_call>{"name": "read", "arguments": {}}"#));
    assert!(verdict.lenient.is_empty() && !verdict.is_valid());
}

#[test]
fn the_lists_are_closed() {
    for (nth, (code, rule)) in RULES.iter().enumerate() {
        assert_eq!(code.as_str(), format!("O{:02}", nth + 1), "each code once, in order");
        assert!(rule.len() > 15);
    }
    let repaired: Vec<&str> = REPAIRS.iter().map(|(code, _)| code.as_str()).collect();
    assert_eq!(
        repaired,
        ["O04", "O07", "O09", "O10", "O10", "O16"],
        "adding a repair changes what `lenient` means"
    );
}

/// The document has a row for every code and every repair, word for word, and no other.
#[test]
fn the_document_lists_every_code() {
    let document = include_str!("../../../docs/validity.md");
    let escaped = |text: &str| text.replace('|', "\\|");
    let requests = transcripts::structure::RULES.iter().map(|rule| {
        let severity = format!("{:?}", rule.severity).to_lowercase();
        format!("| {} | {severity} | {} |", rule.code.as_str(), escaped(rule.text))
    });
    let outputs = RULES.iter().chain(&REPAIRS).map(|(code, text)| format!("| {code} | {} |", escaped(text)));
    let rows: Vec<String> = requests.chain(outputs).collect();
    let written: Vec<&str> =
        document.lines().filter(|line| line.starts_with("| R") || line.starts_with("| O")).collect();
    assert_eq!(written, rows);
}

proptest! {
    #[test]
    fn any_text_has_a_verdict(parts in prop::collection::vec(prop_oneof![
        Just("<tool_call>".to_owned()), Just("</tool_call>".to_owned()), Just("<think>".to_owned()),
        Just("</think>".to_owned()), Just(CALL.to_owned()), Just("\"".to_owned()), Just("\\".to_owned()),
        Just("{\"name\": \"r\", \"arguments\": ".to_owned()), Just("{}".to_owned()), Just("}".to_owned()),
        any::<String>(),
    ], 0..12)) {
        let text = parts.concat();
        for finish in [Finish::EndToken, Finish::Stop, Finish::ToolCalls, Finish::Length] {
            for thinking in [Thinking::Off, Thinking::Allowed, Thinking::OpenedInPrompt] {
                let verdict = check(&Output { finish, thinking, calls_recorded: Some(1), ..output(&text) });
                // Repairs lift codes; the only ones they may add compare with the number of calls, which they change.
                let added: Vec<_> = verdict.lenient.difference(&verdict.strict).collect();
                prop_assert!(added.iter().all(|code| {
                    matches!(code, Code::O02 | Code::O03 | Code::O21)
                }), "{added:?}");
            }
        }
    }
}
