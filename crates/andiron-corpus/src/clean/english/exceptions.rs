//! Spans that are split in a way of their own: contractions, abbreviations, times, emoticons.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::super::characters::CHARACTERS;
use super::super::hash::hash_bytes;
use super::{Buffer, Splitter};

/// How a span is split.
#[derive(Debug)]
pub(super) struct Exception {
    text: Box<str>,
    /// Where its words end, in bytes, but for the last; 0 where there is no further one.
    inner_ends: [u8; 2],
    /// Where the words would end without the exception, if that is more than one: the neighbours to put together.
    parts: Option<Box<[usize]>>,
}

impl Exception {
    /// Where its words end.
    pub(super) fn ends(&self) -> impl Iterator<Item = usize> {
        let inner = self.inner_ends.into_iter().filter(|&end| end > 0).map(usize::from);
        inner.chain(std::iter::once(self.text.len()))
    }

    /// Where the words end that the rules for affixes alone would find, if they say something about this span.
    pub(super) fn parts(&self) -> Option<&[usize]> {
        self.parts.as_deref()
    }
}

/// All exceptions.
pub(super) struct Exceptions {
    by_hash: HashMap<u64, Exception, std::hash::BuildHasherDefault<Identity>>,
    longest: usize,
    /// Bit n of the entry of a first byte: an exception of n bytes begins so (31: that or more).
    lengths: Box<[u32; 256]>,
    /// Last bytes of exceptions that have parts.
    merged_last: Box<[bool; 256]>,
}

impl Exceptions {
    /// The length of the longest, in bytes.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// Whether a span of this length and first byte is one, at all.
    #[inline]
    pub(super) fn may_contain(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        bytes.first().is_some_and(|&first| self.lengths[usize::from(first)] & (1 << bytes.len().min(31)) != 0)
            && self.get(text).is_some()
    }

    /// Whether some neighbours in this span may be an exception that was split.
    pub(super) fn may_merge(&self, span: &str) -> bool {
        span.bytes().any(|byte| self.merged_last[usize::from(byte)])
    }

    /// How this span is split, if it is an exception.
    #[inline]
    pub(super) fn get(&self, text: &str) -> Option<&Exception> {
        let bytes = text.as_bytes();
        let first = *bytes.first()?;
        if bytes.len() > self.longest || self.lengths[usize::from(first)] & (1 << bytes.len().min(31)) == 0 {
            return None;
        }
        self.by_hash.get(&hash_bytes(bytes)).filter(|exception| &*exception.text == text)
    }

    fn new() -> Self {
        let mut exceptions = Self {
            by_hash: HashMap::default(),
            longest: 0,
            lengths: Box::new([0; 256]),
            merged_last: Box::new([false; 256]),
        };
        all(&mut |words| {
            exceptions.insert(words);
            let curly: Vec<String> = words.iter().map(|word| word.replace('\'', "’")).collect();
            exceptions.insert(&curly.iter().map(String::as_str).collect::<Vec<_>>());
        });
        for text in NOT_EXCEPTIONS.split(' ') {
            exceptions.by_hash.remove(&hash_bytes(text.as_bytes()));
        }
        exceptions.find_parts();
        exceptions
    }

    fn insert(&mut self, words: &[&str]) {
        let text = words.concat();
        let mut inner_ends = [0; 2];
        let mut end = 0;
        for (slot, word) in inner_ends.iter_mut().zip(&words[..words.len() - 1]) {
            end += word.len();
            *slot = u8::try_from(end).expect("exceptions are short");
        }
        self.longest = self.longest.max(text.len());
        self.lengths[usize::from(text.as_bytes()[0])] |= 1 << text.len().min(31);
        let exception = Exception { text: text.into(), inner_ends, parts: None };
        self.by_hash.insert(hash_bytes(exception.text.as_bytes()), exception);
    }

    fn find_parts(&mut self) {
        let splitter = Splitter {
            characters: &CHARACTERS,
            exceptions: &Self {
                by_hash: HashMap::default(),
                longest: 0,
                lengths: Box::new([0; 256]),
                merged_last: Box::new([false; 256]),
            },
        };
        let mut buffer = Buffer::default();
        for exception in self.by_hash.values_mut() {
            let text = &*exception.text;
            let infixes = {
                buffer.ends.clear();
                splitter.split_infixes(text, 0, &mut buffer.ends);
                buffer.ends.len() > 1 || splitter.infix(None, text.chars().next().unwrap_or(' '), text) > 0
            };
            if infixes || splitter.prefix(text) > 0 || splitter.suffix(text) > 0 {
                splitter.split_affixes(text, None, &mut buffer);
                exception.parts = Some(buffer.ends.clone().into_boxed_slice());
                self.merged_last[usize::from(text.as_bytes()[text.len() - 1])] = true;
            }
        }
    }
}

