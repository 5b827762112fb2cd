"""Fixtures of adapters: directories as `peft` saves them, over models that the other fixtures have, with what both compute.

Each is `adapters/NAME`, and `expected.json` in it names the folder of the base model. Every factor, magnitude vector and
module trained in full has random values, so that none of them can be left out. `grads` are those of the sum of the outputs
times fixed weights, under the names and in the layout of Andiron's parameters.
"""
import json
import pathlib
import warnings

import torch
import transformers

from decoders import rounded

HERE = pathlib.Path(__file__).parent

# Base model, settings of `LoraConfig`, and the modules whose gradients are recorded.
SETTINGS = {
    "llama-all-linear": ("llama", {"r": 3, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM"},
                         ["model.layers.1.self_attn.k_proj"]),
    "llama-dora": ("llama", {"r": 2, "lora_alpha": 5, "use_dora": True, "use_rslora": True, "lora_dropout": 0.1,
                             "target_modules": ["q_proj", "down_proj", "embed_tokens", "lm_head"]},
                   ["model.layers.0.mlp.down_proj", "model.embed_tokens"]),
    "llama-tied": ("llama-tied", {"r": 2, "lora_alpha": 8, "target_modules": ["q_proj", "o_proj", "embed_tokens", "lm_head"],
                                  "rank_pattern": {"layers.1.self_attn.q_proj": 3}, "alpha_pattern": {"o_proj": 3}}, []),
    "gpt2-dora": ("gpt2", {"r": 2, "lora_alpha": 4, "use_dora": True, "target_modules": ["c_attn", "c_proj", "wte", "wpe"],
                           "exclude_modules": ["mlp.c_proj"]}, ["transformer.h.1.attn.c_attn"]),
    "gpt2-layers": ("gpt2", {"r": 2, "target_modules": ["c_fc"], "layers_to_transform": [1], "layers_pattern": "h"}, []),
    "neox": ("neox", {"r": 2, "target_modules": ["query_key_value", "lm_head"]}, []),
    "bert-classify": ("bert-classify", {"r": 2, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "SEQ_CLS"}, []),
    "bert": ("bert", {"r": 2, "target_modules": r".*\.(query|output\.dense)", "task_type": "FEATURE_EXTRACTION"}, []),
    "distilbert-classify": ("distilbert-classify", {"r": 2, "target_modules": ["q_lin", "lin2"], "task_type": "SEQ_CLS"}, []),
    "t5": ("t5", {"r": 2, "use_rslora": True, "target_modules": "all-linear", "task_type": "SEQ_2_SEQ_LM"}, []),
}


def make(name):
    import peft

    base, settings, recorded = SETTINGS[name]
    torch.manual_seed(sum(name.encode()))
    config = json.loads((HERE / base / "config.json").read_text())
    model = getattr(transformers, config["architectures"][0]).from_pretrained(HERE / base)
    # The path of this machine is of no interest.
    model.name_or_path = ""
    model.config._name_or_path = ""
    adapted = peft.get_peft_model(model, peft.LoraConfig(**settings)).eval()
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, mean=0.5 if parameter.dim() == 1 else 0.0, std=0.4)
    folder = HERE / "adapters" / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted.save_pretrained(folder)
    (folder / "README.md").unlink()

    ids = torch.randint(4, 40, (2, 7))
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids.flip(0)} if config.get("is_encoder_decoder") else {})
    outputs = adapted(**inputs)[0]
    weights = torch.cos(torch.arange(outputs.numel(), dtype=torch.float32)).view_as(outputs) / outputs.numel()
    (outputs * weights).sum().backward()
    gradients = {}
    for module in recorded:
        layer = adapted.base_model.model.get_submodule(module)
        usage = "lora_embedding" if hasattr(layer.lora_embedding_A, "default") else "lora"
        for half in "AB":
            factors = getattr(layer, f"{usage}_{half}").default
            matrix = getattr(factors, "weight", factors)
            gradients[f"{module}.weight.{usage}_{half.lower()}"] = rounded(matrix.grad.T.contiguous())
        if settings.get("use_dora"):
            magnitude = layer.lora_magnitude_vector.default.weight
            gradients[f"{module}.weight.{usage}_magnitude"] = rounded(magnitude.grad)
    versions = {"peft": peft.__version__, "transformers": transformers.__version__,
                "torch": torch.__version__.split("+")[0]}
    expected = {"versions": versions, "base": base, "ids": ids.tolist(), "outputs": rounded(outputs.detach()),
                "grads": gradients}
    (folder / "expected.json").write_text(json.dumps(expected))


MAKERS = {f"adapter-{name}": lambda name=name: make(name) for name in SETTINGS}
