//! Which messages are compressed, and to what: score, select, freeze. `compressor` decides per message, `scorer` runs a
//! batch through the drafter.

// Score.
pub mod control;
pub mod query;
pub mod score;

// Select.
pub mod floor;
pub mod line_selection;
pub mod lines;
pub mod select;

// Freeze.
pub mod elision;
pub mod freeze;
pub mod frozen;

// What brings them together.
pub mod age;
pub mod compressor;
pub mod evict;
pub mod scorer;
