//! The time between calls on the mock: what is prefilled there, what the recorded gaps hide of it, and what calls wait for.

use replay::backend::mock::{FRAME_TOKENS, MockBackend, PREFILL_PER_TOKEN};
use replay::plan::Plan;
use replay::sessions::SourcedSession;
use reports::record::CallRecord;
use transcripts::session::Session;

use crate::fixture::{self, plan, records, run, session, sourced};

/// Four calls; tool result k has 10 k words.
fn with_gaps(id: &str, gaps_ms: [Option<u64>; 4]) -> Session {
    let mut session = session(id, 4);
    for (call, gap_ms) in session.calls.iter_mut().zip(gaps_ms) {
        call.gap_ms = gap_ms;
    }
    session
}

fn replayed(arms: &[&str], sessions: &[SourcedSession]) -> (Plan, Vec<CallRecord>) {
    let plan = plan(fixture::settings(), arms, sessions);
    let dir = tempfile::tempdir().unwrap();
    run(&plan, sessions, &mut MockBackend::default(), dir.path(), None).unwrap();
    (plan, records(dir.path()))
}

#[test]
fn what_a_gap_does_not_hide_is_waited_for_and_counted_in_ttft() {
    // The backfills before the third and the fourth call are of 12 and 22 tokens, 1.2 and 2.2 ms.
    let sessions = sourced(vec![with_gaps("s", [None, Some(7), Some(1), None])]);
    let (plan, calls) = replayed(&["latency-only"], &sessions);
    assert_eq!(reports::check::check_run(&calls), []);
    let ms_per_token = PREFILL_PER_TOKEN.as_secs_f64() * 1e3;
    let tokens: Vec<Option<u64>> = calls.iter().map(|call| call.tokens_backfilled).collect();
    assert_eq!(tokens, [None, None, Some(FRAME_TOKENS + 10), Some(FRAME_TOKENS + 20)]);
    let gaps: Vec<Option<f64>> = calls.iter().map(|call| call.gap_ms).collect();
    assert_eq!(gaps, [None, Some(7.0), Some(1.0), None]);
    for (call, (gap_ms, blocked_ms)) in calls[2..].iter().zip([(1.0, 0.2), (0.0, 2.2)]) {
        let backfill_ms = call.tokens_backfilled.unwrap() as f64 * ms_per_token;
        assert!((call.backfill_ms.unwrap() - backfill_ms).abs() < 1e-9);
        assert!((call.spans_ms.blocked.unwrap() - blocked_ms).abs() < 1e-9, "{:?}", call.spans_ms);
        assert!((backfill_ms - gap_ms - blocked_ms).abs() < 1e-9);
        let spans: f64 = call.spans_ms.named().iter().filter_map(|(_, ms)| *ms).sum();
        assert!((spans - call.ttft_ms.unwrap()).abs() < 1e-9, "what is waited for is in TTFT");
    }
    assert!(
        plan.notes.iter().any(|note| note.starts_with("arm latency-only: calls without a recorded gap")
            && note.ends_with(": 1")),
        "{:?}",
        plan.notes
    );

    let unhurried = sourced(vec![with_gaps("s", [None, Some(7), Some(9), Some(9)])]);
    let (plan, hidden) = replayed(&["latency-only"], &unhurried);
    assert!(plan.notes.iter().all(|note| !note.contains("recorded gap")), "{:?}", plan.notes);
    for (hidden, waited) in hidden.iter().zip(&calls).skip(2) {
        assert_eq!(
            (hidden.spans_ms.blocked, hidden.tokens_backfilled),
            (Some(0.0), waited.tokens_backfilled)
        );
        let difference = waited.ttft_ms.unwrap() - hidden.ttft_ms.unwrap();
        assert!((difference - waited.spans_ms.blocked.unwrap()).abs() < 1e-9);
        assert_eq!(hidden.decode_ms, waited.decode_ms);
    }
}

#[test]
fn the_last_call_of_a_session_leaves_nothing_and_other_arms_never_do() {
    let sessions = sourced(vec![with_gaps("a", [None; 4]), with_gaps("b", [None; 4])]);
    let (_, calls) =
        replayed(&["cold", "cache-only", "cache+compression", "rolling", "latency-only"], &sessions);
    for call in &calls {
        let expected = call.arm == "latency-only" && call.call_index > 1;
        assert_eq!(call.tokens_backfilled.is_some(), expected, "{} call {}", call.arm, call.call_index);
        assert_eq!(call.backfill_ms.is_some(), expected);
        assert_eq!(call.spans_ms.blocked.is_some(), expected);
    }
}

#[test]
fn history_is_reused_as_far_as_without_compression() {
    let sessions = sourced(vec![with_gaps("s", [None; 4])]);
    let (_, calls) = replayed(&["cache-only", "latency-only"], &sessions);
    let (plain, passing): (Vec<_>, Vec<_>) = calls.iter().partition(|call| call.arm == "cache-only");
    for (plain, passing) in plain.iter().zip(&passing) {
        assert_eq!(plain.tokens_prefix_hit, passing.tokens_prefix_hit, "call {}", plain.call_index);
        let removed = passing.tokens_removed.unwrap();
        assert_eq!(removed > 0, passing.call_index > 0);
        assert_eq!(passing.messages_compressed, Some(u64::from(passing.call_index > 0)));
    }
}
