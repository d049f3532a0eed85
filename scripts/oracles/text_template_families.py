"""A template for each model family, in words of our own, with the constructs that the family's uses."""

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You answer shortly<|im_end|>\n' }}{% endif %}"
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

# A system prompt inside the first user turn, strip(), roles that must alternate.
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set rules = messages[0]['content'] %}"
    "{% elif default_rules == true and not '<<SYS>>' in messages[0]['content'] %}{% set rest = messages %}"
    "{% set rules = 'Answer shortly.' %}{% else %}{% set rest = messages %}{% set rules = false %}{% endif %}"
    "{% for message in rest %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant take turns') }}{% endif %}"
    "{% if loop.index0 == 0 and rules != false %}"
    "{% set body = '<<SYS>>\\n' + rules + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set body = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + body.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'system' %}{{ '<<SYS>>\\n' + body.strip() + '\\n<</SYS>>\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + body.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)

LLAMA31 = """{{- bos_token }}
{%- if own_tools is defined %}
    {%- set tools = own_tools %}
{%- endif %}
{%- if not tools_first is defined %}
    {%- set tools_first = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "1 Feb 2023" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message is taken out, to go where it belongs. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set rules = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set rules = "" %}
{%- endif %}

{{- "<|header|>system<|/header|>\\n\\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "With python\\n" }}
{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Built in: " + builtin_tools | reject('equalto', 'code_interpreter') | join(", ") + "\\n\\n"}}
{%- endif %}
{{- "It is " + date_string + "\\n\\n" }}
{%- if tools is not none and not tools_first %}
    {{- "These functions can be called, as {\\"name\\": ..., \\"parameters\\": ...}:\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- rules }}
{{- "<|eot|>" }}

{#- Functions may go into the first user turn. #}
{%- if tools_first and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("no user turn to put the functions into") }}
{%- endif %}
    {{- '<|header|>user<|/header|>\\n\\n' -}}
    {{- "Answer by a call of one of these functions.\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- first + "<|eot|>"}}
{%- endif %}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|header|>' + message['role'] + '<|/header|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("one call at a time") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {%- if builtin_tools is defined and call.name in builtin_tools %}
            {{- '<|header|>assistant<|/header|>\\n\\n' -}}
            {{- "<|python|>" + call.name + ".call(" }}
            {%- for name, value in call.arguments | items %}
                {{- name + '="' + value + '"' }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- endif %}
                {%- endfor %}
            {{- ")" }}
        {%- else  %}
            {{- '<|header|>assistant<|/header|>\\n\\n' -}}
            {{- '{"name": "' + call.name + '", ' }}
            {{- '"parameters": ' }}
            {{- call.arguments | tojson }}
            {{- "}" }}
        {%- endif %}
        {%- if builtin_tools is defined %}
            {{- "<|eom|>" }}
        {%- else %}
            {{- "<|eot|>" }}
        {%- endif %}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|header|>ipython<|/header|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|header|>assistant<|/header|>\\n\\n' }}
{%- endif %}
"""

MISTRAL_V1 = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant take turns') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ ' [INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('only user and assistant speak') }}{% endif %}{% endfor %}"
)

MISTRAL_V3 = """{%- if messages[0]["role"] == "system" %}
    {%- set rules = messages[0]["content"] %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set asked = turns | selectattr("role", "equalto", "user") | list %}

{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for turn in turns %}
    {%- if not (turn.role == "tool" or turn.role == "tool_results" or (turn.tool_calls is defined and turn.tool_calls is not none)) %}
        {%- if (turn["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("user and assistant take turns") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for turn in turns %}
    {%- if turn["role"] == "user" %}
        {%- if tools is not none and (turn == asked[-1]) %}
            {{- "[TOOLS] [" }}
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
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/TOOLS]" }}
        {%- endif %}
        {%- if loop.last and rules is defined %}
            {{- "[INST] " + rules + "\\n\\n" + turn["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + turn["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif turn.tool_calls is defined and turn.tool_calls is not none %}
        {{- "[CALLS] [" }}
        {%- for call in turn.tool_calls %}
            {%- set out = call.function|tojson %}
            {{- out[:-1] }}
            {%- if not call.id is defined or call.id|length != 9 %}
                {{- raise_exception("a call's id has 9 characters") }}
            {%- endif %}
            {{- ', "id": "' + call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif turn["role"] == "assistant" %}
        {{- " " + turn["content"]|trim + eos_token}}
    {%- elif turn["role"] == "tool_results" or turn["role"] == "tool" %}
        {%- if turn.content is defined and turn.content.content is defined %}
            {%- set content = turn.content.content %}
        {%- else %}
            {%- set content = turn.content %}
        {%- endif %}
        {{- '[RESULTS] {"content": ' + content|string + ", " }}
        {%- if not turn.tool_call_id is defined or turn.tool_call_id|length != 9 %}
            {{- raise_exception("a result's id has 9 characters") }}
        {%- endif %}
        {{- '"call_id": "' + turn.tool_call_id + '"}[/RESULTS]' }}
    {%- else %}
        {{- raise_exception("unknown role") }}
    {%- endif %}
{%- endfor %}
"""

