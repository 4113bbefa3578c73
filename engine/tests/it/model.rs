//! Models from every source, whole: what opens, what it says of itself, what a damaged folder says.

use std::num::NonZeroUsize;
use std::path::Path;

use engine::chat::TemplateOrigin;
use engine::model_source::ModelSource;
use kernels::device::Cpu;
use kernels::dtype::DType;
use kernels::kv::KvDType;
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};

use crate::golden;

/// A copy of the golden folder that a test may damage.
fn folder() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        std::fs::copy(golden::pico("hf").join(file), copy.path().join(file)).unwrap();
    }
    copy
}

/// The error of a folder after one file was rewritten.
fn refusal(file: &str, change: impl FnOnce(String) -> String) -> String {
    let folder = folder();
    let path = folder.path().join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(&path, change(text)).unwrap();
    refusal_of(folder.path())
}

fn refusal_of(folder: &Path) -> String {
    ModelSource::Safetensors(folder.to_owned()).open().expect_err("must be refused").to_string()
}

#[test]
fn a_folder_opens_and_describes_itself() {
    let model = ModelSource::parse(golden::pico("hf").to_str().unwrap()).unwrap().open().unwrap();
    let description = serde_json::to_value(model.describe()).unwrap();
    assert_eq!(description["config"]["n_layers"], 2);
    assert_eq!(description["config"]["head_dim"], 32);
    assert_eq!(description["tensors_by_dtype"]["BF16"], 25);
    assert_eq!(description["tokenizer"]["eos_ids"], serde_json::json!([1017, 1019]));
    assert_eq!(description["memory"]["kv_bytes_per_1k_tokens_f32"], 1000 * 2 * 2 * 2 * 32 * 4);
    assert!(
        matches!(model.chat.origin(), TemplateOrigin::Model(place) if place.contains("tokenizer_config"))
    );
    assert_eq!(model.matrix_dtype(), DType::BF16);
    assert_eq!(model.kv_bytes_per_token(KvDType::BF16), 2 * 2 * 2 * 32 * 2);
    assert_eq!(model.digest.len(), 64);
}

#[test]
fn every_gguf_type_opens_loads_and_keeps_its_size() {
    let cpu = Cpu::new(None);
    for (file, dtype) in
        [("f32", DType::F32), ("f16", DType::F16), ("bf16", DType::BF16), ("q8_0", DType::Q8_0)]
    {
        let path = golden::pico(&format!("pico-{file}.gguf"));
        let model = ModelSource::parse(path.to_str().unwrap()).unwrap().open().unwrap();
        assert_eq!(model.matrix_dtype(), dtype);
        let weights = model.load_weights(&cpu).unwrap();
        assert!(weights.resident_bytes() >= model.weight_bytes(), "{file}");
        assert!(weights.resident_bytes() < model.weight_bytes() * 3 / 2, "{file}: padding only");
        assert!(model.file_bytes > model.weight_bytes());
        assert_eq!(weights.layers.len(), 2);
        assert_eq!(weights.output().rows(), 1024);
    }
}

#[test]
fn weights_are_read_again_after_a_drop() {
    let cpu = Cpu::new(None);
    let model = ModelSource::Gguf(golden::pico("pico-bf16.gguf")).open().unwrap();
    let (mut first, mut again) = ([0.0; 64], [0.0; 64]);
    model.load_weights(&cpu).unwrap().embedding.row(1000, &mut first);
    model.load_weights(&cpu).unwrap().embedding.row(1000, &mut again);
    assert_eq!(first, again);
    assert!(first.iter().any(|&value| value != 0.0));
}

