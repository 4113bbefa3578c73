//! Which key blocks each query block of each head attends to, from their scores:
//!
//! ```text
//! kept(m) = n <= m with   n < sink   or   m - n < window   or   m >= M - last_full   or
//!                         score[m, n] >= alpha · max_i score[m, i]
//! ```
//!
//! Shapes: scores (n_heads, n_query_blocks, n_key_blocks) f32 as `block_score` writes them; the lists of a
//! [`KeptBlocks`], ascending. m and n count blocks from position 0, M is the number of key blocks.
//!
//! The comparison is one f32 product and one f32 comparison, the maximum ignores NaN: every version gives the
//! same lists, exactly. A block whose score is NaN is not kept for its score.
//! Source: FlashPrefill as in Lucebox's drafter; see [`Rule`] for where each default comes from.
//!
//! **Caches.** The comparison looks at earlier tokens alone, but `last_full` looks at where the text ends, and a
//! partial last block's score changes as it fills. Keys computed under this rule may be cached only with
//! `last_full` 0 and for whole blocks. It must not know keys, queries or what the scores mean.

use crate::blocks::device::DeviceKeptBlocks;
use crate::blocks::{Blocks, KeptBlocks};
use crate::cost::Cost;
use crate::device::cuda::{Args, Cuda, Grid, View};
use crate::device::{Cpu, Disjoint};
use crate::error::KernelError;

/// What keeps a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Key blocks kept at the start of the text: 2 in Lucebox's drafter.
    pub sink: usize,
    /// Key blocks kept up to and with the query block's own, at least 1: 4 in Lucebox's drafter.
    pub window: usize,
    /// Query blocks at the end of the text that keep everything: 2 in Lucebox's drafter, 0 for what is cached.
    pub last_full: usize,
    /// Least score, as a share of the largest, in 0..=1; at 0 every block is kept. 0.12 is published for a Qwen3
    /// mixture of experts and the default of Lucebox's drafter, whose benches set 0.85.
    pub alpha: f32,
}

impl Default for Rule {
    fn default() -> Self {
        Self { sink: 2, window: 4, last_full: 2, alpha: 0.12 }
    }
}

impl Rule {
    /// # Panics
    /// If the window is empty, so that a query would not see itself, or alpha is no share.
    #[track_caller]
    fn check(&self) {
        assert!(
            self.window >= 1 && (0.0..=1.0).contains(&self.alpha),
            "block_select: a window of {} and an alpha of {} are no rule",
            self.window,
            self.alpha
        );
    }

    /// Whether block `n` is kept for where it lies, without a look at its score.
    fn by_place(&self, query_block: usize, n: usize, n_key_blocks: usize) -> bool {
        n < self.sink || query_block - n < self.window || query_block + self.last_full >= n_key_blocks
    }
}

/// The rule in plain loops.
///
/// # Panics
/// As [`cpu`].
pub fn spec(scores: &[f32], blocks: Blocks, rule: &Rule, kept: &mut KeptBlocks) {
    check(scores, blocks, rule, kept);
    for (head, query_block) in
        (0..kept.n_heads()).flat_map(|head| (0..blocks.n_query_blocks()).map(move |block| (head, block)))
    {
        let (own, n_key_blocks) = (blocks.own(query_block), blocks.n_key_blocks());
        let scores = &scores[(head * blocks.n_query_blocks() + query_block) * n_key_blocks..][..=own];
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let list: Vec<u32> = (0..=own)
            .filter(|n| rule.by_place(own, *n, n_key_blocks) || scores[*n] >= rule.alpha * max)
            .map(|n| n as u32)
            .collect();
        kept.set(head, query_block, &list);
    }
}

