//! Q6_K: 256 values in 16 sub-blocks of 16, `d · s_b · (q - 32)` with `q` of 6 bits and `s_b` i8. Block of 210 bytes:
//! 128 bytes of low halves, 64 bytes of upper bit pairs, 16 scales, `d` f16. In each half of 128 values, value
//! `32 t + l` (`t < 4`, `l < 32`) has its low bits in byte `32 (t % 2) + l` (low half of the byte for `t < 2`, else
//! high) and its upper bits in bits `2t` of byte `l` (ggml `block_q6_K`).

use super::half;
use super::interleaved::{Format, Sink, scales};
use crate::tile::NR;
use crate::tile::lanes::Lanes;

/// Where the parts of a block begin.
const UPPERS: usize = 128;
const SCALES: usize = 192;
const D: usize = 208;

/// Decodes one block.
pub(super) fn dequantize(block: &[u8], out: &mut [f32]) {
    let d = half(&block[D..]);
    for (i, value) in out.iter_mut().enumerate() {
        let (half, t, l) = (i / 128, i / 32 % 4, i % 32);
        let low = block[64 * half + 32 * (t % 2) + l] >> (4 * (t / 2)) & 0x0f;
        let upper = block[UPPERS + 32 * half + l] >> (2 * t) & 0x03;
        let scale = block[SCALES + i / 16].cast_signed();
        *value = d * f32::from(scale) * f32::from((low | upper << 4).cast_signed() - 32);
    }
}

/// The format, interleaved.
pub(crate) struct Q6K;

impl Format for Q6K {
    type Unit = u8;
    const COLS: usize = 256;
    const UNITS: usize = 210;

    #[inline(always)]
    fn decode<L: Lanes, S: Sink<L>>(lanes: L, block: &[[u8; NR]], sink: &mut S) {
        let Some([d0, d1]) = block.get(D..D + 2) else { return };
        let d = scales(lanes, d0, d1);
        for half in 0..2 {
            quarter::<L, S, 0, 0>(lanes, d, block, half, sink);
            quarter::<L, S, 0, 2>(lanes, d, block, half, sink);
            quarter::<L, S, 4, 4>(lanes, d, block, half, sink);
            quarter::<L, S, 4, 6>(lanes, d, block, half, sink);
        }
    }
}

/// The 32 values of a half whose low bits lie `LOW` bits up in their bytes and whose upper bits `UPPER` up.
#[inline(always)]
fn quarter<L: Lanes, S: Sink<L>, const LOW: u32, const UPPER: u32>(
    lanes: L,
    d: L::V,
    block: &[[u8; NR]],
    half: usize,
    sink: &mut S,
) {
    let t = UPPER as usize / 2;
    for first in [0, 16] {
        let scale =
            lanes.mul(d, lanes.i8_to_f32(lanes.load_b(&block[SCALES + 8 * half + 2 * t + first / 16])));
        let (low, upper) = (64 * half + 32 * (t % 2) + first, UPPERS + 32 * half + first);
        let (Some(lows), Some(uppers)) = (block.get(low..low + 16), block.get(upper..upper + 16)) else {
            return;
        };
        for (low, upper) in lows.iter().zip(uppers) {
            let low = lanes.and(lanes.shr(lanes.load_b(low), LOW), lanes.splat_b(0x0f));
            let upper = lanes.and(lanes.shr(lanes.load_b(upper), UPPER), lanes.splat_b(0x03));
            let q = lanes.sub_b(lanes.or(low, lanes.shl(upper, 4)), lanes.splat_b(32));
            sink.column(lanes, lanes.mul(lanes.i8_to_f32(q), scale));
        }
    }
}
