//! Blocks of 128 positions, the unit of block-sparse attention: where they lie, which rows of a call they hold,
//! and the list of key blocks that each query block of each head attends to. It knows neither scores nor keys.
//!
//! Blocks are counted from position 0 of the sequence, whatever the call: a block's keys, and with them its
//! mean and its score, do not depend on where earlier calls ended. So a call begins at a block's first position;
//! it may end anywhere, its last block then being partial.

use std::ops::Range;

pub mod device;
pub mod mass;

/// Positions of a block of keys and of a block of queries (FlashPrefill in Lucebox's drafter).
pub const BLOCK: usize = 128;

/// The blocks of a call: `n_tokens` queries, the last of `kv_len` positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    n_tokens: usize,
    kv_len: usize,
}

impl Blocks {
    /// The blocks of the last `n_tokens` of `kv_len` positions.
    ///
    /// # Panics
    /// If there are more tokens than positions, or the first token does not begin a block.
    #[track_caller]
    pub fn new(n_tokens: usize, kv_len: usize) -> Self {
        assert!(
            n_tokens <= kv_len && (kv_len - n_tokens).is_multiple_of(BLOCK),
            "the last {n_tokens} of {kv_len} positions do not begin at a block of {BLOCK}"
        );
        Self { n_tokens, kv_len }
    }

    /// Queries.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Positions.
    pub fn kv_len(&self) -> usize {
        self.kv_len
    }

    /// M, the blocks of the positions: the last may be partial.
    pub fn n_key_blocks(&self) -> usize {
        self.kv_len.div_ceil(BLOCK)
    }

    /// Query blocks; all are whole but the last.
    pub fn n_query_blocks(&self) -> usize {
        self.n_tokens.div_ceil(BLOCK)
    }

    /// The key block that a query block is itself, the last one it sees.
    pub fn own(&self, query_block: usize) -> usize {
        (self.kv_len - self.n_tokens) / BLOCK + query_block
    }

    /// The tokens of a query block.
    pub fn tokens(&self, query_block: usize) -> Range<usize> {
        query_block * BLOCK..self.n_tokens.min((query_block + 1) * BLOCK)
    }

    /// The positions of a key block.
    pub fn positions(&self, key_block: usize) -> Range<usize> {
        key_block * BLOCK..self.kv_len.min((key_block + 1) * BLOCK)
    }

    /// Pairs of a query block and a key block it sees, of one head.
    pub fn n_pairs(&self) -> usize {
        (0..self.n_query_blocks()).map(|block| self.own(block) + 1).sum()
    }
}

/// For each head and query block the key blocks it attends to, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBlocks {
    n_heads: usize,
    n_query_blocks: usize,
    n_key_blocks: usize,
    counts: Vec<u32>,
    indices: Vec<u32>,
}

impl KeptBlocks {
    /// Lists of no block.
    pub fn empty(n_heads: usize, blocks: Blocks) -> Self {
        let n_lists = n_heads * blocks.n_query_blocks();
        let n_key_blocks = blocks.n_key_blocks();
        Self {
            n_heads,
            n_query_blocks: blocks.n_query_blocks(),
            n_key_blocks,
            counts: vec![0; n_lists],
            indices: vec![0; n_lists * n_key_blocks],
        }
    }

    /// Every block a query may see: dense attention.
    pub fn all(n_heads: usize, blocks: Blocks) -> Self {
        let mut kept = Self::empty(n_heads, blocks);
        for (head, query_block) in
            (0..n_heads).flat_map(|head| (0..blocks.n_query_blocks()).map(move |block| (head, block)))
        {
            kept.set(head, query_block, (0..=blocks.own(query_block) as u32).collect::<Vec<_>>().as_slice());
        }
        kept
    }

    /// The list of one head and query block.
    ///
    /// # Panics
    /// If there is no such head or block.
    pub fn list(&self, head: usize, query_block: usize) -> &[u32] {
        let list = self.list_idx(head, query_block);
        &self.indices[list * self.n_key_blocks..][..self.counts[list] as usize]
    }

