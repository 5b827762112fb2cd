#!/usr/bin/env python3
"""Compares adapters in the program `andiron` with the same files in `peft`, both ways.

    python check_peft.py

Not part of `cargo test`, because it needs Python with `torch`, `transformers` and `peft`. For random models of three families
and adapters of several forms, each with random factors, it exits with 0 if

- `andiron predict --adapter` gives the log-probabilities and label scores of the `PeftModel`, over the dense model;
- `andiron export --merge` writes a model that `transformers` opens with every weight accounted for, and which computes the
  same; where the adapter changes embeddings but not the head tied to them, it refuses;
- an adapter that Andiron reads and writes again opens in `peft` without a missing or unexpected tensor, and computes the same;
- `andiron inspect --adapter` counts the parameters that `peft` counts.

`ANDIRON` names the program; without it, it is the release build of this checkout, which is built where needed.
`ANDIRON_ADAPTER` names the example `adapter` of andiron-models likewise.
"""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import peft
import torch
from transformers import (AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, BertConfig,
                          GPT2Config, LlamaConfig, T5Config)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

ROOT = Path(__file__).resolve().parents[3]
TOLERANCE = 1e-4
START = 0
SIZES = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}

# With weights this large, a wrong setting shows.
BASES = {
    "llama": (AutoModelForCausalLM, LlamaConfig(**SIZES, num_key_value_heads=2, initializer_range=0.2)),
    "llama, tied": (AutoModelForCausalLM,
                    LlamaConfig(**SIZES, num_key_value_heads=2, initializer_range=0.2, tie_word_embeddings=True)),
    "gpt2": (AutoModelForCausalLM, GPT2Config(vocab_size=97, n_positions=48, n_embd=32, n_layer=2, n_head=4,
                                             initializer_range=0.2, bos_token_id=0, eos_token_id=0)),
    "bert": (AutoModelForSequenceClassification, BertConfig(**SIZES, initializer_range=0.2, num_labels=5)),
    "t5": (AutoModelForSeq2SeqLM, T5Config(vocab_size=97, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
                                           decoder_start_token_id=START)),
}
FORMS = {"plain": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True, "use_rslora": True, "lora_alpha": 5}}
TASKS = {"llama": "CAUSAL_LM", "llama, tied": "CAUSAL_LM", "gpt2": "CAUSAL_LM", "bert": "SEQ_CLS", "t5": "SEQ_2_SEQ_LM"}
EMBEDDINGS = {"llama": ["embed_tokens", "lm_head", "up_proj"], "llama, tied": ["embed_tokens", "v_proj"],
              "gpt2": ["wte", "c_attn"], "bert": ["word_embeddings", "position_embeddings", "query"]}
# An adapter of one use of a weight that has two, which are saved apart.
UNTIED = {("llama, tied", "embeddings"), ("gpt2", "embeddings")}


def built(variable: str, path: str, *arguments: str) -> Path:
    if variable in os.environ:
        return Path(os.environ[variable]).resolve()
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    program = target / "release" / path
    if not program.exists():
        # The program is selected for its features: with them, everything below the example is built already.
        build = ["cargo", "build", "--release", "-p", "andiron-cli", "--features", "andiron-cli/ndarray", *arguments]
        subprocess.run(build, cwd=ROOT, env=os.environ | {"CARGO_TARGET_DIR": str(target)}, check=True)
    return program


ANDIRON = built("ANDIRON", "andiron")
EXAMPLE = built("ANDIRON_ADAPTER", "examples/adapter", "-p", "andiron-models", "--example", "adapter")


def run(*arguments: str | Path, rows: list[dict] | None = None) -> subprocess.CompletedProcess:
    text = "".join(json.dumps(row) + "\n" for row in rows or [])
    return subprocess.run([*arguments], input=text, capture_output=True, text=True, encoding="utf-8")


def andiron(*arguments: str | Path, rows: list[dict] | None = None) -> list[dict]:
    done = run(ANDIRON, *arguments, rows=rows)
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def rows(base: str) -> list[dict]:
    ids = [torch.randint(3, 97, (length,)).tolist() for length in (21, 9, 2)]
    match base:
        case "bert":
            return [{"id": n, "ids": row, "type_ids": [0] * len(row)} for n, row in enumerate(ids)]
        case "t5":
            return [{"id": n, "source_ids": row, "target_ids": row[:5]} for n, row in enumerate(ids)]
        case _:
            return [{"id": n, "ids": row} for n, row in enumerate(ids)]


