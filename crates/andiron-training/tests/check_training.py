#!/usr/bin/env python3
"""Compares runs of the program `andiron` with the same in PyTorch, and opens what they leave in `transformers` and `peft`.

    python check_training.py [--text FILE] [--rows FILE.jsonl --source FIELD --target FIELD]

Not part of `cargo test`, because it needs Python with `torch`, `transformers` and `peft`. A GPT-2 (causal), a BERT (masked), a
T5 (seq2seq) and a BART (denoise), all tiny and with random weights that `transformers` saved, are trained by `andiron finetune`
for 200 steps of two micro-batches, without dropout and in f32, on the shipped text or on the given one. It exits with 0 if

- PyTorch's AdamW with the same warm-up, cosine and clipping, on the batches that the example `batches` shows, has the same
  losses within 1e-3 at each step, and each gradient of the first step within 1e-3 of its norm;
- the model that the run left opens in `transformers` with every weight accounted for and gives the same predictions within
  1e-4 as `andiron predict`, and so does the model that PyTorch trained, opened by `andiron`;
- the adapter of a short run with LoRA opens in `peft` and gives the same predictions, and so does one that `peft` trained.

`ANDIRON` names the program; without it, it is the release build of this checkout, which is built where needed.
`ANDIRON_BATCHES` names the example `batches` of andiron-training likewise.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import peft
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, BartConfig, BertConfig,
                          GPT2Config, PreTrainedTokenizerFast, T5Config)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

ROOT = Path(__file__).resolve().parents[3]
TEXT = ROOT / "examples/data/shakespeare.txt"
TEXT_BYTES = 60_000

STEPS, MICRO_BATCHES, ROWS, COLUMNS = 200, 2, 4, 24
LOSSES, GRADIENTS, PREDICTIONS = 1e-3, 1e-3, 1e-4
WARMUP, BETAS, EPS, WEIGHT_DECAY, CLIP = 20, (0.9, 0.95), 1e-8, 0.1, 1.0
# Lookup tables do not decay, and neither do vectors.
TABLES = ("wte", "wpe", "embeddings", "shared", "embed_tokens", "embed_positions", "relative_attention_bias")

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
N_VOCAB = 400
SIZES = {"vocab_size": N_VOCAB, "pad_token_id": 1}
BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
        "dropout": 0.0, "init_std": 0.1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2,
        "forced_eos_token_id": 2}
# The class, the configuration, the objective, and the learning rate.
RUNS = {
    "gpt2": (
        AutoModelForCausalLM,
        GPT2Config(**SIZES, n_positions=COLUMNS, n_embd=32, n_layer=2, n_head=4, attn_pdrop=0.0, resid_pdrop=0.0,
                   embd_pdrop=0.0, bos_token_id=0, eos_token_id=2),
        'kind = "causal"', 3e-3,
    ),
    "bert": (
        AutoModelForMaskedLM,
        BertConfig(**SIZES, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
                   max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
                   initializer_range=0.1),
        'kind = "masked"\nprobability = 0.3', 3e-3,
    ),
    "t5": (
        AutoModelForSeq2SeqLM,
        T5Config(**SIZES, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.0, eos_token_id=2,
                 relative_attention_num_buckets=8, relative_attention_max_distance=20, decoder_start_token_id=1),
        'kind = "seq2seq"', 1e-3,
    ),
    "bart": (AutoModelForSeq2SeqLM, BartConfig(**SIZES, **BART), 'kind = "denoise"', 3e-3),
}
TASKS = {"gpt2": "CAUSAL_LM", "t5": "SEQ_2_SEQ_LM"}


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
BATCHES = built("ANDIRON_BATCHES", "examples/batches", "-p", "andiron-training", "--example", "batches")


def run(*arguments: str | Path, rows: list[dict] | None = None) -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows or [])
    done = subprocess.run([*arguments], input=text, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, (arguments, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


# --- data -------------------------------------------------------------------------------------------------------------


def make_tokenizer(name: str, text: str, directory: Path) -> None:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=N_VOCAB, special_tokens=SPECIAL, initial_alphabet=alphabet,
                                  show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    ids = [(token, SPECIAL.index(token)) for token in ("<s>", "</s>")]
    single = {"gpt2": "$A", "t5": "$A </s>"}.get(name, "<s> $A </s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[found for found in ids if found[0] in single])
    assert tokenizer.get_vocab_size() == N_VOCAB
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
                            unk_token="<unk>", mask_token="<mask>", sep_token="</s>", cls_token="<s>"
                            ).save_pretrained(directory)


def write_data(options: argparse.Namespace, directory: Path) -> str:
    """A text, and rows of it that have a text, a source and a target each."""
    text = options.text.read_bytes()[:TEXT_BYTES].decode("utf-8", "ignore")
    (directory / "text.txt").write_text(text, encoding="utf-8", newline="")
    if options.rows is None:
        lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 12]
        pairs = list(zip(lines, lines[1:]))
    else:
        found = [json.loads(line) for line in options.rows.read_text(encoding="utf-8").splitlines()[:2000]]
        pairs = [(row[options.source], row[options.target]) for row in found]
    rows = [json.dumps({"text": source, "source": source, "target": target}) for source, target in pairs]
    (directory / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return text + "\n".join(target for _, target in pairs)


def data_of(name: str, directory: Path) -> str:
    if name != "gpt2":
        return f'train = "{directory / "rows.jsonl"}"\nmax_length = {COLUMNS}'
    prepared = directory / "prepared"
    run(ANDIRON, "prepare", directory / "text.txt", "--tokenizer", directory / name, "--output", prepared)
    return f'train = "{prepared / "train"}"\ncontext = {COLUMNS}'


def config_of(name: str, directory: Path, output: str, steps: int, more: str = "") -> Path:
    _, _, objective, lr = RUNS[name]
    path = directory / f"{output}.toml"
    path.write_text(f"""
        {more}
        [run]
        output = "{directory / output}"
        seed = 5
        steps = {steps}
        accumulate = {MICRO_BATCHES}
        precision = "f32"
        [init]
        from = "{directory / name}"
        [objective]
        {objective}
        [data]
        {data_of(name, directory)}
        rows = {ROWS}
        [optimizer]
        schedule = "cosine"
        lr = {lr}
        min_lr = {lr / 10}
        warmup_steps = {WARMUP}
        beta1 = {BETAS[0]}
        beta2 = {BETAS[1]}
        eps = {EPS}
        weight_decay = {WEIGHT_DECAY}
        clip_norm = {CLIP}
        [checkpoint]
        every = 1000
    """, encoding="utf-8")
    return path


# --- training in PyTorch ----------------------------------------------------------------------------------------------


def logits_of(model, batch: dict) -> torch.Tensor:
    ids = torch.tensor(batch["ids"])
    lengths = batch["lengths"] or [ids.shape[1]] * ids.shape[0]
    mask = (torch.arange(ids.shape[1])[None] < torch.tensor(lengths)[:, None]).long()
    if batch["decoder_ids"] is None:
        return model(input_ids=ids, attention_mask=mask).logits
    return model(input_ids=ids, attention_mask=mask, decoder_input_ids=torch.tensor(batch["decoder_ids"])).logits


def weighted_loss(model, batches: list[dict]) -> torch.Tensor:
    total, weight = torch.zeros(()), 0.0
    for batch in batches:
        targets, weights = torch.tensor(batch["targets"]).flatten(), torch.tensor(batch["weights"]).flatten()
        losses = torch.nn.functional.cross_entropy(logits_of(model, batch).flatten(0, 1), targets, reduction="none")
        total, weight = total + (losses * weights).sum(), weight + weights.sum().item()
    return total / weight


def rate(step: int, lr: float) -> float:
    if step < WARMUP:
        return lr * (step + 1) / (WARMUP + 1)
    done = (step - WARMUP) / (STEPS - WARMUP)
    return lr / 10 + 0.5 * (1 + math.cos(math.pi * done)) * (lr - lr / 10)


def adamw(model) -> torch.optim.AdamW:
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    decays = lambda name, value: value.ndim == 2 and not any(table in name for table in TABLES)
    groups = [{"params": [value for name, value in trained if decays(name, value)], "weight_decay": WEIGHT_DECAY},
              {"params": [value for name, value in trained if not decays(name, value)], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=BETAS, eps=EPS)


def train(model, batches: list[dict], lr: float) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses of all steps, and the gradients of the first."""
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            # Padding can be the random token that masked language modeling puts in a text. PyTorch would not learn from it.
            module.padding_idx = None
    optimizer, losses, gradients = adamw(model.train()), [], {}
    for step in range(len(batches) // MICRO_BATCHES):
        loss = weighted_loss(model, batches[step * MICRO_BATCHES : (step + 1) * MICRO_BATCHES])
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.requires_grad}
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        for group in optimizer.param_groups:
            group["lr"] = rate(step, lr)
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses, gradients


