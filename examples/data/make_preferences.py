#!/usr/bin/env python3
"""Makes pairs of answers, of which one is preferred, from dialogues: for examples/uses/chat.md.

    python3 examples/data/make_preferences.py DIALOGUES.jsonl.gz OUTPUT.jsonl

A dialogue's first answer is the chosen one. The rejected one is the first answer of another dialogue, the nearest in length
of the next fifty with other words, so that a model cannot tell them apart by their length. All three are lists of messages, to
which the model's chat template applies. The output is the same bytes on every machine.
"""

import gzip
import json
import sys


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: make_preferences.py DIALOGUES.jsonl.gz OUTPUT.jsonl")
    with gzip.open(sys.argv[1], "rt", encoding="utf-8") as file:
        dialogues = [json.loads(line)["messages"] for line in file]
    pairs = [(messages[0]["content"], messages[1]["content"]) for messages in dialogues]
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        for at, (prompt, chosen) in enumerate(pairs):
            others = [pairs[(at + step) % len(pairs)][1] for step in range(1, 51)]
            rejected = min((other for other in others if other != chosen), key=lambda text: abs(len(text) - len(chosen)))
            said = [("prompt", "user", prompt), ("chosen", "assistant", chosen), ("rejected", "assistant", rejected)]
            row = {name: [{"role": role, "content": text}] for name, role, text in said}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{sys.argv[2]}: {len(pairs)} pairs")


if __name__ == "__main__":
    main()
