//! GGUF files, good and bad: what opens, and what every kind of damage says. Files are made here, byte by
//! byte.

use std::path::Path;

use engine::error::EngineError;
use engine::gguf::{GgufFile, Value};
use engine::model_source::{Model, ModelSource};
use kernels::device::Cpu;
use kernels::dtype::DType;
use proptest::prelude::*;

use crate::gguf_writer::{Gguf, Meta};
use crate::golden;

/// Writes bytes to a file and hands it to `test`.
fn with_file<T>(bytes: &[u8], test: impl FnOnce(&Path) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    test(&path)
}

fn open(gguf: &Gguf) -> Result<Model, EngineError> {
    with_file(&gguf.bytes(), |path| ModelSource::Gguf(path.to_owned()).open())
}

/// The error of a file that must not open.
fn refusal(gguf: &Gguf) -> String {
    open(gguf).expect_err("the file is bad and must be refused").to_string()
}

/// Asserts that the message names the file and holds every given part.
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts.iter().chain(&["model.gguf"]) {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn a_complete_file_opens_and_its_weights_load() {
    let model = open(&Gguf::tiny()).unwrap();
    assert_eq!(model.config.n_layers, 1);
    assert_eq!((model.config.n_heads, model.config.n_kv_heads, model.config.head_dim), (2, 1, 4));
    assert!(!model.config.tied);
    assert_eq!(model.tokenizer.eos_ids(), [5]);
    assert_eq!(model.matrix_dtype(), DType::F32);

    let weights = with_file(&Gguf::tiny().bytes(), |path| {
        ModelSource::Gguf(path.to_owned()).open().unwrap().load_weights(&Cpu::new(None)).unwrap()
    });
    assert_eq!(weights.layers[0].attn_norm, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    let mut row = [0.0; 8];
    weights.layers[0].wk.row(3, &mut row);
    assert_eq!(row, [24.0, 25.0, 26.0, 27.0, 28.0, 29.0, 30.0, 31.0]);
}

#[test]
fn version_2_is_read_and_version_1_big_endian_and_other_files_are_refused() {
    let mut gguf = Gguf::tiny();
    gguf.version = 2;
    assert!(open(&gguf).is_ok());
    gguf.version = 1;
    assert_says(&refusal(&gguf), &["version is 1", "2 or 3"]);
    gguf.version = 3_u32.swap_bytes();
    assert_says(&refusal(&gguf), &["big-endian"]);
    gguf.magic = *b"PK\x03\x04";
    assert_says(&refusal(&gguf), &["magic", "GGUF"]);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = Gguf::tiny().bytes();
    for len in 0..bytes.len() {
        let error = with_file(&bytes[..len], GgufFile::open).expect_err("cut short");
        let message = error.to_string();
        assert_says(&message, &["cut short"]);
    }
    assert!(with_file(&bytes, GgufFile::open).is_ok());
}

#[test]
fn an_embedded_file_is_read_and_refused_as_one_on_disk() {
    let bytes = Gguf::tiny().bytes();
    let of_file = |path: &Path| {
        let file = GgufFile::open(path).unwrap();
        let data: Vec<u8> = file.tensors().iter().flat_map(|t| file.tensor_bytes(t)).copied().collect();
        (file.tensors().to_vec(), data)
    };
    let (tensors, data) = with_file(&bytes, of_file);
    let embedded = GgufFile::embedded("model.gguf", bytes.clone().leak()).unwrap();
    assert_eq!(embedded.tensors(), tensors);
    assert_eq!(tensors.iter().flat_map(|t| embedded.tensor_bytes(t)).copied().collect::<Vec<u8>>(), data);
    assert_eq!(embedded.bytes(), bytes);

    let cut = bytes[..bytes.len() - 1].to_vec().leak();
    assert_says(&GgufFile::embedded("model.gguf", cut).unwrap_err().to_string(), &["cut short"]);
}

#[test]
fn a_missing_file_and_a_folder_say_so() {
    let missing = GgufFile::open(Path::new("/nowhere/model.gguf")).unwrap_err().to_string();
    assert_says(&missing, &["/nowhere/", "open"]);
    let folder = tempfile::tempdir().unwrap();
    let error = GgufFile::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("not a regular file"), "{error}");
}

#[test]
fn tensors_outside_the_file_misaligned_or_overlapping_are_refused() {
    let mut gguf = Gguf::tiny();
    gguf.tensor("output.weight").offset = Some(1 << 20);
    assert_says(&refusal(&gguf), &["output.weight", "the data ends at"]);
    gguf.tensor("output.weight").offset = Some(u64::MAX - 31);
    assert_says(&refusal(&gguf), &["output.weight", "the data ends at"]);
    gguf.tensor("output.weight").offset = Some(8);
    assert_says(&refusal(&gguf), &["output.weight", "alignment 32"]);
    gguf.tensor("output.weight").offset = Some(0);
    assert_says(&refusal(&gguf), &["overlaps"]);
}

#[test]
fn wrong_types_and_shapes_name_the_tensor() {
    let name = "blk.0.ffn_up.weight";
    let with = |change: &dyn Fn(&mut crate::gguf_writer::Tensor)| {
        let mut gguf = Gguf::tiny();
        change(gguf.tensor(name));
        refusal(&gguf)
    };
    assert_says(&with(&|tensor| tensor.type_id = 2), &[name, "Q4_0", "Q8_0"]);
    assert_says(&with(&|tensor| tensor.type_id = 777), &[name, "777"]);
    assert_says(&with(&|tensor| tensor.type_id = 8), &[name, "whole Q8_0 blocks"]);
    assert_says(&with(&|tensor| tensor.dims = vec![8, 4]), &[name, "[4, 8]", "[8, 8]"]);
    assert_says(&with(&|tensor| tensor.dims = vec![64]), &[name, "[64]", "[8, 8]"]);
    assert_says(&with(&|tensor| tensor.dims = vec![]), &[name, "0 dimensions"]);
    assert_says(&with(&|tensor| tensor.dims = vec![1; 5]), &[name, "5 dimensions"]);
    assert_says(&with(&|tensor| tensor.dims = vec![8, 0]), &[name, "no zero"]);
    assert_says(&with(&|tensor| tensor.dims = vec![1 << 33, 1 << 33]), &[name, "overflow"]);
    assert_says(&with(&|tensor| tensor.dims = vec![1 << 62, 2]), &[name, "overflow"]);
}

#[test]
fn missing_duplicate_and_unknown_tensors_are_refused() {
    let mut gguf = Gguf::tiny();
    gguf.tensors.retain(|tensor| tensor.name != "blk.0.attn_q_norm.weight");
    assert_says(&refusal(&gguf), &["blk.0.attn_q_norm.weight", "missing", "[4]"]);

    let mut gguf = Gguf::tiny();
    gguf.add_f32("output_norm.weight", 0, 8);
    assert_says(&refusal(&gguf), &["output_norm.weight", "twice"]);

    let mut gguf = Gguf::tiny();
    gguf.add_f32("blk.0.attn_q.bias", 0, 8);
    assert_says(&refusal(&gguf), &["blk.0.attn_q.bias", "not part of"]);
}

#[test]
fn metadata_that_this_engine_cannot_run_is_refused() {
    let cases: [(&str, Meta, &[&str]); 14] = [
        ("general.architecture", Meta::Text("llama".to_owned()), &["\"llama\"", "Qwen3 dense"]),
        ("qwen3.block_count", Meta::U32(0), &["block_count is 0"]),
        ("qwen3.block_count", Meta::U32(1 << 30), &["block_count", "1024"]),
        ("qwen3.embedding_length", Meta::Text("8".to_owned()), &["embedding_length", "an integer"]),
        ("qwen3.attention.head_count_kv", Meta::U32(3), &["3", "divisor of the 2"]),
        ("qwen3.attention.value_length", Meta::U32(8), &["value_length is 8"]),
        ("qwen3.rope.freq_base", Meta::F32(f32::NAN), &["rotary base"]),
        ("qwen3.attention.layer_norm_rms_epsilon", Meta::F32(-1.0), &["epsilon"]),
        ("qwen3.rope.scaling.type", Meta::Text("yarn".to_owned()), &["yarn", "rope scaling"]),
        ("qwen3.attention.sliding_window", Meta::U32(4096), &["sliding"]),
        ("qwen3.rope.dimension_count", Meta::U32(2), &["partial rotation"]),
        ("general.alignment", Meta::U32(24), &["alignment is 24", "power of two"]),
        ("split.count", Meta::U32(3), &["split.count", "merge"]),
        (
            "tokenizer.chat_template",
            Meta::Text("{% if %}".to_owned()),
            &["model.gguf", "chat_template", "chat:1"],
        ),
    ];
    for (key, value, parts) in cases {
        let mut gguf = Gguf::tiny();
        gguf.set(key, value);
        let message = refusal(&gguf);
        for part in parts {
            assert!(message.contains(part), "{key}: {message:?} does not say {part:?}");
        }
    }
    for key in ["general.architecture", "qwen3.rope.freq_base", "qwen3.attention.key_length"] {
        let mut gguf = Gguf::tiny();
        gguf.unset(key);
        assert_says(&refusal(&gguf), &[key, "missing"]);
    }
}

#[test]
fn a_bad_tokenizer_is_refused() {
    let with = |key: &str, value: Option<Meta>| {
        let mut gguf = Gguf::tiny();
        match value {
            Some(value) => gguf.set(key, value),
            None => gguf.unset(key),
        }
        refusal(&gguf)
    };
    let texts = |texts: &[&str]| Some(Meta::Texts(texts.iter().map(|&text| text.to_owned()).collect()));
    assert_says(&with("tokenizer.ggml.model", None), &["carries no tokenizer"]);
    assert_says(&with("tokenizer.ggml.model", Some(Meta::Text("llama".to_owned()))), &["\"llama\"", "gpt2"]);
    assert_says(&with("tokenizer.ggml.pre", Some(Meta::Text("qwen35".to_owned()))), &["\"qwen35\"", "qwen2"]);
    assert_says(&with("tokenizer.ggml.tokens", None), &["tokenizer.ggml.tokens", "missing"]);
    assert_says(&with("tokenizer.ggml.merges", texts(&["ab"])), &["\"ab\"", "two tokens"]);
    assert_says(&with("tokenizer.ggml.merges", texts(&["a z"])), &["\"a\" and \"z\"", "the token \"z\""]);
    assert_says(&with("tokenizer.ggml.merges", texts(&["ab ab"])), &["\"abab\"", "not there"]);
    let longer = texts(&["<|im_start|> <|im_start|>"]);
    assert_says(&with("tokenizer.ggml.merges", longer), &["<|im_start|><|im_start|>", "not there"]);
    assert_says(&with("tokenizer.ggml.token_type", Some(Meta::I32s(vec![1]))), &["1 entries", "8"]);
    let twice = texts(&["a", "b", "ab", "a", "x", "y", "z", "w"]);
    assert_says(&with("tokenizer.ggml.tokens", twice), &["\"a\" twice"]);
    let many: Vec<String> = (0..9).map(|index| format!("t{index}")).collect();
    let mut gguf = Gguf::tiny();
    gguf.set("tokenizer.ggml.tokens", Meta::Texts(many));
    gguf.set("tokenizer.ggml.token_type", Meta::I32s(vec![1; 9]));
    gguf.set("tokenizer.ggml.merges", Meta::Texts(Vec::new()));
    assert_says(&refusal(&gguf), &["9 tokens", "8 rows"]);
}

#[test]
fn forged_counts_and_lengths_are_refused_without_allocating() {
    let huge = u64::MAX.to_le_bytes();
    let mut array = 4_u32.to_le_bytes().to_vec();
    array.extend(huge);
    let mut texts = 8_u32.to_le_bytes().to_vec();
    texts.extend(huge);
    let nested = 9_u32.to_le_bytes().to_vec();
    let mut nested_array = nested;
    nested_array.extend(1_u64.to_le_bytes());
    let cases = [
        (8, huge.to_vec(), "cut short"),
        (9, array, "cut short"),
        (9, texts, "cut short"),
        (9, nested_array, "array of arrays"),
        (13, Vec::new(), "of type 13"),
        (7, vec![2], "boolean 2"),
    ];
    for (code, bytes, expected) in cases {
        let mut gguf = Gguf::tiny();
        gguf.set("general.forged", Meta::Raw(code, bytes));
        assert_says(&refusal(&gguf), &["general.forged", expected]);
    }
    for at in [8, 16] {
        let mut bytes = Gguf::tiny().bytes();
        bytes[at..at + 8].copy_from_slice(&huge);
        let message = with_file(&bytes, GgufFile::open).unwrap_err().to_string();
        assert_says(&message, &["count", "at most"]);
    }
}

#[test]
fn arrays_and_scalars_are_read_back() {
    with_file(&Gguf::tiny().bytes(), |path| {
        let file = GgufFile::open(path).unwrap();
        assert_eq!(file.integers("tokenizer.ggml.token_type").unwrap(), [1, 1, 1, 1, 3, 3, 4, 5]);
        assert_eq!(file.strings("tokenizer.ggml.merges").unwrap(), ["a b"]);
        assert_eq!(file.metadata().get("tokenizer.ggml.add_bos_token"), Some(&Value::Bool(false)));
        assert!(file.strings("tokenizer.ggml.token_type").is_err());
        assert!(file.integers("tokenizer.ggml.merges").is_err());
        assert!(file.integers("general.architecture").is_err());
    });
}

#[test]
fn every_block_format_loads_and_dequantises() {
    // A block of zero bytes is a block of zeros in each of these formats.
    let formats = [
        ("blk.0.ffn_gate.weight", 12, DType::Q4K),
        ("blk.0.ffn_up.weight", 14, DType::Q6K),
        ("blk.0.ffn_down.weight", 6, DType::Q5_0),
        ("output.weight", 8, DType::Q8_0),
        ("token_embd.weight", 30, DType::BF16),
        ("blk.0.attn_q.weight", 1, DType::F16),
    ];
    let mut gguf = Gguf::with_width(256);
    for (name, type_id, dtype) in formats {
        let tensor = gguf.tensor(name);
        tensor.type_id = type_id;
        tensor.data = vec![0; dtype.row_bytes(256).unwrap() * tensor.dims[1] as usize];
    }
    let model_of = |gguf: &Gguf| {
        with_file(&gguf.bytes(), |path| {
            let model = ModelSource::Gguf(path.to_owned()).open().unwrap();
            let weights = model.load_weights(&Cpu::new(None)).unwrap();
            (model, weights)
        })
    };
    let (model, weights) = model_of(&gguf);
    let layer = &weights.layers[0];
    let loaded = [&layer.w_gate, &layer.w_up, &layer.w_down, weights.output(), &weights.embedding, &layer.wq];
    let mut row = [1.0; 256];
    for (matrix, (name, _, dtype)) in loaded.into_iter().zip(formats) {
        assert_eq!(matrix.dtype(), dtype, "{name}");
        matrix.row(matrix.rows() - 1, &mut row);
        assert_eq!(row, [0.0; 256], "{name}");
    }
    let counts = serde_json::to_value(model.describe().tensors_by_dtype).unwrap();
    let expected = serde_json::json!(
        {"BF16": 1, "F16": 1, "F32": 8, "Q4_K": 1, "Q5_0": 1, "Q6_K": 1, "Q8_0": 1}
    );
    assert_eq!(counts, expected);
}

#[test]
fn the_golden_files_hold_the_same_weights_as_their_folder() {
    let cpu = Cpu::new(None);
    let load = |source: ModelSource| source.open().unwrap().load_weights(&cpu).unwrap();
    let folder = load(ModelSource::Safetensors(golden::pico("hf")));
    let file = load(ModelSource::Gguf(golden::pico("pico-f32.gguf")));
    let (mut left, mut right) = ([0.0; 64], [0.0; 64]);
    for (a, b) in folder.layers.iter().zip(&file.layers) {
        assert_eq!(a.attn_norm, b.attn_norm);
        assert_eq!(a.k_norm, b.k_norm);
        for row in 0..a.wq.rows() {
            a.wq.row(row, &mut left);
            b.wq.row(row, &mut right);
            assert_eq!(left, right, "row {row}");
        }
    }
    assert_eq!(folder.output_norm, file.output_norm);
}

/// Numbers at which counts, lengths and offsets go wrong.
const EDGES: [u64; 9] = [0, 1, 255, 1 << 31, (1 << 32) - 1, 1 << 62, u64::MAX / 32, u64::MAX - 1, u64::MAX];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever bytes change, the reader answers; it never panics and never reads outside the file.
    #[test]
    fn damaged_files_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = Gguf::tiny().bytes();
        for (index, byte) in edits {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        with_file(&bytes, |path| {
            if let Ok(model) = ModelSource::Gguf(path.to_owned()).open() {
                prop_assert!(model.load_weights(&Cpu::new(None)).is_ok());
            }
            Ok(())
        })?;
    }

    /// Lengths and counts overwritten with values at the edges of their types.
    #[test]
    fn forged_numbers_never_panic(
        at in any::<prop::sample::Index>(),
        value in prop::sample::select(EDGES.to_vec()),
    ) {
        let mut bytes = Gguf::tiny().bytes();
        let at = at.index(bytes.len() - 8);
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        // Either answer is right; coming back is the point.
        let _answer = with_file(&bytes, |path| ModelSource::Gguf(path.to_owned()).open());
    }
}
