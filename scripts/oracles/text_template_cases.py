"""Expressions and statements that text_template.py renders with jinja2."""

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
n is odd | n is even | n is divisibleby 3 | n is divisibleby(4) | n is eq 7 | n is not eq 7 | n is in [7] | x is in 'xabc' | true is true | 1 is true | 3 is sameas 3 | n is lt 9 | n is ge(7) | 'a' is lower | 'A' is upper | x is callable | range is callable | none is not none
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
