use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::generate::{
    CausalLm, Decoding, FinishReason, GenerateError, GenerateOptions, Logits, SamplingParams,
};

/// Each byte, some words, and a token that says nothing and ends the text.
fn tokens() -> Vec<Vec<u8>> {
    let words = ["yes", "no", "\": ", "true", "12", " 3", "{\"", "\"}", "-a", "ab", "é", "\n"];
    let bytes = (0..=255).map(|byte| vec![byte]);
    bytes.chain(words.map(|word| word.as_bytes().to_vec())).chain([Vec::new()]).collect()
}

fn end() -> u32 {
    tokens().len() as u32 - 1
}

/// A model that knows nothing: each row of logits is a hash of the latest ids. It has more ids than the vocabulary.
struct Babble;

impl CausalLm for Babble {
    type State = Vec<u32>;

    fn vocab_size(&self) -> usize {
        tokens().len() + 5
    }

    fn context_len(&self) -> usize {
        400
    }

    fn begin(&self) -> Vec<u32> {
        Vec::new()
    }

    fn forward(&self, state: &mut Vec<u32>, ids: &[u32], wanted: Logits) -> Vec<f32> {
        let mut rows = Vec::new();
        for &id in ids {
            state.push(id);
            let latest = &state[state.len().saturating_sub(2)..];
            let hash =
                latest.iter().fold(7u64, |hash, &id| hash.wrapping_mul(31).wrapping_add(u64::from(id) + 1));
            let row =
                (0..self.vocab_size() as u64).map(|v| (hash ^ v.wrapping_mul(0x9e37_79b9_7f4a_7c15)) % 9973);
            rows.push(row.map(|number| number as f32 / 2000.0).collect::<Vec<f32>>());
        }
        match wanted {
            Logits::All => rows.concat(),
            Logits::Last => rows.pop().expect("ids were given"),
        }
    }

    fn rewind(&self, state: &mut Vec<u32>, len: usize) -> bool {
        state.truncate(len);
        true
    }
}

fn hold(grammar: Grammar) -> Result<Constraint, ConstraintError> {
    Constraint::new(&Vocabulary::new(&tokens(), false)?, grammar)
}

fn babble(
    constraint: &Constraint,
    options: GenerateOptions,
) -> Result<(Vec<u32>, FinishReason), GenerateError> {
    let options = GenerateOptions {
        max_new_tokens: 300,
        stop_ids: vec![end()],
        constraint: Some(constraint.clone()),
        ..options
    };
    let mut decoding = Decoding::new(&Babble, b"once".map(u32::from).as_slice(), options)?;
    while decoding.next_token(&Babble)?.is_some() {}
    Ok((decoding.generated().to_vec(), decoding.finish_reason().expect("it ended")))
}

fn text(ids: &[u32]) -> String {
    let tokens = tokens();
    String::from_utf8(ids.iter().flat_map(|&id| tokens[id as usize].clone()).collect()).expect("text")
}

fn drawn(seed: u64) -> GenerateOptions {
    GenerateOptions {
        sampling: SamplingParams { seed, ..SamplingParams::default() },
        ..GenerateOptions::default()
    }
}

fn regex(pattern: &str) -> Grammar {
    Grammar::Regex(pattern.to_owned())
}

#[test]
fn of_a_choice_one_text_comes_whatever_it_contains() {
    let texts = ["yes", "yes, sir", "no.", "a|b", "(", "é", "\\d\n"].map(str::to_owned);
    let constraint = hold(Grammar::Choice(texts.to_vec())).expect("a choice");
    let mut came: Vec<String> = (0..200)
        .map(|seed| {
            let (ids, reason) = babble(&constraint, drawn(seed)).expect("an answer");
            assert_eq!(reason, FinishReason::Stop);
            text(&ids)
        })
        .collect();
    came.sort();
    came.dedup();
    let mut wanted = texts.to_vec();
    wanted.sort();
    assert_eq!(came, wanted);
}

