// Strips of weights: 32 neighbouring values of a row, in two steps, so that a thread can have the loads of several
// strips under way before it looks at the first. `read` starts the loads; `unpack` gives the values.
//
// A value is scale · q - min, where q is a small integer (or the value itself, with scale 1). Matrix-vector products
// take the scale out of the sum; others take `value`, which is exact but for Q4_K's one rounding, as on the CPU.
//
// Blocks of Q8_0, Q5_0 and Q6_K begin on even addresses only. They are read through the aligned 16-byte windows that
// hold them, because an L1 access of 16 bytes costs what one of 2 does, and shifted into place in registers. So up to
// 14 bytes before and behind a block are read: memory of matrices begins and ends on multiples of 16 bytes.
#pragma once
#include "dequantise.cuh"

constexpr int STRIP = 32;

// BYTES bytes from an even address on; zeros where they do not exist.
template <int BYTES>
struct EvenBytes {
    static constexpr int CHUNKS = (BYTES + 14 + 15) / 16, WORDS = (BYTES + 3) / 4;
    uint4 chunks[CHUNKS];
    uint32_t offset;

    DEVICE void read(const uint8_t* even, bool exists) {
        offset = uint32_t(reinterpret_cast<size_t>(even)) % 16;
        const uint4* first = reinterpret_cast<const uint4*>(even - offset);
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            chunks[i] = make_uint4(0, 0, 0, 0);
            if (exists && 16 * i < int(offset) + BYTES) chunks[i] = __ldg(first + i);
        }
    }

    // The bytes, four to a word: all words are moved by 8, 4 and 2 bytes as the bits of the offset say.
    DEVICE void words(uint32_t (&out)[WORDS]) const {
        uint32_t all[4 * CHUNKS + 2] = {};
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            all[4 * i] = chunks[i].x, all[4 * i + 1] = chunks[i].y;
            all[4 * i + 2] = chunks[i].z, all[4 * i + 3] = chunks[i].w;
        }
#pragma unroll
        for (int i = 0; i < WORDS + 2; i++) all[i] = offset & 8 ? all[i + 2] : all[i];
#pragma unroll
        for (int i = 0; i < WORDS + 1; i++) all[i] = offset & 4 ? all[i + 1] : all[i];
#pragma unroll
        for (int i = 0; i < WORDS; i++) out[i] = __funnelshift_r(all[i], all[i + 1], offset % 4 * 8);
    }
};

// The values of a strip: value `i` is `scale[i / 16] · q[i] - min`.
struct StripValues {
    float q[STRIP];
    float scale[2];
    float min;

    DEVICE float value(int i) const { return fmaf(scale[i / 16], q[i], -min); }
};

DEVICE uint32_t byte_of(const uint32_t* words, int i) { return words[i / 4] >> (8 * (i % 4)) & 0xffu; }

// Each strip: ONE_SCALE if both scales are the same, HAS_MIN if `min` is not 0. `read` starts at `column` of a row
// of `cols` values and takes four times 8 values, `stride` columns apart; quantised strips lie together (`stride` is 8)
// and begin on a multiple of 32. What lies beyond the row is 0.
template <class Format>
struct Strip;

// The value in the low (0) or high (1) half of a word.
DEVICE float of_pair(F16, uint32_t pair, int high) { return to_f32(f16{uint16_t(pair >> (16 * high))}); }
DEVICE float of_pair(BF16, uint32_t pair, int high) { return high ? high_bf16(pair) : low_bf16(pair); }

// Values that stand alone: rows begin on multiples of 16 bytes and their lengths are multiples of 8. Used once, so
// loaded with an evict-first hint.
template <class Format>
struct HalfStrip {
    static constexpr bool ONE_SCALE = true, HAS_MIN = false;
    uint4 chunks[4];

