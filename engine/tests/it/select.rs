//! Selection: the four published counts, ties and edges, and the way back to bytes, each against a plain twin.

use std::ops::Range;

use engine::compress::control;
use engine::compress::select::{
    MIN_SCORED, SelectParams, Selection, chunks, kept_bytes, ranked, select, smooth,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// The kept parts of a text, one after the other.
fn joined(text: &str, ranges: &[Range<usize>]) -> String {
    ranges.iter().map(|range| &text[range.clone()]).collect()
}

/// Scores whose last 8 tokens, the queries themselves, win by far over a flat rest: every real profile has this shape,
/// because a tail query attends to itself and to its neighbours.
fn tail_attends_to_itself(n: usize) -> Vec<f32> {
    (0..n).map(|i| if i + 8 >= n { 0.9 } else { 0.001 + 0.0001 * (i % 17) as f32 }).collect()
}

/// The rule written as plainly as it can be: repeated search for the best chunk that is left.
fn twin(scores: &[f32], params: &SelectParams) -> Vec<usize> {
    let n = scores.len();
    let side = params.pool / 2;
    let smoothed: Vec<f64> = (0..n)
        .map(|i| {
            let (mut sum, mut count) = (0.0, 0);
            for (j, &score) in scores.iter().enumerate() {
                if i.abs_diff(j) <= side {
                    sum += f64::from(score);
                    count += 1;
                }
            }
            sum / f64::from(count)
        })
        .collect();
    let n_chunks = (0..n).step_by(params.chunk).count();
    let mut left: Vec<(usize, i64)> = (0..n_chunks)
        .map(|chunk| {
            let tokens: Vec<usize> = (0..n).filter(|token| token / params.chunk == chunk).collect();
            let sum: f64 = tokens.iter().map(|&token| smoothed[token]).sum();
            (chunk, (sum / tokens.len() as f64 * 1048576.0).round() as i64)
        })
        .collect();
    let mut budget = n_chunks * params.keep_permille as usize / 1000;
    budget = if budget == 0 { 1 } else { budget };
    let mut chosen = Vec::new();
    for _ in 0..budget {
        let mut best = 0;
        for at in 1..left.len() {
            if left[at].1 > left[best].1 {
                best = at;
            }
        }
        chosen.push(left.remove(best).0);
    }
    (0..n).filter(|token| chosen.contains(&(token / params.chunk))).collect()
}

/// Ranges as plain pairs.
fn pairs(ranges: &[Range<usize>]) -> Vec<(usize, usize)> {
    ranges.iter().map(|range| (range.start, range.end)).collect()
}

fn ranges(pairs: &[(usize, usize)]) -> Vec<Range<usize>> {
    pairs.iter().map(|&(start, end)| start..end).collect()
}

fn tokens(selection: &Selection) -> Vec<usize> {
    selection.ranges.iter().cloned().flatten().collect()
}

#[test]
fn the_four_logged_counts_of_the_first_release() {
    let logged = [(6482, 203, 10, 306), (5018, 157, 7, 218), (78, 3, 1, 14), (98277, 3072, 153, 4869)];
    for (n, n_chunks, n_keep, kept) in logged {
        let selection = select(&tail_attends_to_itself(n), &SelectParams::keep(50));
        assert_eq!(
            (selection.n_chunks, selection.n_keep, selection.kept),
            (n_chunks, n_keep, kept),
            "{n} tokens"
        );
        assert_eq!(selection.ranges.last().map(|range| range.end), Some(n), "the partial last chunk is kept");
    }
}

#[test]
fn short_texts_and_a_full_share_are_kept_whole() {
    for n in 0..MIN_SCORED {
        let selection = select(&vec![0.5; n], &SelectParams::keep(50));
        assert_eq!(tokens(&selection), (0..n).collect::<Vec<_>>());
        assert_eq!((selection.n_chunks, selection.n_keep, selection.kept), (n.min(1), n.min(1), n));
    }
    for keep_permille in [1000, 1001, u32::MAX] {
        let selection = select(&tail_attends_to_itself(100), &SelectParams::keep(keep_permille));
        assert_eq!(pairs(&selection.ranges), [(0, 100)]);
        assert_eq!((selection.n_chunks, selection.n_keep, selection.kept), (4, 4, 100));
    }
    let least =
        select(&tail_attends_to_itself(MIN_SCORED), &SelectParams { chunk: 4, ..SelectParams::keep(0) });
    assert_eq!((pairs(&least.ranges), least.n_chunks, least.n_keep), (vec![(8, 9)], 3, 1));
}

#[test]
fn ties_go_to_the_earlier_chunk() {
    let selection = select(&[0.25; 320], &SelectParams::keep(300));
    assert_eq!(pairs(&selection.ranges), [(0, 96)]);
}

#[test]
fn a_difference_below_two_to_the_minus_twenty_is_a_tie() {
    let above = |step: f32| {
        let mut scores = vec![0.5f32; 64];
        scores[32..].fill(0.5 + step);
        select(&scores, &SelectParams { pool: 1, ..SelectParams::keep(500) }).ranges[0].start
    };
    assert_eq!(above(2.0f32.powi(-22)), 0);
    assert_eq!(above(2.0f32.powi(-20)), 32);
}

#[test]
fn neighbours_are_joined_and_the_order_is_that_of_the_prompt() {
    let mut scores = vec![0.0; 320];
    for (chunk, score) in [(9, 0.9), (2, 0.8), (3, 0.1), (6, 0.5)] {
        scores[chunk * 32 + 16] = score;
    }
    let selection = select(&scores, &SelectParams::keep(400));
    assert_eq!(pairs(&selection.ranges), [(64, 128), (192, 224), (288, 320)]);
}

#[test]
fn edges_are_averaged_over_what_is_there() {
    assert_eq!(smooth(&[1.0, 2.0, 6.0, 7.0], 3), [1.5, 3.0, 5.0, 6.5]);
    assert_eq!(smooth(&[1.0, 2.0], 13), [1.5, 1.5]);
    assert_eq!(smooth(&[1.0, 2.0, 4.0], 1), [1.0, 2.0, 4.0]);
    assert_eq!(smooth(&[1.0, 2.0, 4.0], 0), [1.0, 2.0, 4.0]);
    assert_eq!(smooth(&[1.0, 3.0], usize::MAX), [2.0, 2.0]);
    assert_eq!(smooth(&[], 13), Vec::<f64>::new());
}

#[test]
fn scores_that_are_no_numbers_do_not_disturb_the_rest() {
    let mut scores = vec![0.0; 96];
    scores[0] = f32::NAN;
    scores[70] = 0.5;
    assert_eq!(pairs(&select(&scores, &SelectParams::keep(334)).ranges), [(64, 96)]);
    scores[40] = f32::INFINITY;
    assert_eq!(pairs(&select(&scores, &SelectParams::keep(334)).ranges), [(32, 64)]);
}

#[test]
fn odd_parameters_are_harmless() {
    let params = SelectParams { keep_permille: 500, chunk: 0, pool: 0 };
    assert_eq!(tokens(&select(&tail_attends_to_itself(16), &params)), (8..16).collect::<Vec<_>>());
    let params = SelectParams { keep_permille: 500, chunk: usize::MAX, pool: 4 };
    assert_eq!(select(&tail_attends_to_itself(16), &params).kept, 16);
}

#[test]
fn bytes_snap_outward_to_whole_characters() {
    let text = "aé€🦀z"; // bytes 0..1, 1..3, 3..6, 6..10, 10..11
    let bytes: Vec<Range<usize>> = (0..text.len()).map(|at| at..at + 1).collect();
    let kept = |tokens: Range<usize>| pairs(&kept_bytes(text, &bytes, &[tokens]));
    assert_eq!(kept(2..3), [(1, 3)]);
    assert_eq!(kept(4..8), [(3, 10)]);
    assert_eq!(kept(10..99), [(10, 11)]);
    assert_eq!(kept(5..5), []);
    assert_eq!(joined(text, &kept_bytes(text, &bytes, &[0..1, 9..11])), "a🦀z");
}

#[test]
fn token_ranges_of_another_text_are_cut_off() {
    let wild = ranges(&[(5, 2), (3, 400), (usize::MAX - 1, usize::MAX), (0, 0), (1, 2)]);
    assert_eq!(pairs(&kept_bytes("abcdef", &wild, &[0..5, 9..12])), [(1, 2), (3, 6)]);
    assert!(kept_bytes("", &wild, &[0..5, 9..12]).is_empty());
    assert!(kept_bytes("abcdef", &wild, &ranges(&[(4, 2), (9, 12)])).is_empty());
}

#[test]
fn chance_is_fixed_by_seed_and_text_and_one_draw_a_unit() {
    let units = chunks(1000, 32);
    let scores = control::random("some text", &units, 7);
    assert_eq!(scores.len(), 1000);
    assert_eq!(scores, control::random("some text", &units, 7));
    assert_eq!(scores[..96], control::random("some text", &units[..3], 7));
    assert_ne!(scores, control::random("some text", &units, 8));
    assert_ne!(scores, control::random("some texts", &units, 7));
    assert!(units.iter().all(|unit| scores[unit.clone()].iter().all(|score| *score == scores[unit.start])));
    assert!(scores.iter().all(|score| (0.0..1.0).contains(score)));
    assert!(control::random("", &[], 7).is_empty());
    // A uniform draw: each of 32 units is the best of its text about once in 32 texts, however long it is.
    let uneven: Vec<Range<usize>> =
        (0..16).flat_map(|i| [i * 64..i * 64 + 3, i * 64 + 3..(i + 1) * 64]).collect();
    for units in [chunks(1024, 32), uneven] {
        let mut best = [0; 32];
        for text in 0..3200 {
            best[ranked(&control::random(&text.to_string(), &units, 7), &units, 1)[0]] += 1;
        }
        assert!(best.iter().all(|&count| (50..150).contains(&count)), "{best:?}");
    }
}

#[test]
fn the_ends_rank_before_the_middle() {
    let ranked_chunks = |n: usize| ranked(&control::head_tail(n), &chunks(n, 32), 1);
    assert_eq!(ranked_chunks(8 * 32), [0, 7, 1, 6, 2, 5, 3, 4]);
    let odd = ranked_chunks(3 * 32 + 1);
    assert_eq!((odd[0], odd[3]), (3, 1), "a short last chunk is all end");
    assert!(control::head_tail(0).is_empty());
    assert_eq!(control::head_tail(1), [1.0]);
}

fn ranges_to(limit: usize) -> impl Strategy<Value = Vec<Range<usize>>> {
    vec((0..limit, 0..limit).prop_map(|(start, end)| start..end), 0..20)
}

proptest! {
    #[test]
    fn equals_the_plain_rule(
        scores in vec(prop_oneof![0.0f32..1.0, Just(0.25f32)], MIN_SCORED..200),
        keep_permille in 0u32..1000,
        chunk in 1usize..40,
        pool in 0usize..16,
    ) {
        let params = SelectParams { keep_permille, chunk, pool };
        let selection = select(&scores, &params);
        prop_assert_eq!(tokens(&selection), twin(&scores, &params));
        prop_assert_eq!(selection.kept, tokens(&selection).len());
        prop_assert_eq!(selection.n_keep, (selection.n_chunks * keep_permille as usize / 1000).max(1));
        for pair in selection.ranges.windows(2) {
            prop_assert!(pair[0].end < pair[1].start);
        }
    }

    #[test]
    fn kept_bytes_are_the_characters_that_the_tokens_touch(
        text in "[a-cé€🦀\\n]{0,30}", token_bytes in ranges_to(100), kept in ranges_to(25),
    ) {
        let ranges = kept_bytes(&text, &token_bytes, &kept);
        let touched = |start: usize, end: usize| {
            let tokens = token_bytes.iter().enumerate().filter(|(i, _)| kept.iter().any(|range| range.contains(i)));
            tokens.into_iter().any(|(_, bytes)| bytes.start < end && start < bytes.end && bytes.start < bytes.end)
        };
        let expected: String = text.char_indices().filter(|&(at, c)| touched(at, at + c.len_utf8())).map(|(_, c)| c).collect();
        prop_assert_eq!(joined(&text, &ranges), expected);
        for range in &ranges {
            prop_assert!(range.start < range.end && text.get(range.clone()).is_some());
        }
        for pair in ranges.windows(2) {
            prop_assert!(pair[0].end < pair[1].start);
        }
    }
}
