#!/usr/bin/env python3
"""Makes `optimizers.json`: parameters after 1, 10 and 50 steps of PyTorch's, transformers' and lion-pytorch's optimizers.

    cargo xtask golden optimizers

Needs the packages of `xtask/requirements.txt`. A linear layer, a matrix and a bias, is moved by gradients that are a
function of step and element, so that the fixture need not hold them. Everything runs in float64, Muon as well, whose
matmuls are bf16 otherwise. Biases do not decay. The settings of a run are those of Andiron's configuration.
"""
import json
import pathlib
import types

import lion_pytorch
import torch
import torch.optim._muon as torch_muon
import transformers
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers.optimization import Adafactor

ROWS, COLUMNS = 6, 10
SCALE = 0.5
EMA = 0.9
AFTER = (1, 10, 50)
BASE = dict(schedule="constant", weight_decay=0.1)
RUNS = {
    "adamw": dict(kind="adamw", lr=0.01, beta1=0.9, beta2=0.99, eps=1e-8),
    "muon": dict(kind="muon", lr=0.01, beta1=0.9, beta2=0.99, eps=1e-8, muon=dict(lr=0.02)),
    "lion": dict(kind="lion", lr=0.002, weight_decay=0.5, lion=dict(beta1=0.9, beta2=0.99)),
    "adafactor": dict(kind="adafactor", lr=0.01, adafactor=dict()),
    "adafactor_mean": dict(
        kind="adafactor", lr=0.02,
        adafactor=dict(scale_parameter=True, beta1=0.9, clip_threshold=0.5, decay_rate=-0.5, eps=[1e-30, 0.2]),
    ),
    "adafactor_relative": dict(kind="adafactor", lr=1.0, adafactor=dict(scale_parameter=True, relative_step=True)),
    "adafactor_warmup": dict(kind="adafactor", lr=1.0, adafactor=dict(relative_step=True, warmup_init=True)),
}
WITH_FLOAT64 = types.SimpleNamespace(**(vars(torch) | {"bfloat16": torch.float64}))


def numbers(step, count, start):
    """Thousandths from -1 to 1, of three sizes, the same in Rust."""
    drawn = ((step * 7919 + (start + i) * 104729 + 12345) ** 2 % 2003 / 1000 - 1 for i in range(count))
    scaled = [x * (1.0, 0.1, 0.01)[i % 3] for i, x in enumerate(drawn)]
    return torch.tensor(scaled, dtype=torch.float32).double()


def optimizers(layer, run):
    """The optimizers of a run: one, or Muon's and another for the bias."""
    lr, decay = run["lr"], run["weight_decay"]
    groups = [dict(params=[layer.weight], weight_decay=decay), dict(params=[layer.bias], weight_decay=0.0)]
    betas = lambda run: dict(betas=(run["beta1"], run["beta2"]))
    match run["kind"]:
        case "adamw":
            return [torch.optim.AdamW(groups, lr=lr, eps=run["eps"], **betas(run))]
        case "muon":
            muon = torch.optim.Muon(
                [layer.weight], lr=run["muon"]["lr"], weight_decay=decay, adjust_lr_fn="match_rms_adamw"
            )
            return [muon, torch.optim.AdamW(groups[1:], lr=lr, eps=run["eps"], **betas(run))]
        case "lion":
            return [lion_pytorch.Lion(groups, lr=lr, **betas(run["lion"]))]
        case "adafactor":
            settings = dict(scale_parameter=False, relative_step=False) | run["adafactor"]
            return [Adafactor(groups, lr=None if settings["relative_step"] else lr, **settings)]


def main():
    torch_muon.torch = WITH_FLOAT64
    runs = {}
    for name, run in RUNS.items():
        run = BASE | run
        layer = torch.nn.Linear(COLUMNS, ROWS, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(numbers(0, ROWS * COLUMNS, 0).reshape(ROWS, COLUMNS))
            layer.bias.copy_(numbers(0, ROWS, ROWS * COLUMNS))
        average = AveragedModel(layer, multi_avg_fn=get_ema_multi_avg_fn(EMA))
        average.update_parameters(layer)
        moving = optimizers(layer, run)
        after = {}
        rounded = lambda tensor: [round(x, 7) for x in tensor.flatten().tolist()]
        for step in range(1, AFTER[-1] + 1):
            layer.weight.grad = numbers(step, ROWS * COLUMNS, 0).reshape(ROWS, COLUMNS) * SCALE
            layer.bias.grad = numbers(step, ROWS, ROWS * COLUMNS) * SCALE
            for optimizer in moving:
                optimizer.step()
            average.update_parameters(layer)
            if step in AFTER:
                after[step] = rounded(layer.weight.detach()) + rounded(layer.bias.detach())
        runs[name] = {"optimizer": run, "after": after}
        if name == "adamw":
            runs[name]["ema"] = rounded(average.module.weight.detach()) + rounded(average.module.bias.detach())
    versions = {
        "torch": torch.__version__.split("+")[0], "transformers": transformers.__version__, "lion-pytorch": "0.2.5",
    }
    fixture = {"versions": versions, "rows": ROWS, "columns": COLUMNS, "scale": SCALE, "ema_decay": EMA, "runs": runs}
    path = pathlib.Path(__file__).with_name("optimizers.json")
    path.write_text(json.dumps(fixture, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
