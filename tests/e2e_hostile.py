"""Some 470 malformed models of 22 kinds. Each ends within a second in exit code 1 and one line that names the
file, and the tensor or field where there is one; nothing is left behind, and the process takes less memory than the size of
its files and 200 MB.

A kind is a function that yields variants: a label, what has to stand in the error line, and the model's path, which it makes.
All are made from fixed seeds.
"""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import random
import socket
import struct
import subprocess
import tempfile
import threading
import time

import pytest

import hostile_gguf  # noqa: F401  (its kinds)
from atom_cli import BINARY, TINY_QUANTIZE, Safetensors, copy_model, run, write_gguf
from hostile import KINDS, MODEL, Variant, kind, model_of

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
SECONDS = float(os.environ.get("ATOM_TEST_SECONDS", "1"))
MEGABYTES = 200


def size_of(path):
    if path.is_dir():
        return sum(size_of(p) for p in path.iterdir())
    return path.stat().st_size if path.is_file() else 0


def problems_of(variant):
    """What is wrong with how a run ended; an empty list if nothing is."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        begin = time.monotonic()
        process = subprocess.Popen(
            [BINARY, *map(str, variant.arguments(pathlib.Path(folder) / "out"))], stdout=out, stderr=error,
            stdin=subprocess.DEVNULL if variant.stdin is None else subprocess.PIPE, cwd=folder)
        killer = threading.Timer(20, process.kill)
        killer.start()
        if variant.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(variant.stdin.encode())
                process.stdin.close()
        _, status, usage = os.wait4(process.pid, 0)
        killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - begin
        out.seek(0), error.seek(0)
        printed, lines = out.read(), error.read().decode(errors="replace").splitlines()
        left = os.listdir(folder)
    found = []
    if process.returncode != 1:
        found.append(f"exit code {process.returncode}")
    if len(lines) != 1 or not lines[0].startswith("error: ") or not lines[0].isprintable() or len(lines[0]) > 600:
        found.append("not one line of error")
    found += [f"does not name {name!r}" for name in variant.names if name not in "\n".join(lines)]
    if printed or left:
        found.append(f"printed {printed[:80]!r}, left {left}")
    # What the process took itself: a moment on a busy machine is not its fault.
    busy = usage.ru_utime + usage.ru_stime
    if min(seconds, busy) > SECONDS or seconds > 15:
        found.append(f"{seconds:.2f} s, {busy:.2f} s of them at work")
    if usage.ru_maxrss / 1024 > MEGABYTES + size_of(variant.path) / 1e6:
        found.append(f"{usage.ru_maxrss / 1024:.0f} MB")
    if found:
        found.append(f"{variant.command}: " + "\n".join(lines[:4])[:500])
    return found


@pytest.fixture(scope="module", name="workers")
def fixture_workers():
    with concurrent.futures.ThreadPoolExecutor(2) as workers:
        yield workers


@pytest.fixture(scope="module", name="sources")
def fixture_sources(tmp_path_factory):
    return Sources(tmp_path_factory.mktemp("sources"))


class Sources:
    """Good models, which the variants are made from."""

    def __init__(self, folder):
        import gguf

        self.gguf = write_gguf("gqa_tied_f32", folder / "good.gguf").read_bytes()
        self.q8_0 = write_gguf("gqa_tied_f32", folder / "q8_0.gguf", quantize=gguf.GGMLQuantizationType.Q8_0).read_bytes()
        self.packed = folder / "packed"
        result = run("quantize", MODEL, "-o", self.packed, *TINY_QUANTIZE)
        assert result.returncode == 0, result.stderr
        self.tensors = (MODEL / "model.safetensors").read_bytes()


# --- safetensors ------------------------------------------------------------------------------------------------------


@kind
def safetensors_truncated(folder, sources):
    raw = sources.tensors
    (header,) = struct.unpack_from("<Q", raw)
    end = 8 + header
    ends = sorted(v["data_offsets"][1] for v in json.loads(raw[8:end]).values() if "data_offsets" in v)
    cuts = [0, 1, 7, 8, 9, end // 2, end - 1, end, end + 1, end + ends[0], end + ends[1] - 1, end + ends[-2], len(raw) - 1]
    for cut in cuts:
        yield Variant(cut, model_of(folder / str(cut), tensors=raw[:cut]), "model.safetensors",
                      command=["inspect", "generate", "quantize"][cut % 3])


@kind
def safetensors_header_lengths(folder, sources):
    raw = sources.tensors
    (header,) = struct.unpack_from("<Q", raw)
    lengths = [0, 1, header - 8, header + 8, len(raw) - 7, len(raw), 1 << 31, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 8,
               (1 << 64) - 1]
    for length in lengths:
        yield Variant(length, model_of(folder / str(length), tensors=struct.pack("<Q", length) + raw[8:]), "model.safetensors",
                      command="inspect")


@kind
def safetensors_headers(folder, _sources):
    entry = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    headers = {
        "empty": "", "list": "[]", "null": "null", "open": "{", "string": '"a"', "number": "1e999", "deep lists": "[" * 100000,
        "deep objects": '{"a":' * 100000, "deep entry": '{"a":' + "[" * 5000 + "]" * 5000 + "}", "invalid UTF-8": b'{"a\xff":' + entry.encode() + b"}",
        "twice": f'{{"a":{entry},"a":{entry}}}', "huge number": '{"a":{"dtype":"F32","shape":[' + "9" * 100000 + '],"data_offsets":[0,4]}}',
        "text behind": "{} {}", "metadata of numbers": '{"__metadata__":{"a":1}}', "metadata list": '{"__metadata__":[]}',
        "many dimensions": '{"a":{"dtype":"F32","shape":[' + ",".join(["1"] * 50000) + '],"data_offsets":[0,4]}}', "no tensors": "{}",
    }
    for label, header in headers.items():
        header = header if isinstance(header, bytes) else header.encode()
        raw = struct.pack("<Q", len(header)) + header + bytes(4)
        yield Variant(label, model_of(folder / label.replace(" ", "_"), tensors=raw), "model.safetensors", command="generate")


@kind
def safetensors_entries(folder, _sources):
    fields = {
        "dtype": {"dtype": "F8_E9M9"}, "dtype is a number": {"dtype": 7}, "no dtype": {"dtype": None}, "shape too large": {"shape": [64, 65]},
        "shape negative": {"shape": [-64, -64]}, "shape overflows": {"shape": [1 << 62, 4]}, "shape of 2^63": {"shape": [1 << 63, 2]},
        "shape is a text": {"shape": "64"}, "shape of fractions": {"shape": [64.5, 64]}, "offset beyond": {"data_offsets": [0, 1 << 60]},
        "offsets backwards": {"data_offsets": [16384, 0]}, "offset negative": {"data_offsets": [-16384, 0]},
        "offset of 2^64": {"data_offsets": [0, (1 << 64) - 1]}, "three offsets": {"data_offsets": [0, 1, 2]},
        "offset fraction": {"data_offsets": [0.5, 16384]}, "overlaps": {"data_offsets": [0, 16384]}, "shape zero": {"shape": [0, 64]},
        "unknown field": {"surprise": 1},
    }
    for label, change in fields.items():
        def tensors(file, change=change):
            file.header[Q_PROJ].update(change)

        yield Variant(label, copy_model("gqa_tied_f32", folder / label.replace(" ", "_"), tensors=tensors), "model.safetensors",
                      "model.", command=["generate", "quantize"][len(label) % 2])


@kind
def safetensors_values(folder, _sources):
    rng = random.Random(5)
    names = [Q_PROJ, "model.norm.weight", "model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight",
             "model.layers.0.input_layernorm.weight"]
    values = [float("nan"), float("inf"), -float("inf"), 1e30]
    for i in range(12):
        name, value = names[i % len(names)], values[i % 3 if i < 10 else 3]

        def tensors(file, name=name, value=value):
            begin, end = file.header[name]["data_offsets"]
            struct.pack_into("<f", file.data, begin + rng.randrange((end - begin) // 4) * 4, value)

        yield Variant(f"{i} {name} {value}", copy_model("gqa_tied_f32", folder / str(i), tensors=tensors), name, str(folder / str(i)),
                      command=["generate", "eval"][i % 2])


@kind
def shards(folder, sources):
    """model.safetensors.index.json and what it names."""
    names = list(Safetensors(MODEL / "model.safetensors").names())
    index = {"metadata": {"total_size": 1}, "weight_map": {name: "a.safetensors" for name in names}}

    def of(label, content, *expected, link=None, raw=sources.tensors):
        path = model_of(folder / label.replace(" ", "_"))
        (path / "model.safetensors").unlink()
        (path / "a.safetensors").write_bytes(raw)
        (path / "model.safetensors.index.json").write_text(content if isinstance(content, str) else json.dumps(content))
        if link:
            os.symlink(link, path / "b.safetensors")
        return Variant(label, path, *expected, command="generate")

    def mapped(name, file):
        return {**index, "weight_map": {**index["weight_map"], name: file}}

    file = "model.safetensors.index.json"
    yield of("names itself", mapped(names[0], file), file)
    yield of("file missing", mapped(names[0], "c.safetensors"), "c.safetensors")
    yield of("upwards", mapped(names[0], "../a.safetensors"), file)
    yield of("absolute", mapped(names[0], "/etc/passwd"), file)
    yield of("empty name", mapped(names[0], ""), file)
    yield of("zero byte", mapped(names[0], "a\0.safetensors"), file)
    yield of("number", mapped(names[0], 7), file)
    yield of("tensor not there", mapped("model.extra.weight", "a.safetensors"), "model.extra.weight")
    yield of("link to itself", mapped(names[0], "b.safetensors"), "b.safetensors", link="b.safetensors")
    yield of("link to the folder", mapped(names[0], "b.safetensors"), "b.safetensors", link=".")
    yield of("no map", {"metadata": {}}, file)
    yield of("map is a list", {"weight_map": []}, file)
    yield of("map is empty", {"weight_map": {}}, file)
    yield of("not JSON", "{", file)
    yield of("deep", '{"weight_map":' * 100000, file)
    yield of("shard cut", index, "a.safetensors", raw=sources.tensors[:-1])
    yield of("twice", '{"weight_map":{"x":"a.safetensors","x":"a.safetensors"}}', file)


# --- config.json ------------------------------------------------------------------------------------------------------


def documents(name):
    """Documents that are not what a file of objects holds."""
    return {
        "empty": "", "blank": "  \n", "open": "{", "list": "[]", "null": "null", "text": '"a"', "zeros": "\0" * 100, "cut": '{"a": [1, 2',
        "deep lists": "[" * 200000, "deep objects": '{"a":' * 200000, "deep and closed": '{"a":' + "[" * 20000 + "]" * 20000 + "}",
        "invalid UTF-8": b'{"a": "\xc3\x28"}', "surrogates": b'{"a": "\xed\xa0\x80"}', "UTF-16": '{"a": 1}'.encode("utf-16"),
        "twice": '{"a": 1, "a": 2}', "behind": "{} x", "comment": "/* x */ {}", "name": "{" + name + ": 1}", "NaN": '{"a": NaN}',
        "number too large": '{"a": 1' + "0" * 400 + "}",
    }


@kind
def config_documents(folder, _sources):
    for label, text in documents("hidden_size").items():
        yield Variant(label, model_of(folder / label.replace(" ", "_"), config=text), "config.json",
                      command=["inspect", "generate"][len(label) % 2])


@kind
def config_fields(folder, _sources):
    good = json.loads((MODEL / "config.json").read_text())
    rng = random.Random(13)
    numbers = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
               "vocab_size", "max_position_embeddings"]
    absurd = [0, -1, 1 << 40, 1 << 63, -(1 << 63), 1e300, 2.5, "64", None, True, [], {}]
    changes = [(name, value) for name in numbers for value in rng.sample(absurd, 3) if not (value is None and name in ("head_dim", "num_key_value_heads"))]
    changes += [("rms_norm_eps", v) for v in (-1, "small", 1e39)] + [("rope_theta", v) for v in (0, -1, 1e300, "x")]
    changes += [("architectures", ["MambaForCausalLM"]), ("architectures", []), ("architectures", 7), ("model_type", "t5"), ("model_type", None),
                ("hidden_act", "gelu"), ("tie_word_embeddings", "yes"), ("quantization_config", {"quant_method": "marlin"}),
                ("quantization_config", []), ("num_local_experts", 8), ("rope_scaling", {"rope_type": "from_another_planet", "factor": 8.0}),
                ("rope_scaling", "x"), ("rope_scaling", {"rope_type": "linear", "factor": -1}), ("eos_token_id", 320), ("eos_token_id", -1)]
    for number, (name, value) in enumerate(changes):
        text = json.dumps({**good, name: value})
        yield Variant(f"{name} {value}", model_of(folder / str(number), config=text), f"{folder}/{number}", name,
                      command=["generate", "inspect", "quantize"][number % 3] if name != "eos_token_id" else "generate")


@kind
def config_against_shapes(folder, _sources):
    good = json.loads((MODEL / "config.json").read_text())
    changes = [{"hidden_size": 128}, {"hidden_size": 32}, {"intermediate_size": 100}, {"num_attention_heads": 8}, {"num_key_value_heads": 1},
               {"head_dim": 8}, {"head_dim": 32}, {"vocab_size": 321}, {"vocab_size": 1}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3},
               {"tie_word_embeddings": False}, {"num_hidden_layers": 10000}, {"vocab_size": 1 << 30}]
    for number, change in enumerate(changes):
        yield Variant(str(change), model_of(folder / str(number), config=json.dumps({**good, **change})), command=["generate", "inspect"][number % 2])


# --- tokenizer --------------------------------------------------------------------------------------------------------


@kind
def tokenizer_documents(folder, _sources):
    for label, text in documents("model").items():
        yield Variant(label, model_of(folder / label.replace(" ", "_"), tokenizer=text), "tokenizer.json", command="tokenize", stdin="a")


@kind
def tokenizer_contents(folder, _sources):
    good = (MODEL / "tokenizer.json").read_text()
    split = {"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated", "invert": False}

    def pattern(regex):
        return lambda t: t.update(pre_tokenizer={**split, "pattern": {"Regex": regex}})

    changes = {
        "type": lambda t: t["model"].update(type="Telepathy"), "no vocabulary": lambda t: t["model"].update(vocab={}),
        "vocabulary is a list": lambda t: t["model"].update(vocab=[]), "same id": lambda t: t["model"].update(vocab={"a": 0, "b": 0}),
        "negative id": lambda t: t["model"].update(vocab={"a": -1}), "id of 2^40": lambda t: t["model"].update(vocab={"a": 1 << 40}),
        "id of 2^63": lambda t: t["model"].update(vocab={"a": 1 << 63}), "id is a text": lambda t: t["model"].update(vocab={"a": "0"}),
        "merge unknown": lambda t: t["model"].update(merges=[["no", "such"]]), "merge of one": lambda t: t["model"].update(merges=["one"]),
        "merges are a number": lambda t: t["model"].update(merges=17), "merge of three": lambda t: t["model"].update(merges=[["a", "b", "c"]]),
        "merge with nothing": lambda t: t["model"].update(merges=[["", "a"]]),
        "merge of what merges to it": lambda t: t["model"].update(vocab={"a": 0, "aa": 1}, merges=[["aa", "a"], ["a", "aa"]]),
        "regex open": pattern("(a+"), "regex too long": pattern("a" * 200000), "regex deep": pattern("(" * 5000 + ")" * 5000),
        "pattern is a number": lambda t: t.update(pre_tokenizer={**split, "pattern": 7}), "behavior": lambda t: t.update(pre_tokenizer={**split, "behavior": "Odd"}),
        "pre-tokenizer": lambda t: t.update(pre_tokenizer={"type": "Telepathy"}), "normalizer": lambda t: t.update(normalizer={"type": "Telepathy"}),
        "post-processor": lambda t: t.update(post_processor={"type": "Telepathy"}), "decoder": lambda t: t.update(decoder={"type": "Telepathy"}),
        "added negative": lambda t: t.update(added_tokens=[{"id": -4, "content": "x", "special": True}]),
        "added 2^31": lambda t: t.update(added_tokens=[{"id": 1 << 31, "content": "x", "special": True}]),
        "added empty": lambda t: t.update(added_tokens=[{"id": 4, "content": "", "special": True}]),
        "added is a number": lambda t: t.update(added_tokens=7),
    }
    for number, (label, change) in enumerate(changes.items()):
        tokenizer = json.loads(good)
        change(tokenizer)
        yield Variant(label, model_of(folder / str(number), tokenizer=json.dumps(tokenizer)), f"{folder}/{number}", "tokenizer",
                      command="tokenize", stdin="hello")


@kind
def tokenizer_patterns_that_backtrack(folder, _sources):
    """A regular expression of exponential cost is stopped, not waited for."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    patterns = ["(a|aa|a?)+$", "(a+)+$", "(a*)*$", "(a|a)*$", "([a-z]+)*$", "(x+x+)+y|(a+)+c", "(aa|a)*$", "(a|aa|aaa)+[0-9]", "((a+)+)+$", "(\\w+)*\\d",
                "a*?a*?a*?a*?a*?a*?a*?[bc]"]
    for number, regex in enumerate(patterns):
        tokenizer = json.loads((MODEL / "tokenizer.json").read_text())
        split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
        tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}
        yield Variant(regex, model_of(folder / str(number), tokenizer=json.dumps(tokenizer)), "tokenizer", "pattern.Regex", command="tokenize",
                      stdin="a" * 5000 + "!")
    # Each match costs little, all of them too much: in one text, and in as many as another pattern makes of it.
    slow = {"type": "Split", "pattern": {"Regex": "(a|aa)+[0-9]|a{25}!"}, "behavior": "Isolated", "invert": False}
    parts = {"type": "Split", "pattern": {"Regex": "a+!"}, "behavior": "Isolated", "invert": False}
    for label, steps in {"many matches": [slow, byte_level], "many texts": [parts, slow, byte_level]}.items():
        tokenizer = json.loads((MODEL / "tokenizer.json").read_text())
        tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
        yield Variant(label, model_of(folder / label.replace(" ", "_"), tokenizer=json.dumps(tokenizer)), "tokenizer", "pattern.Regex",
                      command="tokenize", stdin=("a" * 25 + "!") * 5000)


