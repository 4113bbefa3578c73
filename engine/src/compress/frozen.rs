//! What a message became when it was first seen, and the key under which that is remembered. Knows bytes and digests;
//! knows no drafter, no memo and no file.

use std::borrow::Cow;
use std::ops::Range;

use crate::compress::elision::{Form, render};
use crate::compress::select::SelectParams;
use crate::digest;
use crate::error::EngineError;

/// Version of keys, values and the memo's file. A change of scoring, selection or rendering that changes what is sent
/// raises it.
pub const SCHEMA: u32 = 3;

/// Everything that decides what is kept of a message.
#[derive(Clone, Copy, Debug)]
pub struct KeyParts<'a> {
    /// Digest of the drafter's weights and configuration.
    pub drafter_digest: &'a str,
    /// Digest of the drafter's tokenizer.
    pub tokenizer_digest: &'a str,
    /// Settings of score and selection, written out.
    pub settings: &'a str,
    /// Units and share of the selection.
    pub select: SelectParams,
    /// Digest of what the message was made for; empty if neither score nor selection looks at that.
    pub birth_query_digest: &'a [u8],
    /// Name of the tool that made the message; empty if it has none.
    pub tool_name: &'a str,
    /// The message as it came.
    pub raw: &'a str,
}

/// Address of a frozen message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FreezeKey([u8; 32]);

impl FreezeKey {
    /// The key of these parts under this [`SCHEMA`]; a change of any of them gives another.
    pub fn new(parts: &KeyParts<'_>) -> Self {
        let fields: [&[u8]; 10] = [
            &SCHEMA.to_le_bytes(),
            parts.drafter_digest.as_bytes(),
            parts.tokenizer_digest.as_bytes(),
            parts.settings.as_bytes(),
            &parts.select.keep_permille.to_le_bytes(),
            &(parts.select.chunk as u64).to_le_bytes(),
            &(parts.select.pool as u64).to_le_bytes(),
            parts.birth_query_digest,
            parts.tool_name.as_bytes(),
            parts.raw.as_bytes(),
        ];
        Self(digest::of_fields("reprise engine 2026 frozen message", &fields))
    }

    /// The key as it stands in a memo's file.
    pub(crate) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A key out of a memo's file.
    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// What a message became when it was first seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// Sent as it came.
    Verbatim,
    /// Sent as the kept parts.
    Compressed {
        /// Kept bytes of the raw message: ascending, not empty, not overlapping.
        ranges: Vec<Range<usize>>,
        /// What stands between them.
        form: Form,
        /// First 16 bytes of BLAKE3 of the text that is sent.
        text_digest: [u8; 16],
        /// Drafter tokens of the raw message.
        tokens_raw: u64,
        /// Drafter tokens of the kept parts, and of a marker for each gap.
        tokens_kept: u64,
    },
}

impl Frozen {
    /// The kept parts of `raw` in a form.
    ///
    /// # Errors
    /// [`EngineError::FrozenMismatch`] if a kept range does not lie in `raw` at character boundaries.
    pub fn compressed(
        raw: &str,
        ranges: Vec<Range<usize>>,
        form: Form,
        [tokens_raw, tokens_kept]: [u64; 2],
    ) -> Result<Self, EngineError> {
        let text_digest = digest_of(&rendered(raw, &ranges, form)?);
        Ok(Self::Compressed { ranges, form, text_digest, tokens_raw, tokens_kept })
    }

    /// The text that stands in the prompt for `raw`.
    ///
    /// # Errors
    /// [`EngineError::FrozenMismatch`] if a kept range does not lie in `raw` at character boundaries, or the text is not
    /// the one that was frozen.
    pub fn text<'a>(&self, raw: &'a str) -> Result<Cow<'a, str>, EngineError> {
        let Self::Compressed { ranges, form, text_digest, .. } = self else { return Ok(Cow::Borrowed(raw)) };
        let text = rendered(raw, ranges, *form)?;
        if digest_of(&text) != *text_digest {
            let detail =
                format!("the kept parts of a text of {} bytes are not what was sent before", raw.len());
            return Err(EngineError::FrozenMismatch { detail });
        }
        Ok(Cow::Owned(text))
    }

    /// Whether the fields hold together, whatever the text.
    pub(crate) fn is_well_formed(&self) -> bool {
        let Self::Compressed { ranges, tokens_raw, tokens_kept, .. } = self else { return true };
        let ascending = ranges.windows(2).all(|pair| pair[0].end <= pair[1].start);
        ascending && ranges.iter().all(|range| range.start < range.end) && tokens_kept <= tokens_raw
    }
}

fn rendered(raw: &str, ranges: &[Range<usize>], form: Form) -> Result<String, EngineError> {
    render(raw, ranges, form).ok_or_else(|| {
        let detail = format!("bytes {ranges:?} are no whole characters of a text of {} bytes", raw.len());
        EngineError::FrozenMismatch { detail }
    })
}

fn digest_of(text: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    short
}
