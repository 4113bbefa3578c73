//! The key-value pairs of a GGUF file. Arrays stay in the mapped file and are decoded when asked for, so a
//! forged length costs nothing. It knows no particular key.

use std::collections::HashMap;
use std::path::Path;

use crate::error::EngineError;

use super::cursor::Cursor;

/// Longest key that ggml accepts.
const MAX_KEY_BYTES: usize = 1 << 16;
/// What to do about a key that is not there.
const MISSING: &str = "convert the model again with a current converter";

/// The type code of a value, as in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    fn read(cursor: &mut Cursor<'_>, key: &str) -> Result<Self, EngineError> {
        use Kind::*;
        const KINDS: [Kind; 13] = [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64];
        let code = cursor.u32(key)?;
        KINDS.get(code as usize).copied().ok_or_else(|| {
            cursor.bad(key, format!("of type {code}"), "a value type from 0 to 12; the file is damaged")
        })
    }

    /// Bytes per element; `None` for strings and arrays, whose size is in the data.
    const fn size(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any integer type that fits.
    Integer(i64),
    /// An unsigned integer above `i64::MAX`.
    Huge(u64),
    /// Either float type.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A text.
    String(String),
    /// An array, still in the file.
    Array(Array),
}

/// Where an array lies.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    kind: Kind,
    len: usize,
    start: usize,
}

/// All pairs of a file.
#[derive(Debug, Default)]
pub struct Metadata {
    values: HashMap<String, Value>,
}

impl Metadata {
    pub(super) fn read(cursor: &mut Cursor<'_>, n_keys: usize) -> Result<Self, EngineError> {
        let mut values = HashMap::new();
        for index in 0..n_keys {
            let key = cursor.string(&format!("the name of metadata key {index}"))?;
            if key.is_empty() || key.len() > MAX_KEY_BYTES {
                let got = format!("{} bytes long", key.len());
                return Err(cursor.bad(
                    &format!("the name of metadata key {index}"),
                    got,
                    "1 to 65536 bytes",
                ));
            }
            let value = read_value(cursor, key)?;
            if values.insert(key.to_owned(), value).is_some() {
                return Err(cursor.bad(
                    key,
                    "there twice".to_owned(),
                    "each key once; convert the model again",
                ));
            }
        }
        Ok(Self { values })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// An integer, or `None` where the key is absent.
    ///
    /// # Errors
    /// [`EngineError::BadField`] if the value is of another type.
    pub fn optional_integer(&self, path: &Path, key: &str) -> Result<Option<i64>, EngineError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Integer(value)) => Ok(Some(*value)),
            Some(other) => Err(wrong_kind(path, key, other, "an integer")),
        }
    }

    /// A float (an integer is taken too), or `None` where the key is absent.
    ///
    /// # Errors
    /// [`EngineError::BadField`] if the value is of another type.
    pub fn optional_float(&self, path: &Path, key: &str) -> Result<Option<f64>, EngineError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(value)) => Ok(Some(*value)),
            Some(Value::Integer(value)) => Ok(Some(*value as f64)),
            Some(other) => Err(wrong_kind(path, key, other, "a number")),
        }
    }

    /// A text, or `None` where the key is absent.
    ///
    /// # Errors
    /// [`EngineError::BadField`] if the value is of another type.
    pub fn optional_string(&self, path: &Path, key: &str) -> Result<Option<&str>, EngineError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_kind(path, key, other, "a text")),
        }
    }

    /// An integer that must be there.
    ///
    /// # Errors
    /// [`EngineError::MissingField`], or [`EngineError::BadField`] if the value is of another type.
    pub fn integer(&self, path: &Path, key: &str) -> Result<i64, EngineError> {
        self.optional_integer(path, key)?.ok_or_else(|| missing(path, key))
    }

    /// A float that must be there.
    ///
    /// # Errors
    /// [`EngineError::MissingField`], or [`EngineError::BadField`] if the value is of another type.
    pub fn float(&self, path: &Path, key: &str) -> Result<f64, EngineError> {
        self.optional_float(path, key)?.ok_or_else(|| missing(path, key))
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// [`EngineError::MissingField`], or [`EngineError::BadField`] if the value is of another type.
    pub fn string(&self, path: &Path, key: &str) -> Result<&str, EngineError> {
        self.optional_string(path, key)?.ok_or_else(|| missing(path, key))
    }

    fn array(&self, path: &Path, key: &str) -> Result<&Array, EngineError> {
        match self.get(key) {
            None => Err(missing(path, key)),
            Some(Value::Array(array)) => Ok(array),
            Some(other) => Err(wrong_kind(path, key, other, "an array")),
        }
    }

    pub(super) fn strings<'a>(
        &self,
        path: &'a Path,
        bytes: &'a [u8],
        key: &str,
    ) -> Result<Vec<&'a str>, EngineError> {
        let array = self.array(path, key)?;
        let mut cursor = Cursor::at(path, bytes, array.start);
        if array.kind != Kind::String {
            return Err(cursor.bad(key, format!("an array of {:?}", array.kind), "an array of texts"));
        }
        (0..array.len).map(|index| cursor.string(&format!("{key}[{index}]"))).collect()
    }

    pub(super) fn integers(&self, path: &Path, bytes: &[u8], key: &str) -> Result<Vec<i64>, EngineError> {
        let array = self.array(path, key)?;
        let mut cursor = Cursor::at(path, bytes, array.start);
        let read_one = |_| match read_scalar(&mut cursor, key, array.kind)? {
            Value::Integer(value) => Ok(value),
            _ => Err(cursor.bad(key, format!("an array of {:?}", array.kind), "an array of integers")),
        };
        (0..array.len).map(read_one).collect()
    }
}