# --- chat templates ---------------------------------------------------------------------------------------------------


@kind
def templates(folder, _sources):
    doubling = "{% set ns = namespace(x=(1,)) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}"
    sources = {
        "loops": "{% for a in range(100000) %}{% for b in range(100000) %}{{ b }}{% endfor %}{% endfor %}",
        "loops in silence": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "macro calls itself": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", "loop calls itself": "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
        "grows": "{% set ns = namespace(x='a') %}{% for i in range(9999) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "shares and prints": doubling + "{{ ns.x }}",
        "shares and compares": doubling + "{{ ns.x < ns.x }}", "repeats": "{{ 'a' * 1000000000 }}", "range": "{{ range(1000000000000) }}",
        "replaces": "{{ ('a' * 9999999) | replace('a', 'b' * 9999999) }}", "power": "{{ 9 ** 9 ** 9 }}", "width": "{{ '%999999999d' % 1 }}",
        "parentheses": "{{ " + "(" * 100000, "lists": "{{ " + "[" * 100000, "blocks": "{% if 1 %}" * 100000, "attributes": "{{ x" + ".a" * 100000 + " }}",
        "sum": "{{ 1" + "+1" * 100000 + " }}", "many names": "".join(f"{{% set a{i} = 1 %}}" for i in range(60000)) + "{{ raise_exception('x') }}",
        "large": "{{ 1 }}" * 1000000, "raises": "{{ raise_exception('no') }}", "open": "{{ messages", "unknown filter": "{{ 1 | nosuch }}",
        "unknown tag": "{% include 'x' %}", "invalid UTF-8": b"{{ '\xff' }}",
    }
    for number, (label, source) in enumerate(sources.items()):
        yield Variant(label, model_of(folder / str(number), template=source), "template", command="chat", stdin="hello\n")


