"""Fixtures of encoders: a model directory each, with hidden states, the head's output and gradients.

Rows are padded on the right and the head's output is compared where a row has tokens. `loss` is the sum of the head's
outputs times fixed weights, so that its gradient reaches every parameter.
"""
import json
import pathlib

import torch
import transformers

HERE = pathlib.Path(__file__).parent
VOCABULARY = 53
LENGTHS = (11, 7)


def rounded(t):
    return [float(f"{x:.7g}") for x in t.flatten().tolist()]


def wide(model, scale=6.0):
    """Wider weights than initial ones, so that a mistake shows."""
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(scale)
            else:
                p.add_(torch.randn_like(p) * 0.1)


def save(name, model, grads_of, types=True, pad=0, low=3):
    wide(model)
    model = model.eval()
    folder = HERE / name
    model.save_pretrained(folder)
    ids = torch.randint(low, VOCABULARY, (len(LENGTHS), max(LENGTHS)))
    mask = torch.tensor([[1] * n + [0] * (max(LENGTHS) - n) for n in LENGTHS])
    ids = torch.where(mask == 1, ids, pad)
    inputs = {"input_ids": ids, "attention_mask": mask}
    expected = {"versions": {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]},
                "ids": ids.tolist(), "lengths": list(LENGTHS)}
    if types:
        inputs["token_type_ids"] = torch.tensor([[0] * 4 + [1] * (max(LENGTHS) - 4)] * 2)
        expected["types"] = inputs["token_type_ids"].tolist()
    out = model(**inputs, output_hidden_states=True)
    hidden = out.last_hidden_state if "last_hidden_state" in out else out.hidden_states[-1]
    expected["hidden"] = rounded(hidden.detach()[mask == 1])
    if "start_logits" in out:
        head = torch.stack([out.start_logits, out.end_logits], -1)
    else:
        head = out.get("logits", out.get("last_hidden_state"))
    own = head if head.dim() == 2 else head[mask == 1]
    expected["output"] = rounded(own.detach())
    weights = torch.cos(torch.arange(own.numel(), dtype=torch.float32)).view_as(own) / own.numel()
    (own * weights).sum().backward()
    parameters = dict(model.named_parameters())
    expected["grads"] = {n: rounded(parameters[n].grad) for n in grads_of}
    (folder / "expected.json").write_text(json.dumps(expected))


def bert(**settings):
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
             "intermediate_size": 40, "max_position_embeddings": 20}
    return transformers.BertConfig(**(sizes | settings))


def bert_none():
    torch.manual_seed(1)
    save("bert", transformers.BertModel(bert()), [])


def bert_masked_lm():
    torch.manual_seed(2)
    grads = ["bert.embeddings.word_embeddings.weight", "bert.embeddings.token_type_embeddings.weight",
             "bert.embeddings.position_embeddings.weight", "bert.encoder.layer.0.attention.self.key.weight",
             "bert.encoder.layer.1.attention.output.LayerNorm.weight", "bert.encoder.layer.0.output.dense.bias",
             "cls.predictions.transform.LayerNorm.bias", "cls.predictions.bias"]
    save("bert-masked-lm", transformers.BertForMaskedLM(bert(hidden_act="gelu_new", layer_norm_eps=1e-3)), grads)


def bert_classify():
    torch.manual_seed(3)
    config = bert(hidden_act="relu", problem_type="multi_label_classification",
                  id2label={0: "toxic", 1: "rude", 2: "fine"}, label2id={"toxic": 0, "rude": 1, "fine": 2})
    grads = ["bert.pooler.dense.weight", "classifier.weight"]
    save("bert-classify", transformers.BertForSequenceClassification(config), grads)


def bert_token_classify():
    torch.manual_seed(4)
    save("bert-token-classify", transformers.BertForTokenClassification(bert(num_labels=5)), ["classifier.bias"])


def bert_span():
    torch.manual_seed(5)
    save("bert-span", transformers.BertForQuestionAnswering(bert()), ["qa_outputs.weight"])


def roberta(kind, **settings):
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
             "intermediate_size": 40, "max_position_embeddings": 20, "type_vocab_size": 1}
    return kind(**(sizes | settings))


def roberta_masked_lm():
    torch.manual_seed(6)
    # The output is the same whatever `hidden_act` says: this head's activation is always gelu.
    model = transformers.RobertaForMaskedLM(roberta(transformers.RobertaConfig, hidden_act="relu"))
    # Not the tables: PyTorch keeps the gradient of their padding entries at 0.
    grads = ["roberta.encoder.layer.0.attention.self.query.weight", "lm_head.dense.weight", "lm_head.layer_norm.bias",
             "lm_head.bias"]
    save("roberta-masked-lm", model, grads, types=False, pad=1, low=0)


