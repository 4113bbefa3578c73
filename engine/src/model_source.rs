//! Which model is meant, and the model once it is open: configuration, tokenizer, template and checked tensor
//! table, without weights in memory. Weights are loaded, dropped and loaded again through
//! [`Model::load_weights`]. It runs nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kernels::device::Cpu;
use kernels::dtype::DType;
use kernels::kv::KvDType;

use crate::chat::{ChatTemplate, TemplateOrigin};
use crate::config::ModelConfig;
use crate::device::Device;
use crate::error::EngineError;
use crate::gguf::GgufFile;
use crate::model::qwen3::{Loaded, cuda};
use crate::safetensors_folder::{SafetensorsFolder, read_file, read_json};
use crate::shapes::{SHAPES, Shape};
use crate::synthetic::{SCHEMA, SyntheticTensors};
use crate::tensors::{LayerTensor, TensorId};
use crate::tokenizer::Tokenizer;
use crate::weights::{StoredTensor, TensorSource, Weights};

/// What a user calls the bundled pair: the target as a target, the drafter as a drafter.
pub const SAMPLE: &str = "sample";

/// The tokenizer of synthetic models.
const BUILT_IN_TOKENIZER: &[u8] = include_bytes!("../data/tokenizer.json");

/// One of the two models that come with the program; `engine/sample/MODEL_CARD.md` says what they can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleModel {
    /// Answers.
    Target,
    /// Scores.
    Drafter,
}

impl SampleModel {
    /// What a user calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Target => "sample:target",
            Self::Drafter => "sample:drafter",
        }
    }

    /// Its GGUF file.
    const fn bytes(self) -> &'static [u8] {
        match self {
            Self::Target => include_bytes!("../sample/target.gguf"),
            Self::Drafter => include_bytes!("../sample/drafter.gguf"),
        }
    }
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelSource {
    /// One of the models that come with the program.
    Sample(SampleModel),
    /// A GGUF file.
    Gguf(PathBuf),
    /// A folder with `config.json`, `tokenizer.json` and safetensors weights.
    Safetensors(PathBuf),
    /// Seeded random weights of a named shape.
    Synthetic(Shape),
}

impl ModelSource {
    /// Reads what a user types for a drafter: as [`ModelSource::parse`], but `sample` is the bundled drafter.
    ///
    /// # Errors
    /// As [`ModelSource::parse`].
    pub fn parse_drafter(given: &str) -> Result<Self, EngineError> {
        if given == SAMPLE { Ok(Self::Sample(SampleModel::Drafter)) } else { Self::parse(given) }
    }

    /// Reads what a user types: `model.gguf`, `folder/`, `synthetic:<shape>`, `sample` (the bundled target),
    /// `sample:target` or `sample:drafter`.
    ///
    /// # Errors
    /// [`EngineError::UnknownModel`], saying what would be accepted.
    pub fn parse(given: &str) -> Result<Self, EngineError> {
        let unknown = |reason: String| EngineError::UnknownModel { given: given.to_owned(), reason };
        if let Some(name) = given.strip_prefix("synthetic:") {
            return Shape::named(name).map(Self::Synthetic).ok_or_else(|| {
                let names: Vec<&str> = SHAPES.iter().map(|shape| shape.name).collect();
                unknown(format!("the synthetic shapes are {}", names.join(", ")))
            });
        }
        if given == SAMPLE {
            return Ok(Self::Sample(SampleModel::Target));
        }
        if let Some(model) = [SampleModel::Target, SampleModel::Drafter].iter().find(|m| m.name() == given) {
            return Ok(Self::Sample(*model));
        }
        let path = Path::new(given);
        if path.is_dir() {
            return Ok(Self::Safetensors(path.to_owned()));
        }
        if path.is_file() {
            return match path
                .extension()
                .is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors"))
            {
                false => Ok(Self::Gguf(path.to_owned())),
                true => Err(unknown("give the folder that holds it, with its config.json".to_owned())),
            };
        }
        let reason =
            "no such file or folder; give sample, a .gguf file, a safetensors folder or synthetic:<shape>";
        Err(unknown(reason.to_owned()))
    }

    /// Opens the model: reads metadata, tokenizer and template and checks every tensor's name, shape, type and
    /// place. The digest covers all bytes, so this reads the files once; no weights stay resident.
    ///
    /// # Errors
    /// [`EngineError`] naming the file and the field, key or tensor.
    pub fn open(&self) -> Result<Model, EngineError> {
        match self {
            Self::Sample(model) => open_gguf(GgufFile::embedded(model.name(), model.bytes())?),
            Self::Gguf(path) => open_gguf(GgufFile::open(path)?),
            Self::Safetensors(path) => open_folder(path),
            Self::Synthetic(shape) => open_synthetic(*shape),
        }
    }
}

