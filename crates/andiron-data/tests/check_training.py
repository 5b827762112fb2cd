#!/usr/bin/env python3
"""Compares vocabularies trained here, and ids of lines, with those of Python's `tokenizers`; and how fast both encode.

    python check_training.py [DATA [TOKENIZER_DIR ...]]

Not part of `cargo test`, because it needs Python with `tokenizers` 0.23. DATA is a folder of JSON Lines with a field `text`
(English, Korean, code); without it, texts of this repository are read, the vocabularies are small, and nothing is timed. Runs the
example `tokenizer_peer`; PEER names it if it is built already.

- Byte-level BPE: `tokenizer.json` has the same vocabulary and merges.
- WordPiece: the same set of tokens, as far as Python gives one: its choice among equally frequent pairs depends on ids that
  change from run to run, so tokens that are not in all of three Python vocabularies are set aside.
- Unigram: the same, and scores within 1e-6: Python's changes from run to run as well.
- Ids of 100,000 lines (20,000 without DATA), for the three vocabularies and for each TOKENIZER_DIR. Python reads some scores of
  Unigram as the next float, so that segmentations with the same sum of scores may be others: these lines are counted.
- Seconds to encode all lines, both programs by turns, with the same number of threads.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(sys.argv[1]) if len(sys.argv) > 1 else None
SIZE, N_LINES = (8000, 100_000) if DATA else (1500, 20_000)
T5 = ["<pad>", "</s>", "<unk>"] + [f"<extra_id_{n}>" for n in reversed(range(100))]
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def texts(data: Path | None) -> list[str]:
    """Texts of several domains, none of them long."""
    found = []
    if data is None:
        for pattern in ("examples/data/shakespeare.txt", "examples/uses/*.md", "crates/andiron-kernels/src/**/*.rs"):
            for path in sorted(ROOT.glob(pattern)):
                lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
                found += ["".join(lines[at : at + 40]) for at in range(0, len(lines), 40)]
        return found
    for path in sorted(data.glob("*-train.jsonl")):
        if path.name.split("-")[0] not in ("corpus", "korean", "code"):
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        found += [json.loads(line)["text"] for line in lines]
    assert found, f"{data} has no texts"
    return found


def symbols(count: int) -> list[str]:
    """Lines of characters that patterns treat in different ways."""
    draw = random.Random(5)
    pool = list("aZ09 \t\r\n'sStTlLdmve.,!?()[]{}<>|-_=+*/\\\"#@~`^&%$éßſİ½²٣Ⅷ한글ㄱ東京かな\u00a0\u3000\u200b\u0301\u200d👩🔥")
    return ["".join(draw.choices(pool, k=draw.randint(1, 60))) for _ in range(count)]


def python_bpe(sample: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        min_frequency=2,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample, trainer)
    return tokenizer


def python_word_piece(sample: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=SIZE, min_frequency=2, limit_alphabet=1000, special_tokens=BERT, show_progress=False
    )
    tokenizer.train_from_iterator(sample, trainer)
    return tokenizer


def python_unigram(sample: list[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=T5, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(sample, trainer)
    return tokenizer


def program() -> str:
    if "PEER" in os.environ:
        return os.environ["PEER"]
    # The program is selected for its features alone: with them, everything below the example is built already.
    features = ["-p", "andiron-cli", "--features", "andiron-cli/ndarray"]
    command = ["cargo", "build", "--release", *features, "-p", "andiron-data", "--example", "tokenizer_peer"]
    built = subprocess.run(
        [*command, "--message-format", "json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
    return next(message["executable"] for message in reversed(messages) if message.get("executable"))


PEER = program()


def peer(*arguments: object) -> str:
    return subprocess.run([PEER, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return path


def model(tokenizer: Tokenizer) -> dict:
    return json.loads(tokenizer.to_str())["model"]


def compare_sets(kind: str, found: set[str], runs: list[set[str]]) -> None:
    """Tokens that are in some of Python's vocabularies only are set aside."""
    always, ever = set.intersection(*runs), set.union(*runs)
    missing, extra = always - found, found - ever
    print(
        f"{kind}: {len(found)} tokens; always in Python {len(always)}, ever {len(ever)}; {len(missing)} of those are missing, "
        f"{len(extra)} are in none of its vocabularies"
    )
    # A run that chooses otherwise among equals, of which a short text has many, may do so in a way that three runs do not show.
    bound = SIZE // 500 if DATA else SIZE // 100
    assert len(missing) + len(extra) <= bound, (sorted(missing)[:20], sorted(extra)[:20])


