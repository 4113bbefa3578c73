//! Reports on hand-made run directories: files in, files out.
#![allow(clippy::unwrap_used)] // Clippy takes test code outside a #[test] function for ordinary code.

mod cost_model;
mod demo;
mod energy;
mod fidelity;
mod golden;
mod gpu_demo;
mod pages;
mod plots;
mod store;
