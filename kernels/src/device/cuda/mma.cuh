// The tensor core of sm_80 and later, and the copies that feed it: cp.async, ldmatrix, mma.sync.
//
// The emulator has bodies of its own for all of these, in emu/mma_host.h.
#pragma once
#include "prelude.cuh"

#if defined(REPRISE_EMULATION)
#include "mma_host.h"
#else

DEVICE uint32_t shared_address(const void* pointer) { return uint32_t(__cvta_generic_to_shared(pointer)); }

// Starts a copy of 16 bytes from global to shared memory, past the first-level cache; zeros are written instead where
// `valid` is false. Both addresses are 16-byte aligned.
DEVICE void cp_async_16(void* shared, const void* global, bool valid = true) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
}

// Closes the group of copies this thread started since the last one.
DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `N` of this thread's newest groups are under way. Other threads' copies are seen after a barrier.
template <int N>
DEVICE void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Four 8x8 matrices of 16-bit values from shared memory; lane `l` gives the address of row `l % 8` of matrix `l / 8`
// (16-byte aligned) and receives elements `2 * (l % 4)` and the next of row `l / 4` of each.
DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same, each matrix transposed on the way.
DEVICE void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// c += a · b for a 16x16 (row-major), b 16x8 (column-major), c 16x8 in f32. With g = lane / 4 and t = lane % 4:
// a holds rows g and g + 8 at columns 2t, 2t+1 (a[0], a[1]) and 2t+8, 2t+9 (a[2], a[3]); b holds rows 2t, 2t+1 (b0) and
// 2t+8, 2t+9 (b1) of column g; c holds row g (c[0], c[1]) and row g + 8 (c[2], c[3]) at columns 2t, 2t+1.
DEVICE void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif
