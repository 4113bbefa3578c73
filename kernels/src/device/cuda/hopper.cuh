// sm_90a only
// Hopper's own way to feed and use the tensor core: bulk tensor copies (TMA), barriers in shared memory that count bytes
// (mbarrier), and products by groups of four warps (wgmma).
//
// Each function is one instruction; where a rule of the PTX ISA decides something, its section is named.
// The emulator has no bodies for these, and nothing here has run on hardware yet.
#pragma once
#include "mma.cuh"

// What the driver's cuTensorMapEncodeTiled made: a matrix in global memory, the box that one copy brings, and how the
// box lies in shared memory. A kernel takes it as `const __grid_constant__ TensorMap`: TMA reads it where it is, so it
// may not be copied to local memory (PTX ISA, "Tensor-map").
struct alignas(128) TensorMap {
    uint64_t opaque[16];
};

// ---- mbarrier (PTX ISA, "mbarrier") -----------------------------------------------------------------------------------
// A barrier's phase ends when as many threads have arrived as it was made for and all bytes that were announced have
// come. Phases are numbered from 0; `barrier_wait(b, p)` waits until the latest phase of parity `p` is over, so that on
// a new barrier parity 1 does not wait.

DEVICE void barrier_init(uint64_t* barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// Makes the barriers just made known to the copy engine too, before a __syncthreads that makes them known to threads.
DEVICE void barrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

DEVICE void barrier_arrive(uint64_t* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// Arrives, and announces bytes that copies will bring in this phase.
DEVICE void barrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}

// Afterwards what arrived before the phase's end is visible: the default semantics of try_wait is acquire.
DEVICE void barrier_wait(uint64_t* barrier, uint32_t parity) {
    uint32_t over;
    do {
        asm volatile(
            "{\n.reg .pred over;\nmbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n"
            "selp.u32 %0, 1, 0, over;\n}"
            : "=r"(over)
            : "r"(shared_address(barrier)), "r"(parity)
            : "memory");
    } while (!over);
}

// Makes this thread's writes to shared memory, its finished cp.async among them, known to wgmma and TMA, which read by
// another way (PTX ISA, "Async proxy"): after the writes, before the arrival that tells of them.
DEVICE void async_proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- TMA (PTX ISA, "cp.async.bulk.tensor") -----------------------------------------------------------------------------

// One thread starts copying the box whose first element is (`column`, `row`). What lies outside of the matrix comes as
// zeros and counts among the bytes. `shared` is a multiple of 1024 bytes, so that a 128-byte swizzle begins anew there.
DEVICE void copy_box(void* shared, const TensorMap& map, int column, int row, uint64_t* barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
            shared_address(shared)),
        "l"(&map), "r"(shared_address(barrier)), "r"(column), "r"(row)
        : "memory");
}

DEVICE void prefetch_map(const TensorMap& map) { asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory"); }

// ---- wgmma (PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions") --------------------------

// Describes a matrix in shared memory whose rows are 64 bf16 values (128 bytes) along k, as a box of 64 columns under
// the 128-byte swizzle lies there. PTX ISA, "Matrix Descriptor Format": start address / 16 in bits 0-13; leading offset
// / 16 in bits 16-29, not used for swizzled layouts with k along the rows and set to 1; stride offset / 16 in bits 32-45,
// from eight rows to the next eight: 8 x 128 bytes; base offset 0 in bits 49-51, since the pattern begins on a multiple
// of 1024 bytes; swizzle mode 1, 128 bytes, in bits 62-63.
// A step of 16 along k adds 32 bytes to the start: the hardware permutes address bits, not columns (CUTLASS,
// include/cute/arch/mma_sm90_desc.hpp and DescriptorIterator in include/cute/atom/mma_traits_sm90_gmma.hpp).
DEVICE uint64_t swizzled_rows(const void* shared) {
    return uint64_t((shared_address(shared) & 0x3ffffu) >> 4) | uint64_t(1) << 16 | uint64_t(1024 >> 4) << 32 |
           uint64_t(1) << 62;
}

// Describes the same tile as the second factor of a product over its rows: 16 rows are the steps of k, and what lies
// along a row, 64 values of each panel, are the columns of the product ("N-major", the transposed bit of the
// instruction). Under "Strides" of the PTX ISA and in CUTLASS (include/cute/atom/mma_traits_sm90_gmma.hpp, MN-major,
// B128: ((8,n),(8,k)):((1,LBO),(8,SBO)) in units of 16 bytes) the leading offset goes from 64 columns to the next 64,
// so from panel to panel, and the stride offset from eight rows to the next eight. A step along k adds 16 rows of 128
// bytes to the start, two whole patterns of the swizzle.
DEVICE uint64_t swizzled_columns(const void* shared, uint32_t panel_bytes) {
    return uint64_t((shared_address(shared) & 0x3ffffu) >> 4) | uint64_t(panel_bytes >> 4) << 16 |
           uint64_t(1024 >> 4) << 32 | uint64_t(1) << 62;
}

// Orders the registers' and shared memory's earlier writes before the products that follow; before the first one, and
// whenever registers were touched by other instructions.
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Closes the group of products started since the last one.
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most `N` of the newest groups are under way.
template <int N>
DEVICE void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

#define REPRISE_FOUR(d) "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])

// Keeps the compiler from using sums before the wait above it.
template <int N>
DEVICE void wgmma_settle(float (&d)[N][4]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : REPRISE_FOUR(d[i])::"memory");
}

