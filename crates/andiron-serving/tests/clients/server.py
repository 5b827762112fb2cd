"""A server of small models for the checks beside this folder."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[4]


def program() -> str:
    """The program that ANDIRON names, or `andiron` in the release folder of the target directory."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    return os.environ.get("ANDIRON") or str(target / "release" / "andiron")


@contextlib.contextmanager
def serve(*models, more: tuple = ()):
    """Serves `models`, which are paths or NAME=PATH, on a free port and gives the address, as in http://127.0.0.1:8080. Afterwards the server ends with exit code 0."""
    command = [program(), "--log", "warn", "serve", "--port", "0", *more]
    for model in models:
        command += ["--model", str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("listening on http://127.0.0.1:"), line
            yield line.split()[-1]
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0, process.returncode
        finally:
            process.kill()


def ask(address: str, path: str, body=None, headers=None) -> tuple[int, dict, str]:
    """Status, headers and text of an answer; `body` goes as JSON."""
    request = urllib.request.Request(address + path, headers=headers or {})
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


def routes(address: str) -> dict:
    """The paths that the server describes."""
    return json.loads(ask(address, "/openapi.json")[2])["paths"]


def small_decoder(folder: pathlib.Path) -> pathlib.Path:
    """A copy of a small decoder with a chat template, and with a context that has room for tools."""
    model = folder / "small"
    shutil.copytree(ROOT / "crates/andiron-eval/tests/lm_eval/model", model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:")
    return model
