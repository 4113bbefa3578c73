//! The table of arms, arm files, and what becomes of both once the run's values fill them.

use std::fs;

use replay::arm::{self, Arm, ArmSpec, Cache, Residency};
use replay::compression::{
    CompressionSettings, FallbackChoice, Policy, ScoreBy, ScoreLayers, ScoreRope, Selection, UserFallback,
    WithTools,
};
use replay::plan::has_state;
use replay::settings::Settings;

use crate::fixture;

fn choose(names: &[&str]) -> Result<Vec<Arm>, String> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    arm::choose(&names, &[], &fixture::settings().arm_defaults()).map_err(|error| error.to_string())
}

fn from_file(text: &str) -> Result<Vec<ArmSpec>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("arms.toml");
    fs::write(&path, text).unwrap();
    arm::read_file(&path).map_err(|error| error.to_string())
}

#[test]
fn the_table_is_compression_by_cache() {
    let names: Vec<String> = arm::built_in().into_iter().map(|spec| spec.name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let arms = choose(&names).unwrap();
    let rows: Vec<_> = arms
        .into_iter()
        .map(|arm| {
            let state = has_state(&arm);
            (arm.compression.map(|compression| compression.policy), arm.cache, state)
        })
        .collect();
    let expected = [
        (None, Cache::Off, false),
        (Some(Policy::Rescore), Cache::Off, false),
        (None, Cache::On, true),
        (Some(Policy::Freeze), Cache::On, true),
        (Some(Policy::Rescore), Cache::On, true),
        (Some(Policy::Freeze), Cache::Off, true),
        (Some(Policy::Freeze), Cache::On, true),
        (Some(Policy::Freeze), Cache::On, true),
        (Some(Policy::Rolling), Cache::On, true),
        (Some(Policy::LatencyOnly), Cache::On, true),
        (Some(Policy::Evict), Cache::On, true),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn the_fallback_is_on_where_every_call_is_scored_anew() {
    let arms = choose(&["warm", "cache+compression"]).unwrap();
    let fallback = |arm: &Arm| arm.compression.as_ref().unwrap().user_fallback;
    assert_eq!(fallback(&arms[0]), UserFallback::On);
    assert_eq!(fallback(&arms[1]), UserFallback::Off);
}

#[test]
fn what_is_frozen_is_asked_by_its_birth_and_what_is_scored_anew_stays_as_published() {
    let settings = |names: &[&str], run: Settings| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let arms = arm::choose(&names, &[], &run.arm_defaults()).unwrap();
        arms.into_iter().map(|arm| arm.compression.unwrap()).collect::<Vec<_>>()
    };
    let open = Settings { with_tools: None, ..fixture::settings() };
    for compat in settings(&["warm", "cache+rescore"], open.clone()) {
        let knobs = (compat.score_by, compat.score_rope, compat.with_tools);
        assert_eq!(knobs, (ScoreBy::OwnTail, ScoreRope::Rope, WithTools::Bypass));
        assert_eq!((compat.selection, compat.keep_floor_tokens), (Selection::Compat, None));
        assert!(compat.verbatim_tools.is_empty());
    }
    for stacked in settings(&["cache+compression", "freeze-only"], open.clone()) {
        let knobs = (stacked.score_by, stacked.score_rope, stacked.with_tools);
        assert_eq!(knobs, (ScoreBy::Birth, ScoreRope::Rope, WithTools::Compress));
        assert_eq!((stacked.selection, stacked.keep_floor_tokens), (Selection::Structural, Some(0)));
    }
    let asked =
        Settings { score_by: Some(ScoreBy::Birth), score_rope: Some(ScoreRope::Nope), ..open.clone() };
    let warm = &settings(&["warm"], asked)[0];
    assert_eq!((warm.score_by, warm.score_rope), (ScoreBy::Birth, ScoreRope::Nope));
    assert_eq!(
        warm.with_tools,
        WithTools::Compress,
        "what is asked by the task is compressed with tools, too"
    );
    let band = Settings { score_layers: Some(ScoreLayers::Mid), ..open.clone() };
    assert_eq!(settings(&["warm"], band)[0].score_rope, ScoreRope::Nope, "a band retrieves before RoPE");
    let whole = Settings {
        selection: Some(Selection::Lines),
        keep_floor_tokens: 9,
        verbatim_tools: vec!["Edit".to_owned()],
        ..open.clone()
    };
    let warm = &settings(&["warm"], whole)[0];
    assert_eq!((warm.selection, warm.keep_floor_tokens), (Selection::Lines, Some(9)));
    assert_eq!(warm.verbatim_tools, ["Edit"]);
    let bypassed = Settings { with_tools: Some(WithTools::Bypass), ..open };
    assert_eq!(settings(&["cache+compression"], bypassed)[0].with_tools, WithTools::Bypass);
}

#[test]
fn the_controls_differ_from_the_stack_in_score_and_floor_alone() {
    let run = Settings { seed: 5, keep_floor_tokens: 64, with_tools: None, ..fixture::settings() };
    let names = ["cache+compression", "random", "head-tail"].map(str::to_owned);
    let arms = arm::choose(&names, &[], &run.arm_defaults()).unwrap();
    let of = |arm: &Arm| arm.compression.clone().unwrap();
    let stack = of(&arms[0]);
    for (control, score_by, score_seed) in
        [(&arms[1], ScoreBy::Random, Some(5)), (&arms[2], ScoreBy::HeadTail, None)]
    {
        let selection = Selection::Lines;
        let expected = CompressionSettings { score_by, score_seed, selection, ..stack.clone() };
        assert_eq!(of(control), expected);
        assert_eq!(control.cache, arms[0].cache);
    }
    // A run's own choice is for arms that have none.
    let asked = Settings { score_by: Some(ScoreBy::OwnTail), ..run };
    let random = &arm::choose(&names[1..2], &[], &asked.arm_defaults()).unwrap()[0];
    assert_eq!(of(random).score_by, ScoreBy::Random);
}

#[test]
fn rolling_and_latency_only_are_the_stack_but_for_the_age() {
    let run = Settings { keep_verbatim_newest: 2, ..fixture::settings() };
    let names = ["cache+compression", "rolling", "latency-only"].map(str::to_owned);
    let arms = arm::choose(&names, &[], &run.arm_defaults()).unwrap();
    let of = |arm: &Arm| arm.compression.clone().unwrap();
    assert_eq!(of(&arms[0]).keep_verbatim_newest, None);
    let (policy, keep_verbatim_newest) = (Policy::Rolling, Some(2));
    assert_eq!(of(&arms[1]), CompressionSettings { policy, keep_verbatim_newest, ..of(&arms[0]) });
    assert_eq!(of(&arms[2]), CompressionSettings { policy: Policy::LatencyOnly, ..of(&arms[0]) });
    let own = from_file(
        "[[arm]]\nname = \"own\"\ncompression = \"rolling\"\ncache = \"on\"\nkeep_verbatim_newest = 0\n",
    );
    let own = arm::choose(&["own".to_owned()], &own.unwrap(), &run.arm_defaults()).unwrap();
    assert_eq!(of(&own[0]), CompressionSettings { keep_verbatim_newest: Some(0), ..of(&arms[1]) });
}

#[test]
fn evict_is_the_stack_but_for_where_and_when_it_drops() {
    let run = Settings { user_fallback: FallbackChoice::On, ..fixture::settings() };
    let names = ["cache+compression", "evict"].map(str::to_owned);
    let arms = arm::choose(&names, &[], &run.arm_defaults()).unwrap();
    let of = |arm: &Arm| arm.compression.clone().unwrap();
    let (policy, keep_verbatim_newest) = (Policy::Evict, Some(1));
    // User messages do not age, so nothing can stand in for a tool message.
    let user_fallback = UserFallback::Off;
    let expected = CompressionSettings { policy, keep_verbatim_newest, user_fallback, ..of(&arms[0]) };
    assert_eq!((of(&arms[1]), of(&arms[0]).user_fallback), (expected, UserFallback::On));
}

#[test]
fn an_arm_recorded_before_the_knobs_was_scored_as_published() {
    let arm = &choose(&["warm"]).unwrap()[0];
    let mut json = serde_json::to_value(arm).unwrap();
    let knobs = [
        "keep_verbatim_newest",
        "score_by",
        "score_seed",
        "score_layers",
        "selection",
        "keep_floor_tokens",
        "verbatim_tools",
    ];
    for knob in knobs {
        json["compression"].as_object_mut().unwrap().remove(knob).unwrap();
    }
    assert_eq!(&serde_json::from_value::<Arm>(json).unwrap(), arm);
}

#[test]
fn names_are_checked() {
    let error = choose(&["cold", "cach-only"]).unwrap_err();
    assert_eq!(
        error,
        "arm `cach-only`: unknown; known arms are cold, warm, cache-only, cache+compression, cache+rescore, freeze-only, \
         random, head-tail, rolling, latency-only, evict"
    );
    assert!(choose(&["cold", "cold"]).unwrap_err().contains("given twice"));
    assert!(choose(&[]).unwrap_err().contains("got 0"));
}

#[test]
fn an_arm_of_a_file_takes_the_runs_values_where_it_names_none() {
    let own = from_file(
        r#"
        [[arm]]
        name = "plain"

        [[arm]]
        name = "half"
        compression = "freeze"
        cache = "on"
        keep_ratio = 0.25
        score_by = "own-tail"
        score_layers = "mid"
        score_rope = "rope"
        selection = "lines"
        keep_floor = 3
        verbatim_tools = ["patch"]
        compress_threshold = 7
        with_tools = "compress"
        user_fallback = "on"
        residency = "parked"
        stands_for = "a quarter, really"
        "#,
    )
    .unwrap();
    let names = ["plain".to_owned(), "half".to_owned()];
    let arms = arm::choose(&names, &own, &fixture::settings().arm_defaults()).unwrap();
    assert_eq!((&arms[0].compression, arms[0].cache), (&None, Cache::Off));
    let half = arms[1].compression.as_ref().unwrap();
    assert_eq!((half.keep_permille, half.threshold_tokens), (250, 7));
    assert_eq!(half.score_by, ScoreBy::OwnTail);
    assert_eq!((half.score_layers, half.score_rope), (ScoreLayers::Mid, ScoreRope::Rope));
    assert_eq!((half.selection, half.keep_floor_tokens), (Selection::Lines, Some(3)));
    assert_eq!((half.with_tools, &half.verbatim_tools[..]), (WithTools::Compress, &["patch".to_owned()][..]));
    assert_eq!((half.user_fallback, arms[1].residency), (UserFallback::On, Residency::Parked));
}

#[test]
fn bad_arm_files_say_what_is_wrong() {
    for (text, expected) in [
        ("", "no [[arm]] table"),
        ("[[arm]]\n", "missing field `name`"),
        ("[[arm]]\nname = \"x\"\nspeed = 1\n", "unknown field `speed`"),
        ("[[arm]]\nname = \"x\"\ncache = \"maybe\"\n", "unknown variant `maybe`"),
        ("[[arm]]\nname = \"cold\"\n", "built in or named twice"),
        ("[[arm]]\nname = \"x\"\n[[arm]]\nname = \"x\"\n", "built in or named twice"),
        ("[[arm]]\nname = \"Has Space\"\n", "is not 1 to 48 of"),
        (
            "[[arm]]\nname = \"x\"\ncompression = \"freeze\"\nkeep_ratio = 1.5\n",
            "keep_ratio is 1.5, expected 0.001 to 1",
        ),
        ("[[arm]]\nname = \"x\"\ncompression = \"freeze\"\nkeep_ratio = nan\n", "keep_ratio is NaN"),
        ("[[arm]]\nname = \"x\"\nkeep_ratio = 0.5\n", "keep_ratio is set but compression is \"none\""),
        (
            "[[arm]]\nname = \"x\"\ncompression = \"freeze\"\nselection = \"compat\"\nkeep_floor = 3\n",
            "keep_floor is set but selection is \"compat\"",
        ),
        (
            "[[arm]]\nname = \"x\"\ncompression = \"freeze\"\nkeep_verbatim_newest = 3\n",
            "keep_verbatim_newest is set but compression is not \"rolling\" or \"evict\"",
        ),
        (
            "[[arm]]\nname = \"x\"\ncompression = \"latency-only\"\n",
            "\"latency-only\" fills a cache between calls, but cache is \"off\"",
        ),
        ("not toml", "expected"),
    ] {
        let error = from_file(text).unwrap_err();
        assert!(error.contains(expected) && error.contains("arms.toml"), "{text:?} gave {error}");
    }
    let missing = arm::read_file(std::path::Path::new("/no/such/arms.toml")).unwrap_err().to_string();
    assert!(missing.starts_with("/no/such/arms.toml: cannot be read"), "{missing}");
}

#[test]
fn keep_ratios_are_thousandths() {
    for (ratio, permille) in [(0.05, Some(50)), (1.0, Some(1000)), (0.001, Some(1)), (0.0295, Some(30))] {
        assert_eq!(arm::permille(ratio), permille, "{ratio}");
    }
    for ratio in [0.0, -1.0, 1.1, f64::NAN, f64::INFINITY, 0.0001] {
        assert_eq!(arm::permille(ratio), None, "{ratio}");
    }
}

/// The arms of a file that the documentation names.
fn documented(file: &str) -> Vec<ArmSpec> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/arms");
    arm::read_file(&folder.join(file)).unwrap()
}

fn arms_of(specs: &[ArmSpec]) -> Vec<Arm> {
    let names: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
    arm::choose(&names, specs, &fixture::settings().arm_defaults()).unwrap()
}

#[test]
fn the_fidelity_sweep_is_three_rankings_at_five_budgets() {
    let arms = arms_of(&documented("fidelity.toml"));
    let knobs = |arm: &Arm| arm.compression.clone().unwrap();
    let budgets: Vec<Vec<u32>> =
        arms.chunks(5).map(|line| line.iter().map(|arm| knobs(arm).keep_permille).collect()).collect();
    assert_eq!(budgets, vec![vec![1000, 500, 250, 125, 45]; 3]);
    let scores: Vec<ScoreBy> = arms.iter().step_by(5).map(|arm| knobs(arm).score_by).collect();
    assert_eq!(scores, [ScoreBy::Birth, ScoreBy::Random, ScoreBy::HeadTail]);
    // Everything else is the same, so that nothing else explains a difference.
    let rest = |arm: &Arm| CompressionSettings {
        keep_permille: 0,
        score_by: ScoreBy::Birth,
        score_seed: None,
        ..knobs(arm)
    };
    assert!(arms.iter().all(|arm| rest(arm) == rest(&arms[0]) && arm.cache == Cache::On));
    assert_eq!(rest(&arms[0]).keep_floor_tokens, Some(32));
}

#[test]
fn the_floor_is_measured_under_three_rankings() {
    let arms = arms_of(&documented("floor.toml"));
    let knobs = |arm: &Arm| arm.compression.clone().unwrap();
    let scores: Vec<ScoreBy> = arms.iter().map(|arm| knobs(arm).score_by).collect();
    assert_eq!(scores, [ScoreBy::Birth, ScoreBy::Random, ScoreBy::HeadTail]);
    let rest = |arm: &Arm| CompressionSettings { score_by: ScoreBy::Birth, score_seed: None, ..knobs(arm) };
    assert!(arms.iter().all(|arm| rest(arm) == rest(&arms[0]) && arm.cache == Cache::On));
    assert_eq!(rest(&arms[0]).selection, Selection::Structural);
}

#[test]
fn the_parked_arms_differ_from_built_in_ones_in_residency_alone() {
    let own = documented("parked.toml");
    let pairs =
        [("warm-parked", "warm"), ("rescore-parked", "cache+rescore"), ("stack-parked", "cache+compression")];
    let names: Vec<String> =
        pairs.iter().flat_map(|&(own, built_in)| [own.into(), built_in.into()]).collect();
    let arms = arm::choose(&names, &own, &fixture::settings().arm_defaults()).unwrap();
    for pair in arms.chunks(2) {
        assert_eq!((pair[0].residency, pair[1].residency), (Residency::Parked, Residency::Resident));
        assert_eq!((&pair[0].compression, pair[0].cache), (&pair[1].compression, pair[1].cache));
    }
}
