#!/usr/bin/env python3
"""Compares `andiron evaluate --tasks` with lm-evaluation-harness and its `hf` model: results, standard errors and samples.

    python check_lm_eval.py [SEED]
    python check_lm_eval.py --model DIR --tasks DIR

Not part of `cargo test`, because it needs Python with `lm_eval[hf]` 0.4.13. Without options it runs the tiny model of the tests on fresh
random tasks (from a seed that is printed) and on the tests' own. Fails at the first number, prompt, response or hash that differs.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.update(HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1", LMEVAL_DISABLE_MULTIPROC="1", DISABLE_MULTIPROC="1", TOKENIZERS_PARALLELISM="false")

from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.loggers import EvaluationTracker  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "crates/andiron-eval/tests/lm_eval"
WORDS = (ROOT / "examples/data/shakespeare.txt").read_text(encoding="utf-8")[:100_000].split()
ODD = ["한국어", "é", "e\u0301", "3,000.5", "1-2", "(a)", "...", "😀", "it's", 'say "no"', "\\n", "{{x}}", " ", "\t", "<|endoftext|>"]
BOOTSTRAP = 300
PLACES = 4


def text(rng, most=20):
    words = [rng.choice(ODD) if rng.random() < 0.15 else rng.choice(WORDS) for _ in range(rng.randint(1, most))]
    return rng.choice(["", "", " "]) + " ".join(words).lstrip() + rng.choice(["", "", " ", "  ", "\n"])


def write_tasks(folder, rng):
    """Tasks over random rows: every kind of output, few-shot examples, delimiters and filters."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for _ in range(30):
        choices = [text(rng, 5).strip() or "x" for _ in range(rng.randint(2, 5))]
        rows.append({"q": text(rng), "choices": choices, "answer": rng.randrange(len(choices)), "a": text(rng, 3).strip() or "y"})
    write = lambda name, rows: (folder / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    write("rows.jsonl", rows)
    write("train.jsonl", rows[:12])
    base = f"dataset_path: json\ndataset_kwargs: {{data_files: {{train: {folder}/train.jsonl, test: {folder}/rows.jsonl}}}}\ntest_split: test\nfewshot_split: train\n"
    shots = rng.randint(0, 2)
    tasks = {
        "random_choice": f"output_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: choices\ndoc_to_target: answer\nnum_fewshot: {shots}\n"
        "metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_bytes}, {metric: exact_match}, {metric: acc_mutual_info}]\n",
        "random_pair": "output_type: multiple_choice\ndoc_to_text: \"{{q|trim}}\"\ndoc_to_choice: \"{{choices[:2]}}\"\ndoc_to_target: \"{{[answer, 1]|min}}\"\n"
        "target_delimiter: \"\"\nmetric_list: [{metric: acc}, {metric: mcc}, {metric: f1}]\n",
        "random_likelihood": f"output_type: loglikelihood\ndoc_to_text: q\ndoc_to_target: a\nnum_fewshot: {shots}\n",
        "random_rolling": "output_type: loglikelihood_rolling\ndoc_to_target: \"{{q}}{{q}}{{a}}\"\ndoc_to_text: \"\"\n",
        "random_text": f"output_type: generate_until\ndoc_to_text: q\ndoc_to_target: a\nnum_fewshot: {shots}\nfewshot_config: {{sampler: first_n}}\n"
        "generation_kwargs: {until: [\"\\n\", \" the\"], max_gen_toks: 9}\nmetric_list: [{metric: exact_match}, {metric: bleu}, {metric: chrf}]\n"
        "filter_list: [{name: last, filter: [{function: regex, regex_pattern: \"(\\\\w+)\", group_select: -1}, {function: take_first}]}]\n",
    }
    for name, keys in tasks.items():
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{base}{keys}", encoding="utf-8")


def harness(model, folder, output):
    """The results of lm-evaluation-harness, and the lines of its samples by task."""
    tracker = EvaluationTracker(output_path=str(output))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    names = sorted(set(manager.all_subtasks))
    os.chdir(folder)
    results = simple_evaluate(
        model="hf", model_args=f"pretrained={model},dtype=float32", tasks=names, task_manager=manager, batch_size=8, device="cpu",
        bootstrap_iters=BOOTSTRAP, evaluation_tracker=tracker,
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task, rows in samples.items():
        tracker.save_results_samples(task_name=task, samples=rows)
    return results, read_samples(output)


def read_samples(output):
    samples = {}
    for file in output.glob("*/samples_*.jsonl"):
        task = file.name.removeprefix("samples_").rsplit("_", 1)[0]
        samples[task] = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return samples


def close(found, wanted, path):
    """Fails unless both are equal, numbers to the printed digits and log-likelihoods to f32's."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), f"{path}: {sorted(found)} {sorted(wanted)}"
        for key in wanted:
            close(found[key], wanted[key], f"{path}.{key}")
    elif isinstance(wanted, list):
        assert isinstance(found, list) and len(found) == len(wanted), f"{path}: {found} {wanted}"
        for at, (a, b) in enumerate(zip(found, wanted)):
            close(a, b, f"{path}[{at}]")
    elif isinstance(wanted, float) or isinstance(found, float):
        assert abs(found - wanted) <= max(0.5 * 10**-PLACES, 1e-4 * abs(wanted)), f"{path}: {found} {wanted}"
    elif isinstance(wanted, str) and found != wanted:
        try:
            a, b = float(found), float(wanted)
        except ValueError:
            raise AssertionError(f"{path}: {found!r} {wanted!r}") from None
        assert abs(a - b) <= 2e-3 + 1e-5 * abs(b), f"{path}: {found} {wanted}"
    else:
        assert found == wanted, f"{path}: {found!r} {wanted!r}"


def compare(program, model, folder):
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        wanted, samples = harness(model, folder, directory / "harness")
        run = [program, "evaluate", "--model", model, "--tasks", folder, "--bootstrap-iters", str(BOOTSTRAP), "--json"]
        run += ["--output", directory / "andiron", "--log-samples"]
        done = subprocess.run(run, cwd=folder, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr)
        found, own = json.loads(done.stdout), read_samples(directory / "andiron")
    for task, results in wanted["results"].items():
        close(found["results"][task], results, task)
    for key in ["n-shot", "higher_is_better", "n-samples", "versions"]:
        for task, value in wanted[key].items():
            close(found[key][task], value, f"{key}.{task}")
    for task, rows in samples.items():
        for row in [*rows, *own[task]]:
            row.pop("brier_score", None)
        close(own[task], rows, task)
    return len(samples), sum(len(rows) for rows in samples.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tasks", type=Path)
    parser.add_argument("--program", type=Path, help="a program that was built already")
    options = parser.parse_args()
    program = options.program
    if program is None:
        subprocess.run(["cargo", "build", "--release", "--quiet", "--package", "andiron-cli", "--features", "ndarray"], cwd=ROOT, check=True)
        program = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/andiron"
    model = (options.model or FIXTURES / "model").resolve()
    with tempfile.TemporaryDirectory() as directory:
        if options.tasks:
            folders = [options.tasks.resolve()]
        else:
            seed = options.seed if options.seed is not None else random.randrange(1 << 30)
            print(f"seed {seed}")
            write_tasks(Path(directory) / "tasks", random.Random(seed))
            folders = [Path(directory) / "tasks", FIXTURES / "tasks"]
        for folder in folders:
            tasks, rows = compare(program.resolve(), model, folder)
            print(f"{folder}: {tasks} tasks, {rows} samples agree")


if __name__ == "__main__":
    main()
