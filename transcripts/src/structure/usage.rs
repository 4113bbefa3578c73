//! Checks of the provider's token counts against the rebuilt requests: R22, for a session as a whole.

use super::{Code, Finding};
use crate::session::Session;
use crate::token_fit::token_fit;

/// Prompt tokens that a request may have fewer than the one it extends: counts of one provider differ by a few.
const SHRINK_TOKENS: u64 = 200;

/// The count of a call that extends the one before it and is smaller all the same.
pub(super) fn shrink(session: &Session, nth: usize) -> Option<Finding> {
    let call = session.calls.get(nth)?;
    let before = session.calls.get(nth.checked_sub(1)?)?.usage?.prompt_tokens();
    let now = call.usage?.prompt_tokens();
    let shrinks = call.prefix_break.is_none() && now.saturating_add(SHRINK_TOKENS) < before;
    shrinks.then(|| {
        let detail = format!("{now} prompt tokens after {before}, though the request is longer");
        Finding { call_index: u32::try_from(nth).ok(), ..Finding::new(Code::R22, None, detail) }
    })
}

/// The line through sizes and counts is too bad for a faithful rebuild.
pub(super) fn bad_fit(session: &Session) -> Option<Finding> {
    let fit = token_fit(session).filter(|fit| fit.is_suspect)?;
    let detail = format!(
        "R2 {:.4} over {} calls: the rebuild is wrong, or the recording was edited",
        fit.r2, fit.calls
    );
    Some(Finding::new(Code::R22, None, detail))
}
