//! Tasks of decoders: batches against single runs, streams against whole texts, and conversations that are read once.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use andiron_core::{Backend, DeviceSpec};
use andiron_data::tokenizer::{Message, SpecialTokens, Tokenizer, train_chars};
use andiron_kernels::random::Seed;
use andiron_models::decoder::gpt2::Gpt2Config;
use andiron_models::generate::{BeamOptions, GenerateOptions, SamplingParams};
use andiron_models::{DecoderBundle, DecoderConfig};
use andiron_pipelines::{
    CompletionError, Conversation, DecoderPipeline, GenerateRequest, Pipeline, PromptInput, TextError,
    TextStreamError,
};
use serde_json::{Map, json};

const CONTEXT: usize = 256;

fn tokenizer() -> Tokenizer {
    let plain =
        train_chars(["abcdefghijklmnopqrstuvwxyz <>:"], &SpecialTokens::end_of_text("<|end|>")).unwrap();
    let template = "{% for m in messages %}<{{ m.role }}:{{ m.content }}>{% endfor %}<assistant:";
    let config: Map<_, _> = [("chat_template".to_owned(), json!(template))].into_iter().collect();
    let json = String::from_utf8(plain.json().to_vec()).unwrap();
    Tokenizer::from_contents(json.as_bytes(), config).unwrap()
}

fn bundle(vocab_size: usize) -> DecoderBundle {
    let config = Gpt2Config {
        n_positions: CONTEXT,
        n_embd: 16,
        n_layer: 2,
        n_head: 2,
        initializer_range: 0.5,
        ..Gpt2Config::nano(vocab_size)
    };
    let device = DeviceSpec { backend: Backend::Ndarray, index: None }.open().unwrap();
    DecoderBundle::init(DecoderConfig::Gpt2(config), Seed::new(5), &device)
}

fn pipeline() -> DecoderPipeline {
    let tokenizer = tokenizer();
    Pipeline::new(bundle(tokenizer.vocab_size()), Some(tokenizer))
}

fn options(max_new_tokens: usize, seed: u64) -> GenerateOptions {
    let sampling = SamplingParams { seed, ..SamplingParams::default() };
    GenerateOptions { sampling, max_new_tokens, ..GenerateOptions::default() }
}

fn request(
    model: &DecoderPipeline,
    prompt: &str,
    options: GenerateOptions,
    stops: &[&str],
) -> GenerateRequest {
    let prompt = model.prompt_ids(&prompt.into()).unwrap();
    GenerateRequest { prompt, options, stops: Some(stops.iter().map(|&stop| stop.to_owned()).collect()) }
}

#[test]
fn requests_of_a_batch_get_what_each_gets_alone_in_order() {
    let model = pipeline();
    let mut requests: Vec<GenerateRequest> = (0..12)
        .map(|n| request(&model, &"abc ".repeat(1 + n % 5), options(3 + n, n as u64), &["h"]))
        .collect();
    requests[3].stops = Some(vec![String::new()]);
    requests[7].prompt = vec![1; CONTEXT];
    for rows in [1, 4, 100] {
        let together = model.generate_batch(requests.clone(), rows);
        assert_eq!(together.len(), requests.len());
        for (at, (request, done)) in requests.iter().zip(together).enumerate() {
            match (model.generate(request.clone(), |_| ()), done) {
                (Ok(alone), Ok(done)) => {
                    assert_eq!((&done.text, &done.ids), (&alone.text, &alone.ids), "request {at}");
                    assert_eq!(done.finish_reason, alone.finish_reason);
                    assert!((done.sum_logprob - alone.sum_logprob).abs() < 1e-4);
                }
                (Err(alone), Err(done)) => assert_eq!(alone.to_string(), done.to_string()),
                _ => panic!("request {at} is good only alone, or only in company"),
            }
        }
    }
    let failed: Vec<bool> = model.generate_batch(requests, 5).iter().map(Result::is_err).collect();
    assert_eq!(failed.iter().positions(), [3, 7]);
}

/// Where a list says true.
trait Positions {
    fn positions(self) -> Vec<usize>;
}

impl<'a, I: Iterator<Item = &'a bool>> Positions for I {
    fn positions(self) -> Vec<usize> {
        self.enumerate().filter(|(_, is)| **is).map(|(at, _)| at).collect()
    }
}

#[test]
fn what_is_shown_is_the_text_and_an_end_id_ends_it() {
    let model = pipeline();
    let mut shown = String::new();
    let done =
        model.generate(request(&model, "ab", options(40, 1), &[]), |piece| shown.push_str(piece)).unwrap();
    assert_eq!((done.text.as_str(), done.finish_reason.as_str()), (shown.as_str(), "length"));
    let end = done.ids[6];
    let cut = done.ids.iter().position(|&id| id == end).unwrap();
    let mut ending = model.clone();
    ending.text = andiron_pipelines::TextProcessor::new(Some(tokenizer()), vec![end]);
    let short = ending.generate(request(&ending, "ab", options(40, 1), &[]), |_| ()).unwrap();
    assert_eq!((&short.ids[..], short.finish_reason.as_str()), (&done.ids[..=cut], "stop"));
    assert!(done.text.starts_with(&short.text) && short.text.chars().count() == cut);
}

