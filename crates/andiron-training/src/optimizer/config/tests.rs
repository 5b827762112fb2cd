use super::*;
use crate::config::TrainConfig;
use crate::testing::CONFIG;

#[track_caller]
fn check_refused(set: &[&str], field: &str) {
    let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
    let error = TrainConfig::parse(CONFIG, &set).unwrap_err();
    assert!(error.to_string().starts_with(&format!("optimizer.{field} is ")), "{error}");
}

#[test]
fn senseless_values_are_named() {
    check_refused(&["optimizer.lr=0.0"], "lr");
    check_refused(&["optimizer.lr=nan"], "lr");
    check_refused(&["optimizer.min_lr=1.0"], "min_lr");
    check_refused(&["optimizer.beta1=1.0"], "beta1");
    check_refused(&["optimizer.beta2=-0.1"], "beta2");
    check_refused(&["optimizer.eps=0.0"], "eps");
    check_refused(&["optimizer.weight_decay=inf"], "weight_decay");
    check_refused(&["optimizer.clip_norm=-1.0"], "clip_norm");
}

#[test]
fn senseless_values_of_muon_are_named() {
    for (set, field) in [
        ("muon.lr=0.0", "muon.lr"),
        ("muon.momentum=1.0", "muon.momentum"),
        ("muon.ns_steps=0", "muon.ns_steps"),
        ("muon.ns_steps=100", "muon.ns_steps"),
        ("muon.ns_coefficients=[1.0, nan, 2.0]", "muon.ns_coefficients"),
        ("muon.eps=0.0", "muon.eps"),
    ] {
        check_refused(&["optimizer.kind=muon", &format!("optimizer.{set}")], field);
    }
    check_refused(&["optimizer.muon.momentum=0.9"], "muon");
}

/// The configuration with another kind, without what only AdamW has.
#[track_caller]
fn parse(kind: &str, set: &[&str]) -> Result<TrainConfig, ConfigError> {
    let text = CONFIG.replace("beta2 = 0.95\n", "");
    let set: Vec<String> =
        [&format!("optimizer.kind={kind}")[..]].iter().chain(set).map(|text| (*text).to_owned()).collect();
    TrainConfig::parse(&text, &set)
}

#[test]
fn senseless_values_of_adafactor_and_lion_are_named() {
    for (kind, set, field) in [
        ("adafactor", "clip_threshold=0.0", "adafactor.clip_threshold"),
        ("adafactor", "decay_rate=0.8", "adafactor.decay_rate"),
        ("adafactor", "beta1=1.0", "adafactor.beta1"),
        ("adafactor", "eps=[0.0, 1e-3]", "adafactor.eps"),
        ("adafactor", "eps=[1e-30, -1.0]", "adafactor.eps"),
        ("adafactor", "warmup_init=true", "adafactor.warmup_init"),
        ("adafactor", "relative_step=true", "lr"),
        ("lion", "beta1=1.0", "lion.beta1"),
        ("lion", "beta2=-1.0", "lion.beta2"),
    ] {
        let error = parse(kind, &[&format!("optimizer.{kind}.{set}")]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("optimizer.{field} is ")), "{set}: {error}");
    }
    parse("adafactor", &["optimizer.adafactor.relative_step=true", "optimizer.lr=1.0"]).unwrap();
}

#[test]
fn a_setting_of_another_kind_is_refused() {
    for (kind, set, says) in [
        ("lion", "beta2=0.99", "optimizer.lion.beta1"),
        ("lion", "eps=1e-8", "only the kinds adamw and muon"),
        ("adafactor", "beta1=0.9", "see optimizer.adafactor"),
        ("adafactor", "lion.beta1=0.9", "only the kind lion"),
        ("lion", "adafactor.beta1=0.9", "only the kind adafactor"),
        ("lion", "muon.momentum=0.9", "only the kind muon"),
    ] {
        let error = parse(kind, &[&format!("optimizer.{set}")]).unwrap_err().to_string();
        let field = set.split(['.', '=']).next().unwrap();
        let named = error.starts_with(&format!("optimizer.{field} is "));
        assert!(named && error.contains(says), "{kind}, {set}: {error}");
    }
    check_refused(&["optimizer.lion.beta1=0.9"], "lion");
}

#[test]
fn betas_and_epsilon_are_those_of_torch_if_absent() {
    // The defaults of torch.optim.AdamW, torch 2.15.0.
    for kind in ["adamw", "muon"] {
        let optimizer = parse(kind, &[]).unwrap().optimizer;
        assert_eq!((optimizer.beta1, optimizer.beta2, optimizer.eps), (Some(0.9), Some(0.999), Some(1e-8)));
    }
}

