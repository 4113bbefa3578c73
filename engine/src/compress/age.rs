//! The age of a tool message within a prompt, told by what stands behind it: a pure function of the messages, so that the
//! same prompt ages in the same way in every run. Knows messages; knows no score and no memo.

use transcripts::message::{Message, Role};

/// The first message that has not aged: the tool messages before it have at least `keep_verbatim_newest` newer ones. The end
/// of the prompt where that is 0, its start where there are fewer tool messages.
pub fn aged_before(messages: &[&Message], keep_verbatim_newest: usize) -> usize {
    let Some(nth) = keep_verbatim_newest.checked_sub(1) else { return messages.len() };
    let mut newest_first = (0..messages.len()).rev().filter(|&index| messages[index].role == Role::Tool);
    newest_first.nth(nth).unwrap_or(0)
}

/// The first message behind the last turn of the model: what it answers for the first time.
pub fn new_from(messages: &[&Message]) -> usize {
    messages.iter().rposition(|message| message.role == Role::Assistant).map_or(0, |turn| turn + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prompt by the first letters of its roles.
    fn prompt(roles: &str) -> Vec<Message> {
        let role = |letter| match letter {
            's' => Role::System,
            'u' => Role::User,
            'a' => Role::Assistant,
            't' => Role::Tool,
            other => panic!("no role begins with {other}"),
        };
        roles.chars().map(|letter| Message::text(role(letter), "text")).collect()
    }

    #[test]
    fn the_newest_tool_messages_are_young_and_all_before_them_have_aged() {
        for (roles, newest, expected) in [
            ("", 1, 0),
            ("su", 1, 0),
            ("suat", 0, 4),
            ("suat", 1, 3),
            ("suat", 2, 0),
            ("suatat", 1, 5),
            ("suatat", 2, 3),
            ("suattt", 1, 5),
            ("suatau", 1, 3),
            ("suatat", 3, 0),
        ] {
            let messages = prompt(roles);
            let messages: Vec<&Message> = messages.iter().collect();
            assert_eq!(aged_before(&messages, newest), expected, "{roles} {newest}");
            let n_young = messages[expected..].iter().filter(|message| message.role == Role::Tool).count();
            assert!(n_young <= newest, "{roles} {newest}");
        }
    }

    #[test]
    fn what_stands_behind_the_last_turn_is_new() {
        for (roles, expected) in [("", 0), ("su", 0), ("sua", 3), ("suatt", 3), ("suatatu", 5)] {
            let messages = prompt(roles);
            assert_eq!(new_from(&messages.iter().collect::<Vec<_>>()), expected, "{roles}");
        }
    }
}
