"""Which keys of a `config.json` the classes of the installed `transformers` read.

A key of an architecture is a field of its configuration's class, another name of a field (`attribute_map`), a keyword
that the class takes from what is left, or whatever the modules of the model read of `config`. Keys of the base class
are those of `PreTrainedConfig`, what the modules that all models share read, and the parameters of generation.
Attributes that are methods, properties that compute and constants of the class are no keys.
"""
import ast
import dataclasses
import importlib
import json
import pathlib

import transformers
from transformers import GenerationConfig, PreTrainedConfig

HERE = pathlib.Path(__file__).parent
ROOT = pathlib.Path(transformers.__file__).parent
# `model_type`: the class of the configuration, and the folder of the model.
CLASSES = {
    "gpt2": ("GPT2Config", "gpt2"),
    "llama": ("LlamaConfig", "llama"),
    "mistral": ("MistralConfig", "mistral"),
    "qwen2": ("Qwen2Config", "qwen2"),
    "qwen3": ("Qwen3Config", "qwen3"),
    "gpt_neox": ("GPTNeoXConfig", "gpt_neox"),
    "gemma3_text": ("Gemma3TextConfig", "gemma3"),
    "bert": ("BertConfig", "bert"),
    "roberta": ("RobertaConfig", "roberta"),
    "xlm-roberta": ("XLMRobertaConfig", "xlm_roberta"),
    "distilbert": ("DistilBertConfig", "distilbert"),
    "modernbert": ("ModernBertConfig", "modernbert"),
    "bart": ("BartConfig", "bart"),
    "marian": ("MarianConfig", "marian"),
    "t5": ("T5Config", "t5"),
}
SHARED = [
    "configuration_utils.py", "modeling_utils.py", "masking_utils.py", "cache_utils.py", "generation/utils.py",
    "integrations/sdpa_attention.py",
]
# What the modules of some models use, and by what one sees that they do.
USED_BY_SOME = {"modeling_rope_utils.py": "ROPE_INIT_FUNCTIONS", "modeling_layers.py": "GenericFor"}
# Functions whose keywords are keys of the file.
READERS = {"__init__", "__post_init__", "convert_rope_params_to_dict"}
# Names under which the code has a configuration.
OWNERS = {"config", "self.config", "layer_config", "decoder_config", "text_config", "effective_config"}
# The same file holds the classes of another architecture, with images.
IMAGES = {"gemma3": {"image_token_id", "mm_tokens_per_image", "text_config", "vision_config", "boi_token_index",
                     "eoi_token_index", "image_token_index"}}
# Of architectures that are not here, found in the shared files: layers that predict several tokens, and others.
ELSEWHERE = {
    "chain_hidden_post_norm", "first_k_dense_replace", "kv_sharing_modes", "mlp_layer_types", "mtp_hidden_states_first",
    "mtp_layer_types", "mtp_mlp_layer_types", "mtp_per_layer_config", "num_mtp_layers", "number_of_conv_states",
    "qk_head_dim", "logits_mup_width_multiplier", "unpadded_vocab_size", "encoder", "sub_configs",
}
# What the shared files read of whatever configuration has it: keys only where a class or its model reads them.
SIZES = {
    "attention_dropout", "head_dim", "hidden_size", "init_std", "initializer_factor", "initializer_range",
    "max_position_embeddings", "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "rope_parameters",
    "rope_scaling", "rope_theta", "vocab_size",
}


def reads(path, owners=frozenset(OWNERS)):
    """Names that the file reads of a configuration, or takes from the keywords of one."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and ast.unparse(node.value) in owners:
            found.add(node.attr)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            if ast.unparse(node.args[0]) in owners and isinstance(node.args[1], ast.Constant):
                found.add(node.args[1].value)
    if "configuration" in path.name:
        readers = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in READERS)
        for node in (node for reader in readers for node in ast.walk(reader)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("kwargs.get", "kwargs.pop"):
                if isinstance(node.args[0], ast.Constant):
                    found.add(node.args[0].value)
    return found


def is_key(cls, name):
    """Whether a file can say it: no method, no constant, and no property that only computes."""
    if name in {field.name for field in dataclasses.fields(cls)}:
        return True
    value = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
    return value is None or isinstance(value, property) and value.fset is not None


def make():
    base = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    for path in SHARED:
        base |= reads(ROOT / path)
    base = {name for name in base if is_key(PreTrainedConfig, name)} - ELSEWHERE - SIZES
    table = {
        "versions": {"transformers": transformers.__version__},
        "base": sorted(base),
        "generation": sorted(GenerationConfig._get_default_generation_params()),
        "classes": {},
    }
    for model_type, (name, folder) in CLASSES.items():
        cls = getattr(transformers, name)
        own = {field.name for field in dataclasses.fields(cls)} | set(cls.attribute_map)
        for part in ("configuration", "modeling"):
            own |= reads(ROOT / "models" / folder / f"{part}_{folder}.py", OWNERS | {"self"} if part == "configuration" else OWNERS)
        modules = (ROOT / "models" / folder / f"modeling_{folder}.py").read_text()
        for path, sign in USED_BY_SOME.items():
            own |= reads(ROOT / path) if sign in modules else set()
        own = {key for key in own if is_key(cls, key)} - IMAGES.get(folder, set()) - ELSEWHERE
        table["classes"][model_type] = {
            "class": name,
            "aliases": cls.attribute_map,
            "defaults": {
                field.name: field.default for field in dataclasses.fields(cls)
                if field.name in own - base and isinstance(field.default, (bool, int, float, str))
            },
            "keys": sorted(own - base),
        }
    (HERE / "keys.json").write_text(json.dumps(table, indent=1) + "\n")


MAKERS = {"keys": make}
