#!/usr/bin/env python3
"""Compares models of the program `andiron` with what `transformers` makes of the same directory, both ways.

    python check_transformers.py

Not part of `cargo test`, because it needs Python with `torch` and `transformers`. Exits with 0 if

- the models that `andiron quickstart` makes open in `transformers` with every weight accounted for, and both give the
  same ids, texts, log-probabilities and greedy continuations;
- GPT-2 models with random weights that `transformers` saves, with its less usual settings, open in `andiron` and
  score the same.

`ANDIRON` names the program; without it, it is the release build of this checkout, which is built where needed.
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
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar

ROOT = Path(__file__).resolve().parents[3]
CORPUS = ROOT / "examples/data/shakespeare.txt"
CORPUS_BYTES = 60_000
TOLERANCE = 1e-4

# What the reverse direction is tried with, each of it beside the default settings.
SETTINGS = {
    "default": {},
    "gelu": {"activation_function": "gelu", "n_inner": 40},
    "gelu-fast": {"activation_function": "gelu_fast"},
    "gelu-tanh": {"activation_function": "gelu_pytorch_tanh"},
    "untied": {"tie_word_embeddings": False},
    "by-layer": {"scale_attn_by_inverse_layer_idx": True},
    "unscaled": {"scale_attn_weights": False},
    "all": {
        "activation_function": "gelu",
        "n_inner": 72,
        "tie_word_embeddings": False,
        "scale_attn_by_inverse_layer_idx": True,
        "layer_norm_epsilon": 1e-3,
    },
}


class Complaints(logging.Handler):
    """Collects what the libraries log, which they do instead of warning."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def program() -> Path:
    if "ANDIRON" in os.environ:
        return Path(os.environ["ANDIRON"]).resolve()
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = target / "release/andiron"
    if not path.exists():
        build = ["cargo", "build", "--release", "-p", "andiron-cli", "--features", "ndarray"]
        subprocess.run(build, cwd=ROOT, env=os.environ | {"CARGO_TARGET_DIR": str(target)}, check=True)
    return path


ANDIRON = program()


def andiron(*arguments: str | Path, rows: list[dict] | None = None) -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows or [])
    command = [ANDIRON, *arguments]
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    assert done.returncode == 0, (arguments, done.returncode, done.stdout)
    return done.stdout


def predict(model: Path, task: str, rows: list[dict], *options: str) -> list[dict]:
    out = andiron("predict", "--model", model, "--task", task, *options, rows=rows)
    answers = [json.loads(line) for line in out.split("\n") if line]
    assert [answer["id"] for answer in answers] == [row["id"] for row in rows], answers
    return answers


@torch.no_grad()
def logprobs(model, ids: list[int]) -> torch.Tensor:
    """Log-probability of each token but the first."""
    logits = model(torch.tensor([ids])).logits[0].double()
    return logits.log_softmax(-1)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def check_scores(name: str, model, answers: list[dict]) -> float:
    worst = 0.0
    for answer in answers:
        assert answer["logprobs"][0] is None, answer
        theirs, ours = logprobs(model, answer["ids"]), torch.tensor(answer["logprobs"][1:], dtype=torch.double)
        difference = (theirs - ours).abs().max().item()
        assert difference <= TOLERANCE, (name, answer["id"], difference)
        assert abs(answer["sum_logprob"] - theirs.sum().item()) <= TOLERANCE * len(ours), (name, answer["id"])
        worst = max(worst, difference)
    return worst


def open_model(directory: Path):
    model, info = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True, dtype=torch.float32)
    for kind, names in info.items():
        assert not names, (directory, kind, names)
    return model.eval()


def check_ours(directory: Path, recipe: str, architecture: type) -> None:
    """A model made here, opened by `transformers`."""
    corpus = directory / "corpus.txt"
    text = CORPUS.read_bytes()[:CORPUS_BYTES].decode("utf-8", "ignore")
    corpus.write_text(text, encoding="utf-8", newline="")
    how = ("--recipe", recipe, "--corpus", corpus, "--steps", "60", "--output", directory / recipe, "--json")
    path = Path(json.loads(andiron("quickstart", *how))["model"])
    model, tokenizer = open_model(path), AutoTokenizer.from_pretrained(path)
    assert type(model) is architecture, type(model)

    context = model.config.max_position_embeddings
    texts = [text[at : at + n] for at, n in ((0, context), (777, 40), (30_001, context), (50_500, 7), (59_000, 2))]
    texts += ["\n\n  \n", "e" * context, "To be, or not to be: that is the question."]
    scored = predict(path, "score", [{"id": n, "text": text} for n, text in enumerate(texts)])
    for text, answer in zip(texts, scored, strict=True):
        ids = tokenizer(text)["input_ids"]
        assert ids == answer["ids"], (text, ids, answer["ids"])
        assert tokenizer.decode(ids) == text, (text, tokenizer.decode(ids))
        assert answer["bytes"] == len(text.encode()), answer
    worst = check_scores(recipe, model, scored)

    rows = [{"id": n, "prompt": text[:20], "max_tokens": 24} for n, text in enumerate(texts)]
    for row, answer in zip(rows, predict(path, "generate", rows, "--temperature", "0"), strict=True):
        prompt = tokenizer(row["prompt"], return_tensors="pt")
        made = model.generate(**prompt, do_sample=False, max_new_tokens=24, pad_token_id=0)[0]
        made = made[prompt["input_ids"].shape[1] :].tolist()
        assert made == answer["ids"], (row, made, answer["ids"])
        assert tokenizer.decode(made) == answer["text"], (row, answer)
    print(f"quickstart's {recipe}: {len(texts)} texts are the same, log-probabilities within {worst:.1e}")


def check_theirs(directory: Path) -> None:
    """Models that `transformers` saved, scored here."""
    for name, settings in SETTINGS.items():
        torch.manual_seed(len(name))
        sizes = {"vocab_size": 97, "n_positions": 48, "n_embd": 24, "n_layer": 3, "n_head": 3}
        # With weights this large, a wrong setting shows.
        config = GPT2Config(**sizes, initializer_range=0.3, bos_token_id=0, eos_token_id=0, **settings)
        model = GPT2LMHeadModel(config).eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                torch.nn.init.normal_(parameter, mean=0.5, std=0.3)
        path = directory / name
        model.save_pretrained(path)
        rows = [{"id": n, "ids": torch.randint(97, (length,)).tolist()} for n, length in enumerate((48, 17, 2))]
        worst = check_scores(name, model, predict(path, "score", rows))

        prompts = [{"id": n, "prompt_ids": row["ids"][:9], "max_tokens": 12} for n, row in enumerate(rows)]
        for row, answer in zip(prompts, predict(path, "generate", prompts, "--temperature", "0"), strict=True):
            ids = torch.tensor([row["prompt_ids"]])
            made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
            assert made[0, ids.shape[1] :].tolist() == answer["ids"], (name, made, answer)
        print(f"random GPT-2, {name}: log-probabilities within {worst:.1e}")


def main() -> None:
    warnings.simplefilter("error")
    complaints = Complaints()
    logging.getLogger("transformers").addHandler(complaints)
    disable_progress_bar()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as directory:
        check_ours(Path(directory), "nanogpt", GPT2LMHeadModel)
        check_ours(Path(directory), "two-minutes", Qwen3ForCausalLM)
        check_theirs(Path(directory))
    if complaints.messages:
        sys.exit(f"transformers complains: {complaints.messages}")


if __name__ == "__main__":
    main()
