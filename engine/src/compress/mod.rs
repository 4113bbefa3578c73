//! Which messages are compressed, and to what: score, select, freeze. `compressor` decides per message, `scorer` runs a
//! batch through the drafter.

pub mod compressor;
pub mod freeze;
pub mod query;
pub mod score;
pub mod scorer;
pub mod select;
