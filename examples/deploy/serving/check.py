#!/usr/bin/env python3
"""Runs replicas of `andiron serve` behind nginx, with the configuration beside this file, and shows what clients notice.

    python3 check.py PROGRAM MODEL [--seconds 20] [--clients 64] [--only kill,restart,slow,sticky]

Needs nginx and nothing else; Linux, because the replicas are 127.0.0.1, 127.0.0.2 and 127.0.0.3. Streaming clients ask all the time, each for its
next answer when it has the last one, while

- kill: one replica is killed with SIGKILL. Only the streams that it had begun may end early; after its restart it has its share again
  within 5 seconds;
- restart: every replica is stopped with SIGTERM and started, one directly after the other, twice. No request may fail;
- slow: one replica is stopped nine tenths of the time (SIGSTOP). The 99th percentile of the others' answers may be 1.5 times as long;
- sticky: sessions return to their replica by X-Session-ID. The hit rate of the prefix cache must be 0.9, in /metrics.

Prints one line for each and exits with 0 if all hold.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
REPLICAS = [1, 2, 3]

#: Tokens per block of the prefix cache on CPUs.
BLOCK = 64
#: Blocks of a session's common prompt.
BLOCKS = 6
#: Of each replica, but where sessions are to compete for it.
KV_CACHE_BYTES = 256 << 20


def free_port() -> int:
    """A port that is free on every replica's address."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with contextlib.ExitStack() as stack:
            try:
                for replica in REPLICAS:
                    stack.enter_context(socket.socket()).bind((f"127.0.0.{replica}", port))
            except OSError:
                continue
        return port


class Replica:
    """A server process at an address of its own."""

    def __init__(self, number, port, command, folder):
        self.host, self.port = f"127.0.0.{number}", port
        self.command = [*command, "--host", self.host, "--port", str(port)]
        self.log = folder / f"replica-{number}.log"
        self.process = None

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    def start(self):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    async def ready(self):
        for _ in range(1200):
            if self.process.poll() is not None:
                sys.exit(f"a replica ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
                if (await get(self.host, self.port, "/ready"))[0] == 200:
                    return
            await asyncio.sleep(0.1)
        sys.exit("a replica did not become ready")

    async def ended(self):
        while self.process.poll() is None:
            await asyncio.sleep(0.05)
        return self.process.returncode

    async def metrics(self):
        """Its samples without labels, added up."""
        _, text = await get(self.host, self.port, "/metrics")
        samples = collections.Counter()
        for line in text.splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                samples[name.split("{")[0]] += float(value)
        return samples

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


class Nginx:
    """nginx with the configuration beside this file, on free ports, in a folder of its own."""

    def __init__(self, program, folder, port, replica_port):
        text = (HERE / "nginx/andiron.conf").read_text()
        text, listens = re.subn(r"listen 8080;", f"listen 127.0.0.1:{port};", text)
        text, servers = re.subn(r"(server 127\.0\.0\.\d+):8081", rf"\1:{replica_port}", text)
        text, logs = re.subn(r"/var/log/nginx/andiron\.log", str(folder / "access.log"), text)
        # The answers tell which replica gave them.
        text, marks = re.subn(r"proxy_buffering off;", "proxy_buffering off; add_header X-Served-By $upstream_addr always;", text)
        assert (listens, servers, logs, marks) == (1, 9, 1, 1), (listens, servers, logs, marks)
        (folder / "andiron.conf").write_text(text)
        temporary = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
        user = "user root;\n" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            f"{user}daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log warn;\n"
            f"events {{ worker_connections 4096; }}\nhttp {{\n{temporary}    include {folder}/andiron.conf;\n}}\n")
        self.command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
        self.process, self.port = None, port

    def start(self):
        subprocess.run([*self.command, "-t", "-q"], check=True)
        self.process = subprocess.Popen(self.command)

    def close(self):
        if self.process:
            self.process.terminate()
            self.process.wait()


