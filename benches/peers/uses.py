"""The baselines of examples/uses: other programs on the same rows.

    uses.py tfidf TRAIN [TEST] [--held-out SHARE] [--analyzer word|char_wb]
    uses.py cosine TRAIN TEST
    uses.py classify MODEL TRAIN --steps N [--precision f32|bf16]
    uses.py answer MODEL TRAIN TEST [--epochs N]
    uses.py search MODEL TRAIN TEST [--epochs N]

`tfidf` is TF-IDF with logistic regression (scikit-learn) and prints accuracy and macro F1. `cosine` is Spearman's correlation of the
scores of pairs and the cosines of TF-IDF of 1 to 5 letters. `classify` prints the speed of
`transformers`' Trainer, without the first five steps, at the settings of examples/configs/intent.toml. `answer` and `search` train with
`transformers` and sentence-transformers at the settings of answer.toml and search.toml and print exact match and F1, and Spearman's
correlation before and after. Rows are JSONL, CSV or TSV, or a file in SQuAD's layout for `answer`.
"""

import argparse
import csv
import json
import time
from pathlib import Path

WORD = 0xFFFFFFFF


def philox(counter: int, key: int, purpose: int, attempt: int = 0) -> int:
    """64 random bits: Philox4x32-10, as in andiron_kernels::random."""
    a, b, c, d = counter & WORD, counter >> 32, purpose, attempt
    low, high = key & WORD, key >> 32
    for _ in range(10):
        first, second = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (second >> 32) ^ b ^ low, second & WORD, (first >> 32) ^ d ^ high, first & WORD
        low, high = (low + 0x9E3779B9) & WORD, (high + 0xBB67AE85) & WORD
    return a | b << 32


def is_held_out(row: int, share: float) -> bool:
    """Whether Andiron's `data.held_out` holds a row out."""
    key, label = 0, b"held-out rows"
    for at in range(0, len(label), 8):
        key = philox(int.from_bytes(label[at : at + 8].ljust(8, b"\0"), "little"), key, 1)
    return (philox(row, philox(len(label), key, 1, 1), 0) >> 40) / (1 << 24) < share


def rows_of(path: Path) -> list[dict]:
    if path.suffix in (".csv", ".tsv"):
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def label_of(row: dict) -> str:
    return str(next(row[name] for name in ("label_name", "label", "category") if name in row))


def split(options: argparse.Namespace) -> tuple[list[dict], list[dict]]:
    train = rows_of(options.train)
    if options.held_out is None:
        return train, rows_of(options.test)
    chosen = [is_held_out(number, options.held_out) for number in range(len(train))]
    return [row for row, out in zip(train, chosen) if not out], [row for row, out in zip(train, chosen) if out]


def tfidf(options: argparse.Namespace) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score

    train, test = split(options)
    words = options.analyzer == "word"
    vectors = TfidfVectorizer(
        analyzer=options.analyzer, ngram_range=(1, 2) if words else (1, 5), sublinear_tf=True, min_df=1 if words else 2
    )
    inputs, tests = vectors.fit_transform(row["text"] for row in train), vectors.transform(row["text"] for row in test)
    expected = [label_of(row) for row in test]
    for c in (1, 4, 16):
        model = LogisticRegression(C=c, max_iter=300).fit(inputs, [label_of(row) for row in train])
        found = model.predict(tests)
        macro = f1_score(expected, found, average="macro")
        print(f"C {c}: {len(test)} rows, accuracy {accuracy_score(expected, found):.4f}, macro F1 {macro:.4f}")


def cosine(options: argparse.Namespace) -> None:
    from scipy.stats import spearmanr
    from sklearn.feature_extraction.text import TfidfVectorizer

    train, test = rows_of(options.train), rows_of(options.test)
    names = ("sentence1", "sentence2")
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5), sublinear_tf=True)
    vectors.fit(row[name] for row in train for name in names)
    first, second = (vectors.transform(row[name] for row in test) for name in names)
    cosines = first.multiply(second).sum(1).A1
    print(f"{len(test)} pairs, Spearman {spearmanr(cosines, [float(row['score']) for row in test]).statistic:.4f}")


def trained(model, features, tokenizer, callbacks=(), **settings):
    """`transformers`' Trainer on the CPU, with the settings that the uses share."""
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir="/tmp/andiron-peer", learning_rate=2e-4, lr_scheduler_type="linear", use_cpu=True, report_to=[],
        save_strategy="no", logging_strategy="no", disable_tqdm=True, train_sampling_strategy="group_by_length", **settings,
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=features, processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer), callbacks=list(callbacks),
    )
    trainer.train()
    return trainer


def classify(options: argparse.Namespace) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self):
            self.at = {}

        def on_step_end(self, args, state, control, **_):
            self.at[state.global_step] = (time.perf_counter(), time.process_time())

    train = rows_of(options.train)
    names = sorted({label_of(row) for row in train})
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    features = [
        {**tokenizer(row["text"], truncation=True, max_length=512), "labels": names.index(label_of(row))} for row in train
    ]
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=len(names))
    clock = Clock()
    trained(
        model, features, tokenizer, [clock], max_steps=options.steps, per_device_train_batch_size=32,
        bf16=options.precision == "bf16",
    )
    wall, processor = (end - start for start, end in zip(clock.at[5], clock.at[options.steps]))
    steps = options.steps - 5
    print(f"{options.precision}: {steps / wall:.3f} steps/s, {processor / steps:.3f} s of processor time a step")