# --- packed checkpoints -----------------------------------------------------------------------------------------------


@kind
def packed_settings(folder, sources):
    good = json.loads((sources.packed / "config.json").read_text())

    def of(number, label, change, *names):
        path = folder / str(number)
        path.mkdir()
        for file in sources.packed.iterdir():
            if file.name != "config.json":
                (path / file.name).symlink_to(file)
        config = json.loads(json.dumps(good))
        change(config["quantization_config"])
        (path / "config.json").write_text(json.dumps(config))
        return Variant(label, path, str(path), "quantization_config", *names, command=["generate", "inspect"][number % 2])

    number = 0
    for field in good["quantization_config"]:
        for value in ({"not": ["this"]}, 1 << 40) if field != "calibration" else ([1], 7):
            yield of(number, f"{field} {value}", lambda settings, field=field, value=value: settings.update({field: value}), field)
            number += 1
        if field != "quant_method":
            yield of(number, f"no {field}", lambda settings, field=field: settings.pop(field), field)
            number += 1
    for field, value in {"surprise": 1, "version": 999, "recipe": "", "kv_cache_bits": 3, "weight_bits": 5}.items():
        if field == "recipe":
            continue
        yield of(number, f"{field} {value}", lambda settings, field=field, value=value: settings.update({field: value}), field)
        number += 1


