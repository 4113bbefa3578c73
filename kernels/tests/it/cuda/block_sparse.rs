//! Block-sparse attention on the device: scores, selection, attention and the three in a row.

use half::bf16;
use kernels::blocks::device::DeviceKeptBlocks;
use kernels::blocks::{BLOCK, Blocks, KeptBlocks};
use kernels::device::cuda::{Cuda, DeviceBuffer, DeviceKv};
use kernels::kv::{KvDType, Slot};
use kernels::ops::attention::prefill::{self, Prefill};
use kernels::ops::block_score::{DeviceKeys, DeviceScores, Form};
use kernels::ops::block_select::Rule;
use kernels::ops::sparse_attention::DeviceContext;
use kernels::ops::{block_score, block_select, sparse_attention};

use crate::block_sparse::{Case, Heads, bare, needle, rank_of_needle};
use crate::cuda::devices;
use crate::seeded::{Seeded, bits_of, nmse};

/// A case in device memory.
struct OnDevice<'a> {
    cuda: &'a Cuda,
    case: &'a Case,
    q: DeviceBuffer<bf16>,
    kv: DeviceKv,
    slots: DeviceBuffer<i32>,
}

/// The case with the queries the device is given.
fn rounded(mut case: Case) -> Case {
    case.q.iter_mut().for_each(|q| *q = bf16::from_f32(*q).to_f32());
    case
}

impl<'a> OnDevice<'a> {
    fn new(cuda: &'a Cuda, case: &'a Case) -> Self {
        let (layer, q) = (&case.kv, case.q.iter().map(|q| bf16::from_f32(*q)).collect::<Vec<_>>());
        let (n_slots, n_kv_heads, head_dim) = (layer.n_slots(), layer.n_kv_heads(), layer.head_dim());
        let (mut keys, mut values, mut row) = (Vec::new(), Vec::new(), vec![0.0; head_dim]);
        for (head, slot) in (0..n_kv_heads).flat_map(|h| (0..n_slots as u32).map(move |s| (h, Slot(s)))) {
            layer.key(head, slot, &mut row);
            keys.extend(row.iter().map(|x| bf16::from_f32(*x)));
            layer.value(head, slot, &mut row);
            values.extend(row.iter().map(|x| bf16::from_f32(*x)));
        }
        let [keys, values] = [keys, values].map(|rows| cuda.upload(&rows).unwrap());
        let slots: Vec<i32> = case.slots.iter().map(|slot| slot.0 as i32).collect();
        let kv = DeviceKv { keys, values, n_slots, n_kv_heads, head_dim };
        Self { cuda, case, q: cuda.upload(&q).unwrap(), kv, slots: cuda.upload(&slots).unwrap() }
    }

    fn scores(&self, form: Form) -> DeviceBuffer<f32> {
        let n_means = self.kv.n_kv_heads * self.case.blocks.n_key_blocks() * self.kv.head_dim;
        let mut means = self.cuda.alloc(n_means).unwrap();
        let mut scores = self.cuda.alloc(self.case.n_scores()).unwrap();
        let keys = DeviceKeys { kv: &self.kv, slots: self.slots.view() };
        let mut out = DeviceScores { means: means.view_mut(), scores: scores.view_mut() };
        block_score::cuda(self.cuda, self.q.view(), keys, self.case.params(form), &mut out).unwrap();
        scores
    }

    fn select(&self, scores: &DeviceBuffer<f32>, rule: &Rule) -> DeviceKeptBlocks {
        let mut kept = DeviceKeptBlocks::new(self.cuda, self.case.n_heads, self.case.blocks).unwrap();
        block_select::cuda(self.cuda, scores.view(), rule, &mut kept).unwrap();
        kept
    }

