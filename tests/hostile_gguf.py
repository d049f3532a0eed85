"""Malformed GGUF files: see e2e_hostile.py."""

import random
import struct

import numpy as np

from hostile import Variant, kind


class Layout:
    """Where things are in a GGUF file."""

    SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

    def __init__(self, raw):
        self.raw = raw
        self.at = 8
        n_tensors, n_fields = self.u64(), self.u64()
        self.fields, self.tensors = {}, {}
        for _ in range(n_fields):
            begin = self.at
            key = self.text()
            type_at = self.at
            code = self.u32()
            value_at = self.at
            self.skip(code)
            self.fields[key] = {"begin": begin, "type": type_at, "value": value_at, "end": self.at, "code": code}
        self.table = self.at
        for _ in range(n_tensors):
            begin = self.at
            name = self.text()
            dims_at = self.at
            n = self.u32()
            self.tensors[name] = {"begin": begin, "n": dims_at, "dims": dims_at + 4, "type": dims_at + 4 + 8 * n, "offset": dims_at + 8 + 8 * n}
            self.at = dims_at + 16 + 8 * n
            self.tensors[name]["end"] = self.at
        self.table_end = self.at
        self.data = (self.at + 31) // 32 * 32

    def u32(self):
        self.at += 4
        return struct.unpack_from("<I", self.raw, self.at - 4)[0]

    def u64(self):
        self.at += 8
        return struct.unpack_from("<Q", self.raw, self.at - 8)[0]

    def text(self):
        n = self.u64()
        self.at += n
        return self.raw[self.at - n : self.at].decode()

    def skip(self, code):
        if code == 8:
            self.text()
        elif code == 9:
            code, n = self.u32(), self.u64()
            for _ in range(n):
                self.skip(code)
        else:
            self.at += self.SIZES[code]


def put(raw, at, form, *values):
    return raw[:at] + struct.pack(form, *values) + raw[at + struct.calcsize(form) :]


def gguf_of(folder, label, raw, *names, command="inspect"):
    path = folder / (label.replace(" ", "_").replace("/", "_") + ".gguf")
    path.write_bytes(raw)
    return Variant(label, path, path.name, *names, command=command)


