// The emulator's only door: launch a kernel by its name.
#include "registry.h"

#include <cstdio>
#include <cstring>

namespace emu {

// Written by build.rs: one entry for each source file.
extern const Source SOURCES[];
extern const size_t N_SOURCES;

namespace {

const Kernel* find(const char* name) {
    for (size_t i = 0; i < N_SOURCES; i++) {
        for (size_t j = 0; j < SOURCES[i].n_kernels; j++) {
            if (std::strcmp(SOURCES[i].kernels[j].name, name) == 0) return &SOURCES[i].kernels[j];
        }
    }
    return nullptr;
}

}  // namespace
}  // namespace emu

// Runs `kernel` over a grid and waits for it. `arguments[i]` points at the value of parameter i. Returns 0, or 1 with a
// report in `message`, cut to `message_bytes` with its closing 0.
extern "C" int reprise_emulate(const char* kernel, const unsigned blocks[3], unsigned threads, size_t shared_bytes,
                               void* const* arguments, uint64_t seed, char* message, size_t message_bytes) {
    const emu::Kernel* found = emu::find(kernel);
    if (!found) {
        std::snprintf(message, message_bytes, "no kernel is named %s", kernel);
        return 1;
    }
    if (threads == 0 || threads % 32 || threads > found->max_threads) {
        std::snprintf(message, message_bytes, "%s takes whole warps of up to %u threads a block, not %u threads",
                      kernel, found->max_threads, threads);
        return 1;
    }
    const emu::Launch launch{found->name,  found->entry, {blocks[0], blocks[1], blocks[2]}, threads, shared_bytes,
                             arguments, seed};
    const char* report = emu::run(launch);
    if (!report) return 0;
    std::snprintf(message, message_bytes, "%s", report);
    return 1;
}
