//! A prompt as the model's template and tokenizer write it, and where its messages stand in that. Knows no arm and no cache.

use std::ops::Range;

use transcripts::message::Message;

use crate::chat::{Generation, Thinking};
use crate::compress::evict::{Cuts, Rendered};
use crate::compress::frozen::Frozen;
use crate::error::EngineError;
use crate::model_source::Model;
use crate::request::Request;
use crate::spans::{Stage, StageClock};

/// A prompt that ends where the model's turn begins.
pub(crate) struct Written {
    text: String,
    /// The tokens of the text.
    pub tokens: Vec<u32>,
    /// Bytes of the text that each token comes from; empty where nobody asked.
    bytes: Vec<Range<usize>>,
}

impl Written {
    /// Renders and tokenises messages.
    pub fn new(
        model: &Model,
        messages: &[&Message],
        tools: &[serde_json::Value],
        clock: &mut StageClock,
    ) -> Result<Self, EngineError> {
        let text = rendered(model, messages, tools, clock)?;
        let tokens = clock.run(Stage::Tokenize, || model.tokenizer.encode(&text))?;
        Ok(Self { text, tokens, bytes: Vec::new() })
    }

    /// The same, with what [`Written::cuts`] needs.
    pub fn with_bytes(
        model: &Model,
        messages: &[&Message],
        tools: &[serde_json::Value],
        clock: &mut StageClock,
    ) -> Result<Self, EngineError> {
        let text = rendered(model, messages, tools, clock)?;
        let (tokens, bytes) = clock.run(Stage::Tokenize, || model.tokenizer.encode_with_offsets(&text))?;
        Ok(Self { text, tokens, bytes })
    }

    /// The rows that `decided` leaves out of this prompt, which was written from the messages as they came, with bytes.
    pub fn cuts(
        &self,
        model: &Model,
        request: &Request<'_>,
        decided: &[(usize, Frozen)],
        keep_verbatim_newest: usize,
        clock: &mut StageClock,
    ) -> Result<Cuts, EngineError> {
        let (messages, tools) = (request.messages, request.tools);
        let places = clock.run(Stage::Render, || {
            model.chat.places(&self.text, messages, tools, Generation::Prompt, Thinking::Default)
        })?;
        let boundary = model.tokenizer.id("<|im_start|>")?;
        let rendered = Rendered { tokens: &self.tokens, bytes: &self.bytes, places: &places, boundary };
        Ok(clock.run(Stage::Select, || Cuts::new(messages, decided, keep_verbatim_newest, &rendered)))
    }
}

fn rendered(
    model: &Model,
    messages: &[&Message],
    tools: &[serde_json::Value],
    clock: &mut StageClock,
) -> Result<String, EngineError> {
    clock.run(Stage::Render, || model.chat.render(messages, tools, Generation::Prompt, Thinking::Default))
}