async def exchange(host, port, request):
    """Sends a request; status, headers, and an iterator over the parts of the body."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        await writer.drain()
        status = int((await reader.readuntil(b"\r\n")).split()[1])
        headers = {}
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            name, value = line.decode().split(":", 1)
            headers[name.lower()] = value.strip()
    except BaseException:
        writer.close()
        raise

    async def body():
        try:
            if headers.get("transfer-encoding") == "chunked":
                while (size := int(await reader.readuntil(b"\r\n"), 16)):
                    yield (await reader.readexactly(size + 2))[:-2]
                await reader.readuntil(b"\r\n")
            elif "content-length" in headers:
                yield await reader.readexactly(int(headers["content-length"]))
            else:
                yield await reader.read()
        finally:
            writer.close()

    return status, headers, body()


async def get(host, port, path):
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    status, _, body = await asyncio.wait_for(exchange(host, port, request.encode()), 10)
    return status, b"".join([part async for part in body]).decode()


def completion(port, body, session=None):
    body = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    head += f"X-Session-ID: {session}\r\n" if session else ""
    return f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


#: One request: when it began and ended, which replica answered, and how it ended: whole, cut, or refused.
Answer = collections.namedtuple("Answer", "began ended replica outcome")


class Clients:
    """Clients that stream without a pause, and what they noticed."""

    def __init__(self, port, count, tokens):
        self.port, self.tokens = port, tokens
        self.answers, self.open = [], collections.Counter()
        self.stopping = False
        self.tasks = [asyncio.create_task(self.run(random.Random(n))) for n in range(count)]

    async def run(self, rng):
        while not self.stopping:
            prompt = [rng.randrange(10, 60) for _ in range(rng.randrange(4, 40))]
            tokens = rng.randrange(self.tokens // 2, self.tokens * 3 // 2)
            body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
            began, replica = time.monotonic(), None
            try:
                status, headers, parts = await exchange("127.0.0.1", self.port, completion(self.port, body))
                # After a second try: the last one.
                replica = headers.get("x-served-by", "").split(", ")[-1]
                self.open[replica] += 1
                try:
                    text = b"".join([part async for part in parts])
                finally:
                    self.open[replica] -= 1
                outcome = f"status {status}" if status != 200 else "whole" if text.endswith(b"data: [DONE]\n\n") else "cut"
                if b'"error"' in text[-400:] and status == 200:
                    outcome = "cut"
            except asyncio.IncompleteReadError:
                outcome = "cut" if replica else "no answer"
            except OSError:
                outcome = "cut" if replica else "no answer"
            self.answers.append(Answer(began, time.monotonic(), replica, outcome))
            # A client that fails does not hurry.
            await asyncio.sleep(0 if outcome == "whole" else 0.2)

    def outcomes(self):
        return collections.Counter(answer.outcome for answer in self.answers)

    async def stop(self):
        self.stopping = True
        await asyncio.gather(*self.tasks)


async def loads(replicas):
    """Requests in each replica."""
    found = await asyncio.gather(*(replica.metrics() for replica in replicas))
    return [int(samples["andiron:num_requests_running"] + samples["andiron:num_requests_waiting"]) for samples in found]


async def kill(replicas, port, args):
    clients = Clients(port, args.clients, args.tokens)
    await asyncio.sleep(args.seconds * 0.3)
    victim = replicas[1]
    streams = clients.open[victim.address]
    victim.process.kill()
    victim.process.wait()
    await asyncio.sleep(args.seconds * 0.3)
    victim.start()
    await victim.ready()
    back = time.monotonic()
    # Even: it has two thirds of what the others have, twice in a row.
    even, in_a_row = None, 0
    while even is None and time.monotonic() < back + 20:
        of_all = await loads(replicas)
        others = sum(of_all[:1] + of_all[2:]) / (len(of_all) - 1)
        in_a_row = in_a_row + 1 if of_all[1] >= others * 2 / 3 else 0
        even = time.monotonic() - back if in_a_row == 2 else None
        await asyncio.sleep(0.25)
    await asyncio.sleep(args.seconds * 0.4)
    await clients.stop()
    outcomes = clients.outcomes()
    cut = outcomes["cut"]
    failed = sum(outcomes.values()) - outcomes["whole"] - cut
    # A stream may have begun in the instant between the count and the kill.
    holds = 0 < cut <= streams + 2 and failed == 0 and even is not None and even <= 5
    print(f"kill: {outcomes['whole']} answers whole; {cut} streams cut, of {streams} that the replica had; {failed} other failures; "
          f"even again {'never' if even is None else f'{even:.1f} s'} after it was ready" + ("" if failed == 0 else f" {dict(outcomes)}"))
    return holds


async def restart(replicas, port, args):
    clients = Clients(port, args.clients, args.tokens)
    codes, longest = [], 0
    # Twice, and without a pause, as `systemctl restart` of each in a loop.
    for number, replica in enumerate([*replicas, *replicas]):
        if number % len(replicas) == 0:
            await asyncio.sleep(args.seconds * 0.3)
        begun = time.monotonic()
        replica.process.terminate()
        codes.append(await replica.ended())
        longest = max(longest, time.monotonic() - begun)
        replica.start()
        await replica.ready()
    await asyncio.sleep(args.seconds * 0.3)
    await clients.stop()
    outcomes = clients.outcomes()
    failed = sum(outcomes.values()) - outcomes["whole"]
    print(f"restart: {outcomes['whole']} answers whole; {failed} failures; exit codes {codes}; longest drain {longest:.1f} s"
          + ("" if failed == 0 else f" {dict(outcomes)}"))
    return failed == 0 and not any(codes)


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


async def slow(replicas, port, args):
    clients = Clients(port, args.clients, args.tokens)
    await asyncio.sleep(args.seconds * 0.1)
    clients.answers.clear()
    await asyncio.sleep(args.seconds * 0.4)
    before = list(clients.answers)
    victim, until = replicas[2], time.monotonic() + args.seconds * 0.5
    slowed = time.monotonic()
    while time.monotonic() < until:
        victim.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.18)
        victim.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.02)
    during = [answer for answer in clients.answers if answer.began > slowed]
    await clients.stop()
    times = lambda answers, ours: [a.ended - a.began for a in answers if (a.replica == victim.address) == ours]
    normal, others, own = percentile(times(before, False), 0.99), percentile(times(during, False), 0.99), times(during, True)
    outcomes = clients.outcomes()
    failed = sum(outcomes.values()) - outcomes["whole"]
    print(f"slow: p99 of the others' answers {1000 * normal:.0f} ms before, {1000 * others:.0f} ms while one replica was slow "
          f"({others / normal:.2f} times); it gave {len(own)} of {len(during)} answers; {failed} failures")
    return others <= 1.5 * normal and failed == 0


async def sticky(replicas, port, args):
    # Each replica keeps about 18 sessions, with the latest questions of each, and there are 48.
    kept, sessions = 18, 48
    size = await block_bytes(replicas[0]) * (BLOCKS + 4) * kept
    command = replicas[0].command
    place = command.index("--kv-cache-bytes") + 1

    async def rate(with_header):
        """The part of the prompts' tokens that the prefix caches had, after each session's first visit."""
        for replica in replicas:
            replica.process.terminate()
            await replica.ended()
            replica.command[place] = str(size)
            replica.start()
        await asyncio.gather(*(replica.ready() for replica in replicas))
        rng = random.Random(5)
        prompts = [[rng.randrange(10, 60) for _ in range(BLOCK * BLOCKS)] for _ in range(sessions)]
        order = list(range(sessions))
        rng.shuffle(order)
        later = rng.choices(range(sessions), k=4 * sessions)
        gate = asyncio.Semaphore(4)

        async def visit(session):
            async with gate:
                question = [rng.randrange(10, 60) for _ in range(8)]
                body = {"prompt": prompts[session] + question, "max_tokens": 2, "temperature": 0, "ignore_eos": True}
                name = f"session-{session}" if with_header else None
                status, _, parts = await exchange("127.0.0.1", port, completion(port, body, name))
                text = b"".join([part async for part in parts])
                assert status == 200, (status, text)

        async def counts():
            found = await asyncio.gather(*(replica.metrics() for replica in replicas))
            return [sum(s[f"andiron:prefix_cache_{name}_total"] for s in found) for name in ["hits", "queries"]]

        await asyncio.gather(*(visit(session) for session in order))
        hits, queries = await counts()
        await asyncio.gather(*(visit(session) for session in later))
        more_hits, more_queries = await counts()
        return (more_hits - hits) / (more_queries - queries)

    without, with_header = await rate(False), await rate(True)
    print(f"sticky: {sessions} sessions, {BLOCK * BLOCKS} common tokens each; hit rate {without:.2f} without X-Session-ID, {with_header:.2f} with it")
    return with_header >= 0.9


async def block_bytes(replica):
    """Bytes of a block of the KV cache."""
    _, text = await get(replica.host, replica.port, "/metrics")
    found = re.search(r'vllm:cache_config_info\{.*block_size="(\d+)",num_gpu_blocks="(\d+)"', text)
    assert found and int(found[1]) == BLOCK, "this check needs a decoder on a CPU"
    return KV_CACHE_BYTES // int(found[2])


CHECKS = {"kill": kill, "restart": restart, "slow": slow, "sticky": sticky}


async def check(args, folder):
    replica_port, port = free_port(), free_port()
    command = [args.program, "--log", "warn", "serve", "--model", f"m={args.model}", "--threads", "1", "--max-running", "32",
               "--vllm-metrics", "--kv-cache-bytes", str(KV_CACHE_BYTES)]
    replicas = [Replica(number, replica_port, command, folder) for number in REPLICAS]
    nginx = Nginx(args.nginx, folder, port, replica_port)
    try:
        for replica in replicas:
            replica.start()
        await asyncio.gather(*(replica.ready() for replica in replicas))
        nginx.start()
        await asyncio.sleep(0.5)
        held = []
        for name in args.only.split(","):
            held.append(await CHECKS[name](replicas, port, args))
            if not held[-1]:
                print(f"  {name} does not hold")
        return all(held)
    finally:
        nginx.close()
        for replica in replicas:
            replica.close()
        if args.keep:
            print(f"logs: {folder}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, default=20, help="of load in each check")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128, help="of an answer, on average")
    parser.add_argument("--nginx", default=shutil.which("nginx") or "/usr/sbin/nginx")
    parser.add_argument("--only", default=",".join(CHECKS))
    parser.add_argument("--keep", action="store_true", help="keep the logs")
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="andiron-replicas-"))
    try:
        held = asyncio.run(check(args, folder))
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
