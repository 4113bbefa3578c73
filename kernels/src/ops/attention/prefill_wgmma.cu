// sm_90a only
// attention/prefill_wgmma: what prefill.cu computes, on Hopper's tensor cores
// Shapes:   as prefill.cu
// Launch:   grid as prefill.cu, block 384: two groups of four warps that multiply, 64 rows each, and a group that
//           gathers keys and values; Shared<D>; launcher in prefill_wgmma.rs, the splits' combine that of prefill.cu
// Order:    a row folds its keys in tiles of 64 from the start of a split; splits as split_kv.cuh says; no atomics
// Cost:     as prefill.cu
// Roofline: not measured on hardware yet
// Source:   FlashAttention-3, Shah et al. 2024, algorithm 1, without its overlap inside a group of warps: the softmax of
//           one group runs beside the products of the other; the PTX ISA as named in hopper.cuh
//
// Rows lie at slots, in no order, so that no box of TMA brings them: cp.async does, 16 bytes at a time, into the places
// where a 128-byte swizzle has them.
// No registers are moved between warps (setmaxnreg): with twelve warps the compiler has 168 to give to each thread, and
// outputs, scores and weights take 112.
#include "flash.cuh"
#include "hopper.cuh"
#include "split_kv.cuh"

// Tiles under way: two of keys and two of values.
constexpr int TILES = 4, CONSUMERS = 256, PRODUCERS = 128, PRODUCER_WARPS = 4, CONSUMER_WARPS = 8;

// A tile of R rows is D / 64 panels of 64 columns, each a swizzled box that begins on a multiple of 1024 bytes.
// Keys are the even items of the ring and values the odd ones, each at its place modulo TILES. `full`: a tile has come,
// and with the first the queries. `empty`: every multiplying warp is done with it.
template <int D>
struct Shared {
    bf16 q[FLASH_ROWS * D];
    bf16 tiles[TILES][FLASH_KEYS * D];
    uint64_t full[TILES], empty[TILES];
};

// Eight values of row `row` of a tile of ROWS rows: within a panel, the chunks of eight rows that follow each other are
// permuted by the row, which is the 128-byte swizzle.
template <int ROWS>
DEVICE bf16* swizzled_chunk(bf16* tile, int row, int chunk) {
    return tile + chunk / 8 * (ROWS * 64) + row * 64 + ((chunk % 8) ^ (row % 8)) * 8;
}

// The gathering group. Each thread copies one chunk of every STEP-th row.
template <int D>
DEVICE void produce(Shared<D>& shared, const bf16* __restrict__ q, const FlashRows& rows, const FlashKv& kv, int first,
                    int n_tiles) {
    constexpr int STEP = PRODUCERS * 8 / D, COPIES = FLASH_KEYS / STEP;
    const int thread = threadIdx.x - CONSUMERS, chunk = thread % (D / 8), row = thread / (D / 8);
    // Tells of item `item`, whose copies by this warp are over: each thread makes its own known to wgmma, then one
    // arrives for all.
    const auto announce = [&](int item) {
        async_proxy_fence();
        __syncwarp();
        if (thread % 32 == 0) barrier_arrive(&shared.full[item % TILES]);
    };
#pragma unroll 4
    for (int i = row; i < FLASH_ROWS; i += STEP) {
        const bool valid = rows.holds(i);
        const size_t from = valid ? size_t(rows.index(i)) * D + chunk * 8 : 0;
        cp_async_16(swizzled_chunk<FLASH_ROWS>(shared.q, i, chunk), q + from, valid);
    }
    int slots[COPIES];
#pragma unroll
    for (int i = 0; i < COPIES; i++) slots[i] = kv.slot(first + row + i * STEP);
    for (int item = 0; item < 2 * n_tiles; item++) {
        const bool is_keys = item % 2 == 0;
        const bf16* from = is_keys ? kv.keys : kv.values;
        bf16* to = shared.tiles[item % TILES];
        // The first time round a tile is empty, which the wait for parity 1 of a new barrier grants.
        barrier_wait(&shared.empty[item % TILES], (item / TILES & 1) ^ 1);
#pragma unroll
        for (int i = 0; i < COPIES; i++) {
            cp_async_16(swizzled_chunk<FLASH_KEYS>(to, row + i * STEP, chunk),
                        from + size_t(max(slots[i], 0)) * D + chunk * 8, slots[i] >= 0);
        }
        cp_async_commit();
        if (!is_keys) {
            // The next tile's slots arrive behind these copies; past the last there is none.
            const int next = first + (item / 2 + 1) * FLASH_KEYS + row;
#pragma unroll
            for (int i = 0; i < COPIES; i++) slots[i] = kv.slot(next + i * STEP);
        }
        if (item > 0) {
            cp_async_wait<1>();
            announce(item - 1);
        }
    }
    cp_async_wait<0>();
    announce(2 * n_tiles - 1);
}

