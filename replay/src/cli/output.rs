//! Standard output: the one place that writes data.

use std::io::{self, IsTerminal, Write};

use reports::render::terminal::Color;
use serde::Serialize;

use crate::error::ReplayError;

/// Writes a text to stdout.
///
/// # Errors
/// Stdout refuses.
pub fn text(text: &str) -> Result<(), ReplayError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| ReplayError::Io { action: "standard output", source })
}

/// Writes a value to stdout as indented JSON and a line end.
///
/// # Errors
/// The value is no JSON, or stdout refuses.
pub fn json(value: &impl Serialize) -> Result<(), ReplayError> {
    text(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Writes a value to stdout as one line of JSON.
///
/// # Errors
/// The value is no JSON, or stdout refuses.
pub fn json_line(value: &impl Serialize) -> Result<(), ReplayError> {
    text(&(serde_json::to_string(value)? + "\n"))
}

/// Whether data on stdout may be coloured: on a terminal, unless `NO_COLOR` is set to anything but the empty string.
pub fn color() -> Color {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if refused || !io::stdout().is_terminal() { Color::Never } else { Color::Always }
}
