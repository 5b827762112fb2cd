"""Writes `src/tokenizer/east_asian.json`: tokenizers of every kind, and the ids of Korean and Japanese, composed and not.

Run by hand, with tokenizers 0.23.3, transformers 5.24.0 and sentencepiece 0.2.3: python east_asian_cases.py
"""

import json
import tempfile
import unicodedata
import warnings
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import MarianTokenizer

warnings.filterwarnings("ignore")
CORPUS = ["한국어 문장", "한국어", "ガラスの日本語", "パーティー ガラス", "문장 한국", "日本語 日本", "café"] * 4
TEXTS = ["한국어 문장", "ガラスの日本語", "パーティー", "ｶﾞﾗｽ ﾊﾟ", "café 한국", "한 ガ\u0301 ①\u0301 ﬁ\u0301"]
TEXTS += [unicodedata.normalize("NFD", text) for text in TEXTS]


def rules(path: Path) -> None:
    """The part of NFKC that the texts need; all of it makes a large file."""
    lines = {}
    for syllable in sorted(set("".join(CORPUS + TEXTS))):
        for form in (unicodedata.normalize("NFD", syllable), unicodedata.normalize("NFKD", syllable), syllable):
            composed = unicodedata.normalize("NFKC", form)
            if form != composed:
                lines[form] = composed
    for kana in "ｶﾗｽﾊ":
        for mark in ("", "\uff9e", "\uff9f"):
            form = kana + mark
            composed = unicodedata.normalize("NFKC", form)
            if len(composed) == 1:
                lines[form] = composed
    spelled = lambda text: " ".join(f"{ord(c):X}" for c in text)
    path.write_text("".join(f"{spelled(a)}\t{spelled(b)}\n" for a, b in lines.items()))


def train_spm(directory: Path, name: str) -> None:
    rules(directory / "rules.tsv")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_prefix=str(directory / name),
        vocab_size=40,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_tsv=str(directory / "rules.tsv"),
        minloglevel=2,
    )


def field(message: bytes, wanted: int) -> bytes:
    """A field of bytes in a protocol buffer."""
    at, found = 0, b""

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = varint()
        kind = tag & 7
        if kind == 0:
            varint()
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            length = varint()
            if tag >> 3 == wanted:
                found = message[at : at + length]
            at += length
    return found


def charsmap(model: Path) -> bytes:
    return field(field(model.read_bytes(), 3), 2)


def cases(tokenizer: Tokenizer) -> dict:
    found = [[text, tokenizer.encode(text, add_special_tokens=False).ids] for text in TEXTS]
    return dict(files={"tokenizer.json": json.loads(tokenizer.to_str())}, cases=found)


def byte_level() -> dict:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return cases(tokenizer)


def sentence_piece_bpe() -> dict:
    vocab = {"<unk>": 0, **{f"<0x{byte:02X}>": 1 + byte for byte in range(256)}}
    for piece in ["▁", *sorted(set("".join(CORPUS)) - {" "}), "▁한", "▁한국", "▁한국어", "ガラ", "ガラス", "日本", "日本語"]:
        vocab.setdefault(piece, len(vocab))
    merges = [("▁", "한"), ("▁한", "국"), ("▁한국", "어"), ("ガ", "ラ"), ("ガラ", "ス"), ("日", "本"), ("日本", "語")]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return cases(tokenizer)


def unigram(directory: Path) -> dict:
    model = sentencepiece.SentencePieceProcessor(model_file=str(directory / "source.model"))
    pieces = [(model.id_to_piece(i), model.get_score(i)) for i in range(model.get_piece_size())]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=model.unk_id()))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(charsmap(directory / "source.model")), normalizers.Replace("  ", " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace("▁", prepend_scheme="always")
    return cases(tokenizer)


def word_piece() -> dict:
    words = ["[UNK]", "한국어", "문장", "##어", "ガラス", "##の", "日", "本", "語", "カラス", "##スの", "cafe", "한국"]
    words += sorted(set(unicodedata.normalize("NFD", "한국어 문장 ガラス")) - {" ", "\u3099"})
    words += ["##" + c for c in sorted(set(unicodedata.normalize("NFD", "한국어문장ガラスの")) - {"\u3099"})]
    vocab = {word: n for n, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return cases(tokenizer)


def marian(directory: Path) -> dict:
    for name in ("source", "target"):
        (directory / f"{name}.spm").write_bytes((directory / "source.model").read_bytes())
    model = sentencepiece.SentencePieceProcessor(model_file=str(directory / "source.spm"))
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size()) if not model.is_control(i)]
    vocabulary = ["</s>", "<unk>", *[p for p in pieces if p != "<unk>"], "\u0301", "<pad>"]
    vocab = {piece: n for n, piece in enumerate(vocabulary)}
    (directory / "vocab.json").write_text(json.dumps(vocab))
    tokenizer = MarianTokenizer.from_pretrained(directory)
    found = [[text, tokenizer(text, add_special_tokens=False)["input_ids"]] for text in TEXTS]
    spm = (directory / "source.spm").read_bytes().hex()
    return dict(files={"vocab.json": vocab}, spm=spm, cases=found)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        train_spm(directory, "source")
        made = {
            "byte-level BPE": byte_level(),
            "SentencePiece BPE": sentence_piece_bpe(),
            "Unigram": unigram(directory),
            "Marian": marian(directory),
            "WordPiece": word_piece(),
        }
    path = Path(__file__).parent.parent.parent / "src/tokenizer/east_asian.json"
    path.write_text(json.dumps(made) + "\n")
    for kind, content in made.items():
        print(kind, len(json.dumps(content)), content["cases"][0], content["cases"][6], content["cases"][3])


main()
