"""Writes `src/tokenizer/chat/cases.json`: templates, and what transformers makes of them.

Run by hand, with transformers 5.24.0 and jinja2 3.1.6: python chat_cases.py
"""

import json
from pathlib import Path

from transformers.utils.chat_template_utils import _compile_jinja_template

MESSAGES = [
    {"role": "system", "content": "Be\u00a0brief."},
    {"role": "user", "content": "  it's a \"test\"\u200b\n\n\u001cé 1\u2028x\u001f"},
    {"role": "assistant", "content": "<b>1,2;3</b>"},
    {"role": "user", "content": "last"},
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"x": [1, 2.5, 1e20, 1e-05, True, None, {}], "é": []}}}]

TEMPLATES = r"""
{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}
a {%- generation -%} b {%- endgeneration -%} c{% generation %}d{% endgeneration %} e
{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}
{% for m in messages %}{% generation %}{{ loop.index }}{{ m.role }}{% endgeneration %}{% endfor %}
{{ messages | tojson }}
{{ messages | tojson(indent=4) }}
{{ tools | tojson }}
{{ tools | tojson(indent=2, sort_keys=true) }}
{{ tools | tojson(separators=(',', ':')) }}
{{ tools | tojson(ensure_ascii=true) }}
{{ messages | tojson(true) }}
{{ {'b':1,'a':2} | tojson(sort_keys=true) }}
{{ {'b':[],'a':{}, 1: none, true: 1.0} | tojson(indent=1) }}
{{ [] | tojson(indent=2) }}{{ {} | tojson(indent=2) }}{{ [1] | tojson(indent='ab') }}{{ [1] | tojson(indent=0) }}
{{ "<a href='x'>&\u007f\u0001" | tojson }}{{ "<\u007f" | tojson(ensure_ascii=true) }}
{{ (1, 'a') | tojson }}{{ 1e400 | tojson }}
{% if tools is not none %}TOOLS{% endif %}{% if documents is none %}none{% endif %}{{ documents }}
{{ pad_token is defined }} {{ unk_token is defined }} {{ bos_token is defined }} {{ eos_token }}
{{ 1e20 }} {{ 0.00001 }} {{ 1.0 }} {{ 1e16 }} {{ 123456789.123 }} {{ 1e15 }} {{ 0.1 + 0.2 }} {{ 7 / 2 }} {{ 6 / 2 }} {{ 7 // 2 }} {{ 2 ** 10 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ -7 // 2 }}
{{ [1e20, 'a', "it's", none, true, (1,), {'k': 'v'}] }}
{{ messages[1] }}
{{ tools }}
{{ none }} {{ true }} {{ false }} {{ undefined_name }} {{ [undefined_name is defined] }}
{{ "it's a test-case (of) mine" .title() }} {{ "it's a test-case (of) mine" | title }}
{{ messages[1].content.strip() }}|{{ messages[1].content | trim }}|{{ "xaxbx".strip('x') }}|{{ "xaxbx" | trim('x') }}
{{ messages[1].content.lstrip() }}|{{ messages[1].content.rstrip() }}|{{ 'a b '.rstrip() }}|{{ 'xxa'.lstrip('x') }}
{{ "a\nb\r\nc\rd\x0be\x0cf\x1cg\x85h\u2028i\n".splitlines() }}
{{ "a\nb\r\nc\n\n".splitlines(true) }}{{ "a\nb".splitlines(keepends=true) }}
{{ "a,b,,c".split(',') }}{{ "a,b,,c".split(',', 1) }}{{ " a  b c ".split() }}{{ " a  b c ".split(none, 1) }}{{ "".split() }}{{ "".split(',') }}{{ "a b c".split(maxsplit=1) }}
{{ "a,b,,c".rsplit(',') }}{{ "a,b,,c".rsplit(',', 1) }}{{ " a  b c ".rsplit() }}{{ " a  b c ".rsplit(none, 1) }}{{ "a\x1cb".split() }}
{{ "<think>x</think>y".split('</think>')[-1].lstrip('\n') }}
{{ "prefix-x".removeprefix('prefix-') }}{{ "x".removeprefix('y') }}{{ "x.py".removesuffix('.py') }}
{{ "a=b=c".partition('=') }}{{ "a=b=c".rpartition('=') }}{{ "abc".partition('=') }}{{ "abc".rpartition('=') }}
{{ "héllo".find('l') }} {{ "héllo".find('l', 3) }} {{ "héllo".find('l', 1, 2) }} {{ "héllo".rfind('l') }} {{ "héllo".find('z') }} {{ "héllo".find('', 9) }} {{ "héllo".find('l', -2) }}
{{ "héllo".index('l') }} {{ "héllo".rindex('l') }} {{ "hello".count('l') }} {{ "hello".count('l', 3) }} {{ "aaa".count('') }}
{{ "%s-%s" % ('a', 1) }} {{ "%d" % 5 }} {{ "%.2f" % 2.345 }} {{ "%5s|%-5s|%05d" % ('a', 'b', 42) }} {{ '%s' % messages[0].role }} {{ '%s' % 'x' | upper }} {{ '%x' % 255 }} {{ '100%%' % () }}
{{ "%s and %s" | format('a', 'b') }} {{ "{0} {1} {0}".format('a', 'b') }} {{ "{:>5}|{:<5}|{:^5}".format('a','b','c') }}
{{ "two words, one-hyphen" | wordcount }} {{ "" | wordcount }}
{{ "foo bar baz qux" | truncate(9) }}|{{ "foo bar baz qux" | truncate(9, true) }}|{{ "foo bar baz qux" | truncate(11) }}|{{ "foo bar baz qux" | truncate(11, leeway=0) }}|{{ "foo bar baz qux" | truncate(9, end='') }}
{{ "42" | int }} {{ "x" | int }} {{ "x" | int(7) }} {{ "3.9" | int }} {{ 3.9 | int }} {{ "-3.9" | int }} {{ " 12 " | int }} {{ "0x1f" | int(0, 16) }} {{ none | int(default=3) }} {{ true | int }} {{ "1_000" | int }} {{ "1e3" | int }}
{{ "1.5" | float }} {{ "x" | float }} {{ "x" | float(2.5) }} {{ 3 | float }} {{ "1e400" | float }} {{ none | float }}
{{ 'a' is sequence }} {{ [] is sequence }} {{ {} is sequence }} {{ 1 is sequence }} {{ none is sequence }} {{ (1,) is sequence }} {{ undefined_name is sequence }} {{ range(3) is sequence }}
{{ 'a' is iterable }} {{ [] is iterable }} {{ 1 is iterable }} {{ none is iterable }} {{ {} is iterable }} {{ undefined_name is iterable }}
{{ true is number }} {{ 1 is number }} {{ 1.5 is number }} {{ 'a' is number }} {{ true is integer }} {{ 1 is integer }} {{ 1.0 is integer }} {{ 1.0 is float }} {{ 1 is float }} {{ true is boolean }}
{{ 'a' is string }} {{ {} is mapping }} {{ [] is mapping }} {{ none is none }} {{ 3 is odd }} {{ 4 is even }} {{ 4 is divisibleby 2 }} {{ 'a' in 'abc' }} {{ 'a' in ['a'] }} {{ 'k' in {'k': 1} }}
{{ [1, 2.0, 'x', none, true] | join('-') }} {{ [] | join }} {{ messages | join(', ', attribute='role') }} {{ 'abc' | join('.') }}
{{ 1e20 | string }} {{ none | string }} {{ [1] | string }}
{% for c in 'abc' %}{{ c }}.{% endfor %}
{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for k in {'b': 1, 'a': 2} %}{{ k }}{% endfor %}{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}{% endfor %}{% for k, v in {'b': 1} | items %}{{ k }}{{ v }}{% endfor %}
{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 'x') }} {{ {'a': 1}.keys() | list }} {{ {'a': 1}.values() | list }} {{ {'a': 1}.items() | list }} {{ {'a': 1}.copy() }}
{{ "Hello World".lower() }} {{ "x".upper() }} {{ "hELLO wORLD".capitalize() }} {{ "hELLO" | capitalize }} {{ "Ab".swapcase() }} {{ "a".isalpha() }} {{ "1".isdigit() }} {{ " \x1c".isspace() }} {{ "ab".startswith('a') }} {{ "ab".endswith(('b', 'c')) }}
{{ "a".center(5) }}|{{ "ab".center(5, '*') }}|{{ "a".ljust(3) }}|{{ "a".rjust(3, '.') }}|{{ "-5".zfill(4) }}|{{ "a\tb".expandtabs(4) }}|{{ 'x' | center(4) }}|
{{ "a-b".replace('-', '+') }} {{ "aaa".replace('a', 'b', 2) }} {{ "aaa" | replace('a', 'b') }} {{ "aXbX".replace('X', '') }}
{% set ns = namespace(x=0, l=[]) %}{% for i in range(3) %}{% set ns.x = ns.x + i %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.x }}{{ ns.l }}
{% set x %}block {{ 1 }}{% endset %}{{ x }}|{% set a, b = 1, 2 %}{{ a }}{{ b }}|{% set t = 1, 2 %}{{ t }}
{% macro f(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ f(1) }} {{ f(1, b=3) }}
{% for m in messages if m.role == 'user' %}{{ loop.index0 }}/{{ loop.length }}{{ ',' if not loop.last }}{% else %}none{% endfor %}
{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}
{{ messages[-1].content }} {{ messages[1:] | length }} {{ messages[::-1][0].content }} {{ 'abcdef'[1:4] }} {{ 'abcdef'[::-1] }} {{ messages | length }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | map(attribute='role') | list }} {{ messages | map(attribute='role') | unique | list }}
{{ messages | rejectattr('role', 'eq', 'user') | map(attribute='role') | join(',') }} {{ [3,1,2] | sort }} {{ [3,1,2] | max }} {{ [1,2] | sum }} {{ [1,2,3] | first }} {{ [1,2,3] | last }} {{ 'b' > 'a' }} {{ [1,2] + [3] }} {{ 'a' ~ 1 ~ none }} {{ 'ab' * 2 }}
{{ 'x' if messages else 'y' }} {{ undefined_name | default('d') }} {{ '' | default('d', true) }} {{ none or 'z' }} {{ 1 and 2 }} {{ not 1 }}
{{- '<|im_start|>' + messages[0]['role'] + '\n' }}  x   {#- comment -#}   y
{%- if add_generation_prompt %}
GEN
{%- endif %}
{{ "é"|upper }} {{ 'ß'.upper() }} {{ "a\\b" }} {{ '\x41\u0042' }} {{ "tab\there" }}
{{ 10 | round }} {{ 2.567 | round(2) }} {{ -3 | abs }} {{ 2.5 | round }} {{ 'abc' | list }} {{ 'abc' | reverse }} {{ [1,2,3] | reverse | list }} {{ [[1, 2], [3]] | sum(start=[]) }}
{{ "a b/é?" | urlencode }} {{ {'a b': 'c/d'} | urlencode }} {{ [('x', 1)] | urlencode }} {{ "<x>" | e }} {{ "<x>" | escape }} {{ '<x>' | safe }} {{ ['a','b'] | batch(1) | list }} {{ "line1\nline2" | indent(2) }} {{ "line1\nline2" | indent(2, true) }}
{{ strftime_now is defined }} {{ raise_exception is defined }} {{ (1, 2) }} {{ (1,) }} {{ () }} {{ dict(a=1) }} {{ 1 < 2 < 3 }} {{ 1 == 1.0 }} {{ 'a' == 1 }}
{{ "A" "B" }} {{ [1,2,3][1] }} {{ {'a': {'b': 1}}.a.b }} {{ messages[0].nope is defined }} {{ messages[0]['nope'] }}|{{ messages[9] is defined }}
{% filter upper %}abc{% endfilter %} {% with a = 1 %}{{ a }}{% endwith %} {% raw %}{{ x }}{% generation %}{% endraw %}
{% call(x) f() %}{% endcall %}
{{ messages[0].content | length }} {{ "日本" | length }} {{ '👍' | length }} {{ 'a\u0301' | length }}
""".strip("\n").split("\n")


def template(line):
    return line


def main():
    cases = []
    text = [t for t in TEMPLATES]
    merged = []
    for line in text:  # a tag that begins a line goes on with the line before
        if merged and (line in ("GEN", "{%- endif %}") or line.startswith("{%- if add")):
            merged[-1] += "\n" + line
        else:
            merged.append(line)
    for source in merged:
        for tools in (None, TOOLS) if "tools" in source else (None,):
            given = dict(messages=MESSAGES, tools=tools, documents=None, add_generation_prompt=True, eos_token="<|im_end|>")
            try:
                rendered = _compile_jinja_template(source).render(**given)
            except Exception as error:
                print("skipped:", source, "->", type(error).__name__, error)
                continue
            cases.append(dict(template=source, tools=tools, text=rendered))
    made = dict(messages=MESSAGES, cases=cases)
    path = Path(__file__).parent.parent.parent / "src/tokenizer/chat/cases.json"
    path.write_text(json.dumps(made, indent=1) + "\n")
    print(len(cases), "cases")


main()
