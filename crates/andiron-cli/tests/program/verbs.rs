//! What every other verb prints when all is well.

use serde_json::Value;

use crate::common::{Place, finish, keys, metrics};

#[track_caller]
fn check_positive(object: &Value, names: &[&str]) {
    for name in names {
        let number = object[name].as_f64().unwrap_or_else(|| panic!("{name} is no number: {object}"));
        assert!(number > 0.0 && number.is_finite(), "{name} in {object}");
    }
}

#[test]
fn prepare_counts_documents_and_tokens_and_does_nothing_twice() {
    let place = Place::new();
    place.write("twice.jsonl", "{\"text\":\"one two\"}\n{\"text\":\"one two\"}\n{\"text\":\"three four\"}\n");
    place.write("more.txt", crate::common::text(3000));
    let args = ["prepare", "corpus.txt", "more.txt", "twice.jsonl", "--vocab-size", "300", "-o", "data"];
    let first = place.json(&args);
    assert_eq!((&first["documents"]["read"], &first["documents"]["kept"]), (&5.into(), &4.into()));
    assert_eq!((&first["vocab_size"], &first["reused"]), (&300.into(), &false.into()));
    for part in ["train", "valid"] {
        check_positive(&first[part]["stats"], &["tokens"]);
        assert!(place.path("data").join(part).join("manifest.json").exists());
    }
    assert_eq!(place.json(&args)["reused"], true);
    let other = [&args[..5], &["310", "-o", "data"]].concat();
    place.fails(&other, 1, &["data", "--replace"]);
    assert_eq!(place.json(&[&other, &["--replace"] as &[_]].concat())["vocab_size"], 310);
    let text = place.ok(&["prepare", "corpus.txt", "-o", "other"]);
    assert!(text.contains("1 read, 1 kept") && text.contains("in other"), "{text}");

    let tokenizer = ["prepare", "twice.jsonl", "--tokenizer", "data/tokenizer", "-o", "third"];
    assert_eq!(place.json(&tokenizer)["vocab_size"], 310);
}

#[test]
fn a_file_of_settings_is_the_same_as_flags() {
    let place = Place::new();
    place.write("rows.jsonl", "{\"text\":\"a\\r\\n\"}\n{\"text\":\"b\"}\n{\"text\":\"a\\n\"}\n");
    place.write("play.txt", crate::common::text(3000));
    let settings = "[[source]]\nname = \"play\"\npaths = [\"play.txt\"]\n[[source]]\nname = \"rows\"\npaths = [\"rows.jsonl\"]\n\
                    [[filter]]\nkind = \"unix-line-endings\"\n[tokenizer]\nkind = \"char\"\n";
    place.write("pipeline.toml", format!("output = \"data\"\n{settings}"));
    let first = place.json(&["prepare", "pipeline.toml"]);
    assert_eq!((&first["documents"]["read"], &first["documents"]["kept"]), (&4.into(), &3.into()));
    let names: Vec<_> = first["steps"].as_array().unwrap().iter().map(|step| &step["step"]).collect();
    assert_eq!(names, ["read", "unix-line-endings", "empty", "exact-duplicates"]);
    // What was written beside the output does the same again.
    assert_eq!(place.json(&["prepare", "data/pipeline.toml", "-o", "data"])["reused"], true);
    let flags = ["prepare", "rows.jsonl", "--unix-line-endings", "--kind", "char"];
    place.ok(&[&flags as &[_], &["-o", "flags"]].concat());
    assert_eq!(place.json(&["prepare", "flags/pipeline.toml", "-o", "flags"])["reused"], true);

    place.fails(&["prepare", "pipeline.toml", "--seed", "1"], 2, &["--seed", "pipeline.toml"]);
    place.fails(&["prepare", "data/pipeline.toml"], 2, &["data/pipeline.toml", "--output"]);
    place.fails(&["prepare", "play.txt"], 2, &["--output"]);
    place.write("pipeline.toml", format!("{settings}vocabulary = 3\n"));
    place.fails(&["prepare", "pipeline.toml", "-o", "x"], 1, &["pipeline.toml:", "`vocabulary`", "`unk`"]);
    place.write("pipeline.toml", format!("{settings}[split]\nfraction = 2.0\n"));
    place.fails(&["prepare", "pipeline.toml", "-o", "x"], 1, &["pipeline.toml", "split.fraction", "below 1"]);
}

