"""Writes `src/tokenizer/chat/tools.json`: conversations with tools, and what transformers makes of them.

The templates are our own. They do what those of Qwen, Llama, Mistral, DeepSeek and SmolVLM do with calls and contents.
Run by hand, with transformers 5.24.0 and jinja2 3.1.6: python chat_tools.py
"""

import json
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather <of> a \"city\" – now",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]},
        },
    },
    {"type": "function", "function": {"name": "now"}},
]
CALL = {"id": "abcdefgh1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "days": 2}}}
OTHER = {"id": "abcdefgh2", "type": "function", "function": {"name": "now", "arguments": {}}}
CONVERSATIONS = {
    "text": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Bye"}],
    "calls": [
        {"role": "user", "content": "How is it?", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [CALL, OTHER]},
        {"role": "tool", "content": "{\"sun\": true}", "tool_call_id": "abcdefgh1", "name": "weather"},
        {"role": "tool", "content": "noon", "tool_call_id": "abcdefgh2"},
        {"role": "assistant", "content": "Sunny.", "reasoning_content": "sun is true"},
        {"role": "user", "content": "Thanks"},
    ],
    "one call": [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": "Wait", "tool_calls": [CALL]},
        {"role": "tool", "content": "{\"sun\": true}", "tool_call_id": "abcdefgh1"},
    ],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}],
    "to continue": [{"role": "user", "content": "Count"}, {"role": "assistant", "content": "One, two, "}],
}

TEMPLATES = {
    "qwen": r"""{%- if tools %}{{- '<|im_start|>system\n' }}{%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}{{- "<tools>" }}
{%- for tool in tools %}
    {{- "\n" }}
    {{- tool | tojson }}
{%- endfor %}{{- "\n</tools>\n<tool_call>\n{\"name\": …}\n</tool_call><|im_end|>\n" }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages[::-1] %}{%- if message.role == 'user' and ns.last == messages|length - 1 %}{%- set ns.last = messages|length - 1 - loop.index0 %}{%- endif %}{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if message.role == "user" or (message.role == "system" and not (tools and loop.first)) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = message.reasoning_content if message.reasoning_content is string else '' %}
        {{- '<|im_start|>assistant\n' }}{%- if reasoning and loop.index0 > ns.last %}{{- '<think>\n' + reasoning + '\n</think>\n\n' }}{%- endif %}{{- content }}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\n<tool_response>\n' }}{{- content }}{{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}""",
    "llama": r"""{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") if strftime_now is defined else "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start|>system\n" }}{%- if tools is not none %}{{- "Environment: ipython\n" }}{%- endif %}{{- "Date: " + date_string + "\n" + system_message + "<|eot|>" }}
{%- if tools is not none %}{%- set first = messages[0]['content']|trim %}{%- set messages = messages[1:] %}{{- '<|start|>user\n' }}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\n\n" }}{%- endfor %}{{- first + "<|eot|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}{{- '<|start|>' + message['role'] + '\n' + message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("one call at once") }}{%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}{{- '<|start|>assistant\n{"name": "' + tool_call.name + '", "parameters": ' }}{{- tool_call.arguments | tojson }}{{- "}<|eot|>" }}
    {%- else %}{{- "<|start|>ipython\n" }}{%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}{{- "<|eot|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant\n' }}{%- endif %}""",
    "mistral": r"""{{- bos_token }}
{%- for message in messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and loop.last %}{{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}{%- set tool = tool.function %}{{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}{%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}{%- if not loop.last %}{{- ", " }}{%- endif %}{%- endfor %}
                {{- "}}" }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}{{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}{{- "[INST] " + message["content"] + "[/INST]" }}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}{%- set out = tool_call.function|tojson %}{{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}{{- raise_exception("ids have 9 characters") }}{%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}{{- " " + message["content"]|trim + eos_token }}
    {%- elif message["role"] == "tool" %}{%- if message.content is defined and message.content.content is defined %}{%- set content = message.content.content %}{%- else %}{%- set content = message.content %}{%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}{{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}""",
    "parts only": r"""{% for message in messages %}{{ message['role'] | capitalize }}:{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ ' ' + line['text'] }}{% endif %}{% endfor %}<end>
{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}""",
    "parts or text": r"""{%- macro shown(content) %}{%- if content is string %}{{- content }}{%- else %}{%- for item in content %}{{- item.text }}{%- endfor %}{%- endif %}{%- endmacro %}{% for message in messages %}{{ message.role }}: {{ shown(message.content or '') }}
{% if message.tool_calls %}{% for call in message.tool_calls %}{% for key, value in call.function.arguments|items %}{{ key }}={{ value | string if value is string else value | tojson | safe }} {% endfor %}{% endfor %}{% endif %}{% endfor %}""",
    "the whole message": r"""{% for message in messages %}{{ message | tojson }}
{% endfor %}""",
}


def main():
    cases = []
    for name, template in TEMPLATES.items():
        for title, messages in CONVERSATIONS.items():
            for tools in (None, TOOLS):
                for extra in (dict(add_generation_prompt=True), dict(add_generation_prompt=True, enable_thinking=False, date_string="1 May"), dict(continue_final_message=True)):
                    if "enable_thinking" in extra and "enable_thinking" not in template and "date_string" not in template:
                        continue
                    if "continue_final_message" in extra and title != "to continue":
                        continue
                    if title == "parts" and "parts" not in name:
                        continue
                    given = dict(extra, bos_token="<s>", eos_token="<|im_end|>")
                    given.setdefault("date_string", "26 Jul 2024")
                    try:
                        # Parts are what a server makes of texts for such templates.
                        shaped = messages
                        if name == "parts only":
                            part = lambda text: [{"type": "text", "text": text}] if isinstance(text, str) else text
                            shaped = [dict(m, content=part(m["content"])) for m in messages]
                        [text], _ = render_jinja_template(conversations=[json.loads(json.dumps(shaped))], tools=tools, documents=None, chat_template=template, **given)
                    except Exception as error:
                        print("skipped:", name, title, type(error).__name__, error)
                        continue
                    cases.append(dict(template=name, messages=title, tools=tools is not None, text=text, variables={k: v for k, v in given.items() if k in ("enable_thinking", "date_string")}, continued="continue_final_message" in extra))
    made = dict(tools=TOOLS, templates=TEMPLATES, conversations=CONVERSATIONS, cases=cases)
    path = Path(__file__).parent.parent.parent / "src/tokenizer/chat/tools.json"
    path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    print(len(cases), "cases")


main()