/// An open model.
#[derive(Debug)]
pub struct Model {
    /// Its name: from the metadata, else the file or folder name, else `synthetic:<shape>`.
    pub name: String,
    /// Hyper-parameters.
    pub config: ModelConfig,
    /// Tokenizer.
    pub tokenizer: Tokenizer,
    /// Chat template.
    pub chat: ChatTemplate,
    /// BLAKE3 over the bytes of all files (of name and generator for synthetic models), hex.
    pub digest: String,
    /// Size of all files in bytes; 0 for synthetic models.
    pub file_bytes: u64,
    storage: Storage,
}

/// What the tensors lie in.
#[derive(Debug)]
enum Storage {
    Gguf(GgufFile),
    Folder(SafetensorsFolder),
    Synthetic(SyntheticTensors),
}

impl Model {
    /// Reads all weights to where `device` runs models. May be called again after the weights were dropped; it keeps
    /// nothing.
    ///
    /// # Errors
    /// As [`Model::load_weights`]; [`EngineError::Device`] if they do not fit into a card's memory.
    pub fn load(&self, device: &Device) -> Result<Loaded, EngineError> {
        match device.cuda() {
            None => self.load_weights(device.cpu()).map(Loaded::Cpu),
            Some(cuda) => cuda::Weights::load(&self.config, self.storage.source(), cuda).map(Loaded::Cuda),
        }
    }

    /// Reads all weights from the files (or makes them), spread over the threads of `cpu`.
    ///
    /// # Errors
    /// [`EngineError::OutOfMemory`] before anything is read, if the weights cannot fit;
    /// [`EngineError::Kernel`].
    pub fn load_weights(&self, cpu: &Cpu) -> Result<Weights, EngineError> {
        check_memory(&self.name, self.weight_bytes(), available_memory())?;
        Weights::load(&self.config, self.storage.source(), cpu)
    }

    /// Bytes that the weights will occupy in memory, padding of panels aside.
    pub fn weight_bytes(&self) -> u64 {
        let bytes = |id: TensorId| {
            let shape = id.shape(&self.config);
            let elements = shape.iter().product::<usize>();
            match shape.as_slice() {
                // Vectors are widened to f32.
                [_] => elements as u64 * 4,
                _ => self.dtype(id).row_bytes(elements).map_or(0, |bytes| bytes as u64),
            }
        };
        TensorId::all(&self.config).into_iter().map(bytes).sum()
    }

    /// Bytes of keys and values per token, over all layers.
    pub fn kv_bytes_per_token(&self, dtype: KvDType) -> u64 {
        self.config.kv_bytes_per_token(dtype.bytes())
    }

    /// Element type of the key projections: the precision in which this model's keys come about.
    pub fn matrix_dtype(&self) -> DType {
        self.dtype(TensorId::Layer(0, LayerTensor::Wk))
    }

    /// Number of tensors per element type, by ggml's names.
    pub fn dtype_counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for id in TensorId::all(&self.config) {
            *counts.entry(self.dtype(id).to_string()).or_insert(0) += 1;
        }
        counts
    }

    fn dtype(&self, id: TensorId) -> DType {
        self.storage.source().dtype(id)
    }
}

impl Storage {
    fn source(&self) -> &dyn TensorSource {
        match self {
            Self::Gguf(file) => file,
            Self::Folder(folder) => folder,
            Self::Synthetic(tensors) => tensors,
        }
    }
}

impl TensorSource for GgufFile {
    fn dtype(&self, id: TensorId) -> DType {
        self.tensor(&id.gguf_name()).map_or(DType::F32, |tensor| tensor.dtype)
    }

    fn tensor(&self, id: TensorId) -> Result<StoredTensor<'_>, EngineError> {
        let name = id.gguf_name();
        let Some(info) = self.tensor(&name) else { return Err(absent(self.path(), name)) };
        Ok(StoredTensor { name, dtype: info.dtype, bytes: Cow::Borrowed(self.tensor_bytes(info)) })
    }
}

impl TensorSource for SafetensorsFolder {
    fn dtype(&self, id: TensorId) -> DType {
        self.tensors().get(&id.safetensors_name()).map_or(DType::F32, |tensor| tensor.dtype)
    }

