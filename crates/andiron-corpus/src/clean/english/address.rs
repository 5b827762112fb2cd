//! Addresses of the web and of mail, which are one word.

use super::super::characters::{Characters, Classes};

/// Whether the whole text is an address: an optional scheme, an optional user, a host name or a public IPv4 address, an
/// optional port and path.
pub(super) fn is_address(text: &str, characters: &Characters) -> bool {
    if !text.contains('.') {
        return false;
    }
    let word = |c: char| matches!(c, '+' | '-' | '.') || characters.is(c, Classes::WORD);
    let scheme =
        text.find("://").filter(|&at| text[..at].chars().all(word) && text[..at].chars().nth(1).is_some());
    let starts = [Some(0), scheme.map(|at| at + 3)];
    starts.into_iter().flatten().any(|start| {
        let rest = &text[start..];
        is_host_and_path(rest, characters)
            || rest.match_indices('@').any(|(at, _)| at > 0 && is_host_and_path(&rest[at + 1..], characters))
    })
}

fn is_host_and_path(text: &str, characters: &Characters) -> bool {
    let host = text.find([':', '/', '?', '#', '@']).unwrap_or(text.len());
    let (host, rest) = text.split_at(host);
    (is_public_ip(host, characters) || is_domain(host, characters)) && is_port_and_path(rest, characters)
}

fn is_port_and_path(text: &str, characters: &Characters) -> bool {
    let path = match text.strip_prefix(':') {
        None => text,
        Some(rest) => {
            let digits = rest.chars().take_while(|&c| characters.is(c, Classes::DIGIT));
            let (count, bytes) = digits.fold((0, 0), |(count, bytes), c| (count + 1, bytes + c.len_utf8()));
            if !(2..=5).contains(&count) {
                return false;
            }
            &rest[bytes..]
        }
    };
    path.is_empty() || path.starts_with(['/', '?', '#'])
}

fn is_domain(host: &str, characters: &Characters) -> bool {
    let Some((labels, top)) = host.rsplit_once('.') else { return false };
    let letters = top.chars().take(64).count();
    (2..=63).contains(&letters)
        && top.chars().all(|c| characters.is(c, Classes::LOWER))
        && labels.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || ('\u{a1}'..='\u{ffff}').contains(&c);
    label.chars().take(65).count() <= 64
        && label.starts_with(inner)
        && label.ends_with(inner)
        && label.chars().all(|c| inner(c) || c == '-' || c == '_')
}

/// Four numbers, of which the first is 1–223 and the last 1–254, and not of a private network.
fn is_public_ip(host: &str, characters: &Characters) -> bool {
    if !host.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    let mut numbers = [""; 4];
    let mut count = 0;
    for number in host.split('.') {
        if count == 4 || number.is_empty() || number.len() > 12 {
            return false;
        }
        if !number.chars().all(|c| characters.is(c, Classes::DIGIT)) {
            return false;
        }
        numbers[count] = number;
        count += 1;
    }
    // Only ASCII digits have a value here; those of other scripts, which the original lets pass in some places, do not.
    let value = |index: usize, zeros: bool| {
        let number: &str = numbers[index];
        let value: u32 = number.parse().ok().filter(|_| number.len() <= 3)?;
        (zeros && number.len() <= 2 || !number.starts_with('0')).then_some(value)
    };
    let (Some(a), Some(b), Some(c), Some(d)) =
        (value(0, false), value(1, true), value(2, true), value(3, false))
    else {
        return false;
    };
    let private = matches!((a, b), (10 | 127, _) | (169, 254) | (192, 168) | (172, 16..=31));
    count == 4 && (1..=223).contains(&a) && b <= 255 && c <= 255 && (1..=254).contains(&d) && !private
}