#[test]
fn settings_of_each_kind_are_written_out() {
    for (kind, line) in [("adafactor", "clip_threshold = 1.0"), ("lion", "beta2 = 0.99")] {
        let config = parse(kind, &[]).unwrap();
        let text = config.to_toml();
        assert!(text.contains(&format!("[optimizer.{kind}]")) && text.contains(line), "{text}");
        assert_eq!(TrainConfig::parse(&text, &[]).unwrap(), config);
    }
}

#[test]
fn a_kind_is_changed_with_what_belongs_to_it() {
    let kinds = [OptimizerKind::Lion, OptimizerKind::Muon, OptimizerKind::Adafactor, OptimizerKind::Adamw];
    let mut config = OptimizerConfig::constant(1e-3);
    for kind in kinds {
        config = config.with_kind(kind);
        config.validate(10).unwrap();
    }
    assert_eq!(config, OptimizerConfig::constant(1e-3));
}

#[test]
fn groups_are_read_and_written() {
    let groups = r#"
        [[optimizer.groups]]
        match = "transformer.wte.*"
        freeze = true

        [[optimizer.groups]]
        match = "*.bias"
        lr_scale = 0.5
        weight_decay = 0.0
    "#;
    let config = TrainConfig::parse(&format!("{CONFIG}{groups}"), &[]).unwrap();
    let embeddings = GroupConfig { freeze: true, ..GroupConfig::new("transformer.wte.*") };
    let biases = GroupConfig { lr_scale: Some(0.5), weight_decay: Some(0.0), ..GroupConfig::new("*.bias") };
    assert_eq!(config.optimizer.groups, [embeddings, biases]);
    assert_eq!(TrainConfig::parse(&config.to_toml(), &[]).unwrap(), config);
}

