//! One object of a session file as what it is to the rebuild: a node of the tree with a body, or bookkeeping. Knows
//! the envelope and the line types; knows no other line.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value};

use super::attachment;
use super::content::{self, Block, take_string};
use super::names::{Name, Names};
use crate::call::Usage;
use crate::import::number;
use crate::import::stamp::Stamp;
use crate::message::Origin;

/// A node of the tree.
#[derive(Debug)]
pub(super) struct Line {
    pub at: Origin,
    pub uuid: Option<Name>,
    pub parent: Option<Name>,
    pub agent: Option<Name>,
    pub sidechain: bool,
    pub session: Option<Name>,
    pub time: Option<Stamp>,
    /// `toolUseResult.agentId`: the sub-agent whose answer this line's tool result is.
    pub result_of_agent: Option<Name>,
    pub body: Body,
}

/// What a line contributes to a request.
#[derive(Debug)]
pub(super) enum Body {
    /// User-side blocks; tool results among them.
    User {
        blocks: Vec<Block>,
        /// Written by the client, not by a person or a tool.
        synthetic: bool,
    },
    /// Blocks of one response.
    Assistant(Response),
    /// Text the client puts on the user side: an attachment or the output of a local command.
    Note { text: String, attachment: bool },
    /// History before this line is gone from later requests.
    CompactBoundary(Option<Preserved>),
    /// From this line on, these tool results are sent cleared and these attachments not at all.
    Microcompact { results: Vec<Name>, attachments: Vec<Name> },
    /// Never sent; part of the tree only.
    Silent,
}

/// The messages a compaction kept, and the line they now follow.
#[derive(Debug)]
pub(super) struct Preserved {
    pub anchor: Name,
    pub first: Name,
    pub last: Name,
    /// Each kept message, where the file lists them; else they are the parents of `last` up to `first`.
    pub listed: Vec<Name>,
}

/// The lines' share in one response.
#[derive(Debug)]
pub(super) struct Response {
    /// `message.id`, else `requestId`, else the uuid: all lines of one response share it.
    pub id: Name,
    /// Names the response across files: message id, request id and a digest of the line's blocks. `None` without a
    /// message id.
    pub wire_id: Option<Name>,
    pub model: Option<Name>,
    pub usage: Option<Usage>,
    /// `apiBlockIndex`, from late 2026 on: of the lines of a response, the counts of the highest one hold.
    pub block_index: u64,
    pub blocks: Vec<Block>,
}

/// A sub-agent's message that the parent's file copies into a progress line.
#[derive(Debug)]
pub(super) struct AgentCopy {
    pub line: Line,
    /// The tool call that started the agent.
    pub tool_use: Option<Name>,
    /// What the agent was asked.
    pub prompt: Option<String>,
}

/// What one object of the file is.
#[derive(Debug)]
pub(super) enum Entry {
    /// A node of the tree.
    Line(Line),
    /// A node that is never sent, with the sub-agent message it carries.
    Progress(Line, Option<Box<AgentCopy>>),
    /// A response the client made up: a node that is never sent.
    ClientResponse(Line),
    /// From here on, these tool results are sent as these texts.
    Replacements(Vec<(Name, String)>),
    /// An agent's history starts with the parent's, up to this line.
    Fork { agent: Name, last: Name },
    /// Bookkeeping of the client: never sent.
    Bookkeeping,
    /// Changes requests in a way that is not understood.
    UnknownProjection(String),
    /// A type this importer does not know; a node of the tree if it has a uuid.
    Unknown(String, Option<Line>),
    /// A message line without a message.
    BadMessage(Line, String),
}

/// An entry and what else its object says.
#[derive(Debug)]
pub(super) struct Parsed {
    pub entry: Entry,
    pub unknown_blocks: u64,
    pub version: Option<String>,
}

