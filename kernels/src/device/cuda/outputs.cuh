// Where the sums of a matrix product go. All tensor-core instructions hold them alike: a lane has, of a token, pairs of
// neighbouring outputs eight apart, and the same of the token eight further down.
#pragma once
#include "prelude.cuh"

// y (n, rows) f32, its rows `ldy` apart; stored or, if `add`, added to.
struct Outputs {
    float* y;
    int n, rows, ldy, add;

    // Sums of tokens `token` (sums[j][0], sums[j][1]) and `token + 8` (sums[j][2], sums[j][3]), for rows `row + 8 j` and
    // the next; `row` is even. What does not exist is not touched.
    template <int PAIRS>
    DEVICE void put(int token, int row, const float (&sums)[PAIRS][4]) const {
        const bool aligned = ldy % 2 == 0 && reinterpret_cast<size_t>(y) % 8 == 0;
        if (aligned && token + 8 < n && row + 8 * PAIRS - 7 < rows) {
            put_whole<0>(token, row, sums);
            put_whole<2>(token + 8, row, sums);
        } else {
            put_part<0>(token, row, sums);
            put_part<2>(token + 8, row, sums);
        }
    }

  private:
    // Everything exists, and pairs lie on multiples of 8 bytes.
    template <int FIRST, int PAIRS>
    DEVICE void put_whole(int token, int row, const float (&sums)[PAIRS][4]) const {
        float2* to = reinterpret_cast<float2*>(y + size_t(token) * ldy + row);
        constexpr int AT_ONCE = PAIRS < 8 ? PAIRS : 8;
#pragma unroll
        for (int first = 0; first < PAIRS; first += AT_ONCE) {
            // What was there is on its way for eight pairs before the first is needed.
            float2 out[AT_ONCE] = {};
            if (add) {
#pragma unroll
                for (int j = 0; j < AT_ONCE; j++) out[j] = to[4 * (first + j)];
            }
#pragma unroll
            for (int j = 0; j < AT_ONCE; j++) {
                out[j].x += sums[first + j][FIRST], out[j].y += sums[first + j][FIRST + 1];
                to[4 * (first + j)] = out[j];
            }
        }
    }

    template <int FIRST, int PAIRS>
    DEVICE void put_part(int token, int row, const float (&sums)[PAIRS][4]) const {
        if (token >= n) return;
        float* to = y + size_t(token) * ldy + row;
#pragma unroll
        for (int j = 0; j < PAIRS; j++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                if (row + 8 * j + i < rows) to[8 * j + i] = (add ? to[8 * j + i] : 0.0f) + sums[j][FIRST + i];
            }
        }
    }
};