    DEVICE void read(const uint8_t* row, int column, int stride, int cols) {
#pragma unroll
        for (int j = 0; j < 4; j++, column += stride) {
            chunks[j] = make_uint4(0, 0, 0, 0);
            if (column < cols) chunks[j] = __ldcs(reinterpret_cast<const uint4*>(row + 2 * size_t(column)));
        }
    }
    DEVICE void unpack(StripValues& out) const {
#pragma unroll
        for (int i = 0; i < STRIP; i++) {
            const uint4& chunk = chunks[i / 8];
            const uint32_t pairs[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
            out.q[i] = of_pair(Format{}, pairs[i % 8 / 2], i % 2);
        }
        out.scale[0] = out.scale[1] = 1.0f, out.min = 0.0f;
    }
};
template <>
struct Strip<F16> : HalfStrip<F16> {};
template <>
struct Strip<BF16> : HalfStrip<BF16> {};

template <>
struct Strip<F32> {
    static constexpr bool ONE_SCALE = true, HAS_MIN = false;
    float4 chunks[8];

    DEVICE void read(const uint8_t* row, int column, int stride, int cols) {
#pragma unroll
        for (int j = 0; j < 4; j++, column += stride) {
            const float4* from = reinterpret_cast<const float4*>(row + 4 * size_t(column));
#pragma unroll
            for (int i = 0; i < 2; i++) {
                chunks[2 * j + i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                if (column < cols) chunks[2 * j + i] = __ldcs(from + i);
            }
        }
    }
    DEVICE void unpack(StripValues& out) const {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            out.q[4 * i] = chunks[i].x, out.q[4 * i + 1] = chunks[i].y;
            out.q[4 * i + 2] = chunks[i].z, out.q[4 * i + 3] = chunks[i].w;
        }
        out.scale[0] = out.scale[1] = 1.0f, out.min = 0.0f;
    }
};

// Rows of values that stand alone, beginning anywhere and of any length: value by value.
template <class Format>
struct Loose : Format {};
template <class Format>
struct Strip<Loose<Format>> {
    static constexpr bool ONE_SCALE = true, HAS_MIN = false;
    float values[STRIP];

    DEVICE void read(const uint8_t* row, int column, int stride, int cols) {
#pragma unroll
        for (int i = 0; i < STRIP; i++) {
            const int at = column + i / 8 * stride + i % 8;
            values[i] = at < cols ? element<Format>(row, at) : 0.0f;
        }
    }
    DEVICE void unpack(StripValues& out) const {
#pragma unroll
        for (int i = 0; i < STRIP; i++) out.q[i] = values[i];
        out.scale[0] = out.scale[1] = 1.0f, out.min = 0.0f;
    }
};

// Q8_0: a strip is a block.
template <>
struct Strip<Q8_0> {
    static constexpr bool ONE_SCALE = true, HAS_MIN = false;
    EvenBytes<34> block;

    DEVICE void read(const uint8_t* row, int column, int, int cols) {
        block.read(row + size_t(column / 32) * 34, column < cols);
    }
    DEVICE void unpack(StripValues& out) const {
        uint32_t words[9];
        block.words(words);
        out.scale[0] = out.scale[1] = to_f32(f16{uint16_t(words[0])}), out.min = 0.0f;
#pragma unroll
        for (int i = 0; i < STRIP; i++) out.q[i] = float(int8_t(byte_of(words, 2 + i)));
    }
};

// Q5_0: a strip is a block.
template <>
struct Strip<Q5_0> {
    static constexpr bool ONE_SCALE = true, HAS_MIN = false;
    EvenBytes<22> block;

