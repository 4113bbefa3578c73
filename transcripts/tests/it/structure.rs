//! Every request check on the smallest request that breaks it, and on the one that does not.

use transcripts::message::{Message, Part, Reasoning, Role, ToolCall};
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
    let findings = check_request(&request, &[]);
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
    let findings = check_request(&request.iter().collect::<Vec<_>>(), &[]);
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

#[test]
fn an_image_in_a_tool_result_is_not_text() {
    let image = Part::Image { media_type: "image/png".to_owned(), digest: "d".to_owned(), bytes_len: 3 };
    let with_image = Message { content: vec![image], ..result("a") };
    assert_eq!(found(&[user(), reads(&["a"]), with_image]), [(Code::R17, Some(2))]);
}

#[test]
fn a_session_is_checked_call_by_call() {
    let path = crate::golden::fixtures().join("client_text.jsonl");
    let import = transcripts::import::import(&[path], &Default::default()).unwrap();
    let findings = check_session(&import.sessions[0]);
    let seen: Vec<_> = findings.iter().map(|f| (f.code, f.call_index, f.message_index)).collect();
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
        let whole: Vec<_> =
            check_session(session).into_iter().filter(|finding| finding.code != Code::R20).collect();
        let mut apart = Vec::new();
        for call in 0..session.calls.len() {
            let mut of_call = check_request(&session.prefix(call), &session.tools);
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