#[test]
fn shards_are_joined_and_checked_against_their_index() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let bytes = std::fs::read(path("model.safetensors")).unwrap();
    let whole = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let whole_row = load_row(folder.path());
    let mut map = serde_json::Map::new();
    for (index, file) in ["a.safetensors", "b.safetensors"].into_iter().enumerate() {
        let part: Vec<_> = whole.tensors().into_iter().enumerate().filter(|(n, _)| n % 2 == index).collect();
        map.extend(part.iter().map(|(_, (name, _))| (name.clone(), file.into())));
        safetensors::serialize_to_file(part.into_iter().map(|(_, tensor)| tensor), None, &path(file))
            .unwrap();
    }
    std::fs::remove_file(path("model.safetensors")).unwrap();
    let write_index = |map: &serde_json::Map<String, serde_json::Value>| {
        let index = serde_json::json!({"metadata": {}, "weight_map": map});
        std::fs::write(path("model.safetensors.index.json"), index.to_string()).unwrap();
    };
    write_index(&map);
    assert_eq!(load_row(folder.path()), whole_row);

    let mut wrong = map.clone();
    wrong.insert("extra".to_owned(), "a.safetensors".into());
    write_index(&wrong);
    assert!(refusal_of(folder.path()).contains("extra"));
    for bad in ["../a.safetensors", "/etc/passwd", "sub/a.safetensors", ""] {
        let mut wrong = map.clone();
        wrong.insert("model.norm.weight".to_owned(), bad.into());
        write_index(&wrong);
        assert!(refusal_of(folder.path()).contains("without a folder"), "{bad}");
    }
    write_index(&map);
    std::fs::remove_file(path("b.safetensors")).unwrap();
    assert!(refusal_of(folder.path()).contains("b.safetensors"));
}

fn load_row(folder: &Path) -> Vec<f32> {
    let model = ModelSource::Safetensors(folder.to_owned()).open().unwrap();
    let weights = model.load_weights(&Cpu::new(None)).unwrap();
    let mut row = vec![0.0; 160];
    weights.layers[1].w_down.row(63, &mut row);
    row
}

#[test]
fn damaged_folders_say_which_file_and_what() {
    type Change<'a> = &'a dyn Fn(String) -> String;
    let cases: [(&str, Change<'_>, &[&str]); 13] = [
        ("config.json", &|_| "{".to_owned(), &["config.json", "JSON"]),
        ("config.json", &|text| text.replace("\"qwen3\"", "\"llama\""), &["model_type", "llama"]),
        (
            "config.json",
            &|text| text.replace("num_hidden_layers", "layers"),
            &["num_hidden_layers", "missing"],
        ),
        (
            "config.json",
            &|text| text.replace("\"hidden_size\": 64", "\"hidden_size\": 1e99"),
            &["hidden_size"],
        ),
        (
            "config.json",
            &|text| text.replace("\"hidden_size\": 64", "\"hidden_size\": 96"),
            &["shape", "[1024, 96]"],
        ),
        (
            "config.json",
            &|text| text.replace("\"default\"", "\"yarn\""),
            &["rope_parameters", "rope scaling"],
        ),
        ("config.json", &|text| text.replace("\"silu\"", "\"gelu\""), &["hidden_act", "silu"]),
        ("config.json", &|text| text.replacen("full_attention", "sliding_attention", 1), &["layer_types"]),
        (
            "config.json",
            &|text| text.replace("use_sliding_window\": false", "use_sliding_window\": true"),
            &["sliding"],
        ),
        (
            "config.json",
            &|text| text.replace("attention_bias\": false", "attention_bias\": true"),
            &["attention_bias"],
        ),
        (
            "config.json",
            &|text| text.replacen('{', "{\"quantization_config\": {},", 1),
            &["quantization_config", "GGUF"],
        ),
        ("tokenizer.json", &|_| "{}".to_owned(), &["tokenizer.json"]),
        ("tokenizer_config.json", &|_| "{\"chat_template\": \"{% if %}\"}".to_owned(), &["chat template"]),
    ];
    for (file, change, parts) in cases {
        let message = refusal(file, change);
        for part in parts {
            assert!(message.contains(part), "{message:?} does not say {part:?}");
        }
    }
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let folder = folder();
        std::fs::remove_file(folder.path().join(file)).unwrap();
        assert!(refusal_of(folder.path()).contains(file), "{file}");
    }
}

#[test]
fn damaged_safetensors_are_refused() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for len in [0, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..len]).unwrap();
        let message = refusal_of(folder.path());
        assert!(message.contains("model.safetensors") && message.contains("again"), "{len}: {message}");
    }
    let mut forged = bytes.clone();
    forged[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(&path, &forged).unwrap();
    assert!(refusal_of(folder.path()).contains("header"));

    let data = [0_u8; 64];
    let tensor = TensorView::new(Dtype::I8, vec![64], &data).unwrap();
    safetensors::serialize_to_file([("model.norm.weight", tensor)], None, &path).unwrap();
    let message = refusal_of(folder.path());
    assert!(message.contains("model.norm.weight") && message.contains("F32, F16, BF16"), "{message}");
}

