//! What happens to one document before it becomes tokens: filters, which change it or remove it; one file each.
//!
//! A filter's settings are a struct with the published defaults; [`FilterSettings`] names each of them, as a file of settings does.

mod c4_paragraphs;
mod c4_quality;
mod characters;
mod decontaminate;
mod english;
mod fineweb_quality;
mod gopher_quality;
mod gopher_repetition;
mod hash;
mod html;
mod language;
mod line_endings;
mod line_rules;
mod lines;
mod mojibake;
mod personal_data;
mod symbol_lines;
mod translation_pair;
mod unicode_form;
mod url_blocklist;
mod word_blocklist;
mod words;

use std::path::{Path, PathBuf};

use andiron_data::Document;
use serde::{Deserialize, Serialize};

use c4_quality::C4QualityFilter;
pub use decontaminate::{Decontaminate, RemoveContaminated};
use language::LanguageFilter;
use line_rules::LineRulesFilter;
use personal_data::PersonalDataFilter;
use url_blocklist::UrlBlocklistFilter;
use word_blocklist::WordBlocklistFilter;

pub use c4_paragraphs::C4Paragraphs;
pub use c4_quality::{C4Quality, C4Unit};
pub use fineweb_quality::FineWebQuality;
pub use gopher_quality::GopherQuality;
pub use gopher_repetition::{GopherRepetition, NGramLimit};
pub use html::{HtmlDocuments, HtmlToText};
pub use language::{Detector, Language};
pub use line_endings::LineEndings;
pub use line_rules::LineRules;
pub use mojibake::MojibakeRepair;
pub use personal_data::PersonalData;
pub use symbol_lines::SymbolLines;
pub use translation_pair::{LengthUnit, Script, TranslationPair};
pub use unicode_form::{NormalForm, UnicodeNormalForm};
pub use url_blocklist::UrlBlocklist;
pub use word_blocklist::WordBlocklist;
pub use words::WordSplit;

/// A step that sees one document at a time.
pub trait Filter: Send + Sync {
    /// Changes the document, or says why it goes. A function of the document alone.
    fn apply(&self, document: &mut Document) -> Verdict;
}

/// What becomes of a document.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// It goes on.
    Keep,
    /// It is left out.
    Remove(Removal),
}

/// Why a document is left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Removal {
    /// A short fixed name, by which removed documents are counted, such as `too-few-words`.
    pub reason: &'static str,
    /// The number that the rule looked at, where there is one.
    pub score: Option<f64>,
}

/// The settings of one filter, told apart by `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum FilterSettings {
    /// `\r\n` and a lone `\r` become `\n`.
    UnixLineEndings {},
    /// Documents that are in an evaluation go.
    Decontaminate(Decontaminate),
    /// HTML becomes its text.
    HtmlToText(HtmlToText),
    /// Text that was decoded in the wrong encoding is repaired.
    MojibakeRepair(MojibakeRepair),
    /// The text is brought into a Unicode normal form.
    UnicodeNormalForm(UnicodeNormalForm),
    /// Lines go by their length and what they contain.
    LineRules(LineRules),
    /// Lines of nothing but symbols go.
    SymbolLines(SymbolLines),
    /// Documents in other languages go.
    Language(Language),
    /// Counts of words, lines and symbols.
    GopherQuality(GopherQuality),
    /// Repeated lines, paragraphs and n-grams.
    GopherRepetition(GopherRepetition),
    /// Lines that look like sentences are kept.
    C4Quality(C4Quality),
    /// Documents without long lines go.
    C4Paragraphs(C4Paragraphs),
    /// Lists and boilerplate go.
    #[serde(rename = "fineweb-quality")]
    FineWebQuality(FineWebQuality),
    /// Documents with listed words go.
    WordBlocklist(WordBlocklist),
    /// Documents from listed addresses go.
    UrlBlocklist(UrlBlocklist),
    /// Addresses of mail and of computers, and telephone numbers are replaced.
    PersonalData(PersonalData),
    /// Pairs of translations that cannot belong together go.
    TranslationPair(TranslationPair),
}

