//! The canonical message: what a model is sent, whatever tool recorded it. The engine uses this module and nothing
//! else of the crate. A message knows no session, no call and no tokenizer.

use serde::{Deserialize, Serialize};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions that precede everything else (`system` or `developer`).
    System,
    /// The person, or the client speaking on the user side.
    User,
    /// The model.
    Assistant,
    /// The result of one tool call.
    Tool,
}

impl Role {
    /// The word chat templates and APIs use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One piece of a message's content, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Part {
    /// Text as it was recorded.
    Text {
        /// The text.
        text: String,
    },
    /// An image or document, kept as a placeholder: its bytes stay in the source file.
    Image {
        /// Media type as recorded, for instance `image/png`.
        media_type: String,
        /// BLAKE3 of the decoded bytes (of the recorded text where it does not decode), hex.
        digest: String,
        /// Size of the decoded bytes.
        bytes_len: u64,
        /// It was recorded as base64 and does not decode.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        undecodable: bool,
    },
}

/// A tool call made by the assistant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ToolCall {
    /// Id that the matching tool message names; as recorded.
    pub id: String,
    /// Name of the tool.
    pub name: String,
    /// The arguments as one string: the original bytes where the source keeps them, else JSON in recorded order.
    pub arguments: String,
}

/// What is known of the assistant's reasoning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Reasoning {
    /// Readable reasoning.
    Text {
        /// The reasoning.
        text: String,
    },
    /// The source holds a signature or ciphertext only: nothing to replay.
    Hidden,
}

/// Where a message stands in its source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Index into the session's list of files.
    pub file: u32,
    /// First line of the message, counted from 1; 0 when the message was made by us.
    pub line: u32,
}

/// One message of a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The content, in order. Empty means the source had none (`null`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content: Vec<Part>,
    /// Reasoning that came with an assistant message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Reasoning>,
    /// Tool calls of an assistant message, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// For a tool message: the id of the call it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// For a tool message: the name of the tool, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For a tool message: the tool reported a failure.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_error: bool,
    /// Made by a client or by an importer, not by a person, a model or a tool.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub synthetic: bool,
    /// Where the message comes from.
    #[serde(default)]
    pub origin: Origin,
}

impl Message {
    /// A message that holds one text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            content: vec![Part::Text { text: text.into() }],
            reasoning: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
            is_error: false,
            synthetic: false,
            origin: Origin::default(),
        }
    }

    /// The content as one string: texts joined as they are, each image as `[media/type, N bytes]`.
    pub fn flat_text(&self) -> String {
        let mut flat = String::new();
        for part in &self.content {
            match part {
                Part::Text { text } => flat.push_str(text),
                Part::Image { media_type, bytes_len, .. } => {
                    flat.push_str(&format!("[{media_type}, {bytes_len} bytes]"));
                }
            }
        }
        flat
    }

    /// The readable reasoning, if there is any.
    pub fn reasoning_text(&self) -> Option<&str> {
        match &self.reasoning {
            Some(Reasoning::Text { text }) => Some(text),
            _ => None,
        }
    }

    /// Unicode characters of text, reasoning, tool-call names and arguments: the size that importers are checked by.
    pub fn chars(&self) -> u64 {
        let count = |text: &str| text.chars().count() as u64;
        let content: u64 = self
            .content
            .iter()
            .map(|part| match part {
                Part::Text { text } => count(text),
                Part::Image { .. } => 0,
            })
            .sum();
        let calls: u64 = self.tool_calls.iter().map(|call| count(&call.name) + count(&call.arguments)).sum();
        content + self.reasoning_text().map_or(0, count) + calls
    }
}
