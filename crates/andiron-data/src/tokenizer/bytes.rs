//! GPT-2's byte-to-character table: printable bytes map to themselves, the others to characters from U+0100 on.
//! Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", function
//! `bytes_to_unicode` of the published `encoder.py`.

/// The character of a byte.
pub(super) fn byte_to_char(byte: u8) -> char {
    let byte = u32::from(byte);
    let code = match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => byte,
        0x00..=0x20 => 0x100 + byte,
        0x7f..=0xa0 => 0x121 + byte - 0x7f,
        // 0xad, the soft hyphen, is the last of those that do not print.
        _ => 0x143,
    };
    char::from_u32(code).expect("all codes are below the surrogates")
}

/// The byte of a character; `None` for characters outside the table.
pub(super) fn char_to_byte(character: char) -> Option<u8> {
    let code = u32::from(character);
    let byte = match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// The bytes of a token. A token with a character outside the table is taken as UTF-8.
pub(super) fn spelled(token: &str) -> Vec<u8> {
    token.chars().map(char_to_byte).collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

/// The byte of a byte-fallback token `<0xHH>`.
pub(super) fn fallback(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>').filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    #[test]
    fn the_alphabet_is_that_of_the_library() {
        let ours: HashSet<char> = (0..=255).map(byte_to_char).collect();
        let theirs: HashSet<char> = ByteLevel::alphabet().into_iter().collect();
        assert_eq!(ours, theirs);
        for byte in 0..=255 {
            assert_eq!(char_to_byte(byte_to_char(byte)), Some(byte));
        }
        assert_eq!(byte_to_char(b' '), 'Ġ');
        assert_eq!(byte_to_char(b'\n'), 'Ċ');
    }
}
