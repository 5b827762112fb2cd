"""Peers of the server, and load for both sides. One JSON object a line on stdout.

    python serving.py llama MODEL.gguf --port 8092 [--slots 64]      llama.cpp's server, from the package xllamacpp
    python serving.py embeddings DIR --engine onnx|torch --port 8093  /v1/embeddings by ONNX Runtime or sentence-transformers
    python serving.py load URL --texts FILE [--clients 16]            texts/s of any server's /v1/embeddings
    python serving.py translate CONFIG [--batch 8] [--beams 4]        CTranslate2, int8, a T5 with random weights

`embeddings` puts texts that wait together into one batch, as servers do. All use two threads.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import pathlib
import random
import statistics
import tempfile
import threading
import time
import urllib.request

os.environ.setdefault("OMP_NUM_THREADS", "2")


def llama(choice):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = choice.model
    params.n_parallel = choice.slots
    params.n_ctx = choice.slots * 512
    params.cpuparams.n_threads = 2
    params.cpuparams_batch.n_threads = 2
    params.port = choice.port
    server = xllamacpp.Server(params)
    print(json.dumps({"system": xllamacpp.get_system_info(), "listening": server.listening_address}), flush=True)
    threading.Event().wait()


def embedder(choice):
    """A function from texts to vectors of length 1."""
    import numpy
    import torch

    torch.set_num_threads(2)
    if choice.engine == "torch":
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(choice.model, device="cpu")
        return lambda texts: model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)

    import onnxruntime
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(choice.model).eval(), AutoTokenizer.from_pretrained(choice.model)

    class Hidden(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, ids, mask):
            return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    path = os.path.join(tempfile.mkdtemp(), "model.onnx")
    example = tokenizer(["a text", "another, longer text"], padding=True, return_tensors="pt")
    axes = {name: {0: "batch", 1: "columns"} for name in ("ids", "mask", "hidden")}
    inputs = (example["input_ids"], example["attention_mask"])
    torch.onnx.export(
        Hidden(), inputs, path, input_names=["ids", "mask"], output_names=["hidden"], dynamic_axes=axes, dynamo=False
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def embed(texts):
        batch = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="np")
        ids, mask = batch["input_ids"].astype("int64"), batch["attention_mask"].astype("int64")
        (hidden,) = session.run(None, {"ids": ids, "mask": mask})
        vectors = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        return vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)

    return embed


def embeddings(choice):
    import http.server

    embed = embedder(choice)
    waiting, arrived = [], threading.Condition()

    def work():
        while True:
            with arrived:
                arrived.wait_for(lambda: waiting)
                batch, waiting[:] = waiting[:64], waiting[64:]
            vectors = embed([text for text, _ in batch])
            for (_, future), vector in zip(batch, vectors):
                future.set_result(vector)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
            futures = [(text, concurrent.futures.Future()) for text in texts]
            with arrived:
                waiting.extend(futures)
                arrived.notify()
            data = [
                {"object": "embedding", "index": index, "embedding": [float(x) for x in future.result()]}
                for index, (_, future) in enumerate(futures)
            ]
            answer = json.dumps({"object": "list", "data": data, "model": "peer"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 128

    threading.Thread(target=work, daemon=True).start()
    print(json.dumps({"listening": choice.port}), flush=True)
    Server(("127.0.0.1", choice.port), Handler).serve_forever()


def load(choice):
    texts = pathlib.Path(choice.texts).read_text(encoding="utf-8").splitlines()
    texts = list(itertools.islice(itertools.cycle(text for text in texts if text), choice.requests))

    def ask(text):
        body = json.dumps({"model": choice.model, "input": text}).encode()
        request = urllib.request.Request(f"{choice.url}/v1/embeddings", body, {"Content-Type": "application/json"})
        start = time.monotonic()
        with urllib.request.urlopen(request, timeout=600) as answer:
            assert json.load(answer)["data"][0]["embedding"]
        return time.monotonic() - start

    for text in texts[: choice.clients]:
        ask(text)
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(choice.clients) as pool:
        took = list(pool.map(ask, texts))
    result = {
        "clients": choice.clients,
        "texts_per_s": len(texts) / (time.monotonic() - start),
        "request_ms": statistics.median(took) * 1e3,
    }
    print(json.dumps(result))


def translate(choice):
    import ctranslate2
    import torch
    import transformers
    from tokenizers import Tokenizer, models

    torch.manual_seed(1)
    directory = pathlib.Path(tempfile.mkdtemp())
    config = transformers.T5Config.from_json_file(choice.config)
    transformers.T5ForConditionalGeneration(config).save_pretrained(directory / "model")
    # The converter wants a tokenizer; its words are never read.
    words = ["<pad>", "</s>", "<unk>"] + [f"w{number}" for number in range(3, config.vocab_size)]
    tokenizer = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=2))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(directory / "model")
    converter = ctranslate2.converters.TransformersConverter(str(directory / "model"))
    converter.convert(str(directory / "converted"), quantization="int8")
    translator = ctranslate2.Translator(
        str(directory / "converted"), device="cpu", compute_type="int8", inter_threads=1, intra_threads=2
    )
    draw = random.Random(2)
    sources = [[words[draw.randrange(3, 32000)] for _ in range(choice.source)] for _ in range(choice.batch)]

    def run():
        length = {"max_decoding_length": choice.tokens, "min_decoding_length": choice.tokens}
        return translator.translate_batch(sources, beam_size=choice.beams, max_batch_size=0, **length)

    run()
    times = []
    for _ in range(choice.steps):
        start = time.perf_counter()
        found = run()
        times.append(time.perf_counter() - start)
    assert all(len(target.hypotheses[0]) == choice.tokens for target in found)
    batch_s = statistics.median(times)
    result = {
        "name": "ctranslate2_int8",
        "batch": choice.batch,
        "num_beams": choice.beams,
        "tokens_per_s": choice.batch * choice.tokens / batch_s,
        "batch_ms": batch_s * 1e3,
    }
    print(json.dumps(result))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = arguments.add_subparsers(required=True)

    verb = verbs.add_parser("llama")
    verb.add_argument("model")
    verb.add_argument("--port", type=int, default=8092)
    verb.add_argument("--slots", type=int, default=64)
    verb.set_defaults(run=llama)

    verb = verbs.add_parser("embeddings")
    verb.add_argument("model")
    verb.add_argument("--engine", choices=["onnx", "torch"], default="onnx")
    verb.add_argument("--port", type=int, default=8093)
    verb.set_defaults(run=embeddings)

    verb = verbs.add_parser("load")
    verb.add_argument("url")
    verb.add_argument("--texts", required=True)
    verb.add_argument("--model", default="peer")
    verb.add_argument("--clients", type=int, default=16)
    verb.add_argument("--requests", type=int, default=512)
    verb.set_defaults(run=load)

    verb = verbs.add_parser("translate")
    verb.add_argument("config")
    verb.add_argument("--batch", type=int, default=1)
    verb.add_argument("--beams", type=int, default=1)
    verb.add_argument("--source", type=int, default=32)
    verb.add_argument("--tokens", type=int, default=32)
    verb.add_argument("--steps", type=int, default=5)
    verb.set_defaults(run=translate)

    choice = arguments.parse_args()
    choice.run(choice)


if __name__ == "__main__":
    main()
