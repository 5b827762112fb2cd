#!/usr/bin/env python3
"""Makes `muon.json`: parameters moved by `torch.optim.Muon`.

    cargo xtask golden muon

Needs torch 2.9 or newer. Each run is one setting of the optimizer and three matrices, square, wide and tall, moved three
times. PyTorch's own code runs twice: once as it is, with products of bf16, and once with float64 in the place of every
bf16, which is what the algorithm means.
"""
import json
import math
import pathlib
import types

import torch
import torch.optim._muon as torch_muon

SHAPES = [(12, 12), (8, 20), (20, 8)]
STEPS = 3
RUNS = {
    "usual": dict(lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw", clip=0.5),
    "original": dict(lr=0.02, weight_decay=0.0, adjust_lr_fn="original", nesterov=False, momentum=0.8, clip=1.0),
    "spectral": dict(
        lr=0.01, weight_decay=0.5, adjust_lr_fn="spectral_unclamped", ns_steps=3,
        ns_coefficients=(2.0, -1.5, 0.5), clip=1.0,
    ),
}
WITH_FLOAT64 = types.SimpleNamespace(**(vars(torch) | {"bfloat16": torch.float64}))


def move(start, grads, settings, module):
    """The parameters after all steps, by `torch.optim.Muon` with `module` in the place of `torch`."""
    torch_muon.torch = module
    params = [torch.nn.Parameter(value.clone()) for value in start]
    optimizer = torch.optim.Muon(params, **settings)
    for step in grads:
        for param, grad in zip(params, step):
            param.grad = grad
        optimizer.step()
    torch_muon.torch = torch
    return [param.detach() for param in params]


def rounded(tensors, digits):
    """Rows of all tensors one after the other, as lists of numbers."""
    return [[round(number, digits) for number in tensor.flatten().tolist()] for tensor in tensors]


def main():
    generator = torch.Generator().manual_seed(5)

    def draw(scale):
        # Numbers that f32 and this file hold with the same few digits.
        one = lambda shape: torch.randn(shape, generator=generator, dtype=torch.float64) * scale
        return [torch.round(one(shape), decimals=3) for shape in SHAPES]

    start, grads = draw(0.1), [draw(1.0) for _ in range(STEPS)]
    runs = {}
    for name, settings in RUNS.items():
        settings = dict(settings)
        clip = settings.pop("clip")
        clipped = [[grad * clip for grad in step] for step in grads]
        exact = move(start, clipped, settings, WITH_FLOAT64)
        bf16 = move([v.float() for v in start], [[g.float() for g in s] for s in clipped], settings, torch)
        moved = math.sqrt(sum(float((a - b).pow(2).sum()) for a, b in zip(exact, start)))
        apart = math.sqrt(sum(float((a - b).pow(2).sum()) for a, b in zip(exact, bf16)))
        runs[name] = {
            "settings": settings,
            "clip": clip,
            "exact": rounded(exact, 7),
            "bf16": rounded(bf16, 7),
            # How far bf16 leads away from the exact steps, in parts of those.
            "bf16_error": round(apart / moved, 5),
        }
        print(f"{name}: bf16 leads {apart / moved:.2%} away")
    fixture = {
        "versions": {"torch": torch.__version__.split("+")[0]},
        "shapes": SHAPES,
        "start": rounded(start, 3),
        "grads": [rounded(step, 3) for step in grads],
        "runs": runs,
    }
    path = pathlib.Path(__file__).with_name("muon.json")
    path.write_text(json.dumps(fixture, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
