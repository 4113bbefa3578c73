//! Messages to prompt text, through the model's own Jinja chat template. The environment behaves as the one
//! that Python's transformers renders in: trimmed blocks, Python's methods on strings and dictionaries,
//! Python's `tojson`. No clock: `strftime_now` is left undefined, so a template must bring its own date and
//! the same call renders the same bytes.

mod places;
mod python;
mod template;

pub use places::Place;
pub use template::{ChatTemplate, Generation, TemplateOrigin, Thinking};
