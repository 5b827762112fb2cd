//! Training of vocabularies.

use proptest::prelude::*;

use super::super::*;
use super::TEXT;

#[test]
fn training_gives_the_same_bytes_and_the_size_asked_for() {
    let options = BpeOptions::new(280);
    let text = std::iter::repeat_n(TEXT, 50).collect::<String>();
    let first = train_bpe([&text], &options).unwrap();
    assert_eq!(first.vocab_size(), 280);
    for _ in 0..4 {
        assert_eq!(train_bpe([&text], &options).unwrap().json(), first.json());
    }
    let again = Tokenizer::from_json(first.json()).unwrap();
    assert_eq!(again.fingerprint(), first.fingerprint());
    assert!(first.encode(TEXT).unwrap().len() < TEXT.len() * 2 / 3);
}

#[test]
fn training_refuses_what_cannot_be() {
    let small = train_bpe([TEXT], &BpeOptions::new(256)).unwrap_err();
    assert!(matches!(small, TrainError::VocabularyTooSmall { asked: 256, least: 257 }));
    assert!(matches!(train_bpe([""], &BpeOptions::new(300)), Err(TrainError::NoText)));
    assert!(matches!(train_chars([""; 0], &SpecialTokens::default()), Err(TrainError::NoText)));
    let special = SpecialTokens::end_of_text("a");
    assert!(matches!(train_chars(["a"], &special), Err(TrainError::ControlToken { .. })));
    let special = SpecialTokens::end_of_text("");
    assert!(matches!(train_chars(["a"], &special), Err(TrainError::ControlToken { .. })));
}

#[test]
fn characters_are_numbered_in_order() {
    let tokenizer = train_chars(["b é\n", "a"], &SpecialTokens::end_of_text("<end>")).unwrap();
    let spelled: Vec<_> = (0..6).map(|id| tokenizer.id_to_token(id).unwrap()).collect();
    assert_eq!(spelled, ["\n", " ", "a", "b", "é", "<end>"]);
    assert_eq!((tokenizer.vocab_size(), tokenizer.eos_id()), (6, Some(5)));
    assert!(tokenizer.inner.facts.characters.is_some());
    let unknown = tokenizer.encode("ab\u{1F525}").unwrap_err();
    assert!(matches!(unknown, TokenizerError::UnknownCharacter { character: '🔥', offset: 2 }));
    assert!(matches!(tokenizer.encode_markup("a<end>x"), Err(TokenizerError::UnknownCharacter { .. })));
}

#[test]
fn the_fast_path_for_characters_gives_what_the_library_gives() {
    let tokenizer = train_chars([TEXT], &SpecialTokens::default()).unwrap();
    let library = tokenizer.inner.literal.encode(TEXT, false).unwrap();
    assert_eq!(tokenizer.encode(TEXT).unwrap(), library.get_ids());
    assert!(tokenizer.inner.literal.encode("#", false).is_err());
}

/// Text with repeated and rare words, of several scripts.
fn corpus() -> Vec<String> {
    let words =
        ["low", "lower", "newest", "widest", "aaaa", "한국어", "한국은", "été", "naïve", "x1", "...", "(a)"];
    let mut state = 1u32;
    let mut line = || {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as usize
        };
        let n = 3 + next() % 9;
        (0..n).map(|_| words[next() % words.len().min(1 + next() % 12)]).collect::<Vec<_>>().join(" ")
    };
    (0..400).map(|_| line()).collect()
}

