use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::*;
use crate::input::tests::gzip;
use crate::source::OnError;
use crate::tokenizer::Message;
use proptest::prelude::*;
use serde_json::{Value, json};

struct File {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn file(name: &str, content: impl AsRef<[u8]>) -> File {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    File { path, _dir: dir }
}

fn open(file: &File) -> RowReader {
    RowReader::open(&file.path, &RowOptions::default()).unwrap()
}

/// Each row as `line: fields`, or its error without the folder.
fn shown(file: &File, options: &RowOptions) -> Vec<String> {
    let folder = format!("{}/", file.path.parent().unwrap().display());
    let show = |row: Result<Row, RowsError>| match row {
        Ok(row) => {
            let fields: Vec<String> =
                row.names().map(|name| format!("{name}={}", value(&row, name))).collect();
            let origin = row.origin().to_string();
            format!("{}: {}", &origin[file.path.display().to_string().len() + 1..], fields.join(" "))
        }
        Err(error) => error.to_string().replace(&folder, ""),
    };
    match RowReader::open(&file.path, options) {
        Ok(reader) => reader.map(show).collect(),
        Err(error) => vec![show(Err(error))],
    }
}

fn value(row: &Row, name: &str) -> String {
    row.find(name).map_or_else(|| "-".to_owned(), Value::to_string)
}

#[track_caller]
fn check(name: &str, content: impl AsRef<[u8]>, expected: &[&str]) {
    let file = file(name, content);
    assert_eq!(shown(&file, &RowOptions::default()), expected);
}

#[test]
fn lines_of_json() {
    let content = "\u{feff}{\"a\": 1}\r\n\n  \n{\"a\": [\"é\"]}\n[1]\n{\"a\": NaN, \"b\": \"NaN \\\"Infinity\", \"c\": [-Infinity]}\n{\"a\":";
    let expected = [
        "1: a=1",
        "4: a=[\"é\"]",
        "rows.jsonl:5: invalid JSON: invalid type: sequence, expected a map at column 0",
        "6: a=- b=\"NaN \\\"Infinity\" c=[null]",
        "rows.jsonl:7: invalid JSON: EOF while parsing a value at column 5",
    ];
    check("rows.jsonl", content, &expected);
    let compressed = expected.map(|line| line.replace("rows.jsonl", "rows.JSONL.gz"));
    check("rows.JSONL.gz", gzip(content.as_bytes()), &compressed.each_ref().map(String::as_str));
    check(
        "rows.ndjson",
        b"{\"a\": 1}\n\xff\n",
        &["1: a=1", "rows.ndjson:2: invalid UTF-8 at byte 0 of the record; convert the file to UTF-8"],
    );
    check("rows.jsonl", "", &[]);
    check("rows.jsonl", gzip(b""), &[]);
}

#[test]
fn long_rows_are_passed_over() {
    let long = "a".repeat(200_000);
    let options = RowOptions { max_row_bytes: 100, ..RowOptions::default() };
    let lines = file("r.jsonl", format!("{{\"a\":\"{long}\"}}\n{{\"a\":1}}\n"));
    let array = file("r.json", format!("[{{\"a\":\"{long}\"}},\n{{\"a\":1}}]"));
    let expected = |name| {
        [format!("{name}:1: longer than 100 bytes; raise the limit if this is meant"), "2: a=1".into()]
    };
    assert_eq!(shown(&lines, &options), expected("r.jsonl"));
    assert_eq!(shown(&array, &options), expected("r.json"));
    // A table ends with it: after an open quote nothing tells where the next row begins.
    let table = file("r.csv", format!("a\n\"{long}\n1\n"));
    assert_eq!(shown(&table, &options), ["r.csv:2: longer than 100 bytes; raise the limit if this is meant"]);
}

#[test]
fn lists_of_json() {
    let pretty = "\u{feff}\n[\n  {\n    \"a\": \"x, ] \\\" y\",\n    \"b\": [1, {\"c\": 2}]\n  },\n  3,\n  {\"a\": NaN}\n]\n\n";
    check(
        "r.json",
        pretty,
        &[
            "3: a=\"x, ] \\\" y\" b=[1,{\"c\":2}]",
            "r.json:7: invalid JSON: invalid type: integer `3`, expected a map at column 1",
            "8: a=-",
        ],
    );
    check("r.json", "[]", &[]);
    check(
        "r.json",
        "[{\"a\": 1},]",
        &["1: a=1", "r.json:1: invalid JSON: EOF while parsing a value at column 0"],
    );
    check("r.json", "[{\"a\": 1}", &["r.json: the file ends inside of an array"]);
    check("r.json", "[{\"a\": 1}] x", &["r.json: there is more after the array"]);
    check("r.json", "{\"a\": 1}\n{\"a\": 2}", &["1: a=1", "2: a=2"]);
    check("r.json", "", &[]);
    check(
        "r.json",
        "{\n\"a\": 1}",
        &["r.json: it is neither a list of rows, nor {\"data\": [...]} as SQuAD's files are"],
    );
    check("r.json", "{\n\"a\": 1", &["r.json is not JSON"]);
    let data = json!({ "version": 1, "data": [{ "id": "q", "a": 1 }, { "a": 2 }] });
    for text in [data.to_string(), format!("{data:#}")] {
        check("r.json", text, &[" id \"q\": id=\"q\" a=1", " row 2: a=2"]);
    }
}

#[test]
fn tables() {
    check(
        "r.csv",
        "\u{feff}text,label\r\n\"a, \"\"b\"\"\r\nc\",1\r\n\r\n,2\r\nd,\"3\"",
        &[
            "2: text=\"a, \\\"b\\\"\\r\\nc\" label=\"1\"",
            "5: text=- label=\"2\"",
            "6: text=\"d\" label=\"3\"",
        ],
    );
    check("r.csv", "text;label\n\na, b;1\n", &["3: text=\"a, b\" label=\"1\""]);
    check(
        "r.tsv",
        "text\tlabel\na, \"b\"\t1\n\"a\tb\"\t2\n",
        &["2: text=\"a, \\\"b\\\"\" label=\"1\"", "3: text=\"a\\tb\" label=\"2\""],
    );
    check(
        "r.csv",
        "a,b\n1,2,3\n4\n5,6\n",
        &[
            "r.csv:2: 3 cells, but the header has 2; cells that contain a separator or a line break are put in quotes",
            "r.csv:3: 1 cells, but the header has 2; cells that contain a separator or a line break are put in quotes",
            "4: a=\"5\" b=\"6\"",
        ],
    );
    check(
        "r.csv",
        b"a,b\n1,\xff\n3,4",
        &["r.csv:2: invalid UTF-8 at byte 0 of the record; convert the file to UTF-8", "3: a=\"3\" b=\"4\""],
    );
    check(
        "r.csv",
        "a,b\n1,2\n3,\"4\n5,6\n",
        &[
            "2: a=\"1\" b=\"2\"",
            "r.csv:3: a cell begins with a quote that is never closed; close it, or read the table without quotes",
        ],
    );
    check("r.csv", "a,a\n", &["r.csv: the header has \"a\" twice"]);
    check("r.csv", "a,b", &[]);
    check("r.csv", "", &[]);
    check("r.csv", gzip(b"a\n1\n"), &["2: a=\"1\""]);
    check(
        "r.arrow",
        "ARROW1",
        &[
            "r.arrow: rows are read from .jsonl, .json, .csv, .tsv, .parquet and tables in .txt, also compressed (.gz, .zst); convert it to JSON Lines",
        ],
    );
}

#[test]
fn a_table_without_quotes_has_them_in_its_cells() {
    let file = file("r.tsv", "a\tb\n\"x\ty\n");
    let options = RowOptions { quotes: false, ..RowOptions::default() };
    assert_eq!(shown(&file, &options), ["2: a=\"\\\"x\" b=\"y\""]);
    // As NSMC is written.
    let reviews = self::file("r.txt", "id\tdocument\tlabel\n1\t\"x\t0\n");
    assert_eq!(shown(&reviews, &options), ["2: id=\"1\" document=\"\\\"x\" label=\"0\""]);
    let text = self::file("r.txt", "To be, or not to be\n");
    let expected = "r.txt: rows of a .txt file are a table with tabs, and its first line has none";
    assert_eq!(shown(&text, &options), [expected]);
    let options = RowOptions { separator: Some('é'), ..RowOptions::default() };
    assert_eq!(shown(&file, &options), ["r.tsv: the separator 'é' is not one byte"]);
}

#[test]
fn a_damaged_gzip_file_ends_the_rows_with_an_error() {
    let whole = gzip("{\"a\": 1}\n".repeat(10_000).as_bytes());
    let rows: Vec<_> = open(&file("r.jsonl.gz", &whole[..whole.len() - 9])).collect();
    let Some(Err(RowsError::Row(error))) = rows.last() else { panic!("no bad row at the end") };
    assert_eq!(error.fault.reason(), "damaged-file");
    assert!(error.to_string().ends_with("; the rest of the file is not read"), "{error}");
    assert_eq!(rows.iter().filter(|row| row.is_err()).count(), 1);
}

fn only_row(row: &Value) -> Row {
    open(&file("rows.jsonl", row.to_string())).next().unwrap().unwrap()
}

#[track_caller]
fn read<S: Shape>(shape: &S, row: Value) -> S::Example {
    shape.read(&only_row(&row)).unwrap()
}

#[track_caller]
fn check_fault<S: Shape>(shape: &S, row: Value, message: &str)
where
    S::Example: std::fmt::Debug,
{
    let error = shape.read(&only_row(&row)).unwrap_err().to_string();
    assert!(error.ends_with(&format!("rows.jsonl:1: {message}")), "{error}");
}

fn messages(turns: &[(&str, &str)]) -> Vec<Message> {
    turns.iter().map(|(role, content)| Message::new(*role, *content)).collect()
}

#[test]
fn labels_are_classes_or_numbers() {
    let class = |row| match read(&ClassifyFields::default(), row).label {
        Label::Class(class) => class,
        other => panic!("{other:?}"),
    };
    assert_eq!(class(json!({ "text": "", "label": "x " })), ClassName::text("x"));
    assert_eq!(class(json!({ "text": "a", "label": 3 })), ClassName::number(3));
    assert_eq!(class(json!({ "text": "a", "label": 3.0 })), ClassName::number(3));
    assert_eq!(class(json!({ "text": "a", "label": "3" })), ClassName::text("3"));
    assert_eq!(class(json!({ "text": "a", "label": true })).to_string(), "true");
    let fields = ClassifyFields::default();
    check_fault(
        &fields,
        json!({ "text": "a", "label": 0.5 }),
        "field \"label\" is the number 0.5, not a class: text or a whole number (numbers to predict are regression)",
    );
    check_fault(
        &fields,
        json!({ "text": 3, "label": 1 }),
        "field \"text\" is the number 3, not text in quotes",
    );
    let fields = ClassifyFields { label_type: LabelType::Classes, ..fields };
    let classes = |label: Value| read(&fields, json!({ "text": "a", "label": label })).label;
    assert_eq!(classes(json!(["a", "b"])), Label::Classes(["a", "b"].map(ClassName::text).into()));
    assert_eq!(classes(json!([1, 4])), Label::Classes([1, 4].map(ClassName::number).into()));
    assert_eq!(classes(json!([0.0, 1.0, 1.0])), Label::Classes([1, 2].map(ClassName::number).into()));
    assert_eq!(classes(json!([])), Label::Classes(vec![]));
    assert_eq!(classes(json!("a")), Label::Classes(vec![ClassName::text("a")]));
    let fields = ClassifyFields { label_type: LabelType::Numbers, ..fields };
    let numbers = |label: Value| read(&fields, json!({ "text": "a", "label": label })).label;
    assert_eq!(numbers(json!(2)), Label::Numbers(vec![2.0]));
    assert_eq!(numbers(json!([0.5, 1])), Label::Numbers(vec![0.5, 1.0]));
    check_fault(
        &fields,
        json!({ "text": "a", "label": "2" }),
        "field \"label\" is the text \"2\", not a number",
    );
}

#[test]
fn conversations_have_roles_and_texts() {
    let expected = messages(&[("system", "s"), ("user", "a"), ("assistant", "b")]);
    let ours = json!([{ "role": "system", "content": "s" }, { "role": "user", "content": "a" },
        { "role": "assistant", "content": [{ "type": "text", "text": "b" }] }]);
    let conversation = read(&ChatFields::default(), json!({ "messages": ours }));
    assert_eq!((conversation.messages, conversation.learned), (expected.clone(), vec![false, false, true]));
    let fields = ChatFields {
        messages: "conversations".into(),
        system: Some("system".into()),
        ..ChatFields::default()
    };
    let theirs = json!({ "system": "s", "conversations": [{ "from": "human", "value": "a" },
        { "from": "gpt", "value": "b" }], "tools": "[{\"name\": \"f\"}]" });
    let conversation = read(&fields, theirs);
    assert_eq!(conversation.messages, expected);
    assert_eq!(conversation.tools, Some(vec![json!({ "name": "f" })]));
    let answer = |weight: Value| json!({ "role": "assistant", "content": "a", "weight": weight });
    let weighted = json!({ "messages": [answer(json!(0)), answer(json!(1)), answer(Value::Null)] });
    assert_eq!(read(&ChatFields::default(), weighted).learned, [false, true, true]);
    let check = |messages: Value, message: &str| {
        check_fault(&ChatFields::default(), json!({ "messages": messages }), message);
    };
    check(json!([answer(json!(0.5))]), "field \"messages.weight\" is the number 0.5, not 0 or 1");
    check(json!([answer(json!(0))]), "field \"messages\" has no message of the assistant to learn from");
    check(json!([]), "field \"messages\" is empty");
    check(json!("hi"), "field \"messages\" is the text \"hi\", not a list of messages");
    check(
        json!([{ "role": "user", "content": "a" }]),
        "field \"messages\" has no message of the assistant to learn from",
    );
    check(
        json!([{ "role": "user", "content": 3 }]),
        "field \"messages.0\" is an object of 2 fields, not a message with a text `content` (or `value`)",
    );
}

#[test]
fn the_assistant_calls_tools() {
    let call = |name: &str| json!({ "type": "function", "id": "c1", "function": { "name": name, "arguments": "{\"a\": 1}" } });
    let row = json!({ "messages": [
        { "role": "user", "content": "a" },
        { "role": "assistant", "content": null, "tool_calls": [call("f"), call("g")] },
        { "role": "tool", "content": "b", "tool_call_id": "c1", "name": "f" },
        { "role": "assistant", "content": "c", "tool_calls": [] },
    ], "tools": [{ "type": "function" }] });
    let conversation = read(&ChatFields::default(), row);
    assert_eq!(conversation.learned, [false, true, false, true]);
    let [_, calls, result, answer] = conversation.messages.as_slice() else { panic!("{conversation:?}") };
    let names: Vec<&str> = calls.tool_calls.iter().map(|call| call.name.as_str()).collect();
    assert_eq!((names, &calls.content), (vec!["f", "g"], &None));
    assert_eq!(calls.tool_calls[0].arguments, json!({ "a": 1 }));
    assert_eq!((result.tool_call_id.as_deref(), result.name.as_deref()), (Some("c1"), Some("f")));
    assert_eq!(*answer, Message::new("assistant", "c"));
    // ShareGPT, as LLaMA-Factory has it.
    let row = json!({ "conversations": [{ "from": "human", "value": "a" },
        { "from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"a\": 1}}" },
        { "from": "observation", "value": "b" }, { "from": "gpt", "value": "c" }] });
    let fields = ChatFields { messages: "conversations".into(), ..ChatFields::default() };
    let conversation = read(&fields, row);
    assert_eq!(conversation.learned, [false, true, false, true]);
    let called = &conversation.messages[1].tool_calls[0];
    assert_eq!((called.name.as_str(), &called.arguments), ("f", &json!({ "a": 1 })));
    assert_eq!(conversation.messages[2], Message::new("tool", "b"));
    let check = |message: Value, wanted: &str| {
        check_fault(&ChatFields::default(), json!({ "messages": [message] }), wanted);
    };
    check(
        json!({ "role": "assistant", "content": "", "tool_calls": [{}] }),
        "field \"messages.0.tool_calls.0\" is a list of 1 items, not a list of calls, each with a `function` of `name` and `arguments`",
    );
    check(
        json!({ "role": "user", "content": "", "tool_calls": [call("f")] }),
        "field \"messages.0\" is an object of 3 fields, not a message of the assistant, which alone calls tools",
    );
    check(
        json!({ "from": "function_call", "value": "f()" }),
        "field \"messages.0\" is the text \"f()\", not a call as JSON, with `name` and `arguments`",
    );
    check(
        json!({ "role": "tool", "content": "", "tool_call_id": 7 }),
        "field \"messages.0.tool_call_id\" is the number 7, not a text",
    );
}

#[test]
fn instructions_are_conversations() {
    let fields = InstructionFields::default();
    let row = json!({ "instruction": "Translate.", "input": "a", "output": "b" });
    assert_eq!(read(&fields, row).messages, messages(&[("user", "Translate.\na"), ("assistant", "b")]));
    let row = json!({ "instruction": "Sing.", "input": "", "output": "la", "system": "s" });
    let expected = messages(&[("system", "s"), ("user", "Sing."), ("assistant", "la")]);
    assert_eq!(read(&fields, row).messages, expected);
}

#[test]
fn completions_are_text_or_messages() {
    let fields = CompletionFields::default();
    let text = read(&fields, json!({ "prompt": "a", "completion": " b" }));
    assert_eq!((text.prompt, text.completion), (Turns::Text("a".into()), Turns::Text(" b".into())));
    let turns = |role: &str, content: &str| Turns::Messages(vec![Message::new(role, content)]);
    let expected = Completion { prompt: turns("user", "a"), completion: turns("assistant", "b") };
    let (user, assistant) =
        (json!([{ "role": "user", "content": "a" }]), json!({ "role": "assistant", "content": "b" }));
    assert_eq!(read(&fields, json!({ "prompt": user, "completion": [assistant] })), expected);
    assert_eq!(read(&fields, json!({ "prompt": user, "completion": "b" })), expected);
    assert_eq!(read(&fields, json!({ "prompt": "a", "completion": assistant })), expected);
    check_fault(&fields, json!({ "prompt": "a", "completion": " " }), "field \"completion\" is empty");
    check_fault(
        &fields,
        json!({ "prompt": user, "completion": user }),
        "field \"completion\" has no message of the assistant to learn from",
    );
}

// Prompts, chosen and rejected answers of the first three as by `maybe_extract_prompt` of trl 1.16.0.
#[test]
fn a_preference_finds_its_prompt() {
    let fields = PreferenceFields::default();
    let text = |text: &str| Turns::Text(text.into());
    let found = read(&fields, json!({ "chosen": "Q: é? A: yes", "rejected": "Q: é? A: no" }));
    assert_eq!(found, Preference { prompt: text("Q: é? A:"), chosen: text(" yes"), rejected: text(" no") });
    let user = json!({ "role": "user", "content": "q" });
    let answer = |content: &str| json!({ "role": "assistant", "content": content });
    let turns = |role: &str, content: &str| Turns::Messages(vec![Message::new(role, content)]);
    let expected = Preference {
        prompt: turns("user", "q"),
        chosen: turns("assistant", "a"),
        rejected: turns("assistant", "b"),
    };
    let whole = json!({ "chosen": [user, answer("a")], "rejected": [user, answer("b")] });
    assert_eq!(read(&fields, whole.clone()), expected);
    let mut with_prompt = whole;
    with_prompt["prompt"] = json!("q");
    assert_eq!(read(&fields, with_prompt), expected);
    for row in [
        json!({ "prompt": [user], "chosen": [answer("a")], "rejected": [answer("b")] }),
        json!({ "prompt": [user], "chosen": "a", "rejected": "b" }),
        json!({ "prompt": "q", "chosen": answer("a"), "rejected": "b" }),
        json!({ "prompt": "q", "chosen": "a", "rejected": answer("b") }),
    ] {
        assert_eq!(read(&fields, row), expected);
    }
    let plain = read(&fields, json!({ "prompt": "q", "chosen": "ab", "rejected": "ac" }));
    assert_eq!(plain, Preference { prompt: text("q"), chosen: text("ab"), rejected: text("ac") });
    for (chosen, rejected) in [("a", "a"), ("a", "ab"), ("ab", "a")] {
        check_fault(
            &fields,
            json!({ "chosen": chosen, "rejected": rejected }),
            "fields \"chosen\" and \"rejected\" are equal or one begins with the other; there is nothing to prefer",
        );
    }
}

#[test]
fn answers_are_found_in_their_context() {
    let fields = QuestionFields::default();
    let row =
        |answers: Value| json!({ "id": 7, "question": "q?", "context": "é Paris é", "answers": answers });
    let paris = Answer { text: "Paris".into(), bytes: 3..8 };
    let found = read(&fields, row(json!({ "text": ["Paris"], "answer_start": [2] })));
    assert_eq!((found.id.as_str(), found.answers), ("7", vec![paris.clone()]));
    assert_eq!(read(&fields, row(json!([{ "text": "Paris", "answer_start": 2 }]))).answers, [paris]);
    assert_eq!(read(&fields, row(json!({ "text": [], "answer_start": [] }))).answers, Vec::new());
    check_fault(
        &fields,
        row(json!([{ "text": "Paris", "answer_start": 3 }])),
        "the answer \"Paris\" is not at character 3 of the context, but at 2",
    );
    check_fault(
        &fields,
        row(json!([{ "text": "London", "answer_start": 99 }])),
        "the answer \"London\" is not at character 99 of the context, nor anywhere in it",
    );
    check_fault(
        &fields,
        row(json!({ "text": ["a"], "answer_start": [] })),
        "field \"answers.text\" has 1 items, \"answers.answer_start\" has 0; they must be as many",
    );
    check_fault(
        &fields,
        row(json!([{ "text": "Paris" }])),
        "field \"answers\" is a list of 1 items, not answers with `text` and `answer_start`",
    );
}

#[test]
fn squad_files_are_rows_of_questions() {
    let squad = json!({ "version": "v2.0", "data": [{ "title": "T", "paragraphs": [
        { "context": "Paris.", "qas": [
            { "id": "q1", "question": "Where?", "answers": [{ "text": "Paris", "answer_start": 0 }], "is_impossible": false },
            { "id": "q2", "question": "When?", "answers": [], "is_impossible": true },
            { "id": "q3", "answers": [] },
        ] },
    ] }] });
    let file = file("squad.json", squad.to_string());
    let mut examples = Examples::new(
        vec![file.path.clone()],
        QuestionFields::default(),
        RowOptions::default(),
        OnError::Skip,
    );
    let questions: Vec<Question> = examples.by_ref().map(|found| found.unwrap().0).collect();
    assert_eq!(questions.iter().map(|question| question.answers.len()).collect::<Vec<_>>(), [1, 0]);
    assert_eq!((questions[1].id.as_str(), questions[1].context.as_str()), ("q2", "Paris."));
    let skipped = examples.skipped();
    assert_eq!((skipped.rows, skipped.reasons["missing-field"]), (1, 1));
    assert!(skipped.first[0].contains("squad.json: id \"q3\": no field \"question\""), "{:?}", skipped.first);
}

#[test]
fn tags_are_as_many_as_words() {
    let fields = TagFields::default();
    let tagged = read(&fields, json!({ "tokens": ["a", "b"], "ner_tags": ["O", "B-PER"] }));
    assert_eq!(tagged.tags, ["O", "B-PER"].map(ClassName::text));
    assert_eq!(read(&fields, json!({ "tokens": ["a"], "ner_tags": [3] })).tags, [ClassName::number(3)]);
    check_fault(
        &fields,
        json!({ "tokens": ["a", "b"], "ner_tags": [1] }),
        "field \"tokens\" has 2 items, \"ner_tags\" has 1; they must be as many",
    );
    check_fault(&fields, json!({ "tokens": [], "ner_tags": [] }), "field \"tokens\" is empty");
}

#[test]
fn positives_and_negatives_are_texts_or_lists() {
    let fields = ContrastFields {
        anchor: "query".into(),
        positive: "pos".into(),
        negatives: vec!["negative_1".into(), "negative_2".into(), "neg".into()],
    };
    let found =
        read(&fields, json!({ "query": "q", "pos": ["a", "b"], "negative_1": "c", "neg": ["d", "e"] }));
    assert_eq!(
        (found.positives, found.negatives),
        (vec!["a".into(), "b".into()], ["c", "d", "e"].map(String::from).into())
    );
    let none = read(&fields, json!({ "query": "q", "pos": "a", "neg": [] }));
    assert_eq!((none.positives, none.negatives), (vec!["a".to_owned()], vec![]));
    check_fault(&fields, json!({ "query": "q", "pos": [] }), "field \"pos\" is empty");
    check_fault(&fields, json!({ "query": "q", "pos": "a", "neg": [" "] }), "field \"neg\" is empty");
}

#[track_caller]
fn check_shapes(row: Value, expected: &[&str]) {
    let shapes: Vec<String> = detect(&only_row(&row)).iter().map(RowShape::to_string).collect();
    assert_eq!(shapes, expected);
}

// The fields of common datasets, the shapes in their documentation.
#[test]
fn common_rows_are_detected() {
    check_shapes(json!({ "id": 1, "title": "t", "text": "a" }), &["text (text = \"text\")"]);
    check_shapes(
        json!({ "text": "a", "label": 1, "label_name": "x" }),
        &[
            "classify (text = \"text\", label = \"label\", label_name = \"label_name\", label_type = \"class\")",
            "text (text = \"text\")",
        ],
    );
    check_shapes(
        json!({ "premise": "a", "hypothesis": "b", "label_name": "neutral" }),
        &[
            "classify (text = \"premise\", pair = \"hypothesis\", label = \"label_name\", label_type = \"class\")",
        ],
    );
    check_shapes(
        json!({ "sentence1": "a", "sentence2": "b", "score": 2.5 }),
        &[
            "classify (text = \"sentence1\", pair = \"sentence2\", label = \"score\", label_type = \"numbers\")",
        ],
    );
    check_shapes(
        json!({ "text": "a", "labels": [2, 7] }),
        &[
            "classify (text = \"text\", label = \"labels\", label_type = \"classes\")",
            "text (text = \"text\")",
        ],
    );
    check_shapes(
        json!({ "messages": [{ "role": "assistant", "content": "a" }] }),
        &["chat (messages = \"messages\", tools = \"tools\")"],
    );
    check_shapes(
        json!({ "system": "s", "conversations": [{ "from": "gpt", "value": "a" }] }),
        &["chat (messages = \"conversations\", system = \"system\", tools = \"tools\")"],
    );
    check_shapes(
        json!({ "instruction": "a", "input": "", "output": "b" }),
        &[
            "instruction (instruction = \"instruction\", input = \"input\", output = \"output\", system = \"system\")",
            "completion (prompt = \"instruction\", completion = \"output\")",
        ],
    );
    check_shapes(
        json!({ "prompt": "a", "completion": "b" }),
        &["completion (prompt = \"prompt\", completion = \"completion\")"],
    );
    check_shapes(
        json!({ "question": "q", "chosen": "a", "rejected": "b" }),
        &["preference (prompt = \"question\", chosen = \"chosen\", rejected = \"rejected\")"],
    );
    check_shapes(
        json!({ "translation": { "en": "a", "es": "b" } }),
        &["seq2seq (source = \"translation.en\", target = \"translation.es\")"],
    );
    check_shapes(
        json!({ "en": "a", "ko": "b", "source": "manual" }),
        &["seq2seq (source = \"en\", target = \"ko\")"],
    );
    check_shapes(json!({ "en": "a", "ko": "b", "de": "c" }), &[]);
    check_shapes(
        json!({ "id": "x", "document": "a", "summary": "b" }),
        &["seq2seq (source = \"document\", target = \"summary\")", "text (text = \"document\")"],
    );
    check_shapes(
        json!({ "id": "x", "question": "q", "context": "c", "answers": { "text": [], "answer_start": [] } }),
        &["question (id = \"id\", question = \"question\", context = \"context\", answers = \"answers\")"],
    );
    check_shapes(
        json!({ "tokens": ["a"], "ner_tags": [0] }),
        &["tags (tokens = \"tokens\", tags = \"ner_tags\")"],
    );
    check_shapes(
        json!({ "query": "q", "positive": "a", "negative_1": "b", "negative_2": "c" }),
        &[
            "contrast (anchor = \"query\", positive = \"positive\", negatives = [\"negative_1\",\"negative_2\"])",
        ],
    );
    check_shapes(json!({ "x": 1 }), &[]);
}

#[test]
fn a_shape_is_a_table_of_a_configuration() {
    let shape: RowShape = serde_json::from_value(json!({ "shape": "classify", "text": "body" })).unwrap();
    assert_eq!(
        shape,
        RowShape::Classify(ClassifyFields { text: "body".into(), ..ClassifyFields::default() })
    );
    let misspelt = serde_json::from_value::<RowShape>(json!({ "shape": "classify", "txt": "body" }));
    assert!(misspelt.unwrap_err().to_string().contains("unknown field `txt`"));
}

#[test]
fn bad_rows_are_errors_or_counted() {
    let good = file("a.jsonl", "{\"text\": \"a\"}\n");
    let bad = file("b.csv", "text,x\n,1\nb,2\nc\n");
    let examples = |on_bad_row| {
        let files = vec![good.path.clone(), bad.path.clone()];
        Examples::new(files, TextFields::default(), RowOptions::default(), on_bad_row)
    };
    let mut skipping = examples(OnError::Skip);
    let found: Vec<_> = skipping.by_ref().map(|found| found.unwrap()).collect();
    assert_eq!(found.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(found[1].1.to_string().ends_with("b.csv:3"));
    let later = skipping
        .refuse(RowError { origin: found[1].1.clone(), fault: RowFault::Empty { field: "x".into() } });
    later.unwrap();
    let counts = [("empty-field".to_owned(), 2), ("number-of-cells".to_owned(), 1)];
    assert_eq!((skipping.skipped().rows, &skipping.skipped().reasons), (3, &BTreeMap::from(counts)));
    assert!(skipping.skipped().first[0].ends_with("b.csv:2: field \"text\" is empty"));
    let bytes: u64 = [&good, &bad].iter().map(|file| fs::metadata(&file.path).unwrap().len()).sum();
    assert_eq!(skipping.bytes_read(), bytes);
    let failed = examples(OnError::Fail).nth(1).unwrap().unwrap_err();
    assert!(failed.to_string().ends_with("b.csv:2: field \"text\" is empty"));
}

#[test]
fn each_row_is_held_out_or_not() {
    let lines = |rows: usize| -> String {
        (0..rows)
            .map(|row| if row % 10 == 3 { "x\n".to_owned() } else { format!("{{\"text\": \"{row}\"}}\n") })
            .collect()
    };
    let read = |rows: usize, part| {
        let file = file("rows.jsonl", lines(rows));
        let files = vec![file.path.clone(), file.path.clone()];
        let examples = Examples::new(files, TextFields::default(), RowOptions::default(), OnError::Skip);
        let mut examples = examples.of_part(part);
        let texts: Vec<String> = examples.by_ref().map(|found| found.unwrap().0).collect();
        (texts, examples.skipped().rows)
    };
    let (held_out, bad) = read(400, Part::HeldOut(0.25));
    let (rest, other_bad) = read(400, Part::Rest(0.25));
    // A bad row is met in one part of each file.
    assert_eq!((held_out.len() + rest.len(), bad + other_bad), (720, 80));
    assert!((140..220).contains(&held_out.len()), "{}", held_out.len());
    assert!(held_out.iter().all(|text| !rest.contains(text)));
    // Each file counts its own rows, and more rows change nothing for those before them.
    let (first, second) = held_out.split_at(held_out.len() / 2);
    assert_eq!(first, second);
    let (longer, _) = read(500, Part::HeldOut(0.25));
    assert_eq!(longer[..first.len()], *first);
    assert_eq!(read(10, Part::All).0.len(), 18);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_make_it_panic(
        content: Vec<u8>,
        name in prop::sample::select(vec!["r.jsonl", "r.json", "r.csv", "r.tsv", "r.jsonl.gz"]),
    ) {
        let options = RowOptions { max_row_bytes: 16, ..RowOptions::default() };
        let file = file(name, content);
        for row in RowReader::open(&file.path, &options).into_iter().flatten() {
            let _ = row.map(|row| detect(&row));
        }
    }

    #[test]
    fn nearly_json_does_not_make_it_panic(content in "[\\[\\]{},:\"\\\\a1 \nNI-]{0,60}") {
        for name in ["r.json", "r.jsonl", "r.csv"] {
            let file = file(name, &content);
            for row in RowReader::open(&file.path, &RowOptions::default()).into_iter().flatten() {
                let _ = row.map(|row| detect(&row));
            }
        }
    }

    #[test]
    fn tables_are_read_as_the_library_for_them_writes_them(
        // At the end of a row a carriage return is part of the line break.
        cells in prop::collection::vec(("[a\"', \r\n;é]{0,6}", "[a\"', \r\n;é]{0,6}", "[a\"', \n;é]{0,6}"), 0..6),
    ) {
        let cells: Vec<Vec<String>> = cells.into_iter().map(|(a, b, c)| vec![a, b, c]).collect();
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["a", "b", "c"]).unwrap();
        cells.iter().for_each(|row| writer.write_record(row).unwrap());
        let file = file("r.csv", writer.into_inner().unwrap());
        let read: Vec<Vec<String>> = open(&file)
            .map(|row| row.unwrap())
            .map(|row| ["a", "b", "c"].map(|name| row.text(name).unwrap().to_owned()).into())
            .collect();
        prop_assert_eq!(read, cells);
    }
}
