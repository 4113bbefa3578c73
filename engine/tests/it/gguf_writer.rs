//! Writes small GGUF files for tests: a valid one by default, and any part of it wrong on request.

/// A metadata value to write.
#[derive(Clone)]
pub enum Meta {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    /// Type code and raw bytes, for what no writer would write.
    Raw(u32, Vec<u8>),
}

/// A tensor to write.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    /// Innermost first, as in the file.
    pub dims: Vec<u64>,
    pub type_id: u32,
    pub data: Vec<u8>,
    /// Written instead of the true offset.
    pub offset: Option<u64>,
}

/// A file to write.
#[derive(Clone)]
pub struct Gguf {
    pub magic: [u8; 4],
    pub version: u32,
    pub metadata: Vec<(String, Meta)>,
    pub tensors: Vec<Tensor>,
    pub alignment: usize,
}

impl Gguf {
    /// A complete model: 1 layer, hidden 8, 2 query heads, 1 KV head of width 4, ffn 8, all F32, untied.
    pub fn tiny() -> Self {
        Self::with_width(8)
    }

    /// The same with another width of the residual stream and of the feed-forward layer.
    pub fn with_width(width: u32) -> Self {
        let tokens: Vec<String> = ["a", "b", "ab", "Ġ", "<|im_start|>", "<|im_end|>", "<think>", "[PAD7]"]
            .map(str::to_owned)
            .into();
        let mut gguf =
            Self { magic: *b"GGUF", version: 3, metadata: Vec::new(), tensors: Vec::new(), alignment: 32 };
        gguf.set("general.architecture", Meta::Text("qwen3".to_owned()));
        for (key, value) in [
            ("block_count", 1),
            ("context_length", 64),
            ("embedding_length", width),
            ("feed_forward_length", width),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
            ("attention.key_length", 4),
            ("attention.value_length", 4),
        ] {
            gguf.set(&format!("qwen3.{key}"), Meta::U32(value));
        }
        gguf.set("qwen3.rope.freq_base", Meta::F32(1e6));
        gguf.set("qwen3.attention.layer_norm_rms_epsilon", Meta::F32(1e-6));
        gguf.set("tokenizer.ggml.model", Meta::Text("gpt2".to_owned()));
        gguf.set("tokenizer.ggml.pre", Meta::Text("qwen2".to_owned()));
        gguf.set("tokenizer.ggml.tokens", Meta::Texts(tokens));
        gguf.set("tokenizer.ggml.token_type", Meta::I32s(vec![1, 1, 1, 1, 3, 3, 4, 5]));
        gguf.set("tokenizer.ggml.merges", Meta::Texts(vec!["a b".to_owned()]));
        gguf.set("tokenizer.ggml.eos_token_id", Meta::U32(5));
        gguf.set("tokenizer.ggml.add_bos_token", Meta::Bool(false));
        let width = u64::from(width);
        for (name, rows, columns) in [
            ("token_embd", 8, width),
            ("blk.0.attn_norm", 0, width),
            ("blk.0.attn_q", 8, width),
            ("blk.0.attn_k", 4, width),
            ("blk.0.attn_v", 4, width),
            ("blk.0.attn_q_norm", 0, 4),
            ("blk.0.attn_k_norm", 0, 4),
            ("blk.0.attn_output", width, 8),
            ("blk.0.ffn_norm", 0, width),
            ("blk.0.ffn_gate", width, width),
            ("blk.0.ffn_up", width, width),
            ("blk.0.ffn_down", width, width),
            ("output_norm", 0, width),
            ("output", 8, width),
        ] {
            gguf.add_f32(&format!("{name}.weight"), rows, columns);
        }
        gguf
    }

    /// Adds a tensor of ascending numbers; `rows` 0 makes a vector.
    pub fn add_f32(&mut self, name: &str, rows: u64, columns: u64) {
        let dims = if rows == 0 { vec![columns] } else { vec![columns, rows] };
        let data = (0..rows.max(1) * columns).flat_map(|index| (index as f32).to_le_bytes()).collect();
        self.tensors.push(Tensor { name: name.to_owned(), dims, type_id: 0, data, offset: None });
    }

    /// Sets or replaces a key.
    pub fn set(&mut self, key: &str, value: Meta) {
        match self.metadata.iter_mut().find(|(name, _)| name == key) {
            Some(entry) => entry.1 = value,
            None => self.metadata.push((key.to_owned(), value)),
        }
    }

    /// Removes a key.
    pub fn unset(&mut self, key: &str) {
        self.metadata.retain(|(name, _)| name != key);
    }

    /// The tensor of that name.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.magic);
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            text(&mut out, key);
            write_meta(&mut out, value);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            text(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            for dim in &tensor.dims {
                out.extend(dim.to_le_bytes());
            }
            out.extend(tensor.type_id.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(offset).to_le_bytes());
            offset += tensor.data.len().next_multiple_of(self.alignment) as u64;
        }
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&tensor.data);
        }
        out
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn write_meta(out: &mut Vec<u8>, value: &Meta) {
    let mut kind = |code: u32| out.extend(code.to_le_bytes());
    match value {
        Meta::U32(value) => {
            kind(4);
            out.extend(value.to_le_bytes());
        }
        Meta::F32(value) => {
            kind(6);
            out.extend(value.to_le_bytes());
        }
        Meta::Bool(value) => {
            kind(7);
            out.push(u8::from(*value));
        }
        Meta::Text(value) => {
            kind(8);
            text(out, value);
        }
        Meta::Texts(values) => {
            kind(9);
            kind(8);
            out.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| text(out, value));
        }
        Meta::I32s(values) => {
            kind(9);
            kind(5);
            out.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| out.extend(value.to_le_bytes()));
        }
        Meta::Raw(code, bytes) => {
            kind(*code);
            out.extend(bytes);
        }
    }
}
