//! Import of a generated Claude Code session of 50 MB with the proportions of a real one: about 1.5 calls per 10 KB,
//! most bytes in tool results, every line with the client's own copy of the result. And what `reprise import` does with
//! one of 4 MB, which is to look for secrets, too. Criterion prints MB/s.

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use transcripts::import::{Import, ImportOptions, import};
use transcripts::redact::Redactor;

/// Bytes of the generated files.
const LARGE: usize = 50 << 20;
const SMALL: usize = 4 << 20;
/// Chars of a tool result: one small, one large in turn, as a read after a short command.
const RESULT_CHARS: [usize; 4] = [200, 600, 2_400, 12_000];

/// A session that compacts every 200 calls, as the client does: an endless prefix would measure the index lists.
fn session(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 65_536);
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
    while text.len() < bytes {
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

/// Writes a session; its path and its size.
fn write(folder: &Path, bytes: usize) -> std::io::Result<(PathBuf, u64)> {
    let path = folder.join(format!("{bytes}.jsonl"));
    let text = session(bytes);
    fs::write(&path, &text)?;
    Ok((path, text.len() as u64))
}

/// Credentials in the sessions of an import.
fn credentials(import: &Import) -> u64 {
    let redactor = Redactor::new(&import.sessions).ok();
    let found = redactor.iter().flat_map(|redactor| import.sessions.iter().map(|one| redactor.scan(one)));
    found.map(|found| found.credentials()).sum()
}

fn bench(criterion: &mut Criterion) {
    let files = tempfile::tempdir().and_then(|folder| {
        let files = [write(folder.path(), LARGE)?, write(folder.path(), SMALL)?];
        Ok((folder, files))
    });
    let (_folder, [(large, large_bytes), (small, small_bytes)]) = match files {
        Ok(files) => files,
        Err(error) => return eprintln!("no generated sessions: {error}"),
    };
    let mut group = criterion.benchmark_group("import");
    group.sample_size(10).throughput(Throughput::BytesDecimal(large_bytes));
    group.bench_function("claude-code, 50 MB", |bencher| {
        bencher.iter(|| {
            import(black_box(&[&large]), &ImportOptions::default()).map(|import| import.sessions.len())
        });
    });
    group.throughput(Throughput::BytesDecimal(small_bytes));
    group.bench_function("claude-code, 4 MB, and a look for secrets", |bencher| {
        bencher.iter(|| {
            import(black_box(&[&small]), &ImportOptions::default()).map(|import| credentials(&import))
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