@kind
def packed_tensors(folder, sources):
    good = Safetensors(sources.packed / "model.safetensors")
    names = good.names()

    def first(*parts):
        return next(name for name in names if all(part in name for part in parts))

    permutation, clip = first("permutation"), first("clip")
    scales = first("q_proj", "scales")

    def packed(number, label, change, *expected, command="generate"):
        path = folder / str(number)
        path.mkdir()
        for file in sources.packed.iterdir():
            if file.name != "model.safetensors":
                (path / file.name).symlink_to(file)
        file = Safetensors(sources.packed / "model.safetensors")
        change(file)
        file.write(path / "model.safetensors")
        return Variant(label, path, str(path), *expected, command=command)

    def value(name, index, form, number):
        def change(file):
            at = file.header[name]["data_offsets"][0] + index * struct.calcsize(form)
            struct.pack_into(form, file.data, at, number)

        return change

    def entry(name, **fields):
        return lambda file: file.header[name].update(fields)

    changes = [("permutation repeats", value(permutation, 0, "<i", 5), permutation), ("permutation beyond", value(permutation, 3, "<i", 64), permutation),
               ("permutation negative", value(permutation, 1, "<i", -1), permutation), ("permutation huge", value(permutation, 1, "<i", (1 << 31) - 1), permutation)]
    changes += [(f"clip {number}", value(clip, 0, "<f", number), clip) for number in (0.0, -0.5, 1.5, float("nan"), float("inf"), 1e-45, -0.0) if number != 1e-45]
    changes += [(f"scale {number}", value(scales, 0, "<e", number), scales) for number in (float("nan"), float("inf"), -float("inf"), -1.0)
                if good.header[scales]["dtype"] == "F16"]
    changes += [("embedding NaN", value("model.embed_tokens.weight", 7, "<f", float("nan")), "model.embed_tokens.weight"),
                ("outlier of -128", value(first("outlier_qweight"), 0, "<b", -128), first("outlier_qweight")),
                ("outlier scale NaN", value(first("outlier_scales"), 0, "<e", float("nan")), first("outlier_scales")),
                ("outlier scale negative", value(first("outlier_scales"), 0, "<e", -1.0), first("outlier_scales")),
                ("wrong type", entry(permutation, dtype="F32"), permutation), ("wrong shape", entry(clip, shape=[1, 1]), clip)]
    for name in (permutation, clip, scales, first("q_proj", ".qweight") if any(".qweight" in n for n in names) else scales, "model.norm.weight"):
        changes.append((f"no {name}", lambda file, name=name: file.remove(name), name))

    def extra(file):
        file.header["model.extra"] = {"dtype": "F32", "shape": [1], "data_offsets": [len(file.data), len(file.data) + 4]}
        file.data += bytes(4)

    changes.append(("superfluous", extra, "model.extra"))
    for number, (label, change, *expected) in enumerate(changes):
        yield packed(number, label, change, *expected, command=["generate", "inspect", "eval"][number % 3])


