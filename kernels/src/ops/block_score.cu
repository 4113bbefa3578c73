// block_score: d[r, n] = (q[r] · mean(k in n)) · log2(e) / sqrt(D);  m[n] = max_r d[r, n];  P[n] = sum_r 2^(d[r, n] - m[n])
//              score[n] = P[n] · 2^(m[n] - max m) / sum of the same over n, or P[n] alone
// Shapes:   q (n, n_heads, D) bf16; keys (n_kv_heads, n_slots, D) bf16; slots (kv_len) i32; means (n_kv_heads,
//           n_key_blocks, D) bf16; scores (n_heads, n_query_blocks, n_key_blocks) f32, 0 past the own block; D 64, 128
// Launch:   means: grid (n_key_blocks, n_kv_heads), block 128; scores: grid (n_query_blocks, n_heads), block 256,
//           two tiles of means and 8 B for each key block in shared memory; launcher in block_score.rs
// Order:    a mean sums every 1024/D-th key, then these sums in order; a column sums its rows lane by lane in a
//           butterfly of 16 rows, then the eight of them in order; no atomics
// Cost:     2·D flop for each row and key block it sees, keys read once: 1/128 of dense attention's products
// Roofline: not measured on hardware yet
// Source:   FlashPrefill as in Lucebox's drafter (mean keys in bf16); the normalised form is its reference's
#include "mma.cuh"
#include "reduce.cuh"

// Keys of a block and rows of a query block; means of a tile.
constexpr int BLOCK_KEYS = 128, MEAN_TILE = 64;
constexpr int MEAN_THREADS = 128, SCORE_THREADS = 256, SCORE_WARPS = SCORE_THREADS / 32;