#[test]
fn tasks_are_followed_and_merged_into_the_same_output() {
    let place = Place::new();
    for name in ["a", "b", "c"] {
        let rows: String = (0..30).map(|n| format!("{{\"text\":\"{name} {n}\"}}\n")).collect();
        place.write(&format!("{name}.jsonl"), rows);
    }
    let source =
        |name: &str| format!("[[source]]\nname = \"{name}\"\npaths = [\"{name}.jsonl\"]\nweight = 1\n");
    let sources: String = ["a", "b", "c"].map(source).concat();
    place.write("pipeline.toml", format!("{sources}[tokenizer]\nkind = \"char\"\n").replace("= 1", "= 1.0"));
    let whole = place.json(&["prepare", "pipeline.toml", "-o", "whole"]);
    assert_eq!(whole["sources"][2]["name"], "c");
    place.fails(&["prepare", "status", "parts"], 1, &["parts", "no task has begun"]);
    for (task, done) in [("2", "1"), ("1", "3")] {
        let args = ["prepare", "pipeline.toml", "-o", "parts", "--task", task, "--of", "2"];
        place.ok(&args);
        let status = place.ok(&["prepare", "status", "parts"]);
        assert!(status.contains(&format!("filter     {done} of 3 parts")), "{status}");
        if task == "2" {
            place.fails(&["prepare", "merge", "parts"], 1, &["2 of 3 parts"]);
        }
    }
    let settled = place.ok(&["prepare", "merge", "parts", "--leave-encoding"]);
    assert!(settled.contains("tokenizer  done\nshards     0 of 3 parts\n"), "{settled}");
    let encoded = place.ok(&["prepare", "pipeline.toml", "-o", "parts", "--task", "1", "--of", "2"]);
    assert!(encoded.starts_with("task 1 of 2: encoded 2 of 3 parts\n"), "{encoded}");
    let status = place.ok(&["prepare", "status", "parts"]);
    assert!(status.ends_with("shards     2 of 3 parts\ntasks      1 of 2 complete: 1\n"), "{status}");
    let merged = place.json(&["prepare", "merge", "parts"]);
    for part in ["train", "valid"] {
        assert_eq!(merged[part]["fingerprint"], whole[part]["fingerprint"]);
    }
    assert_eq!(place.ok(&["prepare", "status", "parts"]), "parts is complete\n");
    place.fails(&["prepare", "pipeline.toml", "-o", "parts", "--task", "1"], 2, &["--of"]);
    let auto = |variables: &[(&str, &str)]| {
        let args = ["prepare", "pipeline.toml", "-o", "numbered", "--task", "auto", "--of", "2"];
        let mut command = place.command(&args);
        for name in ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "OMPI_COMM_WORLD_RANK", "PMI_RANK"] {
            command.env_remove(name);
        }
        finish(command.envs(variables.iter().copied()).spawn().unwrap())
    };
    let ran = auto(&[]);
    assert!(ran.code == Some(2) && ran.err.contains("no scheduler has numbered this process"), "{ran:?}");
    for (name, value) in [("JOB_COMPLETION_INDEX", "0"), ("SLURM_ARRAY_TASK_ID", "2")] {
        let ran = auto(&[(name, value)]);
        assert!(ran.code == Some(0) && ran.out.contains(" of 2: "), "{ran:?}");
    }
    let numbered = place.json(&["prepare", "merge", "numbered"]);
    assert_eq!(numbered["train"]["fingerprint"], whole["train"]["fingerprint"]);
    place.fails(&["prepare", "pipeline.toml", "-o", "x", "--task", "3", "--of", "2"], 1, &["task 3 of 2"]);
}

#[test]
fn the_documents_behind_a_step_are_named() {
    let place = Place::with_model();
    let seen = place.json(&["prepare", "trace", "--run", "run", "--step", "2"]);
    let documents = seen["documents"].as_array().unwrap();
    assert!(!documents.is_empty());
    let data = andiron_data::shard::Dataset::open(&place.path("data/train")).unwrap();
    for document in documents {
        assert_eq!(document["id"], data.document(document["index"].as_u64().unwrap()).id);
        assert!(document["tokens"][1].as_u64() <= Some(data.tokens()), "{document}");
    }
    let text = place.ok(&["prepare", "trace", "--run", "run", "--step", "1"]);
    assert!(text.starts_with("step 1 of run, from ") && text.contains("corpus.txt#chars="), "{text}");
    place.fails(&["prepare", "trace", "--run", "run", "--step", "13"], 1, &["step 13", "12"]);
    place.fails(&["prepare", "trace", "--run", "run", "--step", "0"], 2, &["--step"]);
    place.fails(&["prepare", "trace", "--run", "data", "--step", "1"], 1, &["config.toml"]);
}

