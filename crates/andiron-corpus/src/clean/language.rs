//! Which language a text is in.

use andiron_data::Document;
use serde::{Deserialize, Serialize};
use whatlang::Lang;

use super::{Filter, FilterError, Removal, Verdict};

/// Names the language of a document, and removes it if that is another one or uncertain.
///
/// The metadata get `language`, an ISO 639-1 code (639-3 for `aka`, of which there is none in use), and `language_score`, 0–1.
/// A document without a letter gets none and goes as `no-language` unless everything is kept.
///
/// The detector is whatlang 0.18: 70 languages, by trigrams. Its score says how far the best language is ahead of the second,
/// while fastText's, which datatrove uses, is a probability: **datatrove's threshold of 0.65 does not carry over**. The default
/// was chosen on pieces of English novels, Spanish verses and Korean articles, 200 of each length: the fraction that is found as
/// its language with at least this score, and the fraction found as another one:
///
/// | characters | score ≥ 0.1 | score ≥ 0.2 | score ≥ 0.5 | fastText (lid.176.ftz) > 0.65 |
/// |--:|--|--|--|--|
/// | 50, English | 0.92, 0.04 | 0.90, 0.03 | 0.71, 0.01 | 0.95, 0.01 |
/// | 50, Spanish | 0.85, 0.05 | 0.77, 0.04 | 0.57, 0.01 | 0.84, 0.01 |
/// | 100, English | 0.99, 0.01 | 0.99, 0.00 | 0.97, 0.00 | 1.00, 0.00 |
/// | 100, Spanish | 0.95, 0.03 | 0.94, 0.02 | 0.88, 0.02 | 0.97, 0.01 |
/// | 200 and more | 1.00, 0.00 | 0.99, 0.00 | 0.98, 0.00 | 0.99, 0.00 |
/// | 50 and more, Korean | 0.99, 0.01 | 0.99, 0.01 | 0.99, 0.01 | 1.00, 0.00 |
///
/// Source code has no language; of pieces of 2,000 characters, 0.95 are found as English (fastText: 0.41).
///
/// Source: what is done with the language is that of datatrove 0.10.1, `filters/language_filter.py`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Language {
    /// The languages to keep, as ISO 639-1 or 639-3 codes; none: all. Reason `other-language`.
    pub languages: Vec<String>,
    /// The score, at least, 0–1; reason `uncertain-language`.
    pub min_score: f64,
    /// Whether documents only get their metadata, and none is removed.
    pub label_only: bool,
    /// The program that decides.
    pub detector: Detector,
    /// Bytes of the text that are looked at, at most: half of them from its beginning, half from its middle. 0: all.
    pub max_bytes: usize,
}

/// A program that detects languages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Detector {
    /// whatlang: 70 languages, fast; weak on texts below a hundred characters.
    #[default]
    Whatlang,
    /// lingua, for English, French, German, Spanish, Chinese, Japanese and Korean: better on short texts, slower, with large
    /// tables. Its score is the probability among these languages. Needs the cargo feature `lingua`.
    Lingua,
}

impl Default for Language {
    fn default() -> Self {
        Self {
            languages: Vec::new(),
            min_score: 0.2,
            label_only: false,
            detector: Detector::Whatlang,
            max_bytes: 4096,
        }
    }
}

/// ISO 639-3 and 639-1 codes of what whatlang knows.
const CODES: &str = "epo eo eng en rus ru cmn zh spa es por pt ita it ben bn fra fr deu de ukr uk kat ka ara ar hin hi jpn ja \
    heb he yid yi pol pl amh am jav jv kor ko nob nb dan da swe sv fin fi tur tr nld nl hun hu ces cs ell el bul bg bel be \
    mar mr kan kn ron ro slv sl hrv hr srp sr mkd mk lit lt lav lv est et tam ta vie vi urd ur tha th guj gu uzb uz pan pa \
    aze az ind id tel te pes fa mal ml ori or mya my nep ne sin si khm km tuk tk aka ak zul zu sna sn afr af lat la slk sk \
    cat ca tgl tl hye hy cym cy";

/// The shorter code of a language.
fn short_code(lang: Lang) -> &'static str {
    let mut codes = CODES.split_ascii_whitespace();
    while let (Some(long), Some(short)) = (codes.next(), codes.next()) {
        if long == lang.code() {
            return short;
        }
    }
    lang.code()
}

/// The shorter of both codes of a language, if it is known.
fn known_code(code: &str) -> Option<&'static str> {
    let mut codes = CODES.split_ascii_whitespace();
    while let (Some(long), Some(short)) = (codes.next(), codes.next()) {
        if code == long || code == short {
            return Some(short);
        }
    }
    None
}

/// A [`Language`] that is ready to run.
pub(super) struct LanguageFilter {
    settings: Language,
    languages: Vec<&'static str>,
    #[cfg(feature = "lingua")]
    lingua: Option<lingua::LanguageDetector>,
}

impl LanguageFilter {
    pub(super) fn new(settings: Language) -> Result<Self, FilterError> {
        let error = |problem| FilterError { filter: "language", problem };
        let mut languages = Vec::new();
        for code in &settings.languages {
            let known = known_code(code);
            languages.push(known.ok_or_else(|| {
                error(format!("language `{code}` is unknown; use an ISO 639 code such as `en`, `ko`, `zh`"))
            })?);
        }
        if !(0.0..=1.0).contains(&settings.min_score) {
            return Err(error(format!("min_score is {}; it must be 0 to 1", settings.min_score)));
        }
        #[cfg(not(feature = "lingua"))]
        if settings.detector == Detector::Lingua {
            return Err(error(
                "this build is without lingua; build with the cargo feature `lingua`, or use `detector = \"whatlang\"`".into(),
            ));
        }
        Ok(Self {
            #[cfg(feature = "lingua")]
            lingua: (settings.detector == Detector::Lingua)
                .then(|| lingua::LanguageDetectorBuilder::from_all_languages().build()),
            settings,
            languages,
        })
    }

