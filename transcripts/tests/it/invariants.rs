//! What must hold for every session an import gives, whatever the input was.

use transcripts::canonical;
use transcripts::import::Import;
use transcripts::message::Role;
use transcripts::session::{SourceFormat, System};

/// Panics where an import breaks an invariant: indices in range, completions by the assistant, calls in the order of
/// their lines, unique ids, breaks where and only where a prefix does not extend, and a lossless canonical form.
pub fn check(import: &Import) {
    sound(import);
    for session in &import.sessions {
        let origins = (0..session.calls.len()).map(|call| session.completion(call).unwrap().origin);
        let lines: Vec<(u32, u32)> = origins.map(|origin| (origin.file, origin.line)).collect();
        let one_file = session.files.len() == 1;
        assert!(!one_file || lines.is_sorted(), "{}: calls out of order: {lines:?}", session.id);
    }
}

/// As [`check`], without the order of the lines: where a log's lines were moved, a turn may stand in the history of a
/// request before the line that asked for it.
pub fn sound(import: &Import) {
    let mut ids = std::collections::HashSet::new();
    for session in &import.sessions {
        assert!(ids.insert(&session.id), "{} twice", session.id);
        assert!(!session.calls.is_empty(), "{} has no calls", session.id);
        canonical::check(session, "memory").unwrap();
        for message in &session.messages {
            assert!((message.origin.file as usize) < session.files.len());
        }
        for pair in session.calls.windows(2) {
            let mut left = pair[0].prefix.clone();
            left.push(pair[0].completion);
            let shared = left.iter().zip(&pair[1].prefix).take_while(|(a, b)| a == b).count();
            let recorded = pair[1].prefix_break.map(|record| record.shared_messages as usize);
            assert_eq!(recorded, (shared < left.len()).then_some(shared), "{}", session.id);
        }
        for call in 0..session.calls.len() {
            let prefix = session.prefix(call);
            let recorded = prefix.first().is_some_and(|message| message.role == Role::System);
            assert!(call > 0 || recorded == (session.system == System::Recorded), "{}", session.id);
            let has_system = prefix.iter().any(|message| message.role == Role::System);
            assert!(!has_system || session.format != SourceFormat::ClaudeCode, "{}", session.id);
            let turn = session.completion(call).unwrap();
            assert!(!session.calls[call].prefix.contains(&session.calls[call].completion), "{turn:?}");
        }
        let bytes = serde_json::to_vec(session).unwrap();
        assert_eq!(&serde_json::from_slice::<transcripts::session::Session>(&bytes).unwrap(), session);
    }
}
