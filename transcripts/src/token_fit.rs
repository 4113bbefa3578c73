//! The importer's own check: a provider's prompt tokens against the chars of the rebuilt prefix. Over one chain they lie
//! on a line; where they do not, the rebuild is wrong or the recording was edited. Knows sessions, no format.

use serde::{Deserialize, Serialize};

use crate::message::{Message, Part};
use crate::session::Session;

/// The fewest calls a fit is worth anything with.
const MIN_CALLS: usize = 10;
/// A chain below this needs a look.
const MIN_R2: f64 = 0.95;

/// A straight line through (chars of the prefix, prompt tokens of the provider), least squares.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenFit {
    /// Calls that carry a count and hold no image.
    pub calls: usize,
    /// Share of the variance that the line explains, 0 to 1.
    pub r2: f64,
    /// Tokens at no chars: what every request holds beside the rebuilt messages (system prompt and tools that are not
    /// recorded).
    pub intercept_tokens: f64,
    /// Chars for each token, from the slope.
    pub chars_per_token: f64,
    /// The fit is too bad for a chain that was rebuilt as it was sent.
    pub is_suspect: bool,
}

/// The fit of a session; `None` with fewer than ten counted calls, or when its prefixes or counts are all of one size.
pub fn token_fit(session: &Session) -> Option<TokenFit> {
    let chars: Vec<Option<u64>> = session.messages.iter().map(measured).collect();
    let points: Vec<(f64, f64)> = session
        .calls
        .iter()
        .filter_map(|call| {
            let indices = call.prefix.iter().map(|&index| chars.get(index as usize).copied().flatten());
            let chars = indices.sum::<Option<u64>>()?;
            Some((chars as f64, call.usage?.prompt_tokens() as f64))
        })
        .collect();
    fit(&points)
}

/// The size of a message, `None` with an image: no chars stand for its tokens.
fn measured(message: &Message) -> Option<u64> {
    let has_image = message.content.iter().any(|part| matches!(part, Part::Image { .. }));
    (!has_image).then(|| message.chars())
}

fn fit(points: &[(f64, f64)]) -> Option<TokenFit> {
    if points.len() < MIN_CALLS {
        return None;
    }
    let n = points.len() as f64;
    let mean_x = points.iter().map(|point| point.0).sum::<f64>() / n;
    let mean_y = points.iter().map(|point| point.1).sum::<f64>() / n;
    let (mut sxx, mut sxy, mut syy) = (0.0, 0.0, 0.0);
    for (x, y) in points {
        let (dx, dy) = (x - mean_x, y - mean_y);
        sxx += dx * dx;
        sxy += dx * dy;
        syy += dy * dy;
    }
    if sxx <= 0.0 || syy <= 0.0 || sxy == 0.0 {
        return None;
    }
    let slope = sxy / sxx;
    let r2 = sxy * sxy / (sxx * syy);
    Some(TokenFit {
        calls: points.len(),
        r2,
        intercept_tokens: mean_y - slope * mean_x,
        chars_per_token: 1.0 / slope,
        is_suspect: r2 < MIN_R2 || slope < 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_and_noise_is_suspect() {
        let line: Vec<(f64, f64)> =
            (0..12).map(|k| (300.0 * f64::from(k), 5000.0 + 100.0 * f64::from(k))).collect();
        let found = fit(&line).unwrap();
        assert!((found.r2 - 1.0).abs() < 1e-12 && !found.is_suspect);
        assert!((found.intercept_tokens - 5000.0).abs() < 1e-6 && (found.chars_per_token - 3.0).abs() < 1e-9);
        let noisy: Vec<(f64, f64)> = line
            .iter()
            .enumerate()
            .map(|(k, (x, y))| (*x, if k % 3 == 0 { y + 2000.0 } else { *y }))
            .collect();
        assert!(fit(&noisy).unwrap().is_suspect);
    }

    #[test]
    fn too_few_and_flat_chains_have_no_fit() {
        let line: Vec<(f64, f64)> = (0..9).map(|k| (f64::from(k), f64::from(k))).collect();
        assert_eq!(fit(&line), None);
        assert_eq!(fit(&[(3.0, 4.0); 20]), None);
    }
}
