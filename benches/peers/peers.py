"""What the field's usual Python programs need for the work that Andiron is measured on.

Four subjects: `train` (steps of a GPT in plain PyTorch), `learn` (nanoGPT's recipe on a text, to the end), `decode`
(greedy decoding with transformers), `embed` (sentence embeddings with transformers or ONNX Runtime). Each run prints one
JSON object with the names that `andiron bench` uses.
"""

import argparse
import contextlib
import copy
import json
import math
import os
import pathlib
import resource
import statistics
import sys
import tempfile
import time

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Attention, then a feed-forward layer, each on normalised input and added to it."""

    def __init__(self, width, heads, bias):
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width, bias=bias)
        self.project = nn.Linear(width, 3 * width, bias=bias)
        self.attention_out = nn.Linear(width, width, bias=bias)
        self.before_feed_forward = nn.LayerNorm(width, bias=bias)
        self.widen = nn.Linear(width, 4 * width, bias=bias)
        self.feed_forward_out = nn.Linear(4 * width, width, bias=bias)

    def forward(self, x):
        rows, columns, width = x.shape
        three = self.project(self.before_attention(x)).view(rows, columns, 3, self.heads, width // self.heads)
        query, key, value = three.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(rows, columns, width))
        wide = functional.gelu(self.widen(self.before_feed_forward(x)), approximate="tanh")
        return x + self.feed_forward_out(wide)


class Gpt(nn.Module):
    """GPT-2's architecture with the head tied to the embedding, from the sizes in a config.json."""

    def __init__(self, config, bias=True):
        super().__init__()
        width, layers = config["n_embd"], config["n_layer"]
        self.tokens = nn.Embedding(config["vocab_size"], width)
        self.positions = nn.Embedding(config["n_positions"], width)
        self.blocks = nn.Sequential(*(Block(width, config["n_head"], bias) for _ in range(layers)))
        self.norm = nn.LayerNorm(width, bias=bias)
        residual = 0.02 / math.sqrt(2 * layers)
        for name, parameter in self.named_parameters():
            if name.endswith("_out.weight"):
                nn.init.normal_(parameter, std=residual)
            elif parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        return functional.linear(self.norm(self.blocks(x)), self.tokens.weight)


def optimizer(model, beta2, fused):
    """AdamW that decays matrices and tables, as nanoGPT does."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, beta2), fused=fused)


def update(model, optimizer):
    """Clips and applies the gradients."""
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def train(args):
    config = json.loads(pathlib.Path(args.config).read_text())
    torch.manual_seed(1)
    model = Gpt(config)
    adamw = optimizer(model, 0.95, fused=args.compile or None)
    forward = torch.compile(model) if args.compile else model
    ids = torch.randint(config["vocab_size"], (args.batch, args.ctx))
    targets = torch.randint(config["vocab_size"], (args.batch * args.ctx,))
    lowered = torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16")
    laps = []
    for step in range(args.steps + 3):
        clock = [time.perf_counter()]
        with lowered:
            loss = functional.cross_entropy(forward(ids).flatten(0, 1), targets)
        clock.append(time.perf_counter())
        adamw.zero_grad()
        loss.backward()
        clock.append(time.perf_counter())
        update(model, adamw)
        clock.append(time.perf_counter())
        if step >= 3:
            laps.append(clock)
    between = lambda start, end: statistics.median(lap[end] - lap[start] for lap in laps) * 1e3
    step_ms = between(0, 3)
    return {
        "tokens_per_s": args.batch * args.ctx / step_ms * 1e3,
        "step_ms": step_ms,
        "forward_ms": between(0, 1),
        "backward_ms": between(1, 2),
        "update_ms": between(2, 3),
        "loss": loss.item(),
    }


def rate(step, steps, warm_up=100, highest=1e-3, lowest=1e-4):
    """nanoGPT's learning rate: up in a line, down in half a cosine."""
    if step < warm_up:
        return highest * (step + 1) / (warm_up + 1)
    done = (step - warm_up) / (steps - warm_up)
    return lowest + (highest - lowest) * 0.5 * (1 + math.cos(math.pi * done))


def learn(args):
    # Without newline="" the line ends of some texts would change.
    with open(args.text, encoding="utf-8", newline="") as file:
        text = file.read()
    ids = {character: number for number, character in enumerate(sorted(set(text)))}
    data = torch.tensor([ids[character] for character in text])
    held_out = data[int(0.9 * len(data)) :]
    data = data[: len(data) - len(held_out)]
    rows, columns = 12, 64
    sizes = {"vocab_size": len(ids), "n_positions": columns, "n_embd": 128, "n_layer": 4, "n_head": 4}
    torch.manual_seed(args.seed)
    model = Gpt(sizes, bias=False)
    adamw = optimizer(model, 0.99, fused=None)
    start = time.perf_counter()
    for step in range(args.steps):
        for group in adamw.param_groups:
            group["lr"] = rate(step, args.steps)
        begins = torch.randint(len(data) - columns, (rows, 1))
        window = data[begins + torch.arange(columns + 1)]
        loss = functional.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())
        adamw.zero_grad()
        loss.backward()
        update(model, adamw)
    seconds = time.perf_counter() - start
    # Every held-out character but the first is a target once, in windows that do not overlap.
    total = 0.0
    with torch.no_grad():
        for inputs, targets in zip(held_out[:-1].split(columns), held_out[1:].split(columns)):
            logits = model(inputs[None])[0]
            total += functional.cross_entropy(logits, targets, reduction="sum").item()
    return {
        "validation_loss": total / (len(held_out) - 1),
        "train_s": seconds,
        "tokens_per_s": args.steps * rows * columns / seconds,
    }


