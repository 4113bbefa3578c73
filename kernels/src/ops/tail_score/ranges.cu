// ranges: p[h,t,j] = softmax_j(q[t,h] · k[j,g(h)] / sqrt(head_dim)), j <= S - n_tail + t;
//         max_probs[t,j] = max(max_probs[t,j], max_h p[h,t,j]); score[j] = mean_t max_probs[t,j]
// Shapes:   q (n_tail, n_heads, head_dim) bf16; keys (n_kv_heads, n_slots, head_dim) bf16; slots (S) int; max_probs
//           (n_tail, S) f32; score (S) f32; scratch as `Scratch` below
// Launch:   in this order, launchers in ranges.rs
//           tail_score_ranges: grid (ranges of 256 positions, n_kv_heads, groups of 16 rows), block 256
//           tail_score_totals: grid n_heads · n_tail, block 32
//           tail_score_raise:  grid (ceil(S / 256), n_tail), block 256
//           tail_score_mean:   grid ceil(S / 256), block 256, after the last layer
// Order:    a range has a fixed length counted from position 0; maxima are order-free, sums run over a lane's positions,
//           then lanes, warps and ranges in fixed trees
// Cost:     reads the keys once for every 16 rows, writes and reads 4·n_heads·n_tail·S B of raw scores: memory bound
// Roofline: not measured on hardware yet
// Source:   as mod.rs
#include "mma.cuh"
#include "reduce.cuh"

constexpr int THREADS = 256, WARPS = THREADS / 32, RANGE = 256;
// Keys of a warp, in tiles of the tensor core's eight columns.
constexpr int KEYS = RANGE / WARPS, TILES = KEYS / 8;
// Rows of the tensor core: (tail token, query head) pairs that share a KV head.
constexpr int ROWS = 16;
constexpr int WIDE_THREADS = 256;
// Below every score. A range that a row may not see has no maximum; any finite one gives it the sum 0.
constexpr float LOWEST = -3.402823466e38f;

struct Shape {
    int n_tail, n_heads, group, n_slots, head_dim, kv_len, n_ranges;
    // log2(e) / sqrt(head_dim)
    float scale;

    DEVICE int visible(int t) const { return kv_len - n_tail + t + 1; }
};

// Raw scores (n_heads, n_tail, ranges · 256), then for each of these rows its ranges' (maximum, sum), then the rows'
// (maximum, 1 / sum).
struct Scratch {
    float* scores;
    float2 *parts, *totals;

    DEVICE Scratch(float* base, const Shape& shape) {
        const size_t rows = size_t(shape.n_heads) * shape.n_tail, ranges = shape.n_ranges;
        scores = base;
        parts = reinterpret_cast<float2*>(base + rows * ranges * RANGE);
        totals = parts + rows * ranges;
    }
};

// Rows `lane / 4` and 8 more of the product of a query block with the keys of a tile; `c` is laid out as mma.cuh has it.
//
// Both sides are read 16 bytes a lane, straight from global memory: lane t of four takes columns 8t..8t+8 of every 32,
// and the tensor core, which wants 2t, 2t+1, 2t+8 and 2t+9 of every 16, is given them in that order twice. The order of
// the columns of a dot product is free as long as both sides have the same.
template <int CHUNKS>
DEVICE void multiply(const uint4 (&low)[CHUNKS], const uint4 (&high)[CHUNKS], const uint4 (&key)[CHUNKS], float (&c)[4]) {
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        const uint32_t first[4] = {low[i].x, high[i].x, low[i].y, high[i].y};
        mma_m16n8k16(c, first, key[i].x, key[i].y);
        const uint32_t second[4] = {low[i].z, high[i].z, low[i].w, high[i].w};
        mma_m16n8k16(c, second, key[i].z, key[i].w);
    }
}

