//! One digest of several byte fields, such that no two different lists of fields share their input bytes. Knows
//! nothing of what the fields mean.

/// BLAKE3 of `fields` under a `context` of its own, each field preceded by its length, the list by its count, so that
/// moving a byte from one field to the next gives another digest. `context` is a fixed sentence that names the use;
/// equal fields under different contexts give unrelated digests.
pub fn of_fields(context: &str, fields: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(&(fields.len() as u64).to_le_bytes());
    for field in fields {
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::of_fields;

    #[test]
    fn borders_count_and_context_all_matter() {
        let cases: [(&str, &[&[u8]]); 6] = [
            ("a", &[b"ab", b"c"]),
            ("a", &[b"a", b"bc"]),
            ("a", &[b"abc"]),
            ("a", &[b"abc", b""]),
            ("a", &[b"", b"abc"]),
            ("b", &[b"ab", b"c"]),
        ];
        for (i, (context, fields)) in cases.iter().enumerate() {
            assert_eq!(of_fields(context, fields), of_fields(context, fields));
            for (other_context, other) in &cases[i + 1..] {
                assert_ne!(of_fields(context, fields), of_fields(other_context, other));
            }
        }
    }
}
