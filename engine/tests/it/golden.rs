//! Reads the golden data of `tests/golden` (see its SOURCE.md). Used by every test that compares with Python. Paths are
//! relative to the crate, where Cargo runs tests, so that the binary also runs in a copy of the project.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

/// A file of the golden model.
pub fn pico(file: &str) -> PathBuf {
    Path::new("tests/golden/pico").join(file)
}

/// A JSON file of the golden folder.
pub fn json(file: &str) -> serde_json::Value {
    let path = Path::new("tests/golden").join(file);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A safetensors file of golden values.
pub struct Tensors {
    bytes: Vec<u8>,
}

impl Tensors {
    /// Reads `tests/golden/pico/<file>`.
    pub fn open(file: &str) -> Self {
        Self { bytes: std::fs::read(pico(file)).unwrap() }
    }

    /// Shape and values of an F32 tensor, row-major.
    pub fn f32(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = tensors.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        (view.shape().to_vec(), values.collect())
    }

    /// Values of an I32 tensor of token ids.
    pub fn ids(&self, name: &str) -> Vec<u32> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = tensors.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::I32, "{name}");
        view.data().chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }
}
