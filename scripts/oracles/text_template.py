#!/usr/bin/env python3
"""Writes what `jinja2`, set up as Hugging Face sets it up, renders, for chat_template_oracle_test.cpp to compare with.

    text_template.py --out FILE [--model MODEL.gguf] [--seed N]

One case a line: {"template", "messages", "add_generation_prompt", "variables", "expected"}; `expected` is null where
jinja2 raises an error. With --model the template of that GGUF file is rendered too.
"""
import argparse
import json
import random
import sys
from datetime import datetime

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

CHATML = """{%- if messages[0].role == 'system' %}
    {%- set system_message = messages[0].content | trim %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set system_message = none %}
    {%- set loop_messages = messages %}
{%- endif %}
{#- a comment
   of two lines #}
{{ bos_token | default('') }}
{%- if system_message is not none %}
{{- '<|im_start|>system\\n' ~ system_message ~ '<|im_end|>\\n' }}
{%- endif %}
{%- for m in loop_messages if m.role != 'ignored' %}
    {%- if m.role not in ['user', 'assistant', 'tool'] %}
        {{- raise_exception('unknown role ' + m.role) }}
    {%- endif %}
<|im_start|>{{ m.role }} {{ loop.index }}/{{ loop.length }}
{{ m.content }}<|im_end|>{{ '\\n' if not loop.last }}
{%- else %}
(empty)
{%- endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""

LLAMA31 = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0, seen=[]) %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("conversation roles must alternate user and assistant") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
        {%- set ns.seen = ns.seen + [message.role] %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
{{ ns.seen|join(',') }}
"""

MACROS = """{% macro turn(role, content='', end='\\n') %}
[{{ role|upper }}] {{ content }}{{ end }}
{% endmacro %}
{% macro wrap(tag) %}<{{ tag }}>{{ caller() }}</{{ tag }}>{% endmacro %}
{% macro fact(n) %}{{ 1 if n <= 1 else n * (fact(n - 1)|int) }}{% endmacro %}
{% for message in messages %}
  {% if message.content is string %}
    {% set text %}  {{ message.content }} {% endset %}
    {{ turn(message.role, content=text|trim) }}
  {% elif message.content is none %}
    {{- turn(message.role) }}
  {% else %}
    {% for part in message.content %}
      {% if part['type'] == 'text' %}{{ turn(message.role, part.text, end='|') }}
      {% else %}{% continue %}{% endif %}
      after
      {% if loop.index0 > 2 %}{% break %}{% endif %}
    {% endfor %}
  {% endif %}
  {% call wrap('x') %}{{ message.role }}{% endcall %}
{% endfor %}
{% filter upper | replace('A', '4') %}abc {{ fact(5) }}{% endfilter %}
{% with a = 1, b = 'two' %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}
{% generation %}made{% endgeneration %}
{% raw %}{{ not rendered }} {% endraw %}
"""

