// The conversions that prelude.cuh has as PTX, for the emulator. Included by prelude.cuh alone, where bf16 and f16 are
// known.
#pragma once

inline float to_f32(f16 x) {
    const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16, exponent = x.bits >> 10 & 0x1fu, fraction = x.bits & 0x3ffu;
    if (exponent == 0) return copysignf(float(fraction) * 0x1p-24f, __uint_as_float(sign));
    const uint32_t wide = exponent == 31 ? 255u : exponent + 112u;
    return __uint_as_float(sign | wide << 23 | fraction << 13);
}

// Rounds to nearest even; every NaN becomes the one that the device gives.
inline bf16 to_bf16(float x) {
    const uint32_t bits = __float_as_uint(x);
    if (x != x) return {0x7fff};
    return {uint16_t((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

inline uint32_t pack_bf16(float low, float high) { return to_bf16(low).bits | uint32_t(to_bf16(high).bits) << 16; }

// Exact where the device approximates; subnormal results are flushed as there.
inline float exp2_fast(float x) {
    const float y = exp2f(x);
    return y < FLT_MIN ? 0.0f : y;
}
