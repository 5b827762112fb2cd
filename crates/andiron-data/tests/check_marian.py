#!/usr/bin/env python3
"""Compares Marian tokenizers with `MarianTokenizer` of `transformers`, which calls `sentencepiece` itself.

    python check_marian.py

Not part of `cargo test`, because it needs Python with `transformers` and `sentencepiece`. Trains a SentencePiece model of
each of two "languages" (English as it is, and written backwards) as Marian's are, makes one vocabulary of both with some
pieces left out, and compares ids in both directions and the decoded texts.
"""

import json
import os
import random
import subprocess
import tempfile
import warnings
from pathlib import Path

import sentencepiece
from transformers import MarianTokenizer

ROOT = Path(__file__).resolve().parents[3]
CORPUS = ROOT / "examples/data/shakespeare.txt"
LANGUAGES = [">>fra<<", ">>pt_br<<"]
EXTRA = [
    "",
    " ",
    "  two  spaces  and\ttab\nand line ",
    ">>fra<< The king is dead.",
    ">>pt_br<<Long live the king.",
    ">>zzz<< a language that the vocabulary lacks",
    "\u1112\u1161\u11ab\u1100\u116e\u11a8 ｶﾞﾗｽ ①\u0301 ﬁ\u0301",
    "a language in >>fra<< the middle >> is << text",
    "ﬁne ﬂags ① ½ ² Ａｂｃ ｶﾞ ㎏ … “quotes” — dashes",
    "naïve café Ångström e\u0301 n\u0303 o\u0308\u0323",
    "Привет, мир! 你好,世界。 こんにちは 안녕하세요 한글 สวัสดี नमस्ते שלום مرحبا",
    "👩‍👧 🇫🇷 👍🏽 \u200b zero\u200bwidth \u200d \ufeff bom \u00ad soft",
    "▁ already ▁marked ▁▁ twice",
    "\u00a0no-break\u3000ideographic\u2003em\u2028line",
    "ѣѣѣ ѣ known only there",
    "a" * 3000,
    "x\x00y\x07z\x1f",
]


def train(lines: list[str], prefix: Path, vocab_size: int) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(prefix),
        vocab_size=vocab_size,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc",
        minloglevel=2,
    )
    prefix.with_suffix(".model").rename(prefix.with_suffix(".spm"))


def pieces(path: Path) -> list[str]:
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [model.id_to_piece(i) for i in range(model.get_piece_size()) if not model.is_control(i)]


def make(directory: Path, lines: list[str]) -> None:
    train(lines, directory / "source", 2000)
    train([line[::-1] for line in lines], directory / "target", 1500)
    union = sorted(set(pieces(directory / "source.spm")) | set(pieces(directory / "target.spm")) - {"<unk>"})
    kept = [piece for n, piece in enumerate(union) if n % 50 and piece != "<unk>"]
    vocabulary = ["</s>", "<unk>", *kept, "ѣѣѣ", *LANGUAGES, "<pad>"]
    (directory / "vocab.json").write_text(json.dumps({piece: n for n, piece in enumerate(vocabulary)}))
    (directory / "tokenizer_config.json").write_text(json.dumps({"source_lang": "en", "model_max_length": 4096}))
    # As in the directories on the Hub, from which `transformers` knows which class to take.
    (directory / "config.json").write_text(json.dumps({"model_type": "marian"}))


def texts(lines: list[str]) -> list[str]:
    generator = random.Random(1)
    # Sequences of characters of all kinds, combining marks among them.
    alphabet = [chr(c) for c in (*range(0x20, 0x530), *range(0x1E00, 0x2100), *range(0x3040, 0x3100), *range(0xAC00, 0xAC80))]
    wild = ["".join(generator.choices(alphabet, k=20)) for _ in range(500)]
    return EXTRA + lines[::20] + wild


def example() -> Path:
    # The program is selected for its features alone: with them, everything below the example is built already.
    features = ["-p", "andiron-cli", "--features", "andiron-cli/ndarray"]
    build = ["cargo", "build", "--release", *features, "-p", "andiron-data", "--example", "marian"]
    subprocess.run(build, cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/examples/marian"


def main() -> None:
    warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
    lines = [line for line in CORPUS.read_text(encoding="utf-8").splitlines() if line]
    with tempfile.TemporaryDirectory() as name:
        directory, saved = Path(name) / "marian", Path(name) / "saved"
        directory.mkdir()
        make(directory, lines)
        cases = texts(lines)
        asked = "".join(json.dumps(text) + "\n" for text in cases)
        output = subprocess.run(
            [example(), directory, saved], cwd=ROOT, check=True, input=asked, stdout=subprocess.PIPE, text=True
        ).stdout
        found = [json.loads(line) for line in output.splitlines()]
        for file in ("source.spm", "target.spm", "vocab.json", "tokenizer_config.json"):
            assert (directory / file).read_bytes() == (saved / file).read_bytes(), file
        tokenizer = MarianTokenizer.from_pretrained(saved)
        for text, ours in zip(cases, found, strict=True):
            assert tokenizer(text)["input_ids"] == ours["ids"], text
            assert tokenizer(text_target=text)["input_ids"] == ours["target_ids"], text
            assert tokenizer.decode(ours["ids"], skip_special_tokens=True) == ours["decoded"], text
        print(f"{len(cases)} texts are the same")


if __name__ == "__main__":
    main()
