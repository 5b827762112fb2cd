//! Stop strings in a text that arrives in pieces.

/// Finds stop strings in streamed text and releases only text that cannot be part of one.
///
/// The stop string that ends first wins; of several that end at the same place, the longest. The result does not depend on
/// how the text was cut into pieces. Source for the matching: Knuth, Morris, Pratt 1977, "Fast Pattern Matching in
/// Strings", <https://doi.org/10.1137/0206024>.
///
/// # Example
/// ```
/// use andiron_data::tokenizer::StopMatcher;
/// let mut matcher = StopMatcher::new(["\nUser:"])?;
/// assert_eq!(matcher.push("Hello\nUs").text, "Hello");
/// assert_eq!(matcher.push("e an umbrella").text, "\nUse an umbrella");
/// let last = matcher.push("!\nUser: hi");
/// assert_eq!((last.text.as_str(), last.stopped), ("!", Some(0)));
/// # Ok::<(), andiron_data::tokenizer::StopError>(())
/// ```
#[derive(Clone, Debug)]
pub struct StopMatcher {
    stops: Vec<Stop>,
    /// Text that may be the beginning of a stop string.
    held: String,
    stopped: Option<usize>,
}

/// The result of a [`StopMatcher::push`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopOutput {
    /// Text that can be shown now.
    pub text: String,
    /// Index of the stop string that was found, if any; no text follows it.
    pub stopped: Option<usize>,
}

/// Why stop strings are invalid.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopError {
    /// An empty string would stop every text at its beginning.
    #[error("stop string {index} is empty")]
    Empty {
        /// Its index.
        index: usize,
    },
}

#[derive(Clone, Debug)]
struct Stop {
    text: Vec<u8>,
    /// Failure function: for each length, that of the longest proper prefix that is also a suffix.
    fallback: Vec<usize>,
    /// Length of the prefix that the text currently ends with.
    matched: usize,
}

impl StopMatcher {
    /// A matcher for any of `stops`.
    ///
    /// # Errors
    /// If one of them is empty.
    pub fn new<I, S>(stops: I) -> Result<Self, StopError>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let stops: Vec<Stop> = stops.into_iter().map(|stop| Stop::new(stop.into().into_bytes())).collect();
        match stops.iter().position(|stop| stop.text.is_empty()) {
            Some(index) => Err(StopError::Empty { index }),
            None => Ok(Self { stops, held: String::new(), stopped: None }),
        }
    }

    /// Takes the next piece of the text. After a stop, all text is dropped.
    pub fn push(&mut self, piece: &str) -> StopOutput {
        if self.stopped.is_some() {
            return StopOutput { text: String::new(), stopped: self.stopped };
        }
        let offset = self.held.len();
        self.held.push_str(piece);
        for (at, byte) in piece.bytes().enumerate() {
            // All must see the byte, so no short cut at the first match.
            let mut longest: Option<(usize, usize)> = None;
            for (index, stop) in self.stops.iter_mut().enumerate() {
                stop.step(byte);
                let length = stop.text.len();
                if stop.is_met() && longest.is_none_or(|(_, best)| length > best) {
                    longest = Some((index, length));
                }
            }
            if let Some((index, length)) = longest {
                self.stopped = Some(index);
                let mut text = std::mem::take(&mut self.held);
                text.truncate(offset + at + 1 - length);
                return StopOutput { text, stopped: self.stopped };
            }
        }
        let matched = self.stops.iter().map(|stop| stop.matched).max().unwrap_or_default();
        let rest = self.held.split_off(self.held.len() - matched);
        StopOutput { text: std::mem::replace(&mut self.held, rest), stopped: None }
    }

    /// Ends the text; returns the text that was held back as a possible beginning of a stop string.
    pub fn finish(self) -> String {
        self.held
    }
}

impl Stop {
    fn new(text: Vec<u8>) -> Self {
        let mut fallback = vec![0; text.len()];
        let mut length = 0;
        for at in 1..text.len() {
            while length > 0 && text[at] != text[length] {
                length = fallback[length - 1];
            }
            length += usize::from(text[at] == text[length]);
            fallback[at] = length;
        }
        Self { text, fallback, matched: 0 }
    }

    fn step(&mut self, byte: u8) {
        if self.is_met() {
            self.matched = self.fallback[self.matched - 1];
        }
        while self.matched > 0 && self.text[self.matched] != byte {
            self.matched = self.fallback[self.matched - 1];
        }
        self.matched += usize::from(self.text[self.matched] == byte);
    }

    fn is_met(&self) -> bool {
        self.matched == self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: the first end of any stop string, then the longest that ends there.
    fn by_definition(text: &str, stops: &[String]) -> (String, Option<usize>) {
        for end in 1..=text.len() {
            let met = (0..stops.len()).filter(|&i| text.as_bytes()[..end].ends_with(stops[i].as_bytes()));
            if let Some(index) = met.rev().max_by_key(|&i| stops[i].len()) {
                return (text[..end - stops[index].len()].to_owned(), Some(index));
            }
        }
        (text.to_owned(), None)
    }

    fn run(pieces: &[String], stops: &[String]) -> (String, Option<usize>) {
        let mut matcher = StopMatcher::new(stops.to_vec()).unwrap();
        let mut text = String::new();
        for piece in pieces {
            let output = matcher.push(piece);
            text.push_str(&output.text);
            if output.stopped.is_some() {
                assert_eq!(matcher.push("more").text, "");
                return (text, output.stopped);
            }
        }
        text.push_str(&matcher.finish());
        (text, None)
    }

    #[test]
    fn an_empty_stop_string_is_refused() {
        assert_eq!(StopMatcher::new(["a", ""]).unwrap_err(), StopError::Empty { index: 1 });
    }

    #[test]
    fn without_stop_strings_everything_passes_at_once() {
        let mut matcher = StopMatcher::new(Vec::<String>::new()).unwrap();
        assert_eq!(matcher.push("né").text, "né");
    }

    #[test]
    fn a_long_repetitive_text_is_no_trouble() {
        let mut matcher = StopMatcher::new([format!("{}b", "a".repeat(255))]).unwrap();
        let shown: usize = (0..100_000).map(|_| matcher.push("a").text.len()).sum();
        assert_eq!(shown, 100_000 - 255);
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_text_gives(
            pieces in prop::collection::vec("[abé]{0,4}", 0..12),
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
        ) {
            prop_assert_eq!(run(&pieces, &stops), by_definition(&pieces.concat(), &stops));
        }
    }
}
