//! Personal data: addresses of mail and of computers, telephone numbers.

use andiron_data::Document;
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::{Filter, FilterError, Verdict};

/// Replaces personal data by harmless ones of the same kind. Replacements are used in turns, from the first in each document.
///
/// Source: datatrove 0.10.1, `formatters/pii.py`, whose patterns these are, written anew. There the turns go on from document to
/// document, so that a text depends on those before it; here it does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PersonalData {
    /// Whether addresses of mail are replaced.
    pub emails: bool,
    /// Whether IPv4 addresses are replaced.
    pub ips: bool,
    /// Whether addresses of private networks and the like stay.
    pub public_ips_only: bool,
    /// Whether telephone numbers are replaced: with `+` and a country code, or in three groups such as `(202) 555-0123` and
    /// `010-1234-5678`. A rule of our own; it takes other numbers of that form too.
    pub phone_numbers: bool,
    /// What stands in for an address of mail.
    pub email_replacements: Vec<String>,
    /// What stands in for an IPv4 address.
    pub ip_replacements: Vec<String>,
    /// What stands in for a telephone number.
    pub phone_replacements: Vec<String>,
}

impl Default for PersonalData {
    fn default() -> Self {
        Self {
            emails: true,
            ips: true,
            public_ips_only: true,
            phone_numbers: false,
            email_replacements: ["email@example.com", "firstname.lastname@example.org"]
                .map(String::from)
                .into(),
            ip_replacements: [
                "22.214.171.124",
                "126.96.36.199",
                "188.8.131.52",
                "184.108.40.206",
                "220.127.116.11",
                "18.104.22.168",
            ]
            .map(String::from)
            .into(),
            phone_replacements: vec!["+1 202-555-0123".into()],
        }
    }
}

/// A [`PersonalData`] that is ready to run.
pub(super) struct PersonalDataFilter {
    settings: PersonalData,
    email: Regex,
    ip: Regex,
    phone: Regex,
}

impl PersonalDataFilter {
    pub(super) fn new(settings: PersonalData) -> Result<Self, FilterError> {
        let error = |problem| FilterError { filter: "personal-data", problem };
        for (used, replacements, name) in [
            (settings.emails, &settings.email_replacements, "email_replacements"),
            (settings.ips, &settings.ip_replacements, "ip_replacements"),
            (settings.phone_numbers, &settings.phone_replacements, "phone_replacements"),
        ] {
            if used && replacements.is_empty() {
                return Err(error(format!("{name} is empty; give at least one text")));
            }
        }
        let local = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+";
        let label = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?";
        let number = "(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)";
        let literal = format!(r"\[(?:{number}\.){{3}}(?:{number}|[A-Za-z0-9-]*[A-Za-z0-9]:)\]");
        let email = format!(r"\b{local}(?:\.{local})*@(?:(?:{label}\.)+{label}|{literal})");
        let ip = format!(r"(?:{number}\.){{3}}{number}");
        let phone = r"\+[0-9]{1,3}(?:[ .-]?\(?[0-9]{2,4}\)?){2,5}\b|(?:\([0-9]{2,4}\) ?|\b[0-9]{2,4}[ .-])[0-9]{3,4}[ .-][0-9]{4}\b";
        let compile = |pattern: &str| Regex::new(pattern).map_err(|cause| error(cause.to_string()));
        Ok(Self { email: compile(&email)?, ip: compile(&ip)?, phone: compile(phone)?, settings })
    }
}

impl Filter for PersonalDataFilter {
    fn apply(&self, document: &mut Document) -> Verdict {
        let settings = &self.settings;
        if settings.emails && document.text.contains('@') {
            replace(&self.email, &mut document.text, &settings.email_replacements, |_| true);
        }
        if settings.ips {
            let personal = |ip: &str| is_address(ip, settings.public_ips_only);
            replace(&self.ip, &mut document.text, &settings.ip_replacements, personal);
        }
        if settings.phone_numbers {
            let plausible =
                |number: &str| (8..=15).contains(&number.bytes().filter(u8::is_ascii_digit).count());
            replace(&self.phone, &mut document.text, &settings.phone_replacements, plausible);
        }
        Verdict::Keep
    }
}

fn replace(pattern: &Regex, text: &mut String, replacements: &[String], is_personal: impl Fn(&str) -> bool) {
    let mut replaced = String::new();
    let mut from = 0;
    let mut next = replacements.iter().cycle();
    for found in pattern.find_iter(text) {
        if is_personal(found.as_str())
            && let Some(replacement) = next.next()
        {
            replaced.push_str(&text[from..found.start()]);
            replaced.push_str(replacement);
            from = found.end();
        }
    }
    if from > 0 {
        replaced.push_str(&text[from..]);
        *text = replaced;
    }
}

/// Whether this is an address, and if asked one of the internet; Python's `ipaddress` has no leading zeros.
fn is_address(text: &str, public_only: bool) -> bool {
    let mut numbers = [0; 4];
    for (number, text) in numbers.iter_mut().zip(text.split('.')) {
        if text.len() > 1 && text.starts_with('0') {
            return false;
        }
        let Ok(value) = text.parse() else { return false };
        *number = value;
    }
    !public_only || is_public(numbers)
}

/// Python 3.11's `ipaddress.IPv4Address.is_global`.
fn is_public(numbers: [u8; 4]) -> bool {
    match numbers {
        [0 | 10 | 127 | 240..=255, ..]
        | [169, 254, ..]
        | [192, 168, ..]
        | [172, 16..=31, ..]
        | [198, 18..=19, ..] => false,
        [192, 0, 0, last] => !matches!(last, 0..=7 | 170..=171),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [100, 64..=127, ..] => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(settings: PersonalData, text: &str) -> String {
        let mut document = Document::new("a", text);
        PersonalDataFilter::new(settings).unwrap().apply(&mut document);
        document.text
    }

    // Seen in datatrove 0.10.1.
    #[test]
    fn addresses_are_masked() {
        let text = "Mail ann.b+c@mail.example.co.kr, bob@x.io or (c@d) at 8.8.8.8, 192.168.0.1, 08.8.8.8, 1.2.3.4.5 and 999.1.1.1.";
        let expected = "Mail email@example.com, firstname.lastname@example.org or (c@d) at 22.214.171.124, 192.168.0.1, \
            08.8.8.8, 126.96.36.199.5 and 9188.8.131.52.";
        assert_eq!(masked(PersonalData::default(), text), expected);
    }

    #[test]
    fn telephone_numbers_are_masked_if_asked() {
        let phones =
            PersonalData { phone_numbers: true, ips: false, emails: false, ..PersonalData::default() };
        let masked = |text| masked(phones.clone(), text);
        assert_eq!(
            masked("call (202) 555-0188 or 010-1234-5678."),
            "call +1 202-555-0123 or +1 202-555-0123."
        );
        assert_eq!(masked("call +82 10 1234 5678, room 12-34."), "call +1 202-555-0123, room 12-34.");
        assert_eq!(masked("in 1999-2004 and 2004-10-31"), "in 1999-2004 and 2004-10-31");
    }

    #[test]
    fn replacements_must_exist() {
        let none = PersonalData { email_replacements: Vec::new(), ..PersonalData::default() };
        let message = PersonalDataFilter::new(none).err().unwrap().to_string();
        assert_eq!(message, "filter personal-data: email_replacements is empty; give at least one text");
    }
}
