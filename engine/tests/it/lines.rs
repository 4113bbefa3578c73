//! Line selection: units, the structural floor, the budget and the text that is sent, on hand-made cases and against plain
//! twins.

use std::ops::Range;

use engine::compress::elision::{Form, render};
use engine::compress::floor::forced;
use engine::compress::line_selection::{Budget, select_lines};
use engine::compress::lines::{LINE_TOKENS_MAX, Unit, units};
use engine::compress::select::SelectParams;
use proptest::collection::vec;
use proptest::prelude::*;

/// One token per run of characters of one sort; breaks are tokens of their own, as in most tokenizers.
fn tokenize(text: &str) -> Vec<Range<usize>> {
    let sort = |c: char| if c == '\n' { 0 } else { 1 + usize::from(c.is_alphanumeric()) };
    let mut tokens: Vec<Range<usize>> = Vec::new();
    let mut before = None;
    for (at, c) in text.char_indices() {
        match tokens.last_mut() {
            Some(last) if before == Some(sort(c)) && c != '\n' => last.end = at + c.len_utf8(),
            _ => tokens.push(at..at + c.len_utf8()),
        }
        before = Some(sort(c));
    }
    tokens
}

fn lines_of(text: &str, bytes: &[usize]) -> Vec<String> {
    let line = |byte: &usize| {
        let start = text[..*byte].rfind('\n').map_or(0, |at| at + 1);
        text[start..].lines().next().unwrap_or_default().to_owned()
    };
    bytes.iter().map(line).collect()
}

fn kept_lines(text: &str, arguments: Option<&str>) -> Vec<String> {
    lines_of(text, &forced(text, arguments))
}

#[test]
fn units_are_lines_and_parts_of_long_ones() {
    let text = format!("one two\n\n{}\nend", "ab ".repeat(200));
    let tokens = tokenize(&text);
    let units = units(&text, &tokens, 32);
    let shown: Vec<&str> = units.iter().map(|unit| &text[unit.bytes.clone()]).collect();
    assert_eq!(shown[..2], ["one two\n", "\n"]);
    assert_eq!(shown[shown.len() - 1], "end");
    assert_eq!(shown.concat(), text);
    let long = &units[2..units.len() - 1];
    assert!(long.len() > 400 / 32 && long.iter().all(|unit| unit.tokens.len() <= 32), "{long:?}");
    assert!(long[1..].iter().all(|unit| unit.tokens.start % 32 == 0), "cut where chunks meet");
}

#[test]
fn a_break_that_belongs_to_the_line_before_leaves_a_unit_without_tokens() {
    // The tokens of Qwen's splitting: `a`, `;\n\n`, `b`.
    let found = units("a;\n\nb", &[0..1, 1..4, 4..5], 32);
    let expected = [(0..3, 0..2), (3..4, 2..2), (4..5, 2..3)];
    assert_eq!(found, expected.map(|(bytes, tokens)| Unit { bytes, tokens }));
    assert!(units("", &[], 32).is_empty());
}

#[test]
fn the_ends_are_kept() {
    assert_eq!(kept_lines("\n\nfirst\nmiddle\nmiddle\nlast\n\n", None), ["first", "last"]);
    assert_eq!(kept_lines("only", None), ["only"]);
    assert!(forced("", None).is_empty() && forced(" \n\n", None).is_empty());
}

#[test]
fn failures_are_kept_and_words_that_hold_them_are_not() {
    let failures = [
        "error[E0425]: cannot find value",
        "test it::works ... FAILED",
        "thread 'main' panicked at src/a.rs",
        "Process exited with code 3",
        "Exit code 101",
        "java.lang.NullPointerException: x",
        "2026-01-01 ERROR worker: lost",
        "Traceback (most recent call last):",
    ];
    let harmless = ["a mirror of errands: none", "the terror", "unfailing light", "exiting is fine"];
    for line in failures {
        let text = format!("head\nfiller\n{line}\nfiller\ntail");
        assert_eq!(kept_lines(&text, None), ["head", line, "tail"]);
    }
    for line in harmless {
        assert_eq!(kept_lines(&format!("head\nfiller\n{line}\nfiller\ntail"), None), ["head", "tail"]);
    }
}

