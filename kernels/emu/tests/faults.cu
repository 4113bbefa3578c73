// Test kernels that the emulator stops, each with the place it names marked by the kernel's name.
#include "mma.cuh"

KERNEL(128) emu_divergent_barrier(const float*, int* out, int) {
    if (threadIdx.x < 64) {
        __syncthreads();  // waits in emu_divergent_barrier
    } else {
        __syncthreads();  // waits in emu_divergent_barrier
    }
    out[threadIdx.x] = 1;
}

KERNEL(64) emu_deadlock(const float*, int* out, int) {
    int x = threadIdx.x;
    if (threadIdx.x % 32 < 8) {
        x = __shfl_sync(FULL_WARP, x, 0);  // waits in emu_deadlock
    } else {
        __syncthreads();  // waits in emu_deadlock
    }
    out[threadIdx.x] = x;
}

KERNEL(32) emu_partial_warp(const float*, int* out, int) {
    if (threadIdx.x >= 24) return;
    out[threadIdx.x] = __shfl_sync(FULL_WARP, int(threadIdx.x), 0);  // waits in emu_partial_warp
}

KERNEL(32) emu_not_in_own_mask(const float*, int* out, int) {
    out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, int(threadIdx.x), 1);  // waits in emu_not_in_own_mask
}

KERNEL(32) emu_reads_outside_mask(const float*, int* out, int) {
    if (threadIdx.x < 16) {
        out[threadIdx.x] = __shfl_sync(0x0000ffffu, int(threadIdx.x), 20);  // waits in emu_reads_outside_mask
    }
}

KERNEL(32) emu_different_operations(const float*, int* out, int) {
    if (threadIdx.x < 16) {
        __syncwarp();  // waits in emu_different_operations
    } else {
        out[threadIdx.x] = __any_sync(FULL_WARP, 1);  // waits in emu_different_operations
    }
}

KERNEL(32) emu_misaligned_matrix(const float*, uint32_t* out, int) {
    DYNAMIC_SHARED(uint16_t, rows);
    uint32_t words[4];
    ldmatrix_x4(words, rows + threadIdx.x * 8 + 4);  // waits in emu_misaligned_matrix
    out[threadIdx.x] = words[0];
}

KERNEL(32) emu_matrix_outside(const float*, uint32_t* out, int) {
    DYNAMIC_SHARED(uint16_t, rows);
    uint32_t words[4];
    ldmatrix_x4(words, rows + (threadIdx.x + 1) * 8);  // waits in emu_matrix_outside
    out[threadIdx.x] = words[0];
}

KERNEL(32) emu_misaligned_copy(const float* in, float*, int) {
    DYNAMIC_SHARED(float4, words);
    cp_async_16(&words[threadIdx.x], in + 1);  // waits in emu_misaligned_copy
}

KERNEL(32) emu_copy_outside(const float* in, float*, int) {
    DYNAMIC_SHARED(float4, words);
    cp_async_16(&words[threadIdx.x + 1], in);  // waits in emu_copy_outside
}

KERNEL(32) emu_past_shared_memory(const float*, int* out, int) {
    DYNAMIC_SHARED(int, words);
    words[threadIdx.x + 97] = out[threadIdx.x];  // leaves in emu_past_shared_memory
}

// The rest is found under the sanitizers alone.
KERNEL(32) emu_reads_past_shared_memory(const float*, int* out, int) {
    DYNAMIC_SHARED(int, words);
    out[threadIdx.x] = words[threadIdx.x + 97];  // leaves in emu_reads_past_shared_memory
}

KERNEL(32) emu_past_global_memory(const float*, int* out, int) {
    out[threadIdx.x + 1] = int(threadIdx.x);  // leaves in emu_past_global_memory
}

KERNEL(32) emu_misaligned_vector(const float* in, int* out, int) {
    const float4 x = reinterpret_cast<const float4*>(in + 1)[threadIdx.x];  // leaves in emu_misaligned_vector
    out[threadIdx.x] = int(x.x + x.w);
}