# Expressions over x (a string), n (an integer), f (a float), l (a list), d (a dictionary), u (undefined).
EXPRESSIONS = """
x | y | u | u.a | u['a'] | u + 1 | u ~ 'a' | u == u | u in [1] | 1 in u | not u | u is defined | l[9].z | d.zz | d.zz.q
n + 1 | n - 7 | n * 3 | n / 2 | n // 2 | -n // 2 | n % 3 | -n % 3 | n ** 2 | 2 ** -1 | f * 2 | f // 0.3 | -f % 0.7 | 1 / 0
1e20 | 1e16 | 123456789012345680.0 | 0.1 + 0.2 | 1e-5 | 0.0001 | 1.0 | -0.0 | 1_000 | 0x1F | 0b101 | 0o17 | 5e-324 | 1e308 * 10
n if n > 3 else 'small' | 'a' if false | n > 1 and n < 100 | n or 0 | none or 'x' | '' and 1 | not n | 1 < 2 < 3 | 1 < 3 < 2
x ~ n ~ f ~ none ~ true | x + 'z' | x * 2 | 2 * 'ab' | [1] * 2 + [3] | (1, 2) + (3,) | x + 1 | [1] + (2,) | 'a' < 'b' | 'a' < 1
true + 1 | true == 1 | 1 == 1.0 | '1' == 1 | [1, 2] == [1, 2] | (1,) == [1] | {'a': 1} == {'a': 1.0} | none == none | none < 1
l | d | (1,) | () | [] | {} | [none, true, 'it\\'s', "q\\"q'q", 1.5] | {'a': [1, {'b': (2,)}]} | 'tab\\t\\n\\\\' | ['\\x00\\u200b\\xe9']
l[0] | l[-1] | l[5] | l[1:] | l[:-1] | l[::-1] | l[::2] | x[1] | x[-1] | x[1:3] | x[::-1] | x['0'] | l['a'] | d['a'] | d[1] | d['nope']
d.items() | d.keys() | d.values() | d.items()|list | d.get('a') | d.get('q') | d.get('q', 5) | d.a | d.items.x | d|length | d|list
l|length | x|length | n|length | u|length | none|length | l|first | l|last | []|first | l|join | l|join(', ') | l|join('-', attribute='a')
x|upper | x|lower | x|title | x|capitalize | x|trim | x|trim('a ') | '  a b '|trim | n|upper | none|upper | u|upper | x|replace('a', 'b') | x|replace('a', 'b', 1)
n|string ~ 'x' | '12'|int | '12.7'|int | 'zz'|int | 'zz'|int(5) | ' 7 '|int | '0x1f'|int(0, 16) | f|int | none|int | u|int | '1.5'|float | 'q'|float | true|int
f|round | f|round(2) | 2.5|round | 3.5|round | n|round | 2.675|round(2) | f|round(1, 'ceil') | f|round(1, 'floor') | -3|abs | f|abs
u|default('dd') | none|default('dd') | ''|default('dd', true) | u|d | x|default('q') | l|tojson | d|tojson | d|tojson(indent=2) | x|tojson | f|tojson
[]|tojson(indent=2) | {}|tojson(indent=2) | [[], {}]|tojson(indent=1) | {'b': 1, 'a': 2}|tojson(sort_keys=true) | ['é<>&\\'']|tojson | ['é\\u2028']|tojson(ensure_ascii=true) | u|tojson | {1: none, true: 2}|tojson | [1, 2]|tojson(separators=(',', ':'))
l|map('string')|list | l|map('upper')|join(',') | [{'a': 1}, {'b': 2}]|map(attribute='a')|list | [{'a': 1}, {}]|map(attribute='a', default=0)|list | l|map('nope')|list
[1, 2, 3, 4]|select('odd')|list | [1, 2, 3, 4]|reject('odd')|list | [0, 1, '', 'a']|select|list | [1, 5]|select('>', 3)|list | [1, 5]|select('in', [5])|list
[{'r': 'a'}, {'r': 'b'}, {}]|selectattr('r')|list | [{'r': 'a'}, {'r': 'b'}]|selectattr('r', 'equalto', 'b')|list | [{'r': 'a'}, {'r': 'b'}]|rejectattr('r', 'eq', 'b')|list | [{'a': {'b': 1}}]|map(attribute='a.b')|list
(l|map('string')) is defined | 'yes' if []|map('upper') | (l|select)|length | (l|select)[0] | d|items|list | l|reverse|list | x|reverse | l|unique|list | [3, 1, 2]|sort | ['b', 'A', 'c']|sort | ['b', 'A']|sort(case_sensitive=true) | [3, 1]|sort(reverse=true) | [1, 'a']|sort | d|dictsort | [1, 2]|sum | [1, 9, 3]|max | [4, 2]|min | []|max | ['b', 'A']|min
x is string | n is number | n is integer | f is float | true is boolean | true is number | true is integer | none is none | l is sequence | l is iterable | d is mapping | x is iterable | x is sequence | d is sequence | n is iterable | u is sequence | u is iterable
n is odd | n is even | n is divisibleby 3 | n is divisibleby(4) | n is eq 7 | n is not eq 7 | n is in [7] | x is in 'xabc' | true is true | 1 is true | n is sameas n | n is lt 9 | n is ge(7) | 'a' is lower | 'A' is upper | x is callable | range is callable | none is not none
x.upper() | x.strip() | ' a '.strip() | 'xxaxx'.strip('x') | 'xxaxx'.lstrip('x') | 'xxaxx'.rstrip('x') | 'a,b,c'.split(',') | 'a,b,c'.split(',', 1) | 'a,b,c'.rsplit(',', 1) | ' a  b '.split() | ' a  b c'.split(none, 1) | ''.split() | ''.split(',') | 'a\\nb\\r\\nc'.splitlines() | 'a,b'.split(',')[-1]
x.startswith('a') | x.endswith(('c', 'd')) | x.startswith(1) | x.title() | "they're bill's".title() | "they're bill's"|title | x.capitalize() | x.replace('a', '') | 'abab'.replace('', '-') | 'abab'.replace('ab', 'x', 1) | 'abc'.find('c') | 'abc'.find('z') | 'abcabc'.rfind('c') | 'abc'.index('z') | 'aXa'.count('a') | ','.join(['a', 'b']) | ','.join([1]) | 'prefix-x'.removeprefix('prefix') | '12'.isdigit() | 'a1'.isalnum() | 'ab'.isalpha() | ' '.isspace() | 'Ab'.isupper() | 'AB1'.isupper() | ''.isdigit()
'ß'.upper() | 'ΑΣ'.lower() | 'İ'.lower() | 'éàü'|upper | 'ŻÓŁĆ'|lower | 'ǆ'|upper | 'привет мир'|title | 'ﬁn'|upper | 'éa ñb'.title() | 'naïve'|capitalize | '日本語'|length | '日本語'[1] | '日本語'[::-1] | 'e\\u0301'|length
range(3) | range(3)|list | range(1, 7, 2)|list | range(5, 0, -2)|list | range(3)|length | range(3)[1] | range(200000) | range(0) is defined | range(3)|join | namespace(a=1).a | namespace(a=1).b | dict(a=1, b=2) | dict(a=1).a
'%s-%s' % (1, 'a') | '%d%%' % n | '%s' % l | '%r' % 'a' | '%s' % (1, 2) | '%s %s' % 1 | 'abc' % 1 | x is defined and x is string | x is defined or y | x if x is defined else 'no' | (x if y is defined else 'no') | l is not string
x.__class__ | x.nope | n.nope | none.nope | none['a'] | none[0] | l.append(1) | d.pop('a') | d.update({}) | l.nope() | 'a'() | x.upper | messages[0].role | messages|length | messages[-1]['content'] | loop | raise_exception('boom') | tools is none | tools is defined | documents
[1, 2,] | {'a': 1,} | (1, 2) | 1, 2 | [x, n][1] | {'k': x}['k'] | {'k': x}.k | 'a' 'b' | "d'q" | 'a\\'b' | '\\d\\é' | '\\101\\x41\\u0041' | l|first|upper | (l|first)|upper | -n|abs | (-n)|abs | 3 - -2 | not true == false | 1 + 2 * 3 - 4 | 'a' ~ 1 + 2 | 10 % 4 * 2 | 2 ** 3 ** 2 | -2 ** 2 | 7 // 2 * 2 | 1 if 0 else 2 if 0 else 3
'a\\nb\\n\\nc'|indent | 'a\\nb'|indent(2, true) | 'a\\n\\nb'|indent(2, blank=true) | 'a\\nb'|indent('> ') | ''|indent | x|attr('upper') is defined | d|attr('a') | l|count | [[1, 2], [3]]|sum(start=[]) | [{'v': 2}, {'v': 3}]|sum('v') | [{'v': 2}, {'v': 1}]|sort(attribute='v') | [[2, 'a'], [1, 'b']]|map(attribute=1)|list | [[2, 'a'], [1, 'b']]|map('first')|list | ['a', 'b']|map('replace', 'a', 'z')|list
"""