    fn tensor(&self, id: TensorId) -> Result<StoredTensor<'_>, EngineError> {
        let name = id.safetensors_name();
        let Some(info) = self.tensors().get(&name) else { return Err(absent(self.path(), name)) };
        Ok(StoredTensor { name, dtype: info.dtype, bytes: Cow::Borrowed(self.tensor_bytes(info)) })
    }
}

fn absent(path: &Path, tensor: String) -> EngineError {
    EngineError::MissingTensor { path: path.to_owned(), tensor, expected: String::new() }
}

fn open_gguf(file: GgufFile) -> Result<Model, EngineError> {
    let path = file.path();
    let config = ModelConfig::from_gguf(&file)?;
    let shapes = file.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice()));
    check_tensors(path, &config, shapes.collect(), TensorId::gguf_name)?;

    let tokenizer = Tokenizer::from_gguf(&file)?;
    check_vocabulary(path, &tokenizer, &config)?;
    const TEMPLATE: &str = "tokenizer.chat_template";
    let chat = match file.metadata().optional_string(path, TEMPLATE)? {
        Some(source) => {
            ChatTemplate::new(source, TemplateOrigin::Model(format!("{}: {TEMPLATE}", path.display())))?
        }
        None => ChatTemplate::built_in()?,
    };
    let name =
        file.metadata().optional_string(path, "general.name")?.map_or_else(|| stem(path), str::to_owned);
    Ok(Model {
        name,
        config,
        chat: with_eos_token(chat, &tokenizer),
        tokenizer,
        digest: blake3::hash(file.bytes()).to_hex().to_string(),
        file_bytes: file.bytes().len() as u64,
        storage: Storage::Gguf(file),
    })
}

fn open_folder(path: &Path) -> Result<Model, EngineError> {
    let config_path = path.join("config.json");
    let config_json = read_json(&config_path)?;
    let config = ModelConfig::from_json(&config_path, &config_json)?;
    let folder = SafetensorsFolder::open(path)?;
    let mut shapes: BTreeMap<&str, &[usize]> =
        folder.tensors().iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice())).collect();
    if config.tied {
        // Some tied models carry a copy of the embedding under this name; transformers ignores it too.
        shapes.remove("lm_head.weight");
    }
    check_tensors(path, &config, shapes, TensorId::safetensors_name)?;

    let tokenizer_path = path.join("tokenizer.json");
    let tokenizer_bytes = read_file(&tokenizer_path)?;
    let eos = eos_of_folder(path, &config_json)?;
    let tokenizer =
        Tokenizer::from_json(&tokenizer_bytes, &tokenizer_path.display().to_string())?.with_eos(eos);
    check_vocabulary(path, &tokenizer, &config)?;
    let chat = with_eos_token(template_of_folder(path)?, &tokenizer);

    let mut hasher = blake3::Hasher::new();
    let mut file_bytes = 0;
    let mut cover = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        file_bytes += bytes.len() as u64;
    };
    cover(&read_file(&config_path)?);
    cover(&tokenizer_bytes);
    cover(chat.source().as_bytes());
    for shard in folder.shards() {
        cover(shard.bytes());
    }
    Ok(Model {
        name: stem(path),
        config,
        tokenizer,
        chat,
        digest: hasher.finalize().to_hex().to_string(),
        file_bytes,
        storage: Storage::Folder(folder),
    })
}

fn open_synthetic(shape: Shape) -> Result<Model, EngineError> {
    let tokenizer = Tokenizer::from_json(BUILT_IN_TOKENIZER, "built-in")?;
    let config = shape.config(tokenizer.vocab_len());
    let name = format!("synthetic:{}", shape.name);
    let chat = ChatTemplate::built_in()?;
    let parts: [&[u8]; 3] = [name.as_bytes(), tokenizer.digest().as_bytes(), chat.source().as_bytes()];
    let digest = blake3::Hash::from_bytes(crate::digest::of_fields(SCHEMA, &parts)).to_hex().to_string();
    Ok(Model {
        name,
        config: config.clone(),
        chat: with_eos_token(chat, &tokenizer),
        tokenizer,
        digest,
        file_bytes: 0,
        storage: Storage::Synthetic(SyntheticTensors { name: shape.name, config }),
    })
}