def check_gradients(name: str, theirs: dict[str, torch.Tensor], directory: Path) -> float:
    ours = load_file(directory / "model.safetensors")
    # BART's is no parameter: it stays as it is.
    ours.pop("final_logits_bias", None)
    assert theirs.keys() == ours.keys(), (name, theirs.keys() ^ ours.keys())
    total = math.sqrt(sum(value.norm().item() ** 2 for value in theirs.values()))
    worst = 0.0
    for parameter, expected in theirs.items():
        # The gradient of a key's bias is 0 but for rounding.
        size = max(expected.norm().item(), 1e-4 * total)
        worst = max(worst, (ours[parameter] - expected).norm().item() / size)
        assert worst <= GRADIENTS, (name, parameter, worst)
    return worst


# --- predictions ------------------------------------------------------------------------------------------------------


def probes(name: str, batches: list[dict]) -> list[dict]:
    """Rows for `andiron predict`, out of batches."""
    rows = []
    for batch in batches[:3]:
        for row, ids in enumerate(batch["ids"]):
            source = ids[: batch["lengths"][row]] if batch["lengths"] else ids
            if name == "bert":
                at = [place for place, id in enumerate(source) if id == SPECIAL.index("<mask>")]
                rows += [{"id": len(rows), "ids": source, "mask_positions": at}] if at else []
            elif name == "gpt2":
                rows.append({"id": len(rows), "ids": source})
            else:
                weights = batch["weights"][row]
                target = [id for id, weight in zip(batch["targets"][row], weights) if weight > 0]
                rows.append({"id": len(rows), "source_ids": source, "target_ids": target})
    return rows


