// attention/decode: out[h] = sum_j softmax_j(q[h] · k[j, g(h)] / sqrt(D)) · v[j, g(h)],  j <= *start
// Shapes:   q, out (n_heads, D) bf16; keys, values (n_kv_heads, n_slots, D) bf16; slots (at least *start + 1) i32; D 64, 128
// Launch:   grid (n_kv_heads, ceil(group / HEADS), n_splits), block 128, DecodeShared; launcher in decode.rs. The same
//           grid at every position, for a graph: the split's length grows with the context
// Order:    warp w folds the steps of 32 keys w, w + 4, ... of its split, then the four warps in order; splits as
//           split_kv.cuh says
// Cost:     reads 4 · kv_len · n_kv_heads · D B (keys and values once for each group of heads): memory bound
// Roofline: not measured on hardware yet
// Source:   Flash-Decoding, Dao et al. 2023
#include "split_kv.cuh"

constexpr int DECODE_WARPS = 4, DECODE_STEP = 32;

// Keys of a split: a step for each warp, as often as the context needs.
DEVICE int decode_split_len(int start, int n_splits) {
    constexpr int UNIT = DECODE_WARPS * DECODE_STEP;
    return (start / (n_splits * UNIT) + 1) * UNIT;
}

// The weights that a key has for the heads of a group, read in one go.
template <int HEADS>
struct alignas(HEADS % 4 == 0 ? 16 : HEADS % 2 == 0 ? 8 : 4) DecodeWeights {
    float of[HEADS];
};

template <int D, int HEADS>
struct DecodeShared {
    uint4 q[HEADS][D / 8];
    DecodeWeights<HEADS> weights[DECODE_WARPS][DECODE_STEP];
    float sums[DECODE_WARPS][HEADS][D];
    float2 tops[DECODE_WARPS][HEADS];
};

// What a lane carries: of the weighted sums of values the eight columns that it loads, over its share of the keys; the
// largest score of the warp's keys; the sum of the weights of the keys that were this lane's.
template <int HEADS>
struct DecodeState {
    float sums[HEADS][8];
    float top[HEADS];
    float total[HEADS];
};

DEVICE float dot_of_8(const uint4& a, const uint4& b, float sum) {
    sum += low_bf16(a.x) * low_bf16(b.x);
    sum += high_bf16(a.x) * high_bf16(b.x);
    sum += low_bf16(a.y) * low_bf16(b.y);
    sum += high_bf16(a.y) * high_bf16(b.y);
    sum += low_bf16(a.z) * low_bf16(b.z);
    sum += high_bf16(a.z) * high_bf16(b.z);
    sum += low_bf16(a.w) * low_bf16(b.w);
    sum += high_bf16(a.w) * high_bf16(b.w);
    return sum;
}

// Raw scores of the step's 32 keys into the warp's `weights`; lane l holds the slot of key l. Eight lanes share a key,
// so that three shuffles sum it for a head; four loads are under way before the first is needed.
template <int D, int HEADS>
DEVICE void decode_scores(DecodeShared<D, HEADS>& shared, const bf16* __restrict__ keys, int slot) {
    constexpr int CHUNKS = D / 64, AT_ONCE = 4 / CHUNKS;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, part = lane % 8;
#pragma unroll 1
    for (int first = lane / 8; first < DECODE_STEP; first += 4 * AT_ONCE) {
        uint4 key[AT_ONCE][CHUNKS];
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {
            const size_t row = __shfl_sync(FULL_WARP, slot, first + 4 * i);
            const uint4* from = reinterpret_cast<const uint4*>(keys + row * D) + part;
#pragma unroll
            for (int c = 0; c < CHUNKS; ++c) key[i][c] = __ldg(from + 8 * c);
        }
#pragma unroll
        for (int h = 0; h < HEADS; ++h) {
            float dots[AT_ONCE] = {};
#pragma unroll
            for (int c = 0; c < CHUNKS; ++c) {
                const uint4 q = shared.q[h][8 * c + part];
#pragma unroll
                for (int i = 0; i < AT_ONCE; ++i) dots[i] = dot_of_8(q, key[i][c], dots[i]);
            }
#pragma unroll
            for (int i = 0; i < AT_ONCE; ++i) {
                dots[i] += __shfl_xor_sync(FULL_WARP, dots[i], 4);
                dots[i] += __shfl_xor_sync(FULL_WARP, dots[i], 2);
                dots[i] += __shfl_xor_sync(FULL_WARP, dots[i], 1);
                if (part == h) shared.weights[warp][first + 4 * i].of[h] = dots[i];
            }
        }
    }
}

