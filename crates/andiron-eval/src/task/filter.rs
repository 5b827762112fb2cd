//! What is done with a model's responses before they are measured.

use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;

use andiron_data::jinja::{is_space, python_regex};
use fancy_regex::Regex;
use serde_json::{Map, Value, json};

use super::error::TaskError;
use super::python;
use crate::metric::text::PUNCTUATION;

/// A chain of filters, with its name in results.
#[derive(Clone, Debug)]
pub struct Filters {
    /// Its name.
    pub name: String,
    steps: Vec<Filter>,
}

impl PartialEq for Filters {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

/// A filter, by its name in lm-evaluation-harness 0.4.13.
#[derive(Clone, Debug)]
enum Filter {
    TakeFirst,
    TakeFirstK(usize),
    MajorityVote,
    Lowercase,
    Uppercase,
    RemoveWhitespace,
    Map { mapping: Map<String, Value>, default: Value },
    Regex { regex: Regex, group: i64, fallback: String },
    MultiChoiceRegex(MultiChoice),
    PartsOfSpeech { fallback: Value },
}

/// The filter `multi_choice_regex`: a letter in parentheses for the choice that a response names.
#[derive(Clone, Debug)]
struct MultiChoice {
    regex: Regex,
    group: i64,
    fallback: String,
    ignore_case: bool,
    ignore_punctuation: bool,
    ignored: Vec<Regex>,
}

/// The names of the filters that there are.
const NAMES: [&str; 10] = [
    "take_first",
    "take_first_k",
    "majority_vote",
    "lowercase",
    "uppercase",
    "remove_whitespace",
    "map",
    "regex",
    "multi_choice_regex",
    "regex_pos",
];

/// The pattern of a filter `regex` that says none.
const DEFAULT_PATTERN: &str = r"#### (\-?[0-9\.\,]+)";

impl Filters {
    /// The chains of a `filter_list`; without one, the first response is taken as it is.
    pub(crate) fn read(path: &Path, list: Option<&Vec<Value>>) -> Result<Vec<Self>, TaskError> {
        let wrong = |key: String, problem: String| TaskError::Key { path: path.to_owned(), key, problem };
        let Some(list) = list else {
            return Ok(vec![Self { name: "none".to_owned(), steps: vec![Filter::TakeFirst] }]);
        };
        let mut chains: Vec<Self> = Vec::new();
        for (number, chain) in list.iter().enumerate() {
            let key = format!("filter_list.{number}");
            let name = chain.get("name").and_then(Value::as_str);
            let name = name.ok_or_else(|| wrong(key.clone(), "has no name".to_owned()))?;
            let steps = chain.get("filter").and_then(Value::as_array);
            let steps = steps.ok_or_else(|| wrong(key.clone(), "has no list `filter`".to_owned()))?;
            if chains.iter().any(|known| known.name == name) {
                return Err(wrong(key, format!("has the name {name:?} of another")));
            }
            let step = |(at, step): (usize, &Value)| {
                Filter::read(step).map_err(|problem| wrong(format!("{key}.filter.{at}"), problem))
            };
            let steps = steps.iter().enumerate().map(step).collect::<Result<_, _>>()?;
            chains.push(Self { name: name.to_owned(), steps });
        }
        Ok(chains)
    }

    /// What is left of a request's responses, for a row of the task.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn apply(&self, responses: &[Value], row: &Map<String, Value>) -> Result<Value, String> {
        let mut left = Value::Array(responses.to_vec());
        for step in &self.steps {
            left = step.apply(left, row)?;
        }
        Ok(left)
    }
}

