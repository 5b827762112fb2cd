"""Training steps of transformers' own classes, as people run them: a masked-token step of an encoder, a step of an
encoder-decoder, and a step of a decoder, in full or with a LoRA adapter of peft.

Reads a config.json, makes random weights and random ids as `andiron bench train` does, and prints one JSON object with its
names. With `--lora RANK` peft must be installed.
"""

import argparse
import contextlib
import json
import resource
import statistics
import time

import torch
import transformers


def model_of(config):
    kind = transformers.AutoConfig.for_model(**config)
    if kind.is_encoder_decoder:
        return "seq2seq", transformers.AutoModelForSeq2SeqLM.from_config(kind)
    if any("MaskedLM" in name for name in config.get("architectures", [])):
        return "masked", transformers.AutoModelForMaskedLM.from_config(kind)
    return "causal", transformers.AutoModelForCausalLM.from_config(kind)


def batch_of(objective, vocabulary, rows, columns, targets):
    ids = torch.randint(4, vocabulary, (rows, columns))
    if objective == "seq2seq":
        return {"input_ids": ids, "labels": torch.randint(4, vocabulary, (rows, targets))}
    if objective == "masked":
        labels = torch.where(torch.rand(rows, columns) < 0.15, ids, -100)
        return {"input_ids": ids, "labels": labels}
    return {"input_ids": ids, "labels": ids}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--target-ctx", type=int)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--lora", type=int, help="rank of an adapter of all linear modules")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    with open(args.config) as file:
        config = json.load(file)
    objective, model = model_of(config)
    vocabulary = model.config.vocab_size
    if args.lora:
        import peft

        settings = peft.LoraConfig(r=args.lora, lora_alpha=2 * args.lora, target_modules="all-linear")
        model = peft.get_peft_model(model, settings)
        if args.gradient_checkpointing:
            model.enable_input_require_grads()
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, betas=(0.9, 0.95), fused=True)
    targets = args.target_ctx or args.ctx
    batch = batch_of(objective, vocabulary, args.batch, args.ctx, targets)
    autocast = torch.autocast("cpu", torch.bfloat16) if args.precision == "bf16" else contextlib.nullcontext()
    times = []
    for number in range(2 + args.steps):
        start = time.perf_counter()
        with autocast:
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if number >= 2:
            times.append(time.perf_counter() - start)
    step = statistics.median(times)
    tokens = args.batch * (args.ctx + (targets if objective == "seq2seq" else 0))
    print(json.dumps({
        "tokens_per_s": tokens / step,
        "step_ms": 1e3 * step,
        "loss": loss.item(),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }))


main()
