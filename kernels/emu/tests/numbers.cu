// Test kernels: conversions and the functions of integers. As all test kernels they take what they read, what they
// write and a count.
#include "prelude.cuh"

KERNEL(128) emu_to_bf16(const float* __restrict__ in, uint32_t* __restrict__ out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    out[2 * i] = to_bf16(in[i]).bits;
    out[2 * i + 1] = pack_bf16(in[i], in[n - 1 - i]);
}

KERNEL(128) emu_f16_to_f32(const uint16_t* __restrict__ in, float* __restrict__ out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = to_f32(f16{in[i]});
}

KERNEL(128) emu_exp2(const float* __restrict__ in, float* __restrict__ out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = exp2_fast(in[i]);
}

// Products and sums, each rounded on its own.
KERNEL(32) emu_rounded_apart(const float* __restrict__ in, float* __restrict__ out, int) {
    const float* x = in + 3 * threadIdx.x;
    out[threadIdx.x] = __fsub_rn(__fadd_rn(__fmul_rn(x[0], x[1]), x[2]), __fmul_rn(x[0], x[2]));
}

// Nine results for each number.
KERNEL(32) emu_integers(const uint32_t* __restrict__ in, int* __restrict__ out, int) {
    const int i = threadIdx.x;
    const uint32_t x = in[i], y = in[(i + 1) % 32];
    int* row = out + 9 * i;
    row[0] = __popc(x);
    row[1] = __clz(int(x));
    row[2] = __ffs(int(x));
    row[3] = int(__byte_perm(x, y, 0x5a31));
    row[4] = __dp4a(int(x), int(y), 7);
    row[5] = __float2int_rn(__uint_as_float(x));
    row[6] = int(min(x, 1000));
    row[7] = max(int(x), -5);
    row[8] = int(__funnelshift_r(x, y, 13));
}