impl Filter {
    fn read(step: &Value) -> Result<Self, String> {
        let Value::Object(fields) = step else { return Err("is no filter".to_owned()) };
        let name = fields.get("function").and_then(Value::as_str).ok_or("has no function")?;
        let known = |keys: &[&str]| match fields
            .keys()
            .find(|key| *key != "function" && !keys.contains(&key.as_str()))
        {
            Some(key) => Err(format!("gives {name} the unknown option {key}")),
            None => Ok(()),
        };
        match name {
            "take_first" => known(&[]).map(|()| Self::TakeFirst),
            "majority_vote" => known(&[]).map(|()| Self::MajorityVote),
            "lowercase" => known(&[]).map(|()| Self::Lowercase),
            "uppercase" => known(&[]).map(|()| Self::Uppercase),
            "remove_whitespace" => known(&[]).map(|()| Self::RemoveWhitespace),
            "take_first_k" => {
                known(&["k"])?;
                let k = fields.get("k").and_then(Value::as_u64).filter(|&k| k > 0);
                Ok(Self::TakeFirstK(k.ok_or("gives take_first_k no k")? as usize))
            }
            "map" => {
                known(&["mapping_dict", "default_value"])?;
                let mapping =
                    fields.get("mapping_dict").and_then(Value::as_object).cloned().unwrap_or_default();
                Ok(Self::Map {
                    mapping,
                    default: fields.get("default_value").cloned().unwrap_or(Value::Null),
                })
            }
            "regex" => {
                known(&PATTERN_OPTIONS)?;
                let (regex, group, fallback) = pattern(fields)?;
                Ok(Self::Regex { regex, group, fallback })
            }
            "multi_choice_regex" => {
                let more = ["ignore_case", "ignore_punctuation", "regexes_to_ignore"];
                known(&[&PATTERN_OPTIONS[..], &more].concat())?;
                let (regex, group, fallback) = pattern(fields)?;
                let is_set = |key: &str| match fields.get(key) {
                    None => Ok(false),
                    Some(value) => {
                        value.as_bool().ok_or_else(|| format!("has a {key} that is neither true nor false"))
                    }
                };
                let ignored = match fields.get("regexes_to_ignore") {
                    None | Some(Value::Null) => Vec::new(),
                    Some(Value::Array(all)) => {
                        let one = |value: &Value| {
                            python_regex(value.as_str().ok_or("has a regexes_to_ignore that is no text")?)
                        };
                        all.iter().map(one).collect::<Result<_, _>>()?
                    }
                    Some(_) => return Err("has regexes_to_ignore that are no list".to_owned()),
                };
                Ok(Self::MultiChoiceRegex(MultiChoice {
                    regex,
                    group,
                    fallback,
                    ignore_case: is_set("ignore_case")?,
                    ignore_punctuation: is_set("ignore_punctuation")?,
                    ignored,
                }))
            }
            "regex_pos" => {
                // The harness compiles the pattern and reads neither it nor the group.
                known(&PATTERN_OPTIONS)?;
                pattern(fields)?;
                let fallback = fields.get("fallback").filter(|value| !value.is_null()).cloned();
                Ok(Self::PartsOfSpeech { fallback: fallback.unwrap_or_else(|| json!(["invalid"])) })
            }
            "custom" => {
                Err("is custom, a Python function: use the filters regex, map, lowercase, uppercase, \
                             remove_whitespace or majority_vote"
                    .to_owned())
            }
            other => Err(format!("is {other:?}; there are {}", NAMES.join(", "))),
        }
    }

