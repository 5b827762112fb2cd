#!/usr/bin/env python3
"""Compares encoder-decoders with what `transformers` makes of the same directory, both ways.

    python check_seq2seq.py

Not part of `cargo test`, because it needs Python with `torch` and `transformers`. Exits with 0 if models with random
weights that `transformers` saves, with their usual and less usual settings,

- open here, score targets and continue them greedily as there;
- are saved here so that `transformers` opens the copy with every weight accounted for, the same logits and the same
  settings for generation.

`ANDIRON_SEQ2SEQ` names the example `seq2seq` of this crate; without it, it is built.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, BartConfig, MarianConfig, T5Config
from transformers.utils.logging import disable_progress_bar

ROOT = Path(__file__).resolve().parents[3]
TOLERANCE = 1e-4
N_VOCAB = 83
LONGEST = 24

SIZES = {
    "vocab_size": N_VOCAB,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": LONGEST,
    # With weights this large, a wrong setting shows.
    "init_std": 0.3,
}
UNEQUAL = {"encoder_layers": 3, "decoder_layers": 1, "encoder_attention_heads": 4, "encoder_ffn_dim": 56}
PADDED = {"pad_token_id": N_VOCAB - 1, "decoder_start_token_id": N_VOCAB - 1}
APART = {"share_encoder_decoder_embeddings": False, "pad_token_id": 60, "decoder_start_token_id": 60}
T5_SIZES = {
    "vocab_size": N_VOCAB,
    "d_model": 24,
    "d_kv": 7,
    "d_ff": 40,
    "num_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "initializer_factor": 1.5,
    "decoder_start_token_id": 0,
}
T5_NEW = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
CONFIGS = {
    "bart": BartConfig(**SIZES),
    "bart, scaled, relu": BartConfig(**SIZES, scale_embedding=True, activation_function="relu"),
    "bart, unequal halves, tanh gelu": BartConfig(**(SIZES | UNEQUAL), activation_function="gelu_new"),
    "bart, untied": BartConfig(**SIZES, tie_word_embeddings=False),
    "marian": MarianConfig(**SIZES, **PADDED, activation_function="swish", scale_embedding=True),
    "marian, unequal halves": MarianConfig(**(SIZES | UNEQUAL), **PADDED),
    "marian, untied": MarianConfig(**SIZES, **PADDED, tie_word_embeddings=False),
    "marian, vocabularies apart": MarianConfig(**SIZES, **APART, decoder_vocab_size=61),
    "marian, all apart": MarianConfig(**SIZES, **APART, decoder_vocab_size=61, tie_word_embeddings=False),
    "t5": T5Config(**T5_SIZES),
    "t5, unequal halves, exact gelu": T5Config(**T5_SIZES, num_decoder_layers=1, feed_forward_proj="gelu"),
    "t5, unscaled": T5Config(**T5_SIZES, **T5_NEW),
    "t5, unscaled, own head": T5Config(**T5_SIZES, **T5_NEW, eos_token_id=[1, 2]),
    "t5, scaled, own head": T5Config(**T5_SIZES, feed_forward_proj="gated-silu"),
}
# What `generation_config.json` says, for the greedy targets too.
GENERATION = {
    "bart": {
        "forced_bos_token_id": 0,
        "max_length": 15,
        "num_beams": 4,
        "length_penalty": 0.6,
        "no_repeat_ngram_size": 3,
    },
    "marian": {"max_length": 15, "num_beams": 4, "renormalize_logits": True},
    "t5": {"max_length": 15, "num_beams": 4, "length_penalty": 2.0},
}
# `transformers` says so of every T5 whose head is not its table, whatever the configuration.
EXPECTED = "The tied weights mapping and config for this model specifies to tie shared.weight to lm_head.weight"


class Complaints(logging.Handler):
    """Collects what the libraries log, which they do instead of warning."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        if not record.getMessage().startswith(EXPECTED):
            self.messages.append(record.getMessage())