    /// Dense prefill by the kernel that folds all tiles in a row.
    fn dense(&self) -> Vec<f32> {
        let (n_tokens, kv_len) = (self.case.blocks.n_tokens(), self.case.blocks.kv_len());
        assert_eq!(prefill::scratch_len(n_tokens, kv_len, self.case.n_heads, &self.kv), 0, "one split");
        let (mut out, mut scratch) = (self.cuda.alloc(self.q.len()).unwrap(), self.cuda.alloc(0).unwrap());
        let (start, n_heads) = (kv_len - n_tokens, self.case.n_heads);
        let call = Prefill { q: self.q.view(), kv: &self.kv, slots: self.slots.view(), start, n_heads };
        prefill::cuda(self.cuda, &call, scratch.view_mut(), out.view_mut()).unwrap();
        out.read().unwrap().iter().map(|x: &bf16| x.to_f32()).collect()
    }

    fn attention(&self, kept: &DeviceKeptBlocks) -> Vec<f32> {
        let mut out = self.cuda.alloc(self.q.len()).unwrap();
        let context = DeviceContext { kv: &self.kv, slots: self.slots.view(), kept };
        sparse_attention::cuda(self.cuda, self.q.view(), context, &mut out.view_mut()).unwrap();
        out.read().unwrap().iter().map(|x: &bf16| x.to_f32()).collect()
    }
}

