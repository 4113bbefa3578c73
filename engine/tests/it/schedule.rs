//! Segmentation: hand-made prompts, and the two properties on which bit-exact reuse stands.

use engine::schedule::{Piece, Rules, Schedule, schedule};
use proptest::collection::vec;
use proptest::prelude::*;

const BOUNDARY: u32 = 7;
const RULES: Rules = Rules::new(BOUNDARY);

/// A prompt of messages with these lengths, each opened by the boundary token.
fn messages(lengths: &[usize]) -> Vec<u32> {
    lengths
        .iter()
        .flat_map(|&n| (0..n).map(|i| if i == 0 { BOUNDARY } else { 100 + i as u32 % 50 }))
        .collect()
}

fn shapes(schedule: &Schedule) -> Vec<(usize, usize, bool)> {
    schedule.pieces.iter().map(|piece| (piece.start, piece.end, piece.reusable)).collect()
}

fn ends(schedule: &Schedule) -> Vec<usize> {
    schedule.reuse_points().collect()
}

/// The definition, read literally: first the segments as a list, then merging, then pieces.
fn twin(tokens: &[u32], rules: &Rules) -> Vec<Piece> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (position, &token) in tokens.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if token != rules.boundary => run.1 = position + 1,
            _ => runs.push((position, position + 1)),
        }
    }
    let mut index = 0;
    while index + 1 < runs.len() {
        if runs[index].1 - runs[index].0 < rules.min_segment {
            let next = runs.remove(index + 1);
            runs[index].1 = next.1;
        } else {
            index += 1;
        }
    }
    let mut pieces = Vec::new();
    for (index, &(start, end)) in runs.iter().enumerate() {
        let closed = index + 1 < runs.len();
        let mut at = start;
        while at < end {
            let to = (at + rules.piece).min(end);
            pieces.push(Piece { start: at, end: to, reusable: closed || to - at == rules.piece });
            at = to;
        }
    }
    pieces
}

#[test]
fn no_tokens_make_no_pieces() {
    assert_eq!(schedule(&[], &RULES), Schedule::default());
    assert_eq!(Schedule::default().n_tokens(), 0);
}

#[test]
fn a_closed_segment_is_reusable_and_the_open_rest_is_not() {
    let cut = schedule(&messages(&[100, 70, 5]), &RULES);
    assert_eq!(shapes(&cut), [(0, 100, true), (100, 170, true), (170, 175, false)]);
}

#[test]
fn long_segments_are_cut_from_their_own_start() {
    let cut = schedule(&messages(&[100, 1100, 64]), &RULES);
    let expected =
        [(0, 100, true), (100, 612, true), (612, 1124, true), (1124, 1200, true), (1200, 1264, false)];
    assert_eq!(shapes(&cut), expected);
}

#[test]
fn short_segments_merge_forward_until_they_are_long_enough() {
    // 63 and 1 merge to 64, which closes at the next boundary; 10 + 20 + 33 = 63 go on into the 80 after them.
    let cut = schedule(&messages(&[63, 1, 10, 20, 33, 80, 3]), &RULES);
    assert_eq!(shapes(&cut), [(0, 64, true), (64, 207, true), (207, 210, false)]);
}

#[test]
fn a_full_piece_of_the_open_segment_is_reusable() {
    let cut = schedule(&messages(&[513]), &RULES);
    assert_eq!(shapes(&cut), [(0, 512, true), (512, 513, false)]);
    assert_eq!(shapes(&schedule(&messages(&[512]), &RULES)), [(0, 512, true)]);
}

#[test]
fn text_before_the_first_boundary_is_a_segment() {
    let mut tokens = vec![1; 64];
    tokens.extend(messages(&[70]));
    assert_eq!(shapes(&schedule(&tokens, &RULES)), [(0, 64, true), (64, 134, false)]);
}

