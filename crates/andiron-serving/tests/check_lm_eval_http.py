#!/usr/bin/env python3
"""Compares lm-evaluation-harness over HTTP (`local-completions`, `local-chat-completions`) with `andiron evaluate --tasks` on the same model.

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
from server import ROOT, program, serve, small_decoder  # noqa: E402

FIXTURES = ROOT / "crates/andiron-eval/tests/lm_eval"
# Choices, log-likelihoods and text. Tasks with texts beyond the context are left out: over HTTP the harness cuts them one token shorter.
TASKS = ["choice", "cloze", "sums", "blank"]
# Text alone: a chat has no log-likelihoods.
CHAT_TASKS = ["sums", "words"]


def here(model, tasks, folder, more=()):
    """The results of `andiron evaluate`."""
    run = [program(), "evaluate", "--model", model, "--limit", "20", "--json", *more]
    run += ["--tasks", ",".join(str(folder / f"{name}.yaml") for name in tasks)]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["results"]


def compare(what, tasks, wanted, found):
    compared = 0
    for task in tasks:
        for metric, value in wanted["results"][task].items():
            if isinstance(value, float) and not metric.split(",")[0].endswith("stderr"):
                own = found[task][metric]
                assert abs(own - value) <= max(0.5e-4, 1e-4 * abs(value)), f"{task} {metric}: {own} here, {value} over HTTP"
                compared += 1
    assert compared >= len(tasks), compared
    print(f"{what}: {len(tasks)} tasks, {compared} results agree: {', '.join(tasks)}")


def main():
    tasks, model = FIXTURES / "tasks", FIXTURES / "model"
    os.chdir(tasks)
    with tempfile.TemporaryDirectory() as folder:
        chat_model = small_decoder(pathlib.Path(folder))
        with serve(f"lm={model}", f"chat={chat_model}") as address:
            manager = TaskManager(include_path=str(tasks), include_defaults=False)
            common = {"task_manager": manager, "batch_size": 1, "bootstrap_iters": 0, "limit": 20}
            # The harness keeps one place of this for a generated token, its hf model none.
            length = 1 + json.loads((model / "config.json").read_text())["max_position_embeddings"]
            wanted = simple_evaluate(
                model="local-completions",
                model_args=f"model=lm,base_url={address}/v1/completions,tokenizer_backend=remote,num_concurrent=1,max_length={length}",
                tasks=TASKS, **common,
            )
            compare("local-completions", TASKS, wanted, here(model, TASKS, tasks))
            wanted = simple_evaluate(
                model="local-chat-completions",
                model_args=f"model=chat,base_url={address}/v1/chat/completions,num_concurrent=1",
                tasks=CHAT_TASKS, apply_chat_template=True, fewshot_as_multiturn=True, **common,
            )
            compare("local-chat-completions", CHAT_TASKS, wanted, here(chat_model, CHAT_TASKS, tasks, ["--apply-chat-template"]))


if __name__ == "__main__":
    main()