# Like v3 without white space, with a date and a default system message.
NEMO = """{%- set today = strftime_now("%Y-%m-%d") %}
{%- set default_rules = "Written on " + today[:2] + "…\\nSay so when unsure.\\n" -%}
{{- bos_token }}
{%- if messages[0]["role"] == "system" %}
    {%- if messages[0]['content'] is string %}
        {%- set rules = messages[0]["content"] %}
    {%- else %}
        {%- set rules = messages[0]["content"][0]["text"] %}
    {%- endif %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set rules = default_rules %}
    {%- set turns = messages %}
{%- endif %}
{{- "[RULES]" ~ rules ~ "[/RULES]" }}
{%- if tools is not none and tools %}{{- "[TOOLS]" + (tools| tojson) + "[/TOOLS]" }}{%- endif %}
{%- for turn in turns %}
    {%- if turn["role"] == "user" %}
        {%- if turn["content"] is string %}
            {{- "[INST]" + turn["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST]" }}
            {%- for block in turn["content"] %}
                {%- if block["type"] == "text" %}
                    {{- block["text"] }}
                {%- elif block["type"] in ["image", "image_url"] %}
                    {{- "[IMG]" }}
                {%- else %}
                    {{- raise_exception("only text and images") }}
                {%- endif %}
            {%- endfor %}
            {{- "[/INST]" }}
        {%- endif %}
    {%- elif (turn.tool_calls is defined and turn.tool_calls is not none) %}
        {%- for call in turn.tool_calls %}
            {%- set arguments = call.function.arguments %}
            {%- if arguments is not string %}
                {%- set arguments = arguments|tojson|safe %}
            {%- elif arguments == '' %}
                {%- set arguments = '{}' %}
            {%- endif %}
            {{- '[CALL]' + call.function.name + '[ARGS]' + arguments }}
        {%- endfor %}
        {{- eos_token }}
    {%- elif turn["role"] == "assistant" %}
        {{- turn["content"] + eos_token }}
    {%- elif turn["role"] == "tool" %}
        {{- "[RESULT]" + turn["content"]|string + "[/RESULT]" }}
    {%- else %}
        {{- raise_exception("unknown role: " + turn["role"]) }}
    {%- endif %}
{%- endfor %}
"""