// What a thread of a multiplying group holds of its rows g (h = 0) and g + 8 (h = 1), g = lane / 4, of its warp's 16:
// weighted sums of values at columns 8j + 2t (o[j][2h]) and the next (o[j][2h + 1]), t = lane % 4; the largest score so
// far with its scale on it, -inf before any key; the sum of weights, of its own columns until the walk is over.
template <int D>
struct Rows {
    float o[D / 8][4];
    float top[2], sum[2];
    int row[2];
    int position[2];
};

// Takes out the keys after each row's position; the tile's keys stand at `first_key` and after.
template <int D>
DEVICE void mask(const Rows<D>& state, float (&s)[FLASH_KEYS / 8][4], int first_key) {
    const int column = first_key + threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < FLASH_KEYS / 2; i++) {
        if (column + i / 4 * 8 + i % 2 > state.position[i / 2 % 2]) s[i / 4][i % 4] = -INFINITY;
    }
}

// Turns scores into weights relative to the largest score of their row so far, and what was summed before with them.
template <int D>
DEVICE void weigh(Rows<D>& state, float (&s)[FLASH_KEYS / 8][4], float scale) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = -INFINITY;
#pragma unroll
        for (int j = 0; j < FLASH_KEYS / 8; j++) top = fmaxf(top, fmaxf(s[j][2 * h], s[j][2 * h + 1]));
        top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, 1));
        top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, 2));
        top = fmaxf(state.top[h], top * scale);
        // A row that has seen no key keeps -inf and weighs nothing: -inf - -inf is not computed for it.
        const float base = top == -INFINITY ? 0.0f : top;
        const float factor = exp2_fast(state.top[h] - base);
        state.top[h] = top;
        state.sum[h] *= factor;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            state.o[j][2 * h] *= factor;
            state.o[j][2 * h + 1] *= factor;
        }
#pragma unroll
        for (int j = 0; j < FLASH_KEYS / 8; j++) {
            s[j][2 * h] = exp2_fast(s[j][2 * h] * scale - base);
            s[j][2 * h + 1] = exp2_fast(s[j][2 * h + 1] * scale - base);
            state.sum[h] += s[j][2 * h] + s[j][2 * h + 1];
        }
    }
}

// A multiplying group's walk over the tiles.
template <int D>
DEVICE void consume(Rows<D>& state, Shared<D>& shared, int first, int n_tiles, int first_position, float scale) {
    constexpr uint32_t PANEL = FLASH_KEYS * 64;
    const int group = threadIdx.x / 128, lane = threadIdx.x % 32;
    float s[FLASH_KEYS / 8][4] = {};
    for (int tile = 0; tile < n_tiles; tile++) {
        const int k = 2 * tile % TILES, v = k + 1, round = 2 * tile / TILES & 1;
        barrier_wait(&shared.full[k], round);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            wgmma_k16(s, swizzled_rows(shared.q + i / 4 * (FLASH_ROWS * 64) + group * 64 * 64 + i % 4 * 16),
                      swizzled_rows(shared.tiles[k] + i / 4 * PANEL + i % 4 * 16), i > 0);
        }
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_settle(s);
        // Each warp arrives for itself, since a wait vouches for no other warp's products.
        if (lane == 0) barrier_arrive(&shared.empty[k]);

        const int first_key = first + tile * FLASH_KEYS;
        if (first_key + FLASH_KEYS - 1 > first_position) mask(state, s, first_key);
        weigh(state, s, scale);
        // The weights are rounded to bf16 where they stand: the scores of two times 8 keys are a factor's 16 columns.
        uint32_t weights[FLASH_KEYS / 16][4];
#pragma unroll
        for (int i = 0; i < FLASH_KEYS / 4; i++) {
            const float(&pair)[4] = s[i / 2];
            weights[i / 4][i % 4] = i % 2 == 0 ? pack_bf16(pair[0], pair[1]) : pack_bf16(pair[2], pair[3]);
        }
        barrier_wait(&shared.full[v], round);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < FLASH_KEYS / 16; i++) {
            wgmma_columns_k16(state.o, weights[i], swizzled_columns(shared.tiles[v] + i * 16 * 64, PANEL * 2));
        }
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_settle(state.o);
        if (lane == 0) barrier_arrive(&shared.empty[v]);
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        state.sum[h] += __shfl_xor_sync(FULL_WARP, state.sum[h], 1);
        state.sum[h] += __shfl_xor_sync(FULL_WARP, state.sum[h], 2);
    }
}

