"""Fixtures of encoder-decoders: a model directory each, with hidden states, logits, gradients and generated targets.

Two sources are padded on the right. Hidden states of the encoder are those of the rows' own columns; logits are of
targets that are given. The loss is the sum of the logits times fixed weights. `greedy` and `beams` are what
`transformers` generates for both sources under `settings`, which go over those of `generation_config.json`; targets
are given from their start id to their end, and beams with `sequences_scores`.
"""
import json
import pathlib

import torch
import transformers

HERE = pathlib.Path(__file__).parent
VOCABULARY = 47
LENGTHS = (9, 6)
TARGETS = 8

# What beams are searched with, each beside four beams and a target of at most 14.
BEAMS = [
    {},
    {"length_penalty": 0.6},
    {"length_penalty": 2.0},
    {"early_stopping": True},
    {"early_stopping": True, "length_penalty": 2.0, "num_return_sequences": 2},
    {"early_stopping": "never", "length_penalty": 2.0},
    {"early_stopping": "never", "length_penalty": -0.5},
    {"no_repeat_ngram_size": 2},
    {"num_return_sequences": 4},
    {"num_beams": 3, "num_return_sequences": 3, "no_repeat_ngram_size": 3, "early_stopping": True},
    {"min_length": 7},
    {"max_length": 6, "num_return_sequences": 4},
    {"max_length": 6, "forced_eos_token_id": None},
    {"forced_bos_token_id": 5, "max_length": 9},
    {"renormalize_logits": True, "no_repeat_ngram_size": 2},
]


def rounded(t):
    return [float(f"{x:.7g}") for x in t.flatten().tolist()]


def wide(model, scale, ends):
    """Wider weights than initial ones, so that a mistake shows, and ends that come now and then."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "embed_positions" in name and not p.requires_grad:
                continue
            if p.dim() > 1:
                p.mul_(scale)
            else:
                p.add_(torch.randn_like(p) * 0.1)
        if ends is not None:
            model.final_logits_bias.copy_(torch.randn_like(model.final_logits_bias) * 0.3)
            model.final_logits_bias[0, model.generation_config.eos_token_id] = ends


def targets(model, made, returned):
    """The targets of each source, cut after their end."""
    rows = []
    eos = model.generation_config.eos_token_id
    for ids in made.tolist():
        ends = [at for at, id in enumerate(ids) if id == eos and at > 0]
        rows.append(ids[: ends[0] + 1] if ends else ids)
    return [rows[at : at + returned] for at in range(0, len(rows), returned)]


def save(name, model, grads_of=(), scale=14.0, ends=None, low=3, high=VOCABULARY, **generation):
    torch.manual_seed(sum(name.encode()))
    for p in model.parameters():
        if p.dim() > 1 and p.requires_grad:
            torch.nn.init.normal_(p, std=0.02)
    for key, value in generation.items():
        setattr(model.generation_config, key, value)
    wide(model, scale, ends)
    model = model.eval()
    folder = HERE / name
    model.save_pretrained(folder)
    config = model.config
    target_vocabulary = model.lm_head.out_features
    ids = torch.randint(low, high, (len(LENGTHS), max(LENGTHS)))
    mask = torch.tensor([[1] * n + [0] * (max(LENGTHS) - n) for n in LENGTHS])
    ids = torch.where(mask == 1, ids, config.pad_token_id)
    target = torch.randint(low, min(high, target_vocabulary), (len(LENGTHS), TARGETS))
    target[:, 0] = config.decoder_start_token_id
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

    def generate(settings):
        with torch.no_grad():
            return model.generate(input_ids=ids, attention_mask=mask, do_sample=False, output_scores=True,
                                  return_dict_in_generate=True, **settings)

    for settings in [{}, {"forced_bos_token_id": 5}, {"forced_eos_token_id": None}, {"max_length": 5}]:
        settings = {"max_length": 14, "num_beams": 1} | settings
        made = generate(settings)
        expected["greedy"].append({"settings": settings, "ids": [r[0] for r in targets(model, made.sequences, 1)]})
    for settings in BEAMS:
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


def sizes(**settings):
    return {"vocab_size": VOCABULARY, "d_model": 24, "encoder_layers": 2, "decoder_layers": 2,
            "encoder_attention_heads": 3, "decoder_attention_heads": 3, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40,
            "max_position_embeddings": 20} | settings


def bart(name, grads_of=(), **settings):
    generation = settings.pop("generation", {})
    model = transformers.BartForConditionalGeneration(transformers.BartConfig(**sizes(**settings)))
    save(name, model, grads_of, **generation)


def marian(name, grads_of=(), **settings):
    generation = settings.pop("generation", {})
    pad = settings.get("decoder_vocab_size", VOCABULARY) - 1
    ids = {"pad_token_id": pad, "decoder_start_token_id": pad}
    model = transformers.MarianMTModel(transformers.MarianConfig(**sizes(**ids, **settings)))
    save(name, model, grads_of, low=1, high=VOCABULARY - 1, bad_words_ids=[[pad]], **generation)


def bart_plain():
    grads = ["model.shared.weight", "model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight",
             "model.encoder.layernorm_embedding.weight", "model.encoder.layers.0.self_attn.k_proj.weight",
             "model.encoder.layers.1.fc1.bias", "model.encoder.layers.1.final_layer_norm.bias",
             "model.decoder.layers.0.encoder_attn.v_proj.weight", "model.decoder.layers.0.encoder_attn.k_proj.bias",
             "model.decoder.layers.1.encoder_attn_layer_norm.weight", "model.decoder.layers.1.self_attn.q_proj.weight"]
    bart("bart", grads, generation={"ends": 3.0})


def bart_scaled():
    bart("bart-scaled", scale_embedding=True, activation_function="relu", encoder_layers=1, decoder_layers=3,
         encoder_attention_heads=2, decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=20,
         generation={"ends": 3.0, "forced_bos_token_id": 0})


def bart_untied():
    bart("bart-untied", tie_word_embeddings=False, activation_function="gelu_new", generation={"ends": 3.0})


def marian_plain():
    marian("marian", activation_function="swish", scale_embedding=True, generation={"ends": 3.0})


def marian_separate():
    marian("marian-separate", ["model.encoder.embed_tokens.weight", "model.encoder.layers.0.fc1.weight"],
           share_encoder_decoder_embeddings=False, decoder_vocab_size=31, activation_function="relu",
           encoder_layers=1, decoder_layers=2, generation={"ends": 1.5})


def marian_untied():
    marian("marian-untied", ["lm_head.weight"], share_encoder_decoder_embeddings=False, decoder_vocab_size=39,
           tie_word_embeddings=False, activation_function="swish", encoder_layers=3, decoder_layers=1)


MAKERS = {
    "bart": bart_plain,
    "bart-scaled": bart_scaled,
    "bart-untied": bart_untied,
    "marian": marian_plain,
    "marian-separate": marian_separate,
    "marian-untied": marian_untied,
}
