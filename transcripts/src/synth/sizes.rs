//! How long tool outputs are: the distribution of recorded sessions. Knows no text.

use crate::synth::draw::Draw;

/// Quantiles of the characters of a tool output, measured over 17,453 calls of 273 public Claude Code sessions
/// (entireio/cli); between two of them the logarithm is interpolated.
const QUANTILES: [(f64, f64); 8] = [
    (0.0, 8.0),
    (0.1, 42.0),
    (0.25, 110.0),
    (0.5, 470.0),
    (0.75, 1_934.0),
    (0.9, 4_984.0),
    (0.99, 32_648.0),
    (1.0, 84_231.0),
];

/// Characters of one output, drawn from recorded sessions.
pub fn output_chars(draw: &mut Draw) -> f64 {
    let at = draw.unit();
    let pairs = QUANTILES.iter().zip(&QUANTILES[1..]);
    let mut around = pairs.filter(|((low, _), (high, _))| *low <= at && at < *high);
    around.next().map_or(QUANTILES[0].1, |((low, small), (high, large))| {
        let part = (at - low) / (high - low);
        (small.ln() + part * (large.ln() - small.ln())).exp()
    })
}

/// Characters of the filler of `n` outputs: as recorded sessions have them, or scaled so that they are `total` together.
pub fn fillers(draw: &mut Draw, n: usize, total: Option<usize>) -> Vec<usize> {
    let drawn: Vec<f64> = (0..n).map(|_| output_chars(draw)).collect();
    let scale = total.map_or(1.0, |total| total as f64 / drawn.iter().sum::<f64>().max(1.0));
    drawn.iter().map(|chars| (chars * scale) as usize).collect()
}