impl FilterSettings {
    /// The name of the filter: its `kind`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::UnixLineEndings {} => "unix-line-endings",
            Self::Decontaminate(_) => "decontaminate",
            Self::HtmlToText(_) => "html-to-text",
            Self::MojibakeRepair(_) => "mojibake-repair",
            Self::UnicodeNormalForm(_) => "unicode-normal-form",
            Self::LineRules(_) => "line-rules",
            Self::SymbolLines(_) => "symbol-lines",
            Self::Language(_) => "language",
            Self::GopherQuality(_) => "gopher-quality",
            Self::GopherRepetition(_) => "gopher-repetition",
            Self::C4Quality(_) => "c4-quality",
            Self::C4Paragraphs(_) => "c4-paragraphs",
            Self::FineWebQuality(_) => "fineweb-quality",
            Self::WordBlocklist(_) => "word-blocklist",
            Self::UrlBlocklist(_) => "url-blocklist",
            Self::PersonalData(_) => "personal-data",
            Self::TranslationPair(_) => "translation-pair",
        }
    }

    /// The files that the filter reads: what it does depends on their content too.
    pub fn files(&self) -> Vec<&Path> {
        let lists: &[&[PathBuf]] = match self {
            Self::Decontaminate(settings) => &[&settings.files],
            Self::WordBlocklist(settings) => &[&settings.files],
            Self::UrlBlocklist(settings) => &[&settings.host_files, &settings.url_files],
            _ => &[],
        };
        lists.iter().flat_map(|list| list.iter().map(PathBuf::as_path)).collect()
    }

    /// The filter with these settings.
    ///
    /// # Errors
    /// If a setting is out of its range, or a file that it names cannot be read.
    pub fn build(&self) -> Result<Box<dyn Filter>, FilterError> {
        Ok(match self.clone() {
            Self::UnixLineEndings {} => Box::new(LineEndings::Unix),
            Self::Decontaminate(settings) => Box::new(settings.build()?),
            Self::HtmlToText(settings) => Box::new(settings),
            Self::MojibakeRepair(settings) => Box::new(settings),
            Self::UnicodeNormalForm(settings) => Box::new(settings),
            Self::LineRules(settings) => Box::new(LineRulesFilter::new(settings)?),
            Self::SymbolLines(settings) => Box::new(settings),
            Self::Language(settings) => Box::new(LanguageFilter::new(settings)?),
            Self::GopherQuality(settings) => Box::new(settings),
            Self::GopherRepetition(settings) => {
                settings.validate()?;
                Box::new(settings)
            }
            Self::C4Quality(settings) => Box::new(C4QualityFilter::new(settings)?),
            Self::C4Paragraphs(settings) => Box::new(settings),
            Self::FineWebQuality(settings) => Box::new(settings),
            Self::WordBlocklist(settings) => Box::new(WordBlocklistFilter::new(&settings)?),
            Self::UrlBlocklist(settings) => Box::new(UrlBlocklistFilter::new(settings)?),
            Self::PersonalData(settings) => Box::new(PersonalDataFilter::new(settings)?),
            Self::TranslationPair(settings) => {
                settings.validate()?;
                Box::new(settings)
            }
        })
    }
}

/// Why a filter cannot be made from its settings.
#[derive(Debug, thiserror::Error)]
#[error("filter {filter}: {problem}")]
pub struct FilterError {
    /// The filter's name.
    pub filter: &'static str,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// A list from settings and files of one entry a line; empty lines and lines that begin with `#` are left out.
fn read_list(
    filter: &'static str,
    entries: &[String],
    files: &[PathBuf],
) -> Result<Vec<String>, FilterError> {
    let mut list = entries.to_vec();
    for path in files {
        let text = std::fs::read_to_string(path).map_err(|error| FilterError {
            filter,
            problem: format!("cannot read {}: {error}", path.display()),
        })?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        list.extend(lines.map(str::to_owned));
    }
    list.retain(|entry| !entry.is_empty());
    Ok(list)
}

#[cfg(test)]
mod tests;
