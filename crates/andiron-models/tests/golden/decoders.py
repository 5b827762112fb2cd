"""Fixtures of decoders: a model directory each, with logits, the loss and its gradients, and what is generated.

The loss is the mean cross-entropy of predicting each next id. Prompts are the first ids of the first row; continuations
are greedy, and by four beams with and without an id that ends a text.
"""
import json
import pathlib

import torch
import transformers

HERE = pathlib.Path(__file__).parent
VOCABULARY = 61
PROMPT = 5
NEW = 12


def rounded(t):
    return [float(f"{x:.7g}") for x in t.flatten().tolist()]


def spread(model, scale=6.0):
    """Initial weights are so small that every logit is alike; wider ones make a mistake visible."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1:
                p.mul_(scale)
            else:
                p.add_(torch.randn_like(p) * 0.1)


@torch.no_grad()
def generate(model, ids, beams, eos=None):
    """The best continuation, and its score if there are beams."""
    model.generation_config.eos_token_id = eos
    out = model.generate(ids[:1, :PROMPT], attention_mask=torch.ones(1, PROMPT, dtype=torch.long), max_new_tokens=NEW,
                         do_sample=False, num_beams=beams, pad_token_id=0, return_dict_in_generate=True,
                         output_scores=True)
    made = out.sequences[0, PROMPT:].tolist()
    if eos in made:
        made = made[: made.index(eos) + 1]
    return made, out.sequences_scores[0].item() if beams > 1 else None


def save(name, model, ids, grads_of):
    model = model.eval()
    folder = HERE / name
    model.save_pretrained(folder)
    out = model(ids, labels=ids)
    out.loss.backward()
    parameters = dict(model.named_parameters())
    greedy, _ = generate(model, ids, 1)
    beam, score = generate(model, ids, 4)
    # An id that the best continuation would have used, so that texts end at different lengths.
    eos = beam[NEW // 2]
    ending, ending_score = generate(model, ids, 4, eos)
    expected = {
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]},
        "ids": ids.tolist(),
        "logits_shape": list(out.logits.shape),
        "logits": rounded(out.logits.detach()),
        "loss": out.loss.item(),
        "grads": {n: rounded(parameters[n].grad) for n in grads_of},
        "greedy": {"prompt": ids[0, :PROMPT].tolist(), "continuation": greedy},
        "beam_ids": beam,
        "beam_score": score,
        "beam_eos": {"eos_id": eos, "ids": ending, "score": ending_score},
    }
    (folder / "expected.json").write_text(json.dumps(expected))


def gpt2():
    torch.manual_seed(1)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=24, n_embd=24, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    spread(model)
    ids = torch.randint(0, VOCABULARY, (2, 11))
    grads = ["transformer.wpe.weight", "transformer.h.0.attn.c_attn.bias", "transformer.h.1.mlp.c_fc.bias",
             "transformer.h.0.attn.c_proj.weight", "transformer.h.1.ln_1.weight", "transformer.ln_f.bias"]
    save("gpt2", model, ids, grads)


def gated(kind, settings):
    """A maker of a fixture of the gated decoder; `rope_theta` is low, so that scalings show in short texts."""

    def make(name):
        torch.manual_seed(sum(name.encode()))
        sizes = {"vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
                 "num_key_value_heads": 2, "intermediate_size": 40, "max_position_embeddings": 32,
                 "bos_token_id": None, "eos_token_id": None}
        model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**(sizes | settings)))
        spread(model)
        grads = ["model.layers.0.self_attn.k_proj.weight", "model.layers.1.mlp.gate_proj.weight",
                 "model.layers.0.post_attention_layernorm.weight", "model.norm.weight",
                 "model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.o_proj.bias",
                 "model.layers.1.mlp.down_proj.bias", "model.layers.1.self_attn.q_norm.weight",
                 "model.layers.0.self_attn.k_norm.weight", "lm_head.weight", "model.embed_tokens.weight"]
        parameters = dict(model.named_parameters())
        save(name, model, torch.randint(0, VOCABULARY, (2, 11)), [n for n in grads if n in parameters])

    return make


def rope(kind, **settings):
    return {"rope_type": kind, "rope_theta": 20.0} | settings


GATED = {
    "llama": gated("Llama", {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True, "hidden_act": "gelu",
                             "rms_norm_eps": 1e-3, "eos_token_id": [7, 9]}),
    "llama-tied": gated("Llama", {"num_key_value_heads": 1, "head_dim": 8, "tie_word_embeddings": True,
                                  "rope_parameters": rope("linear", factor=2.0)}),
    "llama-dynamic": gated("Llama", {"max_position_embeddings": 8, "rope_parameters": rope("dynamic", factor=4.0)}),
    "llama-llama3": gated("Llama", {"head_dim": 12, "rope_parameters": rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)}),
    "llama-yarn": gated("Llama", {"head_dim": 12, "rope_parameters": rope(
        "yarn", factor=2.0, original_max_position_embeddings=16)}),
    "mistral": gated("Mistral", {"sliding_window": 4, "hidden_act": "gelu_pytorch_tanh"}),
    "mistral-full": gated("Mistral", {"sliding_window": None, "head_dim": 10, "tie_word_embeddings": True}),
    "qwen2": gated("Qwen2", {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1,
                             "tie_word_embeddings": True, "rope_parameters": rope(
        "yarn", factor=4.0, original_max_position_embeddings=8, beta_fast=4.0, beta_slow=0.5, truncate=False,
        mscale=0.8, mscale_all_dim=0.5)}),
    "qwen2-full": gated("Qwen2", {}),
    "qwen3": gated("Qwen3", {"head_dim": 10, "num_key_value_heads": 1}),
    "qwen3-sliding": gated("Qwen3", {"head_dim": 6, "attention_bias": True, "tie_word_embeddings": True,
                                     "use_sliding_window": True, "sliding_window": 4,
                                     "layer_types": ["sliding_attention", "full_attention"]}),
}

def neox(settings):
    def make(name):
        torch.manual_seed(sum(name.encode()))
        sizes = {"vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
                 "intermediate_size": 40, "max_position_embeddings": 32, "bos_token_id": None, "eos_token_id": None}
        model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**(sizes | settings)))
        spread(model)
        grads = ["gpt_neox.layers.0.attention.query_key_value.weight", "gpt_neox.layers.1.attention.dense.bias",
                 "gpt_neox.layers.0.post_attention_layernorm.weight", "gpt_neox.layers.1.mlp.dense_4h_to_h.weight",
                 "gpt_neox.final_layer_norm.bias", "gpt_neox.embed_in.weight"]
        parameters = dict(model.named_parameters())
        save(name, model, torch.randint(0, VOCABULARY, (2, 11)), [n for n in grads if n in parameters])

    return make


def gemma3(settings):
    def make(name):
        torch.manual_seed(sum(name.encode()))
        sizes = {"vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
                 "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 32, "max_position_embeddings": 32,
                 "sliding_window": 4, "query_pre_attn_scalar": 12, "bos_token_id": None, "eos_token_id": None,
                 "pad_token_id": 0}
        model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**(sizes | settings)))
        spread(model, 3.0)
        grads = ["model.layers.0.self_attn.k_proj.weight", "model.layers.1.mlp.gate_proj.weight",
                 "model.layers.2.self_attn.q_norm.weight", "model.layers.0.pre_feedforward_layernorm.weight",
                 "model.layers.1.post_feedforward_layernorm.weight", "model.norm.weight"]
        save(name, model, torch.randint(1, VOCABULARY, (2, 11)), grads)

    return make


OTHERS = {
    "neox": neox({"rope_parameters": rope("default", partial_rotary_factor=0.5)}),
    "neox-serial": neox({"use_parallel_residual": False, "attention_bias": False, "hidden_act": "gelu_new",
                         "rope_parameters": rope("linear", factor=2.0, partial_rotary_factor=1.0)}),
    "neox-tied": neox({"tie_word_embeddings": True, "layer_norm_eps": 1e-3}),
    "gemma3": gemma3({"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
    "gemma3-linear": gemma3({"num_key_value_heads": 1, "attention_bias": True, "layer_types": [
        "sliding_attention", "sliding_attention", "full_attention"], "rope_parameters": {
            "full_attention": rope("linear", factor=4.0), "sliding_attention": rope("default")}}),
}

MAKERS = {"gpt2": gpt2} | {name: lambda name=name, make=make: make(name) for name, make in (GATED | OTHERS).items()}