#[test]
fn bpe_is_that_of_the_library() {
    use tokenizers::decoders::byte_level::ByteLevel as Decoder;
    use tokenizers::models::{TrainerWrapper, bpe::BPE, bpe::BpeTrainer};
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    for (texts, size) in [(corpus(), 330), (vec![TEXT.repeat(20), "aaaaaaaa aaaa".repeat(9)], 400)] {
        let mut trainer: TrainerWrapper = BpeTrainer::builder()
            .vocab_size(size)
            .min_frequency(2)
            .special_tokens(vec![AddedToken::from("<|endoftext|>", true)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .show_progress(false)
            .build()
            .into();
        let mut library = tokenizers::Tokenizer::new(BPE::default());
        library.with_pre_tokenizer(Some(ByteLevel::new(false, false, true)));
        library.with_decoder(Some(Decoder::new(false, false, true)));
        library.train(&mut trainer, texts.iter()).unwrap();
        let ours = train_bpe(&texts, &BpeOptions::new(size)).unwrap();
        assert_eq!(std::str::from_utf8(ours.json()).unwrap(), library.to_string(true).unwrap());
    }
}

// The vocabulary is that of `BertWordPieceTokenizer.train_from_iterator` of Python's tokenizers 0.23.3, whose ids of `##`
// letters differ from run to run.
#[test]
fn word_piece_merges_pairs() {
    let options = WordPieceOptions::new(60);
    let tokenizer = train_word_piece(corpus(), &options).unwrap();
    for _ in 0..3 {
        assert_eq!(train_word_piece(corpus(), &options).unwrap().json(), tokenizer.json());
    }
    let first: Vec<_> = (0..6).map(|id| tokenizer.id_to_token(id).unwrap()).collect();
    assert_eq!(first, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "("]);
    assert!(tokenizer.vocab_size() <= 60);
    // Without case and accents.
    assert_eq!(tokenizer.encode("LOWER Été").unwrap(), tokenizer.encode("lower ete").unwrap());
    assert_eq!(tokenizer.frame("low", Some("low"), 99).unwrap().ids.len(), 5);
    let few = WordPieceOptions { limit_alphabet: 3, ..options };
    let tokenizer = train_word_piece(["bbb ddd ccc aaa"], &few).unwrap();
    assert_eq!(
        tokenizer.encode("aaa ddd").unwrap().last(),
        Some(&1),
        "of equally frequent letters the first are kept"
    );
    assert!(matches!(
        train_word_piece(corpus(), &WordPieceOptions::new(20)),
        Err(TrainError::VocabularyTooSmall { asked: 20, .. })
    ));
    assert!(matches!(train_word_piece([""], &WordPieceOptions::new(20)), Err(TrainError::NoText)));
}

#[test]
fn unigram_training_repeats_itself() {
    let options = UnigramOptions::new(170);
    let tokenizer = train_unigram(corpus(), &options).unwrap();
    for _ in 0..5 {
        assert_eq!(train_unigram(corpus(), &options).unwrap().json(), tokenizer.json());
    }
    let text = "lower 한국어 newest";
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(tokenizer.decode(&ids, Special::Skip).unwrap(), text);
    assert!(ids.len() < 12, "{ids:?}");
    assert_eq!(tokenizer.encode_framed("low").unwrap().last().copied(), tokenizer.eos_id());
    assert!(matches!(
        train_unigram(corpus(), &UnigramOptions::new(110)),
        Err(TrainError::VocabularyTooSmall { asked: 110, .. })
    ));
    assert!(matches!(train_unigram([""], &options), Err(TrainError::NoText)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn characters_are_exact(text in any::<String>()) {
        prop_assume!(!text.is_empty());
        let tokenizer = train_chars([&text], &SpecialTokens::default()).unwrap();
        let ids = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(ids.len(), text.chars().count());
        prop_assert_eq!(tokenizer.decode(&ids, Special::Skip).unwrap(), text);
    }
}

/// The first ids by their tokens, and how a text and a pair of texts are framed.
#[track_caller]
fn check_framing(options: &BpeOptions, first: &[&str], [one, pair]: [&str; 2]) {
    let tokenizer = train_bpe([TEXT], options).unwrap();
    let spelled: Vec<_> = (0..first.len() as u32).map(|id| tokenizer.id_to_token(id).unwrap()).collect();
    assert_eq!(spelled, first);
    let framed = |second| {
        let ids = tokenizer.frame("a", second, 9).unwrap().ids;
        ids.iter().map(|&id| tokenizer.id_to_token(id).unwrap()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!([framed(None), framed(Some("b"))], [one, pair]);
    // What is saved is opened with the same roles.
    let dir = tempfile::tempdir().unwrap();
    tokenizer.save(dir.path()).unwrap();
    let opened = Tokenizer::load(dir.path()).unwrap();
    assert_eq!((opened.eos_id(), opened.pad_id(), opened.mask_id()), {
        let id = |role: &Option<String>| tokenizer.token_to_id(role.as_ref()?);
        let special = &options.special_tokens;
        (id(&special.eos), id(&special.pad), id(&special.mask))
    });
}

/// The frames are those of `RobertaTokenizer` and `T5Tokenizer` of transformers 5.24.0.
#[test]
fn a_vocabulary_is_framed_for_its_model() {
    check_framing(&BpeOptions::new(400), &["<|endoftext|>", "!"], ["a", "a b"]);
    check_framing(
        &BpeOptions::roberta(400),
        &["<s>", "<pad>", "</s>", "<unk>", "<mask>", "!"],
        ["<s> a </s>", "<s> a </s> </s> b </s>"],
    );
    let t5 = ["<pad>", "</s>", "<unk>", "<extra_id_99>", "<extra_id_98>"];
    check_framing(&BpeOptions::t5(400), &t5, ["a </s>", "a </s> b </s>"]);
    let tokenizer = train_bpe([TEXT], &BpeOptions::t5(400)).unwrap();
    assert_eq!(tokenizer.sentinels().map(|sentinels| (sentinels.first, sentinels.count)), Some((102, 100)));
    let tokenizer = train_bpe([TEXT], &BpeOptions::fill_in_the_middle(400)).unwrap();
    assert_eq!((tokenizer.missing_middle_tokens().len(), tokenizer.eos_id()), (0, Some(0)));
}

#[test]
fn a_mask_takes_the_space_before_it() {
    let tokenizer = train_bpe([TEXT], &BpeOptions::roberta(400)).unwrap();
    let ids = tokenizer.frame_masked("a <mask> b", 9).unwrap().ids;
    let spelled: Vec<_> = ids.iter().map(|&id| tokenizer.id_to_token(id).unwrap()).collect();
    assert_eq!(spelled[..3], ["<s>", "a", "<mask>"]);
}

#[test]
fn a_framing_needs_its_tokens() {
    let options = BpeOptions { framing: Framing::Roberta, ..BpeOptions::new(400) };
    let refused = train_bpe([TEXT], &options).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "special_tokens.sep is missing, which the control tokens around a text need"
    );
}
