//! Signs of mojibake: neighbours that hardly occur in any text.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::super::characters::{CHARACTERS, Classes, is_space};
use super::encodings::ENCODINGS;

/// What a character is in mojibake, a bit each.
type Sorts = u16;

const COMMON: Sorts = 1;
const CONTROL: Sorts = 1 << 1;
const BAD: Sorts = 1 << 2;
const LAW: Sorts = 1 << 3;
const CURRENCY: Sorts = 1 << 4;
const OPENING: Sorts = 1 << 5;
const CLOSING: Sorts = 1 << 6;
const NUMERIC: Sorts = 1 << 7;
const UPPER: Sorts = 1 << 8;
const LOWER: Sorts = 1 << 9;
/// Letters that are frequent at the ends of words of their scripts.
const UPPER_PLAIN: Sorts = 1 << 10;
const LOWER_PLAIN: Sorts = 1 << 11;
const BOX: Sorts = 1 << 12;
/// May begin a sequence of two, three, four bytes, or go on with it: for whole sequences.
const FIRST_OF_2: Sorts = 1;
const FIRST_OF_3: Sorts = 1 << 1;
const FIRST_OF_4: Sorts = 1 << 2;
const CONTINUATION: Sorts = 1 << 3;

struct Table {
    sorts: HashMap<char, Sorts>,
    places: HashMap<char, Sorts>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut sorts = HashMap::new();
    let mut add = |sort: Sorts, characters: &str, ranges: &[(char, char)]| {
        for character in characters.chars().chain(ranges.iter().flat_map(|&(first, last)| first..=last)) {
            *sorts.entry(character).or_insert(0) |= sort;
        }
    };
    add(COMMON, "\u{a0}\u{ad}·´–—―…’", &[]);
    add(CONTROL, "", &[('\u{80}', '\u{9f}')]);
    add(BAD, "¦¤¨¬¯¸ƒˆˇ˘˛˜†‡‰⌐◊\u{fffd}ªº", &[]);
    add(LAW, "¶§", &[]);
    add(CURRENCY, "¢£¥₧€", &[]);
    add(OPENING, "¡«¿©΄΅‘‚“„•‹\u{f8ff}", &[]);
    add(CLOSING, "®»˝”›™", &[]);
    add(NUMERIC, "²³¹±¼½¾×µ÷⁄∂∆∏∑√∞∩∫≈≠≡≤≥№", &[]);
    add(UPPER, "ØÜÝĂĀĄĆČĎĐĘĚĒĖĞĢİĪĶĹĽŁĻŃŇŅŒŘŚŞŠŢŤŮŰŸŹŻŽҐ", &[('À', 'Ñ')]);
    add(LOWER, "ßăąāćčďđęěēėğģįīķĺľłļœŕśşšťüźżžґﬁﬂ", &[('à', 'ñ')]);
    add(UPPER_PLAIN, "ÞΆΈΉΊΌΎΏΪΫ", &[('Α', 'Ω'), ('Ё', 'Я')]);
    add(LOWER_PLAIN, "άέήίΰ", &[('α', 'ω'), ('а', 'џ')]);
    add(BOX, "│┌┐┘├┤┬┼▀▄█▌▐░▒▓", &[('═', '╬')]);
    let mut places = HashMap::new();
    for encoding in &*ENCODINGS {
        for (place, first, last) in [
            (FIRST_OF_2, 0xc2, 0xdf),
            (FIRST_OF_3, 0xe0, 0xef),
            (FIRST_OF_4, 0xf0, 0xf3),
            (CONTINUATION, 0x80, 0xbf),
        ] {
            for &character in encoding.characters(first, last) {
                *places.entry(character).or_insert(0) |= place;
            }
        }
    }
    // A no-break space may have become a space.
    *places.entry(' ').or_insert(0) |= CONTINUATION;
    Table { sorts, places }
});

/// Whether a character is frequent everywhere, and says nothing alone.
pub(super) fn is_common(character: char) -> bool {
    matches!(character, '–' | '—' | '―' | '‘' | '’' | '“' | '”' | '…' | '•' | '‚' | '„')
}

/// Whether a character may be a byte within a UTF-8 sequence.
pub(super) fn is_continuation(character: char) -> bool {
    TABLE.places.get(&character).is_some_and(|place| place & CONTINUATION != 0)
}

/// The bytes of the UTF-8 sequences that the text seems to begin with.
pub(super) fn sequences(text: &str) -> usize {
    let mut characters = text.char_indices().peekable();
    let mut end = 0;
    while let Some(&(_, first)) = characters.peek() {
        let place = TABLE.places.get(&first).copied().unwrap_or(0);
        let lengths = [(FIRST_OF_2, 1), (FIRST_OF_3, 2), (FIRST_OF_4, 3)];
        let found = lengths.into_iter().find_map(|(flag, more)| {
            let mut ahead = characters.clone();
            ahead.next();
            let fits =
                place & flag != 0 && (0..more).all(|_| ahead.next().is_some_and(|(_, c)| is_continuation(c)));
            fits.then_some(ahead)
        });
        match found {
            Some(mut ahead) => {
                end = ahead.peek().map_or(text.len(), |&(at, _)| at);
                characters = ahead;
            }
            None => break,
        }
    }
    end
}