STATEMENTS = [
    "{% for a, b in d.items() %}{{ a }}={{ b }};{% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}",
    "{% for c in x %}{{ c }}{{ loop.cycle('-', '+') }}{% endfor %}",
    "{% for i in l %}{{ loop.index }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }},{% endfor %}",
    "{% for i in range(6) if i is odd %}{{ loop.index }}/{{ loop.length }}:{{ i }}{{ loop.last }} {% endfor %}",
    "{% for i in [] %}x{% else %}none{% endfor %}{% for i in u %}x{% else %}undef{% endfor %}",
    "{% for i in none %}{% endfor %}",
    "{% for i in 5 %}{% endfor %}",
    "{% set v = 0 %}{% for i in l %}{{ v }}{% set v = i %}{{ v }}{% endfor %}{{ v }}",
    "{% set ns = namespace(v=0, w='a') %}{% for i in l %}{% set ns.v = ns.v + 1 %}{% endfor %}{{ ns.v }}{{ ns.w }}{% set ns.new = 1 %}{{ ns.new }}",
    "{% set d2 = {} %}{% set d2.x = 1 %}",
    "{% if u %}a{% elif n > 3 %}b{% else %}c{% endif %}{% if l|length > 9 %}1{% elif none %}2{% endif %}",
    "{% set a, b = 1, 'z' %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t }}",
    "{% set q %}in {{ x }}{% endset %}[{{ q }}]{% set q | upper %}in {{ x }}{% endset %}[{{ q }}]",
    "{% macro m(a, b=2, c=b) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}|{{ m(1, c=5) }}|{{ m() }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=2) }}",
    "{% macro m() %}{{ later }}{% endmacro %}{% set later = 3 %}{{ m() }}",
    "{% for i in [1, 2] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% macro out(n) %}{% if n > 0 %}{{ n }}{{ out(n - 1) }}{% endif %}{% endmacro %}{{ out(20) }}",
    "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for a in [1, 2] %}{% for b in 'xy' %}{{ loop.index }}{{ a }}{{ b }} {% endfor %}{{ loop.index }}{% endfor %}",
    "{% for m in messages if not ns %}{% endfor %}{{ messages | map(attribute='role') | join(',') }}",
    "{% set ns = namespace(f=false) %}{% for i in l if not ns.f %}{{ i }}{% set ns.f = true %}{% endfor %}",
    "  {% if true %}  \n  a\n  {% endif %}  \n b",
    "a  {%- if true -%}  b  {%- endif -%}  c",
    "a  {%+ if true %}  b  {%+ endif %}\n  c",
    "a\n  {# comment #}\n  b {#- x -#}  c\n",
    "{{ 'a' }}\n{{- 'b' -}}\n c {{ 1 }}\n\n",
    "x\r\ny\rz\n\n",
    "  {{ 1 }}\n  {% set a = 1 %}\n  {{ a }}",
    "{% raw %}{% if %}{{ }}{% endraw %}{%- raw -%}  {{ a }}  {%- endraw -%} z",
    "\t {%- set a = {'x': {'y': 1}} %}{{ a['x'].y }}{{ {'a': {'b': 2}}}}",
    "{{ '}}' }}{{ '%}' }}{{ \"{{\" }}{% if '%}' %}ok{% endif %}",
    "{% with %}{% set inner = 1 %}{{ inner }}{% endwith %}{{ inner is defined }}",
    "{% with a = 1 %}{% with b = a %}{{ a }}{{ b }}{% endwith %}{% endwith %}",
    "{% filter trim %}  a {{ x }} {% endfilter %}",
    "{% call(v) m2() %}{{ v }}{% endcall %}",
    "{% macro m2() %}{{ caller('q') }}{{ caller(1) }}{% endmacro %}{% call(v) m2() %}[{{ v }}]{% endcall %}",
    "{% print x, n %}",
    "{% set g = l | map('string') %}{{ g | join }}{{ g | join }}",
    "{{ x | safe }}{{ d | tojson | safe }}",
    "{% if (n > 1 and x) or false %}{{ (1, 2)[0] }}{% endif %}",
    "{% for k in d %}{{ k }}{% endfor %}{% for i in l[::-1] %}{{ i }}{% endfor %}{% for i in l | reverse %}{{ i }}{% endfor %}",
    "{{ loop }}{% for i in [1] %}{{ loop.changed(1) }}{{ loop.changed(1) }}{% endfor %}",
    "{% set x = x ~ '!' %}{{ x }}{% if true %}{% set x = 'inner' %}{% endif %}{{ x }}",
    "{{ a }{{",
    "{% if %}",
    "{% for %}",
    "{% endif %}",
    "{% if x %}",
    "{{ x",
    "{# open",
    "{{ x | }}",
    "{{ (1 }}",
    "{{ 1 + }}",
    "{{ 'open }}",
    "{{ x.1y }}",
    "{{ [1, 2 }}",
    "{% set true = 1 %}",
    "{% nosuchtag %}",
    "{{ x | nosuchfilter }}",
    "{{ x is nosuchtest }}",
    "{% break %}",
]

