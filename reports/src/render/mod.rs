//! Layout of a finished report, one format per file. Renderers are pure functions of the report: they format numbers and
//! compute none.

pub mod cost_table;
pub mod csv;
mod fidelity_json;
pub mod fidelity_table;
pub mod html;
pub mod json;
pub mod markdown;
pub mod plot;
pub mod table;
pub mod terminal;
