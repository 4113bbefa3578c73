//! O23: output that goes round in circles. Three stated rules, no score: one token alone, a short loop that runs into
//! the length limit, the same call again and again.

use crate::validity::Finish;
use crate::validity::call::CheckedCall;

/// Fewest tokens for "one token, nothing else".
pub const SINGLE_TOKENS_MIN: usize = 8;
/// Longest period of a loop, tokens.
pub const PERIOD_MAX: usize = 8;
/// Fewest tokens that the loop at the end of the output must cover.
pub const LOOP_TOKENS_MIN: usize = 16;
/// Fewest times the loop must run.
pub const LOOP_TIMES_MIN: usize = 4;
/// Times the same call with the same arguments may not be reached.
pub const SAME_CALL_TIMES: usize = 3;

/// One token repeated throughout, or the end of an output that ran into its limit is a short loop.
pub fn is_loop(token_ids: &[u32], finish: Finish) -> bool {
    let is_single =
        token_ids.len() >= SINGLE_TOKENS_MIN && token_ids.windows(2).all(|pair| pair[0] == pair[1]);
    let is_tail_loop = |period: usize| {
        let covered = period
            + token_ids
                .iter()
                .rev()
                .zip(token_ids.iter().rev().skip(period))
                .take_while(|(a, b)| a == b)
                .count();
        token_ids.len() > period && covered >= LOOP_TOKENS_MIN.max(period * LOOP_TIMES_MIN)
    };
    is_single || (finish == Finish::Length && (1..=PERIOD_MAX).any(is_tail_loop))
}

/// The same name with the same arguments, [`SAME_CALL_TIMES`] times or more in one output.
pub fn is_same_call_again(calls: &[&CheckedCall]) -> bool {
    calls.iter().any(|call| calls.iter().filter(|other| other == &call).count() >= SAME_CALL_TIMES)
}

/// O25: two calls of the same name with the same arguments, in whatever order their keys stand.
pub fn is_duplicate_call(calls: &[&CheckedCall]) -> bool {
    calls.iter().enumerate().any(|(nth, call)| calls[..nth].contains(call))
}
