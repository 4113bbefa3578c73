// One block's walk of attention on mma.sync: 128 rows of queries held against keys and values, 64 at a time, gathered
// by slot. The kernel says which rows and which keys; dense and block-sparse prefill share the rest.
//
// Method: FlashAttention-2 (Dao 2023, algorithm 1): scores, weights and outputs stay in registers, each row carries the
// largest score seen and the sum of its weights. Keys and values have one buffer each: the values of a tile arrive
// behind the product of the scores, the keys of the next behind the product with the values, and the memory saved lets
// two blocks share a multiprocessor, which hide each other's softmax.
//
// Order: a row folds its tiles in the order of the walk; nothing of another row enters, nor the place of a slot.
#pragma once
#include "mma.cuh"

// Each of the four warps holds 32 rows, so that a fragment of keys or values read from shared memory is used twice.
constexpr int FLASH_ROWS = 128, FLASH_KEYS = 64, FLASH_THREADS = 128;

// One row of queries for each (token, head): row `r` of the block is row `first + r` of all `n_rows`, in which the
// `group` heads from `head` on stand beside each other, token by token. Heads that share keys and values thus share a
// tile of them.
struct FlashRows {
    int first;
    int n_rows;
    int group;
    int head;
    int n_heads;
    int start;  // position of token 0

    DEVICE bool holds(int row) const { return first + row < n_rows; }
    DEVICE int position(int row) const { return start + (first + row) / group; }
    // Index of the row in a matrix (n_tokens, n_heads).
    DEVICE int index(int row) const { return (first + row) / group * n_heads + head + (first + row) % group; }
    // The last position that any row of the block may see.
    DEVICE int last_position() const { return start + (min(first + FLASH_ROWS, n_rows) - 1) / group; }
};

// Keys and values of one KV head, (n_slots, D) each, and where the positions of the sequence lie in them.
struct FlashKv {
    const bf16* __restrict__ keys;
    const bf16* __restrict__ values;
    const int* __restrict__ slots;
    int kv_len;
    int n_slots;

    // -1 past the end, and for what is no slot: its row reads as zeros.
    DEVICE int slot(int position) const {
        const int slot = position < kv_len ? __ldg(slots + position) : -1;
        return unsigned(slot) < unsigned(n_slots) ? slot : -1;
    }
};

// Dynamic shared memory of a block.
template <int D>
struct FlashShared {
    bf16 q[FLASH_ROWS * D];
    bf16 keys[FLASH_KEYS * D];
    bf16 values[FLASH_KEYS * D];
    int slots[2][FLASH_KEYS];
    // What would not fit into 255 registers beside two tiles of accumulators at D = 128: the rows' positions; and for
    // each thread and each of its four rows the largest score so far (x) and the sum of weights in its columns (y).
    // The score has its scale on it, so that weights are powers of two of differences; -inf stands for no key yet.
    int positions[FLASH_ROWS];
    float2 weights[4][FLASH_THREADS];
};

// Weighted sums of values. With g = lane / 4 and t = lane % 4, a thread holds of its warp's 16-row tile m the rows g
// (h = 0) and g + 8 (h = 1), and of those the columns 8j + 2t (o[m][j][2h]) and 8j + 2t + 1 (o[m][j][2h + 1]).
template <int D>
struct FlashState {
    float o[2][D / 8][4];
};

// The state before any key.
template <int D>
DEVICE void flash_clear(FlashState<D>& state, FlashShared<D>& shared) {
#pragma unroll
    for (int i = 0; i < 4; ++i) shared.weights[i][threadIdx.x] = make_float2(-INFINITY, 0.0f);
#pragma unroll
    for (int i = 0; i < D; ++i) state.o[i / (D / 2)][i / 4 % (D / 8)][i % 4] = 0.0f;
}

// The row of the block whose values stand at [m][h] of this thread's state.
DEVICE int flash_row(int m, int h) { return threadIdx.x / 32 * 32 + m * 16 + h * 8 + threadIdx.x % 32 / 4; }

// Eight values of a row of a tile. Rows are D values long without padding; the chunks of eight rows that follow each
// other are permuted, so that neither ldmatrix nor the copies meet a bank twice.
template <int D>
DEVICE bf16* flash_chunk(bf16* tile, int row, int chunk) {
    return tile + row * D + ((chunk ^ (row & 7)) << 3);
}

