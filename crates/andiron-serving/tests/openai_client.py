"""Drives a server with the official `openai` client.

    python openai_client.py                         trains a small model, serves it and stops the server by SIGTERM
    python openai_client.py BASE_URL [API_KEY]      takes a running server, e.g. http://127.0.0.1:8080/v1

Exits with 0 and prints `ok` if everything is as the client expects; any model with a tokenizer will do, and one with a chat template is
asked to chat. The program is
the one that ANDIRON names, or `andiron` in the release folder of the target directory.
"""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import openai
from pydantic import BaseModel, Field

# Of characters that the small model's vocabulary has.
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"

ROOT = pathlib.Path(__file__).resolve().parents[3]


def program() -> str:
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    return os.environ.get("ANDIRON") or str(target / "release" / "andiron")


def with_own_server() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program(), "quickstart", "--steps", "60", "--output", folder], check=True, capture_output=True)
        pathlib.Path(folder, "run/model/chat_template.jinja").write_text(TEMPLATE)
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
    usage = chunks[-1].usage
    assert chunks[-1].choices == [] and usage.total_tokens == whole.usage.total_tokens, chunks[-1]
    # The same prompt is known by then.
    assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens == whole.usage.prompt_tokens, usage
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

    try:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "a"}], max_tokens=1)
    except openai.BadRequestError as error:
        # A model without a chat template does not chat; nothing else is wrong with the request.
        assert error.code == "chat_template_missing", error
    else:
        chat(client, model)
        # The small model's vocabulary has no braces.
        if writes_json(client, model):
            structured(client, model)
            responses(client, model)
            decisions(client, model)

    # A client that goes in the middle leaves a server that answers.
    stream = complete(max_tokens=40, stream=True)
    next(iter(stream))
    stream.close()
    assert complete(temperature=0).choices[0].text == choice.text
    print("ok")


class City(BaseModel):
    name: str = Field(max_length=20)
    people: int = Field(ge=0, le=99_000_000)


class GetWeather(BaseModel):
    """The weather of a city."""

    city: str = Field(max_length=20)
    days: int = Field(ge=0, le=9)


HI = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Name a city."}]}]


def chat(client: openai.OpenAI, model: str) -> None:
    ask = lambda **fields: client.chat.completions.create(**{"model": model, "messages": HI, "max_completion_tokens": 24, **fields})

    whole = ask(temperature=0)
    assert whole.object == "chat.completion" and whole.choices[0].message.role == "assistant", whole
    content, reason = whole.choices[0].message.content, whole.choices[0].finish_reason
    assert content and reason in ("length", "stop"), whole
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens, whole.usage

    chunks = list(ask(temperature=0, stream=True, stream_options={"include_usage": True}))
    assert all(c.object == "chat.completion.chunk" and c.id == chunks[0].id for c in chunks), chunks
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == content, chunks
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == whole.usage.total_tokens, chunks[-1]
    with client.chat.completions.stream(model=model, messages=HI, max_completion_tokens=24, temperature=0, n=2) as stream:
        for _ in stream:
            pass
        try:
            final = stream.get_final_completion()
        except openai.LengthFinishReasonError as cut:
            # The client raises it for plain text, too.
            final = cut.completion
    assert [c.message.content for c in final.choices] == [content, content], final

    scored = ask(temperature=0, logprobs=True, top_logprobs=2).choices[0]
    tokens = scored.logprobs.content
    assert bytes(sum((token.bytes for token in tokens), [])).decode(errors="ignore").strip() == content.strip(), tokens
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens), tokens
    assert [c.message.content for c in ask(seed=7, temperature=1.5, n=2).choices] == [
        c.message.content for c in ask(seed=7, temperature=1.5, n=2).choices
    ]

    for fields, param in (
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"max_completion_tokens": 10_000_000}, "max_completion_tokens"),
    ):
        try:
            ask(**fields)
        except openai.BadRequestError as error:
            assert error.param == param, error
        else:
            raise AssertionError(f"{fields} was accepted")


def writes_json(client: openai.OpenAI, model: str) -> bool:
    try:
        client.completions.create(model=model, prompt='{"a": 1}', max_tokens=1)
    except openai.BadRequestError:
        return False
    return True