#[test]
fn places_hunks_keys_and_words_of_the_call_are_kept() {
    let kept = |line: &str, arguments: Option<&str>| {
        let kept = kept_lines(&format!("head\nfiller\n{line}\nfiller\ntail"), arguments);
        kept.contains(&line.to_owned())
    };
    for line in
        ["  --> src/main.rs:12:5", "lib/x.py:3: unused", "  File \"a.py\", line 7, in f", "C:\\x\\y.cs:9"]
    {
        assert!(kept(line, None), "{line}");
    }
    for line in ["at 12:30:05", "see http://host:80/x", "ratio 3:4", "10.0.0.1:8080 up", "key: 5"] {
        assert!(!kept(line, None), "{line}");
    }
    assert!(kept("@@ -1,4 +1,9 @@ fn main", None) && kept("diff --git a/x b/x", None));
    assert!(kept("let retry_limit = 3;", Some("{\"pattern\": \"retry_limit\"}")));
    assert!(kept("id 48213 is open", Some("{\"id\": 48213}")) && kept("word alone", Some("not json: alone")));
    assert!(!kept("let retry_limit = 3;", Some("{\"pattern\": \"retry\"}")), "whole words alone");
    assert!(!kept("let x = 3;", Some("{\"pattern\": \"let\"}")), "short words point nowhere");

    let json = "{\n  \"name\": \"a\\\"b:\",\n  \"deep\": {\n    \"inner\": 1\n  },\n  \"list\": [\n    \"item\"\n  ],\n  \"end\": 2\n}\n";
    let expected = ["{", "  \"name\": \"a\\\"b:\",", "  \"deep\": {", "  \"list\": [", "  \"end\": 2", "}"];
    assert_eq!(kept_lines(json, None), expected);
    assert_eq!(
        kept_lines("{\"a\": 1}\n{\"b\": 2}\n{\"c\": 3}", None).len(),
        3,
        "ends, and the key of the first"
    );
}

#[test]
fn what_most_lines_are_says_nothing_of_any_of_them() {
    let hits: String =
        (1..=400).map(|line| format!("src/a.rs:{line}: let wanted_name = {line};\n")).collect();
    let kept = kept_lines(&hits, Some("{\"pattern\": \"wanted_name\"}"));
    assert_eq!(kept.len(), 8, "the first and the last places; the word stands everywhere");
    let errors: String = (1..=400).map(|line| format!("error {line}\n")).collect();
    assert_eq!(kept_lines(&errors, None).len(), 16);
}

/// The text that is sent where the bytes from each first to each second number are kept.
fn rendered(raw: &str, kept: &[(usize, usize)], form: Form) -> Option<String> {
    render(raw, &kept.iter().map(|&(start, end)| start..end).collect::<Vec<_>>(), form)
}

#[test]
fn the_marker_stands_on_a_line_of_its_own() {
    for (raw, kept, expected) in [
        ("a\nb\nc\nd\n", &[(0, 2), (6, 8)][..], "a\n[... 2 lines elided ...]\nd\n"),
        ("a\nb\nc\nd\n", &[(2, 4)], "[... 1 line elided ...]\nb\n[... 2 lines elided ...]\n"),
        ("a\nb\nc\nd\n", &[(0, 1), (3, 8)], "a\n[... 2 characters elided ...]\n\nc\nd\n"),
        ("a\nb\nc\nd\n", &[(0, 8)], "a\nb\nc\nd\n"),
        ("a\nb\nc\nd\n", &[], "[... 4 lines elided ...]\n"),
        ("abcdef", &[(0, 2), (4, 5)], "ab\n[... 2 characters elided ...]\ne\n[... 1 character elided ...]"),
    ] {
        assert_eq!(rendered(raw, kept, Form::Marked).unwrap(), expected);
    }
    assert_eq!(rendered("abc", &[(0, 1), (2, 3)], Form::Joined).unwrap(), "ac");
    for (raw, wrong) in
        [("abc", &[(0, 4)][..]), ("abc", &[(2, 3), (1, 2)]), ("abc", &[(0, 2), (1, 3)]), ("é", &[(0, 1)])]
    {
        assert_eq!(rendered(raw, wrong, Form::Marked), None);
        assert_eq!(rendered(raw, wrong, Form::Joined), None);
    }
}

