"""A server that has every route the page uses, with fixed answers, and that fails where it is asked to.

The page's check uses it for what no small model does on demand: Markdown with everything in it, tool calls, a busy server,
a stream that breaks. It serves the page's files from the source folder.
"""

import http.server
import json
import math
import pathlib
import sys
import threading
import time

WEB = pathlib.Path(__file__).resolve().parents[2] / "src" / "web"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".svg": "image/svg+xml"}
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
          "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
MODELS = [
    {"id": "smollm2-135m-instruct", "max_model_len": 8192,
     "capabilities": ["generate", "chat", "attention"]},
    {"id": "a-second-model-with-quite-a-long-name-indeed", "max_model_len": 2048,
     "capabilities": ["generate", "chat"]},
    {"id": "marian-ko-en", "max_model_len": 512,
     "capabilities": ["translate", "summarize", "attention"]},
    {"id": "bert", "max_model_len": 512,
     "capabilities": ["classify", "answer", "embed", "token-classify", "fill-mask"]},
]
ANSWER = """Here is a **short** comparison, with `code`, a [link](https://example.org/a) and <b>no HTML</b>.

| | Tea | Coffee |
|---|:---:|---:|
| Caffeine | 30 mg | 95 mg |
| Price | low | *higher* |

1. Boil the water.
2. Wait:
   - three minutes for tea,
   - four for coffee.

> 물이 끓으면 불을 끄고 잠시 기다리세요.

```python
def brew(minutes: int) -> str:
    return f"ready in {minutes} minutes, in one line that is too long for a phone"
```

[not a link](javascript:alert(1)) and https://example.org/b."""


def tokens_of(text):
    words = text.split(" ")
    return [word if at == 0 else f" {word}" for at, word in enumerate(words)]