QWEN25 = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You answer questions.' }}
    {%- endif %}
    {{- "\\n\\n# Functions\\n\\nOne a line:\\n<functions>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</functions>\\n\\nCall as <call>\\n{\\"name\\": <name>, \\"arguments\\": <object>}\\n</call><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou answer questions.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for call in message.tool_calls %}
            {%- if call.function is defined %}
                {%- set call = call.function %}
            {%- endif %}
            {{- '\\n<call>\\n{"name": "' }}
            {{- call.name }}
            {{- '", "arguments": ' }}
            {{- call.arguments | tojson }}
            {{- '}\\n</call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<result>\\n' }}
        {{- message.content }}
        {{- '\\n</result>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# Reasoning: split, strip and slices of strings, and a loop from the end backwards.
QWEN3 = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "<functions>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</functions><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not(message.content.startswith('<result>') and message.content.endswith('</result>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query %}
            {%- if loop.last or (not loop.last and thought) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if call.function %}
                    {%- set call = call.function %}
                {%- endif %}
                {{- '<call>\\n{"name": "' }}
                {{- call.name }}
                {{- '", "arguments": ' }}
                {%- if call.arguments is string %}
                    {{- call.arguments }}
                {%- else %}
                    {{- call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<result>\\n' }}
        {{- content }}
        {{- '\\n</result>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

MIXTRAL = """{%- if messages[0]['role'] == 'system' %}
    {%- set rules = messages[0]['content'] %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}

{{- bos_token }}
{%- for turn in turns %}
    {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('user and assistant take turns, but for a system message in front') }}
    {%- endif %}
    {%- if turn['role'] == 'user' %}
        {%- if loop.first and rules is defined %}
            {{- ' [INST] ' + rules + '\\n\\n' + turn['content'] + ' [/INST]' }}
        {%- else %}
            {{- ' [INST] ' + turn['content'] + ' [/INST]' }}
        {%- endif %}
    {%- elif turn['role'] == 'assistant' %}
        {{- ' ' + turn['content'] + eos_token}}
    {%- else %}
        {{- raise_exception('only user and assistant speak') }}
    {%- endif %}
{%- endfor %}
"""

PHI3 = (
    "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}"
    "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
    "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
    "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}{{ '<|assistant|>\n' }}"
    "{% else %}{{ eos_token }}{% endif %}"
)

GEMMA2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role here') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant take turns') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}{{ '<turn>' + role + '\n' + message['content'] | trim + '</turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<turn>model\n'}}{% endif %}"
)

PLAIN_CHATML = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

DEEPSEEK = """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{%- set ns = namespace(first=false, in_results=false, no_output=true, rules='', first_rules=true) %}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}
        {%- if ns.first_rules %}
            {%- set ns.rules = ns.rules + message['content'] %}
            {%- set ns.first_rules = false %}
        {%- else %}
            {%- set ns.rules = ns.rules + '\\n\\n' + message['content'] %}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}{{ ns.rules }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}
        {%- set ns.in_results = false -%}
        {{ '<｜User｜>' + message['content'] }}
    {%- endif %}
    {%- if message['role'] == 'assistant' and message['tool_calls'] is defined and message['tool_calls'] is not none %}
        {%- set ns.in_results = false -%}
        {%- for call in message['tool_calls'] %}
            {%- if not ns.first %}
                {%- if message['content'] is none %}
                    {{- '<｜Assistant｜><｜calls｜><｜call｜>' + call['type'] + '<｜sep｜>' + call['function']['name'] + '\\n```json\\n' + call['function']['arguments']|tojson + '\\n```<｜/call｜>' }}
                {%- else %}
                    {{- '<｜Assistant｜>' + message['content'] + '<｜calls｜><｜call｜>' + call['function']['name'] + '\\n' + call['function']['arguments']|string + '<｜/call｜>' }}
                {%- endif %}
                {%- set ns.first = true -%}
            {%- else %}
                {{- '\\n' + '<｜call｜>' + call['function']['name'] + '<｜/call｜>' }}
            {%- endif %}
        {%- endfor %}
        {{- '<｜/calls｜>' ~ eos_token }}
    {%- endif %}
    {%- if message['role'] == 'assistant' and (message['tool_calls'] is not defined or message['tool_calls'] is none) %}
        {%- if ns.in_results %}
            {{- '<｜/results｜>' + message['content'] + '<｜end｜>' }}
            {%- set ns.in_results = false -%}
        {%- else %}
            {%- set content = message['content'] %}
            {%- if '</think>' in content %}
                {%- set content = content.split('</think>')[-1] %}
            {%- endif %}
            {{- '<｜Assistant｜>' + content + '<｜end｜>' }}
        {%- endif %}
    {%- endif %}
    {%- if message['role'] == 'tool' %}
        {%- set ns.in_results = true -%}
        {%- if ns.no_output %}
            {{- '<｜results｜><｜result｜>' + message['content'] + '<｜/result｜>' }}
            {%- set ns.no_output = false %}
        {%- else %}
            {{- '\\n<｜result｜>' + message['content'] + '<｜/result｜>' }}
        {%- endif %}
    {%- endif %}
{%- endfor -%}
{% if ns.in_results %}{{ '<｜/results｜>' }}{% endif %}
{% if add_generation_prompt and not ns.in_results %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}
"""

# Macros that call themselves and turn a JSON schema into the types of a signature.
HERMES = """{%- macro type_of(schema) %}
    {%- set names = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"} %}
    {%- if names[schema.type] is defined %}
        {{- names[schema.type] }}
    {%- elif schema.type == "array" %}
        {{- "list[" + type_of(schema['items']) + "]" }}
    {%- elif schema.type == "object" %}
        {%- if schema.additionalProperties is defined %}
            {{- "dict[str, " + type_of(schema.additionalProperties) + "]" }}
        {%- else %}
            {{- "dict" }}
        {%- endif %}
    {%- elif schema.type is iterable and schema.type is not string %}
        {{- "Union[" }}
        {%- for t in schema.type %}
            {{- type_of({"type": t}) }}
            {%- if not loop.last %}{{- "," }}{%- endif %}
        {%- endfor %}
        {{- "]" }}
    {%- else %}
        {{- "Any" }}
    {%- endif %}
{%- endmacro %}
{{- bos_token }}
{{- "<|im_start|>system\\nYou call functions. <tools> " }}
{%- for tool in tools or [] %}
    {%- if tool.function is defined %}
        {%- set tool = tool.function %}
    {%- endif %}
    {{- '{"name": "' + tool.name + '", "description": "' + tool.name + '(' }}
    {%- for name, field in (tool.parameters.properties | default({})).items() %}
        {{- name + ": " + type_of(field) }}
        {%- if not loop.last %}{{- ", " }}{%- endif %}
    {%- endfor %}
    {{- ")" }}
    {%- if tool.return is defined %}
        {{- " -> " + type_of(tool.return) }}
    {%- endif %}
    {{- " - " + (tool.description or '')|trim + "\\n\\n" }}
    {%- for name, field in (tool.parameters.properties | default({})) | dictsort %}
        {%- if loop.first %}{{- "    Args:\\n" }}{%- endif %}
        {{- "        " + name + "(" + type_of(field) + "): " + (field.description | default("no words", true))|trim }}
    {%- endfor %}
    {{- '", "parameters": ' }}
    {%- if not tool.parameters or tool.parameters.properties | length == 0 %}
        {{- "{}" }}
    {%- else %}
        {{- tool.parameters|tojson }}
    {%- endif %}
    {{- "}" }}
    {%- if not loop.last %}{{- "\\n" }}{%- endif %}
{%- endfor %}
{{- " </tools><|im_end|>\\n" }}
{%- for message in messages %}
    {%- if message.role == "user" or message.role == "system" or (message.role == "assistant" and message.tool_calls is not defined) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- for call in message.tool_calls %}
            {{- '\\n<tool_call>\\n' }}
            {%- if call.function is defined %}
                {%- set call = call.function %}
            {%- endif %}
            {{- '{' }}
            {{- '"name": "%s", ' | format(call.name) }}
            {{- '"arguments": {}'.format(call.arguments|tojson) if call.arguments is mapping else call.arguments }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.previtem and loop.previtem.role != "tool" %}
            {{- '<|im_start|>tool\\n' }}
        {%- endif %}
        {{- '<tool_response>\\n' }}
        {{- message.content }}
        {%- if not loop.last %}
            {{- '\\n</tool_response>\\n' }}
        {%- else %}
            {{- '\\n</tool_response>' }}
        {%- endif %}
        {%- if not loop.last and loop.nextitem.role != "tool" %}
            {{- '<|im_end|>' }}
        {%- elif loop.last %}
            {{- '<|im_end|>' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- for document in documents or [] %}
{{ loop.index }}. {{ document['title'] | upper }}: {{ document.text | indent(4) }}
{% endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

FAMILIES = {
    "chatml": PLAIN_CHATML, "chatml with more": CHATML, "deepseek": DEEPSEEK, "gemma2": GEMMA2, "hermes": HERMES,
    "llama2": LLAMA2, "llama31": LLAMA31, "macros": MACROS, "mistral v1": MISTRAL_V1, "mistral v3": MISTRAL_V3,
    "mistral nemo": NEMO, "mixtral": MIXTRAL, "phi3": PHI3, "qwen2.5": QWEN25, "qwen3": QWEN3, "smollm2": SMOLLM2,
}
