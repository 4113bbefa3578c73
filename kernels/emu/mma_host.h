// The bodies of mma.cuh for the emulator: copies that happen as late, or as early, as the rules allow, and the tensor
// core's fragments taken apart and put together on the CPU. What each function does is said in mma.cuh.
#pragma once

namespace emu {

inline void perform(const Copy& copy) {
    if (copy.valid) std::memcpy(copy.shared, copy.global, 16);
    else std::memset(copy.shared, 0, 16);
}

struct Fragments {
    const uint16_t* row;
    uint32_t (*words)[4];
};

// Lane `l` gets row `l / 4`, elements `2 (l % 4)` and the next, of each matrix or of its transpose.
template <bool TRANSPOSED>
inline void load_matrices(void* const* lanes, uint32_t, Site) {
    const uint16_t* rows[32];
    for (int lane = 0; lane < 32; lane++) rows[lane] = static_cast<const Fragments*>(lanes[lane])->row;
    for (int lane = 0; lane < 32; lane++) {
        const int row = lane / 4, col = lane % 4 * 2;
        for (int matrix = 0; matrix < 4; matrix++) {
            const uint16_t* const* m = rows + 8 * matrix;
            const uint32_t low = TRANSPOSED ? m[col][row] : m[row][col];
            const uint32_t high = TRANSPOSED ? m[col + 1][row] : m[row][col + 1];
            (*static_cast<Fragments*>(lanes[lane])->words)[matrix] = low | high << 16;
        }
    }
}

struct Product {
    float (*c)[4];
    const uint32_t* a;
    uint32_t b[2];
};

// Eight floats, in one register where the machine has such.
using Row = float __attribute__((vector_size(32)));

// Products are summed in f32 in order of k; the device's order inside an instruction is not documented.
inline void multiply(void* const* lanes, uint32_t, Site) {
    float a[16][16];
    Row b[16], c[16];
    for (int lane = 0; lane < 32; lane++) {
        const Product& mine = *static_cast<const Product*>(lanes[lane]);
        const int g = lane / 4, t = lane % 4 * 2;
        for (int i = 0; i < 4; i++) {
            const int row = g + i % 2 * 8, k = t + i / 2 * 8;
            a[row][k] = __uint_as_float(mine.a[i] << 16);
            a[row][k + 1] = __uint_as_float(mine.a[i] & 0xffff0000u);
            c[g + i / 2 * 8][t + i % 2] = (*mine.c)[i];
        }
        for (int i = 0; i < 2; i++) {
            b[t + i * 8][g] = __uint_as_float(mine.b[i] << 16);
            b[t + i * 8 + 1][g] = __uint_as_float(mine.b[i] & 0xffff0000u);
        }
    }
    for (int row = 0; row < 16; row++) {
        for (int k = 0; k < 16; k++) c[row] += a[row][k] * b[k];
    }
    for (int lane = 0; lane < 32; lane++) {
        for (int i = 0; i < 4; i++) {
            (*static_cast<Product*>(lanes[lane])->c)[i] = c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
        }
    }
}

inline constexpr WarpOp LDMATRIX{"ldmatrix_x4", true, load_matrices<false>};
inline constexpr WarpOp LDMATRIX_TRANS{"ldmatrix_x4_trans", true, load_matrices<true>};
inline constexpr WarpOp MMA{"mma_m16n8k16", true, multiply};

inline void load(const WarpOp& op, uint32_t (&words)[4], const void* row, Site site) {
    check_shared(row, 16, op.name, site);
    Fragments fragments{static_cast<const uint16_t*>(row), &words};
    warp_operation(op, ~0u, &fragments, site);
}

}  // namespace emu

inline void cp_async_16(void* shared, const void* global, bool valid = true, emu::Site site = emu::here()) {
    emu::check_shared(shared, 16, "cp_async_16", site);
    if (reinterpret_cast<uintptr_t>(global) % 16) emu::fail(site, "cp_async_16: the source is not a multiple of 16");
    const emu::Copy copy{shared, global, valid};
    if (emu::eager_copies) emu::perform(copy);
    else emu::current->queue.copies.push_back(copy);
}

inline void cp_async_commit() {
    emu::CopyQueue& queue = emu::current->queue;
    queue.groups.push_back(queue.copies.size());
}

template <int N>
inline void cp_async_wait() {
    emu::CopyQueue& queue = emu::current->queue;
    if (queue.groups.size() <= size_t(N)) return;
    const auto first_kept = queue.groups.end() - N;
    const size_t done = first_kept[-1];
    for (size_t i = 0; i < done; i++) emu::perform(queue.copies[i]);
    queue.copies.erase(queue.copies.begin(), queue.copies.begin() + ptrdiff_t(done));
    queue.groups.erase(queue.groups.begin(), first_kept);
    for (size_t& end : queue.groups) end -= done;
}

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, emu::Site site = emu::here()) {
    emu::load(emu::LDMATRIX, r, row, site);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, emu::Site site = emu::here()) {
    emu::load(emu::LDMATRIX_TRANS, r, row, site);
}

inline void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                         emu::Site site = emu::here()) {
    emu::Product product{&c, a, {b0, b1}};
    emu::warp_operation(emu::MMA, ~0u, &product, site);
}