def likely(token, at):
    p = [0.97, 0.6, 0.35, 0.12, 0.05][at % 5]
    return math.log(p), [(token, math.log(p)), (" other", math.log((1 - p) / 2 + 1e-9)), (" 다른", math.log((1 - p) / 4 + 1e-9))]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    requests = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.split("?")[0]
        file = WEB / ("index.html" if path == "/" else path.removeprefix("/web/"))
        if path == "/v1/models":
            self.json({"object": "list", "data": MODELS})
        elif path == "/languages":
            self.json([{"code": "ko", "name": "Korean", "targets": ["en"]}, {"code": "en", "name": "English", "targets": ["ko"]}])
        elif path == "/tokenizer_info":
            self.json({"mask_token": "[MASK]"})
        elif (path == "/" or path.startswith("/web/")) and file.parent == WEB and file.is_file():
            self.bytes(200, TYPES[file.suffix], file.read_bytes())
        else:
            self.fail(404, "there is nothing at this path", "route_not_found")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = self.path.split("?")[0]
        self.requests.append((path, body))
        text = json.dumps(body, ensure_ascii=False)
        if "!busy" in text:
            return self.fail(429, "the server is busy with other requests", "server_overloaded", {"Retry-After": "3"})
        if "!loading" in text:
            return self.fail(503, "the model is loading", "not_ready")
        if "!long" in text:
            return self.fail(400, "messages: 9000 tokens, and the model reads at most 8192", "context_length_exceeded")
        if "!key" in text and self.headers.get("Authorization") != "Bearer sesame":
            return self.fail(401, "this server needs an API key: send `Authorization: Bearer KEY`", "invalid_api_key")
        match path:
            case "/v1/chat/completions":
                self.chat(body)
            case "/v1/completions":
                self.complete(body)
            case "/translate":
                self.json({"translatedText": "The house by the lake is small, but its garden is large.",
                           "alternatives": ["The lake house is small with a wide garden.", "The house on the lake is small; the garden is wide."]})
            case "/summarize":
                self.json({"summary": "The Amazon rainforest covers most of the Amazon basin and is home to a third of all species."})
            case "/classify":
                labels = [("lost_or_stolen_card", 0.87), ("card_arrival", 0.08), ("카드 결제 문제", 0.03), ("transfer", 0.004)]
                self.results({"labels": [{"label": label, "score": score} for label, score in labels]})
            case "/answer":
                start = body["context"].find("London")
                self.json({"answer": "London", "start": start, "end": start + 6, "score": 0.93} if start >= 0 else
                          {"answer": "런던", "start": body["context"].find("런던"), "end": body["context"].find("런던") + 2, "score": 0.93})
            case "/token-classify":
                found = [("PER", "Marie Curie"), ("LOC", "Warsaw"), ("LOC", "Paris"), ("PER", "마리 퀴리"), ("LOC", "바르샤바"), ("LOC", "파리")]
                self.results({"entities": [{"label": label, "start": body["input"].find(name), "end": body["input"].find(name) + len(name), "score": 0.98}
                                           for label, name in found if name in body["input"]]})
            case "/fill-mask":
                top = [("paris", 0.71), ("lyon", 0.09), ("marseille", 0.04), ("it", 0.02), ("nice", 0.011)]
                masks = body["input"].count("[MASK]")
                self.results({"masks": [{"position": at, "top": [{"token": token, "probability": p} for token, p in top]} for at in range(masks)]})
            case "/v1/embeddings":
                vector = lambda text: [float(sum(map(ord, text)) % 7) + 1, len(text) % 5, ("warm" in text or "blanket" in text) * 9.0 + 1]
                self.json({"object": "list", "data": [{"object": "embedding", "index": at, "embedding": vector(text)}
                                                     for at, text in enumerate(body["input"])]})
            case "/attention":
                self.attention(body)
            case _:
                self.fail(404, "there is nothing at this path", "route_not_found")

    def chat(self, body):
        last = body["messages"][-1]
        self.begin()
        chunk = lambda delta, **more: self.event({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": None, **more}]})
        chunk({"role": "assistant", "content": ""})
        if body.get("tools") and last["role"] == "user":
            chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ""}}]})
            for part in ['{"city": ', '"Seoul"}']:
                chunk({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
            chunk({}, finish_reason="tool_calls")
            return self.done(9)
        answer = ANSWER if "!short" not in str(last["content"]) else "Yes, briefly: 네, 그렇습니다."
        if "!slow" in str(last["content"]):
            answer = "word " * 400
        if "!think" in str(last["content"]):
            for token in ("They ask ", "for tea."):
                chunk({"reasoning_content": token})
        for at, token in enumerate(tokens_of(answer)):
            more = {}
            if body.get("logprobs"):
                logprob, top = likely(token, at)
                more["logprobs"] = {"content": [{"token": token, "logprob": logprob, "bytes": None,
                                                 "top_logprobs": [{"token": t, "logprob": p} for t, p in top]}]}
            chunk({"content": token}, **more)
            if "!break" in str(last["content"]) and at == 5:
                self.close_connection = True
                return None
            if "!fail" in str(last["content"]) and at == 5:
                return self.event({"error": {"message": "the model failed on this request", "type": "server_error", "code": "internal_error"}})
            time.sleep(0.02 if "!slow" in str(last["content"]) else 0.001)
        chunk({}, finish_reason="stop")
        return self.done(len(tokens_of(answer)))

    def complete(self, body):
        self.begin()
        written = " there lived a fisherman who had never seen snow. 어느 날 눈이 내렸다."
        for at, token in enumerate(tokens_of(written)):
            logprob, top = likely(token, at)
            logprobs = {"tokens": [token], "token_logprobs": [logprob], "top_logprobs": [dict(top)], "text_offset": [0]}
            self.event({"choices": [{"index": 0, "text": token, "finish_reason": None, "logprobs": logprobs if body.get("logprobs") else None}]})
        self.event({"choices": [{"index": 0, "text": "", "finish_reason": "length", "logprobs": None}]})
        self.done(14)

    def attention(self, body):
        words = ["[CLS]", *body["input"].split(), "[SEP]"]
        token = lambda word: {"id": 1, "text": word, "special": word.startswith("[")}
        pair = body["model"].startswith("marian")
        target = ["<s>", "The", "cat", "sat"] if pair else None
        layer = body.get("layer", 3)
        def rows(t, s, head):
            out = []
            for i in range(t):
                scores = [math.exp(-abs(i - j - head % 3) / (1 + layer % 3) + (2 if j == 0 and head % 2 else 0)) for j in range(s)]
                out.append([score / sum(scores) for score in scores])
            return out
        maps = [("source", len(words), len(words)), ("target", 4, 4), ("cross", 4, len(words))] if pair else [("text", len(words), len(words))]
        self.json({"model": body["model"], "n_layers": 4, "tokens": [token(word) for word in words],
                   "target_tokens": target and [token(word) for word in target],
                   "attention": [{"kind": kind, "layer": layer, "probabilities": [rows(t, s, head) for head in range(8)]} for kind, t, s in maps]})

    def begin(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def event(self, value):
        self.wfile.write(f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode())
        self.wfile.flush()

    def done(self, count):
        self.event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": count, "total_tokens": 5 + count}})
        self.wfile.write(b"data: [DONE]\n\n")

    def json(self, value):
        self.bytes(200, "application/json", json.dumps(value, ensure_ascii=False).encode())

    def results(self, one):
        self.json({"model": "bert", "results": [{"index": 0, **one}]})

    def fail(self, status, message, code, headers=None):
        body = json.dumps({"error": {"message": message, "type": "error", "param": None, "code": code}}).encode()
        self.bytes(status, "application/json", body, headers)

    def bytes(self, status, kind, content, headers=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", POLICY)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        # A page that stops an answer closes its connection.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def start():
    """The address of a new server."""
    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}", server


if __name__ == "__main__":
    print(start()[0], flush=True)
    threading.Event().wait()
