// synthetic: w[r,c] = mean + (s - 510) · scale in bf16, s the sum of four bytes of a SplitMix64 word of (seed, r, c / 2)
// Shapes:   w (rows, cols) bf16 row-major
// Launch:   grid (rows, groups of 1024 columns), block 128, eight columns a thread; launcher in synthetic.rs
// Order:    each element a function of its own row and column; products and sums rounded apart, as on the CPU
// Cost:     writes 2·rows·cols B
// Roofline: not measured on hardware yet
// Source:   Steele, Lea and Flood 2014 (SplitMix64); Irwin-Hall for the shape
#include "prelude.cuh"

constexpr int THREADS = 128;
constexpr uint64_t GOLDEN = 0x9E3779B97F4A7C15;

DEVICE uint64_t mix(uint64_t word) {
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9;
    word = (word ^ word >> 27) * 0x94D049BB133111EB;
    return word ^ word >> 31;
}

DEVICE float value_of(uint32_t sum, float mean, float scale) {
    return __fadd_rn(mean, __fmul_rn(__fsub_rn(float(sum), 510.0f), scale));
}

// Columns `2 · pair` and the next of a row.
DEVICE uint32_t pair_of(uint64_t row_seed, uint32_t pair, float mean, float scale) {
    const uint64_t word = mix(row_seed + pair * GOLDEN);
    const uint64_t pairs = (word & 0x00FF00FF00FF00FF) + (word >> 8 & 0x00FF00FF00FF00FF);
    const uint64_t sums = (pairs & 0x0000FFFF0000FFFF) + (pairs >> 16 & 0x0000FFFF0000FFFF);
    return pack_bf16(value_of(uint32_t(sums), mean, scale), value_of(uint32_t(sums >> 32), mean, scale));
}

KERNEL(THREADS) synthetic(bf16* __restrict__ w, uint64_t seed, float mean, float scale, int cols) {
    const int column = 8 * int(blockIdx.y * THREADS + threadIdx.x);
    if (column >= cols) return;
    const uint64_t row_seed = mix(seed ^ blockIdx.x * GOLDEN);
    bf16* to = w + size_t(blockIdx.x) * cols + column;
    uint32_t pairs[4];
#pragma unroll
    for (int i = 0; i < 4; i++) pairs[i] = pair_of(row_seed, column / 2 + i, mean, scale);
    if (cols % 8 == 0) {
        *reinterpret_cast<uint4*>(to) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (column + i < cols) to[i] = bf16{uint16_t(pairs[i / 2] >> (16 * (i % 2)))};
    }
}
