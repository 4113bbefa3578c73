"""Records the bundled sessions: scripted assistant turns over this repository, with the real outputs of their tools.

Run from the root of a checkout that builds:   python3 transcripts/data/record.py

The questions, the answers and the choice of tool calls are written below; every tool result is what the tool printed at
that moment over this repository, in the form Claude Code stores it (numbered lines for Read, `file:line:text` for Grep,
standard output for Bash). The checkout's path is replaced by CWD, the build folder's by `target`, and nothing else is edited. Times are a fixed start, the
measured duration of each command, and three seconds for each assistant turn.
"""

import datetime
import json
import os
import pathlib
import subprocess
import time
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "transcripts" / "data"
CWD = "/home/dev/reprise"
START = datetime.datetime(2026, 11, 21, 9, 0, 0, tzinfo=datetime.timezone.utc)
TURN_SECONDS = 3.0


def read(file_path, offset=1, limit=2000):
    lines = (ROOT / file_path).read_text().splitlines()[offset - 1 : offset - 1 + limit]
    return "\n".join(f"{offset + i:6}\t{line}" for i, line in enumerate(lines))


def shell(command):
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    output = (done.stdout + done.stderr).strip().replace(str(ROOT), CWD)
    return output.replace(os.environ.get("CARGO_TARGET_DIR", "target"), "target") or "(no output)"


def grep(pattern, path):
    return shell(f"grep -rnE --include='*.rs' -- '{pattern}' {path} | sort")


def use(name, tool_input):
    """One tool call: its name, its input as the model writes it, and its real output."""
    began = time.monotonic()
    if name == "Read":
        given = {k: v for k, v in tool_input.items() if k != "file_path"}
        output = read(tool_input["file_path"], **given)
        tool_input = {"file_path": f"{CWD}/{tool_input['file_path']}", **given}
    elif name == "Grep":
        output = grep(tool_input["pattern"], tool_input["path"])
        tool_input = {**tool_input, "output_mode": "content", "-n": True}
    else:
        output = shell(tool_input["command"])
    return name, tool_input, output, time.monotonic() - began


class Recorder:
    """Writes the lines of one Claude Code session file."""

    def __init__(self, name, version="2.1.42"):
        self.name, self.version, self.lines, self.now = name, version, [], START
        self.session = self.make_id("session")
        self.last = {None: None}
        self.count = 0

    def make_id(self, what):
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"reprise:{self.name}:{what}"))

    def line(self, kind, message, agent=None, **extra):
        self.count += 1
        one = {
            "parentUuid": self.last.get(agent),
            "isSidechain": agent is not None,
            "userType": "external",
            "cwd": CWD,
            "sessionId": self.session,
            "version": self.version,
            "gitBranch": "main",
            "type": kind,
            **({"message": message} if message is not None else {}),
            "uuid": self.make_id(self.count),
            "timestamp": self.now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            **({"agentId": agent} if agent else {}),
            **extra,
        }
        self.last[agent] = one["uuid"]
        self.lines.append(one)
        return one

    def user(self, text, agent=None, **extra):
        return self.line("user", {"role": "user", "content": text}, agent, **extra)

    def assistant(self, text=None, uses=(), agent=None):
        """One response: its blocks, one line each, then one line per tool result. Returns the ids of its tool calls."""
        self.now += datetime.timedelta(seconds=TURN_SECONDS)
        message_id = "msg_" + self.make_id(f"m{self.count}").replace("-", "")[:24]
        blocks = [{"type": "text", "text": text}] if text else []
        ids = []
        for name, tool_input, _, _ in uses:
            ids.append("toolu_" + self.make_id(f"t{self.count}.{len(ids)}").replace("-", "")[:24])
            blocks.append({"type": "tool_use", "id": ids[-1], "name": name, "input": tool_input})
        for block in blocks:
            message = {
                "id": message_id,
                "type": "message",
                "role": "assistant",
                "model": "scripted",
                "content": [block],
                "stop_reason": "tool_use" if uses else "end_turn",
                "stop_sequence": None,
            }
            self.line("assistant", message, agent, requestId="req_" + message_id[4:])
        for tool_id, (_, _, output, seconds) in zip(ids, uses):
            self.now += datetime.timedelta(seconds=seconds)
            content = [{"tool_use_id": tool_id, "type": "tool_result", "content": output}]
            self.line("user", {"role": "user", "content": content}, agent)
        return ids

    def save(self):
        path = DATA / f"{self.name}.jsonl"
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self.lines))
        print(f"{path.name}: {len(self.lines)} lines, {path.stat().st_size} bytes")