fn read_value(cursor: &mut Cursor<'_>, key: &str) -> Result<Value, EngineError> {
    match Kind::read(cursor, key)? {
        Kind::Array => read_array(cursor, key).map(Value::Array),
        kind => read_scalar(cursor, key, kind),
    }
}

/// Walks over an array and remembers where it is. Arrays of arrays are legal but no model of ours has one.
fn read_array(cursor: &mut Cursor<'_>, key: &str) -> Result<Array, EngineError> {
    let kind = Kind::read(cursor, key)?;
    let len = cursor.u64(key)?;
    let start = cursor.position();
    match kind.size() {
        Some(size) => {
            cursor.advance(len.saturating_mul(size), key)?;
        }
        None if kind == Kind::Array => {
            return Err(cursor.bad(key, "an array of arrays".to_owned(), "an array of numbers or texts"));
        }
        None => {
            // Each text takes at least its 8-byte length, so the walk ends before the file does.
            for _ in 0..len {
                let text_len = cursor.u64(key)?;
                cursor.advance(text_len, key)?;
            }
        }
    }
    Ok(Array { kind, len: len as usize, start })
}

fn read_scalar(cursor: &mut Cursor<'_>, key: &str, kind: Kind) -> Result<Value, EngineError> {
    Ok(match kind {
        Kind::U8 => Value::Integer(cursor.u8(key)?.into()),
        Kind::I8 => Value::Integer(i64::from(cursor.u8(key)? as i8)),
        Kind::U16 => Value::Integer(cursor.u16(key)?.into()),
        Kind::I16 => Value::Integer(i64::from(cursor.u16(key)? as i16)),
        Kind::U32 => Value::Integer(cursor.u32(key)?.into()),
        Kind::I32 => Value::Integer(i64::from(cursor.u32(key)? as i32)),
        Kind::I64 => Value::Integer(cursor.u64(key)? as i64),
        Kind::U64 => {
            let value = cursor.u64(key)?;
            i64::try_from(value).map_or(Value::Huge(value), Value::Integer)
        }
        Kind::F32 => Value::Float(f32::from_bits(cursor.u32(key)?).into()),
        Kind::F64 => Value::Float(f64::from_bits(cursor.u64(key)?)),
        Kind::Bool => match cursor.u8(key)? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            other => {
                return Err(cursor.bad(key, format!("the boolean {other}"), "0 or 1; the file is damaged"));
            }
        },
        Kind::String => Value::String(cursor.string(key)?.to_owned()),
        Kind::Array => return Err(cursor.bad(key, "an array".to_owned(), "a single value")),
    })
}

fn missing(path: &Path, key: &str) -> EngineError {
    EngineError::MissingField { path: path.to_owned(), field: key.to_owned(), advice: MISSING }
}

fn wrong_kind(path: &Path, key: &str, value: &Value, expected: &str) -> EngineError {
    let got = match value {
        Value::Array(array) => format!("an array of {} {:?}", array.len, array.kind),
        other => format!("{other:?}"),
    };
    EngineError::BadField { path: path.to_owned(), field: key.to_owned(), got, expected: expected.to_owned() }
}
