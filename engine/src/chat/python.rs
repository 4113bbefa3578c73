//! How Python writes values: `json.dumps` and `str`, byte for byte, because templates were written and models
//! trained with those. It knows no message and no template.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Deepest nesting that is written; far above what a tool schema has, low enough for any stack.
const MAX_DEPTH: usize = 200;

/// The arguments of transformers' `tojson` filter.
struct JsonStyle {
    /// Spaces per level; `None` keeps everything on one line.
    indent: Option<usize>,
    /// Between items.
    comma: String,
    /// Between key and value.
    colon: String,
    sort_keys: bool,
    ensure_ascii: bool,
}

/// The `tojson` filter of transformers: `json.dumps(value, ensure_ascii=False)` with optional `indent`,
/// `separators`, `sort_keys` and `ensure_ascii`.
pub(super) fn tojson(value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    let (comma, colon) = match separators.as_deref() {
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
        Some([comma, colon]) => (comma.clone(), colon.clone()),
        Some(_) => return Err(invalid("tojson: separators must be a pair of texts")),
    };
    let style = JsonStyle {
        indent,
        comma,
        colon,
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ensure_ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    let mut out = String::new();
    write_json(&mut out, value, &style, 0)?;
    Ok(out)
}

/// `str(value)`, for what a template prints. Lists and dictionaries are refused: their `repr` is never meant
/// in a prompt.
pub(super) fn str(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(String::new()),
        ValueKind::None => Ok("None".to_owned()),
        ValueKind::Bool => Ok(if value.is_true() { "True" } else { "False" }.to_owned()),
        ValueKind::Number => number(value),
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_owned()),
        kind => Err(invalid(&format!("the template prints a {kind}; it should use the tojson filter"))),
    }
}

fn write_json(out: &mut String, value: &Value, style: &JsonStyle, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(invalid("tojson: nested too deeply"));
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&number(value)?),
        ValueKind::String => write_string(out, value.as_str().unwrap_or_default(), style),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            write_block(out, ['[', ']'], items.len(), style, depth, |out, index| match items.get(index) {
                Some(item) => write_json(out, item, style, depth + 1),
                None => Ok(()),
            })?;
        }
        ValueKind::Map => write_map(out, value, style, depth)?,
        ValueKind::Undefined => return Err(invalid("tojson: the value is undefined")),
        kind => return Err(invalid(&format!("tojson: a {kind} is not JSON serialisable"))),
    }
    Ok(())
}

fn write_map(out: &mut String, value: &Value, style: &JsonStyle, depth: usize) -> Result<(), Error> {
    let mut entries = Vec::new();
    for key in value.try_iter()? {
        let name = match key.kind() {
            ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
            ValueKind::None => "null".to_owned(),
            ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
            ValueKind::Number => number(&key)?,
            kind => return Err(invalid(&format!("tojson: a {kind} cannot be a key"))),
        };
        entries.push((name, value.get_item(&key)?));
    }
    if style.sort_keys {
        // Rust compares UTF-8 bytes, Python code points: the same order.
        entries.sort_by(|left, right| left.0.cmp(&right.0));
    }
    write_block(out, ['{', '}'], entries.len(), style, depth, |out, index| {
        let Some((name, item)) = entries.get(index) else { return Ok(()) };
        write_string(out, name, style);
        out.push_str(&style.colon);
        write_json(out, item, style, depth + 1)
    })
}

/// Brackets, commas and line breaks around `len` items.
fn write_block(
    out: &mut String,
    [open, close]: [char; 2],
    len: usize,
    style: &JsonStyle,
    depth: usize,
    mut write_item: impl FnMut(&mut String, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    let new_line = |out: &mut String, level: usize| {
        if let Some(indent) = style.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * level));
        }
    };
    out.push(open);
    for index in 0..len {
        if index > 0 {
            out.push_str(&style.comma);
        }
        new_line(out, depth + 1);
        write_item(out, index)?;
    }
    if len > 0 {
        new_line(out, depth);
    }
    out.push(close);
    Ok(())
}

fn write_string(out: &mut String, text: &str, style: &JsonStyle) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' => write_escape(out, c as u16),
            _ if style.ensure_ascii && !(' '..='~').contains(&c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write_escape(out, *unit);
                }
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

fn write_escape(out: &mut String, unit: u16) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\u{unit:04x}");
}

/// An integer in decimal or a float as Python's `repr` writes it.
fn number(value: &Value) -> Result<String, Error> {
    if value.is_integer() {
        return match i128::try_from(value.clone()) {
            Ok(integer) => Ok(integer.to_string()),
            Err(_) => u128::try_from(value.clone()).map(|integer| integer.to_string()),
        };
    }
    f64::try_from(value.clone()).map(float_repr)
}

/// Python's `repr` of a float: the shortest digits that read back the same, in positional notation for
/// decimal exponents from -4 to 15, else with an exponent of at least two digits. `json.dumps` writes the
/// same, and `NaN`, `Infinity`.
fn float_repr(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    // Rust's `{:e}` gives the same shortest digits: "-1.25e-7".
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let positional = value.to_string();
        return if positional.contains('.') { positional } else { positional + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

fn invalid(problem: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        // Left: the value. Right: what `repr` prints in Python 3.11.
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e-4, "0.0001"),
            (1.5e-5, "1.5e-05"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (-2.5e-10, "-2.5e-10"),
            (3.3333333333333335, "3.3333333333333335"),
            (9007199254740993.0, "9007199254740992.0"),
        ];
        for (value, expected) in cases {
            assert_eq!(float_repr(value), expected);
        }
    }

    #[test]
    fn values_print_as_in_python_and_containers_are_refused() {
        let print = |value: Value| str(&value);
        assert_eq!(print(Value::from(true)).unwrap(), "True");
        assert_eq!(print(Value::from(())).unwrap(), "None");
        assert_eq!(print(Value::UNDEFINED).unwrap(), "");
        assert_eq!(print(Value::from(1e16)).unwrap(), "1e+16");
        assert_eq!(print(Value::from(u64::MAX)).unwrap(), "18446744073709551615");
        assert!(print(Value::from(vec![1, 2])).unwrap_err().to_string().contains("tojson"));
    }
}
