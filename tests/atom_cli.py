"""Helpers of the end-to-end tests: running the binary, and reading and writing small model files."""

import json
import os
import pathlib
import shutil
import struct
import subprocess

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden"
TINY = ["gqa_tied_f32", "mqa_untied_bf16", "mha_wide_heads_f16"]
TEXT = GOLDEN / "text.txt"
BINARY = os.environ.get("ATOM_BINARY", str(GOLDEN.parents[1] / "build" / "release" / "apps" / "atom" / "atom"))

# Settings that make the whole recipe small enough for a tiny model.
TINY_QUANTIZE = ["--calib", str(TEXT), "--samples", "2", "--sample-length", "64", "--group", "16", "--outliers", "16"]


def run(*arguments, stdin=None, timeout=60, preexec=None, env=None):
    """Runs the binary; the result has returncode, stdout and stderr (text)."""
    return subprocess.run(
        [BINARY, *map(str, arguments)], input=stdin, stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True, text=True, errors="replace", timeout=timeout, check=False, preexec_fn=preexec,
        env={**os.environ, **(env or {})})


def run_ok(*arguments, **options):
    """Standard output of a run that must succeed."""
    result = run(*arguments, **options)
    assert result.returncode == 0, f"{arguments}: exit code {result.returncode}\n{result.stderr}"
    return result.stdout


def run_json(*arguments, **options):
    """The one JSON object that a command prints with --json."""
    out = run_ok(*arguments, "--json", **options)
    value = json.loads(out)
    assert isinstance(value, dict), out
    return value


def assert_fails(result, code):
    """One error line on standard error, nothing on standard output, no sign of a crash."""
    shown = f"exit code {result.returncode}\nstdout: {result.stdout[-500:]}\nstderr: {result.stderr[-1500:]}"
    assert result.returncode == code, shown
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, shown
    assert len(errors[0]) < 600 and errors[0].isprintable(), shown
    assert result.stdout == "", shown
    assert "Sanitizer" not in result.stderr and "terminate called" not in result.stderr, shown
    return errors[0]


class Safetensors:
    """A safetensors file in memory: `header` (dict, in file order) and `data` (bytes)."""

    def __init__(self, path):
        raw = pathlib.Path(path).read_bytes()
        (length,) = struct.unpack_from("<Q", raw)
        self.header = json.loads(raw[8 : 8 + length])
        self.data = bytearray(raw[8 + length :])

    def names(self):
        return [name for name in self.header if name != "__metadata__"]

    def bytes_of(self, name):
        begin, end = self.header[name]["data_offsets"]
        return self.data[begin:end]

    def floats(self, name):
        """A tensor of F32, F16 or BF16 as a float32 array."""
        import numpy as np

        entry, raw = self.header[name], bytes(self.bytes_of(name))
        if entry["dtype"] == "BF16":
            array = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            array = np.frombuffer(raw, {"F32": np.float32, "F16": np.float16}[entry["dtype"]]).astype(np.float32)
        return array.reshape(entry["shape"])

    def add(self, name, array):
        """Appends an array of float32, float16 or int32."""
        raw = array.tobytes()
        self.header[name] = {"dtype": {"float32": "F32", "float16": "F16", "int32": "I32"}[str(array.dtype)],
                             "shape": list(array.shape), "data_offsets": [len(self.data), len(self.data) + len(raw)]}
        self.data += raw

    def remove(self, name):
        """Takes a tensor out and closes the gap."""
        begin, end = self.header.pop(name)["data_offsets"]
        del self.data[begin:end]
        for other in self.names():
            first, last = self.header[other]["data_offsets"]
            if first >= end:
                self.header[other]["data_offsets"] = [first - (end - begin), last - (end - begin)]

    def write(self, path):
        header = json.dumps(self.header).encode()
        header += b" " * (-len(header) % 8)
        pathlib.Path(path).write_bytes(struct.pack("<Q", len(header)) + header + self.data)