/// Line types without a uuid that never reach a request.
const BOOKKEEPING: [&str; 38] = [
    "summary",
    "file-history-snapshot",
    "file-history-delta",
    "queue-operation",
    "custom-title",
    "ai-title",
    "custom-summary",
    "agent-name",
    "agent-color",
    "agent-setting",
    "session-agent",
    "tag",
    "last-prompt",
    "permission-mode",
    "mode",
    "pr-link",
    "frame-link",
    "bridge-session",
    "worktree-state",
    "relocated",
    "started",
    "result",
    "x-quota",
    "cost-state",
    "continued-in",
    "ended-by-model",
    "history-suppression",
    "isolation-latch",
    "atis-latch",
    "observer-ref",
    "attribution-snapshot",
    "artifact-comment-monitor",
    "artifact-autoreact-ledger",
    "saved_hook_context",
    "speculation-accept",
    "task-summary",
    "session-start",
    "session-end",
];

/// Types that change the request in a way only the client knows.
const UNKNOWN_PROJECTIONS: [&str; 3] =
    ["marble-origami-commit", "marble-origami-snapshot", "marble-origami-reset"];

/// True when an object's type and members are those of a Claude Code file.
pub(in crate::import) fn is_recognised(object: &Map<String, Value>) -> bool {
    let Some(kind) = object.get("type").and_then(Value::as_str) else { return false };
    match kind {
        "user" | "assistant" => {
            let in_a_session = object.contains_key("sessionId") || object.contains_key("uuid");
            in_a_session && object.get("message").is_some_and(Value::is_object)
        }
        "system" | "attachment" | "progress" => {
            object.contains_key("uuid") && object.contains_key("sessionId")
        }
        "content-replacement" | "fork-context-ref" => true,
        _ => BOOKKEEPING.contains(&kind) || UNKNOWN_PROJECTIONS.contains(&kind),
    }
}

/// Reads one object.
pub(super) fn parse(mut object: Map<String, Value>, at: Origin, names: &mut Names) -> Parsed {
    let kind = take_string(&mut object, "type");
    let version = object.get("version").and_then(Value::as_str).map(str::to_owned);
    let mut unknown_blocks = 0;
    let entry = match kind.as_str() {
        "user" => user(object, at, names, &mut unknown_blocks),
        "assistant" => assistant(object, at, names, &mut unknown_blocks),
        "system" => system(&mut object, at, names),
        "attachment" => {
            let text = object.get("attachment").and_then(Value::as_object).and_then(attachment::text);
            let body = text.map_or(Body::Silent, |text| Body::Note { text, attachment: true });
            Entry::Line(envelope(&object, at, names, body))
        }
        "progress" => {
            let copy = agent_copy(&mut object, at, names, &mut unknown_blocks);
            Entry::Progress(envelope(&object, at, names, Body::Silent), copy.map(Box::new))
        }
        "content-replacement" => replacements(&object, names),
        "fork-context-ref" => fork(&object, names),
        _ if UNKNOWN_PROJECTIONS.contains(&kind.as_str()) => Entry::UnknownProjection(kind),
        _ if BOOKKEEPING.contains(&kind.as_str()) => Entry::Bookkeeping,
        _ => {
            let line = object.contains_key("uuid").then(|| envelope(&object, at, names, Body::Silent));
            Entry::Unknown(if kind.is_empty() { "(no type)".to_owned() } else { kind }, line)
        }
    };
    Parsed { entry, unknown_blocks, version }
}

fn envelope(object: &Map<String, Value>, at: Origin, names: &mut Names, body: Body) -> Line {
    let mut name = |field: &str| {
        let text = object.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.map(|text| names.intern(text))
    };
    let (uuid, parent) = (name("uuid"), name("parentUuid"));
    let (agent, session) = (name("agentId"), name("sessionId"));
    let result_of_agent = object
        .get("toolUseResult")
        .and_then(|result| result.get("agentId"))
        .and_then(Value::as_str)
        .map(|agent| names.intern(agent));
    Line {
        at,
        uuid,
        parent,
        agent,
        sidechain: object.get("isSidechain").and_then(Value::as_bool).unwrap_or(false),
        session,
        time: object.get("timestamp").and_then(Value::as_str).and_then(Stamp::parse),
        result_of_agent,
        body,
    }
}

