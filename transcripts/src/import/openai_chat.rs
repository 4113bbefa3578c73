//! Logs in the form of OpenAI chat completions: recorded requests (proxies, gateways, OpenHands), message lists, lists
//! of runs (`traj` or `messages`), mini-swe-agent trajectories. A recorded request is exact; from a list of messages
//! every turn of the assistant is a call with all messages before it. Knows these shapes and no other.

use serde_json::{Map, Value};

use super::chat::{self, ChatReader};
use super::draft::{Draft, DraftCall, Incoming, Store};
use super::exchange::Exchange;
use super::group::{GroupFile, GroupImport};
use super::records::Record;
use super::requests::{Request, Requests};
use super::{ImportedFile, number, tools};
use crate::call::Usage;
use crate::fidelity::Reason;
use crate::message::{Origin, Role};
use crate::session::{IssueKind, SourceFormat};

/// The deepest list of lists that is looked into.
const MAX_DEPTH: usize = 3;

/// True when a value is one of the shapes this importer reads.
pub(super) fn is_recognised(value: &Value) -> bool {
    match value {
        Value::Array(items) => {
            let mut items = items.iter().take(16);
            items.any(|item| is_message_list(item) || is_recognised_object(item))
        }
        other => is_recognised_object(other),
    }
}

fn is_recognised_object(value: &Value) -> bool {
    is_run(value)
        || chat::is_message(value)
        || Exchange::of(value.clone())
            .is_some_and(|exchange| exchange.format() == Some(SourceFormat::OpenaiChat))
}

fn is_message_list(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().take(16).any(chat::is_message))
}

/// A recorded run: its messages with the assistant's turns among them.
fn is_run(value: &Value) -> bool {
    messages_of(value).is_some_and(is_message_list)
}

fn messages_of(value: &Value) -> Option<&Value> {
    value.get("traj").or_else(|| value.get("messages"))
}

/// Imports the files of one folder, or one file.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn import(files: Vec<GroupFile>, name: &str) -> Result<GroupImport, (String, std::io::Error)> {
    let mut reader = Reader { requests: Requests::new(SourceFormat::OpenaiChat), runs: Vec::new() };
    let mut imported = Vec::new();
    for (number, file) in files.into_iter().enumerate() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let mut lines = Run::new(file.stem.clone(), Origin { file: number, line: 0 });
        let mut count = 0;
        let report = file.read(|Record { line, value }, report| {
            let at = Origin { file: number, line };
            match chat::is_message(&value) {
                true => lines.push(value, at, &mut reader.requests.store, report),
                false => reader.take(value, at, &file.stem, &mut count, report),
            }
        })?;
        reader.runs.push(lines.draft);
        imported.push(report);
    }
    let sessions = reader.requests.finish(name, reader.runs, &mut imported);
    Ok(GroupImport::new(sessions, imported))
}

struct Reader {
    requests: Requests,
    runs: Vec<Draft>,
}

impl Reader {
    /// Takes one value of a file; `count` numbers the runs of the file.
    fn take(&mut self, value: Value, at: Origin, stem: &str, count: &mut usize, report: &mut ImportedFile) {
        let mut waiting = vec![(value, 0)];
        while let Some((value, depth)) = waiting.pop() {
            if is_message_list(&value) || is_run(&value) && !self.is_request(&value) {
                let id = if *count == 0 && depth == 0 { stem.to_owned() } else { format!("{stem}-{count}") };
                *count += 1;
                let mut run = Run::new(id, at);
                run.take(value, at, &mut self.requests.store, report);
                self.runs.push(run.draft);
                continue;
            }
            match value {
                Value::Array(items) if depth < MAX_DEPTH => {
                    waiting.extend(items.into_iter().rev().map(|item| (item, depth + 1)));
                }
                value => match Exchange::of(value)
                    .filter(|exchange| exchange.format() == Some(SourceFormat::OpenaiChat))
                {
                    Some(exchange) => self.request(exchange, at, report),
                    None => report.bad_message(at.line, "neither a request, a run nor a message"),
                },
            }
        }
    }

    fn is_request(&self, value: &Value) -> bool {
        Exchange::of(value.clone())
            .is_some_and(|exchange| exchange.format() == Some(SourceFormat::OpenaiChat))
    }

