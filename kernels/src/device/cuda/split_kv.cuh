// Attention over splits of the keys: where the parts of a row lie until they are folded, and the folding.
//
// A part is a weighted sum of values and its weights' pair: x, the largest score times log2(e) / sqrt(D); y, the sum of
// the weights 2^(score - x). Parts: sums (n_splits, n_rows, D) f32, then pairs (n_splits, n_rows).
//
// Order: warp w folds the splits w, w + 4, ... one by one, then the four warps' sums are added in order.
// Source: Flash-Decoding, Dao et al. 2023; the online softmax of Milakov and Gimelshein 2018, equation 4.
#pragma once
#include "reduce.cuh"

struct SplitPart {
    float* sums;
    float2* weights;
};

// The part of `split`; rows of a launch are counted alike in all of them.
template <int D>
DEVICE SplitPart split_part(float* parts, int split, int n_splits, size_t n_rows) {
    float2* weights = reinterpret_cast<float2*>(parts + n_splits * n_rows * D);
    return {parts + split * n_rows * D, weights + split * n_rows};
}

// Folds the parts of row `blockIdx.x` of the grid's, a query at `position`, into out (n_rows, D). Splits that begin
// after the position hold nothing of the row and need not have been written. Block 128.
template <int D>
DEVICE void combine_splits(const float* __restrict__ parts, bf16* __restrict__ out, int n_splits, int position,
                           int split_len) {
    constexpr int WARPS = 4, PER_LANE = D / 32;
    DYNAMIC_SHARED(float, shared);  // (WARPS, D + 1)
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, column = threadIdx.x;
    const size_t row = blockIdx.x, n_rows = gridDim.x;
    const float2* weights = reinterpret_cast<const float2*>(parts + n_splits * n_rows * D) + row;
    const int live = min(position / split_len + 1, n_splits);

    float top = -INFINITY;
    for (int split = lane; split < live; split += 32) top = fmaxf(top, weights[split * n_rows].x);
    top = warp_max(top);

    float total = 0.0f, sums[PER_LANE] = {};
#pragma unroll 4
    for (int split = warp; split < live; split += WARPS) {
        const float2 weight = weights[split * n_rows];
        const float factor = exp2_fast(weight.x - top);
        const float* part = parts + (split * n_rows + row) * D + lane;
        total += factor * weight.y;
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i) sums[i] += factor * part[32 * i];
    }

    float* mine = shared + warp * (D + 1);
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) mine[lane + 32 * i] = sums[i];
    if (lane == 0) mine[D] = total;
    __syncthreads();
    if (column >= D) return;
    float sum = 0.0f, weight = 0.0f;
#pragma unroll
    for (int i = 0; i < WARPS; ++i) {
        sum += shared[i * (D + 1) + column];
        weight += shared[i * (D + 1) + D];
    }
    out[row * D + column] = to_bf16(sum / weight);
}