    /// Replaces the list of one head and query block.
    ///
    /// # Panics
    /// If there is no such head or block, or the list does not ascend or leaves the key blocks.
    pub fn set(&mut self, head: usize, query_block: usize, list: &[u32]) {
        assert!(
            list.is_sorted_by(|a, b| a < b) && list.last().is_none_or(|n| (*n as usize) < self.n_key_blocks),
            "kept blocks must ascend and be below {}: {list:?}",
            self.n_key_blocks
        );
        let at = self.list_idx(head, query_block);
        self.counts[at] = list.len() as u32;
        self.indices[at * self.n_key_blocks..][..list.len()].copy_from_slice(list);
    }

    /// The lengths of the lists, (n_heads, n_query_blocks).
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// The lists, (n_heads, n_query_blocks, n_key_blocks); what lies beyond a list's length means nothing.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// Heads.
    pub fn n_heads(&self) -> usize {
        self.n_heads
    }

    /// Asserts that the lists were made for `blocks` and each ends with the query block's own, so that every
    /// query sees itself and nothing after it.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub(crate) fn check(&self, blocks: Blocks) {
        assert_eq!(
            (self.n_query_blocks, self.n_key_blocks),
            (blocks.n_query_blocks(), blocks.n_key_blocks()),
            "kept blocks of another call: (query blocks, key blocks)"
        );
        for (i, count) in self.counts.iter().enumerate() {
            let list = &self.indices[i * self.n_key_blocks..][..*count as usize];
            let own = blocks.own(i % self.n_query_blocks) as u32;
            assert!(list.last() == Some(&own), "list {i} of kept blocks must end with {own}: {list:?}");
        }
    }

    /// Counts and lists, to be written: see [`KeptBlocks::counts`] and [`KeptBlocks::indices`].
    pub(crate) fn lists_mut(&mut self) -> (&mut [u32], &mut [u32]) {
        (&mut self.counts, &mut self.indices)
    }

    /// Pairs of a query block and a key block it attends to, of all heads.
    pub fn n_pairs(&self) -> usize {
        self.counts.iter().map(|n| *n as usize).sum()
    }

    fn list_idx(&self, head: usize, query_block: usize) -> usize {
        assert!(query_block < self.n_query_blocks, "query block {query_block} of {}", self.n_query_blocks);
        head * self.n_query_blocks + query_block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_from_position_0() {
        let blocks = Blocks::new(200, 456);
        assert_eq!((blocks.n_key_blocks(), blocks.n_query_blocks()), (4, 2));
        assert_eq!((blocks.own(0), blocks.own(1)), (2, 3));
        assert_eq!((blocks.tokens(0), blocks.tokens(1)), (0..128, 128..200));
        assert_eq!((blocks.positions(1), blocks.positions(3)), (128..256, 384..456));
        assert_eq!(blocks.n_pairs(), 3 + 4);
    }

    #[test]
    #[should_panic(expected = "the last 100 of 200 positions do not begin at a block of 128")]
    fn a_call_inside_a_block_is_refused() {
        Blocks::new(100, 200);
    }

    #[test]
    fn lists_are_read_as_they_were_set() {
        let blocks = Blocks::new(256, 384);
        let mut kept = KeptBlocks::empty(2, blocks);
        kept.set(1, 0, &[0, 1]);
        kept.set(1, 1, &[2]);
        assert_eq!((kept.list(0, 1), kept.list(1, 0), kept.list(1, 1)), (&[][..], &[0, 1][..], &[2][..]));
        assert_eq!((kept.n_pairs(), kept.n_heads()), (3, 2));
        let all = KeptBlocks::all(2, blocks);
        assert_eq!((all.list(1, 0), all.list(0, 1)), (&[0, 1][..], &[0, 1, 2][..]));
        assert_eq!(all.n_pairs(), 2 * blocks.n_pairs());
    }

    #[test]
    #[should_panic(expected = "kept blocks must ascend")]
    fn an_unordered_list_is_refused() {
        KeptBlocks::empty(1, Blocks::new(256, 256)).set(0, 1, &[1, 0]);
    }
}
