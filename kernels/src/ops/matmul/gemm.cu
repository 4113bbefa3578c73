// gemm: y[t,r] = sum_c x[t,c] · w[r,c], or y[t,r] += it, on tensor cores
// Shapes:   x (n, cols) bf16; w (rows, cols) in any format, row after row; y (n, rows) f32, its rows `ldy` apart.
//           cols a multiple of 8 and x, w on multiples of 16 bytes, but for the loose instances
// Launch:   grid (n / tile, rows / tile), block 256 for tiles of 128 x 128, 128 for 64 x 64. Blocks that read the same
//           weights are neighbours. Launcher and shape checks in gemm.rs
// Order:    each y is one chain over c in steps of 16, the same in both tile sizes; no atomics. The order inside a step
//           is the tensor core's
// Numbers:  weights of other types than bf16 are rounded to bf16, to nearest even, on their way into shared memory
// Cost:     2·n·rows·cols flop; reads w once a tile of tokens, x once a tile of rows; writes 4·n·rows B
// Roofline: not measured on hardware yet
// Source:   CUTLASS's multistage pipeline for sm_80 (include/cutlass/gemm/threadblock/mma_multistage.h) is the
//           pattern; the swizzle is its 128-byte (64-byte) crosswise one
#include "mma.cuh"
#include "outputs.cuh"
#include "strips.cuh"

// What this block multiplies: the tile of x from `first_token` on with that of w from `first_row` on.
struct Problem {
    const bf16* __restrict__ x;
    const uint8_t* __restrict__ w;
    int n, rows, cols;
    int first_token, first_row;
};

// Rows of K bf16 values in shared memory, in chunks of 16 bytes. The chunks of a row are permuted so that eight rows'
// chunks of the same column lie in different banks.
template <int K>
struct Panel {
    static constexpr int CHUNKS = K / 8;
    bf16* data;

    DEVICE bf16* chunk(int row, int chunk) const {
        return data + (row * CHUNKS + (chunk ^ (row * CHUNKS / 8) % CHUNKS)) * 8;
    }
};

// How a format's weights come into shared memory. bf16 needs no conversion and is copied without passing through
// registers; others pass through them as strips; rows that begin anywhere come value by value.
enum class Way { COPY, STRIPS, VALUES };
template <class Format>
constexpr Way WAY = Way::STRIPS;
template <>
constexpr Way WAY<BF16> = Way::COPY;
template <class Format>
constexpr Way WAY<Loose<Format>> = Way::VALUES;

// Starts copying a tile of a bf16 matrix; zeros beyond its edges.
template <int TILE, int K, int THREADS>
DEVICE void copy_tile(Panel<K> to, const bf16* from, int first_row, int rows, int first_col, int cols) {
#pragma unroll
    for (int i = 0; i < TILE * (K / 8) / THREADS; i++) {
        const int at = threadIdx.x + i * THREADS, row = at / (K / 8), chunk = at % (K / 8);
        const int col = first_col + 8 * chunk;
        const bool exists = first_row + row < rows && col < cols;
        cp_async_16(to.chunk(row, chunk), exists ? from + size_t(first_row + row) * cols + col : from, exists);
    }
}

// Brings in a tile of a matrix of values that stand alone, one by one.
template <class Format, int TILE, int K, int THREADS>
DEVICE void fill_tile(Panel<K> to, const uint8_t* from, int first_row, int rows, int first_col, int cols) {
    const size_t row_bytes = size_t(cols) * Format::BYTES / Format::COLS;
    for (int at = threadIdx.x; at < TILE * K; at += THREADS) {
        const int row = at / K, k = at % K;
        const bool exists = first_row + row < rows && first_col + k < cols;
        const float value = exists ? element<Format>(from + (first_row + row) * row_bytes, first_col + k) : 0.0f;
        to.chunk(row, k / 8)[k % 8] = to_bf16(value);
    }
}

// One strip of weights to a thread: from registers, rounded to bf16, into shared memory.
template <class Format, int K>
DEVICE void store_strip(Panel<K> to, const Strip<Format>& strip) {
    StripValues w;
    strip.unpack(w);
    const int row = threadIdx.x / (K / STRIP), first = threadIdx.x % (K / STRIP) * (STRIP / 8);
#pragma unroll
    for (int j = 0; j < STRIP / 8; j++) {
        uint32_t pairs[4];
#pragma unroll
        for (int i = 0; i < 4; i++) pairs[i] = pack_bf16(w.value(8 * j + 2 * i), w.value(8 * j + 2 * i + 1));
        *reinterpret_cast<uint4*>(to.chunk(row, first + j)) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }
}