fn user(mut object: Map<String, Value>, at: Origin, names: &mut Names, unknown: &mut u64) -> Entry {
    let flag = |name: &str| object.get(name).and_then(Value::as_bool).unwrap_or(false);
    // From late 2026 on a line says who wrote it: a person, a peer session, the client.
    let origin = object.get("origin").and_then(|origin| origin.get("kind")).and_then(Value::as_str);
    let by_other = origin.is_some_and(|kind| kind != "human");
    let by_client = flag("isMeta") || flag("isCompactSummary") || by_other;
    let message = object.remove("message");
    let line = envelope(&object, at, names, Body::Silent);
    let Some(Value::Object(mut message)) = message else {
        return Entry::BadMessage(line, "a user line without a message object".to_owned());
    };
    let content = content::take(message.remove("content"), names);
    *unknown += content.unknown;
    let synthetic = by_client || content.blocks.first().is_some_and(is_client_text);
    Entry::Line(Line { body: Body::User { blocks: content.blocks, synthetic }, ..line })
}

/// User-side strings that no person typed.
fn is_client_text(block: &Block) -> bool {
    const OPENINGS: [&str; 9] = [
        "<command-name>",
        "<command-message>",
        "<local-command-stdout>",
        "<local-command-stderr>",
        "<local-command-caveat>",
        "[Request interrupted by user",
        "<task-notification>",
        "<teammate-message",
        "<system-reminder>",
    ];
    match block {
        Block::Part(crate::message::Part::Text { text }) => {
            OPENINGS.iter().any(|opening| text.starts_with(opening))
        }
        _ => false,
    }
}

