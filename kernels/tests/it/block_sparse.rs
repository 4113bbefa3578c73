//! Block-sparse attention: the score of key blocks, their selection and the attention over the kept ones, each
//! against its spec; that nothing changes where everything is kept; and the defect of the published score.

use std::num::NonZeroUsize;

use kernels::blocks::mass::{block_mass, recall};
use kernels::blocks::{BLOCK, Blocks, KeptBlocks};
use kernels::device::{Cpu, Isa};
use kernels::kv::{KvDType, KvLayer, Slot};
use kernels::ops::block_score::Form;
use kernels::ops::block_select::Rule;
use kernels::ops::{attention, block_score, block_select, kv_store, sparse_attention};
use proptest::prelude::*;

use crate::seeded::{Seeded, bits_of, nmse};

pub fn cpu(threads: usize, isa: Isa) -> Cpu {
    Cpu::with_isa(NonZeroUsize::new(threads), isa)
}

/// Query heads, KV heads, head_dim.
pub type Heads = (usize, usize, usize);

/// A context whose last tokens are the queries.
pub struct Case {
    pub n_heads: usize,
    pub q: Vec<f32>,
    pub kv: KvLayer,
    pub slots: Vec<Slot>,
    pub blocks: Blocks,
}

impl Case {
    /// Random inputs in scattered slots after `prefix` whole blocks; `spread` is the size of the queries, so of
    /// the scores' spread. The keys of a block lie about one of a few directions, as a text's do, so that their
    /// mean says something.
    pub fn new(heads: Heads, n_tokens: usize, prefix: usize, dtype: KvDType, spread: f32) -> Case {
        let (n_heads, n_kv_heads, head_dim) = heads;
        let kv_len = prefix * BLOCK + n_tokens;
        let mut seeded = Seeded::new((kv_len * 31 + head_dim * 7 + n_heads) as u64);
        let q = seeded.values(n_tokens * n_heads * head_dim).iter().map(|x| x * spread).collect();
        let [mut k, v] = [0; 2].map(|_| seeded.values(kv_len * n_kv_heads * head_dim));
        for block in k.chunks_mut(BLOCK * n_kv_heads * head_dim) {
            let centre = seeded.values(n_kv_heads * head_dim);
            for key in block.chunks_mut(centre.len()) {
                key.iter_mut().zip(&centre).for_each(|(k, c)| *k = *k * 0.5 + c);
            }
        }
        // 7 is coprime to n_slots by choice of n_slots: a permutation of more slots than needed.
        let n_slots = (kv_len + 5).next_multiple_of(7) + 1;
        let slots: Vec<Slot> = (0..kv_len).map(|i| Slot((i * 7 % n_slots) as u32)).collect();
        let mut kv = KvLayer::new(n_slots, n_kv_heads, head_dim, dtype);
        kv_store::cpu(&cpu(1, Isa::Portable), &k, &v, &slots, &mut kv);
        Case { n_heads, q, kv, slots, blocks: Blocks::new(n_tokens, kv_len) }
    }

    pub fn params(&self, form: Form) -> block_score::Params {
        block_score::Params { n_heads: self.n_heads, form }
    }

    pub fn n_scores(&self) -> usize {
        self.n_heads * self.blocks.n_query_blocks() * self.blocks.n_key_blocks()
    }

    pub fn spec_scores(&self, form: Form) -> Vec<f32> {
        let mut scores = vec![f32::NAN; self.n_scores()];
        block_score::spec(&self.q, &self.kv, &self.slots, self.params(form), &mut scores);
        scores
    }

    fn scores(&self, cpu: &Cpu, form: Form) -> Vec<f32> {
        let mut scores = vec![f32::NAN; self.n_scores()];
        block_score::cpu(cpu, &self.q, &self.kv, &self.slots, self.params(form), &mut scores);
        scores
    }

    pub fn select(&self, scores: &[f32], rule: &Rule) -> KeptBlocks {
        let mut kept = KeptBlocks::empty(self.n_heads, self.blocks);
        block_select::spec(scores, self.blocks, rule, &mut kept);
        kept
    }

    pub fn spec_attention(&self, kept: &KeptBlocks) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.q.len()];
        sparse_attention::spec(&self.q, &self.kv, &self.slots, kept, &mut out);
        out
    }

    fn attention(&self, cpu: &Cpu, kept: &KeptBlocks) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.q.len()];
        sparse_attention::cpu(cpu, &self.q, &self.kv, &self.slots, kept, &mut out);
        out
    }
}