#[test]
fn the_generation_ends_by_itself_where_nothing_can_follow_and_may_end_earlier_at_a_stop_id() {
    let sure = hold(regex("ab")).expect("a pattern");
    let (ids, reason) = babble(&sure, drawn(1)).expect("an answer");
    assert_eq!((text(&ids).as_str(), reason), ("ab", FinishReason::Stop));
    assert_ne!(ids.last(), Some(&end()));
    let open = hold(regex("(ab)+")).expect("a pattern");
    let endings = (0..50).map(|seed| babble(&open, drawn(seed)).expect("an answer"));
    for (ids, reason) in endings {
        assert_eq!(reason, FinishReason::Stop);
        assert_eq!(ids.last(), Some(&end()));
        let text = text(&ids);
        assert_eq!(text, "ab".repeat(text.len() / 2));
    }
    let nothing = hold(regex("")).expect("a pattern");
    assert_eq!(babble(&nothing, drawn(1)).expect("an answer"), (Vec::new(), FinishReason::Stop));
}

#[test]
fn a_model_that_knows_nothing_writes_json_of_the_schema() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 12 },
            "age": { "type": "integer", "minimum": 0, "maximum": 150 },
            "tags": { "type": "array", "items": { "enum": ["a", "b"] }, "maxItems": 3 },
            "next": { "anyOf": [{ "type": "null" }, { "$ref": "#/$defs/flag" }] },
        },
        "$defs": { "flag": { "type": "boolean" } },
        "required": ["name", "age", "tags", "next"],
        "additionalProperties": false,
    });
    let constraint = hold(Grammar::JsonSchema(schema)).expect("a schema");
    for seed in 0..50 {
        let (ids, reason) = babble(&constraint, drawn(seed)).expect("an answer");
        assert_eq!(reason, FinishReason::Stop);
        let value: Value = serde_json::from_str(&text(&ids)).expect("JSON");
        let fields = value.as_object().expect("an object");
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["name", "age", "tags", "next"]);
        assert!(fields["name"].as_str().is_some_and(|name| name.chars().count() <= 12));
        assert!(fields["age"].as_u64().is_some_and(|age| age <= 150));
        let tags = fields["tags"].as_array().expect("a list");
        assert!(tags.len() <= 3 && tags.iter().all(|tag| tag == "a" || tag == "b"));
        assert!(fields["next"].is_null() || fields["next"].is_boolean());
    }
}

#[test]
fn a_space_that_is_not_shown_may_come_first() {
    let words = ["▁", "▁yes", "yes", "no"].map(|token| token.replace('▁', " ").into_bytes());
    let vocabulary = Vocabulary::new(&words, true).expect("a vocabulary");
    let constraint = Constraint::new(&vocabulary, Grammar::Choice(vec!["yes".to_owned()])).expect("a choice");
    let mut guide = constraint.begin(words.len()).expect("the same vocabulary");
    assert_eq!(guide.banned(&[]).expect("a step"), [3]);
    guide.push(1).expect("it was not banned");
    assert!(guide.is_over());
    let vocabulary = Vocabulary::new(&tokens(), true).expect("a vocabulary");
    let json = Constraint::new(&vocabulary, Grammar::json_object()).expect("a schema");
    let mut guide = json.begin(Babble.vocab_size()).expect("the same vocabulary");
    guide.push(u32::from(b' ')).expect("a space");
    guide.push(u32::from(b'{')).expect("a brace");
    guide.push(u32::from(b'}')).expect("a brace");
    assert!(guide.is_over());
}

