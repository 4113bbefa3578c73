// sm_90a only
// wgmma: y[t,r] = sum_c x[t,c] · w[r,c], or y[t,r] += it, on Hopper's tensor cores
// Shapes:   x (n, cols) and w (rows, cols) bf16, as tensor maps whose boxes are 128 and N rows of 64 columns under the
//           128-byte swizzle; y (n, rows) f32, its rows `ldy` apart; cols a multiple of 8
// Launch:   grid (n / 128, rows / N), block 288: two groups of four warps that multiply, 64 tokens each, and a warp of
//           which one thread starts copies. Blocks that read the same weights are neighbours. Launcher in wgmma.rs
// Order:    each y is one chain over c in steps of 16; no atomics. The order inside a step is the tensor core's
// Cost:     2·n·rows·cols flop; reads w once a tile of tokens, x once a tile of rows; writes 4·n·rows B
// Roofline: not measured on hardware yet
// Source:   the PTX ISA as named in hopper.cuh; CUTLASS, include/cutlass/gemm/collective/
//           sm90_mma_tma_gmma_ss_warpspecialized.hpp, for the order of waits and releases
//
// No registers are moved between warps (setmaxnreg): with nine warps the compiler has 168 to give to each thread, and the
// sums of the larger tile take 128.
#include "hopper.cuh"
#include "outputs.cuh"

constexpr int M = 128, K = 64, CONSUMER_WARPS = 8;

// A tile of each operand. Both begin on multiples of 1024 bytes.
template <int N>
struct Stage {
    bf16 x[M * K];
    bf16 w[N * K];
};

// `full`: the copies of a stage have come. `empty`: every warp is done with it.
template <int N, int STAGES>
struct Shared {
    Stage<N> stages[STAGES];
    uint64_t full[STAGES], empty[STAGES];
};

// The copying thread: into each stage as soon as it is empty. The first time round it is, which the wait for parity 1
// of a new barrier grants.
template <int N, int STAGES>
DEVICE void produce(Shared<N, STAGES>& shared, const TensorMap& x, const TensorMap& w, int n_tiles) {
    for (int tile = 0; tile < n_tiles; tile++) {
        const int s = tile % STAGES, round = tile / STAGES;
        barrier_wait(&shared.empty[s], (round & 1) ^ 1);
        barrier_arrive_expect(&shared.full[s], sizeof(Stage<N>));
        copy_box(shared.stages[s].x, x, tile * K, blockIdx.x * M, &shared.full[s]);
        copy_box(shared.stages[s].w, w, tile * K, blockIdx.y * N, &shared.full[s]);
    }
}

// A group of four warps: 64 tokens by N rows.
template <int N, int STAGES>
DEVICE void consume(Shared<N, STAGES>& shared, const Outputs& y, int n_tiles) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = warp / 4;
    float sums[N / 8][4] = {};
    for (int tile = 0; tile < n_tiles; tile++) {
        const int s = tile % STAGES, round = tile / STAGES;
        barrier_wait(&shared.full[s], round & 1);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < K / 16; k++) {
            wgmma_k16(sums, swizzled_rows(shared.stages[s].x + group * 64 * K + k * 16),
                      swizzled_rows(shared.stages[s].w + k * 16));
        }
        wgmma_commit();
        // With this tile's products under way, those of the one before are done: its stage may be filled anew. Each
        // warp arrives for itself, since a wait vouches for no other warp's products.
        wgmma_wait<1>();
        if (tile > 0 && lane == 0) barrier_arrive(&shared.empty[(tile - 1) % STAGES]);
    }
    wgmma_wait<0>();
    wgmma_settle(sums);
    y.put(blockIdx.x * M + 16 * warp + lane / 4, blockIdx.y * N + lane % 4 * 2, sums);
}

template <int N, int STAGES>
DEVICE void gemm(const TensorMap& x, const TensorMap& w, const Outputs& y, int cols) {
    DYNAMIC_SHARED(unsigned char, bytes);
    Shared<N, STAGES>& shared = *reinterpret_cast<Shared<N, STAGES>*>(bytes);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_tiles = (cols + K - 1) / K;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            barrier_init(&shared.full[s], 1);
            barrier_init(&shared.empty[s], CONSUMER_WARPS);
        }
        barrier_init_fence();
    }
    __syncthreads();
    if (warp < CONSUMER_WARPS) {
        consume(shared, y, n_tiles);
    } else if (lane == 0) {
        prefetch_map(x), prefetch_map(w);
        produce(shared, x, w, n_tiles);
    }
}

KERNEL(288) wgmma_128(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, float* __restrict__ y,
                      int n, int rows, int cols, int ldy, int add) {
    gemm<128, 3>(x, w, {y, n, rows, ldy, add}, cols);
}
KERNEL(288) wgmma_256(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, float* __restrict__ y,
                      int n, int rows, int cols, int ldy, int add) {
    gemm<256, 4>(x, w, {y, n, rows, ldy, add}, cols);
}
