// rms_norm: y[t,i] = x[t,i] · w[i] / sqrt(mean_i x[t,i]² + eps)
// Shapes:   x (n, dim) f32 row-major; w (dim) f32; y (n, dim) bf16
// Launch:   grid n, block 128 (dim up to 1024) or 512; launcher in rms_norm.rs
// Order:    f32 sums: each thread its groups of eight in order, then the fixed trees of reduce.cuh; dim alone decides
// Cost:     reads 4·n·dim + 4·dim B, writes 2·n·dim B, 4·n·dim flop: memory bound
// Roofline: not measured on hardware yet
// Source:   Zhang and Sennrich 2019, equation 4
#include "reduce.cuh"

// Eight neighbouring values of a row; zeros beyond its end. Rows are read in vectors where all begin on a multiple of 16
// bytes.
DEVICE void load_8(const float* __restrict__ row, int i, int dim, float (&x)[8]) {
    if (dim % 8 == 0) {
        const float4 low = *reinterpret_cast<const float4*>(row + i), high = *reinterpret_cast<const float4*>(row + i + 4);
        x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
        x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
    } else {
#pragma unroll
        for (int j = 0; j < 8; j++) x[j] = i + j < dim ? row[i + j] : 0.0f;
    }
}

DEVICE void store_8(bf16* __restrict__ row, int i, int dim, const float (&y)[8]) {
    if (dim % 8 == 0) {
        *reinterpret_cast<uint4*>(row + i) = make_uint4(pack_bf16(y[0], y[1]), pack_bf16(y[2], y[3]),
                                                        pack_bf16(y[4], y[5]), pack_bf16(y[6], y[7]));
    } else {
#pragma unroll
        for (int j = 0; j < 8; j++) {
            if (i + j < dim) row[i + j] = to_bf16(y[j]);
        }
    }
}

template <int THREADS>
DEVICE void body(const float* __restrict__ x, const float* __restrict__ w, bf16* __restrict__ y, int dim, float eps) {
    DYNAMIC_SHARED(float, partial);
    const float* row = x + size_t(blockIdx.x) * dim;
    bf16* to = y + size_t(blockIdx.x) * dim;
    float sum = 0.0f;
    for (int i = 8 * threadIdx.x; i < dim; i += 8 * THREADS) {
        float values[8];
        load_8(row, i, dim, values);
#pragma unroll
        for (int j = 0; j < 8; j++) sum += values[j] * values[j];
    }
    const float scale = 1.0f / sqrtf(block_sum<THREADS / 32>(sum, partial) / dim + eps);
    // The row is read a second time, now from the first-level cache.
    for (int i = 8 * threadIdx.x; i < dim; i += 8 * THREADS) {
        float values[8], weights[8];
        load_8(row, i, dim, values);
        load_8(w, i, dim, weights);
#pragma unroll
        for (int j = 0; j < 8; j++) values[j] = values[j] * scale * weights[j];
        store_8(to, i, dim, values);
    }
}

#define ARGUMENTS const float *x, const float *w, bf16 *y, int dim, float eps
KERNEL(128) rms_norm_128(ARGUMENTS) { body<128>(x, w, y, dim, eps); }
KERNEL(512) rms_norm_512(ARGUMENTS) { body<512>(x, w, y, dim, eps); }