/// Fills the lists.
///
/// # Panics
/// If `scores` are not (n_heads, n_query_blocks, n_key_blocks) of `blocks`, `kept` was made for other blocks, the
/// rule's window is 0 or its alpha outside 0..=1.
pub fn cpu(cpu: &Cpu, scores: &[f32], blocks: Blocks, rule: &Rule, kept: &mut KeptBlocks) {
    check(scores, blocks, rule, kept);
    let n_key_blocks = blocks.n_key_blocks();
    let (counts, indices) = kept.lists_mut();
    let counts = Disjoint::new(counts);
    cpu.parallel_chunks(indices, n_key_blocks, |i, list| {
        let own = blocks.own(i % blocks.n_query_blocks());
        let scores = &scores[i * n_key_blocks..][..=own];
        let mut max = f32::NEG_INFINITY;
        for score in scores {
            max = if *score > max { *score } else { max };
        }
        let (least, mut n_kept) = (rule.alpha * max, 0);
        for (n, score) in scores.iter().enumerate() {
            // Written whatever it is, passed over when it is not kept: no branch to mispredict.
            list[n_kept] = n as u32;
            n_kept += usize::from(rule.by_place(own, n, n_key_blocks) | (*score >= least));
        }
        // SAFETY: an item writes the count of its own list.
        let count = unsafe { counts.slice(i..i + 1) };
        count[0] = n_kept as u32;
    });
}

/// [`cpu`] on a CUDA device, for the heads and blocks that `kept` was made for: the same lists, exactly.
///
/// # Errors
/// [`KernelError::Launch`] if the driver refuses the launch.
///
/// # Panics
/// As [`cpu`].
pub fn cuda(
    cuda: &Cuda,
    scores: View<'_, f32>,
    rule: &Rule,
    kept: &mut DeviceKeptBlocks,
) -> Result<(), KernelError> {
    const THREADS: u32 = 128;
    rule.check();
    let (blocks, n_lists) = (kept.blocks(), kept.counts.len());
    assert_eq!(
        scores.len(),
        kept.indices.len(),
        "block_select: scores must be heads x query blocks x key blocks"
    );
    // A warp for each list.
    let grid =
        Grid { blocks: [(n_lists as u32).div_ceil(THREADS / 32), 1, 1], threads: THREADS, shared_bytes: 0 };
    let (mut counts, mut indices) = (kept.counts.view_mut(), kept.indices.view_mut());
    let args = Args::new().view(scores).view_mut(&mut counts).view_mut(&mut indices).i32(n_lists as i32);
    let args = args.i32(blocks.n_query_blocks() as i32).i32(blocks.n_key_blocks() as i32);
    let [sink, window, last_full] =
        [rule.sink, rule.window, rule.last_full].map(|n| n.min(i32::MAX as usize) as i32);
    let args = args.i32(sink).i32(window).i32(last_full).f32(rule.alpha);
    // SAFETY: the kernel's parameters; scores and lists have the same number of lists and key blocks.
    unsafe { cuda.launch("block_select", grid, &args) }
}

/// Cost of [`cpu`]: the scores of seen blocks read, as many indices written at most, a comparison for the maximum
/// and one for alpha.
pub fn cost(blocks: Blocks, n_heads: usize) -> Cost {
    let pairs = (n_heads * blocks.n_pairs()) as u64;
    Cost { bytes: 8 * pairs, flops: 2 * pairs }
}

#[track_caller]
fn check(scores: &[f32], blocks: Blocks, rule: &Rule, kept: &KeptBlocks) {
    rule.check();
    assert!(
        kept.counts().len().is_multiple_of(blocks.n_query_blocks().max(1))
            && kept.indices().len() == kept.counts().len() * blocks.n_key_blocks(),
        "block_select: lists of other blocks"
    );
    assert_eq!(
        scores.len(),
        kept.indices().len(),
        "block_select: scores must be heads x query blocks x key blocks"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_reads_what_is_seen() {
        assert_eq!(cost(Blocks::new(256, 384), 4), Cost { bytes: 8 * 4 * 5, flops: 2 * 4 * 5 });
    }
}
