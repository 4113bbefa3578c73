// Where the sums of a matrix product go: fragments of two neighbouring outputs of a token, as all tensor-core
// instructions hold them.
#pragma once
#include "prelude.cuh"

// y (n, rows) f32, its rows `ldy` apart; stored or, if `add`, added to.
struct Outputs {
    float* y;
    int n, rows, ldy, add;

    // Whether pairs that begin in even columns lie on multiples of 8 bytes.
    DEVICE bool aligned() const { return ldy % 2 == 0 && reinterpret_cast<size_t>(y) % 8 == 0; }

    // Outputs `row` (even) and the next of a token, as far as they exist.
    DEVICE void pair(int token, int row, float first, float second, bool aligned) const {
        if (token >= n || row >= rows) return;
        float* to = y + size_t(token) * ldy + row;
        if (aligned && row + 1 < rows) {
            float2 sums = make_float2(first, second);
            if (add) {
                const float2 before = *reinterpret_cast<const float2*>(to);
                sums.x += before.x, sums.y += before.y;
            }
            *reinterpret_cast<float2*>(to) = sums;
        } else {
            to[0] = add ? to[0] + first : first;
            if (row + 1 < rows) to[1] = add ? to[1] + second : second;
        }
    }
};
