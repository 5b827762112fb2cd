//! Classes of characters, as patterns know them.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// Neither of the others.
pub(super) const OTHER: u8 = 0;
/// `\p{L}`
pub(super) const LETTER: u8 = 1;
/// `\p{N}`
pub(super) const NUMBER: u8 = 2;
/// `\s`
pub(super) const SPACE: u8 = 3;
/// `\p{M}`
pub(super) const MARK: u8 = 4;

/// The class of each character, in pages of 256.
pub(super) struct Classes {
    pages: Vec<[u8; 256]>,
    /// The page of each 256 characters.
    page_of: [u8; 0x1100],
}

/// From the tables of the library's own regular expressions, so that both know the same version of Unicode.
pub(super) static CLASSES: LazyLock<Classes> = LazyLock::new(Classes::new);

impl Classes {
    fn new() -> Self {
        let mut all = vec![OTHER; 0x11_0000];
        for (pattern, class) in [(r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE), (r"\p{M}", MARK)] {
            let parsed = regex_syntax::parse(pattern).expect("a pattern of a class");
            let HirKind::Class(Class::Unicode(ranges)) = parsed.kind() else { continue };
            for range in ranges.iter() {
                all[range.start() as usize..=range.end() as usize].fill(class);
            }
        }
        let (mut pages, mut page_of) = (Vec::<[u8; 256]>::new(), [0; 0x1100]);
        for (number, page) in all.as_chunks::<256>().0.iter().enumerate() {
            let at = pages.iter().position(|known| known == page).unwrap_or(pages.len());
            if at == pages.len() {
                pages.push(*page);
            }
            page_of[number] = u8::try_from(at).expect("far fewer than 256 different pages");
        }
        Self { pages, page_of }
    }

    /// The class of a character.
    #[inline]
    pub(super) fn of(&self, c: char) -> u8 {
        let code = c as usize;
        self.pages[usize::from(self.page_of[code >> 8])][code & 0xff]
    }

    /// The classes of the first 256 characters.
    #[inline]
    pub(super) fn latin(&self) -> &[u8; 256] {
        &self.pages[usize::from(self.page_of[0])]
    }
}
