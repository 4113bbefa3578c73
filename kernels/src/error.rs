//! What can go wrong at the door of an op: a shape, a byte count, a token id. Nothing else can.

/// An input the kernels refuse. Every variant names the subject, what was expected and what came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// A slice does not have the length its shape asks for.
    #[error(
        "{subject}: expected {expected} elements, got {got}; check the shapes the caller derived from the model"
    )]
    Length {
        /// Which argument of which op.
        subject: &'static str,
        /// Elements the shape asks for.
        expected: usize,
        /// Elements that came.
        got: usize,
    },
}
