// Sums and maxima over a warp and over a block, in one fixed order: the same input gives the same bits.
#pragma once
#include "prelude.cuh"

// Sum of the warp's values, on every lane. A butterfly: the tree is the same for each lane.
DEVICE float warp_sum(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(FULL_WARP, x, distance);
    return x;
}

// Largest of the warp's values, on every lane.
DEVICE float warp_max(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, distance));
    return x;
}

// Sum of the block's values, on every thread. `partial` holds a float for each of the block's `WARPS` warps and may be
// used again only after a barrier.
template <int WARPS>
DEVICE float block_sum(float x, float* partial) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    x = warp_sum(x);
    if (lane == 0) partial[warp] = x;
    __syncthreads();
    return warp_sum(lane < WARPS ? partial[lane] : 0.0f);
}

// Largest of the block's values, on every thread; `partial` as in `block_sum`.
template <int WARPS>
DEVICE float block_max(float x, float* partial) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    x = warp_max(x);
    if (lane == 0) partial[warp] = x;
    __syncthreads();
    return warp_max(lane < WARPS ? partial[lane] : -INFINITY);
}