def structured(client: openai.OpenAI, model: str) -> None:
    ask = lambda **fields: client.chat.completions.create(**{"model": model, "messages": HI, "max_completion_tokens": 24, **fields})
    parsed = client.chat.completions.parse(model=model, messages=HI, response_format=City, max_completion_tokens=200, temperature=0)
    assert parsed.choices[0].finish_reason == "stop" and isinstance(parsed.choices[0].message.parsed, City), parsed
    parsed = client.chat.completions.create(model=model, messages=HI, response_format={"type": "json_object"}, max_completion_tokens=400, temperature=0, seed=1)
    assert parsed.choices[0].message.content.startswith("{"), parsed

    tools = [openai.pydantic_function_tool(GetWeather)]
    for choice in ("required", {"type": "function", "function": {"name": "GetWeather"}}):
        called = client.chat.completions.parse(model=model, messages=HI, tools=tools, tool_choice=choice, max_completion_tokens=200, temperature=0)
        call = called.choices[0].message.tool_calls[0]
        assert called.choices[0].finish_reason == "tool_calls" and isinstance(call.function.parsed_arguments, GetWeather), called
    with client.chat.completions.stream(model=model, messages=HI, tools=tools, tool_choice="required", max_completion_tokens=200, temperature=0) as stream:
        final = stream.until_done().get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.parsed_arguments == call.function.parsed_arguments, final
    again = HI + [called.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    assert ask(messages=again, tools=tools).choices[0].message.role == "assistant"
    ask(tools=tools, tool_choice="none")


def responses(client: openai.OpenAI, model: str) -> None:
    whole = client.responses.create(model=model, instructions="Be brief.", input="Name a city.", max_output_tokens=24, temperature=0)
    assert whole.object == "response" and whole.status in ("completed", "incomplete") and whole.output_text, whole
    counted = client.responses.input_tokens.count(model=model, instructions="Be brief.", input="Name a city.")
    assert counted.input_tokens == whole.usage.input_tokens, (counted, whole.usage)
    with client.responses.stream(model=model, instructions="Be brief.", input="Name a city.", max_output_tokens=24, temperature=0) as stream:
        events = list(stream)
        final = stream.get_final_response() if whole.status == "completed" else events[-1].response
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text, events
    assert [e.sequence_number for e in events] == list(range(len(events))), events
    assert final.output_text == whole.output_text, final
    parsed = client.responses.parse(model=model, input="Name a city.", text_format=City, max_output_tokens=200, temperature=0)
    assert isinstance(parsed.output_parsed, City), parsed
    tools = [{"type": "function", "name": "now", "strict": True, "parameters": {"type": "object", "properties": {"zone": {"type": "string", "enum": ["CET", "UTC"]}}, "required": ["zone"], "additionalProperties": False}}]
    called = client.responses.create(model=model, input="What time is it?", tools=tools, tool_choice="required", max_output_tokens=200, temperature=0)
    assert called.output[0].type == "function_call" and called.output[0].name == "now", called
    result = {"type": "function_call_output", "call_id": called.output[0].call_id, "output": "noon"}
    client.responses.create(model=model, input=[{"role": "user", "content": "What time is it?"}, *called.output, result], tools=tools, max_output_tokens=8)
    try:
        client.responses.create(model=model, input="x", previous_response_id="resp_1")
    except openai.BadRequestError as error:
        assert error.param == "previous_response_id", error
    else:
        raise AssertionError("a response was remembered")


def decisions(client: openai.OpenAI, model: str) -> None:
    questions = [
        {"type": "predicate", "name": "wet", "instructions": "It is wet outside."},
        {"type": "choice", "instructions": "What falls?", "choices": [{"value": "rain"}, {"value": "stones"}, {"value": True}]},
        {"type": "score", "instructions": "How much?", "levels": [{"label": "little"}, {"label": "much"}]},
    ]
    decided = client.decisions.create(model=model, input="It rains.", questions=questions)
    assert [answer.type for answer in decided.answers] == ["predicate", "choice", "score"], decided
    assert 0 <= decided.answers[0].probability <= 1 and 0 <= decided.answers[2].score <= 1, decided
    assert abs(sum(p.probability for p in decided.answers[1].probabilities) - 1) < 1e-6, decided


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "none")
    else:
        with_own_server()