#[test]
fn what_is_no_grammar_is_refused_in_time_and_harms_nobody() {
    let deep = |open: &str, close: &str, n: usize| format!("{}a{}", open.repeat(n), close.repeat(n));
    let schemas = [
        json!({ "type": "strange" }),
        json!({ "type": "string", "pattern": "(" }),
        json!({ "type": "string", "pattern": "*" }),
        json!({ "type": 3 }),
        json!({ "$ref": "#/nowhere" }),
        json!({ "type": "string", "minLength": 5, "maxLength": 2 }),
        json!({ "type": "object", "properties": [1] }),
        json!(5),
    ];
    let patterns = ["(", "*", "a{2,1}", "[z-a]", "(?=a)", r"\1", &deep("(", ")", 4_000)];
    let bad = schemas.map(Grammar::JsonSchema).into_iter().chain(patterns.map(regex));
    for grammar in bad {
        let begun = Instant::now();
        let result = hold(grammar.clone());
        let name = format!("{grammar:?}");
        assert!(
            matches!(result, Err(ConstraintError::Grammar { .. })),
            "{} gave {result:?}",
            name.get(..80).unwrap_or(&name)
        );
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?} for {name}", begun.elapsed());
    }
    // Strange and yet grammars: what they cost is bounded too.
    for pattern in [deep("(", "){9}", 40), "((a{999}){999}){999}".to_owned(), "(a?){200}a{200}".to_owned()] {
        let begun = Instant::now();
        let result = hold(regex(&pattern)).map(|constraint| babble(&constraint, drawn(1)));
        assert!(begun.elapsed() < Duration::from_secs(5), "{result:?} in {:?}", begun.elapsed());
    }
    let letters = Vocabulary::new(&[b"a".to_vec(), b"b".to_vec()], false).expect("a vocabulary");
    let unsaid = Constraint::new(&letters, Grammar::json_object());
    assert!(matches!(unsaid, Err(ConstraintError::Grammar { .. })), "{unsaid:?}");
    assert_eq!(hold(Grammar::Choice(Vec::new())).expect_err("nothing to choose"), ConstraintError::NoChoice);
    let large = hold(regex(&"a".repeat(MAX_GRAMMAR + 1))).expect_err("too large");
    assert_eq!(
        large,
        ConstraintError::TooLarge { grammar: "regex", bytes: MAX_GRAMMAR + 1, limit: MAX_GRAMMAR }
    );
    assert!(matches!(Vocabulary::new(&[], false), Err(ConstraintError::Vocabulary(0))));
}

/// Schemas as people have them.
fn ordinary_schemas() -> Vec<Value> {
    let names = |n: usize| (0..n).map(|i| format!("value number {i}")).collect::<Vec<_>>();
    let object = |n: usize, of: Value| {
        let fields: serde_json::Map<String, Value> =
            names(n).into_iter().map(|name| (name, of.clone())).collect();
        json!({ "type": "object", "properties": fields, "required": names(n), "additionalProperties": false })
    };
    let tree = json!({
        "$ref": "#/$defs/node",
        "$defs": { "node": {
            "type": "object",
            "properties": {
                "value": { "type": ["integer", "null"], "minimum": 0, "maximum": 1e9 },
                "children": { "type": "array", "items": { "$ref": "#/$defs/node" }, "maxItems": 50 },
            },
            "required": ["value"],
        } },
    });
    let shape = |kind: usize| {
        json!({
            "type": "object",
            "properties": { "kind": { "const": format!("kind{kind}") }, "size": { "type": "number" } },
            "required": ["kind", "size"],
            "additionalProperties": false,
        })
    };
    let inherits = json!({
        "allOf": [{ "$ref": "#/definitions/base" }, { "$ref": "#/definitions/dated" }, {
            "type": "object",
            "properties": { "title": { "type": "string", "maxLength": 200 }, "state": { "enum": ["on", "off"] } },
            "required": ["title"],
        }],
        "definitions": {
            "base": { "type": "object", "properties": { "id": { "type": "string", "format": "uuid" } }, "required": ["id"] },
            "dated": { "type": "object", "properties": {
                "made": { "type": "string", "format": "date-time" },
                "by": { "anyOf": [{ "type": "null" }, { "$ref": "#/definitions/base" }] },
            } },
        },
    });
    let nested = (0..30).fold(
        json!({ "type": "integer" }),
        |inner, _| json!({ "type": "object", "properties": { "inner": inner }, "required": ["inner"] }),
    );
    // A chain of fifty models, each of which refers to the next.
    let mut models: serde_json::Map<String, Value> = (0..50)
        .map(|i| {
            let next = json!({ "$ref": format!("#/$defs/Model{}", i + 1), "description": "the next one" });
            (
                format!("Model{i}"),
                json!({ "type": "object", "properties": { "next": next, "name": { "type": "string" } } }),
            )
        })
        .collect();
    models.insert("Model50".to_owned(), json!({ "type": "object" }));
    vec![
        json!(true),
        json!({ "type": "object" }),
        json!({ "type": "string", "enum": names(800) }),
        json!({ "type": "string", "pattern": r"^(\+\d{1,3}[- ]?)?\(?\d{3}\)?[- ]?\d{3}[- ]?\d{4}$" }),
        json!({ "type": "string", "maxLength": 100_000 }),
        json!({ "type": "array", "items": { "type": "number" }, "minItems": 1, "maxItems": 10_000 }),
        json!({ "type": "number", "multipleOf": 0.01, "minimum": -90, "maximum": 90 }),
        json!({ "type": "integer", "minimum": -9_007_199_254_740_991_i64, "maximum": i64::MAX }),
        json!({ "type": "object", "patternProperties": { "^x-": { "type": "string" } }, "additionalProperties": false }),
        json!({ "oneOf": (0..40).map(shape).collect::<Vec<_>>() }),
        json!({ "anyOf": (0..60).map(shape).collect::<Vec<_>>() }),
        object(300, json!({ "type": "string" })),
        object(
            60,
            json!({ "type": "object", "properties": { "a": { "type": "string", "format": "email" }, "b": { "enum": names(20) } } }),
        ),
        json!({ "$ref": "#/$defs/Model0", "$defs": models }),
        tree,
        inherits,
        nested,
    ]
}