/// A rule that keeps blocks for their score and the own block alone.
pub fn bare(alpha: f32) -> Rule {
    Rule { sink: 0, window: 1, last_full: 0, alpha }
}

const DTYPES: [KvDType; 2] = [KvDType::F32, KvDType::BF16];
const FORMS: [Form; 2] = [Form::Normalised, Form::LuceboxCompat];

/// Scores and attention near their specs on every instruction set, the same bits on 1, 2 and 3 threads, and the
/// lists of the spec exactly.
#[track_caller]
fn check(case: &Case, alpha: f32) {
    let (max_score, max_attention) = match case.kv.dtype() {
        KvDType::F32 => (block_score::MAX_NMSE_F32, sparse_attention::MAX_NMSE_F32),
        KvDType::BF16 => (block_score::MAX_NMSE_BF16, sparse_attention::MAX_NMSE_BF16),
    };
    let kept = case.select(&case.spec_scores(Form::Normalised), &Rule { alpha, ..bare(0.0) });
    let want = case.spec_attention(&kept);
    for isa in Isa::available() {
        let one = cpu(1, isa);
        let scores = FORMS.map(|form| case.scores(&one, form));
        for (form, scores) in FORMS.into_iter().zip(&scores) {
            let error = nmse(&case.spec_scores(form), scores);
            assert!(error <= max_score, "{isa}, {}, {form:?}: error {error:e}", case.kv.dtype());
        }
        let got = case.attention(&one, &kept);
        let error = nmse(&want, &got);
        assert!(error <= max_attention, "{isa}, {}: error {error:e}", case.kv.dtype());
        for threads in [2, 3] {
            let cpu = cpu(threads, isa);
            for (form, scores) in FORMS.into_iter().zip(&scores) {
                assert_eq!(bits_of(&case.scores(&cpu, form)), bits_of(scores), "{isa}, {threads} threads");
            }
            assert_eq!(bits_of(&case.attention(&cpu, &kept)), bits_of(&got), "{isa}, {threads} threads");
        }
    }
}

#[test]
fn agrees_with_the_specs_at_every_length_and_prefix() {
    for dtype in DTYPES {
        for (n_tokens, prefix) in [(1, 0), (127, 0), (128, 0), (129, 1), (1, 9), (300, 8), (640, 0)] {
            check(&Case::new((4, 2, 64), n_tokens, prefix, dtype, 1.0), 0.5);
        }
    }
}

#[test]
fn agrees_with_the_specs_at_every_head_shape() {
    for dtype in DTYPES {
        for heads in [(1, 1, 2), (2, 2, 48), (6, 2, 80), (8, 1, 128), (3, 1, 256)] {
            check(&Case::new(heads, 200, 3, dtype, 1.0), 0.3);
        }
    }
}

#[test]
fn more_key_blocks_than_a_tile_of_them() {
    for dtype in DTYPES {
        check(&Case::new((2, 1, 32), 140, 70, dtype, 1.0), 0.2);
    }
}

#[test]
fn with_every_block_kept_the_bits_are_those_of_dense_attention() {
    for (dtype, isa) in DTYPES.into_iter().flat_map(|d| Isa::available().map(move |i| (d, i))) {
        for (n_tokens, prefix) in [(1, 0), (200, 0), (300, 17)] {
            let case = Case::new((4, 2, 64), n_tokens, prefix, dtype, 2.0);
            let cpu = cpu(2, isa);
            let mut dense = vec![f32::NAN; case.q.len()];
            attention::cpu(&cpu, &case.q, &case.kv, &case.slots, case.n_heads, &mut dense);
            // By an alpha of 0, and by hand.
            let scores = case.scores(&cpu, Form::Normalised);
            let kept = case.select(&scores, &bare(0.0));
            assert_eq!(kept, KeptBlocks::all(case.n_heads, case.blocks));
            assert_eq!(bits_of(&case.attention(&cpu, &kept)), bits_of(&dense), "{isa}, {dtype}");
        }
    }
}

