// What every kernel starts from: fixed-width integers, bf16 and f16 as bits, and the conversions between them.
//
// No CUDA header is included, so that one source compiles under nvcc and, through emu/shim.h, under a C++ compiler.
// PTX stands in this folder alone, each instruction behind a function; kernels hold none.
#pragma once

#if !defined(REPRISE_EMULATION)
#include <stdint.h>
// Dynamic shared memory of the block, as `T* name`. Kernels use no other spelling: the emulator gives it real memory.
#define DYNAMIC_SHARED(T, name)                                \
    extern __shared__ __align__(1024) unsigned char shared_[]; \
    T* name = reinterpret_cast<T*>(shared_)
#define DEVICE __device__ __forceinline__
#else
#include "shim.h"
#define DEVICE inline
#endif

// Entry points are spelled `KERNEL(threads) name(...)`, one to a line, so that a search finds them all.
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)

constexpr unsigned FULL_WARP = 0xffffffffu;

struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};

DEVICE float to_f32(bf16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }

#if defined(REPRISE_EMULATION)
#include "convert_host.h"
#else

DEVICE float to_f32(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

// Rounds to nearest even, as `half::bf16::from_f32`.
DEVICE bf16 to_bf16(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// Two values in a word, the first in the low half, as they lie in memory.
DEVICE uint32_t pack_bf16(float low, float high) {
    uint32_t y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

// 2^x, to about two units in the last place of f32; 0 for large negative x.
DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif

DEVICE float low_bf16(uint32_t pair) { return __uint_as_float(pair << 16); }
DEVICE float high_bf16(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