/// Whether the text has a pair or triple of characters that is a sign of mojibake.
pub(super) fn is_bad(text: &str) -> bool {
    let table = &*TABLE;
    let sort = |c: char| if c.is_ascii() { 0 } else { table.sorts.get(&c).copied().unwrap_or(0) };
    let mut before: Option<char> = None;
    let mut characters = text.chars().peekable();
    let mut previous: Option<char> = None;
    while let Some(character) = characters.next() {
        let next = characters.peek().copied();
        let kinds = sort(character);
        if kinds & CONTROL != 0 {
            return true;
        }
        // Every rule has a character beyond ASCII in its middle or at its beginning.
        if !character.is_ascii() || previous.is_some_and(|c| !c.is_ascii()) {
            let triple = Triple {
                characters: (previous, character, next),
                sorts: (previous.map_or(0, sort), kinds, next.map_or(0, sort)),
            };
            if triple.is_bad_pair() || triple.is_bad(before) {
                return true;
            }
        }
        before = previous;
        previous = Some(character);
    }
    is_bad_cyrillic(text)
}

/// A character with its neighbours.
struct Triple {
    characters: (Option<char>, char, Option<char>),
    sorts: (Sorts, Sorts, Sorts),
}

const RARE: Sorts = LOWER | UPPER | BOX | OPENING | CLOSING | CURRENCY | NUMERIC | LAW;

impl Triple {
    /// The rules for a character and the one after it.
    fn is_bad_pair(&self) -> bool {
        let ((_, first, second), (_, a, b)) = (self.characters, self.sorts);
        let Some(second) = second else { return false };
        let pair = |left: Sorts, right: Sorts| a & left != 0 && b & right != 0;
        pair(BAD | RARE, BAD)
            || pair(BAD, RARE)
            || pair(LOWER | LOWER_PLAIN | BOX | CLOSING | CURRENCY | NUMERIC, UPPER)
            || pair(BOX | CLOSING | CURRENCY | NUMERIC, LOWER)
            || pair(LOWER | BOX | CLOSING, CURRENCY)
            || pair(UPPER | BOX, NUMERIC | LAW)
            || pair(CURRENCY | NUMERIC | BOX, OPENING)
            || pair(LOWER | UPPER | CURRENCY | NUMERIC | OPENING | CLOSING | LAW, BOX)
            || pair(BOX, CLOSING)
            || matches!(first, 'Œ' | 'œ') && !second.is_ascii_alphabetic()
            || a & UPPER != 0 && second == '°'
            || matches!(first, 'Â' | 'Ã' | 'Î' | 'Ð')
                && (b & (OPENING | CLOSING) != 0 || "€œŠš¢£Ÿž\u{a0}\u{ad}®©°·»–—´".contains(second))
            || first == '×' && matches!(second, '²' | '³')
            || first == 'à' && matches!(second, '²' | 'µ' | '¹' | '¼' | '½' | '¾')
            || first == 'в' && second == 'Ђ'
            || first == 'Ã' && matches!(second, '\u{a0}' | '¡')
    }

    /// The rules for a character between two.
    fn is_bad(&self, before: Option<char>) -> bool {
        let ((first, second, third), (a, b, c)) = (self.characters, self.sorts);
        let first_is = |test: fn(char) -> bool| first.is_some_and(test);
        let third_word = third.is_some_and(|c| CHARACTERS.is(c, Classes::WORD));
        let circumflex = matches!(second, 'Ã' | 'Â');
        let small = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase());
        first_is(|c| c.is_ascii_alphabetic()) && b & (LOWER_PLAIN | UPPER_PLAIN) != 0 && c & BAD != 0
            || first_is(is_space) && b & UPPER != 0 && c & CURRENCY != 0
            || a & (LOWER | UPPER | BOX | CURRENCY | CLOSING) != 0 && b & OPENING != 0 && c & NUMERIC != 0
            || a & (LOWER | UPPER | CURRENCY | NUMERIC | BOX | LAW) != 0
                && b & CLOSING != 0
                && c & OPENING != 0
            || small(first) && b & UPPER != 0 && c & (OPENING | CURRENCY) != 0
            || a & (LOWER | UPPER) != 0 && b & (OPENING | CLOSING) != 0 && third_word
            || circumflex
                && third == Some(' ')
                && (first.is_none() || small(first) || first_is(is_space) && small(before))
            || second == 'Â'
                && (third == Some(' ') || c & (OPENING | CLOSING) != 0)
                && (small(first) || first_is(|c| ".,?!".contains(c)) || a & CLOSING != 0)
            || Self::is_cyrillic_first(first)
                && (b & (BAD | OPENING | CLOSING | CURRENCY) != 0 || matches!(second, '°' | 'µ'))
                && Self::is_cyrillic_first(third)
    }

    /// First bytes of Latin-1 and Cyrillic letters, in Windows-1251.
    fn is_cyrillic_first(character: Option<char>) -> bool {
        matches!(character, Some('В' | 'Г' | 'Р' | 'С'))
    }
}

/// The rules for four and five characters: Arabic in Windows-1252, and Windows-1252 in Latin-1 in Windows-1251.
fn is_bad_cyrillic(text: &str) -> bool {
    let sort = |c: char| TABLE.sorts.get(&c).copied().unwrap_or(0);
    let arabic = |first: char, second: char| {
        matches!(first, 'Ø' | 'Ù')
            && (sort(second) & (COMMON | CURRENCY | BAD | NUMERIC | OPENING) != 0
                || "ŸŠ®°µ»".contains(second))
    };
    let mut window = ['\0'; 4];
    for character in text.chars() {
        window.rotate_left(1);
        window[3] = character;
        if arabic(window[0], window[1]) && arabic(window[2], window[3]) {
            return true;
        }
    }
    text.match_indices("ГўВЂВ").any(|(at, found)| {
        let mut after = text[at + found.len()..].chars();
        after.next().is_some() && after.next().is_some_and(|c| c == ' ' || c.is_ascii_alphabetic())
    })
}
