//! The kernels of `prefill_wgmma.cu`, which [`super::prefill`] launches in place of its own on a Hopper card that is to
//! use kernels written for it. They take the same parameters and the same grid, and leave the same parts to be folded.
//! They cannot be emulated.

use super::prefill::{KEYS, ROWS, Walk};

/// Tiles of keys and of values that are under way.
const TILES: usize = 4;

/// What walks over the keys for heads of 64 or 128.
pub(super) fn walk(head_dim: usize, n_splits: usize) -> Walk {
    let kernel = match (head_dim, n_splits) {
        (64, 1) => "attention_prefill_wgmma_d64",
        (64, _) => "attention_prefill_wgmma_split_d64",
        (_, 1) => "attention_prefill_wgmma_d128",
        _ => "attention_prefill_wgmma_split_d128",
    };
    // `sizeof(Shared<head_dim>)`: queries, tiles, and two barriers of 8 bytes for each tile.
    let shared_bytes = (ROWS + TILES * KEYS) * head_dim * 2 + TILES * 16;
    Walk { kernel, threads: 384, shared_bytes: shared_bytes as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_the_shared_memory_of_a_hopper() {
        for head_dim in [64, 128] {
            let Walk { kernel, shared_bytes, .. } = walk(head_dim, 1);
            assert!(shared_bytes <= 227 * 1024, "{kernel}: {shared_bytes}");
        }
    }
}
