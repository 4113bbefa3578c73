// What a kernel sees of CUDA when a C++ compiler builds it for the CPU: the words of the language, its vector types and
// the functions that the kernels of this project call. What is missing here does not compile; add it when it is needed.
//
// Fast approximations (`__expf`, `rsqrtf`) are exact here, so results are compared with a tolerance, never by bits.
#pragma once

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include <cstring>
#include <type_traits>

#include "machine.h"

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
// The only shared memory: static `__shared__` would keep one block's values for the next.
#define DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(emu::shared_memory)

// ---- vector types ---------------------------------------------------------------------------------------------------

#define EMU_VECTORS(T, name)                                                  \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                        \
    struct alignas(4 * sizeof(T)) name##4 { T x, y, z, w; };                  \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VECTORS(float, float)
EMU_VECTORS(int, int)
EMU_VECTORS(unsigned, uint)
#undef EMU_VECTORS

// ---- bits -----------------------------------------------------------------------------------------------------------

namespace emu {

template <class To, class From>
inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

}  // namespace emu

inline uint32_t __float_as_uint(float x) { return emu::bits_as<uint32_t>(x); }
inline int __float_as_int(float x) { return emu::bits_as<int>(x); }
inline float __uint_as_float(uint32_t x) { return emu::bits_as<float>(x); }
inline float __int_as_float(int x) { return emu::bits_as<float>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }

// Bytes of `high:low` picked by the nibbles of `selector`; bit 3 of a nibble spreads the byte's sign.
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    const uint64_t bytes = uint64_t(high) << 32 | low;
    unsigned y = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned pick = selector >> (4 * i) & 0xfu, byte = bytes >> (8 * (pick & 7u)) & 0xffu;
        y |= (pick & 8u ? (byte & 0x80u ? 0xffu : 0u) : byte) << (8 * i);
    }
    return y;
}

inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned((uint64_t(high) << 32 | low) >> (shift & 31u));
}

inline int __dp4a(int a, int b, int sum) {
    for (int i = 0; i < 4; i++) sum += int(int8_t(a >> (8 * i))) * int(int8_t(b >> (8 * i)));
    return sum;
}

// ---- numbers --------------------------------------------------------------------------------------------------------

// Of mixed types the wider one, unsigned before signed, as the language has it for a sum.
template <class A, class B, class R = decltype(A() + B()), class = std::enable_if_t<std::is_integral_v<R>>>
inline R min(A a, B b) {
    return R(a) < R(b) ? R(a) : R(b);
}
template <class A, class B, class R = decltype(A() + B()), class = std::enable_if_t<std::is_integral_v<R>>>
inline R max(A a, B b) {
    return R(a) < R(b) ? R(b) : R(a);
}
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

namespace emu {

// Hides a value from the optimiser, so that a product is not fused with the sum it goes into.
inline float rounded(float x) {
#if defined(__x86_64__)
    asm("" : "+x"(x));
    return x;
#else
    volatile float kept = x;
    return kept;
#endif
}

}  // namespace emu

