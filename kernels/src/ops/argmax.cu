// argmax: the index of the largest logit, the lowest of equal ones; 2^32 - 1 where none is above minus infinity
// Shapes:   logits (n) f32; winners (ceil(n / 1024)) u64; token (1) u32
// Launch:   argmax_parts: grid ceil(n / 1024), block 128, eight logits a thread; argmax_whole: one block of 256; launcher in
//           argmax.rs
// Order:    the largest of 64-bit keys in any order is one key
// Cost:     reads 4·n B: memory bound
// Roofline: not measured on hardware yet
// Source:   engine/src/sample.rs, `Sampling::Greedy`
#include "prelude.cuh"

constexpr int THREADS = 128, WHOLE_THREADS = 256;

// A key whose order is that of logits, the lower index first among equal ones. NaN and minus infinity have key 0: they
// never win.
DEVICE uint64_t key_of(float logit, uint32_t index) {
    if (!(logit > -INFINITY)) return 0;
    const uint32_t bits = __float_as_uint(logit == 0.0f ? 0.0f : logit);
    const uint32_t ordered = bits >> 31 ? ~bits : bits | 0x80000000u;
    return uint64_t(ordered) << 32 | ~index;
}

DEVICE uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

// The largest key of the block, on its first warp. `partial` holds one for each warp.
template <int WARPS>
DEVICE uint64_t block_largest(uint64_t key, uint64_t* partial) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) key = larger(key, __shfl_xor_sync(FULL_WARP, key, distance));
    if (lane == 0) partial[warp] = key;
    __syncthreads();
    if (warp > 0) return 0;
    key = lane < WARPS ? partial[lane] : 0;
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) key = larger(key, __shfl_xor_sync(FULL_WARP, key, distance));
    return key;
}

KERNEL(THREADS) argmax_parts(const float* __restrict__ logits, uint64_t* __restrict__ winners, int n) {
    DYNAMIC_SHARED(uint64_t, partial);
    const int first = 8 * int(blockIdx.x * THREADS + threadIdx.x);
    uint64_t key = 0;
    if (first + 8 <= n) {
        const float4* eight = reinterpret_cast<const float4*>(logits + first);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float4 four = eight[i];
            key = larger(key, larger(key_of(four.x, first + 4 * i), key_of(four.y, first + 4 * i + 1)));
            key = larger(key, larger(key_of(four.z, first + 4 * i + 2), key_of(four.w, first + 4 * i + 3)));
        }
    } else {
        for (int i = first; i < n; i++) key = larger(key, key_of(logits[i], i));
    }
    key = block_largest<THREADS / 32>(key, partial);
    if (threadIdx.x == 0) winners[blockIdx.x] = key;
}

KERNEL(WHOLE_THREADS) argmax_whole(const uint64_t* __restrict__ winners, uint32_t* __restrict__ token, int n_parts) {
    DYNAMIC_SHARED(uint64_t, partial);
    uint64_t key = 0;
    for (int i = threadIdx.x; i < n_parts; i += WHOLE_THREADS) key = larger(key, winners[i]);
    key = block_largest<WHOLE_THREADS / 32>(key, partial);
    // Key 0, of no logit, gives 2^32 - 1.
    if (threadIdx.x == 0) *token = ~uint32_t(key);
}
