//! Encoding with a vocabulary whose tokens are characters.

use super::TokenizerError;

const PAGE: usize = 256;

/// The ids of characters: a table in pages, as most characters of a text are in few of them.
pub(super) struct Characters {
    /// For each 256 code points the number of their page. The first page is empty.
    pages: Vec<u16>,
    /// The id of each character, or [`ABSENT`].
    ids: Vec<u32>,
}

/// No id: ids are below 2^31.
const ABSENT: u32 = u32::MAX;

impl FromIterator<(char, u32)> for Characters {
    fn from_iter<I: IntoIterator<Item = (char, u32)>>(vocabulary: I) -> Self {
        let mut table = Self { pages: vec![0; char::MAX as usize / PAGE + 1], ids: vec![ABSENT; PAGE] };
        for (character, id) in vocabulary {
            let (page, at) = place(character);
            if table.pages[page] == 0 {
                // There are 4352 at most.
                table.pages[page] = (table.ids.len() / PAGE) as u16;
                table.ids.resize(table.ids.len() + PAGE, ABSENT);
            }
            table.ids[usize::from(table.pages[page]) * PAGE + at] = id;
        }
        table
    }
}

impl Characters {
    /// The ids of a text.
    ///
    /// # Errors
    /// If a character has none.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len());
        for (offset, character) in text.char_indices() {
            let (page, at) = place(character);
            match self.ids[usize::from(self.pages[page]) * PAGE + at] {
                ABSENT => return Err(TokenizerError::UnknownCharacter { character, offset }),
                id => ids.push(id),
            }
        }
        Ok(ids)
    }
}

fn place(character: char) -> (usize, usize) {
    (character as usize / PAGE, character as usize % PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_character_has_its_id_and_others_are_named() {
        let vocabulary = ['\0', 'a', 'é', '가', '\u{10ffff}'];
        let table: Characters = vocabulary.into_iter().zip(7..).collect();
        assert_eq!(table.encode("\u{10ffff}a가é\0").unwrap(), [11, 8, 10, 9, 7]);
        for unknown in ['b', 'ê', '각', '\u{10fffe}'] {
            let error = table.encode(&format!("a{unknown}")).unwrap_err();
            let named = matches!(error, TokenizerError::UnknownCharacter { character, offset: 1 } if character == unknown);
            assert!(named, "{error}");
        }
    }
}
