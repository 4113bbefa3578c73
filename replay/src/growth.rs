//! Does a prompt extend the one before it? If not: which message is the first that differs, why, and what that costs. An arm
//! whose compression is append-only has no break of its own; the recording and the template may have some. Knows no backend
//! and no file.

use reports::record::PrefixBreak;
use transcripts::call::BreakCause;
use transcripts::message::{Message, Role};

use crate::backend::Growth;
use crate::compression::Policy;

/// The call before, in the same pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Previous {
    /// Its session.
    pub session_index: usize,
    /// Its messages as history keeps them.
    pub sent: Vec<Message>,
}

/// The break between two calls of one session; `None` where the prompt extends the one before. `recorded` is the cause of a
/// break that the recording itself holds, `policy` that of the arm.
pub fn prefix_break(
    previous: &[Message],
    sent: &[Message],
    growth: Growth,
    recorded: Option<BreakCause>,
    policy: Option<Policy>,
) -> Option<PrefixBreak> {
    if growth.shared == growth.previous {
        return None;
    }
    let same = previous.iter().zip(sent).take_while(|(old, new)| is_same(old, new)).count();
    let (message, cause) = match recorded {
        _ if same == previous.len() => (message_of_turn(previous, growth), BreakCause::Template.as_str()),
        Some(cause) => (Some(same), cause.as_str()),
        None if policy == Some(Policy::Rolling) => (Some(same), "ageing"),
        None => (Some(same), "compression"),
    };
    Some(PrefixBreak {
        message: message.map(|message| message as u64),
        cause: cause.to_owned(),
        tokens_lost: growth.previous - growth.shared,
    })
}

/// Whether two messages are the same to a template.
fn is_same(old: &Message, new: &Message) -> bool {
    old.role == new.role
        && old.content == new.content
        && old.reasoning == new.reasoning
        && old.tool_calls == new.tool_calls
        && old.name == new.name
}

/// The message that opens the turn in which the prompts part. Tool messages in a row share one turn; a turn that stands for
/// no message (a template's own system prompt) comes first.
fn message_of_turn(messages: &[Message], growth: Growth) -> Option<usize> {
    let opens =
        |at: &usize| messages[*at].role != Role::Tool || *at == 0 || messages[*at - 1].role != Role::Tool;
    let openers: Vec<usize> = (0..messages.len()).filter(opens).collect();
    let own = (growth.turns_previous as usize).checked_sub(openers.len())?;
    let turn = (growth.turns_shared as usize).saturating_sub(1).checked_sub(own)?;
    openers.get(turn).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(role: Role, text: &str) -> Message {
        Message::text(role, text)
    }

    fn growth(previous: u64, shared: u64, turns_previous: u64, turns_shared: u64) -> Growth {
        Growth { previous, shared, turns_previous, turns_shared }
    }

    #[test]
    fn a_prompt_that_extends_the_one_before_has_no_break() {
        let old = [said(Role::User, "a")];
        let new = [said(Role::User, "a"), said(Role::Assistant, "b")];
        assert_eq!(prefix_break(&old, &new, growth(9, 9, 1, 1), None, None), None);
    }

    #[test]
    fn a_message_that_changed_is_named_with_what_changed_it() {
        let old = [said(Role::User, "a"), said(Role::Tool, "long"), said(Role::Tool, "other")];
        let new = [said(Role::User, "a"), said(Role::Tool, "l"), said(Role::Tool, "other")];
        let found = prefix_break(&old, &new, growth(20, 12, 2, 2), None, Some(Policy::Rescore));
        let expected = PrefixBreak { message: Some(1), cause: "compression".to_owned(), tokens_lost: 8 };
        assert_eq!(found, Some(expected.clone()));
        let found = prefix_break(&old, &new, growth(20, 12, 2, 2), None, Some(Policy::Rolling));
        assert_eq!(found, Some(PrefixBreak { cause: "ageing".to_owned(), ..expected.clone() }));
        let found =
            prefix_break(&old, &new, growth(20, 12, 2, 2), Some(BreakCause::Rewind), Some(Policy::Rolling));
        assert_eq!(found, Some(PrefixBreak { cause: "rewind".to_owned(), ..expected }));
    }

    #[test]
    fn a_template_that_renders_the_same_messages_differently_is_named_with_its_turn() {
        let old = [
            said(Role::User, "a"),
            said(Role::Assistant, "b"),
            said(Role::Tool, "c"),
            said(Role::Tool, "d"),
            said(Role::Assistant, "e"),
        ];
        // The template puts a system prompt of its own first; the prompts part in the second assistant turn.
        let found = prefix_break(&old, &old, growth(50, 40, 5, 5), None, None).unwrap();
        assert_eq!((found.message, found.cause.as_str(), found.tokens_lost), (Some(4), "template", 10));
        let found = prefix_break(&old, &old, growth(50, 3, 5, 1), None, None).unwrap();
        assert_eq!(found.message, None, "the template's own turn is no message");
    }
}