    DEVICE void read(const uint8_t* row, int column, int, int cols) {
        block.read(row + size_t(column / 32) * 22, column < cols);
    }
    DEVICE void unpack(StripValues& out) const {
        uint32_t words[6];
        block.words(words);
        out.scale[0] = out.scale[1] = to_f32(f16{uint16_t(words[0])}), out.min = 0.0f;
        const uint32_t fifths = words[0] >> 16 | words[1] << 16;
#pragma unroll
        for (int i = 0; i < STRIP; i++) {
            const uint32_t low = byte_of(words, 6 + i % 16) >> (i / 16 * 4) & 0x0fu;
            out.q[i] = float(int(low | (fifths >> i & 1u) << 4) - 16);
        }
    }
};

// Q4_K: a strip is one of the 8 sub-blocks; two neighbours share 32 bytes, all eight the first 16 of the block.
template <>
struct Strip<Q4K> {
    static constexpr bool ONE_SCALE = true, HAS_MIN = true;
    uint4 head, quants[2];
    int sub_block;

    DEVICE void read(const uint8_t* row, int column, int, int cols) {
        sub_block = column / 32 % 8;
        const uint4* block = reinterpret_cast<const uint4*>(row + size_t(column / 256) * 144);
        head = quants[0] = quants[1] = make_uint4(0, 0, 0, 0);
        if (column < cols) {
            head = __ldg(block);
            quants[0] = __ldg(block + 1 + sub_block / 2 * 2), quants[1] = __ldg(block + 2 + sub_block / 2 * 2);
        }
    }
    DEVICE void unpack(StripValues& out) const {
        const int shift = sub_block % 4 * 8;
        uint32_t scale = head.y >> shift, min = head.z >> shift;
        if (sub_block < 4) {
            scale &= 0x3fu, min &= 0x3fu;
        } else {
            const uint32_t low = head.w >> shift;
            scale = (low & 0x0fu) | (scale >> 2 & 0x30u), min = (low >> 4 & 0x0fu) | (min >> 2 & 0x30u);
        }
        out.scale[0] = out.scale[1] = to_f32(f16{uint16_t(head.x)}) * float(scale);
        out.min = to_f32(f16{uint16_t(head.x >> 16)}) * float(min);
        const uint32_t words[8] = {quants[0].x, quants[0].y, quants[0].z, quants[0].w,
                                   quants[1].x, quants[1].y, quants[1].z, quants[1].w};
        uint32_t nibbles[8];
#pragma unroll
        for (int i = 0; i < 8; i++) nibbles[i] = words[i] >> (sub_block % 2 * 4) & 0x0f0f0f0fu;
#pragma unroll
        for (int i = 0; i < STRIP; i++) out.q[i] = float(byte_of(nibbles, i));
    }
};

// Q6_K: a strip is a quarter of half a block.
template <>
struct Strip<Q6K> {
    static constexpr bool ONE_SCALE = false, HAS_MIN = false;
    EvenBytes<32> lows, uppers;
    uint32_t scales, d;
    int quarter;

    DEVICE void read(const uint8_t* row, int column, int, int cols) {
        const int half = column / 128 % 2;
        const uint8_t* block = row + size_t(column / 256) * 210;
        const bool exists = column < cols;
        quarter = column / 32 % 4;
        lows.read(block + 64 * half + 32 * (quarter % 2), exists);
        uppers.read(block + 128 + 32 * half, exists);
        scales = exists ? load_u16(block + 192 + 8 * half + 2 * quarter) : 0;
        d = exists ? load_u16(block + 208) : 0;
    }
    DEVICE void unpack(StripValues& out) const {
        const float all = to_f32(f16{uint16_t(d)});
        out.scale[0] = all * float(int8_t(scales & 0xffu)), out.scale[1] = all * float(int8_t(scales >> 8));
        out.min = 0.0f;
        uint32_t low[8], upper[8];
        lows.words(low), uppers.words(upper);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            low[i] = (low[i] >> (quarter / 2 * 4) & 0x0f0f0f0fu) | (upper[i] >> (quarter * 2) & 0x03030303u) << 4;
        }
#pragma unroll
        for (int i = 0; i < STRIP; i++) out.q[i] = float(int(byte_of(low, i)) - 32);
    }
};