WORDS = ["hello", "world", "What is", "é", "日本", "🙂", "\n", "  ", "it's", '"quoted"', "{{x}}", "<|im_end|>", "\t", "1+1=2"]


def environment():
    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

        def _same(self, caller):
            return caller()

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return made


def random_text(rng):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(0, 8)))


def conversation(rng, shaped):
    """Messages as clients send them; `shaped` alternates the roles, otherwise anything comes."""
    messages = []
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": random_text(rng)})
    for turn in range(rng.randrange(0 if messages else 1, 9)):
        role = ["user", "assistant"][turn % 2] if shaped else rng.choice(["user", "assistant", "tool", "system", "ignored"])
        message = {"role": role, "content": random_text(rng)}
        if not shaped and rng.random() < 0.1:
            message["content"] = rng.choice(
                [None, [{"type": "text", "text": random_text(rng)}, {"type": "image"}], {"a": 1}, 3]
            )
        if not shaped and rng.random() < 0.1:
            arguments = {"q": random_text(rng), "n": rng.randrange(9), "f": 0.5, "none": None}
            message["tool_calls"] = [{"type": "function", "function": {"name": "find", "arguments": arguments}}]
        if not shaped and rng.random() < 0.03:
            del message["content"]
        messages.append(message)
    return messages


