#!/usr/bin/env python3
"""Makes Python sources for examples/uses/code.md out of the standard library of the Python that runs it (licence: PSF-2.0).

    python3 examples/data/make_code.py data/code

Writes `code.jsonl`, pieces of modules of up to a thousand characters (`path`, `text`), and `code-test.jsonl`: lines cut out of five
modules that `code.jsonl` does not hold, as prompts to fill in the middle (`prompt`, `stop`), each with the line that was there
(`reference`).
"""

import json
import random
import sys
import sysconfig
from pathlib import Path

HELD_OUT = ["argparse", "json/decoder", "shelve", "textwrap", "zipapp"]
MOST_BYTES = 1_500_000
PIECE = 1000  # characters
CONTEXT = 400  # characters before and after a line
LINES = 40  # of each held-out module


def pieces(text: str) -> list[str]:
    """Whole lines, of `PIECE` characters or a little less together."""
    found = [""]
    for line in text.splitlines(keepends=True):
        if found[-1] and len(found[-1]) + len(line) > PIECE:
            found.append("")
        found[-1] += line
    return [piece for piece in found if piece.strip()]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: make_code.py OUTPUT-DIRECTORY")
    library, output = Path(sysconfig.get_paths()["stdlib"]), Path(sys.argv[1])
    output.mkdir(parents=True, exist_ok=True)
    modules = [path.relative_to(library).with_suffix("").as_posix() for path in sorted(library.glob("*.py"))]
    modules += [f"json/{path.stem}" for path in sorted(library.glob("json/*.py"))]
    size = 0
    with open(output / "code.jsonl", "w", encoding="utf-8") as file:
        for module in modules:
            text = (library / f"{module}.py").read_text(encoding="utf-8")
            if module in HELD_OUT or len(text) > 60_000 or size + len(text) > MOST_BYTES:
                continue
            size += len(text)
            for piece in pieces(text):
                file.write(json.dumps({"path": f"{module}.py", "text": piece}) + "\n")
    chance = random.Random(1)
    with open(output / "code-test.jsonl", "w", encoding="utf-8") as file:
        for module in HELD_OUT:
            lines = (library / f"{module}.py").read_text(encoding="utf-8").splitlines(keepends=True)
            code = [at for at, line in enumerate(lines) if 8 <= len(line.strip()) <= 60 and not line.lstrip().startswith("#")]
            for at in sorted(chance.sample(code, min(LINES, len(code)))):
                # Byte-pair vocabularies join a word and the space before it: the last space is left to the model.
                indent = max(len(lines[at]) - len(lines[at].lstrip()) - 1, 0)
                before = "".join(lines[:at])[-CONTEXT:] + lines[at][:indent]
                after = "\n" + "".join(lines[at + 1 :])[:CONTEXT]
                prompt = f"<fim_prefix>{before}<fim_suffix>{after}<fim_middle>"
                file.write(json.dumps({"prompt": prompt, "stop": ["\n"], "reference": lines[at].strip()}) + "\n")
    print(f"{output}: {size} characters of {library}")


if __name__ == "__main__":
    main()