def check_vocabularies(sample: list[str], file: Path, out: Path) -> None:
    ours = {}
    for kind in ("bpe", "wordpiece"):
        seconds = json.loads(peer("train", kind, SIZE, file, out / kind))["seconds"]
        ours[kind] = json.loads((out / kind / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        print(f"{kind}: trained in {seconds:.1f} s", flush=True)

    start = time.perf_counter()
    theirs = model(python_bpe(sample))
    print(f"bpe: Python trains in {time.perf_counter() - start:.1f} s")
    assert theirs["vocab"] == ours["bpe"]["vocab"], "vocabularies of BPE differ"
    assert theirs["merges"] == ours["bpe"]["merges"], "merges of BPE differ"
    print(f"bpe: {len(theirs['vocab'])} tokens and {len(theirs['merges'])} merges are the same")

    start = time.perf_counter()
    runs = [set(model(python_word_piece(sample))["vocab"]) for _ in range(3)]
    print(f"wordpiece: Python trains in {(time.perf_counter() - start) / 3:.1f} s")
    compare_sets("wordpiece", set(ours["wordpiece"]["vocab"]), runs)

    # A smaller text: expectation maximization takes a hundred times as long as merging pairs.
    few = sample[::10]
    # A piece for each letter, and room for longer ones.
    size = max(SIZE // 4, 2 * len(set("".join(few))))
    seconds = json.loads(peer("train", "unigram", size, write(out / "few", few), out / "unigram"))["seconds"]
    ours["unigram"] = json.loads((out / "unigram" / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    print(f"unigram: trained in {seconds:.1f} s")
    start = time.perf_counter()
    runs = [dict(model(python_unigram(few, size))["vocab"]) for _ in range(3)]
    print(f"unigram: Python trains in {(time.perf_counter() - start) / 3:.1f} s")
    found = dict(ours["unigram"]["vocab"])
    compare_sets("unigram", set(found), [set(run) for run in runs])
    # Python scores letters that it lost in an order that changes from run to run.
    both = [piece for piece in found if len(piece) > 1 and all(piece in run for run in runs)]
    distances = sorted(min(abs(found[piece] - run[piece]) for run in runs) for piece in both)
    print(f"unigram: scores of {len(both)} longer pieces differ by at most {distances[-1]:.2e}")
    assert sum(distance > 1e-6 for distance in distances) < SIZE // 100, distances[-5:]


def check_ids(directory: Path, lines: list[str], file: Path, out: Path) -> None:
    peer("encode", directory, file, out / "ids")
    ours = [json.loads(ids) for ids in (out / "ids").read_text().split("\n")]
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # Special tokens in a text are text.
    tokenizer.encode_special_tokens = True
    theirs = tokenizer.encode_batch_fast(lines, add_special_tokens=False)
    read = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    scores = [score for _, score in read["vocab"]] if read.get("type") == "Unigram" else None
    ties = 0
    for line, found, encoding in zip(lines, ours, theirs, strict=True):
        if found == encoding.ids:
            continue
        sums = [sum(scores[id] for id in ids) for ids in (found, encoding.ids)] if scores else [0, 1]
        assert abs(sums[0] - sums[1]) < 1e-9, (directory.name, line, found[:30], encoding.ids[:30])
        ties += 1
    assert ties <= len(lines) // 100, ties
    print(f"{directory.name}: the ids of {len(lines)} lines are the same, but for {ties} ties", flush=True)


def compare_speed(directory: Path, lines: list[str], file: Path) -> None:
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    size = sum(len(line.encode()) for line in lines) / 1e6
    ours, theirs = [], []
    for _ in range(5):
        ours += json.loads(peer("time", directory, file, 3))["seconds"][1:]
        for _ in range(2):
            start = time.perf_counter()
            tokenizer.encode_batch_fast(lines, add_special_tokens=False)
            theirs.append(time.perf_counter() - start)
    best = min(theirs) / min(ours)
    middle = sorted(theirs)[len(theirs) // 2] / sorted(ours)[len(ours) // 2]
    print(
        f"{directory.name}: {size:.1f} MB at {size / min(ours):.1f} MB/s, Python {size / min(theirs):.1f} MB/s: "
        f"{best:.2f} times as fast (medians {middle:.2f})",
        flush=True,
    )


def main() -> None:
    whole = texts(DATA)
    sample = whole[:: max(1, len(whole) // 1500)]
    lines = [line for text in whole for line in text.split("\n") if line]
    random.Random(3).shuffle(lines)
    lines = lines[: N_LINES * 9 // 10]
    lines += symbols(N_LINES - len(lines))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        check_vocabularies(sample, write(out / "sample", sample), out)
        file = write(out / "lines", lines)
        directories = [out / "bpe", out / "wordpiece", out / "unigram", *map(Path, sys.argv[2:])]
        for directory in directories:
            check_ids(directory, lines, file, out)
        if DATA is None:
            return
        documents = write(out / "documents", whole)
        for directory in [out / "bpe", *map(Path, sys.argv[2:])]:
            compare_speed(directory, whole, documents)


if __name__ == "__main__":
    main()
