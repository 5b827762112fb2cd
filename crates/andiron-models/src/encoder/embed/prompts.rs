//! Prompts of an embedding model.

use std::collections::BTreeMap;

/// Prefixes of texts, such as `query: `.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompts {
    /// Prompts by name.
    pub by_name: BTreeMap<String, String>,
    /// Name of the default prompt.
    pub default: Option<String>,
}

impl Prompts {
    /// The default prompt; empty if there is none.
    pub fn usual(&self) -> &str {
        self.default.as_deref().and_then(|name| self.named(name)).unwrap_or_default()
    }

    /// The prompt called `name`.
    pub fn named(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(String::as_str)
    }

    /// The prompt for queries: that called `query`, else the default.
    pub fn query(&self) -> &str {
        self.named("query").unwrap_or_else(|| self.usual())
    }

    /// The prompt for documents: the first non-empty one of `document`, `passage` and `corpus`, else the default.
    ///
    /// sentence-transformers 6.2 always takes `document`, which is empty in models that call it `passage`.
    pub fn document(&self) -> &str {
        let names = ["document", "passage", "corpus"];
        let given = || names.iter().filter_map(|name| self.named(name));
        let found = given().find(|prompt| !prompt.is_empty()).or_else(|| given().next());
        found.unwrap_or_else(|| self.usual())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_has_the_first_prompt_that_says_something() {
        let prompts = |pairs: &[(&str, &str)], default: Option<&str>| Prompts {
            by_name: pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
            default: default.map(str::to_owned),
        };
        let e5 = prompts(&[("query", "query: "), ("passage", "passage: "), ("document", "")], None);
        assert_eq!((e5.usual(), e5.query(), e5.document()), ("", "query: ", "passage: "));
        let one = prompts(&[("s", "say: ")], Some("s"));
        assert_eq!((one.usual(), one.query(), one.document()), ("say: ", "say: ", "say: "));
        let silent = prompts(&[("query", ""), ("document", ""), ("s", "say: ")], Some("s"));
        assert_eq!((silent.usual(), silent.query(), silent.document()), ("say: ", "", ""));
        assert_eq!(Prompts::default().usual(), "");
    }
}