def predicted(name: str, rows: list[dict], *model: str | Path) -> list[list[float]]:
    """What `andiron predict` gives for rows: log-probabilities, or of masked tokens the likeliest probabilities."""
    task = ["fill-mask", "--top", "5"] if name == "bert" else ["score"]
    out = run(ANDIRON, "predict", *model, "--task", *task, rows=rows)
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["id"] for answer in answers] == [row["id"] for row in rows], answers
    if name == "bert":
        return [[guess["prob"] for mask in answer["masks"] for guess in mask["top"]] for answer in answers]
    return [[value for value in answer["logprobs"] if value is not None] for answer in answers]


@torch.no_grad()
def expected(model, row: dict) -> list[float]:
    """The same of a model of `transformers`."""
    if "mask_positions" in row:
        probabilities = model(input_ids=torch.tensor([row["ids"]])).logits[0].softmax(-1)
        return probabilities[row["mask_positions"]].topk(5).values.flatten().tolist()
    if "source_ids" in row:
        ids = torch.tensor([[model.config.decoder_start_token_id, *row["target_ids"]]])
        logits = model(input_ids=torch.tensor([row["source_ids"]]), decoder_input_ids=ids).logits
    else:
        ids = torch.tensor([row["ids"]])
        logits = model(input_ids=ids).logits
    return logits[0].log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])[:, 0].tolist()