inline float __fadd_rn(float a, float b) { return emu::rounded(a + b); }
inline float __fsub_rn(float a, float b) { return emu::rounded(a - b); }
inline float __fmul_rn(float a, float b) { return emu::rounded(a * b); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
// The C library declares a function of this name.
#define __expf(x) expf(x)

// To nearest even; what does not fit becomes the nearest integer that does, NaN becomes 0.
inline int __float2int_rn(float x) {
    if (x != x) return 0;
    const float y = nearbyintf(x);
    if (y >= 2147483648.0f) return INT32_MAX;
    return y <= -2147483648.0f ? INT32_MIN : int(y);
}

// ---- memory ---------------------------------------------------------------------------------------------------------

template <class T>
inline T __ldg(const T* address) {
    return *address;
}
template <class T>
inline T __ldcs(const T* address) {
    return *address;
}

// ---- block and warp -------------------------------------------------------------------------------------------------

inline void __syncthreads(emu::Site site = emu::here()) { emu::barrier(site); }

namespace emu {

// A shuffle moves eight bytes, whatever the type.
struct Shuffle {
    uint64_t value;
    int source;
    uint64_t result;
};

inline void shuffle(void* const* lanes, uint32_t mask, Site site) {
    for (int lane = 0; lane < 32; lane++) {
        if (!(mask >> lane & 1)) continue;
        Shuffle& to = *static_cast<Shuffle*>(lanes[lane]);
        if (!(mask >> to.source & 1)) {
            fail(site, "shuffle: lane %d reads from lane %d, which is not in the mask %08x", lane, to.source, mask);
        }
        to.result = static_cast<const Shuffle*>(lanes[to.source])->value;
    }
}

inline void ballot(void* const* lanes, uint32_t mask, Site) {
    uint32_t votes = 0;
    for (int lane = 0; lane < 32; lane++) {
        if (mask >> lane & 1) votes |= uint32_t(*static_cast<uint32_t*>(lanes[lane]) != 0) << lane;
    }
    for (int lane = 0; lane < 32; lane++) {
        if (mask >> lane & 1) *static_cast<uint32_t*>(lanes[lane]) = votes;
    }
}

inline void meet(void* const*, uint32_t, Site) {}

inline constexpr WarpOp SYNC{"__syncwarp", false, meet}, BALLOT{"a vote", false, ballot};
inline constexpr WarpOp SHUFFLE{"__shfl_sync", false, shuffle}, SHUFFLE_XOR{"__shfl_xor_sync", false, shuffle};
inline constexpr WarpOp SHUFFLE_UP{"__shfl_up_sync", false, shuffle}, SHUFFLE_DOWN{"__shfl_down_sync", false, shuffle};

inline int lane() { return int(current->number % 32); }

template <class T>
inline T shuffle_from(const WarpOp& op, uint32_t mask, T value, int source, Site site) {
    static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4 && sizeof(T) <= 8, "a type that CUDA shuffles");
    Shuffle exchange{0, source, 0};
    std::memcpy(&exchange.value, &value, sizeof value);
    warp_operation(op, mask, &exchange, site);
    std::memcpy(&value, &exchange.result, sizeof value);
    return value;
}

}  // namespace emu

inline void __syncwarp(uint32_t mask = ~0u, emu::Site site = emu::here()) {
    emu::warp_operation(emu::SYNC, mask, nullptr, site);
}

template <class T>
inline T __shfl_sync(uint32_t mask, T value, int source, int width = 32, emu::Site site = emu::here()) {
    return emu::shuffle_from(emu::SHUFFLE, mask, value, (emu::lane() & -width) | (source & (width - 1)), site);
}

// The other three give a lane its own value where the source lies outside its segment of `width` lanes.
template <class T>
inline T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, int width = 32, emu::Site site = emu::here()) {
    const int lane = emu::lane(), source = lane ^ lane_mask;
    // As the instruction: lower segments may be read, higher ones may not.
    return emu::shuffle_from(emu::SHUFFLE_XOR, mask, value, source > (lane | (width - 1)) ? lane : source, site);
}
template <class T>
inline T __shfl_down_sync(uint32_t mask, T value, unsigned distance, int width = 32, emu::Site site = emu::here()) {
    const int lane = emu::lane(), source = lane + int(distance);
    return emu::shuffle_from(emu::SHUFFLE_DOWN, mask, value, source > (lane | (width - 1)) ? lane : source, site);
}
template <class T>
inline T __shfl_up_sync(uint32_t mask, T value, unsigned distance, int width = 32, emu::Site site = emu::here()) {
    const int lane = emu::lane(), source = lane - int(distance);
    return emu::shuffle_from(emu::SHUFFLE_UP, mask, value, source < (lane & -width) ? lane : source, site);
}

inline uint32_t __ballot_sync(uint32_t mask, int predicate, emu::Site site = emu::here()) {
    uint32_t votes = predicate != 0;
    emu::warp_operation(emu::BALLOT, mask, &votes, site);
    return votes;
}
inline int __any_sync(uint32_t mask, int predicate, emu::Site site = emu::here()) {
    return __ballot_sync(mask, predicate, site) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, emu::Site site = emu::here()) {
    return __ballot_sync(mask, !predicate, site) == 0;
}
