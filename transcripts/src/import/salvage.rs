//! What can be kept of a JSON document that is cut off or damaged: everything before the damage, back to the last whole
//! element of an outer list or member of the document, with the open brackets closed. Knows JSON's brackets and strings, no format.

/// Elements of lists that lie deeper than this are not worth keeping by themselves: they are parts of a message.
const MAX_DEPTH: usize = 2;

/// The document up to the last whole member, or the last whole object or list inside an outer list, before `end`,
/// closed; `None` when there is none.
pub(super) fn close_before(text: &[u8], end: usize) -> Option<Vec<u8>> {
    let text = text.get(..end).unwrap_or(text);
    let mut open: Vec<u8> = Vec::new();
    // Behind the last element worth keeping only brackets open, so what was open there still lies on the stack.
    let mut kept: Option<(usize, usize)> = None;
    let (mut in_string, mut escaped) = (false, false);
    for (at, &byte) in text.iter().enumerate() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' => open.push(b'}'),
            b'[' => open.push(b']'),
            b'}' | b']' => {
                open.pop();
                let is_element = open.len() <= MAX_DEPTH && open.last() == Some(&b']');
                if is_element || kept.is_some_and(|(_, depth)| depth > open.len()) {
                    kept = Some((at + 1, open.len()));
                }
            }
            // Before a comma of the outermost object a whole member ends.
            b',' if open == b"}" => kept = Some((at, 1)),
            _ => {}
        }
    }
    let (length, depth) = kept?;
    let mut closed = text[..length].to_vec();
    closed.extend(open.get(..depth)?.iter().rev());
    Some(closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(text: &str) -> Option<String> {
        close_before(text.as_bytes(), text.len()).map(|closed| String::from_utf8(closed).unwrap())
    }

    #[test]
    fn whole_elements_of_outer_lists_are_kept() {
        for (text, expected) in [
            (r#"[{"a":1},{"b":"x"#, Some(r#"[{"a":1}]"#)),
            (r#"{"m":[{"c":[{"t":1}]},{"c":[{"t":2}"#, Some(r#"{"m":[{"c":[{"t":1}]}]}"#)),
            (r#"{"m":[{"s":"]}\""},{"s":"\\"#, Some(r#"{"m":[{"s":"]}\""}]}"#)),
            (r#"{"m":[{"a":1}],"n":{"b":["#, Some(r#"{"m":[{"a":1}]}"#)),
            (r#"{"m":[{"a":1}],"n":2,"o":{"b":["#, Some(r#"{"m":[{"a":1}],"n":2}"#)),
            (r#"{"a":{"b":1},"c":"#, Some(r#"{"a":{"b":1}}"#)),
            (r#"{"a":{"b":1,"c":"#, None),
            ("]]}}[[{", None),
            ("", None),
        ] {
            assert_eq!(closed(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn nothing_behind_the_damage_is_kept() {
        let text = br#"[{"a":1},{"b":2} x {"c":3}]"#;
        assert_eq!(close_before(text, 17).unwrap(), br#"[{"a":1},{"b":2}]"#);
    }
}
