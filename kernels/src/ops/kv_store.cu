// kv_store: keys[h, slots[*start + t], d] = k[t, h, d], rounded to bf16, and values[...] = v[t, h, d] likewise
// Shapes:   k, v: row t from t · stride on, (n_kv_heads, head_dim) f32; slots (n_listed) int; keys, values
//           (n_kv_heads, n_slots, head_dim) bf16
// Launch:   grid (n, groups of 1024 columns, 2 or 1: keys, values), block 128, eight columns a thread; launcher in
//           kv_store.rs
// Order:    no sums
// Cost:     reads 4 B and writes 2 B a value, 2·n·kv_dim values: memory bound
// Roofline: not measured on hardware yet
// Source:   the layout of device/cuda/kv.rs
#include "prelude.cuh"

constexpr int THREADS = 128;

KERNEL(THREADS) kv_store(const float* __restrict__ k, const float* __restrict__ v, const int* __restrict__ slots,
                         const int* __restrict__ start, bf16* __restrict__ keys, bf16* __restrict__ values, int k_stride,
                         int v_stride, int n_listed, int n_kv_heads, int n_slots, int head_dim) {
    const int t = blockIdx.x, column = 8 * int(blockIdx.y * THREADS + threadIdx.x);
    const bool is_key = blockIdx.z == 0;
    const uint32_t position = uint32_t(*start + t);
    if (column >= n_kv_heads * head_dim || position >= uint32_t(n_listed)) return;
    const uint32_t slot = uint32_t(slots[position]);
    // A slot that is not there is the caller's error; it must not become somebody else's memory.
    if (slot >= uint32_t(n_slots)) return;
    const float* from = (is_key ? k : v) + size_t(t) * (is_key ? k_stride : v_stride) + column;
    bf16* to = is_key ? keys : values;
    if (head_dim % 8 == 0) {
        // Eight columns lie in one head, and both sides on multiples of 16 bytes.
        const float4 low = *reinterpret_cast<const float4*>(from), high = *reinterpret_cast<const float4*>(from + 4);
        const size_t row = size_t(column / head_dim) * n_slots + slot;
        *reinterpret_cast<uint4*>(to + row * head_dim + column % head_dim) =
            make_uint4(pack_bf16(low.x, low.y), pack_bf16(low.z, low.w), pack_bf16(high.x, high.y),
                       pack_bf16(high.z, high.w));
        return;
    }
    for (int i = 0; i < 8 && column + i < n_kv_heads * head_dim; i++) {
        const size_t row = size_t((column + i) / head_dim) * n_slots + slot;
        to[row * head_dim + (column + i) % head_dim] = to_bf16(from[i]);
    }
}