// d += a · b^T for a of 64 rows and b of 8 N rows, both of 16 bf16 values along k, by the four warps of a group. Lane `l`
// of warp `w` (of the four) holds rows 16 w + l / 4 (d[j][0], d[j][1]) and 8 further down (d[j][2], d[j][3]) at columns
// 8 j + 2 (l % 4) and the next: figure "WGMMA .m64nNk16 register fragment layout for accumulator matrix D".
// The immediates: both factors as they are (1, 1), both with k along the rows (0, 0).
DEVICE void wgmma_k16(float (&d)[16][4], uint64_t a, uint64_t b) {
    asm volatile(
        "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,"
        "%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,"
        "%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
        "}, %64, %65, accumulate, 1, 1, 0, 0;\n}"
        : REPRISE_FOUR(d[0]), REPRISE_FOUR(d[1]), REPRISE_FOUR(d[2]), REPRISE_FOUR(d[3]), REPRISE_FOUR(d[4]),
          REPRISE_FOUR(d[5]), REPRISE_FOUR(d[6]), REPRISE_FOUR(d[7]), REPRISE_FOUR(d[8]), REPRISE_FOUR(d[9]),
          REPRISE_FOUR(d[10]), REPRISE_FOUR(d[11]), REPRISE_FOUR(d[12]), REPRISE_FOUR(d[13]),
          REPRISE_FOUR(d[14]), REPRISE_FOUR(d[15])
        : "l"(a), "l"(b)
        : "memory");
}

DEVICE void wgmma_k16(float (&d)[32][4], uint64_t a, uint64_t b) {
    asm volatile(
        "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,"
        "%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,"
        "%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,"
        "%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,"
        "%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,"
        "%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,"
        "%126,%127"
        "}, %128, %129, accumulate, 1, 1, 0, 0;\n}"
        : REPRISE_FOUR(d[0]), REPRISE_FOUR(d[1]), REPRISE_FOUR(d[2]), REPRISE_FOUR(d[3]), REPRISE_FOUR(d[4]),
          REPRISE_FOUR(d[5]), REPRISE_FOUR(d[6]), REPRISE_FOUR(d[7]), REPRISE_FOUR(d[8]), REPRISE_FOUR(d[9]),
          REPRISE_FOUR(d[10]), REPRISE_FOUR(d[11]), REPRISE_FOUR(d[12]), REPRISE_FOUR(d[13]),
          REPRISE_FOUR(d[14]), REPRISE_FOUR(d[15]), REPRISE_FOUR(d[16]), REPRISE_FOUR(d[17]),
          REPRISE_FOUR(d[18]), REPRISE_FOUR(d[19]), REPRISE_FOUR(d[20]), REPRISE_FOUR(d[21]),
          REPRISE_FOUR(d[22]), REPRISE_FOUR(d[23]), REPRISE_FOUR(d[24]), REPRISE_FOUR(d[25]),
          REPRISE_FOUR(d[26]), REPRISE_FOUR(d[27]), REPRISE_FOUR(d[28]), REPRISE_FOUR(d[29]),
          REPRISE_FOUR(d[30]), REPRISE_FOUR(d[31])
        : "l"(a), "l"(b)
        : "memory");
}

// The same for b of 64 rows; what `d` holds is left out of the sums where `accumulate` is 0.
DEVICE void wgmma_k16(float (&d)[8][4], uint64_t a, uint64_t b, int accumulate) {
    asm volatile(
        "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
        "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
        "}, %32, %33, accumulate, 1, 1, 0, 0;\n}"
        : REPRISE_FOUR(d[0]), REPRISE_FOUR(d[1]), REPRISE_FOUR(d[2]), REPRISE_FOUR(d[3]),
          REPRISE_FOUR(d[4]), REPRISE_FOUR(d[5]), REPRISE_FOUR(d[6]), REPRISE_FOUR(d[7])
        : "l"(a), "l"(b), "r"(accumulate)
        : "memory");
}

// d += a · b for b of 16 rows as `swizzled_columns` describes them. Of a, 64 rows of 16 values, each warp holds 16 rows
// in registers, as for mma_m16n8k16: figure "WGMMA .m64nNk16 register fragment layout for matrix A". They may not be
// written before the wait for the product. The immediates: as they are (1, 1), b with its columns along the rows (1).
DEVICE void wgmma_columns_k16(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b) {
    asm volatile(
        "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
        "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
        "}, {%32,%33,%34,%35}, %36, accumulate, 1, 1, 1;\n}"
        : REPRISE_FOUR(d[0]), REPRISE_FOUR(d[1]), REPRISE_FOUR(d[2]), REPRISE_FOUR(d[3]),
          REPRISE_FOUR(d[4]), REPRISE_FOUR(d[5]), REPRISE_FOUR(d[6]), REPRISE_FOUR(d[7])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)
        : "memory");
}

DEVICE void wgmma_columns_k16(float (&d)[16][4], const uint32_t (&a)[4], uint64_t b) {
    asm volatile(
        "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
        "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
        "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
        "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
        "}, {%64,%65,%66,%67}, %68, accumulate, 1, 1, 1;\n}"
        : REPRISE_FOUR(d[0]), REPRISE_FOUR(d[1]), REPRISE_FOUR(d[2]), REPRISE_FOUR(d[3]),
          REPRISE_FOUR(d[4]), REPRISE_FOUR(d[5]), REPRISE_FOUR(d[6]), REPRISE_FOUR(d[7]),
          REPRISE_FOUR(d[8]), REPRISE_FOUR(d[9]), REPRISE_FOUR(d[10]), REPRISE_FOUR(d[11]),
          REPRISE_FOUR(d[12]), REPRISE_FOUR(d[13]), REPRISE_FOUR(d[14]), REPRISE_FOUR(d[15])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)
        : "memory");
}

#undef REPRISE_FOUR
