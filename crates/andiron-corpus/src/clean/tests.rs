use serde_json::json;

use super::*;

fn build(settings: serde_json::Value) -> Result<Box<dyn Filter>, String> {
    let settings: FilterSettings = serde_json::from_value(settings).map_err(|error| error.to_string())?;
    settings.build().map_err(|error| error.to_string())
}

/// Every filter with its defaults, or with the least that it needs.
fn all() -> Vec<serde_json::Value> {
    vec![
        json!({ "kind": "unix-line-endings" }),
        json!({ "kind": "html-to-text" }),
        json!({ "kind": "mojibake-repair" }),
        json!({ "kind": "unicode-normal-form", "form": "nfkc" }),
        json!({ "kind": "line-rules", "min_words": 1, "min_letters": 0.1, "containing": ["x"], "max_occurrences": 2 }),
        json!({ "kind": "symbol-lines" }),
        json!({ "kind": "language" }),
        json!({ "kind": "gopher-quality", "min_words": 0, "max_words": 0, "max_mean_word_length": 0 }),
        json!({ "kind": "gopher-repetition", "max_duplicate_lines": 0, "max_duplicate_line_characters": 0,
            "max_duplicate_paragraphs": 0, "max_duplicate_paragraph_characters": 0, "top_n_grams": [] }),
        json!({ "kind": "c4-quality", "min_sentences": 0, "max_word_length": 0 }),
        json!({ "kind": "c4-paragraphs" }),
        json!({ "kind": "fineweb-quality", "min_ended_lines": 0, "max_short_lines": 1, "max_duplicate_line_characters": 1 }),
        json!({ "kind": "word-blocklist", "words": ["spam", "buy now"] }),
        json!({ "kind": "url-blocklist", "hosts": ["bad.example"] }),
        json!({ "kind": "personal-data", "phone_numbers": true }),
        json!({ "kind": "translation-pair", "source": "en", "target": "ko" }),
    ]
}

#[test]
fn settings_have_names_and_defaults() {
    for settings in all() {
        let kind = settings["kind"].as_str().unwrap().to_owned();
        let parsed: FilterSettings = serde_json::from_value(settings).unwrap();
        assert_eq!(parsed.name(), kind);
        assert!(parsed.build().is_ok(), "{kind}");
        // What is written next to a run reads back as the same.
        let written = serde_json::to_value(&parsed).unwrap();
        assert_eq!(serde_json::from_value::<FilterSettings>(written).unwrap(), parsed);
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct File {
        filter: Vec<FilterSettings>,
    }
    let filter = all().into_iter().map(|settings| serde_json::from_value(settings).unwrap()).collect();
    let file = File { filter };
    assert_eq!(toml::from_str::<File>(&toml::to_string(&file).unwrap()).unwrap(), file);
    let message = build(json!({ "kind": "gopher-quality", "min_word": 3 })).err().unwrap();
    assert!(message.contains("min_word") && message.contains("min_words"), "{message}");
    let message = build(json!({ "kind": "gopher" })).err().unwrap();
    assert!(message.contains("gopher-quality"), "{message}");
    let message =
        build(json!({ "kind": "gopher-repetition", "top_n_grams": [{ "n": 0, "max": 0.1 }] })).err().unwrap();
    assert_eq!(message, "filter gopher-repetition: n-grams of 0 words: n must be 1 to 16");
}

/// A megabyte, or as many as `ANDIRON_LONG_TEXT_MB` says, of one line, one word, one character, one pattern: quadratic time would
/// be hours.
#[test]
fn no_text_takes_more_than_linear_time() {
    let megabytes =
        std::env::var("ANDIRON_LONG_TEXT_MB").ok().and_then(|value| value.parse::<usize>().ok()).unwrap_or(1);
    let size = megabytes << 20;
    let patterns = [
        "a",
        " ",
        "\n",
        ".",
        "-",
        "é",
        "\u{301}",
        "한",
        "word ",
        "word\n",
        "a.b",
        "a-",
        "@",
        "a@",
        "a@b.c ",
        "1.",
        "+1 ",
        "http://",
        "[1",
        "[1]",
        "{",
        "<",
        "<b>",
        "</b>",
        "<a href=x>",
        "&amp;",
        "Ã¶",
        "â€",
        "Ã ",
        "\u{93}",
        "\x1b[1",
        "…",
        "...a",
        "😀",
        "U.",
        "'s ",
        "(a.)",
        "e\u{301}\u{323}",
    ];
    let filters: Vec<(String, Box<dyn Filter>)> =
        all().into_iter().map(|settings| (settings["kind"].to_string(), build(settings).unwrap())).collect();
    let mut slow = Vec::new();
    for pattern in patterns {
        let text = pattern.repeat(size / pattern.len());
        for (name, filter) in &filters {
            let mut document = Document::new("a", text.as_str());
            document.metadata.insert("url".into(), "https://fine.example".into());
            let start = std::time::Instant::now();
            let _ = filter.apply(&mut document);
            // A generous bound for a busy machine: a megabyte takes some 0.02 s.
            if start.elapsed().as_secs() >= 10 * megabytes as u64 {
                slow.push(format!("{name} {pattern:?} {:?}", start.elapsed()));
            }
        }
    }
    assert!(slow.is_empty(), "{slow:#?}");
}
