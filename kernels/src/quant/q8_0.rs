//! Q8_0: 32 values as `d · q`. Block of 34 bytes: `d` f16, then `q` 32 x i8 (ggml `block_q8_0`).

use super::half;
use super::interleaved::{Format, Sink, scales};
use crate::tile::NR;
use crate::tile::lanes::Lanes;

/// Decodes one block.
pub(super) fn dequantize(block: &[u8], out: &mut [f32]) {
    let d = half(block);
    for (value, q) in out.iter_mut().zip(&block[2..]) {
        *value = f32::from(q.cast_signed()) * d;
    }
}

/// The format, interleaved.
pub(crate) struct Q8_0;

impl Format for Q8_0 {
    type Unit = u8;
    const COLS: usize = 32;
    const UNITS: usize = 34;

    #[inline(always)]
    fn decode<L: Lanes, S: Sink<L>>(lanes: L, block: &[[u8; NR]], sink: &mut S) {
        let [d0, d1, quants @ ..] = block else { return };
        let d = scales(lanes, d0, d1);
        for q in quants {
            sink.column(lanes, lanes.mul(lanes.i8_to_f32(lanes.load_b(q)), d));
        }
    }
}
