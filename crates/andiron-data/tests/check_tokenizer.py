#!/usr/bin/env python3
"""Compares tokenizers saved by `andiron-data` with what the Python libraries make of the same directory.

    python check_tokenizer.py

Not part of `cargo test`, because it needs Python with `transformers` and `tokenizers`. Runs the example
`save_tokenizers`, which trains a character vocabulary and a byte-level one on the shipped text, saves each into a
directory of its own and writes beside it `cases.jsonl`: texts with the ids and the decoded text that Andiron gives.
Then loads each directory with `transformers.AutoTokenizer` and with `tokenizers.Tokenizer`, and fails at the first difference,
at any warning, and if a character that a character vocabulary lacks is not an error in Python too.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer


ROOT = Path(__file__).resolve().parents[3]
CORPUS = ROOT / "examples/data/shakespeare.txt"


class Complaints(logging.Handler):
    """Collects what the libraries log, which they do instead of warning."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def check(directory: Path, complaints: Complaints) -> int:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    bare = Tokenizer.from_file(str(directory / "tokenizer.json"))
    info = json.loads((directory / "info.json").read_text(encoding="utf-8"))
    assert len(tokenizer) == info["vocab_size"], (len(tokenizer), info)
    assert tokenizer.eos_token_id == info["eos_id"], (tokenizer.eos_token_id, info)
    cases = 0
    for line in (directory / "cases.jsonl").read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        text, ids = case["text"], case["ids"]
        if ids is None:
            try:
                bare.encode(text)
            except Exception:
                cases += 1
                continue
            sys.exit(f"{directory}: {text!r} is an error in Andiron, but not in Python")
        for name, found in (
            ("transformers", tokenizer(text, split_special_tokens=True)["input_ids"]),
            ("tokenizers", bare.encode(text, add_special_tokens=False).ids if "<|" not in text else ids),
        ):
            assert found == ids, (directory.name, name, text[:80], found[:20], ids[:20])
        assert tokenizer.decode(ids) == case["decoded"] == text, (directory.name, text[:80])
        assert bare.decode(ids) == text, (directory.name, text[:80])
        cases += 1
    assert not complaints.messages, complaints.messages
    return cases


def example() -> Path:
    # The program is selected for its features alone: with them, everything below the example is built already.
    features = ["-p", "andiron-cli", "--features", "andiron-cli/ndarray"]
    build = ["cargo", "build", "--release", *features, "-p", "andiron-data", "--example", "save_tokenizers"]
    subprocess.run(build, cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/examples/save_tokenizers"


def save(out: Path) -> None:
    subprocess.run([example(), out, CORPUS], cwd=ROOT, check=True)


def main() -> None:
    warnings.simplefilter("error")
    complaints = Complaints()
    for name in ("transformers", "tokenizers"):
        logging.getLogger(name).addHandler(complaints)
    with tempfile.TemporaryDirectory() as out:
        save(Path(out))
        directories = sorted(path.parent for path in Path(out).glob("*/cases.jsonl"))
        assert directories, "the example has saved nothing"
        for directory in directories:
            print(f"{directory.name}: {check(directory, complaints)} texts are the same")


if __name__ == "__main__":
    main()