// This lane's columns of a row, zeros where there is no row or no column.
template <int CHUNKS>
DEVICE void load_row(const bf16* __restrict__ row, int head_dim, uint4 (&words)[CHUNKS]) {
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        const int column = 32 * i + 8 * (threadIdx.x % 4);
        const bool exists = row != nullptr && column < head_dim;
        words[i] = exists ? *reinterpret_cast<const uint4*>(row + column) : make_uint4(0, 0, 0, 0);
    }
}

template <int CHUNKS>
DEVICE void ranges_body(const bf16* __restrict__ q, const bf16* __restrict__ keys, const int* __restrict__ slots,
                        float* __restrict__ scratch, const Shape shape) {
    DYNAMIC_SHARED(float, shared);
    float (*maxima)[ROWS] = reinterpret_cast<float (*)[ROWS]>(shared), (*sums)[ROWS] = maxima + WARPS;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, pair = 2 * (lane % 4);
    const int kv_head = blockIdx.y, group = shape.group, n_rows = shape.n_tail * group;
    const int first = blockIdx.x * RANGE + warp * KEYS;
    const Scratch to(scratch, shape);

    // Row r of a KV head is its query head r % group of tail token r / group.
    const int rows[2] = {int(blockIdx.z) * ROWS + g, int(blockIdx.z) * ROWS + g + 8};
    const int tails[2] = {rows[0] / group, rows[1] / group};
    const int heads[2] = {kv_head * group + rows[0] % group, kv_head * group + rows[1] % group};
    uint4 queries[2][CHUNKS];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const bf16* query = q + (size_t(tails[i]) * shape.n_heads + heads[i]) * shape.head_dim;
        load_row(rows[i] < n_rows ? query : nullptr, shape.head_dim, queries[i]);
    }
    float c[TILES][4];
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
        const int position = first + 8 * tile + g;
        // A slot that is not there is the caller's error; it must not read what lies behind the layer.
        const uint32_t slot = position < shape.kv_len ? uint32_t(slots[position]) : ~0u;
        const bf16* key = keys + (size_t(kv_head) * shape.n_slots + slot) * shape.head_dim;
        uint4 words[CHUNKS];
        load_row(slot < uint32_t(shape.n_slots) ? key : nullptr, shape.head_dim, words);
#pragma unroll
        for (int i = 0; i < 4; i++) c[tile][i] = 0.0f;
        multiply(queries[0], queries[1], words, c[tile]);
    }

    float max[2] = {LOWEST, LOWEST};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int visible = shape.visible(tails[i]);
        float* scores = to.scores + (size_t(heads[i]) * shape.n_tail + tails[i]) * shape.n_ranges * RANGE;
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            const int position = first + 8 * tile + pair;
            float &a = c[tile][2 * i], &b = c[tile][2 * i + 1];
            a = position < visible ? a : -INFINITY, b = position + 1 < visible ? b : -INFINITY;
            max[i] = fmaxf(max[i], fmaxf(a, b));
            if (rows[i] < n_rows) *reinterpret_cast<float2*>(scores + position) = make_float2(a, b);
        }
        // The four lanes of a row.
        max[i] = fmaxf(max[i], __shfl_xor_sync(FULL_WARP, max[i], 1));
        max[i] = fmaxf(max[i], __shfl_xor_sync(FULL_WARP, max[i], 2));
        if (lane % 4 == 0) maxima[warp][g + 8 * i] = max[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        for (int w = 0; w < WARPS; w++) max[i] = fmaxf(max[i], maxima[w][g + 8 * i]);
        float sum = 0.0f;
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            sum += exp2_fast((c[tile][2 * i] - max[i]) * shape.scale);
            sum += exp2_fast((c[tile][2 * i + 1] - max[i]) * shape.scale);
        }
        sum += __shfl_xor_sync(FULL_WARP, sum, 1);
        sum += __shfl_xor_sync(FULL_WARP, sum, 2);
        if (lane % 4 == 0) sums[warp][g + 8 * i] = sum;
    }
    __syncthreads();
    if (warp > 0 || lane % 4 != 0) return;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (rows[i] >= n_rows) continue;
        float sum = 0.0f;
        for (int w = 0; w < WARPS; w++) sum += sums[w][g + 8 * i];
        const size_t row = size_t(heads[i]) * shape.n_tail + tails[i];
        to.parts[row * shape.n_ranges + blockIdx.x] = make_float2(max[i], sum);
    }
}