#[test]
fn a_block_that_is_left_out_is_not_read() {
    let mut case = Case::new((2, 1, 32), 256, 12, KvDType::F32, 1.0);
    let cpu = cpu(2, Isa::detect());
    let poison = vec![f32::NAN; 32];
    for slot in &case.slots[9 * BLOCK..10 * BLOCK] {
        kv_store::cpu(&cpu, &poison, &poison, &[*slot], &mut case.kv);
    }
    let mut kept = KeptBlocks::empty(2, case.blocks);
    kept.set(0, 0, &[0, 8, 12]);
    kept.set(0, 1, &[13]);
    kept.set(1, 0, &[3, 9, 12]);
    kept.set(1, 1, &[10, 11, 13]);
    let out = case.attention(&cpu, &kept);
    for (i, row) in out.chunks(32).enumerate() {
        let (token, head) = (i / 2, i % 2);
        let poisoned = head == 1 && token < BLOCK;
        assert!(row.iter().all(|x| x.is_nan() == poisoned), "token {token}, head {head}");
    }
}

/// 64 blocks of one KV head. One row of the last query block asks for what block 20 holds and nobody else has; to all
/// the other rows, all blocks are nearly alike.
pub fn needle(head_dim: usize, dtype: KvDType) -> Case {
    let (n_blocks, needle) = (64, 20);
    let kv_len = n_blocks * BLOCK;
    let slots: Vec<Slot> = (0..kv_len as u32).map(Slot).collect();
    let mut kv = KvLayer::new(kv_len, 1, head_dim, dtype);
    let (mut k, scale) = (vec![0.0; kv_len * head_dim], (head_dim as f32).sqrt());
    for (i, key) in k.chunks_mut(head_dim).enumerate() {
        let block = i / BLOCK;
        let (asked_for, common) = if block == needle { (4.0, 0.0) } else { (0.0, block as f32 / 640.0) };
        (key[0], key[1]) = (asked_for, common);
    }
    // A value says which block it is from.
    let v: Vec<f32> = (0..k.len()).map(|i| (i / (BLOCK * head_dim)) as f32).collect();
    kv_store::cpu(&cpu(1, Isa::Portable), &k, &v, &slots, &mut kv);
    let blocks = Blocks::new(BLOCK, kv_len);
    // A logit of 10 · ln 2 for the needle from row 77, of 0 to 0.1 for everything else.
    let mut q = vec![0.0; BLOCK * head_dim];
    for q in q.chunks_mut(head_dim) {
        q[1] = scale / 2f32.sqrt();
    }
    q[head_dim * 77] = 10.0 * std::f32::consts::LN_2 * scale / 4.0;
    Case { n_heads: 1, q, kv, slots, blocks }
}

/// How many blocks score above block 20.
pub fn rank_of_needle(scores: &[f32]) -> usize {
    scores.iter().filter(|score| **score > scores[20]).count()
}

#[test]
fn the_published_score_ranks_a_needle_last_and_the_normalised_one_first() {
    let case = needle(2, KvDType::F32);
    let mass = block_mass(&case.q, &case.kv, &case.slots, 1, (0, 0));
    let heaviest = (0..64).max_by(|a, b| mass[*a].total_cmp(&mass[*b]));
    assert_eq!(heaviest, Some(20), "dense attention finds the needle");
    assert_eq!(recall(&mass, &[20]).top, 1.0);
    for cpu in Isa::available().map(|isa| cpu(1, isa)) {
        let [normalised, compat] = FORMS.map(|form| case.scores(&cpu, form));
        assert_eq!((rank_of_needle(&normalised), rank_of_needle(&compat)), (0, 63));
        // Its 128 rows: one at 2^0 relative to its own maximum, 127 at 2^-10. Flat blocks: 128 rows at nearly 2^0.
        assert!((compat[20] - (1.0 + 127.0 / 1024.0)).abs() < 1e-4, "{}", compat[20]);
        assert!(compat.iter().enumerate().all(|(n, score)| n == 20 || *score > 120.0));
        for alpha in [0.12, 0.6, 0.85] {
            let [found, lost] = [&normalised, &compat].map(|scores| case.select(scores, &bare(alpha)));
            assert!(found.list(0, 0).contains(&20), "normalised, alpha {alpha}");
            assert!(!lost.list(0, 0).contains(&20), "compat, alpha {alpha}");
        }
    }
}

