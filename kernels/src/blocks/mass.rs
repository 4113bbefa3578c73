//! How good a choice of key blocks is: the weight that dense attention gives to each, and what share of it a list
//! keeps. It measures and decides nothing.

use super::{BLOCK, Blocks};
use crate::kv::{KvLayer, Slot};

/// The weight of dense attention on each key block that a query block sees, summed over its rows: (own + 1) sums,
/// which add up to the number of rows. In f64, from the values as the layer stores them.
///
/// `q` is (n_tokens, n_heads, head_dim) and `slots` (kv_len), as for `ops::attention`, the first token the first of a
/// block; `at` is the head and the query block.
///
/// # Panics
/// If the shapes do not fit.
pub fn block_mass(q: &[f32], kv: &KvLayer, slots: &[Slot], n_heads: usize, at: (usize, usize)) -> Vec<f64> {
    let (head_dim, (head, query_block)) = (kv.head_dim(), at);
    let blocks = Blocks::new(q.len() / (n_heads * head_dim), slots.len());
    let own = blocks.own(query_block);
    let mut keys = vec![0.0; blocks.positions(own).end * head_dim];
    for (slot, key) in slots.iter().zip(keys.chunks_exact_mut(head_dim)) {
        kv.key(head / (n_heads / kv.n_kv_heads()), *slot, key);
    }
    let mut mass = vec![0.0; own + 1];
    for (row, token) in blocks.tokens(query_block).enumerate() {
        let q = &q[(token * n_heads + head) * head_dim..][..head_dim];
        let visible = keys.chunks_exact(head_dim).take(own * BLOCK + row + 1);
        let scores: Vec<f64> = visible
            .map(|key| {
                let dot: f64 = q.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                dot / (head_dim as f64).sqrt()
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        for (mass, scores) in mass.iter_mut().zip(scores.chunks(BLOCK)) {
            *mass += scores.iter().map(|s| (s - max).exp()).sum::<f64>() / total;
        }
    }
    mass
}

/// What a list of key blocks holds of dense attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recall {
    /// Weight on the kept blocks over weight on all, in 0..=1.
    pub mass: f64,
    /// The kept of the heaviest blocks, as many as the list is long, over that number, in 0..=1.
    pub top: f64,
}

/// The recall of `kept` (ascending) among blocks that weigh `mass`; of equally heavy blocks the earlier counts as
/// the heavier.
///
/// # Panics
/// If a kept block has no mass, or none is kept.
pub fn recall(mass: &[f64], kept: &[u32]) -> Recall {
    assert!(!kept.is_empty(), "the recall of no blocks is not defined");
    let mut by_mass: Vec<usize> = (0..mass.len()).collect();
    by_mass.sort_by(|a, b| mass[*b].total_cmp(&mass[*a]).then(a.cmp(b)));
    let hits = by_mass[..kept.len()].iter().filter(|n| kept.contains(&(**n as u32))).count();
    let held: f64 = kept.iter().map(|n| mass[*n as usize]).sum();
    Recall { mass: held / mass.iter().sum::<f64>(), top: hits as f64 / kept.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_counts_the_heaviest_and_their_weight() {
        let mass = [0.5, 0.0, 2.0, 1.0, 0.5];
        assert_eq!(recall(&mass, &[2, 3]), Recall { mass: 0.75, top: 1.0 });
        assert_eq!(recall(&mass, &[0, 1]), Recall { mass: 0.125, top: 0.0 });
        assert_eq!(recall(&mass, &[0, 2, 3]).top, 1.0, "of equals the earlier");
        assert_eq!(recall(&mass, &[0, 1, 2, 3, 4]), Recall { mass: 1.0, top: 1.0 });
    }
}
