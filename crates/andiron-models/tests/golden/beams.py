"""Makes `gpt2/beams.json`: what beam search finds with the fixture `gpt2`, under many settings.

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


def ending_often(model, prompt):
    """Ids that turn up early in what the model writes, so that searches end in many ways."""
    made = model.generate(torch.tensor([prompt]), num_beams=4, max_new_tokens=6, eos_token_id=None, pad_token_id=0,
                          num_return_sequences=4)
    return [int(made[1, len(prompt) + 1]), int(made[3, len(prompt) + 3])]


def beams():
    model = transformers.GPT2LMHeadModel.from_pretrained(HERE / "gpt2").eval()
    found = []
    for prompt in PROMPTS:
        early, late = ending_often(model, prompt)
        for number, settings in enumerate(SETTINGS):
            stop = [early, [early, late], late, []][number % 4] or None
            settings = {"num_beams": 4, "max_new_tokens": 12} | settings
            # An id beside the vocabulary would be refused; 60 fills up and is cut off by length below.
            made = model.generate(torch.tensor([prompt]), do_sample=False, eos_token_id=stop, pad_token_id=60,
                                  return_dict_in_generate=True, output_scores=True, **settings)
            stops = stop if isinstance(stop, list) else [stop]
            rows = []
            for row in made.sequences.tolist():
                end = next((at + 1 for at, id in enumerate(row) if at >= len(prompt) and id in stops), len(row))
                rows.append(row[:end])
            found.append({"settings": settings | ({"eos_token_id": stop} if stop else {}), "prompt": prompt,
                          "beam_ids": [rows], "beam_score": [[float(f"{s:.7g}") for s in made.sequences_scores.tolist()]]})
    (HERE / "gpt2/beams.json").write_text(json.dumps(found))


MAKERS = {"beams": beams}