def copy_model(name, folder, config=None, tensors=None, tokenizer=None):
    """Copies a tiny model to `folder`, changed by functions of its config (dict), Safetensors and tokenizer (dict)."""
    folder = pathlib.Path(folder)
    shutil.copytree(GOLDEN / name, folder)
    for file, change in (("config.json", config), ("tokenizer.json", tokenizer)):
        if change:
            value = json.loads((folder / file).read_text())
            change(value)
            (folder / file).write_text(json.dumps(value))
    if tensors:
        file = Safetensors(folder / "model.safetensors")
        tensors(file)
        file.write(folder / "model.safetensors")
    return folder


def shard(folder):
    """Distributes the tensors of a model over two files, every other one to each; returns the index's weight_map."""
    names = Safetensors(folder / "model.safetensors").names()
    weight_map = {}
    for i in (0, 1):
        file = Safetensors(folder / "model.safetensors")
        for name in names[1 - i :: 2]:
            file.remove(name)
        file.write(folder / f"model-0000{i + 1}-of-00002.safetensors")
        weight_map |= {name: f"model-0000{i + 1}-of-00002.safetensors" for name in names[i::2]}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def add_gguf_rope(writer, config):
    """RoPE scaling as GGUF has it: keys, or for llama3 a tensor of what each frequency is divided by."""
    import gguf
    import numpy as np

    rope = {**(config.get("rope_parameters") or {}), **(config.get("rope_scaling") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    theta = rope.get("rope_theta", config.get("rope_theta"))
    writer.add_rope_freq_base(theta)
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "llama3":
        frequencies = theta ** -(np.arange(0, config["head_dim"], 2) / config["head_dim"])
        turns = rope["original_max_position_embeddings"] * frequencies / (2 * np.pi)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        kept = np.clip((turns - low) / (high - low), 0, 1)
        writer.add_tensor("rope_freqs.weight", (1 / ((1 - kept) / rope["factor"] + kept)).astype(np.float32))
    elif kind == "yarn":
        assert not {"mscale", "mscale_all_dim", "attention_factor", "truncate"} & rope.keys(), "GGUF has no such keys"
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def add_gguf_tokenizer(writer, folder, pre="gpt-2"):
    """The byte-level BPE of the tiny models, with the words of the pre-tokenizer `pre`."""
    import gguf

    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocab = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocab)
    writer.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in vocab])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])


def write_gguf(name, path, skip=(), change=None, architecture=None, quantize=None, tokenizer=add_gguf_tokenizer, **writer_options):
    """Writes a tiny model as a GGUF file, as conversion scripts do: rows of q and k interleaved for llama's RoPE.

    skip: GGUF names of tensors to leave out. change(name, array): the array to write instead. architecture: another
    name than the model's. quantize: a gguf.GGMLQuantizationType for the matrices whose rows allow it. tokenizer(writer,
    folder): adds the tokenizer. writer_options: of gguf.GGUFWriter.
    """
    import gguf
    import numpy as np

    folder = GOLDEN / name
    config = json.loads((folder / "config.json").read_text())
    family = {"mistral": "llama"}.get(config["model_type"], config["model_type"])
    writer = gguf.GGUFWriter(str(path), architecture or family, **writer_options)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    add_gguf_rope(writer, config)
    if config["model_type"] == "mistral" and config["sliding_window"]:
        writer.add_sliding_window(config["sliding_window"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    tokenizer(writer, folder)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])

    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, family.upper()), config["num_hidden_layers"])
    file = Safetensors(folder / "model.safetensors")
    for hf_name in file.names():
        array = file.floats(hf_name)
        for part, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if part in hf_name and family == "llama":
                array = array.reshape(config[heads], 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        gguf_name = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        if gguf_name in skip:
            continue
        if change:
            array = change(gguf_name, array)
        if quantize is not None and array.ndim == 2 and array.shape[1] % 32 == 0:
            writer.add_tensor(gguf_name, gguf.quants.quantize(array, quantize), raw_dtype=quantize)
        else:
            writer.add_tensor(gguf_name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
