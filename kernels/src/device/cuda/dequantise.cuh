// The number formats of weights on the device: how a value, or eight neighbouring ones, are read out of a row that
// lies in memory exactly as in its file. One struct a format, the twin of kernels/src/quant/*.rs, where the layouts
// are described.
//
// Every value is the exact one of the CPU: scale times sub-scale times quant fits the 24 bits of an f32, so products
// need no order, and Q4_K's only rounding, subtracting the minimum, comes last whether or not it is fused.
// Rows begin on even addresses in all formats, on multiples of 16 bytes in Q4_K; blocks of the other quantised formats
// are read in pairs of bytes for that reason.
#pragma once
#include "prelude.cuh"

DEVICE uint32_t load_u16(const uint8_t* even) { return *reinterpret_cast<const uint16_t*>(even); }
DEVICE float load_f16(const uint8_t* even) { return to_f32(f16{uint16_t(load_u16(even))}); }

// Eight bytes from an even address, byte `i` in bits `8 i`.
DEVICE uint2 load_bytes_8(const uint8_t* even) {
    return make_uint2(load_u16(even) | load_u16(even + 2) << 16, load_u16(even + 4) | load_u16(even + 6) << 16);
}

// Byte `i` of eight, `i` known when compiling.
DEVICE uint32_t byte_of(uint2 bytes, int i) { return (i < 4 ? bytes.x : bytes.y) >> (8 * (i % 4)) & 0xffu; }

// Each format: COLS values in a block of BYTES; `one` reads value `i` of a block; `eight` reads values `i..i + 8`,
// `i` a multiple of 8.  Formats of single values take a block for 8 of them, so that all are walked alike; `eight` of
// these needs the block on a multiple of 16 bytes, which it is where the row's length is a multiple of 8.
struct F32 {
    static constexpr int COLS = 8, BYTES = 32;
    static DEVICE float one(const uint8_t* block, int i) { return reinterpret_cast<const float*>(block)[i]; }
    static DEVICE void eight(const uint8_t* block, int, float (&out)[8]) {
        const float4 low = reinterpret_cast<const float4*>(block)[0], high = reinterpret_cast<const float4*>(block)[1];
        out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
        out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
    }
};

struct F16 {
    static constexpr int COLS = 8, BYTES = 16;
    static DEVICE float one(const uint8_t* block, int i) { return load_f16(block + 2 * i); }
    static DEVICE void eight(const uint8_t* block, int, float (&out)[8]) {
        const uint4 words = *reinterpret_cast<const uint4*>(block);
        const uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 8; i++) out[i] = to_f32(f16{uint16_t(pairs[i / 2] >> (16 * (i % 2)))});
    }
};

struct BF16 {
    static constexpr int COLS = 8, BYTES = 16;
    static DEVICE float one(const uint8_t* block, int i) { return to_f32(bf16{uint16_t(load_u16(block + 2 * i))}); }
    static DEVICE void eight(const uint8_t* block, int, float (&out)[8]) {
        const uint4 words = *reinterpret_cast<const uint4*>(block);
        const uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 8; i++) out[i] = i % 2 ? high_bf16(pairs[i / 2]) : low_bf16(pairs[i / 2]);
    }
};

struct Q8_0 {
    static constexpr int COLS = 32, BYTES = 34;
    static DEVICE float one(const uint8_t* block, int i) { return load_f16(block) * float(int8_t(block[2 + i])); }
    static DEVICE void eight(const uint8_t* block, int i, float (&out)[8]) {
        const float d = load_f16(block);
        const uint2 quants = load_bytes_8(block + 2 + i);
#pragma unroll
        for (int j = 0; j < 8; j++) out[j] = d * float(int8_t(byte_of(quants, j)));
    }
};

