//! Every request check on the smallest request that breaks it, and on the one that does not.

use serde_json::json;
use transcripts::call::{Call, Usage};
use transcripts::message::{Message, Part, Reasoning, Role, ToolCall};
use transcripts::schema::ToolSchemas;
use transcripts::structure::{Code, RULES, Severity, check_request, check_session};

fn user() -> Message {
    Message::text(Role::User, "go")
}

fn turn(calls: &[(&str, &str, &str)]) -> Message {
    let call = |&(id, name, arguments): &(&str, &str, &str)| ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
    };
    Message {
        content: Vec::new(),
        tool_calls: calls.iter().map(call).collect(),
        ..Message::text(Role::Assistant, "")
    }
}

fn reads(ids: &[&str]) -> Message {
    turn(&ids.iter().map(|&id| (id, "Read", "{}")).collect::<Vec<_>>())
}

fn result(id: &str) -> Message {
    Message { tool_call_id: Some(id.to_owned()), ..Message::text(Role::Tool, "out") }
}

fn found(messages: &[Message]) -> Vec<(Code, Option<u32>)> {
    let request: Vec<&Message> = messages.iter().collect();
    let findings = check_request(&request, &ToolSchemas::default());
    findings.iter().map(|finding| (finding.code, finding.message_index)).collect()
}

#[test]
fn a_sound_request_has_no_findings() {
    let system = Message::text(Role::System, "s");
    let sound = [
        system,
        user(),
        reads(&["a", "b"]),
        result("a"),
        result("b"),
        Message::text(Role::Assistant, "x"),
        user(),
    ];
    assert_eq!(found(&sound), []);
}

#[test]
fn roles_and_ends() {
    let system = || Message::text(Role::System, "s");
    assert_eq!(found(&[]), [(Code::R01, None)]);
    assert_eq!(found(&[system()]), [(Code::R01, None), (Code::R03, Some(0))]);
    assert_eq!(found(&[user(), system(), user()]), [(Code::R02, Some(1))]);
    assert_eq!(found(&[user(), Message::text(Role::Assistant, "x")]), [(Code::R03, Some(1))]);
}

#[test]
fn the_form_of_a_turn() {
    let cases: [(Message, &[Code]); 9] = [
        (turn(&[]), &[Code::R04]),
        (Message { reasoning: Some(Reasoning::Hidden), ..turn(&[]) }, &[Code::R04]),
        (turn(&[("", "Read", "{}")]), &[Code::R05]),
        (turn(&[("a", "Re ad", "{}")]), &[Code::R05]),
        (turn(&[("a", "", "{}")]), &[Code::R05]),
        (reads(&["a", "a"]), &[Code::R06]),
        (turn(&[("a", "Read", "{\"x\":")]), &[Code::R12]),
        (turn(&[("a", "Read", "{} {}")]), &[Code::R12]),
        (turn(&[("a", "Read", "[1]")]), &[Code::R13]),
    ];
    for (message, expected) in cases {
        let mut request = vec![user(), message.clone()];
        request.extend(message.tool_calls.iter().take(1).map(|call| result(&call.id)));
        request.push(user());
        let codes: Vec<Code> = found(&request).into_iter().map(|(code, _)| code).collect();
        assert_eq!(codes, expected, "{message:?}");
    }
}

#[test]
fn empty_arguments_are_information() {
    let request = [user(), turn(&[("a", "Read", "")]), result("a")];
    let findings = check_request(&request.iter().collect::<Vec<_>>(), &ToolSchemas::default());
    let seen: Vec<_> = findings.iter().map(|finding| (finding.code, finding.severity)).collect();
    assert_eq!(seen, [(Code::R13, Severity::Info)]);
}

#[test]
fn calls_and_results() {
    let text = || Message::text(Role::Assistant, "x");
    type Case = (&'static str, Vec<Message>, &'static [(Code, Option<u32>)]);
    let cases: [Case; 8] = [
        ("no result", vec![user(), reads(&["a"]), user()], &[(Code::R08, Some(1))]),
        ("two results", vec![user(), reads(&["a"]), result("a"), result("a")], &[(Code::R08, Some(3))]),
        ("no call at all", vec![user(), result("a")], &[(Code::R09, Some(1))]),
        (
            "an earlier turn's call",
            vec![user(), reads(&["a"]), result("a"), text(), result("a")],
            &[(Code::R09, Some(4))],
        ),
        ("something between", vec![user(), reads(&["a"]), user(), result("a")], &[(Code::R10, Some(3))]),
        (
            "another order",
            vec![user(), reads(&["a", "b"]), result("b"), result("a")],
            &[(Code::R11, Some(3))],
        ),
        (
            "an id again, each with its result",
            vec![user(), reads(&["a"]), result("a"), reads(&["a"]), result("a")],
            &[(Code::R07, Some(3))],
        ),
        (
            "a result without an id",
            vec![user(), reads(&["a"]), Message::text(Role::Tool, "out")],
            &[(Code::R08, Some(1)), (Code::R09, Some(2))],
        ),
    ];
    for (name, request, expected) in cases {
        assert_eq!(found(&request), expected, "{name}");
    }
}