#[test]
fn a_template_file_wins_over_the_one_in_the_configuration_and_none_means_built_in() {
    let folder = folder();
    let origin = || {
        let model = ModelSource::Safetensors(folder.path().to_owned()).open().unwrap();
        (model.chat.origin().to_string(), model.digest)
    };
    let (from_config, digest) = origin();
    assert!(from_config.ends_with("tokenizer_config.json"));
    std::fs::write(folder.path().join("chat_template.jinja"), "{{ messages[0].content }}").unwrap();
    let (from_file, other_digest) = origin();
    assert!(from_file.ends_with("chat_template.jinja"));
    assert_ne!(digest, other_digest);
    std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    std::fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
    assert_eq!(origin().0, "built-in");
}

#[test]
fn synthetic_models_open_load_and_repeat() {
    let cpu = Cpu::new(None);
    for name in ["synthetic:nano", "synthetic:nano-drafter"] {
        let model = ModelSource::parse(name).unwrap().open().unwrap();
        assert_eq!(model.name, name);
        assert_eq!(model.config.vocab, model.tokenizer.vocab_len());
        assert!(model.config.tied);
        for token in ["<|im_start|>", "<|im_end|>", "<think>", "<tool_call>"] {
            assert!(model.tokenizer.id(token).is_ok(), "{token}");
        }
        let (first, again) =
            (model.load_weights(&cpu).unwrap(), model.load_weights(&Cpu::new(NonZeroUsize::new(1))).unwrap());
        assert!(first.output.is_none());
        assert_eq!(first.output().rows(), model.config.vocab);
        let (mut left, mut right) = (vec![0.0; model.config.hidden], vec![0.0; model.config.hidden]);
        first.layers[1].wk.row(5, &mut left);
        again.layers[1].wk.row(5, &mut right);
        assert_eq!(left, right);
        assert_eq!(first.layers[1].q_norm, again.layers[1].q_norm);
    }
    let digest = |name: &str| ModelSource::parse(name).unwrap().open().unwrap().digest;
    assert_eq!(digest("synthetic:nano"), digest("synthetic:nano"));
    assert_ne!(digest("synthetic:nano"), digest("synthetic:nano-drafter"));
}

#[test]
fn published_shapes_open_without_making_their_weights() {
    let model = ModelSource::parse("synthetic:qwen3-32b").unwrap().open().unwrap();
    let description = model.describe();
    assert_eq!(description.parameters, 32_762_123_264);
    // Two bytes each, the norms four.
    assert!(description.memory.weight_bytes > 2 * description.parameters);
    assert!(description.memory.weight_bytes < 2 * description.parameters + (1 << 24));
}

#[test]
fn names_that_are_no_model_say_what_would_be() {
    for (given, part) in [
        ("synthetic:qwen3-5b", "qwen3-0.6b"),
        ("sample:tokenizer", "give sample"),
        ("/nowhere/model.gguf", "no such file"),
        (golden::pico("hf/model.safetensors").to_str().unwrap(), "the folder"),
    ] {
        let message = ModelSource::parse(given).unwrap_err().to_string();
        assert!(message.contains(part) && message.contains(given), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever bytes of a folder's files change, opening it answers.
    #[test]
    fn damaged_folders_never_panic(
        file in prop::sample::select(vec!["config.json", "model.safetensors", "tokenizer.json"]),
        edits in prop::collection::vec((0..4000_usize, any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let folder = folder();
        let path = folder.path().join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, byte) in edits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(model) = ModelSource::Safetensors(folder.path().to_owned()).open() {
            prop_assert!(model.load_weights(&Cpu::new(NonZeroUsize::new(1))).is_ok());
            // The answer may be an error; coming back is the point.
            let _answer = model.tokenizer.encode("Hello <|im_start|> wörld\n\n  1");
        }
    }
}