    fn apply(&self, left: Value, row: &Map<String, Value>) -> Result<Value, String> {
        let items = match left {
            Value::Array(items) => items,
            _ => return Err("a filter stands behind take_first, which leaves no list".to_owned()),
        };
        let each = |change: &dyn Fn(&str) -> Result<Value, String>| -> Result<Value, String> {
            let one = |item: &Value| change(item.as_str().ok_or("a filter of texts is given none")?);
            items.iter().map(one).collect::<Result<Vec<_>, _>>().map(Value::Array)
        };
        match self {
            Self::TakeFirst => items.into_iter().next().ok_or_else(|| "there is no response".to_owned()),
            Self::TakeFirstK(k) if *k > items.len() => {
                Err(format!("take_first_k takes {k} of {} responses: raise repeats", items.len()))
            }
            Self::TakeFirstK(k) => Ok(Value::Array(items[..*k].to_vec())),
            Self::MajorityVote => {
                let times = |item: &Value| items.iter().filter(|other| *other == item).count();
                let mut best = 0;
                for at in 1..items.len() {
                    if times(&items[at]) > times(&items[best]) {
                        best = at;
                    }
                }
                let vote = items.get(best).cloned().ok_or_else(|| "there is no response".to_owned())?;
                Ok(Value::Array(vec![vote]))
            }
            Self::Lowercase => each(&|text| Ok(text.to_lowercase().into())),
            Self::Uppercase => each(&|text| Ok(text.to_uppercase().into())),
            Self::RemoveWhitespace => each(&|text| Ok(text.trim_matches(is_space).into())),
            Self::Map { mapping, default } => {
                each(&|text| Ok(mapping.get(text).cloned().unwrap_or_else(|| default.clone())))
            }
            Self::Regex { regex, group, fallback } => {
                let one = |item: &Value| -> Result<Value, String> {
                    let found = find(regex, *group, item.as_str().unwrap_or_default())?;
                    Ok(found.unwrap_or_else(|| fallback.clone()).into())
                };
                items.iter().map(one).collect::<Result<Vec<_>, _>>().map(Value::Array)
            }
            Self::MultiChoiceRegex(filter) => {
                let choices = Choices::of(filter, row)?;
                each(&|text| Ok(choices.named_in(text)?.into()))
            }
            Self::PartsOfSpeech { fallback } => {
                let one = |item: &Value| {
                    let found = parts_of_speech(item)?;
                    Ok(if found.is_empty() { fallback.clone() } else { Value::Array(found) })
                };
                items.iter().map(one).collect::<Result<Vec<_>, String>>().map(Value::Array)
            }
        }
    }
}

/// The options that filters with a pattern have.
const PATTERN_OPTIONS: [&str; 3] = ["regex_pattern", "group_select", "fallback"];

/// The values of [`PATTERN_OPTIONS`].
fn pattern(fields: &Map<String, Value>) -> Result<(Regex, i64, String), String> {
    let pattern = fields.get("regex_pattern").map_or(Some(DEFAULT_PATTERN), Value::as_str);
    let group = fields.get("group_select").map_or(Some(0), Value::as_i64);
    let fallback = fields.get("fallback").map_or_else(|| "[invalid]".to_owned(), python::text);
    Ok((
        python_regex(pattern.ok_or("has a regex_pattern that is no text")?)?,
        group.ok_or("has a group_select that is no whole number")?,
        fallback,
    ))
}

/// The choices of a row, as [`MultiChoice`] looks for them.
struct Choices<'a> {
    filter: &'a MultiChoice,
    /// The texts of the choices, and what each becomes.
    by_text: (Regex, HashMap<String, String>),
    /// A letter behind a colon.
    by_letter: Regex,
}

impl<'a> Choices<'a> {
    fn of(filter: &'a MultiChoice, row: &Map<String, Value>) -> Result<Self, String> {
        let choices = row.get("choices").and_then(Value::as_array);
        let choices = choices.ok_or("multi_choice_regex needs rows with a list `choices`")?;
        if choices.len() > 26 {
            return Err(format!(
                "multi_choice_regex names choices by letters, of which there are not {}",
                choices.len()
            ));
        }
        let mut texts = Vec::new();
        let mut names = HashMap::new();
        let letters: Vec<char> = ('A'..='Z').take(choices.len()).collect();
        for (choice, letter) in choices.iter().zip(&letters) {
            let text = choice.as_str().ok_or("multi_choice_regex needs choices that are texts")?;
            let text = filter.without_ignored(text.trim_matches(is_space));
            names.insert(text.clone(), format!("({letter})"));
            texts.push(text);
        }
        // A choice must not hide a longer one that begins with it.
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        let escaped: Vec<_> = texts.iter().map(|text| fancy_regex::escape(text)).collect();
        let letters: Vec<String> = letters.into_iter().map(String::from).collect();
        let by_letter = python_regex(&format!(r":[\s]*({})", letters.join("|")))?;
        Ok(Self { filter, by_text: (python_regex(&escaped.join("|"))?, names), by_letter })
    }

