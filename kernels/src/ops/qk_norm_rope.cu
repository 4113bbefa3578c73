// qk_norm_rope: u[i] = x[i] · w[i] / sqrt(mean_i x[i]² + eps) for each q and k head, then
//           y[i] = u[i]·cos − u[i+h]·sin; y[i+h] = u[i+h]·cos + u[i]·sin, h = head_dim / 2, or y = u
// Shapes:   qkv (n, row_len) f32: q heads, k heads, v; q_weight, k_weight (head_dim) f32; angles (n_positions, head_dim)
//           f32, a position's cosines then its sines, or null; q (n, n_heads, head_dim) bf16; k (n, n_kv_heads, head_dim)
//           f32; row t stands at position *start + t
// Launch:   grid (n, ceil((n_heads + n_kv_heads) / 4)), block 128, a warp a head; launcher in qk_norm_rope.rs
// Order:    f32 sums of a head's squares: each lane its pairs in order, then the fixed tree of reduce.cuh
// Cost:     reads 4·n·(q_dim + kv_dim) B and the angles, writes 2·n·q_dim + 4·n·kv_dim B: memory bound
// Roofline: not measured on hardware yet
// Source:   Zhang and Sennrich 2019, equation 4; Su et al. 2021, equation 34
#include "reduce.cuh"

constexpr int THREADS = 128, WARPS = THREADS / 32;

struct Heads {
    int n_heads, n_kv_heads, head_dim, row_len, n_positions;
    float eps;
};

// The pairs of a head are spread over a warp: where they are `32 · PAIRS`, each lane holds neighbouring ones, which it
// moves in one access; else lane `l` holds pairs l, l + 32, ... below h.
template <int PAIRS, bool NEIGHBOURS>
struct Pairs {
    float values[PAIRS];

    static DEVICE int index(int p) {
        const int lane = threadIdx.x % 32;
        return NEIGHBOURS ? lane * PAIRS + p : lane + 32 * p;
    }
    DEVICE void load(const float* __restrict__ half, int h) {
        if constexpr (NEIGHBOURS && PAIRS == 2) {
            const float2 both = *reinterpret_cast<const float2*>(half + index(0));
            values[0] = both.x, values[1] = both.y;
        } else {
#pragma unroll
            for (int p = 0; p < PAIRS; p++) values[p] = index(p) < h ? half[index(p)] : 0.0f;
        }
    }
    DEVICE void store(float* __restrict__ half, int h) const {
        if constexpr (NEIGHBOURS && PAIRS == 2) {
            *reinterpret_cast<float2*>(half + index(0)) = make_float2(values[0], values[1]);
        } else {
#pragma unroll
            for (int p = 0; p < PAIRS; p++) {
                if (index(p) < h) half[index(p)] = values[p];
            }
        }
    }
    DEVICE void store(bf16* __restrict__ half, int h) const {
        if constexpr (NEIGHBOURS && PAIRS == 2) {
            *reinterpret_cast<uint32_t*>(half + index(0)) = pack_bf16(values[0], values[1]);
        } else {
#pragma unroll
            for (int p = 0; p < PAIRS; p++) {
                if (index(p) < h) half[index(p)] = to_bf16(values[p]);
            }
        }
    }
};

template <int PAIRS, bool NEIGHBOURS>
DEVICE void body(const float* __restrict__ qkv, const float* __restrict__ q_weight, const float* __restrict__ k_weight,
                 const float* __restrict__ angles, const int* __restrict__ start, bf16* __restrict__ q,
                 float* __restrict__ k, Heads shape) {
    const int t = blockIdx.x, head = blockIdx.y * WARPS + threadIdx.x / 32;
    // Whole warps leave: the rest of the body meets its own lanes alone.
    if (head >= shape.n_heads + shape.n_kv_heads) return;
    const int head_dim = shape.head_dim, h = head_dim / 2;
    const bool is_query = head < shape.n_heads;
    const float *x = qkv + size_t(t) * shape.row_len + size_t(head) * head_dim, *w = is_query ? q_weight : k_weight;

    Pairs<PAIRS, NEIGHBOURS> low, high, w_low, w_high;
    low.load(x, h), high.load(x + h, h), w_low.load(w, h), w_high.load(w + h, h);
    float sum = 0.0f;
#pragma unroll
    for (int p = 0; p < PAIRS; p++) sum += low.values[p] * low.values[p] + high.values[p] * high.values[p];
    const float scale = 1.0f / sqrtf(warp_sum(sum) / head_dim + shape.eps);
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
        low.values[p] *= scale * w_low.values[p], high.values[p] *= scale * w_high.values[p];
    }
    if (angles != nullptr) {
        const uint32_t position = uint32_t(*start + t);
        // A position beyond the table must not read what lies behind it, nor go unseen.
        const bool exists = position < uint32_t(shape.n_positions);
        const float* table = angles + size_t(exists ? position : 0) * head_dim;
        Pairs<PAIRS, NEIGHBOURS> cosines, sines;
        cosines.load(table, h), sines.load(table + h, h);
#pragma unroll
        for (int p = 0; p < PAIRS; p++) {
            const float a = low.values[p], b = exists ? high.values[p] : NAN;
            low.values[p] = a * cosines.values[p] - b * sines.values[p];
            high.values[p] = b * cosines.values[p] + a * sines.values[p];
        }
    }
    if (is_query) {
        bf16* to = q + (size_t(t) * shape.n_heads + head) * head_dim;
        low.store(to, h), high.store(to + h, h);
    } else {
        float* to = k + (size_t(t) * shape.n_kv_heads + (head - shape.n_heads)) * head_dim;
        low.store(to, h), high.store(to + h, h);
    }
}

#define ARGUMENTS                                                                                                   \
    const float *qkv, const float *q_weight, const float *k_weight, const float *angles, const int *start, bf16 *q, \
        float *k, int n_heads, int n_kv_heads, int head_dim, int row_len, int n_positions, float eps
#define SHAPE \
    Heads { n_heads, n_kv_heads, head_dim, row_len, n_positions, eps }
KERNEL(THREADS) qk_norm_rope_64(ARGUMENTS) { body<1, true>(qkv, q_weight, k_weight, angles, start, q, k, SHAPE); }
KERNEL(THREADS) qk_norm_rope_128(ARGUMENTS) { body<2, true>(qkv, q_weight, k_weight, angles, start, q, k, SHAPE); }
KERNEL(THREADS) qk_norm_rope_any(ARGUMENTS) { body<4, false>(qkv, q_weight, k_weight, angles, start, q, k, SHAPE); }