fn assistant(mut object: Map<String, Value>, at: Origin, names: &mut Names, unknown: &mut u64) -> Entry {
    let message = object.remove("message");
    let line = envelope(&object, at, names, Body::Silent);
    let Some(Value::Object(mut message)) = message else {
        return Entry::BadMessage(line, "an assistant line without a message object".to_owned());
    };
    let model = take_string(&mut message, "model");
    if model == "<synthetic>" || object.get("isApiErrorMessage").and_then(Value::as_bool).unwrap_or(false) {
        return Entry::ClientResponse(line);
    }
    let message_id = take_string(&mut message, "id");
    let request_id = take_string(&mut object, "requestId");
    let own = match line.uuid {
        Some(uuid) => names.text(uuid).to_owned(),
        None => format!("file {} line {}", at.file, at.line),
    };
    let id = [message_id.as_str(), request_id.as_str(), own.as_str()].into_iter().find(|id| !id.is_empty());
    let id = names.intern(id.unwrap_or_default());
    let content = content::take(message.remove("content"), names);
    *unknown += content.unknown;
    // Gateways may give every response the same id: a copy in another file also has the same blocks.
    let mut blocks = DefaultHasher::new();
    content.blocks.hash(&mut blocks);
    let wire_id = format!("{message_id} {request_id} {:016x}", blocks.finish());
    let wire_id = (!message_id.is_empty()).then(|| names.intern(&wire_id));
    let response = Response {
        id,
        wire_id,
        model: (!model.is_empty()).then(|| names.intern(&model)),
        usage: message.get("usage").and_then(Value::as_object).map(usage),
        block_index: object.get("apiBlockIndex").and_then(number::whole).unwrap_or(0),
        blocks: content.blocks,
    };
    Entry::Line(Line { body: Body::Assistant(response), ..line })
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

fn system(object: &mut Map<String, Value>, at: Origin, names: &mut Names) -> Entry {
    let subtype = take_string(object, "subtype");
    let body = match subtype.as_str() {
        "compact_boundary" => Body::CompactBoundary(preserved(object.get("compactMetadata"), names)),
        "microcompact_boundary" => {
            let metadata = object.get("microcompactMetadata");
            Body::Microcompact {
                results: name_list(metadata, "compactedToolIds", names),
                attachments: name_list(metadata, "clearedAttachmentUUIDs", names),
            }
        }
        "local_command" => match take_string(object, "content") {
            text if text.is_empty() => Body::Silent,
            text => Body::Note { text, attachment: false },
        },
        _ => Body::Silent,
    };
    Entry::Line(envelope(object, at, names, body))
}

fn preserved(metadata: Option<&Value>, names: &mut Names) -> Option<Preserved> {
    let messages = metadata.and_then(|metadata| metadata.get("preservedMessages"));
    let listed = name_list(messages, "uuids", names);
    let mut name = |from: Option<&Value>, field: &str| Some(names.intern(from?.get(field)?.as_str()?));
    if let (Some(&first), Some(&last)) = (listed.first(), listed.last()) {
        return Some(Preserved { anchor: name(messages, "anchorUuid")?, first, last, listed });
    }
    let segment = metadata.and_then(|metadata| metadata.get("preservedSegment"));
    let (first, last) = (name(segment, "headUuid")?, name(segment, "tailUuid")?);
    Some(Preserved { anchor: name(segment, "anchorUuid")?, first, last, listed })
}

fn name_list(object: Option<&Value>, field: &str, names: &mut Names) -> Vec<Name> {
    let items = object.and_then(|object| object.get(field)).and_then(Value::as_array);
    items.into_iter().flatten().filter_map(Value::as_str).map(|text| names.intern(text)).collect()
}

fn replacements(object: &Map<String, Value>, names: &mut Names) -> Entry {
    let items = object.get("replacements").and_then(Value::as_array);
    let replaced: Vec<(Name, String)> = items
        .into_iter()
        .flatten()
        .filter_map(|item| {
            let id = item.get("toolUseId").or_else(|| item.get("tool_use_id"))?.as_str()?;
            Some((names.intern(id), item.get("replacement")?.as_str()?.to_owned()))
        })
        .collect();
    match replaced.is_empty() {
        true => Entry::UnknownProjection("content-replacement".to_owned()),
        false => Entry::Replacements(replaced),
    }
}

fn fork(object: &Map<String, Value>, names: &mut Names) -> Entry {
    let mut name = |field: &str| object.get(field).and_then(Value::as_str).map(|text| names.intern(text));
    match (name("agentId"), name("parentLastUuid")) {
        (Some(agent), Some(last)) => Entry::Fork { agent, last },
        _ => Entry::UnknownProjection("fork-context-ref".to_owned()),
    }
}

/// The message inside an `agent_progress` line.
fn agent_copy(
    object: &mut Map<String, Value>,
    at: Origin,
    names: &mut Names,
    unknown: &mut u64,
) -> Option<AgentCopy> {
    let Some(Value::Object(mut data)) = object.remove("data") else { return None };
    if data.get("type").and_then(Value::as_str) != Some("agent_progress") {
        return None;
    }
    let agent = data.get("agentId").and_then(Value::as_str).filter(|agent| !agent.is_empty())?;
    let agent = names.intern(agent);
    let Some(Value::Object(mut inner)) = data.remove("message") else { return None };
    let kind = take_string(&mut inner, "type");
    for field in ["sessionId", "timestamp"] {
        if let (false, Some(value)) = (inner.contains_key(field), object.get(field)) {
            inner.insert(field.to_owned(), value.clone());
        }
    }
    let entry = match kind.as_str() {
        "user" => user(inner, at, names, unknown),
        "assistant" => assistant(inner, at, names, unknown),
        _ => return None,
    };
    let Entry::Line(line) = entry else { return None };
    let tool_use = object.get("parentToolUseID").and_then(Value::as_str).map(|id| names.intern(id));
    let prompt = take_string(&mut data, "prompt");
    Some(AgentCopy {
        line: Line { agent: Some(agent), sidechain: true, ..line },
        tool_use,
        prompt: (!prompt.is_empty()).then_some(prompt),
    })
}
