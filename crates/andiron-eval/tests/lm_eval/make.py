#!/usr/bin/env python3
"""Writes `expected.json`: what lm-evaluation-harness 0.4.13 gives for the tasks here, with the `hf` model on `model`; and
`expected_chat.json`: the same of some rows with prompts as conversations, by `chat_template.jinja`.

    python make.py

Needs `lm_eval` with its `hf` extra. Bootstrap errors are of 2,000 samples, which the tests ask for as well.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.chdir(HERE / "tasks")
os.environ.update(HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1", LMEVAL_DISABLE_MULTIPROC="1", DISABLE_MULTIPROC="1")

from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.loggers import EvaluationTracker  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from lm_eval.utils import handle_non_serializable, make_table  # noqa: E402

TASKS = ["small", "sums", "pages", "cloze", "blank", "words", "tail"]
CHAT_TASKS = ["choice", "mood", "sums", "blank", "words", "tail"]
KEPT = ["results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples"]


def run(directory, model="../model", tasks=TASKS, **how):
    tracker = EvaluationTracker(output_path=directory)
    results = simple_evaluate(
        model="hf",
        model_args=f"pretrained={model},dtype=float32",
        tasks=tasks,
        task_manager=TaskManager(include_path=".", include_defaults=False),
        batch_size=4,
        device="cpu",
        bootstrap_iters=2000,
        evaluation_tracker=tracker,
        **how,
    )
    samples = results.pop("samples")
    table = make_table(results)
    if "groups" in results:
        table += "\n" + make_table(results, "groups")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task, rows in samples.items():
        tracker.save_results_samples(task_name=task, samples=rows)
    return results, table


def samples_in(directory):
    found = {}
    for file in sorted(Path(directory).glob("*/samples_*.jsonl")):
        task = file.name.removeprefix("samples_").rsplit("_", 1)[0]
        found[task] = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return found


def write(name, expected):
    text = json.dumps(expected, indent=1, default=handle_non_serializable, ensure_ascii=False)
    (HERE / name).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        results, table = run(directory)
        samples = samples_in(directory)
    expected = {key: results[key] for key in KEPT + ["task_hashes"] if key in results}
    expected.update(table=table, samples=samples)
    write("expected.json", expected)

    expected = {}
    for multiturn in (True, False):
        with tempfile.TemporaryDirectory() as directory:
            model = Path(directory) / "model"
            shutil.copytree(HERE / "model", model)
            shutil.copy(HERE / "chat_template.jinja", model)
            results, _ = run(
                directory, model, CHAT_TASKS, limit=2, apply_chat_template=True, fewshot_as_multiturn=multiturn
            )
            expected[f"multiturn {multiturn}".lower()] = {"results": results["results"], "samples": samples_in(directory)}
    write("expected_chat.json", expected)