def explore():
    """Ten calls that grow from 0.3K to about 65K characters, nearly all of them in tool results."""
    session = Recorder("explore")
    session.user(
        "I want to know exactly what our time to first token contains. Follow one request through the engine and tell me "
        "which stages are booked, in which order, and where a cached call can still lose time. Read the code; do not guess "
        "from names."
    )
    session.assistant(
        "I'll find the clock and the request path.",
        [
            use("Grep", {"pattern": "Stage::[A-Z]", "path": "engine/src"}),
            use("Bash", {"command": "wc -l engine/src/*.rs engine/src/*/*.rs | sort -n", "description": "Size of the engine's files"}),
        ],
    )
    session.assistant("The request is one file.", [use("Read", {"file_path": "engine/src/engine.rs"})])
    session.assistant(None, [use("Read", {"file_path": "engine/src/spans.rs"})])
    session.assistant("Now the schedule, which decides what a hit may cover.", [use("Read", {"file_path": "engine/src/schedule.rs", "limit": 150})])
    session.assistant(None, [use("Read", {"file_path": "engine/src/kv/cache.rs"})])
    session.assistant("Compression next.", [use("Read", {"file_path": "engine/src/compress/scorer.rs"})])
    session.assistant(None, [use("Bash", {"command": "cargo test -p engine --test it schedule 2>&1 | tail -n 60", "description": "Build the engine and run the tests of the schedule"})])
    session.assistant("The record that all of this ends in.", [use("Read", {"file_path": "reports/src/record.rs", "limit": 230})])
    session.assistant("One more look at what publishing costs.", [use("Read", {"file_path": "engine/src/kv/prefix.rs", "limit": 300})])
    session.assistant(
        "Eleven stages are booked, in this order: render, tokenize, (target_park, drafter_load, score, select, target_load where "
        "something is scored), lookup, restore, prefill, first_token. A cached call still renders and tokenises the whole "
        "prompt, and prefills everything after the last reuse point; publishing comes after the first token."
    )
    session.save()


def delegate():
    """Parallel tool calls, a failing one, and a sub-agent whose messages stand in the same file."""
    session = Recorder("delegate", version="1.0.108")
    session.user("Which crates of this workspace may depend on each other, and is that checked? Answer with file and line.")
    session.assistant(
        "I'll look at the manifests and for a test at the same time.",
        [
            use("Read", {"file_path": "kernels/Cargo.toml"}),
            use("Read", {"file_path": "engine/Cargo.toml"}),
            use("Grep", {"pattern": "ALLOWED_EDGES|allowed edges", "path": "replay"}),
        ],
    )
    task = {
        "description": "List workspace edges",
        "prompt": "List every dependency between crates of this workspace, from the manifests alone. One line per edge.",
        "subagent_type": "general-purpose",
    }
    agent = "a41c7e02"
    began = session.now
    session.user(task["prompt"], agent=agent)
    session.assistant(
        None,
        [use("Bash", {"command": "grep -nE '^(kernels|engine|transcripts|replay|reports)' */Cargo.toml", "description": "Edges in manifests"})],
        agent=agent,
    )
    edges = shell("grep -nE '^(kernels|engine|transcripts|replay|reports)' */Cargo.toml")
    session.assistant("Every edge, one per line:\n" + edges, agent=agent)
    seconds = (session.now - began).total_seconds()
    session.assistant("A second reader can list the edges themselves.", [("Task", task, "Every edge, one per line:\n" + edges, seconds)])
    session.assistant(None, [use("Read", {"file_path": "replay/tests/it/tidy.rs", "limit": 60})])
    session.assistant(
        "The allowed edges are a table, `ALLOWED_EDGES` in replay/tests/it/tidy.rs, and "
        "`crates_depend_on_allowed_edges_only` compares every manifest with it: engine uses kernels and transcripts, replay "
        "uses engine, reports and transcripts, and nothing else."
    )
    session.save()


def compacted():
    """A session that was compacted half way: the prefix after the boundary starts with the summary."""
    session = Recorder("compacted", version="2.1.42")
    session.user("Explain how a prompt is cut into launches, then how a cached prefix is found again.")
    session.assistant("First the schedule.", [use("Read", {"file_path": "engine/src/schedule.rs", "limit": 120})])
    session.assistant(
        "A prompt is cut at message boundaries; short segments merge forward, long ones become pieces of 512 tokens. Now the index.",
        [use("Read", {"file_path": "engine/src/kv/prefix.rs", "limit": 130})],
    )
    last = session.last[None]
    session.now += datetime.timedelta(seconds=20)
    session.last[None] = None
    session.line(
        "system",
        None,
        subtype="compact_boundary",
        content="History compacted",
        isMeta=False,
        level="info",
        logicalParentUuid=last,
        compactMetadata={"trigger": "manual", "preTokens": 9120},
    )
    session.user(
        "This session is being continued from an earlier one. Summary: the user asked how prompts are cut and how prefixes are "
        "found. engine/src/schedule.rs cuts at message boundaries, merges segments under 64 tokens forward and splits long "
        "ones into pieces of 512; engine/src/kv/prefix.rs keeps one tree node per reusable piece. Still open: which test "
        "proves that a hit is never rounded up.",
        isCompactSummary=True,
        isVisibleInTranscriptOnly=True,
    )
    session.assistant(None, [use("Grep", {"pattern": "^    fn |^fn ", "path": "engine/tests/it"})])
    session.assistant("That names the tests.", [use("Read", {"file_path": "engine/tests/it/prefix.rs", "limit": 120})])
    session.assistant(
        "The tests of engine/tests/it/prefix.rs publish prompts and look up shorter, longer and rewritten ones; a hit always ends "
        "at a reuse point of both prompts, at or below the last token they share."
    )
    session.save()


if __name__ == "__main__":
    explore()
    delegate()
    compacted()
