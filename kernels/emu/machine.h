// One block of CUDA threads on one OS thread: what a kernel's threads may ask of the machine that runs them.
//
// Each CUDA thread is a fiber with a stack of its own. It runs until it waits for others, at a barrier of the block or
// at an operation of its warp; which one runs next is up to the seed alone, so that a run can be repeated exactly.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

struct uint3 {
    unsigned x, y, z;
};

namespace emu {

// A place in a kernel's source.
struct Site {
    const char* file;
    int line;
};

// The place this is called at. As the default of a parameter, the place its function is called at; so everything a
// kernel can wait or fail in ends with `Site site = here()`.
constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }

// An operation that the lanes of a warp do together. Its arguments lie on the lanes' stacks and take the results.
struct WarpOp {
    const char* name;
    // Whether all lanes have to come from one place in the source, as `.aligned` instructions ask.
    bool aligned;
    // Computes for every lane in the mask. `lanes[i]` is null for a lane outside it.
    void (*combine)(void* const* lanes, uint32_t mask, Site site);
};

// A copy from global to shared memory that was asked for and need not have happened yet.
struct Copy {
    void* shared;
    const void* global;
    bool valid;
};

// The asynchronous copies of one thread, in the order they were asked for.
struct CopyQueue {
    std::vector<Copy> copies;
    // For each group that was closed, oldest first, the number of copies up to its end.
    std::vector<size_t> groups;
};

enum class Wait : uint8_t { none, barrier, warp };

struct Thread {
    uint3 index;
    unsigned number;
    Wait wait;
    // What it waits in and where, or waited in last.
    const WarpOp* op;
    Site site;
    uint32_t mask;
    CopyQueue queue;
};

// The fiber that runs now. Reads of it are not carried over a call, so it is right again after a wait.
extern __thread Thread* current;
// Dynamic shared memory of the block that runs now.
extern __thread unsigned char* shared_memory;
extern __thread size_t shared_bytes;
// Whether asynchronous copies happen when they are asked for; otherwise when they are waited for.
extern __thread bool eager_copies;

// Waits for every thread of the block that has not returned.
void barrier(Site site);

// Waits for the lanes in `mask`, all of which call this with the same operation and mask; one computes for all.
void warp_operation(const WarpOp& op, uint32_t mask, void* argument, Site site);

// Ends the launch with a report. What the threads of the block had on their stacks is dropped.
[[noreturn]] void fail(Site site, const char* format, ...) __attribute__((format(printf, 2, 3)));

// Fails unless `bytes` bytes at `address` lie in the block's dynamic shared memory, aligned to as many.
void check_shared(const void* address, size_t bytes, const char* what, Site site);

// Entry point of a kernel behind one signature; `arguments` point at the values, as with cuLaunchKernel.
using Entry = void (*)(void* const* arguments);

struct Launch {
    const char* kernel;
    Entry entry;
    uint3 blocks;
    unsigned threads;
    size_t shared_bytes;
    void* const* arguments;
    uint64_t seed;
};

// Runs every block of a launch. Returns null, or a report that stays valid until the next launch on this OS thread.
const char* run(const Launch& launch);

}  // namespace emu

extern __thread uint3 blockIdx;
extern __thread uint3 blockDim;
extern __thread uint3 gridDim;
#define threadIdx (emu::current->index)
