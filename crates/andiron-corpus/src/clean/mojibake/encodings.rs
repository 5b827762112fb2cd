//! The encodings that UTF-8 is taken for, with nothing undefined: unused bytes are the control characters of Latin-1.

use std::collections::HashMap;
use std::sync::LazyLock;

/// An encoding of a byte a character that has ASCII in its lower half.
pub(super) struct Encoding {
    /// The characters of the bytes 80–FF.
    upper: Vec<char>,
    /// The bytes of those characters; none for Latin-1.
    bytes: Option<HashMap<char, u8>>,
}

/// In the order in which they are tried.
pub(super) static ENCODINGS: LazyLock<Vec<Encoding>> = LazyLock::new(|| {
    let latin_1 = Encoding { upper: ('\u{80}'..='\u{ff}').collect(), bytes: None };
    [latin_1].into_iter().chain([WINDOWS_1252, WINDOWS_1251, WINDOWS_1250].map(Encoding::new)).collect()
});

const WINDOWS_1252: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ\u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
    ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ";
const WINDOWS_1251: &str = "ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—\u{98}™љ›њќћџ\u{a0}ЎўЈ¤Ґ¦§Ё©Є«¬\u{ad}®Ї°±Ііґµ¶·ё№є»јЅѕї\
    АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюя";
const WINDOWS_1250: &str = "€\u{81}‚\u{83}„…†‡\u{88}‰Š‹ŚŤŽŹ\u{90}‘’“”•–—\u{98}™š›śťžź\u{a0}ˇ˘Ł¤Ą¦§¨©Ş«¬\u{ad}®Ż°±˛ł´µ¶·¸ąş»Ľ˝ľż\
    ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";

impl Encoding {
    fn new(upper: &str) -> Self {
        let upper: Vec<char> = upper.chars().collect();
        let bytes = (0x80..=0xff).zip(&upper).map(|(byte, &character)| (character, byte)).collect();
        Self { upper, bytes: Some(bytes) }
    }

    /// Whether `�` stands for a lost byte in it.
    pub(super) fn is_lossy(&self) -> bool {
        self.bytes.is_some()
    }

    /// The bytes of a text; `None` if it has characters that are not in the encoding. A `�` becomes `1A`, a lost byte.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u8>> {
        text.chars().map(|character| self.byte(character)).collect()
    }

    fn byte(&self, character: char) -> Option<u8> {
        match (&self.bytes, character) {
            (Some(_), '\x1a') => None,
            (_, '\0'..='\x7f') => Some(character as u8),
            (None, '\u{80}'..='\u{ff}') => u8::try_from(u32::from(character)).ok(),
            (Some(_), '\u{fffd}') => Some(0x1a),
            (Some(bytes), _) => bytes.get(&character).copied(),
            (None, _) => None,
        }
    }

    /// The characters of the bytes from `first` to `last`, 80 or more.
    pub(super) fn characters(&self, first: u8, last: u8) -> &[char] {
        &self.upper[usize::from(first - 0x80)..=usize::from(last - 0x80)]
    }

    /// What Windows-1252 has for a C1 control character.
    pub(super) fn windows_1252(control: char) -> char {
        let encoding = &ENCODINGS[1];
        encoding.upper.get((control as usize).wrapping_sub(0x80)).copied().unwrap_or(control)
    }
}