/// Runs `run` twice on every device: near `want`, and the same bits each time; on emulated devices the same among
/// them.
#[track_caller]
fn check(case: &Case, want: &[f32], max_nmse: f64, run: impl Fn(&OnDevice<'_>) -> Vec<f32>) {
    let mut emulated: Option<Vec<u32>> = None;
    for cuda in devices() {
        let on_device = OnDevice::new(&cuda, case);
        let got = run(&on_device);
        let error = nmse(want, &got);
        assert!(error <= max_nmse, "{}: error {error:e}", cuda.info().name);
        assert_eq!(bits_of(&run(&on_device)), bits_of(&got), "a second launch");
        if cuda.is_emulated() {
            assert_eq!(
                emulated.get_or_insert_with(|| bits_of(&got)),
                &bits_of(&got),
                "another order of warps"
            );
        }
    }
}

const D64: Heads = (2, 1, 64);
const D128: Heads = (3, 3, 128);

#[test]
fn scores_agree_with_the_spec() {
    // Partial and whole last blocks, rows of few warps, a prefix, more key blocks than a tile of means.
    for (heads, n_tokens, prefix) in
        [(D64, 1, 0), (D64, 130, 2), (D128, 128, 0), (D128, 17, 3), ((2, 2, 64), 129, 65)]
    {
        let case = rounded(Case::new(heads, n_tokens, prefix, KvDType::BF16, 1.0));
        for form in [Form::Normalised, Form::LuceboxCompat] {
            let want = case.spec_scores(form);
            check(&case, &want, block_score::MAX_NMSE_CUDA, |it| it.scores(form).read().unwrap());
        }
    }
}

#[test]
fn selections_are_those_of_the_spec() {
    let rules = [Rule::default(), bare(0.3), Rule { sink: 1, window: 40, last_full: 1, alpha: 1.0 }];
    for (n_heads, n_tokens, prefix) in [(1, 1, 0), (3, 300, 0), (2, 257, 70)] {
        let blocks = Blocks::new(n_tokens, prefix * BLOCK + n_tokens);
        let n_scores = n_heads * blocks.n_query_blocks() * blocks.n_key_blocks();
        let scores: Vec<f32> = Seeded::new(7).values(n_scores).iter().map(|x| (x * 4.0).exp2()).collect();
        for rule in &rules {
            let mut want = KeptBlocks::empty(n_heads, blocks);
            block_select::spec(&scores, blocks, rule, &mut want);
            for cuda in devices() {
                let mut kept = DeviceKeptBlocks::new(&cuda, n_heads, blocks).unwrap();
                let scores = cuda.upload(&scores).unwrap();
                block_select::cuda(&cuda, scores.view(), rule, &mut kept).unwrap();
                assert_eq!(kept.read().unwrap(), want, "{rule:?}");
            }
        }
    }
}

#[test]
fn attention_agrees_with_the_spec_over_any_kept_blocks() {
    for (heads, n_tokens, prefix) in
        [(D64, 1, 0), (D64, 65, 1), (D64, 300, 2), (D128, 128, 1), ((4, 2, 128), 150, 0), (D128, 40, 6)]
    {
        let case = rounded(Case::new(heads, n_tokens, prefix, KvDType::BF16, 2.0));
        let scores = case.spec_scores(Form::Normalised);
        for kept in [case.select(&scores, &bare(0.5)), KeptBlocks::all(case.n_heads, case.blocks)] {
            let want = case.spec_attention(&kept);
            check(&case, &want, sparse_attention::MAX_NMSE_CUDA, |it| {
                it.attention(&DeviceKeptBlocks::upload(it.cuda, &kept, case.blocks).unwrap())
            });
        }
    }
}

#[test]
fn with_every_block_kept_the_bits_are_those_of_dense_prefill() {
    // Two heads of a group are rows of one tile in dense prefill, of two in sparse attention.
    for (heads, n_tokens, prefix) in [(D64, 1, 0), (D64, 300, 1), ((4, 2, 128), 200, 2)] {
        let case = rounded(Case::new(heads, n_tokens, prefix, KvDType::BF16, 2.0));
        for cuda in devices() {
            let it = OnDevice::new(&cuda, &case);
            let kept = it.select(&it.scores(Form::Normalised), &bare(0.0));
            assert_eq!(bits_of(&it.attention(&kept)), bits_of(&it.dense()), "{}", cuda.info().name);
        }
    }
}

#[test]
fn a_needle_is_kept_by_the_normalised_score_and_lost_by_the_published_one() {
    let case = rounded(needle(64, KvDType::BF16));
    for cuda in devices() {
        let it = OnDevice::new(&cuda, &case);
        for (form, rank) in [(Form::Normalised, 0), (Form::LuceboxCompat, 63)] {
            let scores = it.scores(form);
            assert_eq!(rank_of_needle(&scores.read().unwrap()), rank, "{form:?}");
            for alpha in [0.12, 0.6, 0.85] {
                let kept = it.select(&scores, &bare(alpha));
                let lists = kept.read().unwrap();
                assert_eq!(lists.list(0, 0).contains(&20), form == Form::Normalised, "{form:?}, {alpha}");
                // The lists on the device are those that attention follows.
                let (want, got) = (case.spec_attention(&lists), it.attention(&kept));
                assert!(nmse(&want, &got) <= sparse_attention::MAX_NMSE_CUDA);
            }
        }
    }
}

#[test]
fn a_block_that_is_left_out_is_not_read_on_the_device() {
    let case = rounded(Case::new(D64, 200, 2, KvDType::BF16, 1.0));
    let mut kept = KeptBlocks::empty(2, case.blocks);
    for (head, query_block) in [(0, 0), (0, 1), (1, 0)] {
        kept.set(head, query_block, &[0, 2 + query_block as u32]);
    }
    kept.set(1, 1, &[1, 3]);
    for cuda in devices() {
        let mut it = OnDevice::new(&cuda, &case);
        let mut values = it.kv.values.read().unwrap();
        for slot in &case.slots[BLOCK..2 * BLOCK] {
            values[slot.0 as usize * 64..][..64].fill(bf16::NAN);
        }
        it.kv.values.write(&values).unwrap();
        let out = it.attention(&DeviceKeptBlocks::upload(&cuda, &kept, case.blocks).unwrap());
        for (i, row) in out.chunks(64).enumerate() {
            let (token, head) = (i / 2, i % 2);
            let poisoned = head == 1 && token >= BLOCK;
            assert!(row.iter().all(|x| x.is_nan() == poisoned), "token {token}, head {head}");
        }
    }
}
