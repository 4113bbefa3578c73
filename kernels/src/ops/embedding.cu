// embedding: out[t,c] = w[tokens[t],c], decoded exactly
// Shapes:   tokens (n) u32; w (n_rows, cols), rows of row_bytes bytes; out (n, cols) f32 row-major
// Launch:   grid (n, groups of 1024 columns), block 128, eight columns a thread; launcher in embedding.rs
// Order:    no sums
// Cost:     reads n·row_bytes + 4·n B, writes 4·n·cols B: memory bound
// Roofline: not measured on hardware yet
// Source:   block formats as in dequantise.cuh
#include "dequantise.cuh"

constexpr int THREADS = 128;

template <class Format>
DEVICE void body(const uint32_t* __restrict__ tokens, const uint8_t* __restrict__ w, float* __restrict__ out, int n_rows,
                 int cols, uint64_t row_bytes) {
    const int column = 8 * int(blockIdx.y * THREADS + threadIdx.x);
    if (column >= cols) return;
    const uint32_t token = tokens[blockIdx.x];
    const bool exists = token < uint32_t(n_rows);
    const uint8_t* row = w + (exists ? token : 0) * row_bytes;
    float* to = out + size_t(blockIdx.x) * cols + column;
    if (cols % 8 != 0) {
        for (int i = 0; i < 8 && column + i < cols; i++) to[i] = exists ? element<Format>(row, column + i) : NAN;
        return;
    }
    float values[8];
    elements_8<Format>(row, column, values);
    // A token without a row must not read what lies behind the matrix, nor go unseen.
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] = exists ? values[i] : NAN;
    reinterpret_cast<float4*>(to)[0] = make_float4(values[0], values[1], values[2], values[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(values[4], values[5], values[6], values[7]);
}

#define ARGUMENTS                                                                                     \
    const uint32_t *tokens, const uint8_t *w, float *out, int n_rows, int cols, uint64_t row_bytes
KERNEL(THREADS) embedding_f32(ARGUMENTS) { body<F32>(tokens, w, out, n_rows, cols, row_bytes); }
KERNEL(THREADS) embedding_f16(ARGUMENTS) { body<F16>(tokens, w, out, n_rows, cols, row_bytes); }
KERNEL(THREADS) embedding_bf16(ARGUMENTS) { body<BF16>(tokens, w, out, n_rows, cols, row_bytes); }
KERNEL(THREADS) embedding_q8_0(ARGUMENTS) { body<Q8_0>(tokens, w, out, n_rows, cols, row_bytes); }
KERNEL(THREADS) embedding_q5_0(ARGUMENTS) { body<Q5_0>(tokens, w, out, n_rows, cols, row_bytes); }
KERNEL(THREADS) embedding_q4_k(ARGUMENTS) { body<Q4K>(tokens, w, out, n_rows, cols, row_bytes); }
KERNEL(THREADS) embedding_q6_k(ARGUMENTS) { body<Q6K>(tokens, w, out, n_rows, cols, row_bytes); }