#[test]
fn short_texts_keep_a_larger_share() {
    let budget = |n, permille| Budget::of_text(n, &SelectParams::keep(permille), 512);
    let shares = [(1_000, 512), (2_048, 512), (4_096, 512), (10_000, 1_250), (80_000, 10_000)];
    assert_eq!(shares.map(|(n, _)| budget(n, 125)), shares.map(|(_, tokens)| tokens));
    assert_eq!((budget(100, 125), budget(100_000, 1000), budget(100_000, 5000)), (512, 100_000, 100_000));
}

#[test]
fn a_gap_no_longer_than_its_marker_is_kept() {
    let text: String = (0..40).map(|line| format!("a{line}\n")).collect();
    let tokens = tokenize(&text);
    let units = units(&text, &tokens, 4);
    let select = |forced: &[usize], tokens| {
        let kept = select_lines(&units, forced, &[], Budget { tokens, marker_tokens: 6 });
        (kept.ranges, kept.tokens)
    };
    // Lines of two tokens: three of them cost what a marker costs, four cost more.
    let line = |index: usize| text.find(&format!("a{index}\n")).unwrap();
    let (ranges, price) = select(&[0, line(4), line(9)], 0);
    assert_eq!(ranges, [0..line(5), line(9)..line(10)]);
    assert_eq!(price, 5 * 2 + 6 + 2 + 6);
}

#[test]
fn the_best_line_is_kept_whatever_is_forced() {
    let text: String = (0..40).map(|line| format!("a{line}\n")).collect();
    let units = units(&text, &tokenize(&text), 4);
    let forced = [0, text.len() - 1];
    let budget = Budget { tokens: 4, marker_tokens: 6 };
    let kept = select_lines(&units, &forced, &[20, 30], budget);
    assert_eq!(kept.ranges, [units[0].bytes.clone(), units[20].bytes.clone(), units[39].bytes.clone()]);
    assert_eq!(kept.tokens, 2 + 6 + 2 + 6 + 2);
    assert_eq!(select_lines(&units, &forced, &[], budget).ranges.len(), 2);
}

/// The price of keeping some units, counted gap by gap.
fn price(units: &[Unit], kept: &[bool], marker_tokens: usize) -> usize {
    let tokens = |unit: &Unit| unit.tokens.len();
    let mut total = 0;
    let mut at = 0;
    while at < units.len() {
        let run = kept[at..].iter().take_while(|&&is_kept| is_kept == kept[at]).count();
        let sum: usize = units[at..at + run].iter().map(tokens).sum();
        total += if kept[at] { sum } else { sum.min(marker_tokens) };
        at += run;
    }
    total
}

/// The rule of `select_lines` with sets of flags and everything counted anew.
fn twin(units: &[Unit], forced: &[usize], ranked: &[usize], budget: Budget) -> (Vec<bool>, usize) {
    let mut kept = vec![false; units.len()];
    for byte in forced {
        kept[units.iter().position(|unit| unit.bytes.contains(byte)).unwrap()] = true;
    }
    let floor = price(units, &kept, budget.marker_tokens);
    let most = if forced.is_empty() { budget.tokens } else { budget.tokens.max(floor + budget.tokens / 2) };
    for index in ranked {
        let mut more = kept.clone();
        more[*index] = true;
        if price(units, &more, budget.marker_tokens) <= most || *index == ranked[0] {
            kept = more;
        }
    }
    let total = price(units, &kept, budget.marker_tokens);
    (kept, total)
}

