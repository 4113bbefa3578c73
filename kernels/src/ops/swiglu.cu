// swiglu: y[t,i] = silu(g[t,i]) · u[t,i], silu(x) = x / (1 + e^-x)
// Shapes:   gate_up (n, 2·ffn) f32: a row's gates, then its ups; y (n, ffn) bf16
// Launch:   grid (n, groups of 1024 columns), block 128, eight columns a thread; launcher in swiglu.rs
// Order:    no sums
// Cost:     reads 8·n·ffn B, writes 2·n·ffn B: memory bound
// Roofline: not measured on hardware yet
// Source:   Shazeer 2020, "GLU variants improve transformer"
#include "prelude.cuh"

constexpr int THREADS = 128;

// e^-x overflows to infinity for large negative x, which makes the quotient the zero it should be.
DEVICE float gated(float gate, float up) { return gate / (1.0f + __expf(-gate)) * up; }

KERNEL(THREADS) swiglu(const float* __restrict__ gate_up, bf16* __restrict__ y, int ffn) {
    const int column = 8 * int(blockIdx.y * THREADS + threadIdx.x);
    if (column >= ffn) return;
    const float *gate = gate_up + size_t(blockIdx.x) * 2 * ffn + column, *up = gate + ffn;
    bf16* to = y + size_t(blockIdx.x) * ffn + column;
    if (ffn % 8 != 0) {
        for (int i = 0; i < 8 && column + i < ffn; i++) to[i] = to_bf16(gated(gate[i], up[i]));
        return;
    }
    uint2 packed[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float4 g = reinterpret_cast<const float4*>(gate)[i], u = reinterpret_cast<const float4*>(up)[i];
        packed[i] = make_uint2(pack_bf16(gated(g.x, u.x), gated(g.y, u.y)), pack_bf16(gated(g.z, u.z), gated(g.w, u.w)));
    }
    *reinterpret_cast<uint4*>(to) = make_uint4(packed[0].x, packed[0].y, packed[1].x, packed[1].y);
}