// Writes the rows' outputs to `out` (n_tokens, n_heads, D).
template <int D>
DEVICE void store(const Rows<D>& state, const FlashRows& rows, bf16* __restrict__ out) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (!rows.holds(state.row[h])) continue;
        const float share = 1.0f / state.sum[h];
        bf16* at = out + size_t(rows.index(state.row[h])) * D + threadIdx.x % 4 * 2;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            *reinterpret_cast<uint32_t*>(at + j * 8) =
                pack_bf16(state.o[j][2 * h] * share, state.o[j][2 * h + 1] * share);
        }
    }
}

// Writes a split's part of the rows, as split_kv.cuh lays it out.
template <int D>
DEVICE void store_part(const Rows<D>& state, const FlashRows& rows, const SplitPart& part) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (!rows.holds(state.row[h])) continue;
        const int index = rows.index(state.row[h]), column = threadIdx.x % 4 * 2;
        if (column == 0) part.weights[index] = make_float2(state.top[h], state.sum[h]);
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            *reinterpret_cast<float2*>(part.sums + size_t(index) * D + j * 8 + column) =
                make_float2(state.o[j][2 * h], state.o[j][2 * h + 1]);
        }
    }
}

template <int D, bool SPLIT>
DEVICE void attend(const bf16* __restrict__ q, const bf16* __restrict__ keys, const bf16* __restrict__ values,
                   const int* __restrict__ slots, bf16* __restrict__ out, float* __restrict__ partials, int n,
                   int start, int group, int n_heads, int n_slots, int split_len, float scale) {
    DYNAMIC_SHARED(Shared<D>, shared);
    const int kv_head = blockIdx.y, thread = threadIdx.x;
    // The last rows see the most keys: they go first.
    const int tile = gridDim.x - 1 - blockIdx.x;
    const FlashRows rows = {tile * FLASH_ROWS, n * group, group, kv_head * group, n_heads, start};
    const int first = SPLIT ? blockIdx.z * split_len : 0;
    const int end = SPLIT ? min(first + split_len, rows.last_position() + 1) : rows.last_position() + 1;
    if (first >= end) return;
    const int n_tiles = (end - first + FLASH_KEYS - 1) / FLASH_KEYS;
    if (thread == 0) {
        for (int i = 0; i < TILES; i++) {
            barrier_init(&shared->full[i], PRODUCER_WARPS);
            barrier_init(&shared->empty[i], CONSUMER_WARPS);
        }
        barrier_init_fence();
    }
    __syncthreads();
    if (thread >= CONSUMERS) {
        const size_t head = size_t(kv_head) * n_slots * D;
        const FlashKv kv = {keys + head, values + head, slots, start + n, n_slots};
        produce<D>(*shared, q, rows, kv, first, n_tiles);
        return;
    }
    Rows<D> state = {};
#pragma unroll
    for (int h = 0; h < 2; h++) {
        state.top[h] = -INFINITY;
        state.row[h] = thread / 32 * 16 + h * 8 + thread % 32 / 4;
        state.position[h] = rows.position(state.row[h]);
    }
    consume<D>(state, *shared, first, n_tiles, rows.position(thread / 128 * 64), scale);
    if (SPLIT) {
        store_part<D>(state, rows, split_part<D>(partials, blockIdx.z, gridDim.z, n * n_heads));
    } else {
        store<D>(state, rows, out);
    }
}

#define PARAMETERS                                                                                            \
    const bf16 *q, const bf16 *keys, const bf16 *values, const int *slots, bf16 *out, float *partials, int n, \
        int start, int group, int n_heads, int n_slots, int split_len, float scale
#define ARGUMENTS q, keys, values, slots, out, partials, n, start, group, n_heads, n_slots, split_len, scale

KERNEL(384) attention_prefill_wgmma_d64(PARAMETERS) { attend<64, false>(ARGUMENTS); }
KERNEL(384) attention_prefill_wgmma_d128(PARAMETERS) { attend<128, false>(ARGUMENTS); }
KERNEL(384) attention_prefill_wgmma_split_d64(PARAMETERS) { attend<64, true>(ARGUMENTS); }
KERNEL(384) attention_prefill_wgmma_split_d128(PARAMETERS) { attend<128, true>(ARGUMENTS); }
