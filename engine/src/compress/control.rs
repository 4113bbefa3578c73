//! Scores without a model, as controls of the drafter's: by chance, and by the distance from the ends. What does not beat
//! them at the same budget does not earn its time. Knows text and token counts; knows no message and no budget.

use std::ops::Range;

/// One score for each token of `units`, which tile the text's tokens: the same within a unit, and drawn from a hash of
/// `seed` and the text, so that the same text has the same scores in every session and every process.
pub fn random(text: &str, units: &[Range<usize>], seed: u64) -> Vec<f32> {
    let mut hasher = blake3::Hasher::new_derive_key("reprise engine 2026 random chunks");
    hasher.update(&seed.to_le_bytes());
    hasher.update(text.as_bytes());
    let mut draws = hasher.finalize_xof();
    let mut scores = Vec::new();
    for unit in units {
        let mut bytes = [0; 4];
        draws.fill(&mut bytes);
        // 24 bits are what an f32 holds exactly.
        let score = (u32::from_le_bytes(bytes) >> 8) as f32 / (1 << 24) as f32;
        scores.resize(unit.end, score);
    }
    scores
}

/// One score for each of `n` tokens, higher the nearer it is to an end.
pub fn head_tail(n: usize) -> Vec<f32> {
    (0..n).map(|token| 1.0 - (2 * token.min(n - 1 - token)) as f32 / n as f32).collect()
}
