"""Fixture of attention probabilities: those of `transformers` with `output_attentions` and eager attention.

Reads the model directories that the other scripts of this folder made, and writes `attention.json`.
"""
import json
import pathlib

import torch
import transformers

HERE = pathlib.Path(__file__).parent
ENCODERS = ("bert", "distilbert-untied", "roberta-untied", "modernbert")
DECODERS = ("gpt2", "llama", "mistral", "qwen3", "gemma3", "neox")
PAIRS = ("t5", "bart", "marian")
TEXT = [9, 21, 5, 33, 14, 7, 28, 11]
TARGET = [2, 19, 6, 31, 8]


def layers(kind, attentions):
    return [{"kind": kind, "layer": n, "shape": list(p.shape[1:]),
             "probabilities": [float(f"{x:.6g}") for x in p[0].flatten().tolist()]} for n, p in enumerate(attentions)]


def of(name, kind):
    model = kind.from_pretrained(HERE / name, attn_implementation="eager", dtype=torch.float32).eval()
    ids = torch.tensor([TEXT])
    with torch.no_grad():
        if kind is not transformers.AutoModelForSeq2SeqLM:
            return layers("Text", model(ids, output_attentions=True).attentions)
        out = model(input_ids=ids, decoder_input_ids=torch.tensor([TARGET]), output_attentions=True, use_cache=False)
    return (layers("Source", out.encoder_attentions) + layers("Target", out.decoder_attentions)
            + layers("Cross", out.cross_attentions))


def make():
    kinds = ([(name, transformers.AutoModel) for name in ENCODERS + DECODERS]
             + [(name, transformers.AutoModelForSeq2SeqLM) for name in PAIRS])
    found = {"versions": {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]},
             "text": TEXT, "target": TARGET, "fixtures": {name: of(name, kind) for name, kind in kinds}}
    (HERE / "attention.json").write_text(json.dumps(found))


MAKERS = {"attention": make}