#[test]
fn ordinary_schemas_are_within_the_bounds() {
    for schema in ordinary_schemas() {
        let begun = Instant::now();
        let held = hold(Grammar::JsonSchema(schema.clone()));
        let shown: String = schema.to_string().chars().take(120).collect();
        assert!(held.is_ok(), "{shown}: {held:?}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{shown}: {:?}", begun.elapsed());
    }
}

#[test]
fn multiples_of_alternatives_are_bounded_together() {
    let multiple = |of: u64| json!({ "type": "integer", "multipleOf": of });
    let named = |name: &str, schema: Value| json!({ "type": "object", "properties": { name: schema } });
    let tuple = |of: &[u64]| {
        let items: Vec<Value> = of.iter().map(|&of| multiple(of)).collect();
        json!({ "type": "array", "prefixItems": items, "items": false })
    };
    let two = json!({ "anyOf": [multiple(149), multiple(151)] });
    let refused = [
        two.clone(),
        named("deep", json!({ "type": "array", "items": two })),
        json!({ "oneOf": [named("a", multiple(149)), named("a", multiple(151))] }),
        json!({ "anyOf": [{ "$ref": "#/$defs/one" }, multiple(151)], "$defs": { "one": multiple(149) } }),
        json!({ "oneOf": [multiple(9973), multiple(9967)] }),
        json!({ "anyOf": [tuple(&[1, 149]), tuple(&[1, 151])] }),
        json!({ "anyOf": [tuple(&[1, 149]), json!({ "type": "array", "items": multiple(151) })] }),
    ];
    for schema in refused {
        let error = hold(Grammar::JsonSchema(schema.clone())).expect_err("it is too much");
        assert!(error.to_string().contains("remainders of multipleOf"), "{schema}: {error}");
    }
    let cents = json!({ "type": "number", "multipleOf": 0.01 });
    let allowed = [
        // One after the other, under other names, or the same one.
        json!({ "type": "object", "properties": { "a": multiple(149), "b": multiple(151) } }),
        json!({ "anyOf": [named("a", multiple(149)), named("b", multiple(151))] }),
        json!({ "anyOf": [named("price", cents.clone()), named("price", cents.clone()), named("price", cents)] }),
        json!({ "anyOf": [multiple(131), multiple(151)] }),
        // Places of a tuple come one after the other.
        tuple(&[149, 151, 157]),
        json!({ "anyOf": [tuple(&[149, 151]), tuple(&[149, 151, 157])] }),
    ];
    for schema in allowed {
        assert!(hold(Grammar::JsonSchema(schema.clone())).is_ok(), "{schema}");
    }
}

#[test]
fn a_regex_that_stands_for_something_long_is_refused_by_its_bound() {
    for (pattern, what) in [
        ("((a{999}){999}){999}", "counted repetitions"),
        ("(ab|cd){0,9000}", "counted repetitions"),
        ("^(?:[a-z]+ ?){1,5000}$", "ways of reading"),
        (r"(\w{1,100}\s?){1,100}", "ways of reading"),
        ("([a-z]{1,3}[0-9]?){1,4000}", "ways of reading"),
        (r"\pL".repeat(51).as_str(), "characters and ranges"),
        ("a".repeat(8193).as_str(), "bytes in one pattern"),
    ] {
        let refused = hold(regex(pattern)).expect_err("it is too long");
        assert!(matches!(refused, ConstraintError::TooComplex { grammar: "regex", .. }), "{refused}");
        assert!(refused.to_string().contains(what), "{refused}");
    }
    let pattern = json!({ "type": "string", "pattern": "^(?:[a-z]+ ?){1,5000}$" });
    let refused = hold(Grammar::JsonSchema(pattern)).expect_err("it is too long").to_string();
    assert!(refused.contains("ways of reading"), "{refused}");
    for pattern in [
        r"\w{1,9999}",
        "(?:[a-z]+ ?){1,200}",
        "[a-z]{1,5000}",
        "(a{140}){140}",
        "([0-9]{1,3}\\.){3}[0-9]{1,3}",
    ] {
        assert!(hold(regex(pattern)).is_ok(), "{pattern}");
    }
}

