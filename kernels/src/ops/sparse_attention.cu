// sparse_attention: out[t, h] = sum_j softmax_j(q[t, h] · k[j, g(h)] / sqrt(D)) · v[j, g(h)],
//                   j <= start + t, j in a key block kept for h and the query block of t
// Shapes:   q, out (n, n_heads, D) bf16; keys, values (n_kv_heads, n_slots, D) bf16; slots (start + n) i32, start a
//           multiple of 128; counts (n_heads, n_query_blocks), indices (.., n_key_blocks) u32, ascending; D 64 or 128
// Launch:   grid (n_query_blocks, n_heads), block 128, FlashShared<D>; launcher in sparse_attention.rs
// Order:    a row folds the tiles of 64 keys of its kept blocks in ascending order, as dense prefill folds all tiles
// Cost:     4·D flop for each query head and visible kept pair: compute bound
// Roofline: not measured on hardware yet
// Source:   FlashPrefill as in Lucebox's drafter, its own block masked; FlashAttention-2, Dao 2023, algorithm 1
#include "flash.cuh"

constexpr int SPARSE_BLOCK_KEYS = 128;

// The tiles of the kept blocks, two to a block; the second of a partial last block is there where it holds a key. What it
// counts by is in shared memory: at D = 128 there is no register left for it.
struct KeptTiles {
    const uint32_t* const& list;
    const int& count;

    DEVICE int first_key(int tile) const {
        return int(__ldg(list + tile / 2)) * SPARSE_BLOCK_KEYS + tile % 2 * FLASH_KEYS;
    }
};

template <int D>
struct SparseShared {
    FlashShared<D> flash;
    const uint32_t* list;
    int n_tiles;
};

template <int D>
DEVICE void sparse_attention(const bf16* __restrict__ q, const bf16* __restrict__ keys,
                             const bf16* __restrict__ values, const int* __restrict__ slots,
                             const uint32_t* __restrict__ counts, const uint32_t* __restrict__ indices,
                             bf16* __restrict__ out, int n, int start, int n_kv_heads, int n_slots, float scale) {
    DYNAMIC_SHARED(SparseShared<D>, shared);
    // The last query blocks see the most keys: they go first.
    const int query_block = gridDim.x - 1 - blockIdx.x, head = blockIdx.y, n_heads = gridDim.y;
    const int kv_len = start + n, n_key_blocks = (kv_len + SPARSE_BLOCK_KEYS - 1) / SPARSE_BLOCK_KEYS;
    const FlashRows rows = {query_block * FLASH_ROWS, n, 1, head, n_heads, start};
    const size_t kv_head = size_t(head / (n_heads / n_kv_heads)) * n_slots * D;
    const FlashKv kv = {keys + kv_head, values + kv_head, slots, kv_len, n_slots};
    const int list = head * gridDim.x + query_block;
    // The list ends with the own block, whose last keys may not exist.
    const bool half = rows.last_position() % SPARSE_BLOCK_KEYS < FLASH_KEYS;
    if (threadIdx.x == 0) {
        shared->list = indices + size_t(list) * n_key_blocks;
        shared->n_tiles = int(__ldg(counts + list)) * 2 - half;
    }
    __syncthreads();
    const KeptTiles tiles = {shared->list, shared->n_tiles};

    FlashState<D> state;
    flash_clear<D>(state, shared->flash);
    flash_load_queries<D>(shared->flash, q, rows);
    flash_attend<D>(state, shared->flash, rows, kv, tiles, scale);
    flash_store<D>(state, shared->flash, rows, out);
}

#define SPARSE_PARAMETERS                                                                                    \
    const bf16 *q, const bf16 *keys, const bf16 *values, const int *slots, const uint32_t *counts,           \
        const uint32_t *indices, bf16 *out, int n, int start, int n_kv_heads, int n_slots, float scale
#define SPARSE_ARGUMENTS q, keys, values, slots, counts, indices, out, n, start, n_kv_heads, n_slots, scale

KERNEL(FLASH_THREADS) sparse_attention_d64(SPARSE_PARAMETERS) { sparse_attention<64>(SPARSE_ARGUMENTS); }
KERNEL(FLASH_THREADS) sparse_attention_d128(SPARSE_PARAMETERS) { sparse_attention<128>(SPARSE_ARGUMENTS); }