/// Every tensor the architecture has is there with its shape, and no other.
fn check_tensors(
    path: &Path,
    config: &ModelConfig,
    mut shapes: BTreeMap<&str, &[usize]>,
    name_of: fn(TensorId) -> String,
) -> Result<(), EngineError> {
    for id in TensorId::all(config) {
        let (tensor, expected) = (name_of(id), id.shape(config));
        match shapes.remove(tensor.as_str()) {
            None => {
                let expected = format!("{expected:?}");
                return Err(EngineError::MissingTensor { path: path.to_owned(), tensor, expected });
            }
            Some(got) if got != expected.as_slice() => {
                return Err(EngineError::TensorShape {
                    path: path.to_owned(),
                    tensor,
                    got: format!("{got:?}"),
                    expected: format!("{expected:?}"),
                });
            }
            Some(_) => {}
        }
    }
    match shapes.into_keys().next() {
        None => Ok(()),
        Some(extra) => Err(EngineError::UnexpectedTensor { path: path.to_owned(), tensor: extra.to_owned() }),
    }
}

/// The embedding has a row for every token.
fn check_vocabulary(path: &Path, tokenizer: &Tokenizer, config: &ModelConfig) -> Result<(), EngineError> {
    if tokenizer.vocab_len() <= config.vocab {
        return Ok(());
    }
    Err(EngineError::Tokenizer {
        origin: path.display().to_string(),
        problem: format!(
            "{} tokens, but the embedding has {} rows; take the tokenizer that belongs to these weights",
            tokenizer.vocab_len(),
            config.vocab
        ),
    })
}

/// Ids that end the output, from `generation_config.json` and `config.json`: a number or a list.
fn eos_of_folder(path: &Path, config: &serde_json::Value) -> Result<Vec<u32>, EngineError> {
    let ids = |json: &serde_json::Value| -> Vec<u32> {
        let id = |value: &serde_json::Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        match json.get("eos_token_id") {
            Some(serde_json::Value::Array(list)) => list.iter().filter_map(id).collect(),
            Some(value) => id(value).into_iter().collect(),
            None => Vec::new(),
        }
    };
    let mut eos = ids(config);
    let generation = path.join("generation_config.json");
    if generation.is_file() {
        eos.extend(ids(&read_json(&generation)?));
    }
    Ok(eos)
}

/// The folder's chat template, where transformers looks for it: `chat_template.jinja`, then
/// `tokenizer_config.json` (a text, or a list of named templates of which `default` is taken); else the
/// built-in one.
fn template_of_folder(path: &Path) -> Result<ChatTemplate, EngineError> {
    let file = path.join("chat_template.jinja");
    if file.is_file() {
        let origin = TemplateOrigin::Model(file.display().to_string());
        let source = String::from_utf8(read_file(&file)?).map_err(|error| EngineError::Template {
            origin: origin.to_string(),
            problem: error.to_string(),
        })?;
        return ChatTemplate::new(&source, origin);
    }
    let file = path.join("tokenizer_config.json");
    let config = if file.is_file() { read_json(&file)? } else { serde_json::Value::Null };
    let source = match config.get("chat_template") {
        Some(serde_json::Value::Array(named)) => {
            named.iter().find(|entry| entry["name"] == "default").and_then(|entry| entry["template"].as_str())
        }
        other => other.and_then(serde_json::Value::as_str),
    };
    match source {
        Some(source) => ChatTemplate::new(source, TemplateOrigin::Model(file.display().to_string())),
        None => ChatTemplate::built_in(),
    }
}

/// Templates name the end-of-sequence token; Qwen's first choice is the end of a turn.
fn with_eos_token(chat: ChatTemplate, tokenizer: &Tokenizer) -> ChatTemplate {
    match tokenizer.id("<|im_end|>") {
        Ok(_) => chat.with_token("eos_token", "<|im_end|>"),
        Err(_) => chat,
    }
}

/// File or folder name without its extension.
fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Refuses weights that cannot fit, rather than be killed half way; passes where the system does not tell.
fn check_memory(model: &str, needed: u64, available: Option<u64>) -> Result<(), EngineError> {
    match available {
        Some(available) if needed > available => {
            Err(EngineError::OutOfMemory { model: model.to_owned(), needed, available })
        }
        _ => Ok(()),
    }
}

/// Bytes of memory that can be had without swapping; `None` where the system does not tell.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_larger_than_the_free_memory_are_refused() {
        assert!(check_memory("m", 10, Some(10)).is_ok());
        assert!(check_memory("m", 10, None).is_ok());
        let message = check_memory("m", 11, Some(10)).unwrap_err().to_string();
        assert!(message.contains("11 bytes") && message.contains("10 free") && message.contains("smaller"));
    }
}
