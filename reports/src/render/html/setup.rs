//! What was run, on what, and how to do it again: sessions, models, machine, settings, definitions.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::Value;

use crate::metrics::{Direction, METRICS};
use crate::number::{bytes, count};
use crate::report::Report;

/// `"target <name>"` and `"drafter <name>"`, of models that have a name.
pub(super) fn model_names(report: &Report) -> Vec<String> {
    let name = |value: &Value| value.as_str().or_else(|| value.get("name")?.as_str()).map(str::to_string);
    let named = report.manifest.models.iter().filter_map(|(role, value)| Some((role, name(value)?)));
    let mut names: Vec<_> = named.collect();
    // The one that answers comes first.
    names.sort_by_key(|(role, _)| role.as_str() != "target");
    names.into_iter().map(|(role, name)| format!("{role} {name}")).collect()
}

/// Name of the processor.
pub(super) fn machine_name(report: &Report) -> Option<&str> {
    report.manifest.machine.get("cpu")?.as_str().filter(|name| !name.is_empty())
}

/// The section at the end of the page.
pub(super) fn section(report: &Report) -> Markup {
    let manifest = &report.manifest;
    html! {
        section {
            h2 { "What was run" }
            (sessions(report))
            (facts("Models", &manifest.models))
            (facts("Machine", &manifest.machine))
            (facts("Device", &manifest.device))
            (facts("Telemetry", &manifest.telemetry))
            @if !manifest.telemetry_absent.is_empty() {
                h3 { "Telemetry that is absent, and why" }
                dl { @for (source, reason) in &manifest.telemetry_absent { dt { (source) } dd { (reason) } } }
            }
            h3 { "Do it again" }
            @if manifest.command.is_empty() {
                p { "The manifest holds no command." }
            } @else {
                pre { (shell_line(&manifest.command)) }
            }
            p.remark {
                "Seed " (manifest.seed)
                @if let Some(commit) = &manifest.git_commit { " · source " (commit) }
                @if !manifest.started_at.is_empty() { " · started " (manifest.started_at) }
                @if let Some(end) = &manifest.finished_at { " · finished " (end) }
            }
            details {
                summary { "Settings of the run and of its arms" }
                div.scroll {
                    table {
                        tbody {
                            @for (name, value) in &manifest.config { tr { td.words { (name) } td.words { (shown(name, value)) } } }
                            @for arm in &manifest.arms {
                                @for (name, value) in arm.iter().filter(|(name, _)| *name != "name") {
                                    tr { td.words { (arm_name(arm)) ": " (name) } td.words { (shown(name, value)) } }
                                }
                            }
                        }
                    }
                }
            }
            details { summary { "Definitions" } (definitions()) }
        }
    }
}

fn sessions(report: &Report) -> Markup {
    html! {
        @if !report.manifest.sessions.is_empty() {
            h3 { "Sessions" }
            div.scroll {
                table {
                    thead {
                        tr { th.words { "session" } th.words { "source" } th { "calls" } th { "replayed" } th.words { "fidelity of the import" } }
                    }
                    tbody {
                        @for session in &report.manifest.sessions {
                            tr {
                                td.words { (session.session_id) }
                                td.words { (session.source) }
                                td.number { (count(session.calls as f64)) }
                                td.number { (count(session.calls_replayed as f64)) }
                                td.words.wrap {
                                    (session.fidelity_level)
                                    @if !session.fidelity_reasons.is_empty() { ": " (session.fidelity_reasons.join("; ")) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn facts(title: &str, values: &BTreeMap<String, Value>) -> Markup {
    html! {
        @if !values.is_empty() {
            h3 { (title) }
            dl { @for (name, value) in values { dt { (name) } dd { (shown(name, value)) } } }
        }
    }
}

/// A value of the manifest on one line; numbers whose name says bytes are shown in binary units.
fn shown(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "not known".to_string(),
        Value::String(text) => text.clone(),
        Value::Number(number) if name.ends_with("bytes") || name.contains("_bytes_") => {
            number.as_f64().map_or_else(|| number.to_string(), bytes)
        }
        Value::Object(fields) => {
            let parts: Vec<String> = fields.iter().map(|(k, v)| format!("{k} {}", shown(k, v))).collect();
            parts.join(", ")
        }
        Value::Array(items) => items.iter().map(|v| shown(name, v)).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn arm_name(arm: &serde_json::Map<String, Value>) -> &str {
    arm.get("name").and_then(Value::as_str).unwrap_or("arm")
}

/// The command as a shell takes it.
fn shell_line(command: &[String]) -> String {
    let quoted = |word: &String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    command.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

fn definitions() -> Markup {
    html! {
        div.scroll {
            table {
                thead { tr { th.words { "metric" } th.words { "formula over the record" } th.words { "unit" } th.words { "better" } } }
                tbody {
                    @for metric in METRICS {
                        tr {
                            td.words { (metric.name) }
                            td.words { code { (metric.formula) } }
                            td.words { (metric.unit) }
                            td.words {
                                @match metric.direction {
                                    Direction::Lower => "lower",
                                    Direction::Higher => "higher",
                                    Direction::Neutral => "",
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_survive_a_shell() {
        let command = ["reprise", "run", "my session.jsonl", "--arms", "cold,cache+compression", "it's"]
            .map(String::from);
        assert_eq!(
            shell_line(&command),
            r"reprise run 'my session.jsonl' --arms cold,cache+compression 'it'\''s'"
        );
    }

    #[test]
    fn values_are_shown_on_one_line() {
        let value = serde_json::json!({"name": "nano", "weight_bytes": 2048, "layers": [1, 2], "gpu": null});
        assert_eq!(shown("target", &value), "name nano, weight_bytes 2.0 KiB, layers 1, 2, gpu not known");
    }
}
