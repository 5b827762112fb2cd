//! The command lines that a verb advises to type next.

use std::path::Path;

use andiron_core::DeviceSpec;

use crate::flags::Common;

/// The words that run another verb of this program in the same way.
pub struct Program {
    name: &'static str,
    /// Empty, or the option that chooses the device, with a space before it.
    device: String,
}

impl Program {
    /// This program, as it was called.
    pub fn of(common: &Common) -> anyhow::Result<Self> {
        let spec = common.device_spec()?;
        // A program that was found by its bare name is installed; any other one belongs to a checkout.
        let installed = std::env::args_os().next().is_some_and(|name| name == "andiron");
        let (name, option, default) = match installed {
            true => ("andiron", "--device", DeviceSpec::first_compiled()?.to_string()),
            false => ("cargo xtask", "--backend", "ndarray".to_owned()),
        };
        let spec = spec.to_string();
        let device = if spec == default { String::new() } else { format!(" {option} {spec}") };
        Ok(Self { name, device })
    }

    /// The verb with its options, which [`quoted`] has quoted where they need it.
    pub fn line(&self, verb: &str, options: &str) -> String {
        format!("{} {verb}{} {options}", self.name, self.device)
    }
}

/// A path as a shell reads it.
pub fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    if !path.is_empty() && path.chars().all(plain) { path.into_owned() } else { in_quotes(&path) }
}

/// A text as a shell reads it.
pub fn in_quotes(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Longest beginning of a text, in characters.
const BEGINNING: usize = 24;

/// The first words of a text, to be continued; in scripts without spaces, its first characters.
pub fn beginning(text: &str) -> &str {
    let says_something = |line: &&str| line.chars().any(char::is_alphanumeric);
    let line = text.lines().map(str::trim).find(says_something).unwrap_or_default();
    let Some((end, _)) = line.char_indices().nth(BEGINNING) else { return line };
    let spaces = line.char_indices().take_while(|&(at, _)| at <= end).filter(|(_, c)| c.is_whitespace());
    spaces.last().map_or(&line[..end], |(at, _)| line[..at].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_a_shell_would_divide_is_quoted() {
        assert_eq!(quoted(Path::new("runs/a-1.5_b+c")), "runs/a-1.5_b+c");
        assert_eq!(quoted(Path::new("it's here")), r"'it'\''s here'");
    }

    #[test]
    fn a_beginning_ends_between_words_and_never_within_a_character() {
        let check = |text: &str, expected: &str| assert_eq!(beginning(text), expected);
        check("\n  \n***\nFirst Citizen:\nBefore we proceed", "First Citizen:");
        check("It was the best of times, it was the worst", "It was the best of");
        check(
            "옛날 옛적에 깊은 산속에 호랑이 한 마리가 살고 있었어요.",
            "옛날 옛적에 깊은 산속에 호랑이 한 마리가",
        );
        // 24 characters and a space after them.
        check("123456789 123456789 1234 more", "123456789 123456789 1234");
        check(
            "吾輩は猫である名前はまだ無いどこで生れたかとんと見当がつかぬ",
            "吾輩は猫である名前はまだ無いどこで生れたかとんと",
        );
        check("", "");
    }
}