struct Q5_0 {
    static constexpr int COLS = 32, BYTES = 22;
    static DEVICE float one(const uint8_t* block, int i) {
        const int low = block[6 + i % 16] >> (i / 16 * 4) & 0x0f, fifth = block[2 + i / 8] >> (i % 8) & 1;
        return load_f16(block) * float((low | fifth << 4) - 16);
    }
    static DEVICE void eight(const uint8_t* block, int i, float (&out)[8]) {
        const float d = load_f16(block);
        const uint32_t fifths = block[2 + i / 8];
        const uint2 quants = load_bytes_8(block + 6 + i % 16);
        const int shift = i / 16 * 4;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const uint32_t q = (byte_of(quants, j) >> shift & 0x0fu) | (fifths >> j & 1u) << 4;
            out[j] = d * float(int(q) - 16);
        }
    }
};

struct Q4K {
    static constexpr int COLS = 256, BYTES = 144;
    // Scale and minimum of sub-block `b` of 32 values.
    static DEVICE float2 scale_and_min(const uint8_t* block, int b) {
        const uint8_t* packed = block + 4;
        uint32_t scale, min;
        if (b < 4) {
            scale = packed[b] & 0x3fu, min = packed[b + 4] & 0x3fu;
        } else {
            const uint32_t low = packed[b + 4];
            scale = (low & 0x0fu) | (packed[b - 4] >> 2 & 0x30u), min = low >> 4 | (packed[b] >> 2 & 0x30u);
        }
        return make_float2(load_f16(block) * float(scale), load_f16(block + 2) * float(min));
    }
    static DEVICE float one(const uint8_t* block, int i) {
        const int b = i / 32;
        const float2 s = scale_and_min(block, b);
        const uint32_t q = block[16 + 32 * (b / 2) + i % 32] >> (b % 2 * 4) & 0x0fu;
        return s.x * float(q) - s.y;
    }
    static DEVICE void eight(const uint8_t* block, int i, float (&out)[8]) {
        const int b = i / 32, shift = b % 2 * 4;
        const float2 s = scale_and_min(block, b);
        const uint2 quants = *reinterpret_cast<const uint2*>(block + 16 + 32 * (b / 2) + i % 32);
#pragma unroll
        for (int j = 0; j < 8; j++) out[j] = s.x * float(byte_of(quants, j) >> shift & 0x0fu) - s.y;
    }
};

struct Q6K {
    static constexpr int COLS = 256, BYTES = 210;
    static DEVICE float scale(const uint8_t* block, int i) {
        return load_f16(block + 208) * float(int8_t(block[192 + i / 16]));
    }
    static DEVICE float one(const uint8_t* block, int i) {
        const int half = i / 128, t = i / 32 % 4, l = i % 32;
        const int low = block[64 * half + 32 * (t % 2) + l] >> (4 * (t / 2)) & 0x0f;
        const int upper = block[128 + 32 * half + l] >> (2 * t) & 0x03;
        return scale(block, i) * float((low | upper << 4) - 32);
    }
    static DEVICE void eight(const uint8_t* block, int i, float (&out)[8]) {
        const int half = i / 128, t = i / 32 % 4, l = i % 32;
        const float s = scale(block, i);
        const uint2 lows = load_bytes_8(block + 64 * half + 32 * (t % 2) + l);
        const uint2 uppers = load_bytes_8(block + 128 + 32 * half + l);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const uint32_t low = byte_of(lows, j) >> (4 * (t / 2)) & 0x0fu;
            const uint32_t upper = byte_of(uppers, j) >> (2 * t) & 0x03u;
            out[j] = s * float(int(low | upper << 4) - 32);
        }
    }
};

// Value `column` of a row.
template <class Format>
DEVICE float element(const uint8_t* row, int column) {
    return Format::one(row + size_t(column / Format::COLS) * Format::BYTES, column % Format::COLS);
}

// Values `column..column + 8` of a row; `column` is a multiple of 8, as is the length of a row of F32, F16 or BF16.
template <class Format>
DEVICE void elements_8(const uint8_t* row, int column, float (&out)[8]) {
    Format::eight(row + size_t(column / Format::COLS) * Format::BYTES, column % Format::COLS, out);
}
