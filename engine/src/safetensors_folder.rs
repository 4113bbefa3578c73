//! A model folder as Hugging Face transformers writes it: `config.json`, `tokenizer.json`, and weights in
//! `model.safetensors` or in the shards that `model.safetensors.index.json` lists. Headers go through the
//! `safetensors` crate; this module maps the files, finds tensors and checks the list against the shards. It
//! knows no architecture.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use kernels::dtype::DType;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::error::EngineError;
use crate::mapped::MappedFile;

/// The types that weights may have, for error messages.
const SUPPORTED_TYPES: &str = "F32, F16, BF16";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Far above any real JSON file of a model folder (Qwen3's `tokenizer.json` has 11 MB).
const MAX_JSON_BYTES: u64 = 256 << 20;

/// A tensor of a folder.
#[derive(Clone, Debug)]
pub struct FolderTensor {
    /// Shape, outermost first.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: DType,
    shard: usize,
    range: Range<usize>,
}

/// An open folder: tensor table over mapped shards.
#[derive(Debug)]
pub struct SafetensorsFolder {
    path: PathBuf,
    shards: Vec<MappedFile>,
    tensors: HashMap<String, FolderTensor>,
}

impl SafetensorsFolder {
    /// Opens and checks the weights of a folder.
    ///
    /// # Errors
    /// [`EngineError`] naming the file or tensor.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let mut folder = Self { path: path.to_owned(), shards: Vec::new(), tensors: HashMap::new() };
        if path.join(SINGLE).is_file() {
            folder.add_shard(&path.join(SINGLE))?;
            return Ok(folder);
        }
        let index_path = path.join(INDEX);
        if !index_path.is_file() {
            return Err(EngineError::MissingField {
                path: path.to_owned(),
                field: format!("{SINGLE} or {INDEX}"),
                advice: "give a folder that holds the weights, or a .gguf file",
            });
        }
        let listed = shard_list(&index_path)?;
        let mut files: Vec<&String> = listed.values().collect();
        files.sort_unstable();
        files.dedup();
        for file in files {
            folder.add_shard(&path.join(file))?;
        }
        for (tensor, file) in &listed {
            if !folder.tensors.contains_key(tensor) {
                return Err(EngineError::MissingTensor {
                    path: path.join(file),
                    tensor: tensor.clone(),
                    expected: format!("listed in {INDEX}"),
                });
            }
        }
        Ok(folder)
    }

    fn add_shard(&mut self, path: &Path) -> Result<(), EngineError> {
        let map = MappedFile::open(path)?;
        let (header_len, header) =
            SafeTensors::read_metadata(map.bytes()).map_err(|error| EngineError::BadField {
                path: path.to_owned(),
                field: "the safetensors header".to_owned(),
                got: format!("not readable ({error})"),
                expected: "a complete safetensors file; copy or download it again".to_owned(),
            })?;
        // The crate has checked that the tensors tile the rest of the file; 8 bytes hold the header's length.
        let data_start = 8 + header_len;
        for (name, info) in header.tensors() {
            let dtype = dtype(info.dtype).ok_or_else(|| EngineError::TensorType {
                path: path.to_owned(),
                tensor: name.clone(),
                got: info.dtype.to_string(),
                expected: SUPPORTED_TYPES,
            })?;
            let range = data_start + info.data_offsets.0..data_start + info.data_offsets.1;
            let tensor = FolderTensor { shape: info.shape.clone(), dtype, shard: self.shards.len(), range };
            if self.tensors.insert(name.clone(), tensor).is_some() {
                return Err(EngineError::DuplicateTensor { path: path.to_owned(), tensor: name });
            }
        }
        self.shards.push(map);
        Ok(())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tensors by name.
    pub fn tensors(&self) -> &HashMap<String, FolderTensor> {
        &self.tensors
    }

    /// The weight files, in the order of their names.
    pub fn shards(&self) -> &[MappedFile] {
        &self.shards
    }

    /// The bytes of a tensor of this folder.
    pub fn tensor_bytes(&self, tensor: &FolderTensor) -> &[u8] {
        // `add_shard` proved shard and range; a tensor of another folder could only give a wrong slice.
        self.shards.get(tensor.shard).and_then(|shard| shard.bytes().get(tensor.range.clone())).unwrap_or(&[])
    }
}

/// Reads a JSON file of a model folder, refusing absurd sizes.
///
/// # Errors
/// [`EngineError::Io`], or [`EngineError::BadField`] with the line of a syntax error.
pub fn read_json(path: &Path) -> Result<Value, EngineError> {
    let bytes = read_file(path)?;
    serde_json::from_slice(&bytes).map_err(|error| EngineError::BadField {
        path: path.to_owned(),
        field: "the text".to_owned(),
        got: format!("not readable ({error})"),
        expected: "JSON; copy or download it again".to_owned(),
    })
}

/// Reads a small file of a model folder, refusing absurd sizes.
///
/// # Errors
/// [`EngineError::Io`] or [`EngineError::BadField`].
pub fn read_file(path: &Path) -> Result<Vec<u8>, EngineError> {
    let metadata = std::fs::metadata(path).map_err(|error| EngineError::io(path, "read", error))?;
    if metadata.len() > MAX_JSON_BYTES {
        return Err(EngineError::BadField {
            path: path.to_owned(),
            field: "the size".to_owned(),
            got: format!("{} bytes", metadata.len()),
            expected: format!("at most {MAX_JSON_BYTES}"),
        });
    }
    std::fs::read(path).map_err(|error| EngineError::io(path, "read", error))
}

/// The index: tensor name to shard file name. Names that would leave the folder are refused.
fn shard_list(path: &Path) -> Result<HashMap<String, String>, EngineError> {
    let json = read_json(path)?;
    let bad = |got: String, expected: &str| EngineError::BadField {
        path: path.to_owned(),
        field: "weight_map".to_owned(),
        got,
        expected: expected.to_owned(),
    };
    let Some(map) = json.get("weight_map").and_then(Value::as_object) else {
        return Err(bad("not an object".to_owned(), "an object of tensor names and file names"));
    };
    let mut listed = HashMap::new();
    for (tensor, file) in map {
        match file.as_str() {
            Some(file) if is_plain_name(file) => listed.insert(tensor.clone(), file.to_owned()),
            _ => return Err(bad(format!("{file} for {tensor}"), "a file name without a folder")),
        };
    }
    Ok(listed)
}

/// True for a name that stays in its folder.
fn is_plain_name(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(_)), None))
}

const fn dtype(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}