#[test]
fn a_tokenizer_is_trained_measured_and_looked_into() {
    let place = Place::new();
    let train = ["tokenizer", "train", "corpus.txt", "--kind", "char", "-o", "characters"];
    let trained = place.json(&train);
    assert_eq!(trained["tokenizer"], "characters");
    let bpe = place.ok(&["tokenizer", "train", "corpus.txt", "--vocab-size", "300", "-o", "bytes"]);
    assert_eq!(bpe, "300 tokens, saved in bytes\n");
    let measured = place.json(&["tokenizer", "eval", "--tokenizer", "characters", "corpus.txt"]);
    assert_eq!((&measured["documents"], &measured["exact"]), (&1.into(), &1.into()));
    assert_eq!((&measured["bytes"], &measured["tokens"]), (&4000.into(), &4000.into()));
    assert_eq!(
        (&measured["bytes_per_token"], &measured["vocab_size"]),
        (&1.0.into(), &trained["vocab_size"])
    );
    let shorter = place.json(&["tokenizer", "eval", "--tokenizer", "bytes", "corpus.txt"]);
    assert!(shorter["bytes_per_token"].as_f64().unwrap() > 1.2, "{shorter}");
    let split = place.json(&["tokenizer", "inspect", "--tokenizer", "characters", "Ham"]);
    assert_eq!(split["tokens"], serde_json::json!(["H", "a", "m"]));
    assert_eq!(split["ids"].as_array().unwrap().len(), 3);
    place.fails(&["tokenizer", "inspect", "--tokenizer", "characters", "é"], 1, &["'é'"]);
    place.fails(&["tokenizer", "eval", "--tokenizer", "missing", "corpus.txt"], 1, &["missing"]);
}

#[test]
fn pretrain_reports_where_the_model_is() {
    let place = Place::new();
    place.prepare();
    let args = ["pretrain", "run.toml", "--set", "run.steps=12", "--set", "run.output=elsewhere"];
    let report = place.json(&args);
    assert_eq!(
        keys(&report),
        [
            "step",
            "tokens",
            "rows",
            "elapsed_s",
            "data_wait",
            "model",
            "model_step",
            "validation",
            "best",
            "interrupted"
        ]
    );
    assert_eq!(report["best"]["loss"]["step"], 12);
    assert_eq!((&report["step"], &report["tokens"]), (&12.into(), &(12 * 2 * 4 * 32).into()));
    assert_eq!((&report["model"], &report["interrupted"]), (&"elsewhere/model".into(), &false.into()));
    check_positive(&report["validation"], &["loss", "perplexity", "tokens"]);
    let lines = metrics(&place.path("elsewhere"));
    assert_eq!((lines.len(), &lines[11]["valid_loss"]), (12, &report["validation"]["loss"]));
    let text = place.ok(&args);
    assert!(text.starts_with("validation loss ") && text.contains("elsewhere/model"), "{text}");
    assert!(text.contains("elsewhere/report.html"), "{text}");
    assert!(text.contains("Trained 12 steps, ") && text.contains(" epochs, in "), "{text}");
    let beginning = crate::common::text(4000).lines().next().unwrap();
    for line in [
        "Serve it: cargo xtask serve --model elsewhere/model\n".to_owned(),
        format!("Use it:   cargo xtask generate --model elsewhere/model '{beginning}'\n"),
    ] {
        assert!(text.contains(&line), "{text}");
    }

    // The same run from its own record of itself.
    let again = ["pretrain", "elsewhere/config.toml", "--set", "run.output=again"];
    assert_eq!(place.json(&again)["validation"], report["validation"]);
    assert_eq!(place.read("again/model/model.safetensors"), place.read("elsewhere/model/model.safetensors"));
}