@kind
def gguf_truncated(folder, sources):
    raw = sources.gguf
    layout = Layout(raw)
    tokens = layout.fields["tokenizer.ggml.tokens"]
    cuts = [0, 3, 4, 7, 8, 15, 16, 23, 24, 31, tokens["begin"] + 3, tokens["type"], tokens["value"] + 4, tokens["value"] + 11, tokens["end"] - 1,
            layout.table, layout.table + 9, layout.table_end - 1, layout.table_end, layout.data, layout.data + 1, len(raw) // 2, len(raw) - 33]
    for cut in cuts:
        yield gguf_of(folder, f"cut at {cut}", raw[:cut], command=["inspect", "generate", "tokenize"][cut % 3])


@kind
def gguf_counts(folder, sources):
    raw = sources.gguf
    layout = Layout(raw)
    first = layout.fields["general.architecture"]["begin"]
    tokens = layout.fields["tokenizer.ggml.tokens"]["value"]
    tensor = layout.tensors["blk.0.attn_q.weight"]
    huge = [1 << 31, 1 << 62, 1 << 63, (1 << 64) - 1]
    for i, value in enumerate(huge):
        yield gguf_of(folder, f"tensors {value}", put(raw, 8, "<Q", value))
        yield gguf_of(folder, f"fields {value}", put(raw, 16, "<Q", value))
        yield gguf_of(folder, f"key length {value}", put(raw, first, "<Q", value))
        yield gguf_of(folder, f"array length {value}", put(raw, tokens + 4, "<Q", value), command="tokenize")
        yield gguf_of(folder, f"name length {value}", put(raw, tensor["begin"], "<Q", value))
        yield gguf_of(folder, f"dimensions {value}", put(raw, tensor["n"], "<I", [5, 0, 1 << 31, (1 << 32) - 1][i]))


@kind
def gguf_tensors(folder, sources):
    raw = sources.gguf
    layout = Layout(raw)
    q, k = layout.tensors["blk.0.attn_q.weight"], layout.tensors["blk.0.attn_k.weight"]
    name = "blk.0.attn_q.weight"
    yield gguf_of(folder, "product overflows", put(raw, q["dims"], "<QQ", 1 << 33, 1 << 33), name)
    yield gguf_of(folder, "product wraps to zero", put(raw, q["dims"], "<QQ", 1 << 32, 1 << 32), name)
    yield gguf_of(folder, "negative", put(raw, q["dims"], "<q", -64), name)
    yield gguf_of(folder, "no columns", put(raw, q["dims"], "<Q", 0), command="generate")
    yield gguf_of(folder, "2^63 columns", put(raw, q["dims"], "<Q", 1 << 63), name)
    yield gguf_of(folder, "unknown type", put(raw, q["type"], "<I", 30000), name)
    yield gguf_of(folder, "type of the future", put(raw, q["type"], "<I", 1 << 31), name)
    yield gguf_of(folder, "block type", put(raw, q["type"], "<I", 12), command="generate")
    yield gguf_of(folder, "offset beyond", put(raw, q["offset"], "<Q", 1 << 40), name)
    yield gguf_of(folder, "offset wraps", put(raw, q["offset"], "<Q", (1 << 64) - 32), name)
    yield gguf_of(folder, "offset not aligned", put(raw, q["offset"], "<Q", 1), name)
    other = struct.unpack_from("<Q", raw, k["offset"])[0]
    yield gguf_of(folder, "overlaps", put(raw, q["offset"], "<Q", other), "blk.0.attn_", command="generate")
    at = k["begin"] + 8
    yield gguf_of(folder, "name twice", raw[:at] + b"blk.0.attn_q.weight" + raw[at + 19 :], name)
    yield gguf_of(folder, "name not UTF-8", raw[:at] + b"\xff" + raw[at + 1 :])
    yield gguf_of(folder, "name unknown", raw[:at] + b"blk.7.attn_q.weight" + raw[at + 19 :], command="generate")


@kind
def gguf_fields(folder, sources):
    raw = sources.gguf
    fields = Layout(raw).fields

    def changed(key, form, value, *names, command="generate", label=None):
        return gguf_of(folder, label or f"{key} {value}", put(raw, fields[key]["value"], form, value), *names, command=command)

    for key, values in {
        "llama.block_count": [0, 3, 1 << 31], "llama.embedding_length": [0, 63, 1 << 31], "llama.attention.head_count": [0, 3, 1 << 30],
        "llama.attention.head_count_kv": [0, 3], "llama.feed_forward_length": [0, (1 << 32) - 1], "llama.context_length": [0],
        "llama.rope.dimension_count": [0, 8], "llama.attention.key_length": [0, 1 << 31],
    }.items():
        for value in values:
            yield changed(key, "<I", value)
    for value in (float("nan"), float("inf"), -1.0, 0.0):
        yield changed("llama.rope.freq_base", "<f", value)
    yield changed("llama.attention.layer_norm_rms_epsilon", "<f", float("nan"))
    for key in ("llama.block_count", "general.architecture", "tokenizer.ggml.tokens", "llama.rope.freq_base"):
        yield gguf_of(folder, f"{key} of an unknown type", put(raw, fields[key]["type"], "<I", 77), key)
    for key in ("llama.embedding_length", "llama.attention.head_count", "general.architecture"):
        at = fields[key]["begin"] + 8
        yield gguf_of(folder, f"{key} missing", raw[:at] + b"x" + raw[at + 1 :], command="generate")
    at = fields["llama.context_length"]["begin"] + 8
    yield gguf_of(folder, "key not UTF-8", raw[:at] + b"\xff\xfe" + raw[at + 2 :], command="generate")
    first, second = fields["llama.attention.key_length"], fields["llama.attention.value_length"]
    copy = raw[first["begin"] : first["end"]]
    yield gguf_of(folder, "key twice", put(raw[: second["end"]] + copy + raw[second["end"] :], 16, "<Q", len(fields) + 1), "llama.attention.key_length")
    yield gguf_of(folder, "magic", b"GGML" + raw[4:])
    for version in (0, 1, 4, 0x03000000):
        yield gguf_of(folder, f"version {version}", put(raw, 4, "<I", version), str(version))
    for key, value in {"tokenizer.ggml.bos_token_id": 320, "tokenizer.ggml.eos_token_id": (1 << 32) - 1}.items():
        yield changed(key, "<I", value, command="generate")


@kind
def gguf_values(folder, sources):
    rng = random.Random(9)
    layout = Layout(sources.gguf)
    for i, (name, value) in enumerate([("blk.0.attn_q.weight", "nan"), ("blk.1.ffn_down.weight", "inf"), ("output_norm.weight", "-inf"),
                                       ("token_embd.weight", "nan"), ("blk.1.attn_norm.weight", "nan")]):
        start = layout.data + struct.unpack_from("<Q", sources.gguf, layout.tensors[name]["offset"])[0]
        at = start + 4 * rng.randrange(60)
        yield gguf_of(folder, f"{name} {value}", put(sources.gguf, at, "<f", float(value)), name, command=["generate", "eval"][i % 2])
    layout = Layout(sources.q8_0)
    for i, (name, value) in enumerate([("blk.0.attn_q.weight", 0x7E00), ("blk.1.ffn_down.weight", 0x7C00), ("token_embd.weight", 0xFC00),
                                       ("blk.0.ffn_up.weight", 0xFE01), ("blk.1.attn_v.weight", 0x7DFF)]):
        start = layout.data + struct.unpack_from("<Q", sources.q8_0, layout.tensors[name]["offset"])[0]
        at = start + 34 * rng.randrange(60)
        yield gguf_of(folder, f"{name} scale {value:x}", put(sources.q8_0, at, "<H", value), name, command=["generate", "eval"][i % 2])


@kind
def gguf_parts(folder, sources):
    """Files of a split model that do not belong together."""
    import gguf

    def part(path, number, count, tensors, total=2, **fields):
        path.parent.mkdir(exist_ok=True)
        writer = gguf.GGUFWriter(str(path), "llama")
        fields = {"split.no": number, "split.count": count, **fields}
        for key, value in fields.items():
            writer.add_uint16(key, value)
        writer.add_int32("split.tensors.count", total)
        for name in tensors:
            writer.add_tensor(name, np.zeros((4, 32), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def of(label, parts, named, *names, cut=None):
        base = folder / label.replace(" ", "_")
        paths = []
        for position, arguments in enumerate(parts):
            paths.append(base / f"m-{position + 1:05}-of-{named:05}.gguf")
            part(paths[-1], *arguments[0], **arguments[1])
        if cut is not None:
            paths[-1].write_bytes(paths[-1].read_bytes()[:cut])
        return Variant(label, paths[0], "of-", *names, command="inspect")

    yield of("second missing", [((0, 2, ["a"]), {})], 2, "00002-of-00002")
    yield of("all but one missing", [((0, 65535, ["a"]), {})], 65535)
    yield of("second is the first", [((0, 2, ["a"]), {}), ((0, 2, ["b"]), {})], 2)
    yield of("tensor twice", [((0, 2, ["a"]), {}), ((1, 2, ["a"]), {})], 2)
    yield of("second of another count", [((0, 2, ["a"]), {}), ((1, 3, ["b"]), {})], 2)
    yield of("tensors missing", [((0, 2, ["a"]), {"total": 9}), ((1, 2, ["b"]), {"total": 9})], 2)
    yield of("tensors negative", [((0, 2, ["a"]), {"total": -1}), ((1, 2, ["b"]), {})], 2)
    yield of("number beyond the count", [((7, 2, ["a"]), {}), ((1, 2, ["b"]), {})], 2)
    yield of("no parts", [((0, 0, ["a"]), {})], 2)
    yield of("name says another count", [((0, 2, ["a"]), {})], 3)
    yield of("second cut", [((0, 2, ["a"]), {}), ((1, 2, ["b"]), {})], 2, "00002-of-00002", cut=100)
    yield of("second empty", [((0, 2, ["a"]), {}), ((1, 2, ["b"]), {})], 2, "00002-of-00002", cut=0)