// Starts the copy of the block's queries, zeros for rows past the last; it travels with the next group of copies.
template <int D>
DEVICE void flash_load_queries(FlashShared<D>& shared, const bf16* __restrict__ q, const FlashRows& rows) {
    for (int i = threadIdx.x; i < FLASH_ROWS * D / 8; i += FLASH_THREADS) {
        const int row = i / (D / 8), chunk = i % (D / 8);
        const bool valid = rows.holds(row);
        const size_t from = valid ? size_t(rows.index(row)) * D + chunk * 8 : 0;
        cp_async_16(flash_chunk<D>(shared.q, row, chunk), q + from, valid);
    }
}

// Starts the copy of 64 rows of keys or values at `slots`, zeros for the slot -1.
template <int D>
DEVICE void flash_gather(bf16* tile, const bf16* __restrict__ rows, const int* slots) {
#pragma unroll 2
    for (int i = 0; i < FLASH_KEYS * D / 8 / FLASH_THREADS; ++i) {
        const int at = threadIdx.x + i * FLASH_THREADS, row = at / (D / 8), chunk = at % (D / 8);
        const int slot = slots[row];
        cp_async_16(flash_chunk<D>(tile, row, chunk), rows + size_t(max(slot, 0)) * D + chunk * 8, slot >= 0);
    }
    cp_async_commit();
}

// s = q · keys^T for the warp's 32 rows.
template <int D>
DEVICE void flash_scores(float (&s)[2][FLASH_KEYS / 8][4], FlashShared<D>& shared) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < FLASH_KEYS; ++i) s[i / (FLASH_KEYS / 2)][i / 4 % (FLASH_KEYS / 8)][i % 4] = 0.0f;
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
        uint32_t a[2][4];
#pragma unroll
        for (int m = 0; m < 2; ++m) {
            ldmatrix_x4(a[m], flash_chunk<D>(shared.q, warp * 32 + m * 16 + lane % 16, 2 * k + lane / 16));
        }
#pragma unroll
        for (int j = 0; j < FLASH_KEYS / 16; ++j) {
            uint32_t b[4];
            ldmatrix_x4(b, flash_chunk<D>(shared.keys, j * 16 + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
#pragma unroll
            for (int m = 0; m < 2; ++m) {
                mma_m16n8k16(s[m][2 * j], a[m], b[0], b[1]);
                mma_m16n8k16(s[m][2 * j + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// Takes out the keys after each row's position; the tile's keys stand at `first_key` and after.
DEVICE void flash_mask(float (&s)[2][FLASH_KEYS / 8][4], const int* positions, int first_key) {
    const int column = first_key + threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int m = i / 2, h = i % 2, position = positions[flash_row(m, h)];
#pragma unroll
        for (int j = 0; j < FLASH_KEYS / 8; ++j) {
            if (column + j * 8 > position) s[m][j][2 * h] = -INFINITY;
            if (column + j * 8 + 1 > position) s[m][j][2 * h + 1] = -INFINITY;
        }
    }
}

// Turns scores into weights relative to the largest score of their row so far, and what was summed before with them.
template <int D>
DEVICE void flash_weigh(FlashState<D>& state, float (&s)[2][FLASH_KEYS / 8][4], FlashShared<D>& shared, float scale) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int m = i / 2, h = i % 2;
        const float2 before = shared.weights[i][threadIdx.x];
        float top = -INFINITY;
#pragma unroll
        for (int j = 0; j < FLASH_KEYS / 8; ++j) top = fmaxf(top, fmaxf(s[m][j][2 * h], s[m][j][2 * h + 1]));
        top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, 1));
        top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, 2));
        top = fmaxf(before.x, top * scale);
        // A row that has seen no key keeps -inf and weighs nothing: -inf - -inf is not computed for it.
        const float base = top == -INFINITY ? 0.0f : top;
        const float factor = exp2_fast(before.x - base);
        float sum = before.y * factor;
#pragma unroll
        for (int j = 0; j < D / 8; ++j) {
            state.o[m][j][2 * h] *= factor;
            state.o[m][j][2 * h + 1] *= factor;
        }
#pragma unroll
        for (int j = 0; j < FLASH_KEYS / 8; ++j) {
            s[m][j][2 * h] = exp2_fast(s[m][j][2 * h] * scale - base);
            s[m][j][2 * h + 1] = exp2_fast(s[m][j][2 * h + 1] * scale - base);
            sum += s[m][j][2 * h] + s[m][j][2 * h + 1];
        }
        shared.weights[i][threadIdx.x] = make_float2(top, sum);
    }
}