#[test]
fn blocks_are_kept_for_where_they_lie() {
    // Scores that keep nothing but block 5 by alpha: 8 query blocks after a prefix of 4.
    let blocks = Blocks::new(8 * BLOCK - 50, 12 * BLOCK - 50);
    let scores: Vec<f32> = (0..8 * 12).map(|i| if i % 12 == 5 { 1.0 } else { 0.01 }).collect();
    let cpu = cpu(2, Isa::detect());
    let lists = |rule: Rule| {
        let mut kept = KeptBlocks::empty(1, blocks);
        block_select::cpu(&cpu, &scores, blocks, &rule, &mut kept);
        (0..8).map(|m| kept.list(0, m).to_vec()).collect::<Vec<_>>()
    };
    let kept = lists(Rule { sink: 2, window: 3, last_full: 1, alpha: 0.5 });
    // Block 4 does not see block 5: every score it sees is the largest.
    assert_eq!(kept[0], [0, 1, 2, 3, 4]);
    assert_eq!(kept[1], [0, 1, 3, 4, 5]);
    assert_eq!(kept[3], [0, 1, 5, 6, 7]);
    assert_eq!(kept[6], [0, 1, 5, 8, 9, 10]);
    assert_eq!(kept[7], (0..12).collect::<Vec<u32>>(), "the last keeps everything");
    assert_eq!(lists(bare(0.5))[7], [5, 11]);
    assert_eq!(lists(bare(0.02))[7], [5, 11]);
    assert_eq!(lists(bare(0.01))[7], (0..12).collect::<Vec<u32>>(), "equal to alpha is kept");
    assert_eq!(lists(Rule::default())[5], [0, 1, 5, 6, 7, 8, 9]);
    assert_eq!(lists(Rule::default())[6], (0..11).collect::<Vec<u32>>());
}

#[test]
fn a_longer_text_selects_the_same_for_earlier_whole_blocks() {
    // What a cache needs: without last_full, a whole block's list does not depend on what follows it.
    let long = Case::new((2, 1, 32), 9 * BLOCK + 17, 0, KvDType::BF16, 2.0);
    let cpu = cpu(2, Isa::detect());
    let short = Case {
        q: long.q[..5 * BLOCK * 2 * 32].to_vec(),
        slots: long.slots[..5 * BLOCK].to_vec(),
        blocks: Blocks::new(5 * BLOCK, 5 * BLOCK),
        kv: long.kv.clone(),
        n_heads: 2,
    };
    let rule = Rule { last_full: 0, alpha: 0.4, ..Rule::default() };
    let [long_kept, short_kept] =
        [&long, &short].map(|case| case.select(&case.scores(&cpu, Form::Normalised), &rule));
    for (head, block) in (0..2).flat_map(|head| (0..5).map(move |block| (head, block))) {
        assert_eq!(long_kept.list(head, block), short_kept.list(head, block));
    }
    let (long_out, short_out) = (long.attention(&cpu, &long_kept), short.attention(&cpu, &short_kept));
    assert_eq!(bits_of(&long_out[..short_out.len()]), bits_of(&short_out));
}

#[test]
fn the_mass_of_blocks_is_that_of_dense_attention() {
    // Values that are 1 in one block and 0 elsewhere: attention returns that block's weight.
    let mut case = Case::new((2, 1, 8), 200, 2, KvDType::F32, 2.0);
    let cpu = cpu(1, Isa::detect());
    for n in 0..4 {
        for (j, slot) in case.slots.iter().enumerate() {
            let mut key = [0.0; 8];
            case.kv.key(0, *slot, &mut key);
            let value = [if j / BLOCK == n { 1.0 } else { 0.0 }; 8];
            kv_store::cpu(&cpu, &key, &value, &[*slot], &mut case.kv);
        }
        let mut out = vec![0.0; case.q.len()];
        attention::spec(&case.q, &case.kv, &case.slots, 2, &mut out);
        for (head, query_block) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            let rows = case.blocks.tokens(query_block);
            let want: f64 = rows.map(|t| f64::from(out[(t * 2 + head) * 8])).sum();
            let mass = block_mass(&case.q, &case.kv, &case.slots, 2, (head, query_block));
            assert_eq!(mass.len(), 3 + query_block);
            assert!((mass.get(n).copied().unwrap_or(0.0) - want).abs() < 1e-4);
        }
    }
}

#[test]
fn no_tokens_is_no_work() {
    let case = Case::new((2, 1, 8), 0, 1, KvDType::F32, 1.0);
    let cpu = cpu(2, Isa::detect());
    let kept = case.select(&case.scores(&cpu, Form::Normalised), &Rule::default());
    assert!(case.attention(&cpu, &kept).is_empty());
}

