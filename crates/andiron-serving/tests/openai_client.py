"""Drives a server with the official `openai` client.

    python openai_client.py                         trains a small model, serves it and stops the server by SIGTERM
    python openai_client.py BASE_URL [API_KEY]      takes a running server, e.g. http://127.0.0.1:8080/v1

Exits with 0 and prints `ok` if everything is as the client expects; any model with a tokenizer will do. The program is
the one that ANDIRON names, or `andiron` in the release folder of the target directory.
"""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import openai

ROOT = pathlib.Path(__file__).resolve().parents[3]


def program() -> str:
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    return os.environ.get("ANDIRON") or str(target / "release" / "andiron")


def with_own_server() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program(), "quickstart", "--steps", "60", "--output", folder], check=True, capture_output=True)
        serve = [program(), "--log", "warn", "serve", "--model", f"{folder}/run/model", "--port", "0"]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
            try:
                line = server.stdout.readline()
                assert line.startswith("listening on http://127.0.0.1:"), line
                main(line.split()[-1] + "/v1", "none")
                server.send_signal(signal.SIGTERM)
                assert server.wait(timeout=60) == 0, server.returncode
            finally:
                server.kill()


def main(base_url: str, api_key: str) -> None:
    client = openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=60)

    models = client.models.list().data
    assert len(models) == 1, models
    model = models[0].id
    assert client.models.retrieve(model).id == model
    complete = lambda **fields: client.completions.create(**{"model": model, "prompt": "abc", "max_tokens": 8, **fields})

    whole = complete(temperature=0)
    assert whole.object == "text_completion" and whole.model == model, whole
    choice = whole.choices[0]
    assert choice.text and choice.finish_reason in ("length", "stop"), choice
    assert whole.usage.prompt_tokens > 0, whole.usage
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens, whole.usage

    held = complete(extra_body={"structured_outputs": {"regex": "[a-c]{4}"}}).choices[0]
    assert len(held.text) == 4 and set(held.text) <= set("abc") and held.finish_reason == "stop", held
    held = complete(extra_body={"structured_outputs": {"choice": ["yes", "no"]}}).choices[0]
    assert held.text in ("yes", "no"), held

    chunks = list(complete(temperature=0, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == choice.text, chunks
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == choice.finish_reason, chunks
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage, chunks[-1]
    assert len({c.id for c in chunks}) == 1, chunks

    seeded = [complete(temperature=1.5, seed=7, n=2) for _ in range(2)]
    assert [c.text for c in seeded[0].choices] == [c.text for c in seeded[1].choices], seeded
    assert [c.index for c in seeded[0].choices] == [0, 1], seeded
    ids = complete(prompt=[1, 2], temperature=0, max_tokens=1)
    assert ids.usage.prompt_tokens == 2, ids

    stop = choice.text[len(choice.text) // 2]
    stopped = complete(temperature=0, stop=stop).choices[0]
    assert stopped.finish_reason == "stop", stopped
    assert stopped.text == choice.text[: choice.text.index(stop)], (stopped, choice.text)

    scored = complete(temperature=0, max_tokens=1, logprobs=2, echo=True, seed=1234).choices[0]
    logprobs = scored.logprobs
    assert logprobs.token_logprobs[0] is None and all(p <= 0 for p in logprobs.token_logprobs[1:]), logprobs
    assert len(logprobs.tokens) == len(logprobs.top_logprobs) == len(logprobs.text_offset), logprobs
    assert logprobs.token_logprobs[-1] == max(logprobs.top_logprobs[-1].values()), logprobs
    assert scored.text.startswith("abc"), scored

    for fields, param in (
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"suffix": "x"}, "suffix"),
        ({"logprobs": 1000}, "logprobs"),
        ({"extra_body": {"top_k": "x"}}, "top_k"),
    ):
        try:
            complete(**fields)
        except openai.BadRequestError as error:
            assert error.param == param and error.type == "invalid_request_error", error
        else:
            raise AssertionError(f"{fields} was accepted")
    try:
        complete(max_tokens=10_000_000, temperature=0)
    except openai.BadRequestError as error:
        assert error.param == "max_tokens", error
    else:
        raise AssertionError("an absurd max_tokens was accepted")
    try:
        complete(model="no-such-model")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error
    else:
        raise AssertionError("a wrong model was accepted")

    if api_key != "none":
        try:
            openai.OpenAI(base_url=base_url, api_key="wrong", max_retries=0).models.list()
        except openai.AuthenticationError:
            pass
        else:
            raise AssertionError("a wrong key was accepted")

    # A client that goes in the middle leaves a server that answers.
    stream = complete(max_tokens=40, stream=True)
    next(iter(stream))
    stream.close()
    assert complete(temperature=0).choices[0].text == choice.text
    print("ok")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "none")
    else:
        with_own_server()