#[test]
fn a_backslash_that_escapes_nothing_is_refused() {
    for grammar in [regex("a\\"), Grammar::JsonSchema(json!({ "type": "string", "pattern": "a\\\\\\" }))] {
        let refused = hold(grammar).expect_err("it escapes nothing").to_string();
        assert!(refused.contains("backslash that escapes nothing"), "{refused}");
    }
    assert!(hold(regex("a\\\\")).is_ok());
}

#[test]
fn a_choice_of_nothing_but_empty_texts_is_refused() {
    let empty = Grammar::Choice(vec![String::new(), String::new()]);
    assert!(hold(empty).is_err_and(|error| error.to_string().contains("all of its texts are empty")));
    assert!(hold(Grammar::Choice(vec![String::new(), "yes".to_owned()])).is_ok());
}

#[test]
fn a_vocabulary_larger_than_the_models_is_refused() {
    let tokens = vec![b"a".to_vec(); 1000];
    let vocabulary = Vocabulary::new(&tokens, false).expect("a vocabulary");
    let constraint = Constraint::new(&vocabulary, regex("a")).expect("a pattern");
    let expected = ConstraintError::OtherVocabulary { constraint: 1000, model: Babble.vocab_size() };
    assert_eq!(babble(&constraint, drawn(1)), Err(expected.into()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn among_what_may_come_the_draw_is_as_ever(seed: u64, greedy: bool, lookup in 0usize..6) {
        let constraint = hold(regex("(ab|a|é|[0-9]{1,3}-){0,40}!")).expect("a pattern");
        let mut options = drawn(seed);
        if greedy {
            options.sampling.temperature = 0.0;
        }
        options.prompt_lookup = lookup;
        let (ids, _) = babble(&constraint, options.clone()).expect("an answer");
        // By hand, one id at a time.
        let mut guide = constraint.begin(Babble.vocab_size()).expect("the same vocabulary");
        let sampler = crate::generate::Sampler::new(options.sampling).expect("settings");
        let prompt = b"once".map(u32::from);
        let mut so_far = Vec::new();
        while so_far.len() < 300 && !guide.is_over() {
            let mut row = Babble.forward(&mut Vec::new(), &[&prompt[..], &so_far].concat(), Logits::Last);
            for id in guide.banned(&[end()]).expect("a step") {
                row[id as usize] = f32::NEG_INFINITY;
            }
            let id = sampler.sample(&mut row, &prompt, &so_far).expect("an id").id;
            so_far.push(id);
            guide.push(id).expect("it was not banned");
        }
        prop_assert_eq!(ids, so_far);
    }
}

#[test]
fn an_answer_is_a_text_or_calls_whose_marks_are_control_tokens_or_spelled() {
    let words = [tokens(), vec![Vec::new(), Vec::new()]].concat();
    let (open, close) = (words.len() as u32 - 2, words.len() as u32 - 1);
    let control = [(open, "<call>".to_owned()), (close, "</call>".to_owned())];
    let vocabulary = Vocabulary::with_control_tokens(&words, &control, false).expect("a vocabulary");
    let object = |name: &str, kind: &str| json!({ "type": "object", "properties": { name: { "type": kind } }, "required": [name], "additionalProperties": false });
    let held = |text: Option<Value>, closing: Option<&str>, control: &[&str]| {
        let calls = TextOrCalls {
            text,
            marker: "<call>".to_owned(),
            gap: "\n".to_owned(),
            call: object("x", "integer"),
            closing: closing.map(str::to_owned),
            control: control.iter().map(|&name| name.to_owned()).collect(),
        };
        Constraint::new(&vocabulary, Grammar::TextOrCalls(Box::new(calls))).expect("a grammar")
    };
    // `+` and `-` stand for the control tokens.
    let takes = |constraint: &Constraint, text: &str| {
        let mut guide = constraint.begin(words.len()).expect("its vocabulary");
        text.bytes().all(|byte| {
            let id = match byte {
                b'+' => open,
                b'-' => close,
                byte => u32::from(byte),
            };
            let is_allowed = !guide.is_over() && !guide.banned(&[]).expect("a mask").contains(&id);
            is_allowed && guide.push(id).is_ok()
        })
    };
    let free = held(None, Some("</call>"), &[]);
    for text in [
        "",
        "h\u{e9} <b> {\"x\"",
        "+\n{\"x\": 1}",
        "hi +\n{\"x\": 1}\n-",
        "hi <call>\n{\"x\": 1}",
        "<call>\n{\"x\": 1}\n</call>\n<call>\n{\"x\": 2}\n</call>",
        "+\n{\"x\": 1}\n-\n+\n{\"x\": 2}\n-",
    ] {
        assert!(takes(&free, text), "{text}");
    }
    for text in ["+x", "+\n{\"y\"", "<call>x", "-", "hi -", "+\n{\"x\": \"", "+\n{\"x\": 1}\n-x"] {
        assert!(!takes(&free, text), "{text}");
    }
    let once = held(None, None, &["</call>"]);
    assert!(takes(&once, "+\n{\"x\": 1}") && !takes(&once, "+\n{\"x\": 1}\n"));
    assert!(
        takes(&once, "so - and -+\n{\"x\": 1}") && takes(&once, "-<call>\n{\"x\": 1}") && takes(&once, "a-b")
    );
    let schema = held(Some(object("a", "boolean")), None, &[]);
    for text in ["{\"a\": true}", "+\n{\"x\": 1}", "<call>\n{\"x\": 1}"] {
        assert!(takes(&schema, text), "{text}");
    }
    assert!(!takes(&schema, "hi") && !takes(&schema, "{\"x\"") && !takes(&schema, "{\"a\": true}x"));
    // Without a marker, a call is the whole answer.
    let bare = TextOrCalls { call: object("x", "integer"), ..TextOrCalls::default() };
    let bare = Constraint::new(&vocabulary, Grammar::TextOrCalls(Box::new(bare))).expect("a grammar");
    assert!(takes(&bare, "{\"x\": 1}") && takes(&bare, "so {\"y\"") && !takes(&bare, "{\"y\""));
    // Other grammars never take control tokens.
    let any = Constraint::new(&vocabulary, regex("(.|\\n)*")).expect("a pattern");
    assert!(takes(&any, "a<call>") && !takes(&any, "+") && !takes(&any, "a-"));
    let wrong = TextOrCalls { call: json!({ "x-guidance": {} }), ..TextOrCalls::default() };
    let error = Constraint::new(&vocabulary, Grammar::TextOrCalls(Box::new(wrong))).expect_err("refused");
    assert!(error.to_string().contains("of a tool: `x-guidance`"), "{error}");
}

#[test]
fn a_compilation_that_nobody_waits_for_ends_and_a_complete_one_stays() {
    let vocabulary = Vocabulary::new(&tokens(), false).expect("a vocabulary");
    let unwanted = Interrupt::default();
    unwanted.stop();
    let ended = Constraint::new_unless(&vocabulary, regex("(ab)+"), &unwanted);
    assert_eq!(ended.expect_err("ended"), ConstraintError::Interrupted);
    let late = Interrupt::default();
    let complete = Constraint::new_unless(&vocabulary, regex("(ab)+"), &late).expect("a pattern");
    late.stop();
    assert_eq!(babble(&complete, drawn(1)).expect("an answer").1, FinishReason::Stop);
    // At any moment of the work.
    let fields: serde_json::Map<String, Value> =
        (0..300).map(|at| (format!("field {at}"), json!({ "type": "string" }))).collect();
    let grammar = Grammar::JsonSchema(json!({ "type": "object", "properties": fields }));
    for wait in [0, 1, 3, 9, 27, 81] {
        let interrupt = Interrupt::default();
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(wait));
                interrupt.stop();
            });
            Constraint::new_unless(&vocabulary, grammar.clone(), &interrupt)
        });
        match result {
            Ok(constraint) => drop(babble(&constraint, drawn(1)).expect("an answer")),
            Err(error) => assert_eq!(error, ConstraintError::Interrupted),
        }
    }
}