#[test]
fn a_run_is_shown_to_resume_exactly_and_is_not_begun() {
    let place = Place::new();
    place.prepare();
    let before = std::fs::read_dir(place.path(".")).unwrap().count();
    let text = place.ok(&["pretrain", "run.toml", "--verify-resume", "5"]);
    assert!(
        text.starts_with("Resuming is exact: 5 steps in one go, and 5 steps with a stop after step 2"),
        "{text}"
    );
    assert_eq!(std::fs::read_dir(place.path(".")).unwrap().count(), before);
    let report = place.json(&["pretrain", "run.toml", "--verify-resume", "200", "--set", "run.steps=3"]);
    let expected = serde_json::json!({ "exact": true, "steps": 3, "stopped_after": 1, "difference": null });
    assert_eq!(report, expected);
    place.fails(&["pretrain", "run.toml", "--verify-resume", "1"], 2, &["at least 2"]);
    let wrong = ["pretrain", "run.toml", "--verify-resume", "4", "--set", "data.train=nowhere"];
    place.fails(&wrong, 1, &["nowhere"]);
    assert_eq!(std::fs::read_dir(place.path(".")).unwrap().count(), before);
}

#[test]
fn a_run_stops_after_a_step_and_goes_on() {
    let place = Place::new();
    place.prepare();
    let args = ["pretrain", "run.toml", "--set", "run.steps=6"];
    let ran = place.run(&[&args[..], &["--stop-after", "4"]].concat());
    assert_eq!(ran.code, Some(75), "{ran:?}");
    assert!(place.path("run/step-000004").exists() && ran.err.contains("saved after step 4"), "{ran:?}");
    assert_eq!(place.json(&args)["step"], 6);
}

#[test]
fn a_model_is_trained_from_its_size_and_prepared_data() {
    let place = Place::new();
    place.ok(&["prepare", "corpus.txt", "--kind", "char", "-o", "data"]);
    let args = ["pretrain", "--params", "100K", "--data", "data", "--output", "small", "--steps", "3"];
    let ran = place.run(&args);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("Qwen 3 of ") && ran.err.contains("vocab_size = "), "{ran:?}");
    let inspected = place.json(&["inspect", "--model", "small/model"]);
    let parameters = inspected["parameters"].as_f64().unwrap();
    assert!((97_000.0..103_000.0).contains(&parameters), "{inspected}");
    // Its configuration is a file like any other, and its size can be changed.
    let again = ["pretrain", "small/config.toml", "--set", "run.output=again", "--params", "200K"];
    let report = place.json(&again);
    assert_eq!((&report["step"], &report["model"]), (&3.into(), &"again/model".into()));
    place.fails(&["pretrain", "--data", "data", "-o", "x"], 2, &["--params"]);
    place.fails(&["pretrain", "--params", "ten", "--data", "data", "-o", "x"], 2, &["10M"]);
    place.fails(&["pretrain", "--params", "1M", "--data", ".", "-o", "x"], 1, &["prepare"]);
}

#[test]
fn a_gguf_file_is_trained_further_with_the_tokenizer_in_it() {
    let place = Place::new();
    place.ok(&["prepare", "corpus.txt", "--vocab-size", "300", "-o", "data"]);
    place.write("run.toml", crate::common::PRETRAIN.replace("vocab_size = 70", "vocab_size = 300"));
    place.ok(&["pretrain", "run.toml", "--set", "run.steps=2"]);
    place.ok(&["export", "--model", "run/model", "-o", "base.gguf"]);
    place.write(
        "rows.jsonl",
        "{\"text\":\"thou art\",\"label\":\"old\"}\n{\"text\":\"ok\",\"label\":\"new\"}\n",
    );
    let rows = ["--objective", "classify", "--train", "rows.jsonl", "--set", "run.steps=2"];
    let out = place.ok(&[&["finetune", "--model", "base.gguf", "-o", "tuned"], &rows[..]].concat());
    assert!(
        out.contains(
            "Use it:   echo '{\"text\": \"…\"}' | cargo xtask predict --task classify --model tuned/model"
        ),
        "{out}"
    );
    assert!(out.contains(" rows/s.\n"), "{out}");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        assert!(!place.read(&format!("tuned/model/{file}")).is_empty());
    }
    let predict = ["predict", "--task", "classify", "--model", "tuned/model"];
    let ran = place.run_with_input(&predict, "{\"text\":\"thou art\"}\n");
    assert!(ran.code == Some(0) && ran.out.contains("\"old\""), "{ran:?}");
    assert_eq!(ran.out.matches("\"label\"").count(), 2, "{ran:?}");
    let best = place.run_with_input(&[&predict[..], &["--top", "1"]].concat(), "{\"text\":\"thou art\"}\n");
    let first = |line: &str| serde_json::from_str::<Value>(line).unwrap()["labels"][0]["label"].clone();
    assert_eq!((first(&best.out), best.out.matches("\"label\"").count()), (first(&ran.out), 1));
    // A table whose cells have single quotes.
    place.write("rows.txt", "id\ttext\tlabel\n1\t\"thou art\told\n2\tok\tnew\n");
    let table =
        ["finetune", "--model", "base.gguf", "--objective", "classify", "--train", "rows.txt", "-o", "table"];
    let steps = ["--set", "run.steps=2"];
    place.fails(&[&table[..], &steps].concat(), 1, &["rows.txt:2", "quote"]);
    place.ok(&[&table[..], &steps, &["--set", "data.quotes=false"]].concat());
    // Resumed, the file has the same tokenizer.
    place.ok(&[&["finetune", "--model", "base.gguf", "-o", "tuned"], &rows[..]].concat());
}

