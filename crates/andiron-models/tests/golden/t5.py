"""Fixtures of T5, laid out as those of `seq2seq.py`: see there.

Sources and targets are long enough for the last buckets of relative positions, of which there are few. The head of the
untied models has values of its own; `transformers` ties all others, whatever the configuration says.
"""
import json

import torch
import transformers

from seq2seq import BEAMS, HERE, rounded, targets

VOCABULARY = 43
LENGTHS = (29, 14)
TARGETS = 17
SETTINGS = [settings for settings in BEAMS if "forced_bos_token_id" not in settings]


def wide(model, own_head, ends):
    """Wider weights than initial ones, so that a mistake shows, and ends that come now and then."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.add_(torch.randn_like(p) * 0.1)
            elif "relative_attention_bias" in name:
                p.copy_(torch.randn_like(p))
            elif name.endswith((".q.weight", ".k.weight")):
                p.mul_(1.8)
            elif name != "shared.weight":
                p.mul_(2.0)
        if own_head:
            model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight) * 0.4)
        model.lm_head.weight[model.config.eos_token_id] *= ends


def save(name, grads_of=(), own_head=False, ends=1.0, seed=0, written=None, **settings):
    torch.manual_seed(100 * seed + sum(name.encode()))
    sizes = {"vocab_size": VOCABULARY, "d_model": 20, "d_kv": 7, "d_ff": 28, "num_layers": 2, "num_heads": 3,
             "relative_attention_num_buckets": 8, "relative_attention_max_distance": 11, "decoder_start_token_id": 0}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**(sizes | settings)))
    wide(model, own_head, ends)
    model = model.eval()
    folder = HERE / name
    model.save_pretrained(folder)
    if written:
        config = json.loads((folder / "config.json").read_text())
        config = {key: value for key, value in (config | written).items() if value is not None}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        # What is written by hand must be the same model.
        model = transformers.T5ForConditionalGeneration.from_pretrained(folder).eval()
    ids = torch.randint(2, VOCABULARY, (len(LENGTHS), max(LENGTHS)))
    mask = torch.tensor([[1] * n + [0] * (max(LENGTHS) - n) for n in LENGTHS])
    ids = torch.where(mask == 1, ids, 0)
    target = torch.randint(2, VOCABULARY, (len(LENGTHS), TARGETS))
    target[:, 0] = 0
    out = model(input_ids=ids, attention_mask=mask, decoder_input_ids=target)
    weights = torch.cos(torch.arange(out.logits.numel(), dtype=torch.float32)).view_as(out.logits)
    (out.logits * weights / out.logits.numel()).sum().backward()
    parameters = dict(model.named_parameters())
    expected = {
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]},
        "ids": ids.tolist(),
        "lengths": list(LENGTHS),
        "target": target.tolist(),
        "encoder_hidden": rounded(out.encoder_last_hidden_state.detach()[mask == 1]),
        "logits": rounded(out.logits.detach()),
        "grads": {n: rounded(parameters[n].grad) for n in grads_of},
        "greedy": [],
        "beams": [],
    }

    # Its cache has as many layers as the encoder.
    cached = model.config.num_decoder_layers <= model.config.num_layers

    def generate(settings):
        with torch.no_grad():
            return model.generate(input_ids=ids, attention_mask=mask, do_sample=False, output_scores=True,
                                  return_dict_in_generate=True, use_cache=cached, **settings)

    for settings in [{}, {"max_length": 5}]:
        settings = {"max_length": 14, "num_beams": 1} | settings
        made = generate(settings)
        expected["greedy"].append({"settings": settings, "ids": [r[0] for r in targets(model, made.sequences, 1)]})
    for settings in SETTINGS:
        settings = {"max_length": 14, "num_beams": 4} | settings
        made = generate(settings)
        returned = settings.get("num_return_sequences", 1)
        scores = rounded(made.sequences_scores)
        expected["beams"].append({
            "settings": settings,
            "beam_ids": targets(model, made.sequences, returned),
            "beam_score": [scores[at : at + returned] for at in range(0, len(scores), returned)],
        })
    (folder / "expected.json").write_text(json.dumps(expected))


def t5():
    save("t5", ["shared.weight", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                "encoder.block.1.layer.0.SelfAttention.q.weight", "encoder.block.0.layer.0.layer_norm.weight",
                "encoder.block.1.layer.1.DenseReluDense.wi.weight", "encoder.final_layer_norm.weight",
                "decoder.block.1.layer.0.SelfAttention.k.weight", "decoder.block.0.layer.1.EncDecAttention.v.weight",
                "decoder.block.1.layer.1.EncDecAttention.o.weight", "decoder.block.1.layer.2.layer_norm.weight"],
         seed=5, ends=1.7)


def t5_gated():
    # As version 4 of `transformers` wrote Flan-T5.
    save("t5-gated", ["lm_head.weight", "encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
                      "encoder.block.0.layer.1.DenseReluDense.wi_1.weight",
                      "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"],
         seed=5, ends=1.7, own_head=True, num_layers=3, num_decoder_layers=1, feed_forward_proj="gated-gelu",
         tie_word_embeddings=False, layer_norm_epsilon=1e-3,
         written={"tie_word_embeddings": False, "scale_decoder_outputs": None})


def t5_silu():
    # As version 5 of `transformers` writes it, of the same kind.
    save("t5-silu", seed=6, ends=1.7, own_head=True, num_layers=1, num_decoder_layers=3,
         feed_forward_proj="gated-silu", tie_word_embeddings=False, relative_attention_num_buckets=10,
         relative_attention_max_distance=100, num_heads=2, d_kv=11)


def t5_tied():
    # Tied although its output is not scaled, as when version 5 opens a Flan-T5 whose head was left out.
    save("t5-tied", ["shared.weight"], seed=1, feed_forward_proj="gelu", tie_word_embeddings=False, eos_token_id=2,
         relative_attention_num_buckets=7, relative_attention_max_distance=9)


MAKERS = {"t5": t5, "t5-gated": t5_gated, "t5-silu": t5_silu, "t5-tied": t5_tied}
