"""Asks an OpenAI-compatible server for several texts at once and prints how many tokens a second it wrote.

    python3 load.py URL [--at-once 8] [--requests 16] [--tokens 64] [--seed N]

One JSON object on stdout. The first request warms the server up and is not counted. Standard library only.
"""

import argparse
import concurrent.futures
import json
import statistics
import time
import urllib.request

PROMPT = "The history of the town begins with a bridge over the river, which"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("url", help="URL of the server, such as http://127.0.0.1:8080")
    arguments.add_argument("--at-once", type=int, default=8, help="number of concurrent requests")
    arguments.add_argument("--requests", type=int, default=16, help="total number of requests")
    arguments.add_argument("--tokens", type=int, default=64, help="max_tokens of each request")
    arguments.add_argument("--seed", type=int, help="seed of every request")
    choice = arguments.parse_args()

    with urllib.request.urlopen(f"{choice.url}/v1/models", timeout=60) as models:
        model = json.load(models)["data"][0]["id"]

    def ask(number):
        body = {"model": model, "prompt": f"{number}. {PROMPT}", "max_tokens": choice.tokens, "ignore_eos": True}
        if choice.seed is not None:
            body["seed"] = choice.seed
        url = f"{choice.url}/v1/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        start = time.monotonic()
        with urllib.request.urlopen(request, timeout=600) as answer:
            written = json.load(answer)["usage"]["completion_tokens"]
        return written, time.monotonic() - start

    ask(0)
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(choice.at_once) as pool:
        answers = list(pool.map(ask, range(1, choice.requests + 1)))
    seconds = time.monotonic() - start
    tokens = sum(written for written, _ in answers)
    result = {
        "at_once": choice.at_once,
        "tokens": tokens,
        "tokens_per_s": tokens / seconds,
        "request_s": statistics.median(took for _, took in answers),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