#[test]
fn rows_with_other_fields_are_read_by_their_names() {
    let place = Place::new();
    let row = |n: u32| format!("{{\"document\":\"the first {n}\",\"summary\":\"qqq {n}\"}}\n");
    place.write("rows.jsonl", (0..20).map(row).collect::<String>());
    let train = ["tokenizer", "train", "rows.jsonl", "--kind", "char", "-o", "letters"];
    place.fails(&train, 1, &["--field", "\"document\", \"summary\""]);
    let size = |extra: &[&str]| place.json(&[&train, extra].concat())["vocab_size"].as_u64().unwrap();
    let one = size(&["--field", "document"]);
    assert!(size(&["--field", "document", "--field", "summary"]) > one);
    let prepare = ["prepare", "rows.jsonl", "--kind", "char", "-o", "data"];
    place.fails(&prepare, 1, &["--field", "\"document\""]);
    place.ok(&[&prepare[..], &["--field", "summary"]].concat());
}

#[test]
fn evaluate_measures_a_text_and_a_dataset_alike() {
    let place = Place::with_model();
    let model = ["evaluate", "--model", "run/model"];
    let by_data = place.json(&[&model, &["--data", "data/valid"] as &[_]].concat());
    assert_eq!(
        keys(&by_data),
        [
            "loss",
            "perplexity",
            "bits_per_token",
            "bits_per_byte",
            "tokens",
            "context",
            "precision",
            "checkpoint_blake3",
            "model_blake3",
            "andiron_version"
        ]
    );
    check_positive(&by_data, &["loss", "perplexity", "bits_per_byte"]);
    // 400 held-out characters, of which the first is not predicted.
    assert_eq!((&by_data["tokens"], &by_data["context"]), (&399.into(), &32.into()));
    assert_eq!(by_data["checkpoint_blake3"].as_str().unwrap().len(), 64);

    place.write("held-out.txt", &crate::common::text(4000)[3600..]);
    let by_text = place.json(&[&model, &["--text", "held-out.txt", "--batch", "5"] as &[_]].concat());
    let loss = |report: &Value| report["loss"].as_f64().unwrap();
    assert!((loss(&by_text) - loss(&by_data)).abs() < 1e-5, "{by_text} {by_data}");
    assert_eq!(by_text["checkpoint_blake3"], by_data["checkpoint_blake3"]);
    let rounded = place.json(&[&model, &["--data", "data/valid", "--precision", "bf16"] as &[_]].concat());
    assert_eq!((&by_data["precision"], &rounded["precision"]), (&"f32".into(), &"bf16".into()));
    let difference = (loss(&rounded) - loss(&by_data)).abs();
    assert!(difference > 0.0 && difference < 0.01, "{rounded} {by_data}");
    let short = place.json(&[&model, &["--text", "held-out.txt", "--context", "4"] as &[_]].concat());
    assert!(loss(&short) > 0.0 && short["context"] == 4, "{short}");
    let text = place.ok(&[&model, &["--text", "held-out.txt"] as &[_]].concat());
    assert!(text.contains(by_data["checkpoint_blake3"].as_str().unwrap()), "{text}");
}

