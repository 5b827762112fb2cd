#!/usr/bin/env python3
"""Makes the golden fixtures: tiny random models saved by `transformers`, with what they compute.

    cargo xtask golden gpt2          # or: python3 make.py gpt2
    cargo xtask golden keys          # which keys of config.json the installed classes read

Needs torch, transformers, numpy and, for adapters, peft. Each fixture is a model directory plus `expected.json`: ids, logits of every
position, the mean cross-entropy of predicting each next id, the gradient of that loss for a few parameters, and
continuations. Seeds are fixed; the versions that made a fixture are written into it.
"""
import pathlib
import sys

import adapters
import attention
import beams
import classifiers
import decoders
import encoders
import keys
import generation
import seq2seq
import t5

HERE = pathlib.Path(__file__).parent
MAKERS = (decoders.MAKERS | classifiers.MAKERS | beams.MAKERS | generation.MAKERS | encoders.MAKERS | seq2seq.MAKERS
          | t5.MAKERS | keys.MAKERS | adapters.MAKERS | attention.MAKERS)

if __name__ == "__main__":
    names = sys.argv[1:] or list(MAKERS)
    for name in names:
        if name not in MAKERS:
            sys.exit(f"unknown fixture {name!r}: choose from {', '.join(MAKERS)}")
        MAKERS[name]()
        print(f"made {name} in {HERE}")