    /// The choice that a response names.
    fn named_in(&self, response: &str) -> Result<String, String> {
        let MultiChoice { regex, group, fallback, .. } = self.filter;
        let found = |regex: &Regex, text: &str| -> Result<Option<String>, String> {
            Ok(find(regex, *group, text)?.filter(|found| !found.is_empty()))
        };
        if let Some(found) = found(regex, response)? {
            return Ok(found);
        }
        let (by_text, names) = &self.by_text;
        if let Some(found) = found(by_text, &self.filter.without_ignored(response))? {
            return Ok(names.get(&found).cloned().unwrap_or(found));
        }
        Ok(found(&self.by_letter, response)?.map_or_else(|| fallback.clone(), |letter| format!("({letter})")))
    }
}

impl MultiChoice {
    /// A text without what is ignored.
    fn without_ignored(&self, text: &str) -> String {
        let mut text = self
            .ignored
            .iter()
            .fold(text.to_owned(), |text, regex| regex.replace_all(&text, "").into_owned());
        if self.ignore_case {
            text = text.to_lowercase();
        }
        if self.ignore_punctuation {
            text.retain(|c| !PUNCTUATION.contains(c));
        }
        text
    }
}

/// The parts of speech in a list of Python's, `[('the', 'DET'), …]`, as text or as pairs.
fn parts_of_speech(response: &Value) -> Result<Vec<Value>, String> {
    static PAIR: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\('([^']*)', '([^']*)'\)").expect("the pattern is written in this file")
    });
    match response {
        Value::String(text) => {
            let part = |found: fancy_regex::Result<fancy_regex::Captures<'_>>| {
                let found = found.map_err(|error| error.to_string())?;
                Ok(found.get(2).map_or("", |part| part.as_str()).into())
            };
            PAIR.captures_iter(text).map(part).collect()
        }
        Value::Array(pairs) => {
            let part = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
                Some([_, part]) => Ok(part.clone()),
                _ => Err("regex_pos reads pairs".to_owned()),
            };
            pairs.iter().map(part).collect()
        }
        _ => Err("regex_pos is given neither a text nor a list of pairs".to_owned()),
    }
}

