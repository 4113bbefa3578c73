//! What stands in place of a secret: a pure function of it, of the same length and kind of characters, and told from a
//! secret by its form. Knows no pattern.
//!
//! All of a placeholder follows from 16 bits of the secret's digest: enough to keep the secrets of a session apart, and
//! no more than 16 bits to test a guess against.

/// Every placeholder of a token holds this word in one of its two cases.
const MARK: &str = "REDACT";
/// Every placeholder of a name begins so, and goes on in consonants.
const NAME: &str = "user";
const CONSONANTS: &[u8; 20] = b"bcdfghjklmnpqrstvwxz";
/// Placeholders of names have this length at least, so that few names share one.
const NAME_LENGTH_MIN: usize = 6;

/// Pseudorandom bytes, as many as are asked for, out of 16 bits of the digest.
struct Bytes(blake3::OutputReader);

impl Bytes {
    fn of(secret: &[u8]) -> Self {
        let digest = blake3::hash(secret);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&digest.as_bytes()[..2]);
        Self(hasher.finalize_xof())
    }

    fn next(&mut self) -> u8 {
        let mut byte = [0];
        self.0.fill(&mut byte);
        byte[0]
    }

    fn of_range(&mut self, first: u8, count: u8) -> char {
        char::from(first + self.next() % count)
    }
}

/// True for a text that is, or holds, a placeholder of a token.
pub(super) fn holds_token(text: &str) -> bool {
    text.contains(MARK) || text.contains("redact")
}

/// The placeholder of a token: the mark, then for each character one of its kind (lower case, upper case, digit).
/// Punctuation, line breaks and escapes (a backslash and the character after it) stay. As long as the token, and six
/// characters at least.
pub(super) fn token(secret: &str) -> String {
    let has_lower = secret.bytes().any(|byte| byte.is_ascii_lowercase());
    let has_upper = secret.bytes().any(|byte| byte.is_ascii_uppercase());
    let mark = if has_lower && !has_upper { MARK.to_lowercase() } else { MARK.to_owned() };
    let mut bytes = Bytes::of(secret.as_bytes());
    let mut placeholder = mark;
    let mut is_escaped = false;
    for character in secret.chars().skip(MARK.len()) {
        let replaced = match character {
            _ if is_escaped => character,
            'a'..='z' => bytes.of_range(b'a', 26),
            'A'..='Z' => bytes.of_range(b'A', 26),
            '0'..='9' => bytes.of_range(b'0', 10),
            other if other.is_ascii() => other,
            _ => 'x',
        };
        is_escaped = character == '\\' && !is_escaped;
        placeholder.push(replaced);
    }
    placeholder
}

/// True for a name that [`name`] made.
pub(super) fn is_name(name: &str) -> bool {
    let rest = name.strip_prefix(NAME);
    rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| CONSONANTS.contains(&byte)))
}

/// The placeholder of a user's name, of the same length where that is six or more. Upper and lower case give one name.
pub(super) fn name(secret: &str) -> String {
    let mut bytes = Bytes::of(secret.to_lowercase().as_bytes());
    let rest = secret.chars().count().max(NAME_LENGTH_MIN) - NAME.len();
    let letters = (0..rest).map(|_| char::from(CONSONANTS[usize::from(bytes.next()) % CONSONANTS.len()]));
    NAME.chars().chain(letters).collect()
}

/// The placeholder of an e-mail address: a name, and a domain that keeps its dots and its last label.
pub(super) fn email(local: &str, domain: &str) -> String {
    let (labels, top) = domain.rsplit_once('.').unwrap_or(("", domain));
    let mut bytes = Bytes::of(domain.to_lowercase().as_bytes());
    let letter = |character| match character {
        '.' => '.',
        _ => char::from(CONSONANTS[usize::from(bytes.next()) % CONSONANTS.len()]),
    };
    let labels: String = labels.chars().map(letter).collect();
    format!("{}@{labels}.{top}", name(local))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_keep_length_and_kinds() {
        for secret in
            ["AKIAIOSFODNN7EXAMPLE", "9f86d081884c7d659a2f", "aB3-dE_6/hI9+kL2=", "a\\nb\\\"c1234567"]
        {
            let placeholder = token(secret);
            assert_eq!(placeholder.len(), secret.len());
            assert!(holds_token(&placeholder) && placeholder != secret);
            assert_eq!(placeholder, token(secret));
            let kind = |byte: u8| match byte {
                b'a'..=b'z' => 'a',
                b'A'..=b'Z' => 'A',
                b'0'..=b'9' => '0',
                other => char::from(other),
            };
            let kinds = |text: &str| text.bytes().skip(MARK.len()).map(kind).collect::<String>();
            assert_eq!(kinds(&placeholder), kinds(secret));
        }
        assert_eq!(token("abc"), "redact");
        assert_ne!(token("hunter2hunter2"), token("hunter3hunter3"));
        assert!(token("123456\\n\\t12").contains("\\n\\t"), "escapes stay");
    }

    #[test]
    fn names_and_addresses_are_told_by_their_form() {
        for secret in ["alice", "Bob", "christopher.smith", "x"] {
            let placeholder = name(secret);
            assert!(is_name(&placeholder), "{placeholder}");
            assert_eq!(placeholder.len(), secret.len().max(NAME_LENGTH_MIN));
        }
        assert_eq!(name("Alice"), name("alice"));
        assert!(!is_name("username") && !is_name("user") && !is_name("alice"));
        let address = email("alice.smith", "mail.corp.com");
        assert_eq!(address.len(), "alice.smith@mail.corp.com".len());
        assert!(address.ends_with(".com") && !address.contains("corp"), "{address}");
    }
}