// Turns the scores into weights; lane l takes key l, which is past the end where `visible` is false.
template <int HEADS>
DEVICE void decode_weigh(DecodeState<HEADS>& state, DecodeWeights<HEADS>& weights, bool visible, float scale) {
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
        const float score = visible ? weights.of[h] * scale : -INFINITY;
        const float top = fmaxf(state.top[h], warp_max(score));
        const float factor = exp2_fast(state.top[h] - top), weight = exp2_fast(score - top);
        state.top[h] = top;
        state.total[h] = state.total[h] * factor + weight;
#pragma unroll
        for (int i = 0; i < 8; ++i) state.sums[h][i] *= factor;
        weights.of[h] = weight;
    }
}

// Adds the step's weighted values; D / 8 lanes share a row.
template <int D, int HEADS>
DEVICE void decode_add_values(DecodeState<HEADS>& state, const DecodeWeights<HEADS>* weights,
                              const bf16* __restrict__ values, int slot) {
    constexpr int LANES = D / 8, ROWS = 32 / LANES;
    const int lane = threadIdx.x % 32;
#pragma unroll 4
    for (int first = 0; first < DECODE_STEP; first += ROWS) {
        const int key = first + lane / LANES;
        const size_t row = __shfl_sync(FULL_WARP, slot, key);
        const uint4 value = __ldg(reinterpret_cast<const uint4*>(values + row * D) + lane % LANES);
        const DecodeWeights<HEADS> weight = weights[key];
#pragma unroll
        for (int h = 0; h < HEADS; ++h) {
            state.sums[h][0] += weight.of[h] * low_bf16(value.x);
            state.sums[h][1] += weight.of[h] * high_bf16(value.x);
            state.sums[h][2] += weight.of[h] * low_bf16(value.y);
            state.sums[h][3] += weight.of[h] * high_bf16(value.y);
            state.sums[h][4] += weight.of[h] * low_bf16(value.z);
            state.sums[h][5] += weight.of[h] * high_bf16(value.z);
            state.sums[h][6] += weight.of[h] * low_bf16(value.w);
            state.sums[h][7] += weight.of[h] * high_bf16(value.w);
        }
    }
}

// Puts the warp's state where the block can fold it.
template <int D, int HEADS>
DEVICE void decode_publish(DecodeState<HEADS>& state, DecodeShared<D, HEADS>& shared) {
    constexpr int LANES = D / 8;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
        const float total = warp_sum(state.total[h]);
        if (lane == 0) shared.tops[warp][h] = make_float2(state.top[h], total);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            float sum = state.sums[h][i];
#pragma unroll
            for (int distance = 16; distance >= LANES; distance /= 2) {
                sum += __shfl_xor_sync(FULL_WARP, sum, distance);
            }
            if (lane < LANES) shared.sums[warp][h][8 * lane + i] = sum;
        }
    }
}

