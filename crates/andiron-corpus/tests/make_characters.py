"""Writes src/clean/characters.txt: what spaCy, datatrove and Python say about each character.

    python crates/andiron-corpus/tests/make_characters.py > crates/andiron-corpus/src/clean/characters.txt

Each line is a range of code points and the classes of its characters, in hexadecimal and letters; characters without a
class have no line. The letters are explained in src/clean/characters.rs. Needs datatrove and spacy (xtask/requirements.txt).
"""

import itertools
import re
import sys
import unicodedata

import spacy
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION
from spacy.lang import char_classes
from spacy.pipeline import Sentencizer


def classes():
    """The classes of each code point, in order; None for a surrogate."""
    tokenizer = spacy.blank("en").tokenizer
    sets = {
        "A": re.compile(f"[{char_classes.ALPHA}]"),
        "L": re.compile(f"[{char_classes.ALPHA_LOWER}]"),
        "U": re.compile(f"[{char_classes.ALPHA_UPPER}]"),
        "I": re.compile(f"[{char_classes.ICONS}]"),
        "Q": re.compile(f"[{char_classes.CONCAT_QUOTES}]"),
        "w": re.compile(r"\w"),
    }
    sentence_ends = set(Sentencizer.default_punct_chars)
    for code in range(sys.maxunicode + 1):
        if 0xD800 <= code < 0xE000:
            yield None
            continue
        character = chr(code)
        category = unicodedata.category(character)
        flags = "".join(letter for letter, pattern in sets.items() if pattern.fullmatch(character))
        flags += "P" if tokenizer.prefix_search(character) else ""
        flags += "S" if tokenizer.suffix_search(character) else ""
        before_period = tokenizer.suffix_search(character + ".")
        flags += "D" if before_period and before_period.start() == 1 else ""
        flags += "G" if category.startswith("P") else ""
        flags += "T" if character in sentence_ends else ""
        flags += "X" if character in PUNCTUATION_SET else ""
        flags += "Z" if character in TERMINAL_PUNCTUATION else ""
        flags += "l" if character.isalpha() else ""
        flags += "n" if category == "Nd" else ""
        flags += "s" if character.isspace() else ""
        yield flags


def main():
    code = 0
    for flags, group in itertools.groupby(classes()):
        length = sum(1 for _ in group)
        if flags:
            print(f"{code:X} {code + length - 1:X} {flags}")
        code += length


main()
