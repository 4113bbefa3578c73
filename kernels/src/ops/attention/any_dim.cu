// attention/any_dim: out[t, h] = sum_j softmax_j(q[t, h] · k[j, g(h)] / sqrt(D)) · v[j, g(h)],  j <= start + t
// Shapes:   q, out (n, n_heads, D) bf16; keys, values (n_kv_heads, n_slots, D) bf16; slots (start + n) i32; D even, <= 256
// Launch:   grid (n_heads, n), block 128, AnyDimShared; launcher in any_dim.rs. For the head widths that have no kernel
//           of their own: plain f32, no tensor core, no splits
// Order:    warp w folds the steps of 32 keys w, w + 4, ..., then the four warps in order
// Cost:     4·D flop for each query head and visible pair; every row reads its keys and values itself
// Roofline: not measured on hardware yet
// Source:   the online softmax of Milakov and Gimelshein 2018, algorithm 3
#include "reduce.cuh"

constexpr int ANY_DIM_WARPS = 4, ANY_DIM_MAX = 256;

struct AnyDimShared {
    float q[ANY_DIM_MAX];
    float sums[ANY_DIM_WARPS][ANY_DIM_MAX];
    float2 tops[ANY_DIM_WARPS];
};

// Sizes that do not change within a launch.
struct AnyDim {
    int n_heads;
    int group;
    int n_slots;
    int head_dim;
    float scale;
};

// The score of one key, read in pairs.
DEVICE float any_dim_score(const float* q, const uint32_t* __restrict__ key, int n_pairs) {
    float sum = 0.0f;
    for (int i = 0; i < n_pairs; ++i) {
        const uint32_t pair = __ldg(key + i);
        sum += q[2 * i] * low_bf16(pair);
        sum += q[2 * i + 1] * high_bf16(pair);
    }
    return sum;
}

// One row of queries, at `position`; its token is blockIdx.y.
DEVICE void attention_any_dim(const bf16* __restrict__ q, const bf16* __restrict__ keys,
                              const bf16* __restrict__ values, const int* __restrict__ slots, bf16* __restrict__ out,
                              int position, const AnyDim& sizes) {
    DYNAMIC_SHARED(AnyDimShared, shared);
    constexpr int PER_LANE = ANY_DIM_MAX / 64;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int head_dim = sizes.head_dim, n_pairs = head_dim / 2, n_slots = sizes.n_slots;
    const size_t row = (size_t(blockIdx.y) * sizes.n_heads + blockIdx.x) * head_dim;
    const size_t head = size_t(blockIdx.x / sizes.group) * n_slots * n_pairs;
    const uint32_t* key_pairs = reinterpret_cast<const uint32_t*>(keys) + head;
    const uint32_t* value_pairs = reinterpret_cast<const uint32_t*>(values) + head;
    for (int i = threadIdx.x; i < head_dim; i += ANY_DIM_WARPS * 32) shared->q[i] = to_f32(q[row + i]);
    __syncthreads();

    float top = -INFINITY, total = 0.0f, sums[PER_LANE][2] = {};
    for (int first = warp * 32; first <= position; first += ANY_DIM_WARPS * 32) {
        // Lanes past the end take the last key again, so that what they read is a key, and weigh it nothing.
        const int key = first + lane;
        const int slot = min(unsigned(__ldg(slots + min(key, position))), unsigned(n_slots - 1));
        const float raw = any_dim_score(shared->q, key_pairs + size_t(slot) * n_pairs, n_pairs);
        const float score = key <= position ? raw * sizes.scale : -INFINITY;
        const float new_top = fmaxf(top, warp_max(score));
        const float factor = exp2_fast(top - new_top), weight = exp2_fast(score - new_top);
        top = new_top;
        total = total * factor + weight;
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i) {
            sums[i][0] *= factor;
            sums[i][1] *= factor;
        }
        for (int j = 0; j < 32; ++j) {
            const float share = __shfl_sync(FULL_WARP, weight, j);
            const uint32_t* from = value_pairs + size_t(__shfl_sync(FULL_WARP, slot, j)) * n_pairs;
#pragma unroll
            for (int i = 0; i < PER_LANE; ++i) {
                const uint32_t pair = lane + 32 * i < n_pairs ? __ldg(from + lane + 32 * i) : 0;
                sums[i][0] += share * low_bf16(pair);
                sums[i][1] += share * high_bf16(pair);
            }
        }
    }
    total = warp_sum(total);
    if (lane == 0) shared->tops[warp] = make_float2(top, total);
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        shared->sums[warp][2 * (lane + 32 * i)] = sums[i][0];
        shared->sums[warp][2 * (lane + 32 * i) + 1] = sums[i][1];
    }
    __syncthreads();

    for (int column = threadIdx.x; column < head_dim; column += ANY_DIM_WARPS * 32) {
        float best = -INFINITY, sum = 0.0f, weight = 0.0f;
#pragma unroll
        for (int w = 0; w < ANY_DIM_WARPS; ++w) best = fmaxf(best, shared->tops[w].x);
        // A warp without a step has the largest score -inf and counts for nothing.
#pragma unroll
        for (int w = 0; w < ANY_DIM_WARPS; ++w) {
            const float factor = exp2_fast(shared->tops[w].x - best);
            sum += factor * shared->sums[w][column];
            weight += factor * shared->tops[w].y;
        }
        out[row + column] = to_bf16(sum / weight);
    }
}

#define ANY_DIM_BUFFERS const bf16 *q, const bf16 *keys, const bf16 *values, const int *slots, bf16 *out
#define ANY_DIM_SIZES int group, int n_slots, int head_dim, float scale

KERNEL(128) attention_any_dim_prefill(ANY_DIM_BUFFERS, int start, ANY_DIM_SIZES) {
    const AnyDim sizes = {int(gridDim.x), group, n_slots, head_dim, scale};
    attention_any_dim(q, keys, values, slots, out, start + int(blockIdx.y), sizes);
}
KERNEL(128) attention_any_dim_decode(ANY_DIM_BUFFERS, const int* start, int max_kv_len, ANY_DIM_SIZES) {
    const AnyDim sizes = {int(gridDim.x), group, n_slots, head_dim, scale};
    attention_any_dim(q, keys, values, slots, out, min(*start, max_kv_len - 1), sizes);
}
