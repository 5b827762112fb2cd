use super::*;

#[track_caller]
fn check(text: &str, expected: &str) {
    let mut words = Vec::new();
    for_each_word(text, |word| words.push(word));
    assert_eq!(words.join(" "), expected, "{text:?}");
}

// Every split here was seen in spaCy 3.8.18, `spacy.blank("en")`.

#[test]
fn punctuation_is_split_from_words() {
    check("Hello, world!", "Hello , world !");
    check("(He said: \u{201c}No...\u{201d})", "( He said : \u{201c} No ... \u{201d} )");
    check("well-known e-mail x--y 1-2", "well - known e - mail x -- y 1 - 2");
    check("and/or yes/no a,b 1,000.5", "and/or yes / no a , b 1,000.5");
    check("10km 5% $3 US$20 3€ 90°F.", "10 km 5 % $ 3 US$ 20 3 € 90 ° F .");
    check("end.Start J.R.R. U.S. 한국어.", "end . Start J.R.R. U.S. 한국어 .");
    check("+1 1+ a+b 2*3", "+1 1 + a+b 2 * 3");
}

#[test]
fn exceptions_are_split_in_their_own_way() {
    check("I don't, can't or won't.", "I do n't , ca n't or wo n't .");
    check("don\u{2019}t cannot gonna we're they'll've", "do n\u{2019}t can not gon na we 're they 'll 've");
    check("Mr. Smith, Ph.D., e.g. at 5p.m.", "Mr. Smith , Ph.D. , e.g. at 5 p.m.");
    check("well were its ill :-) (:-) o.O", "well were its ill :-) ( :-) o.O");
    check("plan/a. x-o.O", "plan / a. x - o.O");
}

#[test]
fn addresses_are_one_word() {
    check("see http://www.example.com/a-b?c=d, ok", "see http://www.example.com/a-b?c=d , ok");
    check(
        "me@example.org example.com:80 8.8.8.8 www.a-b.co.uk/x",
        "me@example.org example.com:80 8.8.8.8 www.a-b.co.uk/x",
    );
}

#[test]
fn sentences_are_those_of_the_sentencizer() {
    let sentences = |text| {
        let mut found: Vec<&str> = Vec::new();
        for_each_sentence(text, |sentence| found.push(sentence));
        found
    };
    let count_sentences = |text| sentences(text).len();
    assert_eq!(sentences("One. Two?! \"Three.\"  Four\n"), ["One.", " Two?! \"", "Three.\"", "  Four\n"]);
    assert_eq!(count_sentences("One. Two! Three? \"Four.\" Five"), 5);
    assert_eq!(count_sentences("Mr. Smith went home."), 1);
    assert_eq!(count_sentences(""), 1);
    assert_eq!(count_sentences("Wait...  what?! No."), 2);
}
