"""Small models as sentence-transformers and transformers read them, and what those answer: `expected.json`.

Run in this folder, without a network: `python sentence.py`. Made with sentence-transformers 6.2.0, transformers 5.24.0
and torch 2.15.0.
"""
import collections
import json
import os
import shutil

import torch
import transformers as T
from sentence_transformers import CrossEncoder, SentenceTransformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "hello", "!"]
LONG = "a b hello ! " * 20


def write(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        json.dump(content, file)


def tokenizer(folder, lower, **config):
    t = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=lower, strip_accents=lower)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    t.add_special_tokens(WORDS[:5])
    t.save(folder + "/tokenizer.json")
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    write(folder + "/tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names, **config})


def bert(folder, kind="BertModel", **settings):
    torch.manual_seed(0)
    sizes = dict(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                 max_position_embeddings=24, initializer_range=0.5)
    model = getattr(T, kind)(T.BertConfig(**{**sizes, **settings})).eval()
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    return model


def modules(folder, *kinds):
    """`modules.json` with a Transformer, a Pooling and what else is given."""
    kinds = ("Transformer", "Pooling", *kinds)
    steps = [{"idx": i, "name": str(i), "path": f"{i}_{k}" if i else "", "type": f"sentence_transformers.models.{k}"}
             for i, k in enumerate(kinds)]
    write(folder + "/modules.json", steps)
    write(folder + "/1_Pooling/config.json", {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True})


def dense(folder, width, **config):
    torch.manual_seed(1)
    bias = config.get("bias", True)
    linear = torch.nn.Linear(8, width, bias=bias)
    write(folder + "/config.json", {"in_features": 8, "out_features": width, "bias": bias, **config})
    weights = collections.OrderedDict(("linear." + name, p) for name, p in linear.state_dict().items())
    if config.get("use_residual") and width != 8:
        weights["residual.weight"] = torch.nn.Linear(8, width, bias=False).weight.data
    torch.save(weights, folder + "/pytorch_model.bin")


expected = {}


def embed(name, text, **options):
    vector = SentenceTransformer(name, device="cpu").encode([text], **options)[0]
    return [round(float(x), 6) for x in vector]


# A model whose weights are PyTorch's, in one file and in two.
model = bert("sentence")
state = model.state_dict()
os.remove("sentence/model.safetensors")
torch.save(state, "sentence/pytorch_model.bin")
tokenizer("sentence", True, model_max_length=16)
modules("sentence")
names = list(state)
parts = {"pytorch_model-00001-of-00002.bin": names[:7], "pytorch_model-00002-of-00002.bin": names[7:]}
for part, keys in parts.items():
    os.makedirs("shards", exist_ok=True)
    torch.save(collections.OrderedDict((k, state[k]) for k in keys), f"shards/{part}")
write("shards/pytorch_model.bin.index.json",
      {"metadata": {"total_size": 0}, "weight_map": {k: part for part, keys in parts.items() for k in keys}})

work = "work"
def fresh(lower=True, **config):
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree("sentence", work)
    tokenizer(work, lower, **config)

expected["long"] = embed("sentence", LONG)
fresh()
expected["whole"] = embed(work, LONG)
write(work + "/sentence_roberta_config.json", {"max_seq_length": 12})
expected["old name"] = embed(work, LONG)
fresh(model_max_length=16)
write(work + "/sentence_bert_config.json", {"max_seq_length": 20})
expected["own limit first"] = embed(work, LONG)
fresh(lower=False)
expected["cased"] = embed(work, "HELLO A")
write(work + "/sentence_bert_config.json", {"max_seq_length": None, "do_lower_case": True})
expected["lower case"] = embed(work, "HELLO A")

fresh()
write(work + "/config_sentence_transformers.json", {"prompts": {"query": "hello b ", "s": "! "}, "default_prompt_name": "query"})
expected["prompt"] = embed(work, "a")
expected["prompt s"] = embed(work, "a", prompt_name="s")
expected["prompt given"] = embed(work, "a", prompt="b b ")
write(work + "/1_Pooling/config.json", {"embedding_dimension": 8, "pooling_mode": "mean", "include_prompt": False})
expected["prompt left out"] = embed(work, "a")
write(work + "/1_Pooling/config.json", {"embedding_dimension": 8, "pooling_mode": "cls", "include_prompt": False})
expected["prompt left out, cls"] = embed(work, "a")

for name, width, config in [
        ("tanh", 3, {}), ("identity", 3, {"activation_function": "torch.nn.modules.linear.Identity", "bias": False}),
        ("gelu", 3, {"activation_function": "torch.nn.modules.activation.GELU"}),
        ("residual", 8, {"use_residual": True}), ("mapped residual", 3, {"use_residual": True})]:
    fresh()
    modules(work, "Dense", "Normalize")
    dense(work + "/2_Dense", width, **config)
    expected["dense " + name] = embed(work, "hello a")
    if name == "tanh":
        shutil.rmtree("dense", ignore_errors=True)
        shutil.copytree(work + "/2_Dense", "dense")
    if name == "mapped residual":
        shutil.rmtree("residual", ignore_errors=True)
        shutil.copytree(work + "/2_Dense", "residual")

# A cross-encoder: two texts, cut at the tokenizer's limit, without token types since the tokenizer's class gives none.
bert("cross", "BertForSequenceClassification", num_labels=1)
tokenizer("cross", True, model_max_length=16)
pair = ("hello a", "hello hello a b ! " * 6)
def rank(**options):
    return round(float(CrossEncoder("cross", device="cpu", **options).predict([pair])[0]), 6)
expected["rerank"] = rank()
CrossEncoder("cross", device="cpu", activation_fn=torch.nn.Identity()).save("saved")
expected["rerank saved"] = round(float(CrossEncoder("saved", device="cpu").predict([pair])[0]), 6)
for file in ["modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"]:
    os.makedirs("cross-saved", exist_ok=True)
    shutil.copy("saved/" + file, "cross-saved/" + file)
tokenizer("cross", True, model_max_length=16, model_input_names=["input_ids", "token_type_ids", "attention_mask"])
expected["rerank typed"] = rank()
tokenizer("cross", True, model_max_length=16)
shutil.rmtree("saved")

def classify(name, text):
    answers = T.pipeline("text-classification", model=name, top_k=None)(text)
    answers = answers[0] if isinstance(answers[0], list) else answers
    return {a["label"]: round(a["score"], 6) for a in answers}
expected["one label"] = classify("cross", "hello a")
config = json.load(open("cross/config.json"))
write("cross/config.json", {**config, "problem_type": "regression"})
expected["one number"] = classify("cross", "hello a")
write("cross/config.json", config)

# A BERT that tells no texts apart, and a tokenizer that does.
bert("untyped", "BertForSequenceClassification", num_labels=2, type_vocab_size=1)
tokenizer("untyped", True, model_input_names=["input_ids", "attention_mask"])
expected["untyped pair"] = classify("untyped", {"text": "hello a", "text_pair": "b"})
shutil.rmtree(work)
with open("expected.json", "w") as file:
    json.dump(expected, file, indent=1)
