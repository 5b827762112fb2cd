"""Makes `gpt2/beams.json`: what beam search finds with the fixture `gpt2`, under many settings.

`gpt2/beam_groups.json` is the same of searches in groups, which `transformers` had until its version 4: `cargo xtask golden
beam-groups` wants 4.46.

Sequences are given with their prompt and without what fills rows up; scores are `sequences_scores`.
"""
import json
import pathlib

import torch
import transformers

HERE = pathlib.Path(__file__).parent
PROMPTS = [[3, 17, 5], [40, 8, 8, 1, 33]]
SETTINGS = [
    {},
    {"num_return_sequences": 4},
    {"num_beams": 2, "num_return_sequences": 2},
    {"num_beams": 7, "num_return_sequences": 5},
    {"length_penalty": 0.0, "num_return_sequences": 3},
    {"length_penalty": 0.6},
    {"length_penalty": 2.0, "num_return_sequences": 2},
    {"length_penalty": -1.0, "num_return_sequences": 2},
    {"early_stopping": True, "num_return_sequences": 4},
    {"early_stopping": True, "length_penalty": 2.0},
    {"early_stopping": "never", "num_return_sequences": 4},
    {"early_stopping": "never", "length_penalty": 0.0},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2, "num_return_sequences": 2},
    {"repetition_penalty": 1.3},
    {"min_new_tokens": 5},
    {"max_new_tokens": 1, "num_return_sequences": 4},
    {"renormalize_logits": True, "min_new_tokens": 4},
]


GROUPS = [
    {"num_beam_groups": 2, "diversity_penalty": 0.5, "num_return_sequences": 4},
    {"num_beam_groups": 4, "diversity_penalty": 1.0, "num_return_sequences": 4},
    {"num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 0.2, "num_return_sequences": 6},
    {"num_beams": 6, "num_beam_groups": 2, "diversity_penalty": 2.0, "length_penalty": 0.0, "num_return_sequences": 3},
    {"num_beam_groups": 2, "diversity_penalty": 0.8, "length_penalty": 2.0},
    {"num_beam_groups": 2, "diversity_penalty": 0.3, "no_repeat_ngram_size": 2, "num_return_sequences": 2},
    {"num_beam_groups": 2, "diversity_penalty": 0.3, "repetition_penalty": 1.3, "num_return_sequences": 2},
    {"num_beam_groups": 2, "diversity_penalty": 0.5, "early_stopping": True, "num_return_sequences": 4},
    {"num_beam_groups": 2, "diversity_penalty": 1.5, "num_return_sequences": 4},
    {"num_beam_groups": 2, "diversity_penalty": 0.1, "length_penalty": -1.0, "num_return_sequences": 2},
    {"num_beams": 8, "num_beam_groups": 4, "diversity_penalty": 0.6, "num_return_sequences": 8},
    {"num_beams": 3, "num_beam_groups": 3, "diversity_penalty": 0.4, "num_return_sequences": 3},
]


def ending_often(model, prompt):
    """Ids that turn up early in what the model writes, so that searches end in many ways."""
    made = model.generate(torch.tensor([prompt]), num_beams=4, max_new_tokens=6, eos_token_id=None, pad_token_id=0,
                          num_return_sequences=4)
    return [int(made[1, len(prompt) + 1]), int(made[3, len(prompt) + 3])]


def search(model, prompt, stop, settings, filling):
    """Rows without what fills them up, which is an id of the vocabulary, since others are refused; and all else."""
    made = model.generate(torch.tensor([prompt]), do_sample=False, eos_token_id=stop, pad_token_id=filling,
                          return_dict_in_generate=True, output_scores=True, **settings)
    stops = stop if isinstance(stop, list) else [stop]
    rows = []
    for row in made.sequences.tolist():
        end = next((at + 1 for at, id in enumerate(row) if at >= len(prompt) and id in stops), len(row))
        rows.append(row[:end])
    return rows, made


def beams(all_settings=SETTINGS, file="beams.json"):
    model = transformers.GPT2LMHeadModel.from_pretrained(HERE / "gpt2").eval()
    found = []
    for prompt in PROMPTS:
        early, late = ending_often(model, prompt)
        for number, settings in enumerate(all_settings):
            stop = [early, [early, late], late, []][number % 4] or None
            settings = {"num_beams": 4, "max_new_tokens": 12} | settings
            rows, made = search(model, prompt, stop, settings, 60)
            # Groups that have ended go on saying what fills up, which others then avoid: no fixture shall depend on it.
            if "num_beam_groups" in settings and rows != search(model, prompt, stop, settings, 59)[0]:
                continue
            found.append({"settings": settings | ({"eos_token_id": stop} if stop else {}), "prompt": prompt,
                          "beam_ids": [rows], "beam_score": [[float(f"{s:.7g}") for s in made.sequences_scores.tolist()]]})
    (HERE / "gpt2" / file).write_text(json.dumps(found))


MAKERS = {"beams": beams, "beam-groups": lambda: beams(GROUPS, "beam_groups.json")}