def check_predictions(name: str, rows: list[dict], model, *ours: str | Path) -> float:
    worst = 0.0
    for row, found in zip(rows, predicted(name, rows, *ours), strict=True):
        for a, b in zip(expected(model, row), found, strict=True):
            worst = max(worst, abs(a - b))
    assert worst <= PREDICTIONS, (name, ours, worst)
    return worst


def open_model(name: str, directory: Path):
    model, info = RUNS[name][0].from_pretrained(directory, output_loading_info=True, dtype=torch.float32)
    assert not any(info.values()), (directory, info)
    return model.eval()


# --- the checks -------------------------------------------------------------------------------------------------------


def show(config: Path, output: Path) -> list[dict]:
    return [json.loads(line) for line in run(BATCHES, config, output).splitlines()]


def check(name: str, directory: Path) -> None:
    _, _, _, lr = RUNS[name]
    start = directory / name
    config = config_of(name, directory, f"{name}-run", STEPS)
    batches = show(config, directory / f"{name}-shown")
    assert len(batches) == STEPS * MICRO_BATCHES
    run(ANDIRON, "finetune", config)
    output = directory / f"{name}-run"
    ours = [json.loads(line)["loss"] for line in (output / "metrics.jsonl").read_text().splitlines()]
    model = open_model(name, start)
    theirs, gradients = train(model, batches, lr)
    gradient = check_gradients(name, gradients, directory / f"{name}-shown/gradients")
    apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    assert apart <= LOSSES, (name, apart, [(a, b) for a, b in zip(ours, theirs) if abs(a - b) > LOSSES][:3])
    assert theirs[-1] < theirs[0] - 0.3, (name, theirs[0], theirs[-1])
    print(f"{name}: {STEPS} losses from {theirs[0]:.3f} to {theirs[-1]:.3f} within {apart:.1e}, gradients {gradient:.1e}")

    rows = probes(name, batches)
    there = check_predictions(name, rows, open_model(name, output / "model"), "--model", output / "model")
    back = directory / f"{name}-back"
    model.save_pretrained(back)
    again = check_predictions(name, rows, model, "--model", back)
    print(f"{name}: predictions of the trained models within {there:.1e} in transformers, {again:.1e} here")


def check_adapter(name: str, directory: Path) -> None:
    """An adapter that was trained here, opened by `peft`, and one that was trained there."""
    auto, _, _, lr = RUNS[name]
    start, output = directory / name, directory / f"{name}-adapted"
    adapter = "[adapter]\nrank = 4\nalpha = 8.0\n"
    config = config_of(name, directory, output.name, 30, adapter)
    batches = show(config_of(name, directory, f"{name}-plain", 30), directory / f"{name}-again")
    run(ANDIRON, "finetune", config)
    rows = probes(name, batches)
    model = peft.PeftModel.from_pretrained(open_model(name, start), output / "model").eval()
    moved = max(abs(a - b) for row in rows for a, b in zip(expected(model, row), expected(open_model(name, start), row)))
    assert moved > 100 * PREDICTIONS, (name, moved, "the adapter must matter")
    opened = ["--model", start, "--adapter"]
    there = check_predictions(name, rows, model, *opened, output / "model")

    settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type=TASKS[name])
    model = peft.get_peft_model(open_model(name, start), settings)
    train(model, batches, lr)
    back = directory / f"{name}-adapted-back"
    model.save_pretrained(back)
    again = check_predictions(name, rows, model.eval(), *opened, back)
    print(f"{name}: predictions of adapters within {there:.1e} in peft, {again:.1e} here")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--text", type=Path, default=TEXT)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--source", default="source")
    parser.add_argument("--target", default="target")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    disable_progress_bar()
    set_verbosity_error()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        text = write_data(options, directory)
        for name, (auto, config, _, _) in RUNS.items():
            torch.manual_seed(len(name))
            auto.from_config(config).save_pretrained(directory / name)
            make_tokenizer(name, text, directory / name)
            check(name, directory)
            if name in TASKS:
                check_adapter(name, directory)


if __name__ == "__main__":
    sys.exit(main())