def roberta_classify():
    torch.manual_seed(7)
    model = transformers.RobertaForSequenceClassification(roberta(transformers.RobertaConfig, num_labels=1))
    save("roberta-classify", model, ["classifier.dense.weight"], types=False, pad=1)


def xlm_roberta_token_classify():
    torch.manual_seed(8)
    model = transformers.XLMRobertaForTokenClassification(roberta(transformers.XLMRobertaConfig, pad_token_id=4))
    save("xlm-roberta-token-classify", model, ["classifier.bias"], types=False, pad=4, low=5)


def distilbert(kind, seed, grads, **settings):
    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCABULARY, "dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40,
             "max_position_embeddings": 20}
    model = kind(transformers.DistilBertConfig(**(sizes | settings)))
    return model, grads


def distilbert_masked_lm():
    grads = ["distilbert.transformer.layer.0.attention.k_lin.weight", "vocab_layer_norm.weight",
             "vocab_projector.bias"]
    save("distilbert-masked-lm", *distilbert(transformers.DistilBertForMaskedLM, 9, grads, activation="relu"),
         types=False)


def distilbert_classify():
    kind = transformers.DistilBertForSequenceClassification
    save("distilbert-classify", *distilbert(kind, 10, ["pre_classifier.weight"], num_labels=4), types=False)


def distilbert_span():
    save("distilbert-span", *distilbert(transformers.DistilBertForQuestionAnswering, 11, []), types=False)


def bert_untied():
    torch.manual_seed(12)
    save("bert-untied", transformers.BertForMaskedLM(bert(tie_word_embeddings=False)),
         ["cls.predictions.decoder.weight", "cls.predictions.decoder.bias"])


def distilbert_untied():
    kind = transformers.DistilBertForMaskedLM
    save("distilbert-untied", *distilbert(kind, 13, ["vocab_projector.weight"], tie_word_embeddings=False), types=False)


def roberta_untied():
    torch.manual_seed(14)
    config = roberta(transformers.RobertaConfig, tie_word_embeddings=False)
    save("roberta-untied", transformers.RobertaForMaskedLM(config), ["lm_head.decoder.bias"], types=False, pad=1)


def modernbert(kind, grads, **settings):
    """`local_attention` is so short that windows end within the texts."""

    def make(name):
        torch.manual_seed(sum(name.encode()))
        sizes = {"vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 4,
                 "num_attention_heads": 3, "max_position_embeddings": 20, "local_attention": 6, "pad_token_id": 0,
                 "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
        model = getattr(transformers, "ModernBert" + kind)(transformers.ModernBertConfig(**(sizes | settings)))
        save(name, model, grads, types=False)

    return make


MODERN = {
    "modernbert": modernbert("Model", ["layers.1.attn.Wqkv.weight", "layers.0.mlp.Wi.weight",
                                       "layers.3.attn_norm.weight", "final_norm.weight"]),
    "modernbert-masked-lm": modernbert("ForMaskedLM", ["decoder.bias", "head.dense.weight", "model.layers.2.mlp.Wo.weight"],
                                       layer_types=["sliding_attention"] * 2 + ["full_attention"] * 2),
    "modernbert-biased": modernbert(
        "ForMaskedLM", ["decoder.weight", "head.norm.bias", "model.layers.0.attn.Wo.bias", "model.layers.1.mlp.Wi.bias"],
        norm_bias=True, attention_bias=True, mlp_bias=True, classifier_bias=True, decoder_bias=False,
        tie_word_embeddings=False, hidden_activation="gelu_pytorch_tanh", classifier_activation="relu", norm_eps=1e-3,
        rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 50.0},
                         "sliding_attention": {"rope_type": "default", "rope_theta": 7.0}}),
    "modernbert-classify": modernbert("ForSequenceClassification", ["classifier.weight"], num_labels=3),
    "modernbert-classify-mean": modernbert("ForSequenceClassification", ["head.dense.weight"], num_labels=2,
                                           classifier_pooling="mean"),
    "modernbert-token-classify": modernbert("ForTokenClassification", ["classifier.bias"], num_labels=5),
    "modernbert-span": modernbert("ForQuestionAnswering", ["classifier.weight"]),
}

MAKERS = {name: lambda name=name, make=make: make(name) for name, make in MODERN.items()} | {
    "bert-untied": bert_untied,
    "distilbert-untied": distilbert_untied,
    "roberta-untied": roberta_untied,
    "bert": bert_none,
    "bert-masked-lm": bert_masked_lm,
    "bert-classify": bert_classify,
    "bert-token-classify": bert_token_classify,
    "bert-span": bert_span,
    "distilbert-masked-lm": distilbert_masked_lm,
    "distilbert-classify": distilbert_classify,
    "distilbert-span": distilbert_span,
    "roberta-masked-lm": roberta_masked_lm,
    "roberta-classify": roberta_classify,
    "xlm-roberta-token-classify": xlm_roberta_token_classify,
}
