#!/usr/bin/env python3
"""Compares GGUF files written here with llama.cpp, and with the `transformers` models that they come from.

    python check_gguf.py

Not part of `cargo test`, because it needs Python with `torch`, `transformers`, `tokenizers` and `xllamacpp`, which is
llama.cpp; without the last there is nothing to compare with, and it says so and ends. Exits with 0 if tiny random
models, each with a byte-level tokenizer,

- get from llama.cpp the log-probabilities that `transformers` computes, for prompts as text, so that both agree on
  its tokens;
- come back from GGUF with every weight and every token as it was.

`ANDIRON_GGUF` names the example `gguf` of this crate; without it, it is built.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

if importlib.util.find_spec("xllamacpp") is None:
    print("xllamacpp is not installed: nothing to compare with")
    sys.exit(0)

import tokenizers
import torch
import transformers
import xllamacpp
from tokenizers import decoders, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parents[3]
CORPUS = ROOT / "examples/data/shakespeare.txt"
TEXTS = ["The king is", "in 1234  days,\n\n we'll", "<|end|>Ünder ä tree 🌳 and"]
# llama.cpp looks GELU up in a table of f16.
TOLERANCE = {"gpt2": 1e-2}
USUAL_TOLERANCE = 2e-3
N_VOCAB = 400

LLAMA = {
    "vocab_size": N_VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
CONFIGS = {
    "gpt2": transformers.GPT2Config(
        vocab_size=N_VOCAB, n_positions=256, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0,
        initializer_range=0.2,
    ),
    "llama": transformers.LlamaConfig(**LLAMA, head_dim=16, tie_word_embeddings=False),
    "qwen2": transformers.Qwen2Config(**LLAMA, tie_word_embeddings=True),
    "qwen3": transformers.Qwen3Config(**LLAMA, head_dim=32, tie_word_embeddings=True),
}


def program() -> Path:
    if "ANDIRON_GGUF" in os.environ:
        return Path(os.environ["ANDIRON_GGUF"]).resolve()
    # The program is selected for its features alone: with them, everything below the example is built already.
    features = ["-p", "andiron-cli", "--features", "andiron-cli/ndarray"]
    build = ["cargo", "build", "--release", *features, "-p", "andiron-models", "--example", "gguf"]
    subprocess.run(build, cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/examples/gguf"


def tokenizer(path: Path) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_VOCAB - 3,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(CORPUS.read_text(encoding="utf-8")[:50_000].splitlines(True), trainer)
    made.save(str(path))
    return made


def llama_cpp(path: Path, prompts: list[str], letter: int) -> list[dict[int, float]]:
    """Log-probability of each token after each prompt."""
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 256, 1, False, 0
    params.cpuparams.n_threads = 2
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(params)
    found = []
    for prompt in prompts:
        # A whole letter must be chosen, or there is no answer to hang the list on; it does not change the list.
        asked = {"prompt": prompt, "n_predict": 1, "n_probs": N_VOCAB, "temperature": 0, "logit_bias": [[letter, 99]]}
        answer = server.handle_completions(asked)["choices"][0]["logprobs"]["content"][0]
        found.append({entry["id"]: entry["logprob"] for entry in answer["top_logprobs"]})
    return found


@torch.no_grad()
def check(model_type: str, config, directory: Path, gguf: Path) -> None:
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.add_(torch.randn_like(parameter) * 0.2)
    source, back = directory / "source", directory / "back"
    model.save_pretrained(source)
    tokens = tokenizer(source / "tokenizer.json")
    file = directory / "model.gguf"
    done = subprocess.run([gguf, source, file], stderr=subprocess.PIPE, text=True)
    if "UnknownArchitecture" in done.stderr:
        print(f"{model_type}: this build does not know it")
        return
    assert done.returncode == 0, done.stderr

    worst = 0.0
    for text, theirs in zip(TEXTS, llama_cpp(file, TEXTS, tokens.token_to_id("a")), strict=True):
        assert len(theirs) >= 50, len(theirs)
        expected = model(torch.tensor([tokens.encode(text).ids])).logits[0, -1].double().log_softmax(-1)
        worst = max(worst, *(abs(expected[id].item() - value) for id, value in theirs.items()))
    assert worst <= TOLERANCE.get(model_type, USUAL_TOLERANCE), (model_type, worst)

    subprocess.run([gguf, file, back], check=True)
    again, info = transformers.AutoModelForCausalLM.from_pretrained(back, output_loading_info=True)
    assert not any(info.values()), info
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    read = tokenizers.Tokenizer.from_file(str(back / "tokenizer.json"))
    for text in TEXTS:
        assert read.encode(text).ids == tokens.encode(text).ids, text
        assert read.decode(read.encode(text).ids) == tokens.decode(tokens.encode(text).ids), text
    print(f"{model_type}: llama.cpp agrees within {worst:.1e}, and the way back is exact")


def main() -> None:
    torch.set_num_threads(2)
    transformers.utils.logging.disable_progress_bar()
    gguf = program()
    for model_type, config in CONFIGS.items():
        with tempfile.TemporaryDirectory() as directory:
            check(model_type, config, Path(directory), gguf)


if __name__ == "__main__":
    main()
