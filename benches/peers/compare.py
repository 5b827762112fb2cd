"""Alternates Andiron and its peers and prints their medians as the tables of RESULTS.md.

    python3 compare.py --andiron PROGRAM --python INTERPRETER [--text FILE]... [--rounds 3] [--only WORD]

Both sides use every core. During a run the CPU time of other processes is read from /proc/stat; a run in which they took
more than `--share` of the machine is discarded and repeated, so a table made on a busy machine is late rather than wrong.
Linux only.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
CONFIGS = HERE.parent / "configs"
TRAINED = {"char-6x384": (8, 256), "bpe-4x256": (8, 256), "nano": (12, 64)}
DECODED = ["gpt2-small", "nano"]
EMBEDDED = {"minilm": (32, 128)}


def busy_seconds():
    """Processor time that the machine has spent on anything at all, time taken by other guests included."""
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, open("/proc/stat").readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def wait_until_quiet(share):
    """Returns after two seconds in which others used no more than their share."""
    while True:
        busy, start = busy_seconds(), time.monotonic()
        time.sleep(2)
        if busy_seconds() - busy <= share * (time.monotonic() - start) * os.cpu_count():
            return


def measured(command, share):
    """Runs a command until it had the machine to itself; returns what it wrote and how often that took."""
    for attempt in range(1, 61):
        wait_until_quiet(share)
        busy, start = busy_seconds(), time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        output, errors = process.communicate()
        if process.returncode:
            sys.exit(f"{' '.join(map(str, command))} failed:\n{errors}")
        elapsed = time.monotonic() - start
        mine = os.times()
        used = mine.children_user + mine.children_system - measured.children
        measured.children += used
        others = (busy_seconds() - busy - used) / (elapsed * os.cpu_count())
        print(f"  {others:6.1%} used by others, {elapsed:5.1f} s", file=sys.stderr)
        if others <= share:
            return output, attempt
    sys.exit("the machine is too busy to measure anything")


measured.children = 0.0


class Contestant:
    """One program doing one subject, and its figures so far. `rival` is which of ours it is compared with."""

    def __init__(self, name, command, read=None, rival=0):
        self.name, self.command, self.figures, self.tries, self.rival = name, command, [], 0, rival
        self.read = read or (lambda output: json.loads(output.strip().splitlines()[-1]))

    def run(self, share):
        print(self.name, file=sys.stderr)
        output, tries = measured(self.command(), share)
        self.figures.append(self.read(output))
        self.tries += tries

    def median(self, key):
        return statistics.median(row[key] for row in self.figures)

    def spread(self, key):
        values = [row[key] for row in self.figures]
        return (max(values) - min(values)) / statistics.median(values)


def contests(args):
    """Every subject: its title, the columns to show (the first is the one to win) and who takes part."""
    peers = [args.python, HERE / "peers.py"]

    def theirs(name, *rest, rival=0):
        return Contestant(name, lambda: [*map(str, peers), *map(str, rest)], rival=rival)

    def ours(name, *rest):
        return Contestant(name, lambda: [*map(str, [args.andiron, *rest, "--json"])])

    for name, (batch, ctx) in TRAINED.items():
        config, sizes = CONFIGS / f"{name}.json", ("--batch", batch, "--ctx", ctx, "--steps", args.steps)
        common = ("train", "--config", config, *sizes)
        yield f"train {name}", ["tokens_per_s", "forward_ms", "backward_ms", "update_ms", "peak_rss_mb"], [
            ours("Andiron f32", "bench", *common, "--precision", "f32"),
            ours("Andiron mixed", "bench", *common, "--precision", "mixed"),
            theirs("PyTorch f32", *common),
            theirs("PyTorch bf16", *common, "--precision", "bf16", rival=1),
            theirs("PyTorch bf16, compiled, fused AdamW", *common, "--precision", "bf16", "--compile", rival=1),
        ]
    for name in DECODED:
        config, sizes = CONFIGS / f"{name}.json", ("--prompt", 16, "--tokens", 64 if name != "nano" else 40)
        common = ("decode", "--config", config, *sizes)
        yield f"decode {name}", ["tokens_per_s", "prefill_ms", "peak_rss_mb"], [
            ours("Andiron f32", "bench", *common),
            theirs("transformers f32", *common),
            theirs("transformers bf16", *common, "--precision", "bf16"),
        ]
    for name, (batch, ctx) in EMBEDDED.items():
        sizes = ("--batch", batch, "--ctx", ctx, "--steps", args.steps)
        common = ("embed", "--config", CONFIGS / f"{name}.json", *sizes)
        yield f"embed {name}", ["sentences_per_s", "tokens_per_s", "batch_ms", "peak_rss_mb"], [
            ours("Andiron f32", "bench", *common, "--precision", "f32"),
            ours("Andiron mixed", "bench", *common, "--precision", "mixed"),
            theirs("transformers f32", *common),
            theirs("ONNX Runtime f32", *common, "--ort"),
            theirs("transformers bf16", *common, "--precision", "bf16", rival=1),
        ]
    for text in args.text:
        for seed in args.seeds:
            folder = tempfile.TemporaryDirectory()
            count = iter(range(1000))

            def learn(text=text, seed=seed, folder=folder, count=count):
                output = f"{folder.name}/{next(count)}"
                learn.metrics = pathlib.Path(output, "run/metrics.jsonl")
                command = [args.andiron, "quickstart", "--recipe", "nanogpt", "--corpus", text, "--seed", seed]
                command += ["--output", output, "--json"]
                return list(map(str, command))

            def read(output, learn=learn):
                lines = learn.metrics.read_text().splitlines()
                return {
                    "validation_loss": json.loads(output)["validation_loss"],
                    "train_s": json.loads(lines[-1])["elapsed_s"],
                }

            yield f"learn {pathlib.Path(text).stem}, seed {seed}", ["train_s", "validation_loss"], [
                Contestant("Andiron", learn, read),
                theirs("PyTorch f32", "learn", "--text", text, "--seed", seed),
            ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--andiron", required=True, help="the program, built with --release")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that setup.sh printed")
    parser.add_argument("--text", action="append", default=[], help="also train on this text with nanoGPT's recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1337, 1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.03, help="maximum fraction of CPU time taken by other processes during a run")
    parser.add_argument("--only", default="", help="only benchmarks whose title contains this")
    args = parser.parse_args()
    for title, columns, contestants in contests(args):
        if args.only not in title:
            continue
        print(f"== {title}", file=sys.stderr)
        for _ in range(args.rounds):
            for contestant in contestants:
                contestant.run(args.share)
        first, rest = columns[0], columns[1:]
        print(f"\n### {title}\n\n| | {first} | ours ÷ theirs | spread | {' | '.join(rest)} |")
        print("|---|--:|--:|--:|" + "--:|" * len(rest))
        for it in contestants:
            ratio = contestants[it.rival].median(first) / it.median(first)
            shown = " | ".join(f"{it.median(column):.4g}" for column in rest)
            print(f"| {it.name} | {it.median(first):.4g} | {ratio:.2f} | {it.spread(first):.0%} | {shown} |")
        tries = sum(it.tries for it in contestants)
        runs = args.rounds * len(contestants)
        print(f"\n{runs} runs, {tries - runs} thrown away because the machine was shared.", flush=True)


if __name__ == "__main__":
    main()
