#!/usr/bin/env python3
"""Writes what `jinja2`, set up as Hugging Face sets it up, renders, for chat_template_oracle_test.cpp to compare with.

    text_template.py --out FILE [--model MODEL.gguf] [--templates FOLDER] [--seed N]

A line {"name", "template"} begins a template; the lines behind it are runs of it: {"messages",
"add_generation_prompt", "variables", "expected"}, where `expected` is null when jinja2 raises an error. The templates
are ours (text_template_families.py), with the constructs of each model family's; --model adds the one of a GGUF file and
--templates every *.jinja of a folder.
"""
import argparse
import json
import random
import sys
from datetime import datetime
from pathlib import Path

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from text_template_cases import EXPRESSIONS, STATEMENTS
from text_template_conversations import conversation, variables
from text_template_families import FAMILIES
from text_template_random import random_template

RUNS = 200  # conversations of each template


def environment():
    """As transformers.utils.chat_template_utils makes it."""

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

        def _same(self, caller):
            return caller()

    class Dictionary:
        def __call__(self, *args, **kwargs):
            return dict(*args, **kwargs)

        def fromkeys(self, *args, **kwargs):
            return dict.fromkeys(*args, **kwargs)

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
    made.globals["dict"] = Dictionary()
    return made


def render(template, messages, prompt, extra):
    values = {"tools": None, "documents": None, **extra}
    try:
        return template.render(messages=messages, add_generation_prompt=prompt, **values)
    except Exception:  # whatever jinja2 raises, the interpreter must raise too
        return None


def is_comparable(expected):
    """Not an address of an object in this process."""
    return expected is None or " at 0x" not in expected


class Writer:
    def __init__(self, out):
        self.out = out
        self.made = environment()

    def write(self, name, source, runs):
        self.out.write(json.dumps({"name": name, "template": source}) + "\n")
        try:
            template = self.made.from_string(source)
        except Exception:
            template = None
        for messages, prompt, extra in runs:
            expected = None if template is None else render(template, messages, prompt, extra)
            if not is_comparable(expected):
                continue
            try:
                if expected is not None:
                    expected.encode()
            except UnicodeEncodeError:  # lone surrogates
                continue
            run = {"messages": messages, "add_generation_prompt": prompt, "variables": extra, "expected": expected}
            self.out.write(json.dumps(run) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--model")
    parser.add_argument("--templates")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--random", type=int, default=1200)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    templates = list(FAMILIES.items())
    if options.model:
        from gguf import GGUFReader

        templates.append(("model", GGUFReader(options.model).fields["tokenizer.chat_template"].contents()))
    for path in sorted(Path(options.templates).glob("*.jinja")) if options.templates else []:
        templates.append(("real " + path.stem, path.read_text(encoding="utf-8")))
    with open(options.out, "w", encoding="utf-8") as out:
        writer = Writer(out)
        for name, source in templates:
            runs = [(conversation(rng, i), rng.random() < 0.5, variables(rng, i)) for i in range(RUNS)]
            writer.write(name, source, runs)
        fixed = {
            "x": "abc", "n": 7, "f": 3.14159, "l": ["a", 1, None], "d": {"a": 1, "b": [True, {"c": "é"}], "items": 3},
        }
        messages = [{"role": "user", "content": "hi"}]
        for line in EXPRESSIONS.strip().split("\n"):
            for expression in line.split(" | "):
                writer.write("expression", "{{ " + expression + " }}", [(messages, False, fixed)])
        for source in STATEMENTS:
            writer.write("statement", source, [(messages, False, fixed)])
        # The same ones whatever other templates there are. Without folding of constants, for which jinja2 has rules of its
        # own: where a slice's bounds are no integers, it is an error at run time and undefined when folded.
        rng = random.Random(options.seed)
        writer.made.optimized = False
        for _ in range(options.random):
            writer.write("random", random_template(rng), [(messages, False, fixed)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