template <int D, int HEADS>
DEVICE void attention_decode(const bf16* __restrict__ q, const bf16* __restrict__ keys,
                             const bf16* __restrict__ values, const int* __restrict__ slots, float* __restrict__ parts,
                             const int* __restrict__ start, int group, int max_kv_len, int n_slots, float scale) {
    using Shared = DecodeShared<D, HEADS>;
    DYNAMIC_SHARED(Shared, shared);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int n_heads = gridDim.x * group, first_head = blockIdx.x * group + blockIdx.y * HEADS;
    const int n_live = min(HEADS, group - int(blockIdx.y) * HEADS);
    const int position = min(*start, max_kv_len - 1), split_len = decode_split_len(position, gridDim.z);
    const int begin = blockIdx.z * split_len, end = min(begin + split_len, position + 1);
    if (begin >= end) return;

    const size_t head = size_t(blockIdx.x) * n_slots * D;
    for (int i = threadIdx.x; i < HEADS * D / 8; i += DECODE_WARPS * 32) {
        const int h = i / (D / 8), chunk = i % (D / 8);
        const uint4* from = reinterpret_cast<const uint4*>(q + size_t(first_head + min(h, n_live - 1)) * D);
        shared->q[h][chunk] = from[chunk];
    }
    __syncthreads();

    DecodeState<HEADS> state = {};
#pragma unroll
    for (int h = 0; h < HEADS; ++h) state.top[h] = -INFINITY;
    for (int first = begin + warp * DECODE_STEP; first < end; first += DECODE_WARPS * DECODE_STEP) {
        // Lanes past the end take the last key again, so that what they read is a key, and weigh it nothing.
        const int key = first + lane, slot = min(unsigned(__ldg(slots + min(key, end - 1))), unsigned(n_slots - 1));
        decode_scores<D, HEADS>(*shared, keys + head, slot);
        __syncwarp();
        decode_weigh<HEADS>(state, shared->weights[warp][lane], key < end, scale);
        __syncwarp();
        decode_add_values<D, HEADS>(state, shared->weights[warp], values + head, slot);
        __syncwarp();
    }
    decode_publish<D, HEADS>(state, *shared);
    __syncthreads();

    const SplitPart part = split_part<D>(parts, blockIdx.z, gridDim.z, n_heads);
    for (int i = threadIdx.x; i < n_live * D; i += DECODE_WARPS * 32) {
        const int h = i / D, column = i % D;
        float top = -INFINITY, sum = 0.0f, total = 0.0f;
#pragma unroll
        for (int w = 0; w < DECODE_WARPS; ++w) top = fmaxf(top, shared->tops[w][h].x);
        // A warp without a step has the largest score -inf and counts for nothing.
#pragma unroll
        for (int w = 0; w < DECODE_WARPS; ++w) {
            const float factor = exp2_fast(shared->tops[w][h].x - top);
            sum += factor * shared->sums[w][h][column];
            total += factor * shared->tops[w][h].y;
        }
        part.sums[size_t(first_head + h) * D + column] = sum;
        if (column == 0) part.weights[first_head + h] = make_float2(top, total);
    }
}

#define DECODE_PARAMETERS                                                                                        \
    const bf16 *q, const bf16 *keys, const bf16 *values, const int *slots, float *parts, const int *start,       \
        int group, int max_kv_len, int n_slots, float scale
#define DECODE_ARGUMENTS q, keys, values, slots, parts, start, group, max_kv_len, n_slots, scale

KERNEL(128) attention_decode_d64_h1(DECODE_PARAMETERS) { attention_decode<64, 1>(DECODE_ARGUMENTS); }
KERNEL(128) attention_decode_d64_h2(DECODE_PARAMETERS) { attention_decode<64, 2>(DECODE_ARGUMENTS); }
KERNEL(128) attention_decode_d64_h4(DECODE_PARAMETERS) { attention_decode<64, 4>(DECODE_ARGUMENTS); }
KERNEL(128) attention_decode_d64_h8(DECODE_PARAMETERS) { attention_decode<64, 8>(DECODE_ARGUMENTS); }
KERNEL(128) attention_decode_d128_h1(DECODE_PARAMETERS) { attention_decode<128, 1>(DECODE_ARGUMENTS); }
KERNEL(128) attention_decode_d128_h2(DECODE_PARAMETERS) { attention_decode<128, 2>(DECODE_ARGUMENTS); }
KERNEL(128) attention_decode_d128_h4(DECODE_PARAMETERS) { attention_decode<128, 4>(DECODE_ARGUMENTS); }
KERNEL(128) attention_decode_d128_h5(DECODE_PARAMETERS) { attention_decode<128, 5>(DECODE_ARGUMENTS); }
KERNEL(128) attention_decode_d128_h8(DECODE_PARAMETERS) { attention_decode<128, 8>(DECODE_ARGUMENTS); }

// Grid n_heads.
#define COMBINE_PARAMETERS const float *parts, bf16 *out, int n_splits, const int *start, int max_kv_len

KERNEL(128) attention_decode_combine_d64(COMBINE_PARAMETERS) {
    const int position = min(*start, max_kv_len - 1);
    combine_splits<64>(parts, out, n_splits, position, decode_split_len(position, n_splits));
}
KERNEL(128) attention_decode_combine_d128(COMBINE_PARAMETERS) {
    const int position = min(*start, max_kv_len - 1);
    combine_splits<128>(parts, out, n_splits, position, decode_split_len(position, n_splits));
}
