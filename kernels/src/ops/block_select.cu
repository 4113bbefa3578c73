// block_select: kept(m) = n <= m with  n < sink  or  m - n < window  or  m >= M - last_full
//                                      or  score[m, n] >= alpha · max_i score[m, i];  ascending
// Shapes:   scores, indices (n_heads, n_query_blocks, n_key_blocks) f32, u32; counts (n_heads, n_query_blocks) u32
// Launch:   grid ceil(lists / 4), block 128: a warp for each list; launcher in block_select.rs
// Order:    comparisons alone, so the lists are those of the spec exactly; no atomics
// Cost:     scores read twice, the second time from a cache; kept indices written: memory bound
// Roofline: not measured on hardware yet
// Source:   FlashPrefill as in Lucebox's drafter
#include "reduce.cuh"

constexpr int SELECT_THREADS = 128;

DEVICE void select_blocks(const float* __restrict__ scores, uint32_t* __restrict__ counts,
                          uint32_t* __restrict__ indices, int n_lists, int n_query_blocks, int n_key_blocks, int sink,
                          int window, int last_full, float alpha) {
    const int lane = threadIdx.x % 32, list = blockIdx.x * (SELECT_THREADS / 32) + threadIdx.x / 32;
    // Whole warps leave.
    if (list >= n_lists) return;
    const int own = n_key_blocks - n_query_blocks + list % n_query_blocks;
    scores += size_t(list) * n_key_blocks;
    indices += size_t(list) * n_key_blocks;

    float max = -INFINITY;
    for (int n = lane; n <= own; n += 32) max = fmaxf(max, scores[n]);
    const float least = alpha * warp_max(max);
    const bool full = own >= n_key_blocks - last_full;
    int count = 0;
    for (int first = 0; first <= own; first += 32) {
        const int n = first + lane;
        const bool keep = n <= own && (full || n < sink || own - n < window || scores[n] >= least);
        const unsigned kept = __ballot_sync(FULL_WARP, keep);
        if (keep) indices[count + __popc(kept & ((1u << lane) - 1))] = uint32_t(n);
        count += __popc(kept);
    }
    if (lane == 0) counts[list] = uint32_t(count);
}

#define SELECT_PARAMETERS                                                                                              \
    const float *scores, uint32_t *counts, uint32_t *indices, int n_lists, int n_query_blocks, int n_key_blocks, \
        int sink, int window, int last_full, float alpha
#define SELECT_ARGUMENTS \
    scores, counts, indices, n_lists, n_query_blocks, n_key_blocks, sink, window, last_full, alpha
KERNEL(SELECT_THREADS) block_select(SELECT_PARAMETERS) { select_blocks(SELECT_ARGUMENTS); }
