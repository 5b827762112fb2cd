"""Drives a server with the official `anthropic` client (2.14, which has no argument `temperature`).

    python anthropic_client.py                         serves a small model with random weights
    python anthropic_client.py BASE_URL [API_KEY]      takes a running server, e.g. http://127.0.0.1:8080

Exits with 0 and prints `ok` if everything is as the client expects. The model needs a chat template.
"""

import pathlib
import sys
import tempfile

import anthropic

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "clients"))

from server import serve, small_decoder  # noqa: E402

TOOLS = [
    {
        "name": "weather",
        "description": "The weather of a city.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"], "additionalProperties": False},
    }
]


def main(base_url: str, api_key: str) -> None:
    client = anthropic.Anthropic(base_url=base_url, api_key=api_key, max_retries=0, timeout=60)
    model = client.models.list().data[0].id
    hi = [{"role": "user", "content": "Name a city."}]
    ask = lambda **fields: client.messages.create(**{"model": model, "messages": hi, "max_tokens": 24, "system": "Be brief.", "extra_body": {"temperature": 0}, **fields})

    whole = ask()
    assert whole.type == "message" and whole.content[0].type == "text" and whole.content[0].text, whole
    assert whole.stop_reason in ("end_turn", "max_tokens"), whole
    counted = client.messages.count_tokens(model=model, messages=hi, system="Be brief.")
    assert counted.input_tokens == whole.usage.input_tokens + whole.usage.cache_read_input_tokens, (counted, whole.usage)

    with client.messages.stream(model=model, messages=hi, max_tokens=24, system="Be brief.", extra_body={"temperature": 0}) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text, (text, final)
    assert final.usage.output_tokens == whole.usage.output_tokens, (final.usage, whole.usage)

    word = whole.content[0].text.split()[1] if len(whole.content[0].text.split()) > 1 else whole.content[0].text[-1]
    stopped = ask(stop_sequences=[word])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", word), stopped

    called = ask(tools=TOOLS, tool_choice={"type": "any"}, max_tokens=200)
    assert called.stop_reason == "tool_use" and called.content[0].type == "tool_use", called
    assert isinstance(called.content[0].input["city"], str), called
    with client.messages.stream(model=model, messages=hi, max_tokens=200, tools=TOOLS, tool_choice={"type": "tool", "name": "weather"}, extra_body={"temperature": 0}) as stream:
        final = stream.get_final_message()
    assert final.content[0].name == "weather" and "city" in final.content[0].input, final
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": called.content[0].id, "content": "sunny"}]}
    assert ask(messages=[*hi, {"role": "assistant", "content": called.content}, result], tools=TOOLS).role == "assistant"
    begun = ask(messages=[*hi, {"role": "assistant", "content": "The city is"}])
    assert begun.usage.input_tokens > 0, begun

    for fields, error in (
        ({"model": "no-such-model"}, anthropic.NotFoundError),
        ({"extra_body": {"temperature": 9}}, anthropic.BadRequestError),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://x"}}]}]}, anthropic.BadRequestError),
    ):
        try:
            ask(**fields)
        except error as refused:
            assert refused.body["type"] == "error" and refused.body["error"]["message"], refused.body
        else:
            raise AssertionError(f"{fields} was accepted")
    print("ok")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "none")
    else:
        with tempfile.TemporaryDirectory() as folder, serve(small_decoder(pathlib.Path(folder))) as address:
            main(address, "none")