// o += weights · values. The weights are rounded to bf16 where they stand: the accumulators of two tiles of 8 keys are
// the operand of one tile of 16.
template <int D>
DEVICE void flash_add_values(FlashState<D>& state, const float (&s)[2][FLASH_KEYS / 8][4], FlashShared<D>& shared) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < FLASH_KEYS / 16; ++k) {
        uint32_t a[2][4];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float(&pair)[4] = s[i / 4][2 * k + i % 4 / 2];
            a[i / 4][i % 4] = i % 2 == 0 ? pack_bf16(pair[0], pair[1]) : pack_bf16(pair[2], pair[3]);
        }
#pragma unroll
        for (int j = 0; j < D / 16; ++j) {
            uint32_t b[4];
            ldmatrix_x4_trans(b, flash_chunk<D>(shared.values, k * 16 + lane % 16, 2 * j + lane / 16));
#pragma unroll
            for (int m = 0; m < 2; ++m) {
                mma_m16n8k16(state.o[m][2 * j], a[m], b[0], b[1]);
                mma_m16n8k16(state.o[m][2 * j + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// Folds `tiles.count` (at least 1) tiles of keys into `state`, clear before; afterwards the sums of weights in `shared`
// are those of the whole row.
// `tiles.first_key(i)` is the position of the first of the 64 keys of tile i; a tile that reaches past the position of
// the block's first row is masked. `scale` is log2(e) / sqrt(D). Queries are under way (`flash_load_queries`).
template <int D, class Tiles>
DEVICE void flash_attend(FlashState<D>& state, FlashShared<D>& shared, const FlashRows& rows, const FlashKv& kv,
                         const Tiles& tiles, float scale) {
    const int thread = threadIdx.x;
    const auto slot_of = [&](int tile) {
        return tile < tiles.count && thread < FLASH_KEYS ? kv.slot(tiles.first_key(tile) + thread) : -1;
    };
    shared.positions[thread] = rows.position(thread);
    if (thread < FLASH_KEYS) shared.slots[0][thread] = slot_of(0);
    __syncthreads();
    flash_gather<D>(shared.keys, kv.keys, shared.slots[0]);
    for (int tile = 0; tile < tiles.count; ++tile) {
        float s[2][FLASH_KEYS / 8][4];
        const bool more = tile + 1 < tiles.count;
        cp_async_wait<0>();
        // Keys are here, and nobody reads the values of the last tile any more.
        __syncthreads();
        flash_gather<D>(shared.values, kv.values, shared.slots[tile % 2]);
        // The next tile's slots arrive behind the product.
        const int next_slot = slot_of(tile + 1);
        flash_scores<D>(s, shared);
        if (thread < FLASH_KEYS) shared.slots[(tile + 1) % 2][thread] = next_slot;
        cp_async_wait<0>();
        // Values and the next slots are here, and nobody reads the keys any more.
        __syncthreads();
        if (more) flash_gather<D>(shared.keys, kv.keys, shared.slots[(tile + 1) % 2]);
        const int first_key = tiles.first_key(tile);
        if (first_key + FLASH_KEYS - 1 > shared.positions[0]) flash_mask(s, shared.positions, first_key);
        flash_weigh<D>(state, s, shared, scale);
        flash_add_values<D>(state, s, shared);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        float& sum = shared.weights[i][thread].y;
        sum += __shfl_xor_sync(FULL_WARP, sum, 1);
        sum += __shfl_xor_sync(FULL_WARP, sum, 2);
    }
}

// Writes the rows' outputs to `out` (n_tokens, n_heads, D), by way of the queries' memory: a warp overwrites the rows
// that it alone has read, and stores whole chunks.
template <int D>
DEVICE void flash_store(const FlashState<D>& state, FlashShared<D>& shared, const FlashRows& rows,
                        bf16* __restrict__ out) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int m = i / 2, h = i % 2;
        const float share = 1.0f / shared.weights[i][threadIdx.x].y;
#pragma unroll
        for (int j = 0; j < D / 8; ++j) {
            bf16* at = flash_chunk<D>(shared.q, flash_row(m, h), j) + lane % 4 * 2;
            *reinterpret_cast<uint32_t*>(at) =
                pack_bf16(state.o[m][j][2 * h] * share, state.o[m][j][2 * h + 1] * share);
        }
    }
    __syncwarp();
#pragma unroll 2
    for (int i = lane; i < 32 * D / 8; i += 32) {
        const int row = warp * 32 + i / (D / 8), chunk = i % (D / 8);
        if (rows.holds(row)) {
            *reinterpret_cast<uint4*>(out + size_t(rows.index(row)) * D + chunk * 8) =
                *reinterpret_cast<const uint4*>(flash_chunk<D>(shared.q, row, chunk));
        }
    }
}
