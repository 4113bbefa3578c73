//! Import of a generated Claude Code session of 50 MB with the proportions of a real one: about 1.5 calls per 10 KB,
//! most bytes in tool results, every line with the client's own copy of the result. Criterion prints MB/s.

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use transcripts::import::{ImportOptions, import};

/// Bytes of the generated file.
const BYTES: usize = 50 << 20;
/// Chars of a tool result: one small, one large in turn, as a read after a short command.
const RESULT_CHARS: [usize; 4] = [200, 600, 2_400, 12_000];

/// A session that compacts every 200 calls, as the client does: an endless prefix would measure the index lists.
fn session() -> String {
    let mut text = String::with_capacity(BYTES + 65_536);
    let mut parent = "null".to_owned();
    let mut line = 0_u64;
    let mut push = |text: &mut String, parent: &mut String, rest: &str| {
        let (minute, second) = (line / 60 % 60, line % 60);
        let _ = writeln!(
            text,
            "{{\"parentUuid\":{parent},\"isSidechain\":false,\"sessionId\":\"s1\",\"version\":\"2.1.42\",\
             \"uuid\":\"u{line}\",\"timestamp\":\"2026-01-01T00:{minute:02}:{second:02}.000Z\",{rest}}}"
        );
        *parent = format!("\"u{line}\"");
        line += 1;
    };
    push(&mut text, &mut parent, "\"type\":\"user\",\"message\":{\"role\":\"user\",\"content\":\"go\"}");
    let mut call = 0;
    while text.len() < BYTES {
        if call % 200 == 199 {
            parent = "null".to_owned();
            push(&mut text, &mut parent, "\"type\":\"system\",\"subtype\":\"compact_boundary\"");
            let summary = "\"type\":\"user\",\"isCompactSummary\":true,\"message\":{\"content\":\"summary\"}";
            push(&mut text, &mut parent, summary);
        }
        let usage = "\"usage\":{\"input_tokens\":1,\"cache_read_input_tokens\":9,\"output_tokens\":5}";
        for block in [
            "{\"type\":\"text\",\"text\":\"I will read the next file and then go on.\"}".to_owned(),
            format!(
                "{{\"type\":\"tool_use\",\"id\":\"t{call}\",\"name\":\"Read\",\"input\":{{\"file_path\":\"/a\"}}}}"
            ),
        ] {
            let message =
                format!("{{\"id\":\"m{call}\",\"role\":\"assistant\",\"content\":[{block}],{usage}}}");
            push(&mut text, &mut parent, &format!("\"type\":\"assistant\",\"message\":{message}"));
        }
        let body = "    1\\tfn main() {}\\n".repeat(RESULT_CHARS[call % RESULT_CHARS.len()] / 17);
        let block =
            format!("{{\"type\":\"tool_result\",\"tool_use_id\":\"t{call}\",\"content\":\"{body}\"}}");
        let rest = format!(
            "\"type\":\"user\",\"message\":{{\"role\":\"user\",\"content\":[{block}]}},\
             \"toolUseResult\":{{\"file\":{{\"content\":\"{body}\"}}}}"
        );
        push(&mut text, &mut parent, &rest);
        call += 1;
    }
    text
}

fn bench(criterion: &mut Criterion) {
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => return eprintln!("no folder for the generated session: {error}"),
    };
    let path = folder.path().join("s1.jsonl");
    let text = session();
    if let Err(error) = fs::write(&path, &text) {
        return eprintln!("{}: {error}", path.display());
    }
    let mut group = criterion.benchmark_group("import");
    group.sample_size(10).throughput(Throughput::BytesDecimal(text.len() as u64));
    drop(text);
    group.bench_function("claude-code, 50 MB", |bencher| {
        bencher.iter(|| {
            import(black_box(&[&path]), &ImportOptions::default()).map(|import| import.sessions.len())
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