# --- paths ------------------------------------------------------------------------------------------------------------


@kind
def files_that_are_none(folder, _sources):
    """In the place of a model's file, or of the model: a pipe, a folder, a device, a link to itself, a socket."""

    def socket_at(path):
        # The path of a socket must be short: bound where it is.
        here = os.getcwd()
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
        os.chdir(here)

    makers = {
        "pipe": os.mkfifo, "folder": os.mkdir, "device": lambda path: path.symlink_to("/dev/zero"), "link to itself": lambda path: path.symlink_to(path.name),
        "link to nothing": lambda path: path.symlink_to("nowhere"), "empty": pathlib.Path.touch, "socket": socket_at,
    }
    if os.geteuid() != 0:
        makers["unreadable"] = lambda path: (path.touch(), path.chmod(0))
    for label, make in makers.items():
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            path = model_of(folder / f"{label}_{name}".replace(" ", "_"))
            (path / name).unlink()
            make(path / name)
            yield Variant(f"{label} {name}", path, name, command="generate")
        path = folder / f"{label}.gguf".replace(" ", "_")
        make(path)
        yield Variant(f"{label} for a model", path, path.name, command="inspect")


# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", KINDS, ids=lambda function: function.__name__)
def test_hostile(function, sources, workers, tmp_path):
    variants = list(function(tmp_path, sources))
    before = sorted(tmp_path.rglob("*"))
    assert len(variants) >= 10
    results = list(workers.map(problems_of, variants))
    wrong = [f"{variant.label}: {'; '.join(found)}" for variant, found in zip(variants, results) if found]
    assert not wrong, f"{len(wrong)} of {len(variants)}:\n" + "\n".join(wrong)
    assert sorted(tmp_path.rglob("*")) == before


def test_there_are_enough_kinds():
    assert len(KINDS) >= 20
