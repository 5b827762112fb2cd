//! A request gets the same answer, to the last bit of its log-probabilities, alone and in any company.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use andiron_core::DeviceSpec;
use andiron_kernels::random::Seed;
use andiron_models::{DecoderBundle, DecoderConfig};
use serde_json::{Value, json};

use crate::common::Place;
use crate::same_text::byte_level;
use crate::serve::Server;

const REQUESTS: usize = 200;

/// Writes a decoder of random weights to `run/model`, wide enough for quantized blocks and for tiles.
fn model(place: &Place) {
    let tokenizer = byte_level();
    let n_ids = tokenizer["model"]["vocab"].as_object().unwrap().len();
    let config = json!({
        "model_type": "llama", "vocab_size": n_ids, "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.3,
    });
    let config: DecoderConfig = serde_json::from_value(config).unwrap();
    let device = DeviceSpec::first_compiled().unwrap().open().unwrap();
    DecoderBundle::init(config, Seed::new(3), &device).save(&place.path("run/model")).unwrap();
    place.write("run/model/tokenizer.json", tokenizer.to_string());
    place.write("run/model/tokenizer_config.json", r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#);
}

/// Greedy and seeded requests of many lengths; a third begin alike, and some are scored.
fn requests() -> Vec<Value> {
    let draw = Seed::new(17);
    let request = |number: usize| {
        let bits = draw.at(number as u64);
        let len = 1 + bits.below(0, 150);
        let prompt: Vec<u64> = (0..len)
            .map(
                |at| if number.is_multiple_of(3) && at < 100 { 65 + at % 7 } else { bits.below(9 + at, 250) },
            )
            .collect();
        let mut request = json!({
            "prompt": prompt, "max_tokens": 1 + bits.below(1, 24), "temperature": (number % 2) as f64, "seed": number,
            "logprobs": 2, "echo": number % 5 == 4, "ignore_eos": true,
        });
        if number % 10 == 3 {
            request["n"] = json!(2);
        }
        request
    };
    (0..REQUESTS).map(request).collect()
}

/// The choices of each answer, from this many clients, which send the requests in an order of their own.
fn choices(server: &Server, requests: &[Value], clients: usize) -> Vec<Value> {
    let draw = Seed::new(clients as u64);
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&number| draw.bits(number as u64));
    let (next, answers) = (AtomicUsize::new(0), Mutex::new(vec![Value::Null; requests.len()]));
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while let Some(&number) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let choices = server.complete(&requests[number])["choices"].take();
                    answers.lock().unwrap()[number] = choices;
                }
            });
        }
    });
    answers.into_inner().unwrap()
}

#[test]
fn an_answer_does_not_depend_on_the_company_the_cache_or_the_memory() {
    let place = Place::new();
    model(&place);
    let requests = requests();
    for precision in ["f32", "mixed", "int4"] {
        let alone = Server::start(&place, &["--precision", precision, "--no-prefix-cache"]);
        let wanted = choices(&alone, &requests, 1);
        alone.stop();
        let company: [&[&str]; 2] = [
            &["--max-running", "24"],
            // Memory for five to ten sequences, so that some are preempted.
            &["--max-running", "16", "--kv-cache-bytes", "1MiB", "--prompt-lookup", "3"],
        ];
        for flags in company {
            let server = Server::start(&place, &[&["--precision", precision], flags].concat());
            let got = choices(&server, &requests, 24);
            server.stop();
            for (number, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
                assert_eq!(got, wanted, "{precision}, {flags:?}, request {number}: {}", requests[number]);
            }
        }
    }
}