#[test]
fn stop_strings_of_the_files_end_a_text_unless_the_request_has_its_own() {
    let mut model = pipeline();
    let free = |stops| GenerateRequest { stops, ..request(&pipeline(), "ab", options(40, 1), &[]) };
    let whole = model.generate(free(None), |_| ()).unwrap();
    assert_eq!(whole.finish_reason.as_str(), "length");
    let stop: String = whole.text.chars().skip(5).take(3).collect();
    let cut = whole.text.find(&stop).unwrap();
    model.bundle.generation.stop_strings = vec!["<no such>".to_owned(), stop];
    let stopped = model.generate(free(None), |_| ()).unwrap();
    assert_eq!((stopped.text.as_str(), stopped.finish_reason.as_str()), (&whole.text[..cut], "stop"));
    for done in model.generate_batch(vec![free(None), free(None)], 2) {
        assert_eq!(done.unwrap().text, stopped.text);
    }
    for own in [vec![], vec!["<no such>".to_owned()]] {
        assert_eq!(model.generate(free(Some(own)), |_| ()).unwrap().text, whole.text);
    }
    let searched = model.search(&[1], &BeamOptions::default());
    assert!(matches!(searched, Err(CompletionError::StopStringsWithBeams)));
}

#[test]
fn stop_strings_of_the_files_end_an_answer() {
    let mut model = pipeline();
    let answer = |model: &DecoderPipeline| {
        let mut conversation = Conversation::new(Vec::new(), options(0, 4), Some(30));
        model.reply(&mut conversation, "ab".to_owned(), |_| ()).unwrap().text
    };
    let whole = answer(&model);
    let stop: String = whole.chars().skip(4).take(2).collect();
    model.bundle.generation.stop_strings = vec![stop.clone()];
    assert_eq!(answer(&model), whole[..whole.find(&stop).unwrap()]);
}

#[test]
fn scores_of_a_batch_are_those_of_each_text_alone() {
    let model = pipeline();
    let mut texts: Vec<PromptInput> =
        (0..40).map(|n| PromptInput::Text("abcd efgh".repeat(1 + n * 7 % 11))).collect();
    texts[9] = PromptInput::Ids(Vec::new());
    texts[10] = PromptInput::Ids(vec![3]);
    texts[20] = PromptInput::Ids(vec![1; CONTEXT + 1]);
    texts[21] = "XYZ".into();
    let together = model.score(&texts);
    for (text, scored) in texts.iter().zip(&together) {
        match (model.score(std::slice::from_ref(text)).pop().unwrap(), scored) {
            (Ok(alone), Ok(scored)) => {
                assert_eq!((&scored.ids, scored.bytes), (&alone.ids, alone.bytes));
                assert_eq!(scored.scores.is_greedy, alone.scores.is_greedy);
                assert_eq!(scored.scores.logprobs.len(), scored.ids.len());
                for (a, b) in scored.scores.logprobs.iter().zip(&alone.scores.logprobs) {
                    assert!(a.zip(*b).is_none_or(|(a, b)| (a - b).abs() < 1e-5), "{a:?} {b:?}");
                }
            }
            (Err(alone), Err(error)) => assert_eq!(alone.to_string(), error.to_string()),
            _ => panic!("{text:?} is good only alone, or only in company"),
        }
    }
    assert_eq!(together.iter().map(Result::is_err).collect::<Vec<_>>().iter().positions(), [20, 21]);
}

#[test]
fn a_turn_reads_only_what_is_new_and_says_the_same() {
    let model = pipeline();
    let opening = || vec![Message::new("system", "abc def")];
    let greedy = GenerateOptions { sampling: SamplingParams::greedy(), ..GenerateOptions::default() };
    let mut conversation = Conversation::new(opening(), greedy.clone(), Some(6));
    let mut so_far = opening();
    let mut known = 0;
    for message in ["aa", "bb cc", "d"] {
        let mut shown = String::new();
        let done = model.reply(&mut conversation, message.to_owned(), |piece| shown.push_str(piece)).unwrap();
        so_far.push(Message::new("user", message));
        // The same from a conversation that the model has not seen.
        let mut anew = Conversation::new(so_far[..so_far.len() - 1].to_vec(), greedy.clone(), Some(6));
        let alone = model.reply(&mut anew, message.to_owned(), |_| ()).unwrap();
        assert_eq!((&done.text, &done.ids, &shown), (&alone.text, &alone.ids, &done.text));
        assert_eq!(anew.read_tokens(), anew.prompt_tokens());
        assert_eq!(conversation.prompt_tokens(), anew.prompt_tokens());
        // The template closes an answer with one more character, and the answer's last token was never read.
        assert_eq!(conversation.prompt_tokens() - conversation.read_tokens(), known, "{message}");
        known = conversation.prompt_tokens() + done.ids.len() - 1;
        so_far.push(Message::new("assistant", done.text));
        assert_eq!(conversation.messages().len(), so_far.len());
    }
    conversation.reset(opening());
    model.reply(&mut conversation, "bb".to_owned(), |_| ()).unwrap();
    assert!(conversation.read_tokens() < conversation.prompt_tokens() - "<system:abc def>".len());
}

#[test]
fn a_conversation_that_fails_is_what_it_was() {
    let model = pipeline();
    let mut conversation = Conversation::new(Vec::new(), GenerateOptions::default(), Some(4));
    let long = model.reply(&mut conversation, "a".repeat(CONTEXT), |_| ());
    assert!(matches!(long, Err(CompletionError::Generate(_))));
    assert!(conversation.messages().is_empty());
    model.check_chat(&[]).unwrap();
    let bare = Pipeline::new(bundle(20), None);
    assert!(matches!(bare.check_chat(&[]), Err(TextError::NoTokenizer)));
    let stop =
        GenerateRequest { prompt: vec![1], stops: Some(vec!["a".to_owned()]), ..GenerateRequest::default() };
    let refused = bare.generate(stop, |_| ());
    assert!(matches!(refused, Err(CompletionError::Text(TextStreamError::StopWithoutTokenizer))));
    assert!(matches!(bare.prompt_ids(&"a".into()), Err(TextError::NoTokenizer)));
}
