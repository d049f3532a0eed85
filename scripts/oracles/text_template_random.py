"""Random templates over the variables of text_template.py: x (a string), n (an integer), f (a float), l (a list),
d (a dictionary), u (undefined).

They assign to other names only: a variable that a scope assigns but only bodies inside it read is undefined to jinja2
until the assignment, which is a trait of its compiler that the interpreter does not share.
"""

STRINGS = [
    "'abc'", "''", "'a,b,,c'", "' pad '", "'Straße'", "'日本語 text'", "\"it's\"", "'line\\none\\r\\ntwo'", "'aXbXc'", "x",
    "'12'", "'-3.5'", "'%s and %s'", "'{} {0}'", "'tab\\there'", "'Été ÇA'", "'🙂e\u0301'", "'x' * 3", "'<a> & \"b\"'",
    "'snake_case-name'", "messages[0].role", "'1e3'", "' 7_0 '", "'ABC def'", "'\\u00a0z\\u2003'",
]
INTEGERS = ["0", "1", "2", "-1", "7", "n", "10", "1_000", "255", "-8", "l|length", "true", "false", "3"]
FLOATS = ["f", "0.5", "-2.5", "1e3", "1.0", "0.1", "2.675", "1e-7", "1e22", "100.0"]


class Maker:
    def __init__(self, rng):
        self.rng = rng

    def pick(self, *options):
        return self.rng.choice(options)

    def text(self, depth):
        if depth <= 0 or self.rng.random() < 0.25:
            return self.rng.choice(STRINGS)
        s, t = self.text(depth - 1), self.text(depth - 2)
        i = self.integer(depth - 2)
        made = self.rng.choice([
            lambda: f"({s} ~ {self.value(depth - 1)})", lambda: f"({s} + {t})", lambda: f"({s})[{self.slice(depth - 2)}]",
            lambda: f"({s})|{self.pick('upper', 'lower', 'title', 'capitalize', 'trim', 'string', 'e', 'escape')}",
            lambda: f"({s}).{self.pick('upper', 'lower', 'title', 'capitalize', 'strip', 'lstrip', 'rstrip', 'swapcase')}()",
            lambda: f"({s}).{self.pick('strip', 'lstrip', 'rstrip', 'removeprefix', 'removesuffix')}({t})",
            lambda: f"({s}).replace({t}, {self.text(depth - 2)}{self.pick('', ', 1', ', -1')})",
            lambda: f"({s})|replace({t}, {self.text(depth - 2)}{self.pick('', ', 1')})",
            lambda: f"({s}).join({self.sequence(depth - 1)})", lambda: f"({self.sequence(depth - 1)})|join({t})",
            lambda: f"({s} if {self.truth(depth - 1)} else {t})", lambda: f"({self.value(depth - 1)})|tojson",
            lambda: f"({self.value(depth - 1)})|tojson({self.pick('indent=2', 'indent=0', 'sort_keys=true', 'ensure_ascii=true', 'indent=1, sort_keys=true', 'separators=(%r, %r)' % (';', '='))})",
            lambda: f"({self.value(depth - 1)})|string", lambda: f"({s})|indent({self.pick('2', '4, true', '1, false, true', 'width=3', 'first=true')})",
            lambda: f"({s} % {self.pick('()', '(1, 2)', self.value(depth - 2), '(' + t + ',' + str(i) + ')')})",
            lambda: f"'{self.pick('%s', '%d', '%5d', '%-6s|', '%05.1f', '%.2f', '%x', '%+d', '%e', '%g', '%r', '%5.1f%%', '%08.3f', '%c', '%o', '%X', '%i', '%.3s')}' % {self.value(depth - 2)}",
            lambda: f"'{self.pick('{}', '{0}-{0}', '{:>5}', '{:.2f}', '{a}', '{!r}', '{:,}', '{:05d}', '{{}}', '{:*^9}', '{0[0]}', '{:x}', '{:%}', '{:+}')}'.format({self.value(depth - 2)}{self.pick('', ', 1', ', a=2')})",
            lambda: f"({s})|format({self.value(depth - 2)})", lambda: f"({s})|truncate({self.pick('3', '5, true', '4, true, ' + repr('..'), '9, false', '8, true, leeway=0', '6, leeway=2')})",
            lambda: f"({s})|center({self.pick('9', '4', '20')})", lambda: f"({s}).{self.pick('center', 'ljust', 'rjust')}({self.pick('7', '8, ' + repr('*'), '2')})",
            lambda: f"({s}).zfill({self.pick('5', '2')})", lambda: f"({s})|default({t}{self.pick('', ', true')})", lambda: f"({s})|first",
            lambda: f"({s})|last", lambda: f"({s})|reverse", lambda: f"({s}).expandtabs({self.pick('', '4')})",
            lambda: f"({s}).format()", lambda: f"({s})|forceescape", lambda: f"({s})|safe", lambda: f"(({s})|e + {t})",
        ])
        return made()

    def slice(self, depth):
        parts = [self.pick("", "", str(self.rng.randrange(-4, 5)), self.integer(depth)) for _ in range(3)]
        return ":".join(parts[: self.rng.randrange(2, 4)])

    def integer(self, depth):
        if depth <= 0 or self.rng.random() < 0.3:
            return self.rng.choice(INTEGERS)
        a, b = self.integer(depth - 1), self.integer(depth - 2)
        return self.rng.choice([
            lambda: f"({a} {self.pick('+', '-', '*', '//', '%')} {b})", lambda: f"({a} ** {self.pick('2', '3', '0')})",
            lambda: f"(-{a})", lambda: f"({self.text(depth - 1)})|length", lambda: f"({self.sequence(depth - 1)})|{self.pick('length', 'count', 'sum', 'max', 'min')}",
            lambda: f"({self.text(depth - 1)}).{self.pick('find', 'rfind', 'count', 'index', 'rindex')}({self.text(depth - 2)}{self.pick('', '', ', 1', ', 0, 3')})",
            lambda: f"({self.value(depth - 1)})|int{self.pick('', '(9)', '(0, 16)', '(base=8)')}", lambda: f"({a})|abs",
            lambda: f"({self.sequence(depth - 1)}).{self.pick('index', 'count')}({self.value(depth - 2)})",
            lambda: f"({self.text(depth - 1)})|wordcount", lambda: f"({a} if {self.truth(depth - 1)} else {b})",
        ])()

    def number(self, depth):
        if self.rng.random() < 0.5:
            return self.integer(depth)
        if depth <= 0 or self.rng.random() < 0.4:
            return self.rng.choice(FLOATS)
        return self.rng.choice([
            lambda: f"({self.number(depth - 1)} {self.pick('+', '-', '*', '/', '//', '%', '**')} {self.number(depth - 2)})",
            lambda: f"({self.number(depth - 1)})|round{self.pick('', '(1)', '(2, ' + repr('ceil') + ')', '(0, ' + repr('floor') + ')', '(-1)', '(3)')}",
            lambda: f"({self.value(depth - 1)})|float{self.pick('', '(2.5)')}", lambda: f"({self.number(depth - 1)})|abs",
        ])()

    def truth(self, depth):
        if depth <= 0:
            return self.pick("true", "false", "n > 3", "x is string", "u is defined", "not l")
        return self.rng.choice([
            lambda: f"({self.value(depth - 1)} {self.pick('==', '!=', '<', '<=', '>', '>=', 'in', 'not in')} {self.value(depth - 1)})",
            lambda: f"({self.number(depth - 1)} {self.pick('<', '<=', '>', '>=')} {self.number(depth - 1)} {self.pick('<', '==')} {self.number(depth - 2)})",
            lambda: f"({self.truth(depth - 1)} {self.pick('and', 'or')} {self.truth(depth - 1)})", lambda: f"(not {self.value(depth - 1)})",
            lambda: f"({self.value(depth - 1)} is {self.pick('', 'not ')}{self.pick('defined', 'undefined', 'none', 'boolean', 'true', 'false', 'integer', 'float', 'number', 'string', 'mapping', 'iterable', 'sequence', 'callable')})",
            lambda: f"({self.integer(depth - 1)} is {self.pick('odd', 'even', 'divisibleby 3', 'divisibleby(2)', 'eq 7', 'ne 1', 'gt 2', 'lt(3)', 'ge 0', 'le 4', 'in [1, 2]', 'not in l', 'sameas true')})",
            lambda: f"({self.text(depth - 1)} is {self.pick('upper', 'lower', 'equalto ' + repr('a'), 'in x', 'filter', 'test', 'escaped')})",
            lambda: f"({self.text(depth - 1)}).{self.pick('isdigit', 'isalpha', 'isalnum', 'isspace', 'isupper', 'islower', 'istitle', 'isnumeric', 'isdecimal', 'isascii', 'isprintable')}()",
            lambda: f"({self.text(depth - 1)}).{self.pick('startswith', 'endswith')}({self.pick(self.text(depth - 2), '(' + repr('a') + ', ' + repr('c') + ')')}{self.pick('', '', ', 1')})",
        ])()

    def sequence(self, depth):
        if depth <= 0 or self.rng.random() < 0.2:
            return self.pick("l", "[1, 2, 3]", "['b', 'A', 'c']", "(1, 2)", "[]", "range(4)", "[[1, 'z'], [0, 'y']]", "'abc'", "d", "[3, 1.5, 2]", "[1, 1, 2]", "[{'a': 1, 'b': 'x'}, {'a': 0, 'b': 'Y'}]", "()", "range(5, 0, -2)")
        s = self.sequence(depth - 1)
        items = ", ".join(self.value(depth - 2) for _ in range(self.rng.randrange(0, 4)))
        return self.rng.choice([
            lambda: f"[{items}]", lambda: f"({items},)" if items else "()", lambda: f"({s})|list", lambda: f"({s})[{self.slice(depth - 2)}]",
            lambda: f"({s} + {self.sequence(depth - 1)})", lambda: f"({s})|sort{self.pick('', '(reverse=true)', '(case_sensitive=true)', '(attribute=0)')}",
            lambda: f"({s})|reverse|list", lambda: f"({s})|unique|list", lambda: f"({s})|map('{self.pick('string', 'upper', 'length', 'int', 'first', 'abs', 'tojson', 'list', 'trim', 'float')}')|list",
            lambda: f"({s})|map(attribute='{self.pick('a', 'b', '0', 'a.b')}'{self.pick('', ', default=0')})|list",
            lambda: f"({s})|{self.pick('select', 'reject')}{self.pick('', '(%r)' % 'string', '(%r)' % 'odd', '(%r, 1)' % 'gt', '(%r, [1])' % 'in', '(%r)' % 'defined')}|list",
            lambda: f"({s})|{self.pick('selectattr', 'rejectattr')}('a'{self.pick('', ', %r, 1' % 'equalto', ', %r' % 'defined', ', %r, 0' % '>')})|list",
            lambda: f"({self.text(depth - 1)}).{self.pick('split', 'rsplit')}({self.pick('', repr(','), repr(',') + ', 1', repr('X'), 'none, 1', 'sep=' + repr('a'), 'maxsplit=1')})",
            lambda: f"({self.text(depth - 1)}).splitlines({self.pick('', 'true')})", lambda: f"({self.text(depth - 1)}).{self.pick('partition', 'rpartition')}({self.pick(repr(','), repr('X'), repr(' '))})",
            lambda: f"({self.dictionary(depth - 1)}).{self.pick('items', 'keys', 'values')}()|list", lambda: f"({self.dictionary(depth - 1)})|{self.pick('dictsort', 'items|list', 'list', 'dictsort(by=%r)' % 'value', 'dictsort(true, %r, true)' % 'key')}",
            lambda: f"({s})|batch({self.pick('2', '3, 0', '2, none')})|list", lambda: f"({s})|slice({self.pick('2', '3, 0')})|list",
            lambda: f"({s})|groupby({self.pick('0', repr('a'), repr('b'))})|list", lambda: f"range({self.integer(depth - 2)}, {self.integer(depth - 2)})|list",
            lambda: f"({s} * {self.pick('2', '0', '-1')})", lambda: f"({self.text(depth - 1)})|list",
            lambda: f"({s}).copy()",
        ])()

    def dictionary(self, depth):
        if depth <= 0:
            return self.pick("d", "{}", "{'a': 1}", "{'b': 2, 'A': 1, 'c': none}", "dict(k=1)")
        items = ", ".join(f"{self.pick(repr('a'), repr('b'), '1', '2.0', 'true', 'none', repr('é'))}: {self.value(depth - 1)}" for _ in range(self.rng.randrange(0, 4)))
        return self.rng.choice([
            lambda: "{" + items + "}", lambda: f"dict({self.dictionary(depth - 1)}{self.pick('', ', z=1')})",
            lambda: f"dict([('a', {self.value(depth - 2)})])", lambda: f"dict(a={self.value(depth - 1)}, b=2)", lambda: f"({self.dictionary(depth - 1)}).copy()",
        ])()

    def value(self, depth):
        kind = self.rng.random()
        if kind < 0.05:
            return self.pick("u", "none", "u.a", "d.zz", "l[9]", "none.a", "(1 if false)", f"({self.sequence(depth - 1)})|{self.pick('min', 'max', 'first', 'last')}")
        if kind < 0.13:
            base = self.pick(self.dictionary(depth - 1), self.sequence(depth - 1))
            access = self.pick("[0]", "['a']", ".a", ".get('a')", ".get('q', 3)", "[-1]", "[1]", "['b']", "[none]", ".items", "|first", "|last")
            return f"({base}){access}"
        if kind < 0.45:
            return self.text(depth)
        if kind < 0.65:
            return self.number(depth)
        if kind < 0.75:
            return self.truth(depth)
        return self.sequence(depth) if kind < 0.9 else self.dictionary(depth)

    def tag(self, inner, kinds="%"):
        return "{" + kinds + self.pick("", "", "-", "+" if kinds == "%" else "") + " " + inner + " " + self.pick("", "", "-", "+" if kinds == "%" else "") + ("%" if kinds == "%" else "}") + "}"

    def gap(self):
        return self.pick("", "", " ", "\n", "  \n  ", "\t", " a ", "\n\n", "b\n", "{ ", "} ", "# ", "\r\n", "%")

    def output(self, depth):
        return self.tag(self.value(depth), "{")

    def body(self, depth, loop=False):
        return "".join(self.gap() + self.statement(depth, loop) for _ in range(self.rng.randrange(1, 4))) + self.gap()

    def statement(self, depth, loop=False):
        if depth <= 0 or self.rng.random() < 0.3:
            return self.output(self.rng.randrange(0, 3))
        body = lambda within=loop: self.body(depth - 1, within)  # noqa: E731
        return self.rng.choice([
            lambda: self.tag(f"if {self.truth(2)}") + body() + (self.tag(f"elif {self.truth(1)}") + body() if self.rng.random() < 0.4 else "") + (self.tag("else") + body() if self.rng.random() < 0.5 else "") + self.tag("endif"),
            lambda: self.tag(f"for i in {self.sequence(2)}{self.pick('', '', ' if ' + self.truth(1), ' if i', ' if loop.index is defined')}") + self.tag("loop." + self.pick("index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem", "depth", "cycle(1, 'b')", "changed(i)", "depth0"), "{") + "{{ i }}" + body(True) + (self.tag("else") + body() if self.rng.random() < 0.3 else "") + self.tag("endfor"),
            lambda: self.tag(f"for k, v in {self.pick('d.items()', 'd|dictsort', self.dictionary(1) + '.items()', '[(1, 2), (3, 4)]', self.dictionary(1) + '|items')}") + "{{ k }}={{ v }}" + body(True) + self.tag("endfor"),
            lambda: self.tag(f"for node in [[1, [2, [3]]], 4] recursive") + "{{ loop.depth }}{{ loop.depth0 }}" + "{% if node is iterable %}{{ loop(node) }}{% else %}{{ node }}{% endif %}" + self.tag("endfor"),
            lambda: self.tag(f"set {self.pick('v', 'w')} = {self.value(2)}") + "{{ v }}", lambda: self.tag(f"set v, w = {self.value(1)}, {self.value(1)}") + "{{ w }}",
            lambda: self.tag(f"set v{self.pick('', ' | upper', ' | trim', ' | replace(%r, %r)' % ('a', 'b'))}") + body(False) + self.tag("endset") + "[{{ v }}]",
            lambda: self.tag(f"set ns = namespace(a={self.value(1)}, b=0)") + "{% for i in [1, 2] %}{% set ns.b = ns.b + i %}" + body(True) + "{% endfor %}{{ ns.a }}{{ ns.b }}",
            lambda: self.tag(f"macro m(a, b={self.value(1)}, c=3)") + "{{ a }}{{ b }}{{ c }}" + self.pick("", "{{ varargs }}", "{{ kwargs }}", "{{ caller is defined }}", "{{ a|d('none') }}") + body(False) + self.tag("endmacro") + self.tag(f"m({self.pick('1', self.value(1), '', '1, 2', 'b=1', '1, c=2', '1, 2, 3, 4', 'z=1', '*[1, 2]', '**{%r: 5}' % 'b')})", "{"),
            lambda: "{% macro w(a='A') %}<{{ a }}>{{ caller(" + self.pick("", "", "1", "a") + ") }}{% endmacro %}" + self.tag(f"call{self.pick('', '', '(p)', '(p=2)')} w({self.pick('', self.value(1))})") + "{{ p }}" + body(False) + self.tag("endcall"),
            lambda: self.tag(f"filter {self.pick('upper', 'trim', 'replace(%r, %r)' % ('a', 'Z'), 'indent(2)', 'lower | title', 'length', 'tojson')}") + body(False) + self.tag("endfilter"),
            lambda: self.tag(f"with {self.pick('', 'v = ' + self.value(1), 'v = 1, w = v', 'x = n')}") + body() + "{{ v }}" + self.tag("endwith"),
            lambda: "{#" + self.pick("", "-", "+") + " {{ x }} {% if %} " + self.pick("", "-", "+") + "#}", lambda: self.tag("raw") + self.gap() + "{{ x }}{% if %}{#" + self.gap() + self.tag("endraw"),
            lambda: self.tag(self.pick("break", "continue")) if loop else self.output(2), lambda: self.tag("generation") + body(False) + self.tag("endgeneration"),
            lambda: self.tag(f"if {self.truth(1)}") + self.tag("set v = 5") + self.tag("endif") + "{{ v }}", lambda: self.tag("do " + self.value(1)) if self.rng.random() < 0.05 else self.output(1),
        ])()


def random_template(rng):
    """Half of them one expression, half of them statements."""
    maker = Maker(rng)
    if rng.random() < 0.5:
        return "{{ " + maker.value(rng.randrange(1, 5)) + " }}"
    return maker.body(rng.randrange(1, 3))
