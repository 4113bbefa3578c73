// attention/prefill: out[t, h] = sum_j softmax_j(q[t, h] · k[j, g(h)] / sqrt(D)) · v[j, g(h)],  j <= start + t
// Shapes:   q, out (n, n_heads, D) bf16; keys, values (n_kv_heads, n_slots, D) bf16; slots (start + n) i32; D 64 or 128
// Launch:   grid (ceil(n · group / 128), n_kv_heads, n_splits), block 128, FlashShared<D>; launcher in prefill.rs
// Order:    a row folds its keys in tiles of 64 from the start of a split; splits as split_kv.cuh says
// Cost:     4·D flop for each query head and visible pair, keys and values read once for each 128 rows: compute bound
// Roofline: not measured on hardware yet
// Source:   FlashAttention-2, Dao 2023, algorithm 1; heads of a group as rows of one tile, Ainslie et al. 2023 (GQA)
#include "flash.cuh"
#include "split_kv.cuh"

// Keys from `first` on, tile by tile.
struct PrefillTiles {
    int first;
    int count;

    DEVICE int first_key(int tile) const { return first + tile * FLASH_KEYS; }
};

// A split's part of the rows, as split_kv.cuh lays it out.
template <int D>
DEVICE void store_part(const FlashState<D>& state, const FlashShared<D>& shared, const FlashRows& rows,
                       const SplitPart& part) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int m = i / 2, h = i % 2, row = flash_row(m, h);
        if (!rows.holds(row)) continue;
        const int index = rows.index(row), column = threadIdx.x % 4 * 2;
        if (column == 0) part.weights[index] = shared.weights[i][threadIdx.x];
#pragma unroll
        for (int j = 0; j < D / 8; ++j) {
            *reinterpret_cast<float2*>(part.sums + size_t(index) * D + j * 8 + column) =
                make_float2(state.o[m][j][2 * h], state.o[m][j][2 * h + 1]);
        }
    }
}

template <int D, bool SPLIT>
DEVICE void attention_prefill(const bf16* __restrict__ q, const bf16* __restrict__ keys,
                              const bf16* __restrict__ values, const int* __restrict__ slots, bf16* __restrict__ out,
                              float* __restrict__ partials, int n, int start, int group, int n_heads, int n_slots,
                              int split_len, float scale) {
    DYNAMIC_SHARED(FlashShared<D>, shared);
    const int kv_head = blockIdx.y;
    // The last rows see the most keys: they go first.
    const int tile = gridDim.x - 1 - blockIdx.x;
    const FlashRows rows = {tile * FLASH_ROWS, n * group, group, kv_head * group, n_heads, start};
    const size_t head = size_t(kv_head) * n_slots * D;
    const FlashKv kv = {keys + head, values + head, slots, start + n, n_slots};
    const int first = SPLIT ? blockIdx.z * split_len : 0;
    const int end = SPLIT ? min(first + split_len, rows.last_position() + 1) : rows.last_position() + 1;
    if (first >= end) return;
    const PrefillTiles tiles = {first, (end - first + FLASH_KEYS - 1) / FLASH_KEYS};

    FlashState<D> state;
    flash_clear<D>(state, *shared);
    flash_load_queries<D>(*shared, q, rows);
    flash_attend<D>(state, *shared, rows, kv, tiles, scale);
    if (SPLIT) {
        store_part<D>(state, *shared, rows, split_part<D>(partials, blockIdx.z, gridDim.z, n * n_heads));
    } else {
        flash_store<D>(state, *shared, rows, out);
    }
}

#define PREFILL_PARAMETERS                                                                                    \
    const bf16 *q, const bf16 *keys, const bf16 *values, const int *slots, bf16 *out, float *partials, int n, \
        int start, int group, int n_heads, int n_slots, int split_len, float scale
#define PREFILL_ARGUMENTS q, keys, values, slots, out, partials, n, start, group, n_heads, n_slots, split_len, scale

KERNEL(128) attention_prefill_d64(PREFILL_PARAMETERS) { attention_prefill<64, false>(PREFILL_ARGUMENTS); }
KERNEL(128) attention_prefill_d128(PREFILL_PARAMETERS) { attention_prefill<128, false>(PREFILL_ARGUMENTS); }
KERNEL(128) attention_prefill_split_d64(PREFILL_PARAMETERS) { attention_prefill<64, true>(PREFILL_ARGUMENTS); }
KERNEL(128) attention_prefill_split_d128(PREFILL_PARAMETERS) { attention_prefill<128, true>(PREFILL_ARGUMENTS); }

// Grid n * n_heads: rows are (token, head).
#define COMBINE_PARAMETERS const float *partials, bf16 *out, int n_splits, int n_heads, int start, int split_len

KERNEL(128) attention_prefill_combine_d64(COMBINE_PARAMETERS) {
    combine_splits<64>(partials, out, n_splits, start + int(blockIdx.x) / n_heads, split_len);
}
KERNEL(128) attention_prefill_combine_d128(COMBINE_PARAMETERS) {
    combine_splits<128>(partials, out, n_splits, start + int(blockIdx.x) / n_heads, split_len);
}
