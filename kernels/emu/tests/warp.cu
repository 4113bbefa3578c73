// Test kernels: what the lanes of a warp, and the warps of a block, give each other.
#include "reduce.cuh"

// One row of 32 words for each function, by lane.
KERNEL(32) emu_shuffles(const int* __restrict__ in, int* __restrict__ out, int) {
    const int lane = threadIdx.x, x = in[lane];
    out[lane] = __shfl_sync(FULL_WARP, x, 5);
    out[32 + lane] = __shfl_sync(FULL_WARP, x, 3, 8);
    out[64 + lane] = __shfl_xor_sync(FULL_WARP, x, 9);
    out[96 + lane] = __shfl_xor_sync(FULL_WARP, x, 9, 8);
    out[128 + lane] = __shfl_down_sync(FULL_WARP, x, 3, 16);
    out[160 + lane] = __shfl_up_sync(FULL_WARP, x, 2, 8);
    // The two halves of the warp wait for themselves alone.
    if (lane < 16) {
        out[192 + lane] = __shfl_xor_sync(0x0000ffffu, x, 1);
    } else {
        out[192 + lane] = __shfl_xor_sync(0xffff0000u, x, 2);
    }
}

KERNEL(32) emu_votes(const int* __restrict__ in, uint32_t* __restrict__ out, int) {
    const int lane = threadIdx.x, x = in[lane];
    out[lane] = __ballot_sync(FULL_WARP, x & 1);
    out[32 + lane] = uint32_t(__any_sync(FULL_WARP, x == in[3]));
    out[64 + lane] = uint32_t(__all_sync(FULL_WARP, x == in[3]));
    out[96 + lane] = lane % 2 ? __ballot_sync(0xaaaaaaaau, x & 1) : __ballot_sync(0x55555555u, x & 1);
}

KERNEL(128) emu_block_sum(const float* __restrict__ in, float* __restrict__ out, int n) {
    DYNAMIC_SHARED(float, partial);
    float x = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) x += in[(blockIdx.y * gridDim.x + blockIdx.x) * n + i];
    const float sum = block_sum<4>(x, partial);
    if (threadIdx.x == 0) out[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// Every thread writes a word, the block meets, every thread reads another warp's; and again for the next words.
template <bool MEET_BEFORE_READ, bool MEET_BEFORE_WRITE>
DEVICE void exchange(const int* __restrict__ in, int* __restrict__ out, int rounds) {
    DYNAMIC_SHARED(int, words);
    const int i = threadIdx.x;
    for (int round = 0; round < rounds; round++) {
        words[i] = in[round * 128 + i];
        if (MEET_BEFORE_READ) __syncthreads();
        out[round * 128 + i] = words[(i + 48) % 128];
        if (MEET_BEFORE_WRITE) __syncthreads();
    }
}

KERNEL(128) emu_exchange(const int* in, int* out, int rounds) { exchange<true, true>(in, out, rounds); }
KERNEL(128) emu_exchange_reads_early(const int* in, int* out, int rounds) { exchange<false, true>(in, out, rounds); }
KERNEL(128) emu_exchange_writes_early(const int* in, int* out, int rounds) { exchange<true, false>(in, out, rounds); }

// The same inside a warp.
template <bool MEET>
DEVICE void reverse(const int* __restrict__ in, int* __restrict__ out) {
    DYNAMIC_SHARED(int, words);
    const int lane = threadIdx.x;
    words[lane] = in[lane];
    if (MEET) __syncwarp();
    out[lane] = words[31 - lane];
}

KERNEL(32) emu_reverse(const int* in, int* out, int) { reverse<true>(in, out); }
KERNEL(32) emu_reverse_reads_early(const int* in, int* out, int) { reverse<false>(in, out); }

// One warp writes what the other reads, without meeting: right as long as the writer happens to run first.
template <bool DOWN>
DEVICE void hand_over(const int* __restrict__ in, int* __restrict__ out) {
    DYNAMIC_SHARED(int, words);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (warp == (DOWN ? 0 : 1)) {
        words[lane] = in[lane];
    } else {
        out[lane] = words[lane];
    }
}

KERNEL(64) emu_hand_down(const int* in, int* out, int) { hand_over<true>(in, out); }
KERNEL(64) emu_hand_up(const int* in, int* out, int) { hand_over<false>(in, out); }
