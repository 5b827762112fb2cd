#!/usr/bin/env python3
"""Drives a server with the clients that people use, unmodified: LangChain, Prometheus' parser, the requests of Open WebUI, and on Node
openai and the Vercel AI SDK. The Python client of openai has a check of its own beside this one.

    python check_clients.py

Not part of `cargo test`, because it needs Python with the packages of xtask/requirements.txt; those of Node are installed from
clients/node/package.json where Node is found. Talks to 127.0.0.1 only. A route that the server does not have is named and left out.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "clients"))

from server import ROOT, ask, routes, serve, small_decoder  # noqa: E402

FIXTURES = ROOT / "crates/andiron-cli/tests/golden"
CHECKS = []


def check(*needs):
    """A check of a client that uses these routes."""
    return lambda function: CHECKS.append((function, needs)) or function


def names(address):
    """The models by what they can do: of several, the first."""
    return {can: model["id"] for model in reversed(json.loads(ask(address, "/v1/models")[2])["data"]) for can in model.get("capabilities", ["generate"])}


@check("/metrics")
def prometheus(address):
    """Prometheus' own parser takes the page, and the names keep to its rules (those of `promtool check metrics`, colons aside)."""
    from prometheus_client.parser import text_string_to_metric_families

    assert ask(address, "/health")[0] == 200
    status, headers, text = ask(address, "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4"), headers
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for name, family in families.items():
        assert name.startswith("andiron:") and family.documentation, name
        assert not any(word in name for word in ("_ms", "_milliseconds", "_minutes")), f"{name}: seconds are the unit"
        samples = {sample.name for sample in family.samples}
        if family.type == "counter":
            assert samples == {f"{name}_total"}, (name, samples)
        elif family.type == "histogram":
            assert samples == {f"{name}_bucket", f"{name}_sum", f"{name}_count"}, (name, samples)
            for labels in {json.dumps({k: v for k, v in s.labels.items() if k != "le"}) for s in family.samples}:
                buckets = [s.value for s in family.samples if s.name.endswith("_bucket") and {**json.loads(labels), "le": s.labels["le"]} == s.labels]
                counts = [s.value for s in family.samples if s.name.endswith("_count") and s.labels == json.loads(labels)]
                assert buckets == sorted(buckets) and [buckets[-1]] == counts, (name, labels)
        else:
            assert family.type == "gauge" and samples == {name} and not name.endswith(("_total", "_count", "_sum")), name
    for name in ("http_requests", "num_requests_running", "num_requests_waiting", "prompt_tokens", "generation_tokens", "kv_cache_usage_perc",
                 "prefix_cache_hits", "num_preemptions", "time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds"):
        assert f"andiron:{name}" in families, name


@check("/v1/chat/completions")
def langchain(address):
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=names(address)["generate"], base_url=f"{address}/v1", api_key="none", temperature=0, max_tokens=12, max_retries=0)
    messages = [("system", "Be short."), ("human", "Say something.")]
    whole = model.invoke(messages)
    assert whole.usage_metadata["output_tokens"] <= 12, whole
    assert "".join(chunk.content for chunk in model.stream(messages)) == whole.content, whole


@check("/v1/embeddings")
def langchain_embeddings(address):
    from langchain_openai import OpenAIEmbeddings

    # Otherwise it would send the ids of OpenAI's tokenizer, which it downloads.
    model = OpenAIEmbeddings(model=names(address)["embed"], base_url=f"{address}/v1", api_key="none", check_embedding_ctx_length=False)
    vectors = model.embed_documents(["a b", "c"])
    assert len(vectors) == 2 and len(vectors[0]) == len(model.embed_query("a b")), vectors


@check("/v1/models", "/v1/chat/completions")
def open_webui(address):
    """What Open WebUI 0.12.4 sends when a connection is verified, in a chat, for a title, and when an answer is continued."""
    headers = {"Authorization": "Bearer none", "X-OpenWebUI-User-Name": "User", "X-OpenWebUI-User-Role": "admin"}
    status, _, text = ask(address, "/v1/models", headers=headers)
    model = json.loads(text)["data"][0]["id"]
    assert status == 200 and isinstance(model, str), text
    chat = {"stream": True, "model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
    status, answer, text = ask(address, "/v1/chat/completions", chat, headers)
    assert status == 200 and answer["content-type"].startswith("text/event-stream"), text
    frames = text.split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""], frames
    for frame in frames[:-2]:
        assert frame.startswith("data: {") and json.loads(frame[6:])["object"] == "chat.completion.chunk", frame
    title = {"model": model, "messages": [{"role": "user", "content": "### Task:\nGenerate a concise title."}], "stream": False, "max_tokens": 8}
    status, _, text = ask(address, "/v1/chat/completions", title, headers)
    assert status == 200 and json.loads(text)["choices"][0]["message"]["content"] is not None, text
    more = {**title, "messages": [*title["messages"], {"role": "assistant", "content": "The"}], "continue_final_message": True, "add_generation_prompt": False}
    status, _, text = ask(address, "/v1/chat/completions", more, headers)
    assert status == 200, text


def node(address, paths):
    """The clients for Node, which are installed once."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        print("skip node: no Node on this machine")
        return
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "andiron" / "node"
    cache.mkdir(parents=True, exist_ok=True)
    wanted = (HERE / "clients/node/package.json").read_text()
    kept = cache / "package.json"
    if not (cache / "node_modules").exists() or not kept.exists() or kept.read_text() != wanted:
        kept.write_text(wanted)
        install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
        installed = subprocess.run(install, cwd=cache, capture_output=True, text=True)
        if installed.returncode != 0:
            shutil.rmtree(cache)
            print(f"skip node: npm could not install the clients: {installed.stderr.strip()[-200:]}")
            return
    shutil.copy(HERE / "clients/node/check.mjs", cache)
    given = json.dumps({"base": f"{address}/v1", "paths": list(paths), "models": names(address)})
    subprocess.run(["node", "check.mjs", given], cwd=cache, check=True, timeout=120)


def main():
    with tempfile.TemporaryDirectory() as folder:
        models = [small_decoder(pathlib.Path(folder)), FIXTURES / "sentence"]
        with serve(*models) as address:
            paths = routes(address)
            for function, needs in CHECKS:
                missing = [path for path in needs if path not in paths]
                if missing:
                    print(f"skip {function.__name__}: this server has no {', '.join(missing)}")
                else:
                    function(address)
                    print(f"ok {function.__name__}")
            node(address, paths)


if __name__ == "__main__":
    main()
