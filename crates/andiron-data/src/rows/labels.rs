//! Classes and their ids.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::error::RowFault;

/// A class as a row names it: by a number, a text, or both. At least one is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClassName {
    /// Its number.
    pub number: Option<i64>,
    /// Its text.
    pub text: Option<String>,
}

impl ClassName {
    /// A class with a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { number: None, text: Some(text.into()) }
    }

    /// A class with a number.
    pub fn number(number: i64) -> Self {
        Self { number: Some(number), text: None }
    }
}

impl fmt::Display for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.text, self.number) {
            (Some(text), _) => f.write_str(text),
            (None, number) => write!(f, "{}", number.unwrap_or_default()),
        }
    }
}

/// Collects the classes of a dataset.
///
/// # Example
/// ```
/// use andiron_data::rows::{ClassName, LabelCollector};
/// let mut classes = LabelCollector::default();
/// for name in ["spam", "ham", "spam"] {
///     classes.add(&ClassName::text(name))?;
/// }
/// let vocabulary = classes.vocabulary();
/// assert_eq!(vocabulary.names(), ["ham", "spam"]);
/// assert_eq!(vocabulary.id(&ClassName::text("spam"))?, 1);
/// # Ok::<(), andiron_data::rows::RowFault>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct LabelCollector {
    numbers: BTreeMap<i64, Option<String>>,
    texts: BTreeSet<String>,
}

impl LabelCollector {
    /// Adds a class.
    ///
    /// # Errors
    /// If it has the number of an earlier one and another name.
    pub fn add(&mut self, class: &ClassName) -> Result<(), RowFault> {
        let Some(number) = class.number else {
            self.texts.extend(class.text.clone());
            return Ok(());
        };
        match self.numbers.entry(number) {
            Entry::Vacant(entry) => {
                entry.insert(class.text.clone());
            }
            Entry::Occupied(mut entry) => match (entry.get(), &class.text) {
                (Some(earlier), Some(found)) if earlier != found => {
                    let (earlier, found) = (earlier.clone(), found.clone());
                    return Err(RowFault::LabelNames { number, found, earlier });
                }
                (None, Some(found)) => {
                    entry.insert(Some(found.clone()));
                }
                _ => {}
            },
        }
        Ok(())
    }

    /// The classes with their ids: those with numbers in the order of the numbers, then those with texts in the order of the
    /// texts. Numbers with gaps, or not from 0 on, become ids without gaps from 0 on.
    pub fn vocabulary(self) -> LabelVocabulary {
        let by_number = self.numbers.keys().zip(0..).map(|(&number, id)| (number, id)).collect();
        let numbers =
            self.numbers.into_iter().map(|(number, name)| name.unwrap_or_else(|| number.to_string()));
        LabelVocabulary { by_number, first: First::Number, ..LabelVocabulary::new(numbers.chain(self.texts)) }
    }
}

/// The classes of a dataset or of a model, with ids from 0 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelVocabulary {
    names: Vec<String>,
    by_name: HashMap<String, u32>,
    by_number: HashMap<i64, u32>,
    first: First,
}

/// Which part of a [`ClassName`] is looked up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Number,
    Text,
}

impl LabelVocabulary {
    /// The classes of a model (`id2label` of its configuration), in the order of their ids.
    ///
    /// A row's text is looked up first, without regard to upper case if there is none with it. Its number is an id if the row
    /// has no text, or the model's names are those that `transformers` makes up (`LABEL_0`).
    pub fn of_model(names: impl IntoIterator<Item = String>) -> Self {
        let mut vocabulary = Self::new(names);
        let made_up =
            |(id, name): (usize, &String)| *name == format!("LABEL_{id}") || *name == id.to_string();
        vocabulary.first =
            if vocabulary.names.iter().enumerate().all(made_up) { First::Number } else { First::Text };
        vocabulary.by_number = (0..vocabulary.names.len() as u32).map(|id| (i64::from(id), id)).collect();
        vocabulary
    }

    fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names: Vec<String> = names.into_iter().collect();
        let mut by_name = HashMap::new();
        let lower = names.iter().map(|name| name.to_lowercase());
        for (name, id) in names.iter().cloned().zip(0..).chain(lower.zip(0..)) {
            // The first one counts, and names as they are count before those in lower case.
            by_name.entry(name).or_insert(id);
        }
        Self { names, by_name, by_number: HashMap::new(), first: First::Text }
    }

    /// The names, in the order of their ids.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The id of a class.
    ///
    /// # Errors
    /// [`RowFault::UnknownLabel`] if the vocabulary has no such class.
    pub fn id(&self, class: &ClassName) -> Result<u32, RowFault> {
        let by_number = || self.by_number.get(&class.number?).copied();
        let by_name = || {
            let text = class.text.as_deref()?;
            self.by_name.get(text).or_else(|| self.by_name.get(&text.to_lowercase())).copied()
        };
        let found = match self.first {
            First::Number => by_number().or_else(by_name),
            First::Text => by_name().or_else(|| by_number().filter(|_| class.text.is_none())),
        };
        found.ok_or_else(|| RowFault::UnknownLabel { label: class.to_string(), known: self.names.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(number: i64, text: &str) -> ClassName {
        ClassName { number: Some(number), text: Some(text.into()) }
    }

    fn collected(classes: &[ClassName]) -> LabelVocabulary {
        let mut collector = LabelCollector::default();
        classes.iter().for_each(|class| collector.add(class).unwrap());
        collector.vocabulary()
    }

    #[test]
    fn numbers_keep_their_order_and_lose_their_gaps() {
        let vocabulary = collected(&[10, 2, 1, 2].map(ClassName::number));
        assert_eq!(vocabulary.names(), ["1", "2", "10"]);
        assert_eq!(vocabulary.id(&ClassName::number(10)).unwrap(), 2);
        let error = vocabulary.id(&ClassName::number(3)).unwrap_err().to_string();
        assert_eq!(error, "the label \"3\" is none of \"1\", \"2\", \"10\"");
    }

    #[test]
    fn numbers_may_have_names() {
        let vocabulary = collected(&[both(1, "spam"), ClassName::number(0), both(0, "ham")]);
        assert_eq!(vocabulary.names(), ["ham", "spam"]);
        assert_eq!(vocabulary.id(&ClassName::number(1)).unwrap(), 1);
        assert_eq!(vocabulary.id(&ClassName::text("spam")).unwrap(), 1);
        let mut collector = LabelCollector::default();
        collector.add(&both(1, "spam")).unwrap();
        let error = collector.add(&both(1, "ham")).unwrap_err().to_string();
        assert_eq!(error, "label 1 is named \"ham\" here and \"spam\" before");
    }

    #[test]
    fn a_model_is_asked_for_the_text_first() {
        let names = ["contradiction", "entailment", "neutral"].map(str::to_owned);
        let vocabulary = LabelVocabulary::of_model(names);
        assert_eq!(vocabulary.id(&both(0, "entailment")).unwrap(), 1);
        assert_eq!(vocabulary.id(&ClassName::text("Neutral")).unwrap(), 2);
        assert_eq!(vocabulary.id(&ClassName::number(0)).unwrap(), 0);
        assert!(
            vocabulary.id(&both(0, "unrelated")).is_err() && vocabulary.id(&ClassName::number(3)).is_err()
        );
    }

    #[test]
    fn made_up_names_of_a_model_say_nothing() {
        let vocabulary = LabelVocabulary::of_model(["LABEL_0", "LABEL_1"].map(str::to_owned));
        assert_eq!(vocabulary.id(&both(1, "spam")).unwrap(), 1);
        assert!(vocabulary.id(&ClassName::text("spam")).is_err());
    }

    #[test]
    fn names_that_differ_in_case_are_two() {
        let vocabulary = collected(&["it", "IT", "It"].map(ClassName::text));
        let ids: Vec<u32> =
            ["IT", "It", "it"].map(|name| vocabulary.id(&ClassName::text(name)).unwrap()).into();
        assert_eq!(ids, [0, 1, 2]);
    }

    #[test]
    fn many_known_labels_are_not_all_shown() {
        let vocabulary = collected(&(0..100).map(ClassName::number).collect::<Vec<_>>());
        let error = vocabulary.id(&ClassName::text("x")).unwrap_err().to_string();
        assert!(error.ends_with("\"6\", \"7\" and 92 more"), "{error}");
    }
}