template <int D>
DEVICE void block_means(const bf16* __restrict__ keys, const int* __restrict__ slots, bf16* __restrict__ means,
                        int kv_len, int n_slots) {
    constexpr int CHUNKS = D / 8, STREAMS = MEAN_THREADS / CHUNKS;
    DYNAMIC_SHARED(float, partial);
    const int thread = threadIdx.x, chunk = thread % CHUNKS, stream = thread / CHUNKS;
    const int first = blockIdx.x * BLOCK_KEYS, end = min(first + BLOCK_KEYS, kv_len);
    keys += size_t(blockIdx.y) * n_slots * D;

    float sum[8] = {};
    for (int j = first + stream; j < end; j += STREAMS) {
        const int slot = __ldg(slots + j);
        // What is no slot counts as zeros, as attention reads it.
        if (unsigned(slot) >= unsigned(n_slots)) continue;
        const uint4 key = __ldg(reinterpret_cast<const uint4*>(keys + size_t(slot) * D + chunk * 8));
        const uint32_t words[4] = {key.x, key.y, key.z, key.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            sum[2 * i] += low_bf16(words[i]);
            sum[2 * i + 1] += high_bf16(words[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) partial[stream * D + chunk * 8 + i] = sum[i];
    __syncthreads();
    if (thread < D) {
        float total = 0.0f;
#pragma unroll
        for (int i = 0; i < STREAMS; ++i) total += partial[i * D + thread];
        const size_t block = size_t(blockIdx.y) * gridDim.x + blockIdx.x;
        means[block * D + thread] = to_bf16(total * (1.0f / float(end - first)));
    }
}

// Dynamic shared memory before the maxima and sums of the key blocks.
template <int D>
struct ScoreShared {
    // Two tiles of means; before the first, the queries of the block.
    bf16 tiles[2][MEAN_TILE * D];
    // For each warp and column of a tile the largest logit of the warp's rows, and the sum relative to it.
    float2 partial[SCORE_WARPS][MEAN_TILE];
};

// Eight values of a row of a tile: the chunks of eight rows that follow each other are permuted, so that ldmatrix meets
// no bank twice.
template <int D>
DEVICE bf16* score_chunk(bf16* tile, int row, int chunk) {
    return tile + row * D + ((chunk ^ (row & 7)) << 3);
}

// Starts the copy of `n_rows` rows, `stride` values apart, zeros from row `n_valid` on.
template <int D>
DEVICE void score_load(bf16* tile, const bf16* __restrict__ rows, size_t stride, int n_rows, int n_valid) {
    for (int i = threadIdx.x; i < n_rows * (D / 8); i += SCORE_THREADS) {
        const int row = i / (D / 8), chunk = i % (D / 8);
        const bool valid = row < n_valid;
        cp_async_16(score_chunk<D>(tile, row, chunk), rows + (valid ? row : 0) * stride + chunk * 8, valid);
    }
    cp_async_commit();
}

// The largest logit of the warp's 16 rows and the sum of their weights relative to it, for each column of the tile.
// `valid` says which of the thread's two rows exist.
DEVICE void score_columns(const float (&c)[MEAN_TILE / 8][4], const bool (&valid)[2], float scale, float2* partial) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < MEAN_TILE / 4; ++i) {
        const int j = i / 2, side = i % 2;
        const float low = valid[0] ? c[j][side] * scale : -INFINITY;
        const float high = valid[1] ? c[j][2 + side] * scale : -INFINITY;
        float max = fmaxf(low, high);
#pragma unroll
        for (int distance = 4; distance < 32; distance *= 2) {
            max = fmaxf(max, __shfl_xor_sync(FULL_WARP, max, distance));
        }
        // Where no row exists nothing is summed: -inf - -inf is not computed.
        float sum = (valid[0] ? exp2_fast(low - max) : 0.0f) + (valid[1] ? exp2_fast(high - max) : 0.0f);
#pragma unroll
        for (int distance = 4; distance < 32; distance *= 2) sum += __shfl_xor_sync(FULL_WARP, sum, distance);
        if (lane < 4) partial[j * 8 + lane * 2 + side] = make_float2(max, sum);
    }
}

template <int D>
DEVICE void block_scores(const bf16* __restrict__ q, const bf16* __restrict__ means, float* __restrict__ scores, int n,
                         int start_block, int n_key_blocks, int n_kv_heads, int normalise, float scale) {
    DYNAMIC_SHARED(unsigned char, memory);
    ScoreShared<D>& shared = *reinterpret_cast<ScoreShared<D>*>(memory);
    float* maxima = reinterpret_cast<float*>(memory + sizeof(ScoreShared<D>));
    float* sums = maxima + n_key_blocks;
    // The last query blocks see the most key blocks: they go first.
    const int query_block = gridDim.x - 1 - blockIdx.x, head = blockIdx.y, n_heads = gridDim.y;
    const int first_row = query_block * BLOCK_KEYS, n_rows = min(BLOCK_KEYS, n - first_row);
    const int n_seen = start_block + query_block + 1;
    const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    means += size_t(head / (n_heads / n_kv_heads)) * n_key_blocks * D;
    scores += (size_t(head) * gridDim.x + query_block) * n_key_blocks;

    score_load<D>(shared.tiles[0], q + (size_t(first_row) * n_heads + head) * D, size_t(n_heads) * D, BLOCK_KEYS, n_rows);
    cp_async_wait<0>();
    __syncthreads();
    uint32_t a[D / 16][4];
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
        ldmatrix_x4(a[k], score_chunk<D>(shared.tiles[0], warp * 16 + lane % 16, 2 * k + lane / 16));
    }
    // The queries are in registers: their memory is free for the means.
    __syncthreads();
    const bool valid[2] = {warp * 16 + lane / 4 < n_rows, warp * 16 + lane / 4 + 8 < n_rows};
    const int n_tiles = (n_seen + MEAN_TILE - 1) / MEAN_TILE;
    const auto load = [&](int tile) {
        const int first = tile * MEAN_TILE;
        score_load<D>(shared.tiles[tile % 2], means + size_t(first) * D, D, MEAN_TILE, n_seen - first);
    };
    load(0);
    for (int tile = 0; tile < n_tiles; ++tile) {
        if (tile + 1 < n_tiles) {
            load(tile + 1);
            cp_async_wait<1>();
        } else {
            cp_async_wait<0>();
        }
        // The tile is here, and nobody reads the partial sums of the last one any more.
        __syncthreads();
        float c[MEAN_TILE / 8][4] = {};
#pragma unroll
        for (int k = 0; k < D / 16; ++k) {
#pragma unroll
            for (int j = 0; j < MEAN_TILE / 16; ++j) {
                uint32_t b[4];
                const int row = j * 16 + lane / 16 * 8 + lane % 8;
                ldmatrix_x4(b, score_chunk<D>(shared.tiles[tile % 2], row, 2 * k + lane / 8 % 2));
                mma_m16n8k16(c[2 * j], a[k], b[0], b[1]);
                mma_m16n8k16(c[2 * j + 1], a[k], b[2], b[3]);
            }
        }
        score_columns(c, valid, scale, shared.partial[warp]);
        // Every warp's part is there, and nobody reads this tile any more.
        __syncthreads();
        const int block = tile * MEAN_TILE + thread;
        if (thread < MEAN_TILE && block < n_seen) {
            float max = -INFINITY, sum = 0.0f;
            for (int i = 0; i < SCORE_WARPS; ++i) max = fmaxf(max, shared.partial[i][thread].x);
            for (int i = 0; i < SCORE_WARPS; ++i) {
                sum += shared.partial[i][thread].y * exp2_fast(shared.partial[i][thread].x - max);
            }
            maxima[block] = max;
            sums[block] = sum;
        }
    }
    __syncthreads();
    float best = -INFINITY, total = 0.0f;
    for (int i = thread; i < n_seen; i += SCORE_THREADS) best = fmaxf(best, maxima[i]);
    float* partial = reinterpret_cast<float*>(shared.partial);
    best = block_max<SCORE_WARPS>(best, partial);
    for (int i = thread; i < n_seen; i += SCORE_THREADS) total += sums[i] * exp2_fast(maxima[i] - best);
    total = block_sum<SCORE_WARPS>(total, partial + SCORE_WARPS);
    for (int i = thread; i < n_key_blocks; i += SCORE_THREADS) {
        const float compat = i < n_seen ? sums[i] : 0.0f;
        scores[i] = normalise && i < n_seen ? compat * exp2_fast(maxima[i] - best) / total : compat;
    }
}

#define MEANS_PARAMETERS const bf16 *keys, const int *slots, bf16 *means, int kv_len, int n_slots
KERNEL(MEAN_THREADS) block_score_means_d64(MEANS_PARAMETERS) { block_means<64>(keys, slots, means, kv_len, n_slots); }
KERNEL(MEAN_THREADS) block_score_means_d128(MEANS_PARAMETERS) { block_means<128>(keys, slots, means, kv_len, n_slots); }

#define SCORE_PARAMETERS                                                                                             \
    const bf16 *q, const bf16 *means, float *scores, int n, int start_block, int n_key_blocks, int n_kv_heads, \
        int normalise, float scale
#define SCORE_ARGUMENTS q, means, scores, n, start_block, n_key_blocks, n_kv_heads, normalise, scale
KERNEL(SCORE_THREADS) block_score_d64(SCORE_PARAMETERS) { block_scores<64>(SCORE_ARGUMENTS); }
KERNEL(SCORE_THREADS) block_score_d128(SCORE_PARAMETERS) { block_scores<128>(SCORE_ARGUMENTS); }