@torch.no_grad()
def theirs(model, row: dict) -> list[float]:
    """What `predict` gives for a row: probabilities by label, or log-probabilities of the ids that follow others."""
    if "type_ids" in row:
        return model(input_ids=torch.tensor([row["ids"]])).logits[0].softmax(-1).tolist()
    ids = torch.tensor([row["ids"] if "ids" in row else [START, *row["target_ids"]]])
    if "source_ids" in row:
        logits = model(input_ids=torch.tensor([row["source_ids"]]), decoder_input_ids=ids).logits
    else:
        logits = model(input_ids=ids).logits
    return logits[0].double().log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])[:, 0].tolist()


def ours(answer: dict) -> list[float]:
    if "labels" in answer:
        return [found["score"] for found in sorted(answer["labels"], key=lambda found: found["label"])]
    return [value for value in answer["logprobs"] if value is not None]


def worst(model, given: list[dict], answers: list[dict]) -> float:
    differences = []
    for row, answer in zip(given, answers, strict=True):
        expected, found = theirs(model, row), ours(answer)
        assert len(expected) == len(found), (row, expected, answer)
        differences += [abs(a - b) for a, b in zip(expected, found, strict=True)]
    return max(differences)


def make(base: str, form: str, directory: Path) -> tuple[Path, Path, "peft.PeftModel"]:
    auto, config = BASES[base]
    torch.manual_seed(len(base) + len(form))
    model = auto.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.3)
    path, adapter = directory / "base", directory / "adapter"
    model.save_pretrained(path)
    targets = EMBEDDINGS[base] if form == "embeddings" else "all-linear"
    settings = {"r": 4, "lora_alpha": 8, "target_modules": targets, "task_type": TASKS[base]} | FORMS.get(form, {})
    adapted = peft.get_peft_model(auto.from_pretrained(path), peft.LoraConfig(**settings)).eval()
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, mean=0.6 if parameter.ndim == 1 else 0.0, std=0.15)
    adapted.save_pretrained(adapter)
    return path, adapter, adapted


def check(base: str, form: str, directory: Path) -> None:
    auto, _ = BASES[base]
    path, adapter, adapted = make(base, form, directory)
    given, task = rows(base), ["--task", "classify" if base == "bert" else "score"]
    opened = ["--model", path, "--adapter", adapter]

    difference = worst(adapted, given, andiron("predict", *opened, *task, rows=given))
    assert difference <= TOLERANCE, (base, form, difference)
    bare = worst(adapted, given, andiron("predict", "--model", path, *task, rows=given))
    assert bare > 100 * TOLERANCE, (base, form, bare, "the adapter must matter")

    merged = directory / "merged"
    done = run(ANDIRON, "export", *opened, "--merge", "--output", merged)
    assert done.returncode == 0, done
    assert ("tie_word_embeddings: false" in done.stderr) == ((base, form) in UNTIED), done
    model, info = auto.from_pretrained(merged, output_loading_info=True)
    assert not any(info.values()), (base, form, info)
    for row in given:
        for a, b in zip(theirs(model.eval(), row), theirs(adapted, row), strict=True):
            assert abs(a - b) <= TOLERANCE, (base, form, row, a, b)

    copy = directory / "copy"
    done = run(EXAMPLE, path, adapter, copy)
    assert done.returncode == 0, done
    with warnings.catch_warnings():
        # `peft` warns of tensors that it misses, and of embeddings tied to a head.
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        again = peft.PeftModel.from_pretrained(auto.from_pretrained(path), copy).eval()
    assert type(again) is type(adapted), (type(again), type(adapted))
    for row in given:
        assert theirs(again, row) == theirs(adapted, row), (base, form)

    [inspected] = andiron("inspect", *opened, "--json")
    saved = peft.get_peft_model_state_dict(adapted)
    n_theirs = sum(tensor.numel() for tensor in saved.values())
    assert inspected["adapter"]["parameters"] == n_theirs, (inspected["adapter"], n_theirs)
    print(f"{base}, {form}: within {difference:.1e}")


def main() -> None:
    warnings.simplefilter("ignore")
    disable_progress_bar()
    set_verbosity_error()
    torch.set_num_threads(2)
    for base in BASES:
        for form in [*FORMS, *(["embeddings"] if base in EMBEDDINGS else [])]:
            with tempfile.TemporaryDirectory() as directory:
                check(base, form, Path(directory))


if __name__ == "__main__":
    sys.exit(main())
