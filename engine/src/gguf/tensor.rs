//! The tensor table of a GGUF file: names, shapes, types and byte ranges, all checked. It reads no tensor
//! data.

use std::path::Path;

use kernels::dtype::DType;

use crate::error::EngineError;

use super::cursor::Cursor;

/// The types that can be computed with, for error messages.
const SUPPORTED_TYPES: &str = "F32, F16, BF16, Q8_0, Q5_0, Q4_K, Q6_K";
/// ggml's own limit on dimensions.
const MAX_DIMS: u32 = 4;
/// Longest tensor name that ggml can hold is 63 bytes; the margin is for other writers.
const MAX_NAME_BYTES: usize = 256;

/// One entry of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Shape, outermost first (the file stores it innermost first): a matrix is `[rows = out, columns = in]`.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: DType,
    /// First byte, counted from the start of the data section.
    pub offset: usize,
    /// Size in bytes.
    pub n_bytes: usize,
}

impl TensorInfo {
    pub(super) fn read(cursor: &mut Cursor<'_>, alignment: u64) -> Result<Self, EngineError> {
        let name = cursor.string("a tensor's name")?;
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            let got = format!("{} bytes long", name.len());
            return Err(cursor.bad("a tensor's name", got, "1 to 256 bytes; the file is damaged"));
        }
        let n_dims = cursor.u32(name)?;
        if n_dims == 0 || n_dims > MAX_DIMS {
            return Err(cursor.bad(name, format!("a tensor of {n_dims} dimensions"), "1 to 4 dimensions"));
        }
        let mut shape = Vec::with_capacity(n_dims as usize);
        for _ in 0..n_dims {
            shape.push(cursor.u64(name)?);
        }
        shape.reverse();
        let type_id = cursor.u32(name)?;
        let offset = cursor.u64(name)?;

        let dtype = dtype(type_id).ok_or_else(|| EngineError::TensorType {
            path: cursor.path(),
            tensor: name.to_owned(),
            got: type_name(type_id),
            expected: SUPPORTED_TYPES,
        })?;
        let n_bytes = byte_size(&shape, dtype).ok_or_else(|| EngineError::TensorShape {
            path: cursor.path(),
            tensor: name.to_owned(),
            got: format!("{shape:?}"),
            expected: format!("no zero, no overflow and rows of whole {dtype} blocks"),
        })?;
        let bounds = |reason: &str| EngineError::TensorBounds {
            path: cursor.path(),
            tensor: name.to_owned(),
            start: offset,
            end: offset.saturating_add(n_bytes),
            reason: reason.to_owned(),
        };
        if !offset.is_multiple_of(alignment) {
            return Err(bounds(&format!("the start is not a multiple of the alignment {alignment}")));
        }
        let (Ok(start), Ok(size)) = (usize::try_from(offset), usize::try_from(n_bytes)) else {
            return Err(bounds("out of this machine's address space"));
        };
        let shape = shape.into_iter().map(|dim| dim as usize).collect();
        Ok(Self { name: name.to_owned(), shape, dtype, offset: start, n_bytes: size })
    }
}

/// Every tensor lies inside the data section, and no two share a byte.
pub(super) fn check_layout(
    path: &Path,
    tensors: &[TensorInfo],
    data_start: u64,
    file_len: u64,
) -> Result<(), EngineError> {
    let data_len = file_len.saturating_sub(data_start);
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.offset);
    let mut previous: Option<(&TensorInfo, u64)> = None;
    for tensor in order {
        let start = tensor.offset as u64;
        let end = start.saturating_add(tensor.n_bytes as u64);
        let error = |reason| EngineError::TensorBounds {
            path: path.to_owned(),
            tensor: tensor.name.clone(),
            start,
            end,
            reason,
        };
        if end > data_len {
            let reason = format!(
                "the data ends at byte {data_len} (file size {file_len}): the file is cut short or damaged; \
                 copy or download it again"
            );
            return Err(error(reason));
        }
        if let Some((other, other_end)) = previous
            && start < other_end
        {
            return Err(error(format!("it overlaps tensor {}; convert the model again", other.name)));
        }
        previous = Some((tensor, end));
    }
    Ok(())
}

/// Size in bytes of a tensor, or `None` if the shape is empty, overflows, or splits a block.
fn byte_size(shape: &[u64], dtype: DType) -> Option<u64> {
    let (&columns, outer) = shape.split_last()?;
    let rows = outer.iter().try_fold(1_u64, |rows, &dim| rows.checked_mul(dim))?;
    if rows == 0 || columns == 0 {
        return None;
    }
    let row_bytes = dtype.row_bytes(usize::try_from(columns).ok()?).ok()? as u64;
    // ggml counts elements in i64.
    rows.checked_mul(columns).filter(|&elements| elements <= i64::MAX as u64)?;
    rows.checked_mul(row_bytes)
}

/// The supported type of a ggml type id.
const fn dtype(type_id: u32) -> Option<DType> {
    Some(match type_id {
        0 => DType::F32,
        1 => DType::F16,
        6 => DType::Q5_0,
        8 => DType::Q8_0,
        12 => DType::Q4K,
        14 => DType::Q6K,
        30 => DType::BF16,
        _ => return None,
    })
}

/// The name ggml gives a type id, for messages about types that are not supported.
fn type_name(type_id: u32) -> String {
    let name = match type_id {
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q5_1",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        13 => "Q5_K",
        15 => "Q8_K",
        16..=23 | 29 => "an IQ type",
        24..=27 => "an integer type",
        28 => "F64",
        34 | 35 => "a ternary type",
        39 => "MXFP4",
        _ => "an unknown type",
    };
    format!("{name} (ggml type {type_id})")
}
