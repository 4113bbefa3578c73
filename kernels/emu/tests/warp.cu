// Test kernels: what the lanes of a warp give each other.
#include "reduce.cuh"

// One row of 32 words for each function, by lane.
KERNEL(32) emu_shuffles(const int* __restrict__ in, int* __restrict__ out) {
    const int lane = threadIdx.x, x = in[lane];
    out[lane] = __shfl_sync(FULL_WARP, x, 5);
    out[32 + lane] = __shfl_sync(FULL_WARP, x, 3, 8);
    out[64 + lane] = __shfl_xor_sync(FULL_WARP, x, 9);
    out[96 + lane] = __shfl_down_sync(FULL_WARP, x, 3, 16);
    out[128 + lane] = __shfl_up_sync(FULL_WARP, x, 2);
    out[160 + lane] = int(__ballot_sync(FULL_WARP, x % 3 == 0));
    out[192 + lane] = __any_sync(FULL_WARP, x == 7) * 2 + __all_sync(FULL_WARP, x < 7);
    int half = x;
    // The two halves of the warp wait for themselves alone.
    if (lane < 16) half = __shfl_xor_sync(0x0000ffffu, x, 1);
    else half = __shfl_xor_sync(0xffff0000u, x, 2);
    out[224 + lane] = half;
}

KERNEL(128) emu_block_sum(const float* __restrict__ in, float* __restrict__ out, int n) {
    DYNAMIC_SHARED(float, partial);
    float x = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) x += in[blockIdx.x * n + i];
    const float sum = block_sum<4>(x, partial);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}