def answer(options: argparse.Namespace) -> None:
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    def questions(path: Path) -> list[tuple[str, str, list[dict]]]:
        articles = json.loads(path.read_text(encoding="utf-8"))["data"]
        paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
        return [(asked["question"], part["context"], asked["answers"]) for part in paragraphs for asked in part["qas"]]

    tokenizer = AutoTokenizer.from_pretrained(options.model)

    def windows(rows):
        return tokenizer(
            [row[0] for row in rows], [row[1] for row in rows], truncation="only_second", max_length=384, stride=64,
            return_overflowing_tokens=True, return_offsets_mapping=True,
        )

    names = ("input_ids", "attention_mask", "token_type_ids")
    train, test = questions(options.train), questions(options.test)
    encoded, features = windows(train), []
    for at, row in enumerate(encoded["overflow_to_sample_mapping"]):
        found = train[row][2][0]
        start, end = found["answer_start"], found["answer_start"] + len(found["text"])
        places, parts = encoded["offset_mapping"][at], encoded.sequence_ids(at)
        context = [token for token, part in enumerate(parts) if part == 1]
        first = last = 0
        if places[context[0]][0] <= start and end <= places[context[-1]][1]:
            first = max(token for token in context if places[token][0] <= start)
            last = min(token for token in context if places[token][1] >= end)
        features.append({**{name: encoded[name][at] for name in names}, "start_positions": first, "end_positions": last})
    model = AutoModelForQuestionAnswering.from_pretrained(options.model)
    trained(
        model, features, tokenizer, num_train_epochs=options.epochs, per_device_train_batch_size=16, warmup_ratio=0.06
    )
    model.eval()
    encoded, best = windows(test), {}
    for at, row in enumerate(encoded["overflow_to_sample_mapping"]):
        with torch.no_grad():
            output = model(**{name: torch.tensor([encoded[name][at]]) for name in names})
        starts, ends = output.start_logits[0], output.end_logits[0]
        places, parts = encoded["offset_mapping"][at], encoded.sequence_ids(at)
        for first in starts.topk(20).indices.tolist():
            for last in ends.topk(20).indices.tolist():
                score = (starts[first] + ends[last]).item()
                fits = first <= last < first + 30 and parts[first] == 1 and parts[last] == 1
                if fits and score > best.get(row, (float("-inf"),))[0]:
                    best[row] = (score, test[row][1][places[first][0] : places[last][1]])
    # For `andiron metric squad`.
    for at, row in enumerate(test):
        texts = [found["text"] for found in row[2]]
        print(json.dumps({"prediction": best.get(at, (0, ""))[1], "references": texts}, ensure_ascii=False))


def search(options: argparse.Namespace) -> None:
    from datasets import Dataset
    from scipy.stats import spearmanr
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.losses import CoSENTLoss

    names = ("sentence1", "sentence2")
    train, test = rows_of(options.train), rows_of(options.test)
    model = SentenceTransformer(str(options.model), device="cpu")

    def correlation() -> float:
        first, second = (model.encode([row[name] for row in test], normalize_embeddings=True) for name in names)
        return spearmanr((first * second).sum(1), [float(row["score"]) for row in test]).statistic

    print(f"before: Spearman {correlation():.4f}", flush=True)
    arguments = SentenceTransformerTrainingArguments(
        output_dir="/tmp/andiron-peer", num_train_epochs=options.epochs, per_device_train_batch_size=32, learning_rate=2e-4,
        warmup_ratio=0.06, lr_scheduler_type="linear", use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
        logging_strategy="no",
    )
    pairs = [{**{name: row[name] for name in names}, "score": float(row["score"])} for row in train]
    SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(pairs), loss=CoSENTLoss(model)
    ).train()
    print(f"after: Spearman {correlation():.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    works = parser.add_subparsers(required=True)
    work = works.add_parser("tfidf")
    work.add_argument("train", type=Path)
    work.add_argument("test", type=Path, nargs="?")
    work.add_argument("--held-out", type=float)
    work.add_argument("--analyzer", choices=["word", "char_wb"], default="word")
    work.set_defaults(run=tfidf)
    work = works.add_parser("cosine")
    work.add_argument("train", type=Path)
    work.add_argument("test", type=Path)
    work.set_defaults(run=cosine)
    for name, run in (("classify", classify), ("answer", answer), ("search", search)):
        work = works.add_parser(name)
        work.add_argument("model", type=Path)
        work.add_argument("train", type=Path)
        if name == "classify":
            work.add_argument("--steps", type=int, default=30)
            work.add_argument("--precision", choices=["f32", "bf16"], default="f32")
        else:
            work.add_argument("test", type=Path)
            work.add_argument("--epochs", type=float, default={"answer": 8, "search": 2}[name])
        work.set_defaults(run=run)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
