//! Bookkeeping of the KV cache: which slots are in use, and which prompt prefixes they hold. Pure integers and token
//! ids; the keys and values themselves live in `kernels`, and nothing here knows a model or a device.

pub use kernels::kv::Slot;

pub mod cache;
pub mod eviction;
pub mod pool;
pub mod prefix;
