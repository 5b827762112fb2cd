"""Makes `generation.json` of some fixtures: what `transformers` generates with settings in `generation_config.json`.

Each entry has the `settings` that go over those of the fixture's file, the ids of the prompt (of an encoder-decoder: of the
source), and what is found greedily and with three beams, prompt or start id included, without what fills rows up.
Settings are made from what the model says without them, so that each changes something.
"""
import json
import pathlib

import torch
import transformers

HERE = pathlib.Path(__file__).parent
DECODERS = {"llama": [7, 19, 3, 7, 19], "gpt2": [3, 17, 5]}
READERS = {"bart": [5, 17, 40, 33, 2], "marian": [5, 17, 40, 33, 0], "t5": [5, 17, 40, 33, 1]}
NEW = 10


def settings(said, prompt):
    """What changes the ids `said` after a prompt, or the way to them."""
    first = said[0]
    second = next(id for id in said if id != first)
    pair = [first, second]
    often = max(set(said), key=said.count)
    return [
        {},
        {"bad_words_ids": [[often]]},
        {"bad_words_ids": [pair, [second, first, often]]},
        {"suppress_tokens": [often, -1]},
        {"begin_suppress_tokens": [first]},
        {"begin_suppress_tokens": [first], "forced_bos_token_id": second},
        {"eos_token_id": [first], "min_new_tokens": 4},
        {"eos_token_id": [first, second], "min_length": len(prompt) + 3},
        {"eos_token_id": [often, second], "min_length": 4, "min_new_tokens": 2},
        {"repetition_penalty": 1.7},
        {"encoder_repetition_penalty": 3.0},
        {"encoder_repetition_penalty": 0.4, "repetition_penalty": 1.2},
        {"no_repeat_ngram_size": 2},
        {"encoder_no_repeat_ngram_size": 1},
        {"encoder_no_repeat_ngram_size": 2, "sequence_bias": [[[prompt[0]], 30.0], [[prompt[1]], 30.0]]},
        {"sequence_bias": [[[often], -4.0], [pair, -30.0], [[second, second], 6.0]]},
        {"sequence_bias": [[[often], -4.0], [[often], 1.0]], "repetition_penalty": 1.3},
        {"exponential_decay_length_penalty": [2, 3.0], "eos_token_id": second},
        {"exponential_decay_length_penalty": [0, 0.5], "eos_token_id": first},
        {"forced_eos_token_id": [second]},
        {"forced_eos_token_id": second, "suppress_tokens": [first], "remove_invalid_values": True},
        {"renormalize_logits": True, "suppress_tokens": [first, often]},
        {"length_penalty": 2.0, "early_stopping": True, "eos_token_id": [first, often], "min_new_tokens": 1},
        {"do_sample": False, "temperature": 0.3, "top_k": 3, "bad_words_ids": [[first]]},
    ]


def cut(row, start, ends):
    """A row up to its end."""
    end = next((at + 1 for at, id in enumerate(row) if at >= start and id in ends), len(row))
    return row[:end]


def generate(model, file, prompt, changes, beams):
    reads = model.config.is_encoder_decoder
    config = transformers.GenerationConfig.from_dict(file | changes)
    ends = changes.get("eos_token_id", file.get("eos_token_id"))
    ends = ends if isinstance(ends, list) else [ends]
    model.generation_config = config
    with torch.no_grad():
        made = model.generate(torch.tensor([prompt]), num_beams=beams, max_new_tokens=NEW,
                              pad_token_id=file.get("pad_token_id", 0))
    return cut(made[0].tolist(), 1 if reads else len(prompt), ends)


def make(name, cls):
    model = getattr(transformers, cls).from_pretrained(HERE / name).eval()
    prompt = (DECODERS | READERS)[name]
    start = 1 if name in READERS else len(prompt)
    file = json.loads((HERE / name / "generation_config.json").read_text())
    file = {key: value for key, value in file.items() if key not in ("forced_eos_token_id", "_from_model_config")}
    said = generate(model, file, prompt, {"eos_token_id": None}, 1)[start:]
    if len(set(said)) == 1:
        other = generate(model, file, prompt, {"eos_token_id": None, "suppress_tokens": said[:1]}, 1)[start:]
        said = [said[0], other[0]] + said[2:]
    found = []
    for changes in settings(said, prompt):
        searched = {beams: generate(model, file, prompt, changes, beams) for beams in (1, 3)}
        found.append({"settings": changes, "greedy": searched[1], "beams": searched[3]})
    plain = found[0]
    changed = sum(entry["greedy"] != plain["greedy"] or entry["beams"] != plain["beams"] for entry in found)
    text = {"versions": {"transformers": transformers.__version__}, "file": file, "prompt": prompt,
            "max_new_tokens": NEW, "found": found}
    (HERE / name / "generation.json").write_text(json.dumps(text))
    print(f"{name}: {changed} of {len(found)} settings change something")


def generation():
    make("llama", "LlamaForCausalLM")
    make("gpt2", "GPT2LMHeadModel")
    make("bart", "BartForConditionalGeneration")
    make("marian", "MarianMTModel")
    make("t5", "T5ForConditionalGeneration")


MAKERS = {"generation": generation}