// One warp a row: the softmax over all ranges from those of the ranges.
DEVICE void totals_body(float* __restrict__ scratch, const Shape shape) {
    const Scratch at(scratch, shape);
    const int ranges = shape.n_ranges;
    const float2* parts = at.parts + size_t(blockIdx.x) * ranges;
    float max = LOWEST, sum = 0.0f;
    for (int i = threadIdx.x; i < ranges; i += 32) max = fmaxf(max, parts[i].x);
    max = warp_max(max);
    for (int i = threadIdx.x; i < ranges; i += 32) sum += parts[i].y * exp2_fast((parts[i].x - max) * shape.scale);
    sum = warp_sum(sum);
    if (threadIdx.x == 0) at.totals[blockIdx.x] = make_float2(max, 1.0f / sum);
}

DEVICE void raise_body(float* __restrict__ scratch, float* __restrict__ max_probs, const Shape shape) {
    const Scratch from(scratch, shape);
    const int position = blockIdx.x * WIDE_THREADS + threadIdx.x, t = blockIdx.y;
    if (position >= shape.visible(t)) return;
    const size_t row_len = size_t(shape.n_ranges) * RANGE;
    float* to = max_probs + size_t(t) * shape.kv_len + position;
    float best = *to;
#pragma unroll 4
    for (int head = 0; head < shape.n_heads; head++) {
        const size_t row = size_t(head) * shape.n_tail + t;
        const float2 total = from.totals[row];
        // The larger of a number and NaN is the number: a NaN probability raises nothing.
        best = fmaxf(best, exp2_fast((from.scores[row * row_len + position] - total.x) * shape.scale) * total.y);
    }
    *to = best;
}

#define SHAPE_ARGUMENTS \
    int n_tail, int n_heads, int group, int n_slots, int head_dim, int kv_len, int n_ranges, float scale
#define RANGES_ARGUMENTS const bf16 *q, const bf16 *keys, const int *slots, float *scratch, SHAPE_ARGUMENTS
#define SHAPE \
    Shape { n_tail, n_heads, group, n_slots, head_dim, kv_len, n_ranges, scale }
KERNEL(THREADS) tail_score_ranges_64(RANGES_ARGUMENTS) { ranges_body<2>(q, keys, slots, scratch, SHAPE); }
KERNEL(THREADS) tail_score_ranges_128(RANGES_ARGUMENTS) { ranges_body<4>(q, keys, slots, scratch, SHAPE); }
KERNEL(THREADS) tail_score_ranges_256(RANGES_ARGUMENTS) { ranges_body<8>(q, keys, slots, scratch, SHAPE); }
KERNEL(32) tail_score_totals(float* scratch, SHAPE_ARGUMENTS) { totals_body(scratch, SHAPE); }
KERNEL(WIDE_THREADS) tail_score_raise(float* scratch, float* max_probs, SHAPE_ARGUMENTS) {
    raise_body(scratch, max_probs, SHAPE);
}

// In f64 and in the order of t, as the CPU sums.
KERNEL(WIDE_THREADS) tail_score_mean(const float* max_probs, float* score, int n_tail, int kv_len) {
    const int position = blockIdx.x * WIDE_THREADS + threadIdx.x;
    if (position >= kv_len) return;
    double sum = 0.0;
    for (int t = 0; t < n_tail; t++) sum += double(max_probs[size_t(t) * kv_len + position]);
    score[position] = float(sum / n_tail);
}