/// The table, made once.
pub(super) static EXCEPTIONS: LazyLock<Exceptions> = LazyLock::new(Exceptions::new);

/// Keys are hashes already.
#[derive(Default)]
pub(super) struct Identity(u64);

impl std::hash::Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash_bytes(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Currency signs that are split from a number before them.
pub(super) const CURRENCIES: &[char] = &[
    '$', '£', '€', '¥', '฿', '₽', '﷼', '₴', '₠', '₡', '₢', '₣', '₤', '₥', '₦', '₧', '₨', '₩', '₪', '₫', '₭',
    '₮', '₯', '₰', '₱', '₲', '₳', '₵', '₶', '₷', '₸', '₹', '₺', '₻', '₼', '₾', '₿',
];

/// Units that are split from a number before them, the longest first.
const UNITS: &[&str] = &[
    "тбكم",
    "км/ч",
    "اكواب",
    "мбар",
    "mbar",
    "غرام",
    "جرام",
    "km/h",
    "كوب",
    "ملغ",
    "кПа",
    "км²",
    "км³",
    "дм²",
    "дм³",
    "см²",
    "см³",
    "мм²",
    "мм³",
    "м/с",
    "kmh",
    "mph",
    "hPa",
    "km²",
    "km³",
    "dm²",
    "dm³",
    "cm²",
    "cm³",
    "mm²",
    "mm³",
    "m/s",
    "كم²",
    "كم³",
    "سم²",
    "سم³",
    "مم²",
    "مم³",
    "كغ",
    "جم",
    "كم",
    "سم",
    "مم",
    "م²",
    "م³",
    "км",
    "м²",
    "м³",
    "дм",
    "см",
    "мм",
    "нм",
    "кг",
    "мг",
    "Па",
    "Кб",
    "КБ",
    "кб",
    "Мб",
    "МБ",
    "мб",
    "Гб",
    "ГБ",
    "гб",
    "Тб",
    "ТБ",
    "µm",
    "µg",
    "km",
    "m²",
    "m³",
    "dm",
    "cm",
    "mm",
    "ha",
    "nm",
    "yd",
    "in",
    "ft",
    "kg",
    "mg",
    "lb",
    "oz",
    "Pa",
    "mb",
    "MB",
    "kb",
    "KB",
    "gb",
    "GB",
    "tb",
    "TB",
    "م",
    "м",
    "г",
    "m",
    "g",
    "t",
    "T",
    "G",
    "M",
    "K",
    "%",
];

/// The bytes of a unit at the end, if a digit stands before it; else 0.
pub(super) fn unit(text: &str) -> usize {
    // Most words have no digit, and none where the longest unit would allow it.
    let bytes = text.as_bytes();
    if !bytes[bytes.len().saturating_sub(11)..].iter().any(u8::is_ascii_digit) {
        return 0;
    }
    let longest = UNITS.iter().filter(|unit| {
        text.strip_suffix(**unit).is_some_and(|rest| rest.as_bytes().last().is_some_and(u8::is_ascii_digit))
    });
    longest.map(|unit| unit.len()).max().unwrap_or(0)
}

/// Would be made by the rules below, and are ordinary words.
const NOT_EXCEPTIONS: &str =
    "Ill ill Its its Hell hell Shell shell Shed shed were Were Well well Whore whore";

/// Words of their own with the punctuation in them.
const WHOLE: &str = "' \\\") <space> '' C++ \\t \\n — \
    a. b. c. d. e. f. g. h. i. j. k. l. m. n. o. p. q. r. s. t. u. v. w. x. y. z. ä. ö. ü. \
    'S 's ‘S ‘s and/or w/o 're 'Cause 'cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout ma'am Ma'am o'clock O'clock \
    lovin' Lovin' havin' Havin' doin' Doin' goin' Goin' nothin' Nothin' nuthin' Nuthin' ol' Ol' somethin' Somethin' \
    'em 'll 'nuff 'd em ll nuff \
    lovin Lovin havin Havin doin Doin goin Goin nothin Nothin nuthin Nuthin ol Ol somethin Somethin \
    Mt. Ak. Ala. Apr. Ariz. Ark. Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. Ind. Jan. Jul. Jun. Kan. Kans. \
    Ky. La. Mar. Mass. Mich. Minn. Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. S.C. Sep. \
    Sept. Tenn. Va. Wash. Wis. a.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. i.e. I.e. I.E. Inc. Jr. Ltd. \
    Md. Messrs. Mo. Mont. Mr. Mrs. Ms. p.m. Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s.";

const EMOTICONS: &str = ":) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-) (; \
    (-; :( :-( :(( :-(( :((( :-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= =[ :1 :P :-P :p :-p :O :-O :o :-o \
    :0 :-0 :() >:o :* :-* :3 :-3 =3 :> :-> :X :-X :x :-x :D :-D ;D ;-D =D xD XD xDD XDD 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< \
    ._. ;_; -_- -__- v.v V.V v_v V_V o_o o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o @_@ <3 <33 <333 </3 (^_^) (-_-) \
    (._.) (>_<) (*_*) (¬_¬) ಠ_ಠ ಠ︵ಠ (ಠ_ಠ) ¯\\(ツ)/¯ (╯°□°）╯︵┻━┻ ><(((*>";

/// Calls `add` with the words of each exception.
fn all(add: &mut dyn FnMut(&[&str])) {
    for text in WHOLE.split_ascii_whitespace().chain(EMOTICONS.split_ascii_whitespace()) {
        add(&[text]);
    }
    for unit in ["c", "f", "k", "C", "F", "K"] {
        add(&["°", unit, "."]);
    }
    pronouns(add);
    question_words(add);
    verbs(add);
    for hour in 1..=12 {
        for period in ["a.m.", "am", "p.m.", "pm"] {
            add(&[&hour.to_string(), period]);
        }
    }
    for words in [
        &["y'", "all"][..],
        &["y", "all"],
        &["how", "'d", "'y"],
        &["How", "'d", "'y"],
        &["not", "'ve"],
        &["not", "ve"],
        &["Not", "'ve"],
        &["Not", "ve"],
        &["can", "not"],
        &["Can", "not"],
        &["gon", "na"],
        &["Gon", "na"],
        &["got", "ta"],
        &["Got", "ta"],
        &["let", "'s"],
        &["Let", "'s"],
        &["c'm", "on"],
        &["C'm", "on"],
    ] {
        add(words);
    }
}

/// Adds a word with endings, with and without apostrophes, in lower case and as a title.
fn contract(word: &str, endings: &[&[&str]], add: &mut dyn FnMut(&[&str])) {
    let title = word[..1].to_uppercase() + &word[1..];
    for word in [word, &title] {
        for ending in endings {
            let plain: Vec<String> = ending.iter().map(|part| part.replace('\'', "")).collect();
            let with: Vec<&str> = std::iter::once(word).chain(ending.iter().copied()).collect();
            let without: Vec<&str> = std::iter::once(word).chain(plain.iter().map(String::as_str)).collect();
            add(&with);
            add(&without);
        }
    }
}

const WILL_AND_WOULD: &[&[&str]] = &[&["'ll"], &["'ll", "'ve"], &["'d"], &["'d", "'ve"]];

fn pronouns(add: &mut dyn FnMut(&[&str])) {
    contract("i", &[&["'m"], &["'m", "a"], &["'ve"]], add);
    for word in ["i", "you", "he", "she", "it", "we", "they"] {
        contract(word, WILL_AND_WOULD, add);
    }
    for word in ["you", "we", "they"] {
        contract(word, &[&["'ve"], &["'re"]], add);
    }
    for word in ["he", "she", "it"] {
        contract(word, &[&["'s"]], add);
    }
}

fn question_words(add: &mut dyn FnMut(&[&str])) {
    let others = ["who", "what", "when", "where", "why", "how", "there"];
    for word in others.into_iter().chain(["that", "this", "these", "those"]) {
        contract(word, WILL_AND_WOULD, add);
    }
    for word in others.into_iter().chain(["these", "those"]) {
        contract(word, &[&["'re"], &["'ve"]], add);
    }
    for word in others.into_iter().chain(["that", "this"]) {
        contract(word, &[&["'s"]], add);
    }
}

fn verbs(add: &mut dyn FnMut(&[&str])) {
    for word in [
        "ca", "could", "do", "does", "did", "had", "may", "might", "must", "need", "ought", "sha", "should",
        "wo", "would",
    ] {
        contract(word, &[&["n't"], &["n't", "'ve"]], add);
    }
    for word in ["could", "might", "must", "should", "would"] {
        contract(word, &[&["'ve"]], add);
    }
    for word in ["ai", "are", "is", "was", "were", "have", "has", "dare"] {
        contract(word, &[&["n't"]], add);
    }
}
