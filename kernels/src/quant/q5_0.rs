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
        let [d0, d1, fifths @ ..] = block else { return };
        let d = scales(lanes, d0, d1);
        let Some((fifths, quants)) = fifths.split_at_checked(4) else { return };
        for (eighth, fifths) in fifths.iter().enumerate() {
            let quants = &quants[eighth % 2 * 8..][..8];
            if eighth < 2 {
                eight::<L, S, 0>(lanes, d, fifths, quants, sink);
            } else {
                eight::<L, S, 4>(lanes, d, fifths, quants, sink);
            }
        }
    }
}

/// Eight values that share a byte of fifth bits and whose low bits lie `LOW` bits up in their bytes.
#[inline(always)]
fn eight<L: Lanes, S: Sink<L>, const LOW: u32>(
    lanes: L,
    d: L::V,
    fifths: &[u8; NR],
    quants: &[[u8; NR]],
    sink: &mut S,
) {
    let mut fifths = lanes.load_b(fifths);
    for byte in quants {
        let low = lanes.and(lanes.shr(lanes.load_b(byte), LOW), lanes.splat_b(0x0f));
        let fifth = lanes.and(lanes.shl(fifths, 4), lanes.splat_b(0x10));
        // The next value's bit comes to the bottom.
        fifths = lanes.shr(fifths, 1);
        let q = lanes.sub_b(lanes.or(low, fifth), lanes.splat_b(16));
        sink.column(lanes, lanes.mul(lanes.i8_to_f32(q), d));
    }
}