#[test]
fn generate_continues_what_it_was_given() {
    let place = Place::with_model();
    let model = ["generate", "--model", "run/model", "--seed", "5", "--max-tokens", "9"];
    let json = place.json(&[&model, &["Ham"] as &[_]].concat());
    assert_eq!(keys(&json), ["text", "ids", "finish_reason", "sum_logprob"]);
    assert_eq!((json["ids"].as_array().unwrap().len(), &json["finish_reason"]), (9, &"length".into()));
    let text = place.ok(&[&model, &["Ham"] as &[_]].concat());
    assert_eq!(text, format!("Ham{}\n", json["text"].as_str().unwrap()));
    let piped = place.run_with_input(&[&model, &["-"] as &[_]].concat(), "Ham");
    assert_eq!((piped.code, &piped.out), (Some(0), &text));
    let nothing = place.ok(&["generate", "--model", "run/model", "--max-tokens", "0", "Ham"]);
    assert_eq!(nothing, "Ham\n");
    let far = ["generate", "--model", "run/model", "--max-tokens", "50", "--slide", "Ham"];
    assert_eq!(place.json(&far)["ids"].as_array().unwrap().len(), 50);
}

#[test]
fn threads_do_not_change_what_is_said() {
    let place = Place::with_model();
    let args = ["generate", "--model", "run/model", "--max-tokens", "20", "Ham", "--threads"];
    let [one, three] = ["1", "3"].map(|threads| place.ok(&[&args[..], &[threads]].concat()));
    assert_eq!(one, three);
}