/// One of Python's `findall(text)`, counted from the end if `at` is negative; of several groups the first that is not empty.
///
/// The outer option is `None` where nothing matches.
fn find(regex: &Regex, at: i64, text: &str) -> Result<Option<String>, String> {
    let mut all: Vec<Option<String>> = Vec::new();
    for found in regex.captures_iter(text) {
        let found = found.map_err(|error| format!("the pattern {:?} fails: {error}", regex.as_str()))?;
        let group = |number: usize| found.get(number).map_or("", |group| group.as_str());
        all.push(match found.len() {
            1 => Some(group(0).to_owned()),
            2 => Some(group(1).to_owned()),
            groups => (1..groups).map(group).find(|text| !text.is_empty()).map(str::to_owned),
        });
    }
    if all.is_empty() {
        return Ok(None);
    }
    let index = if at < 0 { at + all.len() as i64 } else { at };
    let chosen = usize::try_from(index).ok().and_then(|index| all.get(index));
    let chosen = chosen
        .ok_or_else(|| format!("group_select {at} is not among the {} matches of {text:?}", all.len()))?;
    Ok(chosen.as_ref().map(|text| text.trim_matches(is_space).to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn apply(steps: Value, responses: Value) -> Result<Value, String> {
        let list = vec![json!({"name": "x", "filter": steps})];
        let chains = Filters::read(Path::new("t.yaml"), Some(&list)).map_err(|error| error.to_string())?;
        let row = json!({"choices": ["Guilty", "Guilty of Romance", "A dog!"]});
        chains[0].apply(responses.as_array().unwrap(), row.as_object().unwrap())
    }

    /// lm-evaluation-harness 0.4.13.
    #[test]
    fn choices_and_parts_of_speech_are_found_as_by_the_harness() {
        let responses = json!([
            "The answer is (B).",
            "it is Guilty of Romance",
            "answer: C",
            "a DOG",
            "guilty",
            "none",
            " : A",
            "#### 12"
        ]);
        let check = |options: Value, expected: [&str; 8]| {
            let mut step = json!({"function": "multi_choice_regex"});
            step.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
            assert_eq!(apply(json!([step]), responses.clone()), Ok(json!(expected)), "{step}");
        };
        let no = "[invalid]";
        check(json!({}), [no, "(B)", "(C)", no, no, no, "(A)", "12"]);
        let letter = r"(\([A-Z]\))";
        check(json!({"regex_pattern": letter}), ["(B)", "(B)", "(C)", no, no, no, "(A)", no]);
        let lower = ["(B)", "(B)", "(C)", no, "(A)", no, "(A)", no];
        check(json!({"regex_pattern": letter, "ignore_case": true}), lower);
        let ignored = json!({
            "regex_pattern": format!("{letter}|(x)"), "ignore_case": true, "ignore_punctuation": true,
            "regexes_to_ignore": ["The ", "a "],
        });
        check(ignored, lower);
        check(json!({"regex_pattern": "([A-Z])", "group_select": -1}), ["B", "R", "C", "G", no, no, "A", no]);

        let tags = json!(["[('The', 'DET'), ('cat','N'), ('s', 'V')]", "none", [["a", "B"]]]);
        let of = |step: Value| apply(json!([step]), tags.clone()).unwrap();
        assert_eq!(of(json!({"function": "regex_pos"})), json!([["DET", "V"], ["invalid"], ["B"]]));
        assert_eq!(
            of(json!({"function": "regex_pos", "fallback": ["?"]})),
            json!([["DET", "V"], ["?"], ["B"]])
        );
        let unknown = apply(json!([{"function": "multi_choice_regex", "ignore": true}]), json!(["a"]));
        assert!(unknown.unwrap_err().contains("option ignore"));
    }

    /// lm-evaluation-harness 0.4.13.
    #[test]
    fn responses_are_filtered_as_by_the_harness() {
        let regex = |pattern: &str, group: i64| json!({"function": "regex", "regex_pattern": pattern, "group_select": group});
        let first = json!({"function": "take_first"});
        for (steps, responses, expected) in [
            (json!([first]), json!(["a", "b"]), json!("a")),
            (json!([regex("([0-9]+)", 0), first]), json!(["x 12 y 7"]), json!("12")),
            (json!([regex("([0-9]+)", -1), first]), json!(["x 12 y 7"]), json!("7")),
            (json!([regex("(a)|(b)", 0), first]), json!(["xb"]), json!("b")),
            (json!([regex(" [a-z]+ ", 0), first]), json!(["1 ab 2"]), json!("ab")),
            (json!([regex("(x)", 0), first]), json!(["abc"]), json!("[invalid]")),
            (json!([{"function": "regex"}, first]), json!(["so #### 1,234."]), json!("1,234.")),
            (json!([{"function": "majority_vote"}, first]), json!(["b", "a", "a"]), json!("a")),
            (json!([{"function": "majority_vote"}]), json!(["b", "a"]), json!(["b"])),
            (json!([{"function": "take_first_k", "k": 2}]), json!(["b", "a", "c"]), json!(["b", "a"])),
            (
                json!([{"function": "lowercase"}, {"function": "remove_whitespace"}, first]),
                json!([" A\n"]),
                json!("a"),
            ),
            (
                json!([{"function": "map", "mapping_dict": {"A": 0}, "default_value": -1}, first]),
                json!(["A"]),
                json!(0),
            ),
        ] {
            assert_eq!(apply(steps.clone(), responses), Ok(expected), "{steps}");
        }
        assert!(
            apply(json!([regex("([0-9]+)", 3), first]), json!(["1"])).unwrap_err().contains("group_select 3")
        );
        assert!(
            apply(json!([first, {"function": "lowercase"}]), json!(["A"]))
                .unwrap_err()
                .contains("take_first")
        );
        assert!(
            apply(json!([{"function": "take_first", "k": 1}]), json!(["A"]))
                .unwrap_err()
                .contains("option k")
        );
    }
}
