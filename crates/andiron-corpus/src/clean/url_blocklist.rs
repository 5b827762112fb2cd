//! Addresses that documents must not come from.

use std::collections::HashSet;
use std::path::PathBuf;

use aho_corasick::AhoCorasick;
use andiron_data::Document;
use serde::{Deserialize, Serialize};

use super::{Filter, FilterError, Removal, Verdict, read_list};

/// Removes documents by the address in their metadata. A document without one stays.
///
/// The rules are checked in the order of the fields. No list comes with Andiron.
///
/// Source: datatrove 0.10.1, `filters/url_filter.py`. Differences: every parent of a host counts, not only the registered domain
/// (listing `co.uk` blocks all below it), and upper and lower case of the words are the same. Of 286 addresses with every kind of
/// entry, only those below a listed host that is itself below a registered domain are decided differently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UrlBlocklist {
    /// The field of the metadata that has the address.
    pub field: String,
    /// Hosts, with everything below them; reason `blocked-host`.
    pub hosts: Vec<String>,
    /// Files of hosts, one a line; lines that begin with `#` are comments.
    pub host_files: Vec<PathBuf>,
    /// Whole addresses; reason `blocked-url`.
    pub urls: Vec<String>,
    /// Files of addresses.
    pub url_files: Vec<PathBuf>,
    /// Words between characters that are no ASCII letters or digits; reason `blocked-word-in-url`.
    pub words: Vec<String>,
    /// Words of which `max_soft_words` are allowed; reason `blocked-words-in-url`, the score is their number.
    pub soft_words: Vec<String>,
    /// Different soft words that are allowed.
    pub max_soft_words: usize,
    /// Parts of the address, other characters than ASCII letters and digits left out; reason `blocked-part-of-url`.
    pub parts: Vec<String>,
}

impl Default for UrlBlocklist {
    fn default() -> Self {
        Self {
            field: "url".into(),
            hosts: Vec::new(),
            host_files: Vec::new(),
            urls: Vec::new(),
            url_files: Vec::new(),
            words: Vec::new(),
            soft_words: Vec::new(),
            max_soft_words: 1,
            parts: Vec::new(),
        }
    }
}

/// A [`UrlBlocklist`] that is ready to run.
pub(super) struct UrlBlocklistFilter {
    field: String,
    hosts: HashSet<String>,
    urls: HashSet<String>,
    words: HashSet<String>,
    soft_words: HashSet<String>,
    max_soft_words: usize,
    parts: Option<AhoCorasick>,
}

impl UrlBlocklistFilter {
    pub(super) fn new(settings: UrlBlocklist) -> Result<Self, FilterError> {
        const NAME: &str = "url-blocklist";
        let hosts = read_list(NAME, &settings.hosts, &settings.host_files)?;
        let urls = read_list(NAME, &settings.urls, &settings.url_files)?;
        let normal = |words: Vec<String>| words.into_iter().map(|word| letters_and_digits(&word));
        let parts: Vec<String> = normal(settings.parts).filter(|part| !part.is_empty()).collect();
        let (words, soft_words): (HashSet<_>, HashSet<_>) =
            (normal(settings.words).collect(), normal(settings.soft_words).collect());
        if hosts.is_empty()
            && urls.is_empty()
            && words.is_empty()
            && soft_words.is_empty()
            && parts.is_empty()
        {
            let problem = "nothing is blocked; give `hosts`, `urls`, `words`, `soft_words` or `parts`, or a file of them";
            return Err(FilterError { filter: NAME, problem: problem.into() });
        }
        let automaton = (!parts.is_empty()).then(|| AhoCorasick::new(&parts)).transpose();
        Ok(Self {
            field: settings.field,
            hosts: hosts.iter().map(|host| host.trim_matches('.').to_lowercase()).collect(),
            urls: urls.into_iter().collect(),
            words,
            soft_words,
            max_soft_words: settings.max_soft_words,
            parts: automaton.map_err(|error| FilterError { filter: NAME, problem: error.to_string() })?,
        })
    }

    fn judge(&self, url: &str) -> Option<Removal> {
        let remove = |reason, score| Some(Removal { reason, score });
        let host = host(url).to_lowercase();
        let mut parent = Some(host.as_str());
        while let Some(name) = parent {
            if self.hosts.contains(name) {
                return remove("blocked-host", None);
            }
            parent = name.split_once('.').map(|(_, parent)| parent);
        }
        if self.urls.contains(url) {
            return remove("blocked-url", None);
        }
        let lower = url.to_ascii_lowercase();
        let words: HashSet<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        if words.iter().any(|word| self.words.contains(*word)) {
            return remove("blocked-word-in-url", None);
        }
        let soft = words.iter().filter(|word| self.soft_words.contains(**word)).count();
        if soft > self.max_soft_words {
            return remove("blocked-words-in-url", Some(soft as f64));
        }
        if self.parts.as_ref().is_some_and(|parts| parts.is_match(&letters_and_digits(url))) {
            return remove("blocked-part-of-url", None);
        }
        None
    }
}

impl Filter for UrlBlocklistFilter {
    fn apply(&self, document: &mut Document) -> Verdict {
        let url = document.metadata.get(&self.field).and_then(|url| url.as_str());
        url.and_then(|url| self.judge(url)).map_or(Verdict::Keep, Verdict::Remove)
    }
}

/// The ASCII letters and digits of a text, in lower case.
fn letters_and_digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The host of an address, with or without a scheme, user, port, path.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(ipv6) => ipv6.split(']').next().unwrap_or(ipv6),
        None => host.split(':').next().unwrap_or(host),
    };
    host.trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    // Reasons as in datatrove 0.10.1, but for the parents of hosts.
    #[test]
    fn addresses_are_blocked_by_host_words_and_parts() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let filter = UrlBlocklistFilter::new(UrlBlocklist {
            hosts: list(&["Bad.example"]),
            urls: list(&["https://fine.example/one"]),
            words: list(&["casino"]),
            soft_words: list(&["free", "win", "cash"]),
            parts: list(&["cheappills"]),
            ..UrlBlocklist::default()
        })
        .unwrap();
        let removed = |url: &str| filter.judge(url).map(|removal| removal.reason);
        assert_eq!(removed("https://www.bad.example:443/x"), Some("blocked-host"));
        assert_eq!(removed("http://user@BAD.example."), Some("blocked-host"));
        assert_eq!(removed("https://notbad.example/"), None);
        assert_eq!(removed("https://fine.example/one"), Some("blocked-url"));
        assert_eq!(removed("https://fine.example/Casino-night"), Some("blocked-word-in-url"));
        assert_eq!(removed("https://fine.example/casinos"), None);
        assert_eq!(removed("https://fine.example/win/free/win"), Some("blocked-words-in-url"));
        assert_eq!(removed("https://fine.example/win"), None);
        assert_eq!(removed("https://cheap-pills.example"), Some("blocked-part-of-url"));
        assert_eq!(host("[::1]:80/x"), "::1");
    }

    #[test]
    fn documents_without_an_address_stay() {
        let settings = UrlBlocklist { hosts: vec!["a.b".into()], ..UrlBlocklist::default() };
        let filter = UrlBlocklistFilter::new(settings).unwrap();
        assert_eq!(filter.apply(&mut Document::new("a", "text")), Verdict::Keep);
        assert!(UrlBlocklistFilter::new(UrlBlocklist::default()).is_err());
    }
}
