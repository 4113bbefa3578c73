// How a kernel is found by name and called: the table entry that build.rs writes for each `KERNEL(...)` line.
#pragma once
#include <cstddef>
#include <utility>

#include "machine.h"

namespace emu {

struct Kernel {
    const char* name;
    // Largest block the kernel is compiled for.
    unsigned max_threads;
    Entry entry;
};

// The kernels of one source file.
struct Source {
    const Kernel* kernels;
    size_t n_kernels;
};

template <auto ENTRY>
struct Trampoline;

// Reads each argument as the type its parameter has, from where the launch points.
template <class... Parameters, void (*ENTRY)(Parameters...)>
struct Trampoline<ENTRY> {
    static void enter(void* const* arguments) { enter(arguments, std::index_sequence_for<Parameters...>()); }
    template <size_t... I>
    static void enter([[maybe_unused]] void* const* arguments, std::index_sequence<I...>) {
        ENTRY(*static_cast<Parameters*>(arguments[I])...);
    }
};

}  // namespace emu