def variables(rng):
    made = {"bos_token": "<s>", "eos_token": "</s>"}
    if rng.random() < 0.4:
        made["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": "find",
                    "description": "Finds “things” & more",
                    "parameters": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]},
                },
            }
        ] * rng.randrange(1, 3)
    if rng.random() < 0.3:
        made["date_string"] = "1 Jan 2025"
    return made


def render(made, template, messages, prompt, extra):
    values = {"tools": None, "documents": None, **extra}
    try:
        return made.from_string(template).render(messages=messages, add_generation_prompt=prompt, **values)
    except Exception:  # whatever jinja2 raises, the interpreter must raise too
        return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--model")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    made = environment()
    templates = [("smollm2", SMOLLM2), ("chatml", CHATML), ("llama31", LLAMA31), ("mistral", MISTRAL), ("macros", MACROS)]
    if options.model:
        from gguf import GGUFReader

        templates.append(("model", GGUFReader(options.model).fields["tokenizer.chat_template"].contents()))
    cases = []
    for name, template in templates:
        for i in range(300):
            cases.append((name, template, conversation(rng, i % 3 != 0), rng.random() < 0.5, variables(rng)))
    fixed = {
        "x": "abc", "n": 7, "f": 3.14159, "l": ["a", 1, None], "d": {"a": 1, "b": [True, {"c": "é"}], "items": 3},
    }
    messages = [{"role": "user", "content": "hi"}]
    for line in EXPRESSIONS.strip().split("\n"):
        for expression in line.split(" | "):
            cases.append(("expression", "{{ " + expression + " }}", messages, False, fixed))
    for template in STATEMENTS:
        cases.append(("statement", template, messages, False, fixed))
    with open(options.out, "w", encoding="utf-8") as out:
        for name, template, talk, prompt, extra in cases:
            expected = render(made, template, talk, prompt, extra)
            if expected is not None and (" object at 0x" in expected or "<function" in expected or "<Macro" in expected):
                continue  # an address
            case = {
                "name": name, "template": template, "messages": talk, "add_generation_prompt": prompt,
                "variables": extra, "expected": expected,
            }
            out.write(json.dumps(case) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
