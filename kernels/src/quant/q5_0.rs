//! Q5_0: 32 values as `d · (q - 16)` with `q` of 5 bits. Block of 22 bytes: `d` f16; the fifth bits, one u32, bit
//! `i` for value `i`; 16 bytes whose low halves are values 0..16 and whose high halves values 16..32 (ggml
//! `block_q5_0`).

use super::half;
use super::interleaved::{Format, Sink, scales};
use crate::tile::NR;
use crate::tile::lanes::Lanes;

/// Decodes one block.
pub(super) fn dequantize(block: &[u8], out: &mut [f32]) {
    let d = half(block);
    let fifths = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for (i, value) in out.iter_mut().enumerate() {
        let byte = block[6 + i % 16];
        let low = if i < 16 { byte & 0x0f } else { byte >> 4 };
        let fifth = (fifths >> i & 1) as u8;
        *value = d * f32::from((low | fifth << 4).cast_signed() - 16);
    }
}

/// The format, interleaved.
pub(crate) struct Q5_0;

impl Format for Q5_0 {
    type Unit = u8;
    const COLS: usize = 32;
    const UNITS: usize = 22;

    #[inline(always)]
    fn decode<L: Lanes, S: Sink<L>>(lanes: L, block: &[[u8; NR]], sink: &mut S) {
        let [d0, d1, fifths @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = block else { return };
        let d = scales(lanes, d0, d1);
        for i in 0..32 {
            let byte = lanes.load_u8(&block[6 + i % 16]);
            let low = if i < 16 { lanes.and(byte, lanes.splat_i(0x0f)) } else { lanes.shr(byte, 4) };
            let fifth = lanes.and(lanes.shr(lanes.load_u8(&fifths[i / 8]), (i % 8) as u32), lanes.splat_i(1));
            let q = lanes.sub_i(lanes.or(low, lanes.shl(fifth, 4)), lanes.splat_i(16));
            sink.column(lanes, lanes.mul(lanes.to_f32(q), d));
        }
    }
}
