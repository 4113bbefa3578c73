// gemv: y[r] = sum_c x[c] · w[r,c], or y[r] += it
// Shapes:   x (cols) bf16; w (rows, cols) in any format, row after row; y (rows) f32
// Launch:   grid (rows / rows of a block), block 128 = 4 warps; a warp takes ROWS rows at once, or `split` = 2, 4 warps
//           share them, each every split-th group of 1024 columns. x lies in shared memory as bf16, in the order in
//           which the lanes read it, padded with zeros. Launcher and shape checks in gemv.rs
// Order:    a lane sums its strips of 32 columns one after the other, a warp by a butterfly, a block its warps in
//           order; no atomics. `split` follows from the shape alone
// Cost:     reads the weights once and 2·cols B of x a block, 2·rows·cols flop: memory bound. A strip is 18 to 128 B; a
//           lane has those of ROWS rows under way while it multiplies the ones before
// Roofline: not measured on hardware yet
// Source:   llama.cpp, ggml-cuda/mmv.cu and mmvq.cu, are the nearest relatives; these round x to 8 bits for quantised
//           weights, here x stays as it is
#include "reduce.cuh"
#include "strips.cuh"

constexpr int WARPS = 4, LANES = 32, GROUP = LANES * STRIP;

// Where the four chunks of 8 columns of a lane lie in its group. Values that stand alone are read by the warp in runs
// of 256 columns; a quantised strip lies together.
template <class Format>
struct Layout {
    static constexpr bool ALONE = Format::COLS < STRIP;
    static constexpr int LANE = ALONE ? 8 : STRIP, CHUNK = ALONE ? 8 * LANES : 8;
};

// Eight values of x from column `at` on; zeros beyond `cols`.
DEVICE uint4 eight_of(const bf16* x, int at, int cols) {
    if (at + 8 <= cols && reinterpret_cast<size_t>(x + at) % 16 == 0) return *reinterpret_cast<const uint4*>(x + at);
    uint32_t pairs[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t low = at + 2 * i < cols ? x[at + 2 * i].bits : 0;
        const uint32_t high = at + 2 * i + 1 < cols ? x[at + 2 * i + 1].bits : 0;
        pairs[i] = low | high << 16;
    }
    return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

// The strip of x that belongs to one of the weights.
DEVICE void unpack_x(const uint4* chunks, float (&x)[STRIP]) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const uint4 chunk = chunks[j * LANES];
        const uint32_t pairs[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            x[8 * j + 2 * i] = low_bf16(pairs[i]), x[8 * j + 2 * i + 1] = high_bf16(pairs[i]);
        }
    }
}

// Products of a strip of weights with one of x, the scales taken out of the sums.
template <class Format>
DEVICE float dot(const Strip<Format>& strip, const float (&x)[STRIP], float sum_x) {
    StripValues w;
    strip.unpack(w);
    float sum[2] = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < STRIP; i++) sum[i / 16] = fmaf(w.q[i], x[i], sum[i / 16]);
    const float scaled =
        Strip<Format>::ONE_SCALE ? w.scale[0] * (sum[0] + sum[1]) : fmaf(w.scale[1], sum[1], w.scale[0] * sum[0]);
    return Strip<Format>::HAS_MIN ? fmaf(-w.min, sum_x, scaled) : scaled;
}

template <class Format, int ROWS>
DEVICE void gemv(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int rows, int cols,
                 int split, int add) {
    DYNAMIC_SHARED(uint4, chunks);
    const int n_groups = (cols + GROUP - 1) / GROUP;
    float* partial = reinterpret_cast<float*>(chunks + n_groups * GROUP / 8);
    const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES, part = warp % split;
    const int first_row = (blockIdx.x * (WARPS / split) + warp / split) * ROWS;
    const size_t row_bytes = size_t(cols) * Format::BYTES / Format::COLS;

    Strip<Format> next[ROWS];
    const auto read = [&](int group) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            // Rows that do not exist are the last one again, and not stored.
            const uint8_t* row = w + size_t(min(first_row + r, rows - 1)) * row_bytes;
            next[r].read(row, group * GROUP + lane * Layout<Format>::LANE, Layout<Format>::CHUNK, cols);
        }
    };
    // The first weights travel while x is put in order.
    read(part);
    for (int i = threadIdx.x; i < n_groups * (GROUP / 8); i += WARPS * LANES) {
        const int group = i / (GROUP / 8), chunk = i / LANES % 4, of_lane = i % LANES;
        chunks[i] =
            eight_of(x, group * GROUP + of_lane * Layout<Format>::LANE + chunk * Layout<Format>::CHUNK, cols);
    }
    __syncthreads();

    float sum[ROWS] = {};
    for (int group = part; group < n_groups; group += split) {
        Strip<Format> now[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) now[r] = next[r];
        // Beyond the last group nothing is loaded.
        read(group + split);
        float xs[STRIP], sum_x = 0.0f;
        unpack_x(chunks + group * (GROUP / 8) + lane, xs);
        if (Strip<Format>::HAS_MIN) {
#pragma unroll
            for (int i = 0; i < STRIP; i++) sum_x += xs[i];
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) sum[r] += dot<Format>(now[r], xs, sum_x);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const float total = warp_sum(sum[r]);
        if (lane == 0) partial[warp * ROWS + r] = total;
    }
    __syncthreads();
    // One thread for each of the block's rows.
    const int mine = threadIdx.x, row = blockIdx.x * (WARPS / split) * ROWS + mine;
    if (mine < WARPS / split * ROWS && row < rows) {
        float total = 0.0f;
        for (int p = 0; p < split; p++) total += partial[(mine / ROWS * split + p) * ROWS + mine % ROWS];
        y[row] = add ? y[row] + total : total;
    }
}

KERNEL(128) gemv_f32(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int rows,
                     int cols, int split, int add) {
    gemv<F32, 1>(w, x, y, rows, cols, split, add);
}
KERNEL(128) gemv_f16(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int rows,
                     int cols, int split, int add) {
    gemv<F16, 2>(w, x, y, rows, cols, split, add);
}
KERNEL(128) gemv_bf16(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int rows,
                      int cols, int split, int add) {
    gemv<BF16, 2>(w, x, y, rows, cols, split, add);
}
KERNEL(128) gemv_q8_0(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int rows,
                      int cols, int split, int add) {
    gemv<Q8_0, 2>(w, x, y, rows, cols, split, add);
}
KERNEL(128) gemv_q5_0(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int rows,
                      int cols, int split, int add) {
    gemv<Q5_0, 2>(w, x, y, rows, cols, split, add);
}
KERNEL(128) gemv_q4_k(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int rows,
                      int cols, int split, int add) {
    gemv<Q4K, 2>(w, x, y, rows, cols, split, add);
}
KERNEL(128) gemv_q6_k(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int rows,
                      int cols, int split, int add) {
    gemv<Q6K, 2>(w, x, y, rows, cols, split, add);
}
KERNEL(128) gemv_f32_loose(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int rows,
                           int cols, int split, int add) {
    gemv<Loose<F32>, 1>(w, x, y, rows, cols, split, add);
}
KERNEL(128) gemv_f16_loose(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int rows,
                           int cols, int split, int add) {
    gemv<Loose<F16>, 1>(w, x, y, rows, cols, split, add);
}
KERNEL(128) gemv_bf16_loose(const uint8_t* __restrict__ w, const bf16* __restrict__ x, float* __restrict__ y, int rows,
                            int cols, int split, int add) {
    gemv<Loose<BF16>, 1>(w, x, y, rows, cols, split, add);
}
