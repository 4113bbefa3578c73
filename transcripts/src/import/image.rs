//! Images and documents as placeholders: media type, size and digest, never the bytes. Knows base64 and BLAKE3, not
//! what an image shows.

use serde_json::{Map, Value};

use crate::message::Part;

/// The placeholder for an `image` or `document` block. The source is `{type: base64 | text | url | file, media_type,
/// data | url | file_id}`; what does not decode as base64 is digested as the text it is.
pub(super) fn placeholder(block: &Map<String, Value>) -> Part {
    let source = block.get("source").and_then(Value::as_object);
    let field = |name: &str| source.and_then(|source| source.get(name)).and_then(Value::as_str);
    let media_type = field("media_type").unwrap_or("application/octet-stream").to_owned();
    let data = field("data").or_else(|| field("url")).or_else(|| field("file_id")).unwrap_or("");
    let is_base64 = field("type").unwrap_or("base64") == "base64";
    let decoded = is_base64.then(|| digest_base64(data.as_bytes())).flatten();
    image(media_type, data, decoded, is_base64)
}

/// The placeholder for a chat API's image: a `data:` URL with the bytes in it, or a URL alone.
pub(super) fn from_url(url: &str) -> Part {
    let inline = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    let (media_type, data) = inline.unwrap_or(("application/octet-stream", url));
    let decoded = inline.and_then(|(_, data)| digest_base64(data.as_bytes()));
    image(media_type.to_owned(), data, decoded, inline.is_some())
}

fn image(media_type: String, data: &str, decoded: Option<(blake3::Hash, u64)>, is_base64: bool) -> Part {
    let undecodable = is_base64 && decoded.is_none();
    let (digest, bytes_len) = decoded.unwrap_or_else(|| (blake3::hash(data.as_bytes()), data.len() as u64));
    Part::Image { media_type, digest: digest.to_hex().to_string(), bytes_len, undecodable }
}

/// Digest and size of the bytes behind standard base64 (RFC 4648 section 4; padding optional, line breaks allowed),
/// decoded in passing so that a large image is never held twice. `None` when the text is not base64.
fn digest_base64(text: &[u8]) -> Option<(blake3::Hash, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut decoded = Vec::with_capacity(4096);
    let (mut bits, mut filled, mut symbols, mut length) = (0_u32, 0_u32, 0_u64, 0_u64);
    let end = text.iter().rposition(|&byte| byte != b'=').map_or(0, |last| last + 1);
    for &byte in &text[..end] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'\r' | b'\n' => continue,
            _ => return None,
        };
        symbols += 1;
        bits = (bits << 6) | u32::from(value);
        filled += 6;
        if filled >= 8 {
            filled -= 8;
            decoded.push((bits >> filled) as u8);
            bits &= (1 << filled) - 1;
        }
        if decoded.len() == 4096 {
            hasher.update(&decoded);
            length += decoded.len() as u64;
            decoded.clear();
        }
    }
    hasher.update(&decoded);
    length += decoded.len() as u64;
    // One symbol alone holds six bits: no byte ends there.
    (symbols % 4 != 1 && text.len() - end <= 2).then(|| (hasher.finalize(), length))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(source: Value) -> (String, String, u64) {
        let block = json!({"type": "image", "source": source});
        let Part::Image { media_type, digest, bytes_len, .. } = placeholder(block.as_object().unwrap())
        else {
            panic!("an image gave text");
        };
        (media_type, digest, bytes_len)
    }

    #[test]
    fn base64_is_measured_decoded() {
        for (text, bytes) in
            [("", &b""[..]), ("Zg==", b"f"), ("Zm8=", b"fo"), ("Zm9v", b"foo"), ("Zm9v\nYg", b"foob")]
        {
            let (media_type, digest, length) =
                shown(json!({"type": "base64", "media_type": "image/png", "data": text}));
            assert_eq!((media_type.as_str(), length), ("image/png", bytes.len() as u64), "{text}");
            assert_eq!(digest, blake3::hash(bytes).to_hex().to_string(), "{text}");
        }
    }

    #[test]
    fn more_than_one_buffer_is_one_digest() {
        let (_, digest, length) = shown(json!({"type": "base64", "data": "AAAA".repeat(5000)}));
        assert_eq!((digest, length), (blake3::hash(&[0; 15_000]).to_hex().to_string(), 15_000));
    }

    #[test]
    fn a_data_url_is_measured_decoded_and_any_other_as_text() {
        let Part::Image { media_type, bytes_len, .. } = from_url("data:image/png;base64,Zm9v") else {
            panic!("an image gave text");
        };
        assert_eq!((media_type.as_str(), bytes_len), ("image/png", 3));
        let Part::Image { bytes_len, .. } = from_url("https://example.org/a.png") else {
            panic!("an image gave text");
        };
        assert_eq!(bytes_len, 25);
    }

    #[test]
    fn anything_else_is_digested_as_text() {
        for data in ["not base64!", "A", "Zg====", "REDACTED-x"] {
            let (_, digest, length) = shown(json!({"type": "base64", "data": data}));
            assert_eq!(
                (digest, length),
                (blake3::hash(data.as_bytes()).to_hex().to_string(), data.len() as u64)
            );
        }
        let (media_type, _, length) = shown(json!({"type": "url", "url": "https://example.org/a.png"}));
        assert_eq!((media_type.as_str(), length), ("application/octet-stream", 25));
    }
}