fn image(media_type: &str) -> Part {
    Part::Image {
        media_type: media_type.to_owned(),
        digest: "d".to_owned(),
        bytes_len: 3,
        undecodable: false,
    }
}

#[test]
fn arguments_that_parsers_read_differently() {
    let codes = |arguments: &str| -> Vec<Code> {
        found(&[user(), turn(&[("a", "Read", arguments)]), result("a")])
            .into_iter()
            .map(|(code, _)| code)
            .collect()
    };
    for odd in [
        r#"{"a": 1, "a": 2}"#,
        r#"{"a": {"b": [{"c": 1, "c": 1}]}}"#,
        r#"{"a": "\udc00"}"#,
        r#"{"a": NaN}"#,
        r#"{"a": [-Infinity]}"#,
        r#"{"a": "\u0000"}"#,
    ] {
        assert_eq!(codes(odd), [Code::R14], "{odd}");
    }
    for plain in [r#"{"a": "\ud83d\ude00 NaN"}"#, r#"{"a": {"a": 1}, "b": {"a": 1}}"#] {
        assert_eq!(codes(plain), [], "{plain}");
    }
    assert_eq!(codes(r#"{"a": NaN"#), [Code::R12], "what no parser reads is no oddity");
    assert_eq!(codes(r#"[NaN]"#), [Code::R13, Code::R14]);
}

#[test]
fn calls_are_held_against_the_tools_of_the_request() {
    let schema = json!({"type": "object", "required": ["path"], "properties": {"path": {"type": "string"}}});
    let tools =
        ToolSchemas::new(&[json!({"type": "function", "function": {"name": "Read", "parameters": schema}})]);
    let details = |name: &str, arguments: &str| -> Vec<(Code, Severity, String)> {
        let request = [user(), turn(&[("a", name, arguments)]), result("a")];
        let all = check_request(&request.iter().collect::<Vec<_>>(), &tools).into_iter();
        all.map(|finding| (finding.code, finding.severity, finding.detail)).collect()
    };
    assert_eq!(details("Read", r#"{"path": "x"}"#), []);
    let missing = "a: required at the arguments: \"path\" is a required property".to_owned();
    assert_eq!(details("Read", r#"{"paht": "x"}"#), [(Code::R16, Severity::Warning, missing.clone())]);
    let empty: Vec<Code> = details("Read", "").into_iter().map(|(code, ..)| code).collect();
    assert_eq!(empty, [Code::R13, Code::R16], "empty arguments are {{}}");
    let [(code, _, detail)] = &details("Read", r#"{"path": 1}"#)[..] else { panic!("one finding") };
    assert!(*code == Code::R16 && detail.starts_with("a: type at /path: "), "{detail}");
    assert_eq!(details("Write", "{}"), [(Code::R15, Severity::Warning, "a: no tool \"Write\"".to_owned())]);
    let unknown = [user(), turn(&[("a", "Write", "{}")]), result("a")];
    assert_eq!(found(&unknown), [], "without tools nothing is known of names");
}

#[test]
fn images_are_placeholders() {
    let details = |part: Part| -> Vec<String> {
        let request = [Message { content: vec![part], ..user() }];
        let all = check_request(&request.iter().collect::<Vec<_>>(), &ToolSchemas::default()).into_iter();
        all.map(|finding| format!("{}: {}", finding.code.as_str(), finding.detail)).collect()
    };
    assert_eq!(
        details(image("image/png")),
        ["R18: image/png of 3 bytes is a placeholder: the models replayed read text alone"]
    );
    assert!(details(image("image/tiff"))[0].ends_with("not an image type that models read"));
    let Part::Image { media_type, digest, bytes_len, .. } = image("image/png") else { unreachable!() };
    let broken = Part::Image { media_type, digest, bytes_len, undecodable: true };
    assert!(details(broken)[0].ends_with("its base64 does not decode"));
    assert_eq!(details(Part::Text { text: "image/png".to_owned() }), Vec::<String>::new());
}

#[test]
fn neighbours_of_one_role() {
    let text = || Message::text(Role::Assistant, "x");
    assert_eq!(found(&[user(), user()]), [(Code::R19, Some(1))]);
    assert_eq!(found(&[user(), text(), text(), user()]), [(Code::R19, Some(2))]);
    assert_eq!(found(&[user(), text(), user()]), []);
}

#[test]
fn results_of_a_client() {
    let inserted = Message { synthetic: true, ..result("a") };
    let request = [user(), reads(&["a"]), inserted.clone()];
    let findings = check_request(&request.iter().collect::<Vec<_>>(), &ToolSchemas::default());
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].code, findings[0].severity), (Code::R21, Severity::Info));
    assert_eq!(findings[0].detail, "a: no result was recorded, \"out\" was sent", "the text is told");
    // A result that a client shortened was recorded.
    let shortened = Message { origin: transcripts::message::Origin { file: 0, line: 7 }, ..inserted };
    assert_eq!(found(&[user(), reads(&["a"]), shortened]), []);
}

/// A session of calls whose prefixes grow by ten chars a call, with these prompt tokens.
fn counted(tokens: &[u64]) -> transcripts::session::Session {
    let path = crate::golden::fixtures().join("f08_rewind.jsonl");
    let mut session = transcripts::import::import(&[path], &Default::default()).unwrap().sessions.remove(0);
    session.messages.clear();
    session.calls.clear();
    for (nth, &input) in (0_u32..).zip(tokens) {
        session.messages.push(Message::text(Role::User, "0123456789"));
        session.messages.push(Message::text(Role::Assistant, "0123456789"));
        session.calls.push(Call {
            prefix: (0..=2 * nth).collect(),
            completion: 2 * nth + 1,
            model: None,
            usage: Some(Usage { input, ..Usage::default() }),
            started_at: None,
            gap_ms: None,
            prefix_break: None,
        });
    }
    session
}

#[test]
fn the_providers_counts() {
    let places = |tokens: &[u64]| -> Vec<(Code, Option<u32>)> {
        check_session(&counted(tokens)).iter().map(|finding| (finding.code, finding.call_index)).collect()
    };
    let grows: Vec<u64> = (0..12).map(|nth| 5_000 + 20 * nth).collect();
    assert_eq!(places(&grows), []);
    assert_eq!(places(&[5_000, 4_800]), [], "counts differ by a few");
    assert_eq!(places(&[5_000, 4_799]), [(Code::R22, Some(1))]);
    let mut jumps = grows;
    jumps[3] = 9_000;
    assert_eq!(
        places(&jumps),
        [(Code::R22, Some(4)), (Code::R22, None)],
        "a shrink, and a line that fits badly"
    );
}

#[test]
fn an_image_in_a_tool_result_is_not_text() {
    let with_image = Message { content: vec![image("image/png")], ..result("a") };
    assert_eq!(
        found(&[user(), reads(&["a"]), with_image]),
        [(Code::R17, Some(2)), (Code::R18, Some(2))],
        "and it is a placeholder"
    );
}

#[test]
fn a_session_is_checked_call_by_call() {
    let path = crate::golden::fixtures().join("client_text.jsonl");
    let import = transcripts::import::import(&[path], &Default::default()).unwrap();
    let findings = check_session(&import.sessions[0]);
    // The client's own lines stand beside each other.
    let others = findings.iter().filter(|finding| finding.code != Code::R19);
    let seen: Vec<_> = others.map(|f| (f.code, f.call_index, f.message_index)).collect();
    assert_eq!(
        seen,
        [(Code::R08, Some(1), Some(4))],
        "the interrupted call has no result in the second request"
    );
    let path = crate::golden::fixtures().join("f08_rewind.jsonl");
    let import = transcripts::import::import(&[path], &Default::default()).unwrap();
    let findings = check_session(&import.sessions[0]);
    assert_eq!(findings.len(), 1);
    assert_eq!(
        (findings[0].code, findings[0].call_index, findings[0].message_index),
        (Code::R20, Some(2), Some(2))
    );
    assert_eq!(findings[0].detail, "rewind: 2 messages shared, 5 of 18 chars");
}

#[test]
fn the_session_check_is_the_request_check_of_every_call() {
    let import = transcripts::import::import(&[crate::golden::fixtures()], &Default::default()).unwrap();
    for session in &import.sessions {
        let whole: Vec<_> = check_session(session)
            .into_iter()
            .filter(|finding| !matches!(finding.code, Code::R20 | Code::R22))
            .collect();
        let tools = ToolSchemas::new(&session.tools);
        let mut apart = Vec::new();
        for call in 0..session.calls.len() {
            let mut of_call = check_request(&session.prefix(call), &tools);
            of_call.iter_mut().for_each(|finding| finding.call_index = Some(call as u32));
            apart.append(&mut of_call);
        }
        assert_eq!(whole, apart, "{}", session.id);
    }
}

#[test]
fn every_rule_says_something() {
    for rule in RULES {
        assert!(rule.text.len() > 20, "{:?}", rule.code);
    }
}