#[test]
fn doctor_knows_the_machine_and_the_build() {
    let place = Place::new();
    let report = place.json(&["doctor", "--threads", "3"]);
    assert_eq!(
        keys(&report),
        [
            "version",
            "cpu",
            "cpus",
            "threads",
            "cpu_features",
            "kernels",
            "bf16",
            "memory_bytes",
            "available_bytes",
            "backends",
            "default_device",
        ]
    );
    assert_eq!((&report["version"], &report["threads"]), (&env!("CARGO_PKG_VERSION").into(), &3.into()));
    let backends = report["backends"].as_array().unwrap();
    let names: Vec<&str> = backends.iter().map(|backend| backend["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ndarray", "flex", "wgpu", "vulkan", "metal", "cuda"]);
    assert_eq!(backends[0]["compiled"], true);
    assert_eq!(backends[0]["devices"].as_array().unwrap().len(), 1);
    assert_eq!(report["default_device"], "ndarray");
    let rates = ["bf16_gflops", "f32_gflops"].map(|name| report["bf16"][name].as_f64());
    let text = place.ok(&["doctor"]);
    match (report["kernels"].as_str().unwrap(), rates) {
        ("avx512-bf16", [Some(bf16), Some(f32)]) => {
            assert_eq!(report["bf16"]["used"], bf16 / f32 >= 1.25, "{report}");
            assert!(text.contains(" GFLOP/s on one core"), "{text}");
        }
        ("amx", [Some(_), Some(_)]) => assert_eq!(report["bf16"]["used"], true),
        (_, rates) => assert_eq!((&report["bf16"]["used"], rates), (&false.into(), [None, None])),
    }
    for word in ["kernels", "memory", "ndarray", "cuda"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn bench_reports_the_figures_of_its_contract() {
    let place = Place::with_model();
    let common = ["tokens_per_s", "flops_per_s", "peak_share", "threads", "peak_rss_mb"];
    let words = |report: &Value| {
        for name in ["backend", "device", "precision", "kernels"] {
            assert!(!report[name].as_str().unwrap().is_empty(), "{report}");
        }
    };
    // The parts of `whole` are all of it, and none is missing.
    let operations = |report: &Value, whole: f64| {
        let kinds = report["operations"].as_object().unwrap();
        let sum = |figure: &str| kinds.values().map(|row| row[figure].as_f64().unwrap()).sum::<f64>();
        assert!((sum("ms") / whole - 1.0).abs() < 1e-2, "{report}");
        assert!((sum("share") - 1.0).abs() < 1e-3, "{report}");
        for kind in ["products", "attention", "norms", "other"] {
            assert!(kinds[kind]["ms"].as_f64().unwrap() > 0.0, "{kind}: {report}");
        }
        assert_eq!(kinds.len(), 12, "{report}");
    };
    let config = ["--config", "run/model/config.json", "--steps", "2", "--threads", "1"];
    let train = place.json(&[&["bench", "train", "--batch", "2", "--ctx", "8"] as &[_], &config].concat());
    check_positive(&train, &common);
    check_positive(&train, &["step_ms", "forward_ms", "backward_ms", "update_ms", "loss"]);
    words(&train);
    operations(&train, train["step_ms"].as_f64().unwrap());
    check_positive(&train["operations"]["optimizer"], &["ms", "share"]);
    let decode =
        place.json(&[&["bench", "decode", "--prompt", "4", "--tokens", "8"] as &[_], &config].concat());
    check_positive(&decode, &common);
    check_positive(&decode, &["prefill_ms"]);
    words(&decode);
    operations(&decode, 1e3 / decode["tokens_per_s"].as_f64().unwrap());
    let model = ["bench", "prefill", "--tokens", "16", "--model", "run/model", "--steps", "2"];
    let prefill = place.json(&model);
    check_positive(&prefill, &common);
    words(&prefill);
    operations(&prefill, prefill["prefill_ms"].as_f64().unwrap());
    let bert = r#"{"model_type":"bert","vocab_size":40,"hidden_size":32,"num_hidden_layers":2,"num_attention_heads":2,
                   "intermediate_size":64,"max_position_embeddings":24}"#;
    place.write("bert.json", bert);
    for precision in ["f32", "mixed", "int8"] {
        let sizes = ["bench", "embed", "--batch", "3", "--ctx", "16", "--steps", "2"];
        let embed =
            place.json(&[&sizes as &[_], &["--config", "bert.json", "--precision", precision]].concat());
        check_positive(&embed, &common);
        check_positive(&embed, &["sentences_per_s", "batch_ms"]);
        words(&embed);
        operations(&embed, embed["batch_ms"].as_f64().unwrap());
        assert_eq!(embed["precision"], precision);
    }
    place.fails(
        &["bench", "embed", "--config", "bert.json", "--ctx", "25"],
        1,
        &["--ctx 25", "1 to 24 tokens"],
    );
    let table = place.ok(&model);
    for word in ["tokens_per_s", "ndarray", "products", "%"] {
        assert!(table.contains(word), "{table}");
    }
    place.fails(&["bench", "train", "--config", "missing.json"], 1, &["missing.json"]);
}

#[test]
fn bench_trains_every_family_and_adapters() {
    let place = Place::with_model();
    let t5 = r#"{"model_type":"t5","vocab_size":40,"d_model":32,"d_kv":16,"d_ff":64,"num_layers":2,"num_heads":2,
                 "decoder_start_token_id":0,"pad_token_id":0,"eos_token_id":1}"#;
    let bert = r#"{"model_type":"bert","vocab_size":40,"hidden_size":32,"num_hidden_layers":2,"num_attention_heads":2,
                   "intermediate_size":64,"max_position_embeddings":24}"#;
    place.write("t5.json", t5);
    place.write("bert.json", bert);
    let sizes = ["bench", "train", "--batch", "2", "--ctx", "12", "--steps", "1"];
    let adapter = ["--lora", "2", "--base-precision", "int8", "--activation-checkpointing"];
    for extra in [&[] as &[_], &adapter] {
        for model in [
            &["--config", "bert.json"] as &[_],
            &["--config", "t5.json", "--target-ctx", "5"],
            &["--model", "run/model"],
        ] {
            let report = place.json(&[&sizes, model, extra].concat());
            check_positive(&report, &["tokens_per_s", "step_ms", "loss", "peak_flops_per_s"]);
        }
    }
    place.fails(
        &[&sizes as &[_], &["--config", "t5.json", "--target-ctx", "0"]].concat(),
        1,
        &["--target-ctx 0"],
    );
    place.fails(
        &[&sizes as &[_], &["--config", "bert.json", "--base-precision", "int8"]].concat(),
        2,
        &["--lora"],
    );
}

#[test]
fn keys_that_nothing_reads_are_warned_of_once_and_refused_if_strict() {
    let place = Place::with_model();
    place.copy_model("extended");
    let mut config: Value = serde_json::from_slice(&place.read("extended/config.json")).unwrap();
    config["colour"] = "red".into();
    config["unsloth_fixed"] = true.into();
    place.write("extended/config.json", config.to_string());
    let generate = ["generate", "--model", "extended", "--max-tokens", "2", "Ham"];
    let ran = place.run(&generate);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.err.matches("colour, unsloth_fixed").count(), 1, "{ran:?}");
    let strict: Vec<&str> = generate.iter().copied().chain(["--strict"]).collect();
    place.fails(&strict, 1, &["extended", "colour, unsloth_fixed"]);
    place.fails(&["inspect", "--model", "extended", "--strict"], 1, &["colour, unsloth_fixed"]);
    let report = place.json(&["inspect", "--model", "extended"]);
    assert_eq!(report["unknown_keys"], serde_json::json!(["colour", "unsloth_fixed"]));
}

