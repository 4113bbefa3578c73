//! The one error of this crate. Every variant names its subject (file, tensor, key, token), what was expected
//! and what was found, and says what to do next. It knows no exit code and prints nothing.

use std::path::PathBuf;

/// What went wrong in the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The operating system refused a file.
    #[error("{}: cannot {op}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb ("open", "read", "map").
        op: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },

    /// The text given as a model names none.
    #[error("{given:?} names no model: {reason}")]
    UnknownModel {
        /// The text as given.
        given: String,
        /// Why it names no model, and what would.
        reason: String,
    },

    /// A file ends before something it announces.
    #[error(
        "{}: cut short: {what} ends at byte {needed}, the file has {len}; copy or download it again",
        path.display()
    )]
    CutShort {
        /// The file.
        path: PathBuf,
        /// The part that does not fit.
        what: String,
        /// First byte after that part.
        needed: u64,
        /// Size of the file in bytes.
        len: u64,
    },

    /// A field of a model file has a value that cannot be right, or that this engine cannot run.
    #[error("{}: {field} is {got}, expected {expected}", path.display())]
    BadField {
        /// The file.
        path: PathBuf,
        /// The field: a header field, metadata key or JSON pointer.
        field: String,
        /// The value found.
        got: String,
        /// What is accepted, and what to do about it.
        expected: String,
    },

    /// A metadata key or a file of a model folder is missing.
    #[error("{}: {field} is missing; {advice}", path.display())]
    MissingField {
        /// The file or folder.
        path: PathBuf,
        /// The key or the file name.
        field: String,
        /// What to do next.
        advice: &'static str,
    },

    /// A tensor that the architecture needs is not in the file.
    #[error("{}: tensor {tensor} {expected} is missing; convert the model again", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// Its expected shape, rows first.
        expected: String,
    },

    /// The file holds a tensor that the forward pass would ignore, so its results would be wrong.
    #[error(
        "{}: tensor {tensor} is not part of a Qwen3 dense model of these sizes; \
         this file needs an engine that knows its architecture",
        path.display()
    )]
    UnexpectedTensor {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
    },

    /// Two tensors of one file, or of two shards, share a name.
    #[error("{}: tensor {tensor} is there twice; convert the model again", path.display())]
    DuplicateTensor {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
    },

    /// A tensor's shape is not the one that the metadata asks for.
    #[error("{}: tensor {tensor} has shape {got}, expected {expected} from the metadata", path.display())]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// Shape in the file, rows first.
        got: String,
        /// Shape expected, rows first.
        expected: String,
    },

    /// A tensor's element type is not supported.
    #[error(
        "{}: tensor {tensor} has type {got}, supported are {expected}; quantise the model to one of these",
        path.display()
    )]
    TensorType {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// Type in the file.
        got: String,
        /// The supported types.
        expected: &'static str,
    },

    /// A tensor's bytes do not lie in the file, or not where its type allows.
    #[error("{}: tensor {tensor} at bytes {start}..{end} of the data: {reason}", path.display())]
    TensorBounds {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// First byte, counted from the start of the data section.
        start: u64,
        /// First byte after it.
        end: u64,
        /// What is wrong with that range.
        reason: String,
    },

    /// A model's tokenizer is missing, damaged or of a kind that this engine does not know.
    #[error("{origin}: tokenizer: {problem}")]
    Tokenizer {
        /// Where the tokenizer comes from.
        origin: String,
        /// What is wrong, and what would be right.
        problem: String,
    },

    /// A token id or token text that the vocabulary does not have.
    #[error("token {token} is not in the vocabulary of {vocab_len} entries; use the tokenizer of this model")]
    UnknownToken {
        /// The id or the text.
        token: String,
        /// Size of the vocabulary.
        vocab_len: usize,
    },

    /// A chat template does not compile, raised an error, or could not be rendered.
    #[error("{origin}: chat template: {problem}")]
    Template {
        /// Where the template comes from.
        origin: String,
        /// The template engine's words, with the line.
        problem: String,
    },

    /// The weights do not fit into the memory that is free.
    #[error(
        "{model}: the weights need {needed} bytes, this machine has {available} free; \
         use a smaller or more strongly quantised model"
    )]
    OutOfMemory {
        /// Name of the model.
        model: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes available.
        available: u64,
    },

    /// A kernel refused its input.
    #[error("{subject}: {source}")]
    Kernel {
        /// The tensor or operation.
        subject: String,
        /// The kernel's words.
        source: kernels::error::KernelError,
    },

    /// The device cannot be used, or failed.
    #[error("{source}")]
    Device {
        /// The device's words.
        source: kernels::error::KernelError,
    },

    /// The prompt and the tokens to generate are longer than the model's context.
    #[error(
        "this model's maximum context length is {context_length} tokens, but the prompt has {prompt_tokens} and \
         {new_tokens} more were asked for; replay fewer calls or take a model with a longer context"
    )]
    ContextLength {
        /// Longest sequence the model was made for.
        context_length: u64,
        /// Tokens of the prompt.
        prompt_tokens: u64,
        /// Tokens asked for.
        new_tokens: u64,
    },

    /// The KV budget does not hold one prompt.
    #[error(
        "{n_tokens} tokens need {needed} bytes of KV cache and the budget is {budget}; \
         raise the KV budget or replay fewer calls"
    )]
    KvBudget {
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        budget: u64,
        /// Tokens that have to fit at once.
        n_tokens: u64,
    },

    /// A request that asks for nothing, or holds nothing.
    #[error("the request cannot run: {reason}")]
    EmptyRequest {
        /// What is missing.
        reason: &'static str,
    },

    /// An arm compresses, but the engine was opened without a drafter.
    #[error("this arm compresses and there is no drafter to score with; name one")]
    NoDrafter,

    /// A request came before an arm was started.
    #[error("no arm was started; start one before the first request")]
    NotStarted,

    /// A model was asked to run while its weights were parked.
    #[error("{0}: the weights are parked; this is a defect of the engine")]
    Parked(String),

    /// Slots, references or prefixes do not add up: a defect of the engine, found before it could hand one
    /// token's KV to another.
    #[error(
        "{subject}: {detail}; this is a defect of the engine: rerun with the prefix cache off and report this line"
    )]
    KvBookkeeping {
        /// The books that are wrong.
        subject: &'static str,
        /// What was expected and found.
        detail: String,
    },

    /// A file given as the memo of frozen messages is not one, or one of another format.
    #[error("{}: {got}, expected {expected}; move the file away or name another one", path.display())]
    MemoFormat {
        /// The file.
        path: PathBuf,
        /// What its header says.
        got: String,
        /// What this engine reads.
        expected: String,
    },

    /// Another process has the memo open.
    #[error("{}: in use by another process; wait for it or name another file", path.display())]
    MemoInUse {
        /// The file.
        path: PathBuf,
    },

    /// Kept byte ranges do not lie in the text they were frozen for, or are not a frozen form at all.
    #[error("frozen message: {detail}; its memo entry belongs to another text: name another memo file")]
    FrozenMismatch {
        /// The range and the text's length.
        detail: String,
    },

    /// A sampling parameter that describes no distribution.
    #[error("sampling: {field} is {got}, expected {expected}")]
    BadSampling {
        /// The parameter.
        field: &'static str,
        /// The value given.
        got: f64,
        /// The values accepted.
        expected: &'static str,
    },

    /// Logits that no token can be drawn from.
    #[error("logits: {detail}; the model's weights are damaged or its forward pass overflowed")]
    BadLogits {
        /// The first entry that is wrong.
        detail: String,
    },
}

impl EngineError {
    /// Wraps a system error with the file and the verb.
    pub(crate) fn io(path: &std::path::Path, op: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), op, source }
    }
}
