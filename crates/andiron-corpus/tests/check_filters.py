#!/usr/bin/env python3
"""Compares the decisions of the filters with those of datatrove, document by document.

    python check_filters.py [CORPUS.jsonl ...]

Needs datatrove, spaCy and ftfy (xtask/requirements.txt). Makes about a thousand documents: pieces of the shipped texts (and of
the corpora named), Korean, code, and mutations that reach every branch. Each filter of datatrove and each of ours
(`examples/filter.rs`) sees every document; verdicts, reasons and the texts that are left must be equal. Words are compared with
spaCy's, all its exceptions and 10,000 random strings of hard characters included.

Known differences, which the documents avoid or the script counts:

- a document without a single word is a ZeroDivisionError in datatrove's Gopher quality; ours goes as `too-few-words`.
- spaCy looks for exceptions over spaces too, so that `( -: )` hides a shorter one (english/mod.rs).
- datatrove's replacements for personal data go on from document to document; here each has a fresh formatter.
- ftfy knows more encodings (Greek, Turkish, Baltic, MacRoman, code page 437) and HTML entities. Of lines that were read in one of
  our encodings, once or twice, at most one in a hundred may come out differently, and of good lines none.
"""

import functools
import gzip
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import ftfy.bad_codecs  # noqa: F401  registers the sloppy encodings
import spacy
from datatrove.data import Document
from datatrove.pipeline import filters, formatters
from datatrove.utils.text import split_into_words

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / "examples/data"

# Ours, datatrove's, and the names of the reasons.
QUALITY = {
    "gopher_short_doc": "too-few-words",
    "gopher_long_doc": "too-many-words",
    "gopher_below_avg_threshold": "words-too-short",
    "gopher_above_avg_threshold": "words-too-long",
    "gopher_too_many_hashes": "too-many-hashes",
    "gopher_too_many_ellipsis": "too-many-ellipses",
    "gopher_too_many_bullets": "too-many-bullet-lines",
    "gopher_too_many_end_ellipsis": "too-many-ellipsis-lines",
    "gopher_below_alpha_threshold": "too-few-alphabetic-words",
    "gopher_enough_stop_words": "too-few-stop-words",
}
REPETITION = {
    "empty": "empty",
    "dup_para_frac": "duplicate-paragraphs",
    "dup_para_char_frac": "duplicate-paragraph-characters",
    "dup_line_frac": "duplicate-lines",
    "dup_line_char_frac": "duplicate-line-characters",
    **{f"top_{n}_gram": f"top-{n}-gram" for n in range(2, 5)},
    **{f"duplicated_{n}_n_grams": f"duplicate-{n}-grams" for n in range(5, 11)},
}
C4 = {"lorem_ipsum": "lorem-ipsum", "curly_bracket": "curly-bracket", "too_few_sentences": "too-few-sentences"}
FINEWEB = {
    "empty": "empty",
    "line_punct_ratio": "too-few-ended-lines",
    "short_line_ratio": "too-many-short-lines",
    "char_dup_ratio": "duplicate-line-characters",
    "list_ratio": "too-many-lines",
}
FILTERS = [
    ("gopher-quality", "", filters.GopherQualityFilter(), QUALITY),
    # Without the rules that most mutations meet first, the later ones are reached.
    (
        "gopher-quality",
        "min_words = 0\nmin_mean_word_length = 0\nmax_mean_word_length = 0",
        filters.GopherQualityFilter(min_doc_words=None, min_avg_word_length=None, max_avg_word_length=None),
        QUALITY,
    ),
    ("gopher-quality", "max_words = 60", filters.GopherQualityFilter(max_doc_words=60), QUALITY),
    ("gopher-repetition", "", filters.GopherRepetitionFilter(), REPETITION),
    (
        "gopher-repetition",
        "max_duplicate_paragraphs = 0\nmax_duplicate_paragraph_characters = 0\nmax_duplicate_lines = 0\n"
        "max_duplicate_line_characters = 0\ntop_n_grams = []",
        filters.GopherRepetitionFilter(None, None, None, None, top_n_grams=()),
        REPETITION,
    ),
    ("c4-quality", "", filters.C4QualityFilter(), C4),
    (
        "c4-quality",
        "min_sentences = 1\nmin_words_per_line = 1\nrequire_terminal_punctuation = false",
        filters.C4QualityFilter(min_num_sentences=1, min_words_per_line=1, filter_no_terminal_punct=False),
        C4,
    ),
    (
        "c4-quality",
        'by = "sentences"\nmin_words_per_line = 2',
        filters.C4QualityFilter(split_paragraph=False, min_words_per_line=2),
        C4,
    ),
    ("c4-paragraphs", "", filters.c4_filters.C4ParagraphFilter(), {"< 3 paragraphs": "too-few-paragraphs"}),
    ("fineweb-quality", "", filters.FineWebQualityFilter(), FINEWEB),
    (
        "fineweb-quality",
        "min_ended_lines = 0.0\nmax_short_lines = 1.0",
        filters.FineWebQualityFilter(line_punct_thr=0, short_line_thr=1),
        FINEWEB,
    ),
]