// A warp's part of the tile: M tokens by N rows, from its first token and row in the panels on.
template <int M, int N>
struct WarpTile {
    float sums[M / 16][N / 8][4];

    template <int K>
    DEVICE void multiply(Panel<K> a, int first_token, Panel<K> b, int first_row) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int k = 0; k < K / 16; k++) {
            uint32_t as[M / 16][4], bs[N / 16][4];
#pragma unroll
            for (int i = 0; i < M / 16; i++) {
                ldmatrix_x4(as[i], a.chunk(first_token + 16 * i + lane % 16, 2 * k + lane / 16));
            }
            // Four matrices: rows 0..8 at columns 0..8 and 8..16, rows 8..16 at the same.
#pragma unroll
            for (int j = 0; j < N / 16; j++) {
                ldmatrix_x4(bs[j], b.chunk(first_row + 16 * j + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
            }
#pragma unroll
            for (int i = 0; i < M / 16; i++) {
#pragma unroll
                for (int j = 0; j < N / 8; j++) {
                    mma_m16n8k16(sums[i][j], as[i], bs[j / 2][j % 2 * 2], bs[j / 2][j % 2 * 2 + 1]);
                }
            }
        }
    }

    DEVICE void store(const Outputs& y, int first_token, int first_row) const {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < M / 16; i++) y.put(first_token + 16 * i + lane / 4, first_row + lane % 4 * 2, sums[i]);
    }
};

template <class Format, int TILE, int WARPS_M, int WARPS_N>
DEVICE void gemm(const uint8_t* __restrict__ w, const bf16* __restrict__ x, const Outputs& y, int cols) {
    const Problem p{x, w, y.n, y.rows, cols, int(blockIdx.x) * TILE, int(blockIdx.y) * TILE};
    // Depth of a tile, and tiles under way. Deeper ones take more of a quantised row's cache line at a time.
    constexpr int K = WAY<Format> == Way::COPY ? 32 : 64, STAGES = WAY<Format> == Way::COPY ? 4 : 2;
    constexpr int THREADS = WARPS_M * WARPS_N * 32;
    static_assert(WAY<Format> != Way::STRIPS || TILE * K / STRIP == THREADS, "a strip for each thread");
    DYNAMIC_SHARED(bf16, shared);
    const auto a = [&](int tile) { return Panel<K>{shared + tile % STAGES * 2 * TILE * K}; };
    const auto b = [&](int tile) { return Panel<K>{shared + (tile % STAGES * 2 + 1) * TILE * K}; };
    const int n_tiles = (p.cols + K - 1) / K, warp = threadIdx.x / 32;
    const int warp_token = warp / WARPS_N * (TILE / WARPS_M), warp_row = warp % WARPS_N * (TILE / WARPS_N);
    Strip<Format> strip;

    // Starts bringing a tile in; strips stay in registers until `land`.
    const auto fetch = [&](int tile) {
        if (tile >= n_tiles) return;
        const int col = tile * K;
        if constexpr (WAY<Format> == Way::VALUES) {
            const uint8_t* x = reinterpret_cast<const uint8_t*>(p.x);
            fill_tile<BF16, TILE, K, THREADS>(a(tile), x, p.first_token, p.n, col, p.cols);
            fill_tile<Format, TILE, K, THREADS>(b(tile), p.w, p.first_row, p.rows, col, p.cols);
            return;
        }
        copy_tile<TILE, K, THREADS>(a(tile), p.x, p.first_token, p.n, col, p.cols);
        if constexpr (WAY<Format> == Way::COPY) {
            const bf16* w = reinterpret_cast<const bf16*>(p.w);
            copy_tile<TILE, K, THREADS>(b(tile), w, p.first_row, p.rows, col, p.cols);
        } else {
            // Rows that do not exist are the last one again, and not stored.
            const int row = min(p.first_row + int(threadIdx.x) / (K / STRIP), p.rows - 1);
            const size_t row_bytes = size_t(p.cols) * Format::BYTES / Format::COLS;
            strip.read(p.w + row * row_bytes, col + threadIdx.x % (K / STRIP) * STRIP, 8, p.cols);
        }
    };
    const auto land = [&](int tile) {
        if constexpr (WAY<Format> == Way::STRIPS) {
            if (tile < n_tiles) store_strip<Format, K>(b(tile), strip);
        }
    };

    for (int tile = 0; tile < STAGES - 1; tile++) {
        fetch(tile);
        cp_async_commit();
        land(tile);
    }
    WarpTile<TILE / WARPS_M, TILE / WARPS_N> out = {};
    for (int tile = 0; tile < n_tiles; tile++) {
        cp_async_wait<STAGES - 2>();
        // This tile is here for all, and all are done with the one before, whose place the next fetch takes.
        __syncthreads();
        fetch(tile + STAGES - 1);
        cp_async_commit();
        out.multiply(a(tile), warp_token, b(tile), warp_row);
        land(tile + STAGES - 1);
    }
    out.store(y, p.first_token + warp_token, p.first_row + warp_row);
}

