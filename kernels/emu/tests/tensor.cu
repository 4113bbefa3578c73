// Test kernels: matrix loads, the matrix product and asynchronous copies.
#include "mma.cuh"

// Four 8x8 matrices, in shared memory 24 values from row to row; each lane's four words.
template <bool TRANSPOSED>
DEVICE void load(const uint16_t* __restrict__ in, uint32_t* __restrict__ out) {
    DYNAMIC_SHARED(uint16_t, rows);
    const int lane = threadIdx.x;
    for (int i = lane; i < 4 * 64; i += 32) rows[i / 8 * 24 + i % 8] = in[i];
    __syncwarp();
    uint32_t words[4];
    if (TRANSPOSED) ldmatrix_x4_trans(words, rows + lane * 24);
    else ldmatrix_x4(words, rows + lane * 24);
    for (int i = 0; i < 4; i++) out[4 * lane + i] = words[i];
}

KERNEL(32) emu_ldmatrix(const uint16_t* in, uint32_t* out, int) { load<false>(in, out); }
KERNEL(32) emu_ldmatrix_trans(const uint16_t* in, uint32_t* out, int) { load<true>(in, out); }

// c += a · b, with a 16x16 row-major and after it b 16x8 column-major, c 16x8 row-major; fragments by their formula.
KERNEL(32) emu_mma(const uint16_t* __restrict__ a, float* __restrict__ c, int) {
    const uint16_t* b = a + 16 * 16;
    const int g = threadIdx.x / 4, t = threadIdx.x % 4;
    const auto pair = [](const uint16_t* at) { return at[0] | uint32_t(at[1]) << 16; };
    const uint32_t a_words[4] = {pair(a + g * 16 + 2 * t), pair(a + (g + 8) * 16 + 2 * t),
                                 pair(a + g * 16 + 2 * t + 8), pair(a + (g + 8) * 16 + 2 * t + 8)};
    float sums[4];
    for (int i = 0; i < 4; i++) sums[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
    mma_m16n8k16(sums, a_words, pair(b + g * 16 + 2 * t), pair(b + g * 16 + 2 * t + 8));
    for (int i = 0; i < 4; i++) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

enum class Mistake { NONE, NO_WAIT, READS_EARLY, COPIES_EARLY };

// Sums `n` tiles of 128 x 4 floats, through two stages in shared memory; a thread reads what another warp's copied.
// The last tile counts as zeros, by a copy that is not valid.
template <Mistake MISTAKE>
DEVICE void sum_tiles(const float* __restrict__ in, float* __restrict__ out, int n) {
    DYNAMIC_SHARED(float4, stages);
    const int i = threadIdx.x;
    const float4* tiles = reinterpret_cast<const float4*>(in);
    const auto fetch = [&](int tile) {
        if (tile < n) cp_async_16(&stages[tile % 2 * 128 + i], &tiles[tile * 128 + i], tile != n - 1);
        cp_async_commit();
    };
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    fetch(0);
    for (int tile = 0; tile < n; tile++) {
        fetch(tile + 1);
        if (MISTAKE != Mistake::NO_WAIT) cp_async_wait<1>();
        if (MISTAKE != Mistake::READS_EARLY) __syncthreads();
        const float4 x = stages[tile % 2 * 128 + (i + 48) % 128];
        sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
        if (MISTAKE != Mistake::COPIES_EARLY) __syncthreads();
    }
    reinterpret_cast<float4*>(out)[i] = sum;
}

KERNEL(128) emu_copies(const float* in, float* out, int n) { sum_tiles<Mistake::NONE>(in, out, n); }
KERNEL(128) emu_copies_no_wait(const float* in, float* out, int n) { sum_tiles<Mistake::NO_WAIT>(in, out, n); }
KERNEL(128) emu_copies_read_early(const float* in, float* out, int n) { sum_tiles<Mistake::READS_EARLY>(in, out, n); }
KERNEL(128) emu_copies_early(const float* in, float* out, int n) { sum_tiles<Mistake::COPIES_EARLY>(in, out, n); }