    fn request(&mut self, mut exchange: Exchange, at: Origin, report: &mut ImportedFile) {
        let model = exchange.model();
        let mut chat = ChatReader::default();
        let messages = match exchange.body.remove("messages") {
            Some(Value::Array(items)) => read_all(&mut chat, items, at, report),
            _ => Vec::new(),
        };
        // Prompt-encoded tools stand in the messages; what the model wrote is the raw answer.
        let is_prompt_encoded = exchange.body.contains_key("raw_messages");
        let tools = tools::to_chat(exchange.take_tools());
        let tools = if is_prompt_encoded { Vec::new() } else { tools };
        let raw = exchange.body.remove("raw_response").filter(Value::is_object);
        let usage = exchange.response.as_ref().and_then(|response| response.get("usage")).and_then(usage);
        let answer = raw.or(exchange.response.take()).and_then(answer);
        let completion = answer.and_then(|answer| chat.read(answer, at).ok());
        let completion = completion.filter(|incoming| incoming.message.role == Role::Assistant);
        chat.tell_unknown(at, report);
        let Exchange { started, ended, gaps, .. } = exchange;
        gaps.tell(at.line, report);
        let (instructions, parent, lost_past, tools) = (None, None, false, Some(tools));
        self.requests.add(Request {
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
}

fn read_all(
    chat: &mut ChatReader,
    items: Vec<Value>,
    at: Origin,
    report: &mut ImportedFile,
) -> Vec<Incoming> {
    let mut messages = Vec::with_capacity(items.len());
    for item in items {
        match chat.read(item, at) {
            Ok(incoming) => messages.push(incoming),
            Err(reason) => report.bad_message(at.line, reason),
        }
    }
    messages
}

/// The message of a recorded answer: a chat completion, a message, or its text.
fn answer(response: Value) -> Option<Value> {
    let message = |text: String| serde_json::json!({"role": "assistant", "content": text});
    match response {
        Value::String(text) => Some(message(text)),
        Value::Object(mut object) => {
            if let Some(Value::Array(choices)) = object.remove("choices") {
                let mut choice = choices.into_iter().next()?;
                return match choice.get_mut("message").map(Value::take) {
                    Some(message) => Some(message),
                    None => choice.get("text").and_then(Value::as_str).map(|text| message(text.to_owned())),
                };
            }
            let inner = object.remove("message").filter(Value::is_object);
            inner.or_else(|| Some(Value::Object(object)).filter(chat::is_message))
        }
        _ => None,
    }
}

/// Token counts of a chat completion. The prompt's count holds the cached tokens, under the name of each server.
pub(super) fn usage(usage: &Value) -> Option<Usage> {
    let count = |value: Option<&Value>| value.and_then(number::whole);
    let prompt = count(usage.get("prompt_tokens"))?;
    let details = usage.get("prompt_tokens_details").and_then(|details| details.get("cached_tokens"));
    let cache_read = [details, usage.get("prompt_cache_hit_tokens"), usage.get("cache_read_input_tokens")];
    let cache_read = cache_read.into_iter().find_map(count).unwrap_or(0).min(prompt);
    let cache_creation =
        count(usage.get("cache_creation_input_tokens")).unwrap_or(0).min(prompt - cache_read);
    let input = prompt - cache_read - cache_creation;
    let output = count(usage.get("completion_tokens")).unwrap_or(0);
    Some(Usage { input, cache_creation, cache_read, output })
}

/// One run: a list of messages, every turn of the assistant a call.
struct Run {
    draft: Draft,
    chat: ChatReader,
    history: Vec<u32>,
    model: Option<String>,
}

impl Run {
    fn new(id: String, at: Origin) -> Self {
        let mut draft = Draft::new(id, SourceFormat::OpenaiChat);
        draft.reasons.push(Reason::RebuiltFromLog);
        draft.files.insert(at.file);
        Self { draft, chat: ChatReader::default(), history: Vec::new(), model: None }
    }

    fn take(&mut self, value: Value, at: Origin, store: &mut Store, report: &mut ImportedFile) {
        let messages = match value {
            Value::Array(messages) => messages,
            Value::Object(mut object) => {
                self.describe(&object);
                let messages = object.remove("traj").or_else(|| object.remove("messages"));
                match messages {
                    Some(Value::Array(messages)) => messages,
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        };
        for message in messages {
            self.push(message, at, store, report);
        }
    }

    /// What a run says of itself beside its messages.
    fn describe(&mut self, run: &Map<String, Value>) {
        let info = run.get("info");
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        self.draft.source_version = text(info.and_then(|info| info.get("mini_version")));
        let tools = run.get("tools").and_then(Value::as_array).cloned();
        self.draft.tools_known = tools.is_some();
        self.draft.tools = tools::to_chat(tools.unwrap_or_default());
        self.model = text(run.get("model"));
    }

    fn push(&mut self, mut message: Value, at: Origin, store: &mut Store, report: &mut ImportedFile) {
        // mini-swe-agent closes its list with a note that is never sent.
        if message.get("role").and_then(Value::as_str) == Some("exit") {
            return;
        }
        let response = message.get_mut("extra").and_then(|extra| extra.get_mut("response")).map(Value::take);
        let unknown = self.chat.unknown_parts;
        let incoming = match self.chat.read(message, at) {
            Ok(incoming) => incoming,
            Err(reason) => return report.bad_message(at.line, reason),
        };
        for _ in unknown..self.chat.unknown_parts {
            self.draft.issue(IssueKind::UnknownBlock, at);
        }
        let is_turn = incoming.message.role == Role::Assistant;
        let index = store.push(incoming);
        if is_turn {
            let model = response.as_ref().and_then(|response| response.get("model")).and_then(Value::as_str);
            let usage = response.as_ref().and_then(|response| response.get("usage")).and_then(usage);
            let model = model.map(str::to_owned).or_else(|| self.model.clone());
            let call = DraftCall { completion: index, model, usage, ..DraftCall::default() };
            self.draft.push(&self.history, call, store);
        }
        self.history.push(index);
    }
}
