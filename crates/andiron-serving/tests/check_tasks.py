"""Compares the tasks of a server with the field's own programs, through its clients.

    python check_tasks.py [ENCODER]         an embedding model of sentence-transformers; without one, all-MiniLM-L6-v2 from a package

Serves the model, embeds texts through the official `openai` client and compares the vectors with sentence-transformers; compares
vectors of texts in company with those of each alone, byte by byte; ranks through `cohere`'s clients. Then translates with a small
model that transformers makes, through `libretranslatepy`, and compares with transformers' `generate`. Needs openai, cohere,
libretranslatepy, sentence-transformers, transformers and numpy. The program is the one that ANDIRON names, or `andiron` in the release folder of the target
directory.
"""

import concurrent.futures
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import cohere
import libretranslatepy
import numpy
import openai
import sentence_transformers
import tokenizers
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "clients"))

from models import sentence_encoder  # noqa: E402
from server import program  # noqa: E402

#: Both sides compute in f32, in another order.
TOLERANCE = 2e-6

WORDS = "the a king queen of and river stone light walks under over quickly never always forgets names".split()


def texts(count: int) -> list[str]:
    """Texts of one to some hundred words, in no order."""
    return [" ".join(WORDS[(n * 7 + k * (n + 3)) % len(WORDS)] for k in range(1 + n * 37 % 90)) for n in range(count)]


def post(address: str, path: str, body: dict) -> tuple[int, object]:
    request = urllib.request.Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def check(address: str, model: str) -> None:
    reference = sentence_transformers.SentenceTransformer(str(model), device="cpu")
    client = openai.OpenAI(base_url=address + "/v1", api_key="none", max_retries=0)
    asked = texts(80) + ["", "Straße 東京 naïve 😀", "long " * 2000]
    wanted = reference.encode(asked)
    # The client asks for Base64 by itself.
    embed = lambda input, **more: client.embeddings.create(model="m", input=input, **more)
    for more in [{}, {"encoding_format": "float"}]:
        reply = embed(asked, extra_body={"truncate": True}, **more)
        found = numpy.array([entry.embedding for entry in reply.data])
        difference = numpy.abs(found - wanted).max()
        assert difference < TOLERANCE, difference
        print(f"embeddings {more}: within {difference:.1e} of sentence-transformers {sentence_transformers.__version__}")
    tokens = sum(len(ids) for ids in reference.tokenizer(asked, truncation=True)["input_ids"])
    assert reply.usage.prompt_tokens == tokens, (reply.usage, tokens)
    try:
        embed("long " * 2000)
        raise AssertionError("a text that is too long was read")
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded", error
    half = numpy.array(embed(asked[:3], dimensions=100).data[2].embedding)
    cut = wanted[2][:100] / numpy.linalg.norm(wanted[2][:100])
    assert numpy.abs(half - cut).max() < TOLERANCE

    status, vectors = post(address, "/embed", {"inputs": asked})
    assert status == 200 and numpy.abs(numpy.array(vectors) - wanted).max() < TOLERANCE
    status, refusal = post(address, "/embed", {"inputs": asked, "truncate": False})
    assert (status, refusal["error_type"]) == (422, "Validation"), refusal

    alone = {text: embed(text, extra_body={"truncate": True}).data[0].embedding for text in asked}
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        company = list(pool.map(lambda n: (n, embed(asked[n], extra_body={"truncate": True}).data[0].embedding),
                                [n % len(asked) for n in range(4 * len(asked))]))
    rate = len(company) / (time.monotonic() - started)
    differing = sum(alone[asked[n]] != vector for n, vector in company)
    largest = max(numpy.abs(numpy.array(alone[asked[n]]) - numpy.array(vector)).max() for n, vector in company)
    print(f"in company: {differing} of {len(company)} vectors differ, by {largest:.1e} at most; {rate:.0f} texts/s from 16 clients")
    assert largest < TOLERANCE

    documents = asked[:40]
    similarity = (reference.encode(["the king walks"]) @ wanted[:40].T)[0]
    for rank in [cohere.ClientV2("none", base_url=address).rerank, cohere.Client("none", base_url=address).rerank]:
        results = rank(model="m", query="the king walks", documents=documents, top_n=5).results
        assert [result.index for result in results] == list(numpy.argsort(-similarity, kind="stable")[:5]), results
        assert all(abs(result.relevance_score - similarity[result.index]) < TOLERANCE for result in results)
    print(f"rerank: as cohere {cohere.__version__} and sentence-transformers have it")


def translator(folder: str, beams: int):
    """A BART with random weights and a tokenizer of characters, in `folder`."""
    letters = ["<s>", "<pad>", "</s>", "<unk>", *" abcdefghijklmnopqrstuvwxyz"]
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel({letter: n for n, letter in enumerate(letters)}, "<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    core.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 2)])
    core.decoder = tokenizers.decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        clean_up_tokenization_spaces=False)
    torch.manual_seed(7)
    model = transformers.BartForConditionalGeneration(transformers.BartConfig(
        vocab_size=len(letters), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64, init_std=0.5,
        forced_eos_token_id=None)).eval()
    model.generation_config = transformers.GenerationConfig(
        num_beams=beams, max_length=20, decoder_start_token_id=2, eos_token_id=2, pad_token_id=1, bos_token_id=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def check_translations(beams: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer = translator(folder, beams)
        with Serving("--model", f"m={folder}", "--languages", "en-de") as address:
            client = libretranslatepy.LibreTranslateAPI(address)
            assert [language["code"] for language in client.languages()] == ["de", "en"]
            sources = ["the king", "a river of light", "walks", "names and names"]
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                found = list(pool.map(lambda text: client.translate(text, "en", "de"), sources))
            for source, target in zip(sources, found):
                ids = model.generate(**tokenizer(source, return_tensors="pt", return_token_type_ids=False))
                assert target == tokenizer.decode(ids[0], skip_special_tokens=True), (source, target)
            assert client.translate("walks", "auto", "de") == found[2]
            body = {"q": sources, "source": "auto", "target": "de", "alternatives": 3}
            status, reply = post(address, "/translate", body)
            assert status == 200 and len(reply["translatedText"]) == len(reply["alternatives"]) == 4, reply
            assert all(len(set(others)) == len(others) <= 3 for others in reply["alternatives"]), reply
            assert [language["language"] for language in reply["detectedLanguage"]] == ["en"] * 4, reply
            for wrong in [{"target": "xx"}, {"format": "html"}, {"q": ""}, {"q": []}, {"q": "a" * 500}]:
                status, refusal = post(address, "/translate", {"q": "a", "source": "en", "target": "de", **wrong})
                assert status == 400 and isinstance(refusal["error"], str), (wrong, refusal)
    print(f"translations with {beams} beams: as transformers {transformers.__version__}, through libretranslatepy")


class Serving:
    """A server of these options, which has to end well."""

    def __init__(self, *options: str) -> None:
        serve = [program(), "--log", "warn", "serve", "--port", "0", *options]
        self.server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> str:
        line = self.server.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), line
        return line.split()[-1]

    def __exit__(self, kind, error, trace) -> None:
        self.server.send_signal(signal.SIGTERM)
        try:
            code = self.server.wait(timeout=60)
        finally:
            self.server.kill()
        assert kind is not None or code == 0, code


def main(model: str | None) -> None:
    check_translations(1)
    check_translations(4)
    model = model or sentence_encoder()
    if model is None:
        print("skip: embeddings and ranking need a real encoder, and none can be downloaded")
        return
    with Serving("--model", f"m={model}") as address:
        check(address, model)
    print("ok")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