#[test]
fn inspect_counts_what_a_model_is_made_of() {
    let place = Place::with_model();
    let report = place.json(&["inspect", "--model", "run/model"]);
    let parts = report["parts"].as_array().unwrap();
    let parameters: u64 = parts.iter().map(|part| part["parameters"].as_u64().unwrap()).sum();
    assert_eq!(report["parameters"].as_u64(), Some(parameters), "{report}");
    assert_eq!(report["weight_bytes"]["f32"].as_u64(), Some(4 * parameters), "{report}");
    assert_eq!(report["model_type"], "gpt2");
    let table = place.ok(&["inspect", "--model", "run/model/config.json"]);
    assert!(table.contains("transformer.h") && table.contains("GFLOP"), "{table}");
    place.fails(&["inspect", "--model", "nowhere"], 1, &["nowhere"]);
}

#[test]
fn chat_answers_through_the_template() {
    let place = Place::with_model();
    place.fails(&["chat", "--model", "run/model", "--message", "hi"], 1, &["chat template"]);
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ";
    std::fs::write(place.path("run/model/chat_template.jinja"), template).unwrap();
    let ask = ["chat", "--model", "run/model", "--message", "ho", "--max-tokens", "2"];
    let answer = place.json(&ask);
    assert_eq!(answer["ids"].as_array().unwrap().len(), 2, "{answer}");
    assert_eq!(answer["finish_reason"], "length");
    let content = answer["content"].as_str().unwrap();
    assert_eq!(place.ok(&ask), format!("{content}\n"));
}

#[test]
fn every_verb_explains_itself() {
    let place = Place::new();
    let general = place.ok(&["--help"]);
    for verb in ["quickstart", "prepare", "tokenizer", "pretrain", "evaluate", "predict", "generate"]
        .into_iter()
        .chain(["chat", "serve", "inspect", "doctor", "bench"])
    {
        assert!(general.contains(verb), "{general}");
        let help = place.ok(&[verb, "--help"]);
        assert!(help.contains("Usage: andiron ") && help.contains("--json"), "{help}");
    }
    assert_eq!(place.ok(&["--version"]), format!("andiron {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_model_goes_through_gguf_and_back_unchanged() {
    let place = Place::new();
    place.ok(&["prepare", "corpus.txt", "--vocab-size", "300", "-o", "data"]);
    place.write("run.toml", crate::common::PRETRAIN.replace("vocab_size = 70", "vocab_size = 300"));
    place.ok(&["pretrain", "run.toml", "--set", "run.steps=2"]);
    let greedy = |model: &str| {
        place.json(&["generate", "--model", model, "To be", "--max-tokens", "12", "--temperature", "0"])
    };
    let first = greedy("run/model");
    let said = place.json(&["export", "--model", "run/model", "-o", "one.gguf"]);
    assert_eq!(
        (&said["output"], place.read("one.gguf").len() as u64),
        (&"one.gguf".into(), said["bytes"].as_u64().unwrap())
    );
    assert_eq!(greedy("one.gguf"), first);
    place.ok(&["export", "--model", "one.gguf", "-o", "back"]);
    assert_eq!(greedy("back"), first);
    assert_eq!(place.read("back/model.safetensors"), place.read("run/model/model.safetensors"));
    let half = place.json(&["export", "--model", "back", "--format", "gguf", "--half", "-o", "half"]);
    assert!(half["bytes"].as_u64().unwrap() * 10 < said["bytes"].as_u64().unwrap() * 8, "{half}");

    place.fails(&["export", "--model", "run/model", "-o", "back"], 1, &["back", "--replace"]);
    place.ok(&["export", "--model", "run/model", "-o", "back", "--replace"]);
    place.fails(&["export", "--model", "run/model", "-o", "other", "--half"], 2, &["--half"]);
    let shown = place.json(&["inspect", "--model", "one.gguf"]);
    assert_eq!((&shown["model_type"], &shown["vocab_size"]), (&"gpt2".into(), &300.into()));
}