#[test]
fn senseless_groups_are_named() {
    for (group, says) in [
        (r#"match = "", freeze = true"#, "a pattern"),
        (r#"match = "a*""#, "nothing else"),
        (r#"match = "a*", lr = 0.0"#, "lr = 0"),
        (r#"match = "a*", lr_scale = -1.0"#, "lr_scale = -1"),
        (r#"match = "a*", weight_decay = inf"#, "weight_decay = inf"),
        (r#"match = "a*", lr = 1.0, lr_scale = 1.0"#, "one of both"),
        (r#"match = "a*", lr = 1.0, freeze = true"#, "freeze alone"),
    ] {
        let set = format!("optimizer.groups=[{{ {group} }}]");
        let error = TrainConfig::parse(CONFIG, &[set]).unwrap_err().to_string();
        assert!(error.starts_with("optimizer.groups is ") && error.contains(says), "{group}: {error}");
    }
    let relative = ["adafactor.relative_step=true", "lr=1.0", r#"groups=[{ match = "*", lr = 0.1 }]"#];
    let relative = relative.map(|set| format!("optimizer.{set}"));
    let error = parse("adafactor", &relative.each_ref().map(|set| &set[..])).unwrap_err().to_string();
    assert!(error.contains("lr_scale with adafactor.relative_step"), "{error}");
}

#[test]
fn other_senseless_values_are_named() {
    check_refused(&["optimizer.layer_decay=0.0"], "layer_decay");
    check_refused(&["optimizer.layer_decay=1.1"], "layer_decay");
    check_refused(&["optimizer.ema_decay=1.0"], "ema_decay");
    check_refused(&["optimizer.ema_decay=0.0"], "ema_decay");
}

#[test]
fn a_share_of_the_run_is_rounded_up() {
    let parse = |set: &[&str]| {
        let set: Vec<String> = set.iter().map(|set| format!("optimizer.{set}")).collect();
        TrainConfig::parse(CONFIG, &set)
    };
    let config = parse(&["warmup_steps=0", "warmup_ratio=0.11", "schedule=wsd", "decay_ratio=0.51"]).unwrap();
    let schedule = config.optimizer.schedule(20);
    assert_eq!((schedule.warmup_steps, schedule.decay_steps), (3, 11));
    for (set, field) in [
        (vec!["warmup_ratio=0.1"], "warmup_ratio"),
        (vec!["warmup_steps=0", "warmup_ratio=1.1"], "warmup_ratio"),
        (vec!["decay_ratio=0.1"], "decay_ratio"),
        (vec!["schedule=wsd", "decay_ratio=-0.1"], "decay_ratio"),
        (vec!["schedule=wsd", "decay_ratio=0.81"], "decay_ratio"),
        (vec!["schedule=wsd", "decay_ratio=0.1", "decay_steps=2"], "decay_ratio"),
        (vec!["timescale=3"], "timescale"),
        (vec!["schedule=inverse_sqrt", "timescale=0"], "timescale"),
    ] {
        let error = parse(&set).unwrap_err().to_string();
        assert!(error.starts_with(&format!("optimizer.{field} is ")), "{set:?}: {error}");
    }
}

#[test]
fn the_time_scale_is_that_of_the_warm_up() {
    let inverse = |warmup_steps, timescale| {
        let config = OptimizerConfig {
            schedule: ScheduleKind::InverseSqrt,
            warmup_steps,
            timescale,
            ..OptimizerConfig::constant(1.0)
        };
        config.validate(20).unwrap();
        config.schedule(20).timescale
    };
    assert_eq!([inverse(4, None), inverse(0, None), inverse(4, Some(7))], [4, 10_000, 7]);
}

#[test]
fn a_run_may_be_longer_if_its_rate_does_not_depend_on_its_length() {
    for (kind, warmup_ratio, depends) in [
        (ScheduleKind::Constant, None, false),
        (ScheduleKind::InverseSqrt, None, false),
        (ScheduleKind::InverseSqrt, Some(0.1), true),
        (ScheduleKind::Cosine, None, true),
    ] {
        let config = OptimizerConfig { schedule: kind, warmup_ratio, ..OptimizerConfig::constant(1.0) };
        assert_eq!(config.depends_on_length(), depends, "{kind:?}, {warmup_ratio:?}");
    }
}

#[test]
fn an_unknown_choice_is_answered_with_the_known_ones() {
    for (set, known) in [
        ("optimizer.kind=sgd", "`adamw`, `muon`, `adafactor`, `lion`"),
        ("optimizer.muon.adjust_lr_fn=none", "`original`, `match_rms_adamw`, `spectral_unclamped`"),
    ] {
        let error = TrainConfig::parse(CONFIG, &[set.to_owned()]).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(known), "{cause}");
    }
}

#[test]
fn settings_of_muon_are_written_out() {
    let config = TrainConfig::parse(CONFIG, &["optimizer.kind=muon".to_owned()]).unwrap();
    assert_eq!(config.optimizer.muon, Some(MuonConfig::default()));
    let text = config.to_toml();
    assert!(text.contains("kind = \"muon\"") && text.contains("ns_steps = 5"), "{text}");
    assert_eq!(TrainConfig::parse(&text, &[]).unwrap(), config);
}

#[test]
fn the_readme_shows_the_defaults() {
    let readme = include_str!("../../../README.md");
    let (before, after) = (CONFIG.find("[optimizer]").unwrap(), CONFIG.find("[checkpoint]").unwrap());
    let shown = readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let of_optimizers = shown.filter(|shown| shown.starts_with("[optimizer]")).map(|shown| {
        let text = format!("{}{shown}\n{}", &CONFIG[..before], &CONFIG[after..]);
        TrainConfig::parse(&text, &[]).unwrap().optimizer
    });
    let [muon, adafactor, lion, groups] = of_optimizers.collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((muon.kind, muon.muon), (OptimizerKind::Muon, Some(MuonConfig::default())));
    let kind = OptimizerKind::Adafactor;
    assert_eq!((adafactor.kind, adafactor.adafactor), (kind, Some(AdafactorConfig::default())));
    assert_eq!((lion.kind, lion.lion), (OptimizerKind::Lion, Some(LionConfig::default())));
    assert_eq!((groups.groups.len(), groups.layer_decay), (2, Some(0.9)));
}

#[test]
fn adamw_is_written_as_it_was_before_there_was_a_choice() {
    let config = TrainConfig::parse(CONFIG, &[]).unwrap();
    assert_eq!(config.optimizer.kind, OptimizerKind::Adamw);
    let text = config.to_toml();
    assert!(!text.contains("kind") && !text.contains("muon"), "{text}");
}

#[test]
fn only_wsd_has_decay_steps() {
    check_refused(&["optimizer.schedule=wsd"], "decay_steps");
    check_refused(&["optimizer.decay_steps=3"], "decay_steps");
    check_refused(&["optimizer.schedule=wsd", "optimizer.decay_steps=21"], "decay_steps");
}
