#!/usr/bin/env python3
"""Sends every fixture through `andiron export` and opens the result in `transformers`.

    python check_round_trip.py

Not part of `cargo test`, because it needs Python with `torch` and `transformers`. Exits with 0 if every directory that
`andiron` writes opens as the class of the original, without a missing, unexpected or mismatched tensor, with the same
parameters to the last bit, and gives the same numbers within 1e-5.

`ANDIRON` names the program; without it, it is the release build of this checkout, which is built where needed.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = Path(__file__).resolve().parent / "golden"


def program() -> Path:
    if "ANDIRON" in os.environ:
        return Path(os.environ["ANDIRON"]).resolve()
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = target / "release/andiron"
    if not path.exists():
        build = ["cargo", "build", "--release", "-p", "andiron-cli", "--features", "ndarray"]
        subprocess.run(build, cwd=ROOT, env=os.environ | {"CARGO_TARGET_DIR": str(target)}, check=True)
    return path


def open_model(directory: Path):
    config = json.loads((directory / "config.json").read_text())
    kind = getattr(transformers, config["architectures"][0])
    model, info = kind.from_pretrained(directory, output_loading_info=True, dtype=torch.float32)
    for what, names in info.items():
        assert not names, (directory.name, what, names)
    return model.eval()


def main() -> None:
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity(logging.ERROR)
    andiron = program()
    fixtures = sorted(path.parent for path in FIXTURES.glob("*/config.json"))
    assert len(fixtures) > 30, fixtures
    with tempfile.TemporaryDirectory() as directory:
        for fixture in fixtures:
            copy = Path(directory) / fixture.name
            subprocess.run([andiron, "export", "--model", fixture, "--output", copy], check=True,
                           stdout=subprocess.DEVNULL)
            theirs, ours = open_model(fixture), open_model(copy)
            assert type(theirs) is type(ours), (fixture.name, type(theirs), type(ours))
            expected, found = theirs.state_dict(), ours.state_dict()
            assert expected.keys() == found.keys(), (fixture.name, expected.keys() ^ found.keys())
            for name, values in expected.items():
                assert torch.equal(values, found[name]), (fixture.name, name)
            ids = torch.randint(3, 20, (2, 9), generator=torch.Generator().manual_seed(1))
            inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if theirs.config.is_encoder_decoder else {})
            with torch.no_grad():
                a, b = theirs(**inputs)[0], ours(**inputs)[0]
            # Two names of one activation may be computed in two ways.
            assert torch.allclose(a, b, atol=1e-5), (fixture.name, (a - b).abs().max())
            print(f"{fixture.name}: {type(ours).__name__} comes back the same")


if __name__ == "__main__":
    sys.exit(main())