KERNEL(128) gemm_f32_64(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int n,
                        int rows, int cols, int ldy, int add) {
    gemm<F32, 64, 2, 2>(w, x, {y, n, rows, ldy, add}, cols);
}
KERNEL(256) gemm_f16_128(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int n,
                         int rows, int cols, int ldy, int add) {
    gemm<F16, 128, 2, 4>(w, x, {y, n, rows, ldy, add}, cols);
}
KERNEL(128) gemm_f16_64(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int n,
                        int rows, int cols, int ldy, int add) {
    gemm<F16, 64, 2, 2>(w, x, {y, n, rows, ldy, add}, cols);
}
KERNEL(256) gemm_bf16_128(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int n,
                          int rows, int cols, int ldy, int add) {
    gemm<BF16, 128, 2, 4>(w, x, {y, n, rows, ldy, add}, cols);
}
KERNEL(128) gemm_bf16_64(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int n,
                         int rows, int cols, int ldy, int add) {
    gemm<BF16, 64, 2, 2>(w, x, {y, n, rows, ldy, add}, cols);
}
KERNEL(256) gemm_q8_0_128(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int n,
                          int rows, int cols, int ldy, int add) {
    gemm<Q8_0, 128, 2, 4>(w, x, {y, n, rows, ldy, add}, cols);
}
KERNEL(128) gemm_q8_0_64(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int n,
                         int rows, int cols, int ldy, int add) {
    gemm<Q8_0, 64, 2, 2>(w, x, {y, n, rows, ldy, add}, cols);
}
KERNEL(256) gemm_q5_0_128(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int n,
                          int rows, int cols, int ldy, int add) {
    gemm<Q5_0, 128, 2, 4>(w, x, {y, n, rows, ldy, add}, cols);
}
KERNEL(128) gemm_q5_0_64(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int n,
                         int rows, int cols, int ldy, int add) {
    gemm<Q5_0, 64, 2, 2>(w, x, {y, n, rows, ldy, add}, cols);
}
KERNEL(256) gemm_q4_k_128(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int n,
                          int rows, int cols, int ldy, int add) {
    gemm<Q4K, 128, 2, 4>(w, x, {y, n, rows, ldy, add}, cols);
}
KERNEL(128) gemm_q4_k_64(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int n,
                         int rows, int cols, int ldy, int add) {
    gemm<Q4K, 64, 2, 2>(w, x, {y, n, rows, ldy, add}, cols);
}
KERNEL(256) gemm_q6_k_128(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int n,
                          int rows, int cols, int ldy, int add) {
    gemm<Q6K, 128, 2, 4>(w, x, {y, n, rows, ldy, add}, cols);
}
KERNEL(128) gemm_q6_k_64(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int n,
                         int rows, int cols, int ldy, int add) {
    gemm<Q6K, 64, 2, 2>(w, x, {y, n, rows, ldy, add}, cols);
}
KERNEL(128) gemm_f32_loose_64(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int n,
                              int rows, int cols, int ldy, int add) {
    gemm<Loose<F32>, 64, 2, 2>(w, x, {y, n, rows, ldy, add}, cols);
}
KERNEL(128) gemm_f16_loose_64(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int n,
                              int rows, int cols, int ldy, int add) {
    gemm<Loose<F16>, 64, 2, 2>(w, x, {y, n, rows, ldy, add}, cols);
}
KERNEL(128) gemm_bf16_loose_64(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int n,
                               int rows, int cols, int ldy, int add) {
    gemm<Loose<BF16>, 64, 2, 2>(w, x, {y, n, rows, ldy, add}, cols);
}