fn texts() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "[a-z ]{0,30}",
        Just(String::new()),
        "[a-zé€🦀 ]{0,20}",
        Just("error: it broke in src/a.rs:12".to_owned()),
        Just("x y ".repeat(120)),
    ];
    vec(line, 0..60).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn units_tile_the_text_and_its_tokens(text in texts(), chunk in 1usize..40) {
        let tokens = tokenize(&text);
        let units = units(&text, &tokens, chunk);
        let (mut byte, mut token) = (0, 0);
        for unit in &units {
            prop_assert_eq!((unit.bytes.start, unit.tokens.start), (byte, token));
            prop_assert!(unit.bytes.end > byte && text.is_char_boundary(unit.bytes.end));
            prop_assert!(unit.tokens.len() <= LINE_TOKENS_MAX.max(chunk));
            for token in &tokens[unit.tokens.clone()] {
                prop_assert!(unit.bytes.contains(&token.start));
            }
            (byte, token) = (unit.bytes.end, unit.tokens.end);
        }
        prop_assert_eq!((byte, token), (text.len(), tokens.len()));
    }

    #[test]
    fn selection_is_its_plain_twin_within_the_budget(
        text in texts(),
        seeds in vec(any::<u16>(), 80),
        spent in 0usize..400,
        marker_tokens in 0usize..15,
        chunk in 1usize..40,
    ) {
        let tokens = tokenize(&text);
        let units = units(&text, &tokens, chunk);
        let mut ranked: Vec<usize> = (0..units.len()).collect();
        ranked.sort_by_key(|index| (seeds[index % seeds.len()], *index));
        let budget = Budget { tokens: spent, marker_tokens };
        for forced in [forced(&text, None), Vec::new()] {
            let kept = select_lines(&units, &forced, &ranked, budget);
            let (expected, price_expected) = twin(&units, &forced, &ranked, budget);
            prop_assert_eq!(kept.tokens, price_expected);

            let floor_alone = twin(&units, &forced, &[], budget);
            let is_least = expected == twin(&units, &forced, &ranked[..ranked.len().min(1)], budget).0;
            // Forced units that take more than a half leave a half to the ranking.
            let most = if forced.is_empty() { spent } else { spent.max(floor_alone.1 + spent / 2) };
            prop_assert!(kept.tokens <= most || is_least, "{} of {most}", kept.tokens);

            let sent = render(&text, &kept.ranges, Form::Marked).unwrap();
            let unmarked: Vec<&str> = sent.lines().filter(|line| !line.ends_with(" elided ...]")).collect();
            for line in lines_of(&text, &forced).iter().filter(|line| tokenize(line).len() < LINE_TOKENS_MAX) {
                prop_assert!(unmarked.contains(&line.as_str()), "{line:?} is not in {sent:?}");
            }
            let held = |byte: &usize| kept.ranges.iter().any(|range| range.contains(byte));
            prop_assert!(forced.iter().all(held));
            for (unit, is_kept) in units.iter().zip(&expected) {
                prop_assert!(!is_kept || held(&unit.bytes.start));
            }
            for pair in kept.ranges.windows(2) {
                prop_assert!(pair[0].end < pair[1].start);
            }
        }
    }

    #[test]
    fn the_floor_lies_in_the_text_and_is_the_same_each_time(text in texts(), arguments in "[a-z\": {}]{0,30}") {
        let places = forced(&text, Some(&arguments));
        prop_assert!(places.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(places.iter().all(|&byte| byte < text.len() && text.is_char_boundary(byte)));
        prop_assert_eq!(&places, &forced(&text, Some(&arguments)));
    }
}
