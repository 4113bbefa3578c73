//! Q4_K: 256 values in 8 sub-blocks of 32, `d · s_b · q - dmin · m_b` with `q` of 4 bits and `s_b`, `m_b` of 6.
//! Block of 144 bytes: `d`, `dmin` f16; 12 bytes of scales and minima; 4 x 32 bytes, byte `l` of group `g` holding
//! value `l` of sub-block `2g` in its low half and of `2g + 1` in its high half (ggml `block_q4_K`,
//! `get_scale_min_k4`).

use super::half;
use super::interleaved::{Format, Sink, scales};
use crate::tile::NR;
use crate::tile::lanes::Lanes;

/// Where the parts of a block begin.
const SCALES: usize = 4;
const QUANTS: usize = 16;

/// Decodes one block.
pub(super) fn dequantize(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half(block), half(&block[2..]));
    let packed = &block[SCALES..QUANTS];
    for (b, values) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = match b {
            0..4 => (packed[b] & 0x3f, packed[b + 4] & 0x3f),
            _ => {
                let shared = packed[b + 4];
                (shared & 0x0f | packed[b - 4] >> 2 & 0x30, shared >> 4 | packed[b] >> 2 & 0x30)
            }
        };
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        for (value, byte) in values.iter_mut().zip(&block[QUANTS + b / 2 * 32..]) {
            let q = if b % 2 == 0 { byte & 0x0f } else { byte >> 4 };
            *value = scale * f32::from(q) - min;
        }
    }
}

/// The format, interleaved.
pub(crate) struct Q4K;

impl Format for Q4K {
    type Unit = u8;
    const COLS: usize = 256;
    const UNITS: usize = 144;

    #[inline(always)]
    fn decode<L: Lanes, S: Sink<L>>(lanes: L, block: &[[u8; NR]], sink: &mut S) {
        let [d0, d1, m0, m1, ..] = block else { return };
        let (d, dmin) = (scales(lanes, d0, d1), scales(lanes, m0, m1));
        for group in 0..4 {
            sub_block::<L, S, 0>(lanes, (d, dmin), block, 2 * group, sink);
            sub_block::<L, S, 4>(lanes, (d, dmin), block, 2 * group + 1, sink);
        }
    }
}

/// Sub-block `b`, whose quants lie `SHIFT` bits up in their bytes.
#[inline(always)]
fn sub_block<L: Lanes, S: Sink<L>, const SHIFT: u32>(
    lanes: L,
    (d, dmin): (L::V, L::V),
    block: &[[u8; NR]],
    b: usize,
    sink: &mut S,
) {
    let first = QUANTS + 32 * (b / 2);
    let Some(quants) = block.get(first..first + 32) else { return };
    let (scale, min) = scale_and_min(lanes, block, b);
    let scale = lanes.mul(d, lanes.u8_to_f32(scale));
    // Subtracting the minimum is adding its negation; made once, it turns each column into one FMA.
    let negated = lanes.mul(lanes.mul(dmin, lanes.u8_to_f32(min)), lanes.splat(-1.0));
    for byte in quants {
        let q = lanes.and(lanes.shr(lanes.load_b(byte), SHIFT), lanes.splat_b(0x0f));
        sink.column(lanes, lanes.fma(scale, lanes.u8_to_f32(q), negated));
    }
}

/// The 6-bit scale and minimum of sub-block `b`.
#[inline(always)]
fn scale_and_min<L: Lanes>(lanes: L, block: &[[u8; NR]], b: usize) -> (L::B, L::B) {
    let byte = |i: usize| lanes.load_b(&block[SCALES + i]);
    let six = lanes.splat_b(0x3f);
    if b < 4 {
        return (lanes.and(byte(b), six), lanes.and(byte(b + 4), six));
    }
    let (shared, top) = (byte(b + 4), lanes.splat_b(0x30));
    let scale = lanes.or(lanes.and(shared, lanes.splat_b(0x0f)), lanes.and(lanes.shr(byte(b - 4), 2), top));
    let min = lanes.or(lanes.shr(shared, 4), lanes.and(lanes.shr(byte(b), 2), top));
    (scale, min)
}