    /// The language and its score.
    fn detect(&self, text: &str) -> Option<(&'static str, f64)> {
        #[cfg(feature = "lingua")]
        if let Some(lingua) = &self.lingua {
            let best = lingua.compute_language_confidence_values(text).into_iter().next()?;
            let code = best.0.iso_code_639_1().to_string();
            return (best.1 > 0.0).then(|| known_code(&code).map(|code| (code, best.1)))?;
        }
        let info = whatlang::detect(text)?;
        Some((short_code(info.lang()), info.confidence()))
    }
}

impl Filter for LanguageFilter {
    fn apply(&self, document: &mut Document) -> Verdict {
        let sample = sample(&document.text, self.settings.max_bytes);
        let found = self.detect(&sample);
        if let Some((language, score)) = found {
            document.metadata.insert("language".into(), language.into());
            document.metadata.insert("language_score".into(), score.into());
        }
        if self.settings.label_only {
            return Verdict::Keep;
        }
        let remove = |reason, score| Verdict::Remove(Removal { reason, score });
        match found {
            None if self.languages.is_empty() && self.settings.min_score == 0.0 => Verdict::Keep,
            None => remove("no-language", None),
            Some((language, score)) if !self.languages.is_empty() && !self.languages.contains(&language) => {
                remove("other-language", Some(score))
            }
            Some((_, score)) if score < self.settings.min_score => remove("uncertain-language", Some(score)),
            Some(_) => Verdict::Keep,
        }
    }
}

/// The beginning and the middle of a text, cut between characters.
fn sample(text: &str, max_bytes: usize) -> std::borrow::Cow<'_, str> {
    if max_bytes == 0 || text.len() <= max_bytes {
        return text.into();
    }
    let half = max_bytes / 2;
    let part = |from: usize| {
        &text[text.ceil_char_boundary(from)..text.floor_char_boundary((from + half).min(text.len()))]
    };
    format!("{} {}", part(0), part((text.len() / 2).max(half))).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(settings: Language, text: &str) -> (Option<&'static str>, Document) {
        let mut document = Document::new("a", text);
        let filter = LanguageFilter::new(settings).unwrap();
        match filter.apply(&mut document) {
            Verdict::Keep => (None, document),
            Verdict::Remove(removal) => (Some(removal.reason), document),
        }
    }

    const ENGLISH: &str =
        "It was the best of times, it was the worst of times, it was the age of wisdom, and of foolishness.";
    const SPANISH: &str = "En un lugar de la Mancha, de cuyo nombre no quiero acordarme, no ha mucho tiempo que vivía un hidalgo.";
    const KOREAN: &str = "모든 국민은 인간으로서의 존엄과 가치를 가지며, 행복을 추구할 권리를 가진다.";

    #[test]
    fn a_document_gets_its_language() {
        for (text, language) in [(ENGLISH, "en"), (SPANISH, "es"), (KOREAN, "ko")] {
            let (removed, document) = verdict(Language::default(), text);
            assert_eq!(removed, None, "{text}");
            assert_eq!(document.metadata["language"], language);
            assert!(document.metadata["language_score"].as_f64().unwrap() >= 0.2);
        }
    }

    #[test]
    fn other_and_uncertain_languages_go() {
        let english = || Language { languages: vec!["eng".into()], ..Language::default() };
        assert_eq!(verdict(english(), ENGLISH).0, None);
        assert_eq!(verdict(english(), KOREAN).0, Some("other-language"));
        assert_eq!(verdict(english(), "12345 !!!").0, Some("no-language"));
        assert!(verdict(Language { min_score: 1.0, ..english() }, "A short day.").0.is_some());
        assert_eq!(verdict(Language { label_only: true, ..english() }, KOREAN).0, None);
    }

    #[test]
    fn unknown_languages_and_scores_are_errors() {
        let unknown = Language { languages: vec!["klingon".into()], ..Language::default() };
        let message = LanguageFilter::new(unknown).err().unwrap().to_string();
        assert!(message.contains("klingon") && message.contains("ISO 639"), "{message}");
        assert!(LanguageFilter::new(Language { min_score: 65.0, ..Language::default() }).is_err());
    }

    #[test]
    fn long_texts_are_sampled_between_characters() {
        let text = "한국어".repeat(1000);
        let sample = sample(&text, 100);
        assert!(sample.len() <= 101 && sample.len() > 90, "{}", sample.len());
        assert_eq!(super::sample("ab", 2), "ab");
    }

    #[test]
    #[cfg(not(feature = "lingua"))]
    fn lingua_is_an_error_without_its_feature() {
        let message = LanguageFilter::new(Language { detector: Detector::Lingua, ..Language::default() })
            .err()
            .unwrap();
        assert!(message.to_string().contains("cargo feature `lingua`"), "{message}");
    }

    #[test]
    #[cfg(feature = "lingua")]
    fn lingua_knows_short_texts() {
        for (text, language) in
            [("A short day.", "en"), ("Un día muy corto.", "es"), ("짧은 하루", "ko"), ("短い一日です", "ja")]
        {
            let (removed, document) =
                verdict(Language { detector: Detector::Lingua, ..Language::default() }, text);
            assert_eq!((removed, &document.metadata["language"]), (None, &language.into()), "{text}");
        }
    }
}