#[test]
fn every_length_up_to_130_with_a_boundary_at_every_place() {
    for n in 1..=130 {
        for at in 0..n {
            let mut tokens = vec![1; n];
            tokens[at] = BOUNDARY;
            let expected = if at >= RULES.min_segment { vec![at] } else { vec![] };
            assert_eq!(ends(&schedule(&tokens, &RULES)), expected, "{n} tokens, boundary at {at}");
        }
    }
}

#[test]
fn what_is_left_after_a_hit_is_the_same_pieces() {
    let cut = schedule(&messages(&[100, 1100, 64]), &RULES);
    assert_eq!(cut.pieces_from(0), &cut.pieces[..]);
    assert_eq!(cut.pieces_from(612), &cut.pieces[2..]);
    assert_eq!(cut.pieces_from(1264), &[]);
}

#[test]
fn rules_of_zero_neither_hang_nor_make_empty_pieces() {
    let rules = Rules { boundary: BOUNDARY, min_segment: 0, piece: 0 };
    let cut = schedule(&messages(&[1, 1, 2]), &rules);
    assert_eq!(shapes(&cut), [(0, 1, true), (1, 2, true), (2, 3, true), (3, 4, true)]);
    let rules = Rules { boundary: BOUNDARY, min_segment: usize::MAX, piece: usize::MAX };
    assert_eq!(shapes(&schedule(&messages(&[90, 90]), &rules)), [(0, 180, false)]);
}

/// Tokens with boundaries anywhere, markers inside content included, at a scale that reaches every rule.
fn any_tokens() -> impl Strategy<Value = Vec<u32>> {
    let run = (0usize..90, any::<bool>()).prop_map(|(n, opens)| {
        let mut run = vec![1; n];
        if let (Some(first), true) = (run.first_mut(), opens) {
            *first = BOUNDARY;
        }
        run
    });
    let scattered = vec(prop_oneof![4 => 0u32..6, 1 => Just(BOUNDARY)], 0..300);
    prop_oneof![vec(run, 0..12).prop_map(|runs| runs.concat()), scattered]
}

fn any_rules() -> impl Strategy<Value = Rules> {
    (0usize..70, 1usize..40).prop_map(|(min_segment, piece)| Rules { boundary: BOUNDARY, min_segment, piece })
}

proptest! {
    #[test]
    fn pieces_tile_the_prompt(tokens in any_tokens(), rules in any_rules()) {
        let cut = schedule(&tokens, &rules);
        let mut at = 0;
        for (index, piece) in cut.pieces.iter().enumerate() {
            prop_assert_eq!(piece.start, at);
            prop_assert!(piece.end > piece.start && piece.n_tokens() <= rules.piece);
            prop_assert!(piece.reusable || index + 1 == cut.pieces.len());
            at = piece.end;
        }
        prop_assert_eq!(at, tokens.len());
        prop_assert_eq!(cut.n_tokens(), tokens.len());
    }

    #[test]
    fn fast_equals_the_literal_definition(tokens in any_tokens(), rules in any_rules()) {
        prop_assert_eq!(schedule(&tokens, &rules).pieces, twin(&tokens, &rules));
    }

    #[test]
    fn an_extension_keeps_every_reuse_point_and_every_piece_before_it(
        tokens in any_tokens(), more in any_tokens(), rules in any_rules(),
    ) {
        let short = schedule(&tokens, &rules);
        let long = schedule(&[tokens, more].concat(), &rules);
        let long_ends = ends(&long);
        for end in ends(&short) {
            prop_assert!(long_ends.contains(&end), "reuse point {} was lost", end);
        }
        if let Some(last) = short.reuse_points().last() {
            let upto = |cut: &Schedule| -> Vec<Piece> {
                cut.pieces.iter().copied().take_while(|piece| piece.end <= last).collect()
            };
            prop_assert_eq!(upto(&short), upto(&long));
        }
    }

    #[test]
    fn a_reuse_point_depends_on_one_token_after_it_at_most(tokens in any_tokens(), rules in any_rules()) {
        for end in ends(&schedule(&tokens, &rules)) {
            let seen = &tokens[..tokens.len().min(end + 1)];
            prop_assert!(ends(&schedule(seen, &rules)).contains(&end));
        }
    }
}
