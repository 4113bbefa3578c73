//! Where messages stand in a rendered prompt. Templates are programs, so nothing is guessed: the prompt is rendered once
//! more with a mark before the content of each message, and the marks are looked up. Knows no token.

use std::ops::Range;

use transcripts::message::{Message, Role};

use super::template::{ChatTemplate, Generation, Thinking};
use crate::error::EngineError;

/// Bytes of a text that a message's content takes; `None` for a turn of the model, whose content a template may take apart,
/// and for a message that the template does not write as it is.
pub type Place = Option<Range<usize>>;

/// First characters that may serve as a mark: a plane for private use, of which no message is likely to hold even one.
const MARKS: Range<u32> = 0xF0000..0xF1000;

impl ChatTemplate {
    /// Where the content of each message stands in `text`, the rendering of these arguments. No message has a place where
    /// the template writes another text once marks are there.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn places(
        &self,
        text: &str,
        messages: &[&Message],
        tools: &[serde_json::Value],
        generation: Generation,
        thinking: Thinking,
    ) -> Result<Vec<Place>, EngineError> {
        let nowhere = vec![None; messages.len()];
        let Some(mark) = MARKS.filter_map(char::from_u32).find(|mark| !text.contains(*mark)) else {
            return Ok(nowhere);
        };
        let is_marked = |message: &Message| message.role != Role::Assistant;
        let prefix = |message: &Message| is_marked(message).then_some(mark);
        let marked = self.render_with(messages, prefix, tools, generation, thinking)?;
        let starts: Vec<usize> = marked
            .match_indices(mark)
            .enumerate()
            .map(|(n_before, (at, _))| at - n_before * mark.len_utf8())
            .collect();
        let n_marked = messages.iter().filter(|message| is_marked(message)).count();
        if starts.len() != n_marked || marked.replace(mark, "") != text {
            return Ok(nowhere);
        }
        let mut starts = starts.into_iter();
        let place = |message: &&Message| {
            let start = if is_marked(message) { starts.next()? } else { return None };
            let content = message.flat_text();
            text[start..].starts_with(&content).then(|| start..start + content.len())
        };
        Ok(messages.iter().map(place).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::TemplateOrigin;

    fn history() -> Vec<Message> {
        vec![
            Message::text(Role::System, "  Be short.\n"),
            Message::text(Role::User, "what is it?"),
            Message::text(Role::Assistant, "what is it?"),
            Message::text(Role::Tool, ""),
            Message::text(Role::Tool, "what is it?\n \u{F0000}é"),
            Message::text(Role::User, "what is it?"),
        ]
    }

    fn places(template: &ChatTemplate) -> (String, Vec<Place>) {
        let messages = history();
        let messages: Vec<&Message> = messages.iter().collect();
        let text = template.render(&messages, &[], Generation::Prompt, Thinking::Default).unwrap();
        let places = template.places(&text, &messages, &[], Generation::Prompt, Thinking::Default).unwrap();
        (text, places)
    }

    #[test]
    fn each_content_is_found_where_it_stands_even_if_another_says_the_same() {
        let (text, places) = places(&ChatTemplate::built_in().unwrap());
        let found: Vec<Option<&str>> =
            places.iter().map(|place| place.clone().map(|place| &text[place])).collect();
        let contents: Vec<String> = history().iter().map(Message::flat_text).collect();
        for (index, content) in contents.iter().enumerate() {
            assert_eq!(found[index], (index != 2).then_some(content.as_str()), "message {index}");
        }
        let starts: Vec<usize> = places.into_iter().flatten().map(|place| place.start).collect();
        assert!(starts.is_sorted(), "{starts:?}");
    }

    #[test]
    fn a_template_that_changes_or_drops_content_gives_no_place_for_it() {
        let template = |source| ChatTemplate::new(source, TemplateOrigin::BuiltIn).unwrap();
        let upper = "{% for m in messages %}{{ m.content | upper }}\n{% endfor %}";
        assert!(places(&template(upper)).1.iter().flatten().all(|place| place.is_empty()));
        let first = "{{ messages[1].content }}";
        assert!(places(&template(first)).1.iter().all(Option::is_none));
        let twice = "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}";
        assert!(places(&template(twice)).1.iter().all(Option::is_none));
        let trimmed = "{% for m in messages %}{{ m.content | trim }}{% endfor %}";
        assert!(
            places(&template(trimmed)).1.iter().all(Option::is_none),
            "the system prompt has leading blanks"
        );
    }
}
