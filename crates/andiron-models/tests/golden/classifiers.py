"""Fixtures of decoders that label texts: a model directory each, with the logits of two texts and gradients.

The second text is shorter and filled up on the right. `grads` are those of the sum of the logits times fixed weights.
"""
import json
import pathlib

import torch
import transformers

from decoders import rope, rounded, spread

HERE = pathlib.Path(__file__).parent
VOCABULARY = 61
LENGTHS = (9, 6)
PADDING = 3

GATED = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 24, "max_position_embeddings": 32,
         "bos_token_id": None, "eos_token_id": None, "pad_token_id": PADDING}
SETTINGS = {
    "gpt2": ("GPT2Config", {"vocab_size": VOCABULARY, "n_positions": 24, "n_embd": 18, "n_layer": 2, "n_head": 3,
                            "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": PADDING, "num_labels": 3,
                            "problem_type": "multi_label_classification"}),
    "llama": ("LlamaConfig", GATED | {"id2label": {0: "sad", 1: "glad", 2: "neither"},
                                     "label2id": {"sad": 0, "glad": 1, "neither": 2}}),
    "mistral": ("MistralConfig", GATED | {"sliding_window": 4, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", GATED | {"num_labels": 1}),
    "qwen3": ("Qwen3Config", GATED | {"num_labels": 2}),
    "neox": ("GPTNeoXConfig", {"vocab_size": VOCABULARY, "hidden_size": 18, "num_hidden_layers": 2,
                               "num_attention_heads": 3, "intermediate_size": 24, "max_position_embeddings": 32,
                               "bos_token_id": None, "eos_token_id": None, "pad_token_id": PADDING, "num_labels": 4,
                               "rope_parameters": rope("default", partial_rotary_factor=0.67)}),
    "gemma3": ("Gemma3TextConfig", GATED | {"sliding_window": 4, "query_pre_attn_scalar": 8, "num_labels": 5,
                                            "layer_types": ["sliding_attention", "full_attention"]}),
}


def make(kind):
    name = f"{kind}-classify"
    torch.manual_seed(sum(name.encode()))
    config_name, settings = SETTINGS[kind]
    config = getattr(transformers, config_name)(**settings)
    model = getattr(transformers, config_name.replace("Config", "ForSequenceClassification"))(config)
    spread(model, 3.0)
    model = model.eval()
    folder = HERE / name
    model.save_pretrained(folder)
    ids = torch.randint(PADDING + 1, VOCABULARY, (len(LENGTHS), max(LENGTHS)))
    mask = torch.tensor([[1] * n + [0] * (max(LENGTHS) - n) for n in LENGTHS])
    ids = torch.where(mask == 1, ids, PADDING)
    logits = model(input_ids=ids, attention_mask=mask).logits
    weights = torch.cos(torch.arange(logits.numel(), dtype=torch.float32)).view_as(logits) / logits.numel()
    (logits * weights).sum().backward()
    first = next(n for n, p in model.named_parameters() if p.dim() == 2 and "attn" in n or "attention" in n)
    parameters = dict(model.named_parameters())
    expected = {"versions": {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]},
                "ids": ids.tolist(), "lengths": list(LENGTHS), "logits": rounded(logits.detach()),
                "grads": {n: rounded(parameters[n].grad) for n in ["score.weight", first]}}
    (folder / "expected.json").write_text(json.dumps(expected))


MAKERS = {f"{kind}-classify": lambda kind=kind: make(kind) for kind in SETTINGS}
