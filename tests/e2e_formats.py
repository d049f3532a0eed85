"""Input formats on whole commands: files in several parts, 4-bit checkpoints, a model that is larger than memory."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest

from atom_cli import BINARY, GOLDEN, TEXT, Safetensors, assert_fails, copy_model, run, run_json, shard, write_gguf
from int4_models import int4_model

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "scripts" / "oracles"))
import checkpoint_golden  # noqa: E402
import checkpoint_int4  # noqa: E402

MODEL = GOLDEN / "gqa_tied_f32"
EVAL = ["--text", TEXT, "--window", "64"]


def perplexity(model):
    return run_json("eval", "ppl", model, *EVAL)["perplexity"]


def test_split_gguf(tmp_path):
    whole = write_gguf("gqa_tied_f32", tmp_path / "whole.gguf")
    write_gguf("gqa_tied_f32", tmp_path / "part.gguf", split_max_tensors=8)
    parts = sorted(tmp_path.glob("part-*.gguf"))
    assert [p.name for p in parts] == [f"part-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    expected = perplexity(whole)
    assert {perplexity(part) for part in parts} == {expected}
    assert run_json("inspect", parts[0])["bytes"] == sum(p.stat().st_size for p in parts)
    parts[1].unlink()
    assert parts[1].name in assert_fails(run("inspect", parts[0]), 1)


def test_sharded_safetensors(tmp_path):
    folder = copy_model("gqa_tied_f32", tmp_path / "model")
    weight_map = shard(folder)
    assert perplexity(folder) == perplexity(MODEL)
    assert run_json("inspect", folder)["bytes"] == sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    assert run("tokenize", folder, stdin="hello").returncode == 0
    out = tmp_path / "out"
    assert run("quantize", folder, "-o", out, "--recipe", "rtn").returncode == 0
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    name = next(iter(weight_map))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map | {name: "../x.safetensors"}}))
    assert name in assert_fails(run("inspect", folder), 1)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_int4_checkpoint(tmp_path, method):
    quantized, plain = int4_model("mha_wide_heads_f16", tmp_path, method)
    assert perplexity(quantized) == perplexity(plain)
    said = run_json("inspect", quantized)
    assert said["quantization"] is None and said["bits_per_weight"] < run_json("inspect", plain)["bits_per_weight"]
    assert run("quantize", quantized, "-o", tmp_path / "out", "--recipe", "rtn").returncode == 0
    shard(quantized)
    assert perplexity(quantized) == perplexity(plain)


def random_blocks(name, shape, noise):
    """Blocks of a GGUF type whose values have a standard deviation of about 0.05, and the type."""
    import gguf

    width, size, halves = checkpoint_golden.TYPES[name]
    kind = gguf.GGMLQuantizationType[name]
    blocks = noise.integers(0, 256, (shape[0] * shape[1] // width, size), dtype=np.uint8)

    def scaled(scale):
        for at in halves:
            blocks[:, at : at + 2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
        if name == "MXFP4":
            blocks[:, 0] = 121
        return blocks.reshape(shape[0], -1)

    return scaled(0.05 / np.std(gguf.dequantize(scaled(1), kind))), kind


def test_gguf_of_every_block_type(tmp_path):
    """One matrix of each type in one model: the same perplexity as of what the package gguf makes of it."""
    import gguf

    noise = np.random.default_rng(5)
    folder = copy_model("gqa_tied_f32", tmp_path / "plain", config=lambda config: config.update(
        hidden_size=256, intermediate_size=256, head_dim=64))
    file = Safetensors(folder / "model.safetensors")
    wider = {64: 256, 96: 256, 32: 128}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    types = [name for name, (width, _, _) in checkpoint_golden.TYPES.items() if width > 1]
    blocks, plain = {}, {}
    for name in file.names():
        shape = [wider.get(n, n) for n in file.header[name]["shape"]]
        if len(shape) == 1:
            plain[name] = np.ones(shape, np.float32)
            continue
        raw, kind = random_blocks(types[len(blocks)], shape, noise)
        blocks[names.get_name(name, try_suffixes=(".weight",))] = raw, kind
        plain[name] = gguf.dequantize(raw, kind)
        if "q_proj" in name or "k_proj" in name:
            plain[name] = plain[name].reshape(-1, 32, 2, 256).swapaxes(1, 2).reshape(shape)
    assert len(blocks) == len(types)
    checkpoint_int4.save_file({n: np.ascontiguousarray(v, np.float32) for n, v in plain.items()}, folder / "model.safetensors")

    source = gguf.GGUFReader(write_gguf(folder, tmp_path / "plain.gguf"))
    writer = gguf.GGUFWriter(str(tmp_path / "blocks.gguf"), "llama")
    for field in source.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=field.types[-1])
    for tensor in source.tensors:
        raw, kind = blocks.get(tensor.name, (tensor.data, None))
        writer.add_tensor(tensor.name, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expected = perplexity(folder)
    assert 1 < expected < 1e6 and perplexity(tmp_path / "blocks.gguf") == expected


def test_an_order_without_index_is_refused(tmp_path):
    quantized, _ = int4_model("mha_wide_heads_f16", tmp_path, "gptq")
    file = Safetensors(quantized / "model.safetensors")
    missing = "model.layers.1.mlp.up_proj.g_idx"
    file.remove(missing)
    file.write(quantized / "model.safetensors")
    assert missing in assert_fails(run("inspect", quantized), 1)


def test_a_head_of_its_own_is_not_ignored(tmp_path):
    def with_head(change):
        def tensors(file):
            head = file.floats("model.embed_tokens.weight")
            head[5, 3] += change
            file.add("lm_head.weight", head)

        return tensors

    assert perplexity(copy_model("gqa_tied_f32", tmp_path / "same", tensors=with_head(0))) == perplexity(MODEL)
    model = copy_model("gqa_tied_f32", tmp_path / "other", tensors=with_head(1))
    for command in (["eval", "ppl", model, *EVAL], ["quantize", model, "-o", tmp_path / "out", "--recipe", "rtn"]):
        error = assert_fails(run(*command), 1)
        assert "lm_head.weight" in error and "tie_word_embeddings" in error


def test_a_scale_of_the_last_tensor_is_seen_first(tmp_path):
    import gguf

    path = write_gguf("gqa_tied_f32", tmp_path / "model.gguf", quantize=gguf.GGMLQuantizationType.Q4_0)
    (tensor,) = (t for t in gguf.GGUFReader(path).tensors if t.name == "blk.1.ffn_up.weight")
    raw = bytearray(path.read_bytes())
    raw[tensor.data_offset + 18 : tensor.data_offset + 20] = np.float16(np.nan).tobytes()
    path.write_bytes(raw)
    for command in (["generate", path, "-p", "a"], ["quantize", path, "-o", tmp_path / "out", "--recipe", "rtn"]):
        result = run(*command)
        assert "blk.1.ffn_up.weight" in assert_fails(result, 1) and len(result.stderr.splitlines()) == 1


def test_a_quantization_of_null_is_none(tmp_path):
    model = copy_model("gqa_tied_f32", tmp_path / "model", config=lambda config: config.update(quantization_config=None))
    assert perplexity(model) == perplexity(MODEL)


# --- a model that is larger than memory -------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="large")
def fixture_large(tmp_path_factory):
    """Llama-2-7B in F16 with its vocabulary: 13.5 GB, of which the disk has the first bytes of each tensor, random."""
    import gguf

    path = tmp_path_factory.mktemp("large") / "7b.gguf"
    hidden, inner, layers, vocab = 4096, 11008, 32, 32000
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(32)
    writer.add_head_count_kv(32)
    writer.add_rope_dimension_count(128)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocab)
    letters = "etaoinshrdlu"
    words = ["<|endoftext|>"] + [chr(c) for c in range(33, 127)]
    merges = []
    while len(words) < vocab:
        i = len(merges)
        left = letters[i % 12] if i < 144 else words[95 + i // 12 - 12]
        merges.append(f"{left} {letters[i // 12 % 12] if i < 144 else letters[i % 12]}")
        words.append(merges[-1].replace(" ", ""))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (vocab - 1))
    writer.add_token_merges(merges)
    shapes = {"token_embd": (vocab, hidden), "output": (vocab, hidden), "output_norm": (hidden,)}
    for i in range(layers):
        shapes |= {f"blk.{i}.attn_{part}": (hidden, hidden) for part in ("q", "k", "v", "output")}
        shapes |= {f"blk.{i}.ffn_{part}": (inner, hidden) for part in ("gate", "up")}
        shapes |= {f"blk.{i}.ffn_down": (hidden, inner), f"blk.{i}.attn_norm": (hidden,), f"blk.{i}.ffn_norm": (hidden,)}
    sizes = []
    for name, shape in shapes.items():
        kind = np.float32 if len(shape) == 1 else np.float16
        sizes.append(int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize)
        writer.add_tensor_info(f"{name}.weight", shape, np.dtype(kind), sizes[-1])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    noise = random.Random(1)
    at = path.stat().st_size
    with path.open("r+b") as file:
        for size in sizes:
            at += -at % 32
            file.seek(at)
            file.write(noise.randbytes(min(size, 4096)))
            at += size
        try:
            file.truncate(at)
        except OSError as error:
            pytest.skip(f"no room for a sparse file of {at} bytes: {error}")
    if path.stat().st_blocks * 512 > at // 100:
        pytest.skip("the file system has no sparse files")
    assert at > 13e9
    yield path
    path.unlink()


def measure(*arguments, stdin=subprocess.DEVNULL):
    """(output, seconds of processor time, largest resident size in bytes) of a run that must succeed."""
    with subprocess.Popen([BINARY, *map(str, arguments)], stdin=stdin, stdout=subprocess.PIPE, text=True) as process:
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return out, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def test_large_model_is_inspected_without_reading_it(large):
    out, seconds, resident = measure("inspect", large, "--json")
    said = json.loads(out)
    assert said["bytes"] == large.stat().st_size and said["weights"] == 6738415616
    assert {layer["kind"] for layer in said["layers"]} == {"F16"}
    assert seconds < 1 and resident < 300e6, (seconds, resident)


def test_large_model_is_opened_without_reading_it(large, tmp_path):
    """What needs the tokenizer alone opens the model and never looks at a weight."""
    (tmp_path / "text").write_text("the tree in the rain")
    out, _, resident = measure("tokenize", large, "--text", tmp_path / "text")
    assert json.loads(out) and resident < 300e6, resident


# --- the packed format ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="packed")
def fixture_packed(tmp_path_factory):
    """Weights rounded to nearest, so that they differ from the original by half a scale at most."""
    out = tmp_path_factory.mktemp("packed") / "out"
    options = ["--recipe", "atom", "--no-gptq", "--weight-clip", "1", "--scales", "fp16", "--calib", TEXT, "--samples", "2",
               "--sample-length", "64", "--group", "16", "--outliers", "16"]
    result = run("quantize", GOLDEN / "mha_wide_heads_f16", "-o", out, *options)
    assert result.returncode == 0, result.stderr
    return out


def unpack(qweight, scales, outlier_qweight, outlier_scales, permutation, group):
    """(W, half a step of each value) as docs/format.md says, for whole matrices."""
    nibbles = np.stack([qweight & 15, qweight >> 4], axis=-1).reshape(len(qweight), -1).astype(np.int32)
    q = np.where(nibbles < 8, nibbles, nibbles - 16)
    steps = np.repeat(scales.astype(np.float32), group, axis=1)
    outlier_steps = np.broadcast_to(outlier_scales.astype(np.float32)[:, None], outlier_qweight.shape)
    in_order = np.concatenate([q * steps, outlier_qweight * outlier_steps], axis=1)
    weight, half = np.empty_like(in_order), np.empty_like(in_order)
    weight[:, permutation] = in_order
    half[:, permutation] = np.concatenate([steps, outlier_steps], axis=1) / 2
    return weight, half


def read_packed(folder):
    """Hugging Face name -> (W, half a step) of every linear layer, from safetensors and config.json alone."""
    from safetensors import safe_open

    config = json.loads((folder / "config.json").read_text())
    group = config["quantization_config"]["group_size"]
    inputs = {"qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], "o": ["self_attn.o_proj"],
              "gate_up": ["mlp.gate_proj", "mlp.up_proj"], "down": ["mlp.down_proj"]}
    found = {}
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        for layer in range(config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            rows = np.argsort(file.get_tensor(prefix + "down_input.permutation"))
            for name, linears in inputs.items():
                permutation = file.get_tensor(f"{prefix}{name}_input.permutation")
                for linear in linears:
                    parts = [file.get_tensor(f"{prefix}{linear}.{part}")
                             for part in ("qweight", "scales", "outlier_qweight", "outlier_scales")]
                    weight, half = unpack(*parts, permutation, group)
                    order = rows if name == "gate_up" else slice(None)
                    found[f"{prefix}{linear}.weight"] = weight[order], half[order]
    return found


def test_packed_weights_are_where_the_page_says(packed):
    original = Safetensors(GOLDEN / "mha_wide_heads_f16" / "model.safetensors")
    found = read_packed(packed)
    assert len(found) == 14
    for name, (weight, half) in found.items():
        expected = np.frombuffer(bytes(original.bytes_of(name)), np.float16).reshape(original.header[name]["shape"])
        error = np.abs(weight - expected.astype(np.float32))
        # What has a scale rounded down saturates, a little beyond half a step.
        assert np.all(error <= half * 1.01 + 1e-7), name
        assert np.mean(error) > 0.1 * np.mean(half), name


def test_packed_example_of_the_page():
    page = (pathlib.Path(__file__).resolve().parents[1] / "docs" / "format.md").read_text()
    example = json.loads(page.split("```json\n")[1].split("```")[0])

    def array(name, kind):
        return np.frombuffer(bytes.fromhex(example[name]), kind)

    weight, _ = unpack(array("qweight", "u1")[None], array("scales", "<f2")[None], array("outlier_qweight", "i1")[None],
                       array("outlier_scales", "<f2"), array("permutation", "<i4"), 2)
    assert weight[0].tolist() == example["W"]


def test_packed_directory_in_transformers(packed):
    import transformers

    config = transformers.AutoConfig.from_pretrained(packed)
    assert config.model_type == "llama" and config.quantization_config["quant_method"] == "atom"
    tokenizer = transformers.AutoTokenizer.from_pretrained(packed)
    text = "The harbour wakes"
    assert tokenizer(text)["input_ids"] == json.loads(run("tokenize", packed, stdin=text).stdout)