def program() -> Path:
    if "ANDIRON_SEQ2SEQ" in os.environ:
        return Path(os.environ["ANDIRON_SEQ2SEQ"]).resolve()
    # The program is selected for its features alone: with them, everything below the example is built already.
    features = ["-p", "andiron-cli", "--features", "andiron-cli/ndarray"]
    build = ["cargo", "build", "--release", *features, "-p", "andiron-models", "--example", "seq2seq"]
    subprocess.run(build, cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/examples/seq2seq"


def make(name, config):
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    if "own head" in name:
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.3)
    if hasattr(model, "final_logits_bias"):
        torch.nn.init.normal_(model.final_logits_bias)
    for key, value in GENERATION.get(config.model_type, {}).items():
        setattr(model.generation_config, key, value)
    if config.model_type == "marian":
        model.generation_config.bad_words_ids = [[config.pad_token_id]]
    return model


@torch.no_grad()
def logits(model, row: dict) -> torch.Tensor:
    ids = {"input_ids": torch.tensor([row["source_ids"]]), "decoder_input_ids": torch.tensor([row["target_ids"]])}
    return model(**ids).logits[0].double()


def logprobs(model, row: dict) -> torch.Tensor:
    """Log-probability of each id of the target but the first."""
    of_all = logits(model, row).log_softmax(-1)[:-1]
    return of_all.gather(1, torch.tensor(row["target_ids"][1:])[:, None])[:, 0]


def rows(model) -> list[dict]:
    config = model.config
    n_target = model.get_output_embeddings().weight.shape[0]
    start = model.generation_config.decoder_start_token_id
    made = []
    for n_source, n_target_ids in ((LONGEST, LONGEST), (7, 11), (1, 2)):
        target = [start, *torch.randint(n_target, (n_target_ids - 1,)).tolist()]
        made.append({"source_ids": torch.randint(config.vocab_size, (n_source,)).tolist(), "target_ids": target})
    return made


def open_model(directory: Path):
    model, info = AutoModelForSeq2SeqLM.from_pretrained(directory, output_loading_info=True, dtype=torch.float32)
    for kind, names in info.items():
        assert not names, (directory, kind, names)
    return model.eval()


def check(name: str, example: Path, directory: Path) -> None:
    torch.manual_seed(len(name))
    model = make(name, CONFIGS[name])
    path, copy = directory / "original", directory / "copy"
    model.save_pretrained(path)
    given = rows(model)
    text = "".join(json.dumps(row) + "\n" for row in given)
    done = subprocess.run([example, path, copy], input=text, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    assert done.returncode == 0, (name, done.returncode)
    answers = [json.loads(line) for line in done.stdout.splitlines()]

    worst = 0.0
    for row, answer in zip(given, answers, strict=True):
        theirs, ours = logprobs(model, row), torch.tensor(answer["logprobs"], dtype=torch.double)
        worst = max(worst, (theirs - ours).abs().max().item())
        source = torch.tensor([row["source_ids"]])
        greedy = {"do_sample": False, "num_beams": 1, "length_penalty": None, "no_repeat_ngram_size": None}
        made = model.generate(source, attention_mask=torch.ones_like(source), **greedy)
        assert made[0].tolist() == answer["ids"], (name, made, answer["ids"])
    assert worst <= TOLERANCE, (name, worst)

    again = open_model(copy)
    assert type(again) is type(model), (name, type(again))
    for row in given:
        assert (logits(again, row) - logits(model, row)).abs().max() <= TOLERANCE, name
    ours, theirs = (saved.generation_config.to_diff_dict() for saved in (again, model))
    for key in ("_from_model_config", "transformers_version"):
        ours.pop(key, None), theirs.pop(key, None)
    assert ours == theirs, (name, ours, theirs)
    ours, theirs = again.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys(), name
    for tensor, value in theirs.items():
        assert torch.equal(ours[tensor], value), (name, tensor)
    print(f"{name}: log-probabilities within {worst:.1e}, and the copy is the same")


def main() -> None:
    warnings.simplefilter("error")
    complaints = Complaints()
    logging.getLogger("transformers").addHandler(complaints)
    disable_progress_bar()
    torch.set_num_threads(2)
    example = program()
    for name in CONFIGS:
        with tempfile.TemporaryDirectory() as directory:
            check(name, example, Path(directory))
    if complaints.messages:
        sys.exit(f"transformers complains: {complaints.messages}")


if __name__ == "__main__":
    main()