def decode(args):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1)
    precision = {"f32": torch.float32, "bf16": torch.bfloat16}[args.precision]
    model = GPT2LMHeadModel(GPT2Config(**json.loads(pathlib.Path(args.config).read_text()))).eval().to(precision)
    prompt = torch.randint(model.config.vocab_size, (1, args.prompt))
    reading, writing = [], []
    with torch.inference_mode():
        for sequence in range(args.steps + 1):
            start = time.perf_counter()
            output = model(prompt, use_cache=True)
            token = output.logits[:, -1:].argmax(-1)
            read = time.perf_counter()
            for _ in range(args.tokens):
                output = model(token, past_key_values=output.past_key_values, use_cache=True)
                token = output.logits[:, -1:].argmax(-1)
            token.item()
            if sequence > 0:
                reading.append(read - start)
                writing.append(time.perf_counter() - read)
    return {
        "tokens_per_s": args.tokens / statistics.median(writing),
        "prefill_ms": statistics.median(reading) * 1e3,
    }


class Embedder(nn.Module):
    """transformers' BERT and the mean of its tokens' vectors."""

    def __init__(self, config):
        super().__init__()
        from transformers import BertConfig, BertModel

        self.bert = BertModel(BertConfig(**config), add_pooling_layer=False)

    def forward(self, ids):
        return self.bert(input_ids=ids).last_hidden_state.mean(1)


def onnx_session(model, ids, threads):
    """ONNX Runtime with a model of PyTorch's, as a function of ids."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        path = str(pathlib.Path(folder, "model.onnx"))
        torch.onnx.export(model, (ids,), path, input_names=["ids"], dynamo=True)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda ids: session.run(None, {session.get_inputs()[0].name: ids.numpy()})


def embed(args):
    torch.manual_seed(1)
    config = json.loads(pathlib.Path(args.config).read_text())
    model = Embedder(config).eval()
    ids = torch.randint(config["vocab_size"], (args.batch, args.ctx))
    if args.ort:
        runs = {"onnxruntime": onnx_session(model, ids, args.threads)}
    elif args.precision == "f32":
        runs = {"f32": model}
    else:
        rounded = copy.deepcopy(model).bfloat16()

        def autocast(ids):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return model(ids)

        runs = {"bf16 weights": rounded, "bf16 autocast": autocast}

    def milliseconds(run):
        times = []
        for batch in range(args.steps + 2):
            start = time.perf_counter()
            run(ids)
            if batch >= 2:
                times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e3

    with torch.inference_mode():
        batch_ms, way = min((milliseconds(run), way) for way, run in runs.items())
    return {
        "sentences_per_s": args.batch / batch_ms * 1e3,
        "tokens_per_s": args.batch * args.ctx / batch_ms * 1e3,
        "batch_ms": batch_ms,
        "way": way,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    subjects = parser.add_subparsers(dest="subject", required=True)

    subject = subjects.add_parser("train", help="training steps of a GPT on random tokens")
    subject.add_argument("--config", required=True, help="a config.json; see ../configs")
    subject.add_argument("--batch", type=int, default=8)
    subject.add_argument("--ctx", type=int, default=256)
    subject.add_argument("--steps", type=int, default=10)
    subject.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    subject.add_argument("--compile", action="store_true", help="torch.compile and the fused optimizer")
    subject.set_defaults(run=train)

    subject = subjects.add_parser("learn", help="training on a text with nanoGPT's CPU recipe")
    subject.add_argument("--text", required=True)
    subject.add_argument("--steps", type=int, default=2000)
    subject.add_argument("--seed", type=int, default=1337)
    subject.set_defaults(run=learn)

    subject = subjects.add_parser("decode", help="greedy decoding of one sequence with transformers")
    subject.add_argument("--config", required=True)
    subject.add_argument("--prompt", type=int, default=16)
    subject.add_argument("--tokens", type=int, default=64)
    subject.add_argument("--steps", type=int, default=4)
    subject.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    subject.set_defaults(run=decode)

    subject = subjects.add_parser("embed", help="sentence embeddings of random tokens: BERT with mean pooling")
    subject.add_argument("--config", required=True)
    subject.add_argument("--batch", type=int, default=32)
    subject.add_argument("--ctx", type=int, default=128)
    subject.add_argument("--steps", type=int, default=10)
    precision = subject.add_mutually_exclusive_group()
    precision.add_argument(
        "--precision", choices=["f32", "bf16"], default="f32", help="bf16: the faster of bf16 weights and autocast"
    )
    precision.add_argument("--ort", action="store_true", help="with ONNX Runtime, in f32")
    subject.set_defaults(run=embed)

    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    figures = args.run(args)
    figures["threads"] = args.threads
    figures["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps({name: value if isinstance(value, str) else round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
