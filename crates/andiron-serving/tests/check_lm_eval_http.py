#!/usr/bin/env python3
"""Compares lm-evaluation-harness over HTTP (`local-completions`) with `andiron evaluate --tasks` on the same model.

    python check_lm_eval_http.py

Not part of `cargo test`, because it needs Python with lm_eval 0.4.13. The harness gets its tokens and log-probabilities from `andiron serve`;
every result must be that of `andiron evaluate` to four digits.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.update(HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1", LMEVAL_DISABLE_MULTIPROC="1", DISABLE_MULTIPROC="1", TOKENIZERS_PARALLELISM="false")

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "clients"))

from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from server import ROOT, program, serve  # noqa: E402

FIXTURES = ROOT / "crates/andiron-eval/tests/lm_eval"
# Choices, log-likelihoods and text. Tasks with texts beyond the context are left out: over HTTP the harness cuts them one token shorter.
TASKS = ["choice", "cloze", "sums", "blank"]


def main():
    tasks, model = FIXTURES / "tasks", FIXTURES / "model"
    os.chdir(tasks)
    with tempfile.TemporaryDirectory() as folder, serve(f"lm={model}") as address:
        manager = TaskManager(include_path=str(tasks), include_defaults=False)
        # The harness keeps one place of this for a generated token, its hf model none.
        length = 1 + json.loads((model / "config.json").read_text())["max_position_embeddings"]
        wanted = simple_evaluate(
            model="local-completions",
            model_args=f"model=lm,base_url={address}/v1/completions,tokenizer_backend=remote,num_concurrent=1,max_length={length}",
            tasks=TASKS, task_manager=manager, batch_size=1, bootstrap_iters=0, limit=20,
        )
        run = [program(), "evaluate", "--model", model, "--limit", "20", "--json"]
        run += ["--tasks", ",".join(str(tasks / f"{name}.yaml") for name in TASKS)]
        done = subprocess.run(run, cwd=tasks, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)["results"]
    compared = 0
    for task in TASKS:
        for metric, value in wanted["results"][task].items():
            if isinstance(value, float) and not metric.split(",")[0].endswith("stderr"):
                own = found[task][metric]
                assert abs(own - value) <= max(0.5e-4, 1e-4 * abs(value)), f"{task} {metric}: {own} here, {value} over HTTP"
                compared += 1
    assert compared >= len(TASKS), compared
    print(f"{len(TASKS)} tasks, {compared} results agree: {', '.join(TASKS)}")


if __name__ == "__main__":
    main()
