//! Logs of the Anthropic Messages API: recorded requests with their answers, exact but for arguments, which this API
//! sends parsed. Results that ride in a user message become tool messages. Knows this API and no other.

use serde_json::{Map, Value};

use super::claude_code::content::{self, Block, ToolResult};
use super::claude_code::names::Names;
use super::draft::Incoming;
use super::exchange::Exchange;
use super::group::{GroupFile, GroupImport};
use super::records::Record;
use super::requests::{Request, Requests};
use super::{ImportedFile, chat, number, tools};
use crate::call::Usage;
use crate::message::{Message, Origin, Part, Reasoning, Role};
use crate::session::SourceFormat;

/// Imports the files of one folder, or one file.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn import(files: Vec<GroupFile>, name: &str) -> Result<GroupImport, (String, std::io::Error)> {
    let mut requests = Requests::new(SourceFormat::Anthropic);
    let mut imported = Vec::new();
    for (number, file) in files.into_iter().enumerate() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        imported.push(file.read(|Record { line, value }, report| {
            let at = Origin { file: number, line };
            let values = if let Value::Array(values) = value { values } else { vec![value] };
            for value in values {
                match Exchange::of(value).filter(|log| log.format() == Some(SourceFormat::Anthropic)) {
                    Some(exchange) => take(exchange, at, &mut requests, report),
                    None => report.bad_message(line, "no request of the Messages API"),
                }
            }
        })?);
    }
    let sessions = requests.finish(name, Vec::new(), &mut imported);
    Ok(GroupImport::new(sessions, imported))
}

fn take(mut exchange: Exchange, at: Origin, requests: &mut Requests, report: &mut ImportedFile) {
    let model = exchange.model();
    let mut reader = BlockReader::default();
    let mut messages = Vec::new();
    if let Some(Value::Array(recorded)) = exchange.body.remove("messages") {
        for message in recorded {
            match message {
                Value::Object(message) => messages.extend(reader.read(message, at)),
                other => report.not_an_object(at.line, &other),
            }
        }
    }
    let instructions = system_prompt(exchange.body.remove("system"), at).map(Incoming::from);
    let tools = exchange.take_tools();
    let response = exchange.response.take().unwrap_or_default();
    let usage = response.get("usage").and_then(Value::as_object).map(usage);
    let completion = match response {
        Value::Object(mut response) if response.get("content").is_some_and(|content| !content.is_null()) => {
            response.insert("role".to_owned(), "assistant".into());
            reader.read(response, at).into_iter().next()
        }
        _ => None,
    };
    if reader.unknown > 0 {
        report.bad_message(at.line, format!("{} content blocks of a type that is not known", reader.unknown));
    }
    let tools = Some(tools::to_chat(tools));
    let Exchange { started, ended, gaps, .. } = exchange;
    gaps.tell(at.line, report);
    let (parent, lost_past) = (None, false);
    requests.add(Request {
        instructions,
        messages,
        completion,
        tools,
        model,
        usage,
        started,
        ended,
        at,
        parent,
        lost_past,
        is_incomplete: gaps.are_there(),
    });
}

/// A system prompt: a string, or text blocks.
pub(super) fn system_prompt(system: Option<Value>, at: Origin) -> Option<Message> {
    let blocks = content::take(system, &mut Names::default()).blocks;
    let content: Vec<Part> = blocks.into_iter().filter_map(part).collect();
    (!content.is_empty()).then(|| Message { content, origin: at, ..Message::text(Role::System, "") })
}

fn part(block: Block) -> Option<Part> {
    if let Block::Part(part) = block { Some(part) } else { None }
}

fn usage(usage: &Map<String, Value>) -> Usage {
    let count = |name: &str| usage.get(name).and_then(number::whole).unwrap_or(0);
    Usage {
        input: count("input_tokens"),
        cache_creation: count("cache_creation_input_tokens"),
        cache_read: count("cache_read_input_tokens"),
        output: count("output_tokens"),
    }
}

/// Reads the messages of one list, in order: a result takes the name of the call it answers.
#[derive(Debug, Default)]
pub(super) struct BlockReader {
    names: Names,
    /// Ids and names of the calls of the latest assistant message.
    calls: Vec<(String, String)>,
    /// Blocks of a type that is not known.
    pub unknown: u64,
}

impl BlockReader {
    /// One message as one or several: results first, each its own, then what the user side says besides. A role that is
    /// no role gives nothing.
    pub fn read(&mut self, mut message: Map<String, Value>, at: Origin) -> Vec<Incoming> {
        let role = match message.get("role").and_then(Value::as_str) {
            Some("user") => Role::User,
            Some("assistant" | "assistant_interrupted") => Role::Assistant,
            Some("system" | "developer") => Role::System,
            _ => {
                self.unknown += 1;
                return Vec::new();
            }
        };
        let taken = content::take(message.remove("content"), &mut self.names);
        self.unknown += taken.unknown;
        if role == Role::Assistant {
            vec![self.turn(taken.blocks, at)]
        } else {
            self.other(taken.blocks, role, at)
        }
    }

    fn turn(&mut self, blocks: Vec<Block>, at: Origin) -> Incoming {
        let mut message = Message { content: Vec::new(), origin: at, ..Message::text(Role::Assistant, "") };
        let mut reasoning: Option<Reasoning> = None;
        for block in blocks {
            match block {
                Block::Part(part) => message.content.push(part),
                Block::Thinking(text) => chat::join_reasoning(&mut reasoning, &text),
                Block::ToolUse(_, call) => message.tool_calls.push(call),
                Block::ToolResult(..) => self.unknown += 1,
            }
        }
        message.reasoning = reasoning;
        let named = message.tool_calls.iter().map(|call| (call.id.clone(), call.name.clone()));
        self.calls = named.collect();
        let reserialised = message.tool_calls.len() as u64;
        Incoming { message, time: None, reserialised }
    }

    fn other(&mut self, blocks: Vec<Block>, role: Role, at: Origin) -> Vec<Incoming> {
        let mut messages = Vec::new();
        let mut content = Vec::new();
        for block in blocks {
            match block {
                Block::Part(part) => content.push(part),
                Block::ToolResult(id, result) => {
                    let id = self.names.text(id).to_owned();
                    messages.push(Incoming::from(self.result(id, result, at)));
                }
                Block::Thinking(_) | Block::ToolUse(..) => self.unknown += 1,
            }
        }
        if !content.is_empty() || messages.is_empty() {
            messages.push(Message { content, origin: at, ..Message::text(role, "") }.into());
        }
        messages
    }

    fn result(&self, id: String, result: ToolResult, at: Origin) -> Message {
        let ToolResult { content, is_error } = result;
        let name = self.calls.iter().find(|(known, _)| *known == id).map(|(_, name)| name.clone());
        let message = Message { content, origin: at, name, is_error, ..Message::text(Role::Tool, "") };
        Message { tool_call_id: Some(id), ..message }
    }
}