def pieces(text, random):
    """Pieces of 200 to 4,000 characters."""
    at = 0
    while at < len(text):
        length = random.choice([200, 500, 1000, 2000])
        yield text[at : at + length]
        at += length


def mutations(text, random):
    """Texts that are like this one but for what a rule looks for."""
    lines = text.split("\n")
    words = text.split(" ")
    some = lambda items: [item for item in items if random.random() < 0.3]
    yield "\n".join(line for line in lines for _ in range(random.choice([1, 1, 1, 2, 3])))
    yield "\n\n".join(line for line in lines for _ in range(random.choice([1, 2, 3])))
    yield "\n".join("- " + line for line in lines)
    yield "\n".join(" • " + line if random.random() < 0.95 else line for line in lines)
    yield "\n".join(line + random.choice(["...", "…", "…  ", "", "."]) for line in lines)
    yield " ".join(word + random.choice(["", "", "...", " #", " …", " # #"]) for word in words)
    yield " ".join(word if random.random() < 0.7 else str(random.randrange(10**6)) for word in words)
    yield " ".join(words[:12]) + ". " + " ".join(words[:9] * 3)
    yield " ".join(word[:2] for word in words)
    yield "-".join(words[:200])
    yield "".join(words)[:2500]
    yield text.replace(". ", ".\n").replace(", ", "?\n")
    yield text.replace("\n", " ").replace(". ", "! ")
    yield text.replace("\n", ".\n") + "\nThis line is about Lorem Ipsum, isn't it?"
    yield text.replace("\n", ".\n") + "\nPlease switch JavaScript on. And { off."
    yield text.replace("\n", ".\n") + "\nWe and { you use it."
    yield text.replace("\n", '."\n') + "\nWe use coo\u212aies. Read our Privacy Policy [12] [edit] [citation needed] [x] [٣]."
    yield text.replace("\n", "\r\n").replace(" ", "\u3000", 5).replace(" ", "\x1f", 3)
    yield text.replace(" ", "  ").replace("\n", " \n ")
    yield "\n".join(line[:25] for line in lines)
    yield "\n".join(some(lines))
    yield text.replace("e", "é").replace("a", "漢").replace("o", "😀")
    yield " ".join(word + " x" + "y" * random.choice([1, 999, 1000]) for word in words[:60])
    yield "\n".join(random.sample(lines, len(lines)) + lines[: len(lines) // 4])
    yield " ".join(words[i : i + 7] and " ".join(words[i : i + 7] + words[i : i + 5]) for i in range(0, len(words), 7))


HARD = [
    "a", "b", "A", "Z", "dog", "Dogs", "don't", "I'm", "im", "we'll", "Mr", "a.m", "10", "3", "km", "m²", "°C", "$", "US$", "€",
    ".", "..", "...", "…", ",", ":", ";", "!", "?", "-", "--", "---", "–", "—", "~", "/", "=", "<", ">", "+", "*", "^", "#", "%",
    "&", "@", "_", "(", ")", "[", "]", "{", "}", "'", '"', "’", "‘", "“", "”", "'s", "’S", "。", "，", "漢字", "한국어", "é", "É",
    "ß", "www.", "example", ".com", "http://", ".org/x?y", "127.0.0.1", "8.8.8.8", ":80", "😀", "°", "F.", "\\", "|", "`", "C++",
    ":)", ":-(", "o.O", "v.v", "x.", "N.Y.", "Ph.D.", "e.g.", "§", "¬", "\u0301", "١", "½",
]  # fmt: skip


def documents(corpora, random):
    texts = [path.read_text(encoding="utf-8") for path in [SHIPPED / "shakespeare.txt"]]
    sources = [("shipped", "\n".join(texts)[:400_000])]
    with gzip.open(SHIPPED / "manual-en-ko-train.jsonl.gz", "rt", encoding="utf-8") as rows:
        pairs = [json.loads(row) for row in rows]
    sources.append(("korean", "\n".join(str(value) for pair in pairs for key, value in pair.items() if key != "source")[:400_000]))
    sources.append(("code", "\n".join(path.read_text() for path in sorted((ROOT / "xtask/src").glob("*.rs")))))
    sources.append(("markdown", (ROOT / "crates/ARCHITECTURE.md").read_text(encoding="utf-8")))
    for corpus in corpora:
        with open(corpus, encoding="utf-8") as rows:
            sources.append((Path(corpus).name, "\n\n".join(json.loads(row)["text"] for row in rows)[:2_000_000]))
    made = ["", " ", "\n", "word", "...", "- ", "#" * 100, "The quick brown fox jumps over the lazy dog near the river bank today."]
    for _, text in sources:
        whole = list(pieces(text, random))
        made += random.sample(whole, min(60, len(whole)))
        for piece in random.sample(whole, min(9, len(whole))):
            made += mutations(piece, random)
    return made


@functools.cache
def program():
    if "ANDIRON_FILTER" in os.environ:
        return os.environ["ANDIRON_FILTER"]
    # The program is selected for its features alone: with them, everything below the example is built already.
    features = ["-p", "andiron-cli", "--features", "andiron-cli/ndarray"]
    build = ["cargo", "build", "--quiet", "--release", *features, "-p", "andiron-corpus", "--example", "filter"]
    subprocess.run(build, cwd=ROOT, check=True)
    return str(Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/examples/filter")


def ours(settings, texts, *flags):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "filters.toml"
        path.write_text(settings, encoding="utf-8")
        rows = "".join(json.dumps({"text": text} if isinstance(text, str) else text) + "\n" for text in texts)
        ran = subprocess.run([program(), *flags, str(path)], input=rows.encode(), stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return [json.loads(line) for line in ran.stdout.decode().split("\n") if line]


def theirs(one, text):
    """The text that is left, or the reason."""
    document = Document(text=text, id="0")
    try:
        verdict = one.filter(document)
    except ZeroDivisionError:
        return ("reason", None)
    kept, reason = verdict if isinstance(verdict, tuple) else (verdict, None)
    return ("text", document.text) if kept else ("reason", reason)


def check_decisions(texts):
    settings = "".join(f'[[filter]]\nkind = "{kind}"\n{more}\n' for kind, more, *_ in FILTERS)
    found = ours(settings, texts, "--each")
    different = 0
    counts = [{} for _ in FILTERS]
    # Document by document, so that datatrove keeps the words of one for all filters.
    for text, verdicts in zip(texts, found):
        for index, (kind, more, reference, reasons) in enumerate(FILTERS):
            what, value = theirs(reference, text)
            verdict = verdicts[index]
            if what == "reason" and value is None:
                continue
            expected = value if what == "text" else reasons[value]
            actual = verdict["text"] if "text" in verdict else verdict["reason"]
            name = "kept" if what == "text" else expected
            counts[index][name] = counts[index].get(name, 0) + 1
            if expected != actual:
                different += 1
                if different <= 20:
                    print(f"{kind} {more!r}: {text[:200]!r}: datatrove {expected[:200]!r}, ours {actual[:200]!r} {verdict.get('score')}", flush=True)
    for (kind, more, _, reasons), reached in zip(FILTERS, counts):
        print(f"{kind} {more!r}: {reached}")
        missing = set(reasons.values()) - set(reached)
        if missing:
            print(f"  no document reached {sorted(missing)}")
    return different


def check_formatters(texts):
    """Filters that change texts."""
    settings = '[[filter]]\nkind = "personal-data"\n[[filter]]\nkind = "symbol-lines"\n[[filter]]\nkind = "symbol-lines"\nreplacement = "~"\n'
    made = texts + [
        "write to a.b+c@mail.example.co.kr, <x@y.z>, a@[1.2.3.4], no@body, @x.y, q@w.e.r.t-, 1@2.3 ... user@例え.jp é@x.de",
        "8.8.8.8 192.168.1.1 1.2.3.4.5 256.1.1.1 01.2.3.4 100.64.0.1 224.0.0.1 255.255.255.255 0.0.0.0 192.0.0.8 198.19.0.1 172.32.0.1",
        "\n".join(["---", "***", "text", "- - -", "", "~~~", "!?", " ", "a", "════", "。。。"]),
    ]
    different = 0
    for text, verdicts in zip(made, ours(settings, made, "--each")):
        references = [
            formatters.PIIFormatter(),
            formatters.SymbolLinesFormatter(),
            formatters.SymbolLinesFormatter(replace_char="~"),
        ]
        for index, reference in enumerate(references):
            expected = reference.format(text)
            if verdicts[index]["text"] != expected:
                different += 1
                print(f"{reference.name}: {text[:200]!r}: datatrove {expected[:300]!r}, ours {verdicts[index]['text'][:300]!r}")
    print(f"formatters: {len(made)} texts, {different} different")
    return different


def check_blocklist(texts):
    words = ["love", "king", "de la", "ing", "파일", "of"]
    reference = filters.C4BadWordsFilter()
    reference._badwords_regex["en"] = re.compile(r"(?:\W|^)({})(?:\W|$)".format("|".join(map(re.escape, words))))
    found = ours(f'[[filter]]\nkind = "word-blocklist"\nwords = {json.dumps(words)}\n', texts)
    pairs = [(text, theirs(reference, text)[0] == "text", "text" in verdict) for text, verdict in zip(texts, found)]
    wrong = [text for text, expected, actual in pairs if expected != actual]
    print(f"blocklist: {sum(expected for _, expected, _ in pairs)} of {len(pairs)} kept, {len(wrong)} different {wrong[:3]}")
    return len(wrong)


def check_mojibake(texts, random):
    """Lines of several languages, read in the wrong encodings."""
    with gzip.open(SHIPPED / "verses-en-es-train.jsonl.gz", "rt", encoding="utf-8") as rows:
        spanish = [json.loads(row)["es"] for row in rows][:300]
    russian = ["Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.", "Мороз и солнце; день чудесный!"]
    other = ["Größe „Straße“ – 5 €", "Ça va être l’été à Besançon…", "Žluťoučký kůň úpěl ďábelské ódy", "naïve café", "日本語の文字", "«¿Qué?» — ¡Sí!", "x × y ≤ 3²"]
    lines = [line for text in texts for line in text.split("\n") if 20 < len(line) < 300 and not line.isascii()]
    lines = random.sample(lines, min(500, len(lines))) + spanish + russian * 3 + other
    encodings = ["latin-1", "sloppy-windows-1252", "sloppy-windows-1251", "sloppy-windows-1250"]
    made = []
    for line in lines:
        made.append(("good", line))
        once = line.encode().decode(random.choice(encodings))
        made += [("once", once), ("twice", once.encode().decode(random.choice(encodings[:2]))), ("lost", once.replace("\xa0", " "))]
        words = line.split(" ")
        words[len(words) // 2] = words[len(words) // 2].encode().decode(random.choice(encodings))
        made.append(("part", " ".join(words)))
    reference = formatters.FTFYFormatter(unescape_html=False)
    found = ours('[[filter]]\nkind = "mojibake-repair"\n', [line for _, line in made])
    counts, wrong = {}, {}
    for (kind, line), verdict in zip(made, found):
        counts[kind] = counts.get(kind, 0) + 1
        expected = reference.format(line)
        if verdict["text"] != expected:
            wrong.setdefault(kind, []).append((line, expected, verdict["text"]))
    for kind, pairs in wrong.items():
        for line, expected, actual in pairs[:6]:
            print(f"mojibake, {kind}: {line[:100]!r}: ftfy {expected[:100]!r}, ours {actual[:100]!r}")
    rates = {kind: f"{len(wrong.get(kind, []))} of {count}" for kind, count in counts.items()}
    print(f"mojibake: different {rates}")
    return sum(len(pairs) for pairs in wrong.values()) if any(len(pairs) > counts[kind] / 100 for kind, pairs in wrong.items()) else 0


def check_words(texts, random):
    exceptions = sorted(spacy.blank("en").tokenizer.rules)
    hard = ["".join(random.choice(HARD) + random.choice(["", "", "", " "]) for _ in range(random.randrange(2, 9))) for _ in range(10_000)]
    around = [before + text + after for text in exceptions for before, after in [("", ""), ("(", ")."), ("x-", ""), ("", "/y"), ("«", "…"), ("", "'s")]]
    different = 0
    # Only random strings have the one known difference, exceptions over spaces.
    for name, some, allowed in [("documents", texts, 0), ("exceptions", around, 0), ("random strings", hard, len(hard) // 1000)]:
        wrong = 0
        for text, words in zip(some, ours("", some, "--words")):
            expected = split_into_words(text)
            if words != expected:
                wrong += 1
                if wrong <= 10:
                    where = next((i for i, (a, b) in enumerate(zip(words, expected)) if a != b), min(len(words), len(expected)))
                    near = slice(max(0, where - 3), where + 6)
                    print(f"words: datatrove {expected[near]}, ours {words[near]}; {text[:80]!r}")
        print(f"words of {name}: {len(some)} texts, {wrong} different")
        different += wrong if wrong > allowed else 0
    return different


def main():
    chance = random.Random(7)
    texts = documents(sys.argv[1:], chance)
    print(f"{len(texts)} documents")
    different = check_decisions(texts)
    different += check_words(texts, chance)
    different += check_formatters(texts)
    different += check_blocklist(texts)
    different += check_mojibake(texts, chance)
    sys.exit(f"{different} differences" if different else 0)


if __name__ == "__main__":
    main()