#[test]
#[should_panic(expected = "must end with 1")]
fn a_list_without_the_own_block_is_refused() {
    let case = Case::new((1, 1, 8), 2 * BLOCK, 0, KvDType::F32, 1.0);
    let mut kept = KeptBlocks::all(1, case.blocks);
    kept.set(0, 1, &[0]);
    case.attention(&cpu(1, Isa::Portable), &kept);
}

#[test]
#[should_panic(expected = "are no rule")]
fn an_empty_window_is_refused() {
    let case = Case::new((1, 1, 8), BLOCK, 0, KvDType::F32, 1.0);
    case.select(&[1.0], &Rule { window: 0, ..Rule::default() });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any scores and any rule: the fast version has the lists of the spec, which hold what the rule forces,
    /// ascend, and grow as alpha falls.
    #[test]
    fn any_selection_is_that_of_the_spec(
        n_heads in 1usize..4,
        n_tokens in 1usize..1500,
        prefix in 0usize..6,
        sink in 0usize..4,
        window in 1usize..5,
        last_full in 0usize..3,
        alpha in 0f32..=1.0,
        threads in 1usize..4,
        seed: u64,
    ) {
        let blocks = Blocks::new(n_tokens, prefix * BLOCK + n_tokens);
        let n_scores = n_heads * blocks.n_query_blocks() * blocks.n_key_blocks();
        let scores: Vec<f32> = Seeded::new(seed).values(n_scores).iter().map(|x| (x * 6.0).exp2()).collect();
        let rule = Rule { sink, window, last_full, alpha };
        let [mut want, mut got, mut wider] = [0; 3].map(|_| KeptBlocks::empty(n_heads, blocks));
        block_select::spec(&scores, blocks, &rule, &mut want);
        block_select::spec(&scores, blocks, &Rule { alpha: alpha * 0.7, ..rule }, &mut wider);
        block_select::cpu(&cpu(threads, Isa::detect()), &scores, blocks, &rule, &mut got);
        for (head, m) in (0..n_heads).flat_map(|h| (0..blocks.n_query_blocks()).map(move |m| (h, m))) {
            let list = want.list(head, m);
            prop_assert_eq!(list, got.list(head, m));
            prop_assert!(list.iter().all(|n| wider.list(head, m).contains(n)));
            let own = blocks.own(m);
            prop_assert_eq!(list.last(), Some(&(own as u32)));
            let forced = |n: usize| n < sink || own - n < window || own + last_full >= blocks.n_key_blocks();
            prop_assert!((0..=own).filter(|n| forced(*n)).all(|n| list.contains(&(n as u32))));
        }
    }

    /// Normalised scores are shares of one; compat scores lie between 1 and the rows of the block; attention over
    /// any kept blocks agrees with the spec.
    #[test]
    fn any_shape_agrees_with_the_specs(
        n_kv_heads in 1usize..3,
        group in 1usize..4,
        half_dim in 1usize..40,
        n_tokens in 1usize..400,
        prefix in 0usize..4,
        alpha in 0f32..=1.0,
        bf16: bool,
    ) {
        let dtype = if bf16 { KvDType::BF16 } else { KvDType::F32 };
        let case = Case::new((n_kv_heads * group, n_kv_heads, 2 * half_dim), n_tokens, prefix, dtype, 1.0);
        let cpu = cpu(2, Isa::detect());
        let [scores, compat] = FORMS.map(|form| case.scores(&cpu, form));
        for (list, (scores, compat)) in
            scores.chunks(case.blocks.n_key_blocks()).zip(compat.chunks(case.blocks.n_key_blocks())).enumerate()
        {
            let query_block = list % case.blocks.n_query_blocks();
            let (seen, rows) = (case.blocks.own(query_block) + 1, case.blocks.tokens(query_block).len() as f32);
            prop_assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            prop_assert!(scores[seen..].iter().chain(&compat[seen..]).all(|s| *s == 0.0));
            prop_assert!(compat[..seen].iter().all(|p| (0.999..=rows * 1.001).contains(p)));
        }
        let kept = case.select(&scores, &bare(alpha));
        let max = if bf16 { sparse_attention::MAX_NMSE_BF16 } else { sparse_attention::MAX_NMSE_F32 };
        let error = nmse(&case.spec_attention(&kept), &case.attention(&cpu, &kept));
        prop_assert!(error <= max, "{error:e}");
    }
}
