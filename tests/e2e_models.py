"""Families x formats x tokenizers: the perplexity of tiny models against what transformers computed for them.

With ATOM_WRITE_RESULTS=1 it writes docs/results/models.json, of which scripts/render_results.py makes the table in
docs/models.md; otherwise it fails where that file says something else than what was checked.

A row is a model (MODELS) with its tokenizer, a column a format (FORMATS): add to these.
"""

import json
import math
import os

import pytest

from atom_cli import GOLDEN, TEXT, TINY_QUANTIZE, Safetensors, copy_model, run_json, run_ok, write_gguf

RESULTS = GOLDEN.parents[1] / "docs" / "results" / "models.json"
TINY_TOKENIZER = "byte-level BPE"
GGUF = ("GGUF_F32", "GGUF_F16_or_BF16", "GGUF_Q8")

# Folder in tests/golden, name, tokenizer, formats that cannot hold it. GGUF has no windows of some layers alone, and of
# YaRN only the plain parameters.
MODELS = [
    ("llama2", "Llama-2", TINY_TOKENIZER, ()),
    ("llama_linear", "Llama, linear RoPE scaling", TINY_TOKENIZER, ()),
    ("llama_yarn_mscale", "Llama, YaRN with mscale", TINY_TOKENIZER, GGUF),
    ("llama_bias", "Llama, biases of attention and MLP", TINY_TOKENIZER, ()),
    ("llama3_scaled", "Llama-3, llama3 RoPE scaling", TINY_TOKENIZER, ()),
    ("mistral_window", "Mistral, sliding window", TINY_TOKENIZER, ()),
    ("qwen2", "Qwen2", TINY_TOKENIZER, ()),
    ("qwen2_windows", "Qwen2, window of some layers, YaRN", TINY_TOKENIZER, GGUF),
    ("qwen3", "Qwen3", TINY_TOKENIZER, ()),
    ("qwen3_layer_types", "Qwen3, layer_types, biases, YaRN with attention_factor", TINY_TOKENIZER, GGUF),
]


def sharded(folder, path):
    """The model with every other tensor in a second file."""
    model = copy_model(folder, path)
    names = Safetensors(model / "model.safetensors").names()
    weight_map = {}
    for i, others in enumerate((names[1::2], names[::2])):
        file = Safetensors(model / "model.safetensors")
        for name in others:
            file.remove(name)
        shard = f"model-0000{i + 1}-of-00002.safetensors"
        file.write(model / shard)
        weight_map |= dict.fromkeys(file.names(), shard)
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return model


def gguf_file(kind):
    def write(folder, path):
        import gguf

        bf16 = json.loads((GOLDEN / folder / "config.json").read_text()).get("torch_dtype") == "bfloat16"
        name = "BF16" if kind == "F16" and bf16 else kind
        quantize = None if kind == "F32" else gguf.GGMLQuantizationType[name]
        return write_gguf(folder, path.with_suffix(".gguf"), quantize=quantize)

    return write


def packed(*options):
    def write(folder, path):
        run_ok("quantize", GOLDEN / folder, "-o", path, *options)
        return path

    return write


# Column: how to make it, which of transformers' perplexities it is compared with, how far its logarithm (the mean
# negative log-likelihood) may be off: 1e-4 where only sums are rounded otherwise, else about three times what was seen.
FORMATS = {
    "safetensors": (lambda folder, path: GOLDEN / folder, "text_perplexity", 1e-4),
    "sharded_safetensors": (sharded, "text_perplexity", 1e-4),
    "GGUF_F32": (gguf_file("F32"), "text_perplexity", 1e-4),
    "GGUF_F16_or_BF16": (gguf_file("F16"), "text_perplexity", 1e-4),
    "GGUF_Q8": (gguf_file("Q8_0"), "text_perplexity_q8_0", 1e-4),
    "packed_W8A8": (packed("--recipe", "w8a8"), "text_perplexity", 0.03),
    "packed_W4A4KV4": (packed(*TINY_QUANTIZE), "text_perplexity", 0.3),
}


@pytest.fixture(scope="module", name="table")
def fixture_table():
    """Rows that were checked, by folder; compared with the file, or written, when all are done."""
    rows = {}
    yield rows
    if os.environ.get("ATOM_WRITE_RESULTS") != "1":
        return
    assert len(rows) == len(MODELS), "a part of the table is not written"
    RESULTS.write_text(json.dumps({
        "machine": "Largest difference of the mean negative log-likelihood from the oracle's that the test lets pass",
        "command": "ATOM_WRITE_RESULTS=1 pytest tests/e2e_models.py", "rows": list(rows.values())}, indent=2) + "\n")


@pytest.mark.parametrize("folder, name, tokenizer, without", MODELS, ids=[m[0] for m in MODELS])
def test_model(folder, name, tokenizer, without, table, tmp_path):
    golden = Safetensors(GOLDEN / f"{folder}_logits.safetensors").header["__metadata__"]
    row = {"name": name, "tokenizer": tokenizer}
    for column, (make, oracle, bound) in FORMATS.items():
        row[column] = None if column in without else bound
        if column in without:
            continue
        model = make(folder, tmp_path / column)
        options = [] if column.startswith("packed") else ["--kv-cache", "f32"]
        found = run_json("eval", "ppl", model, "--text", TEXT, "--window", "96", "--windows", "4", *options)["perplexity"]
        assert abs(math.log(found) - math.log(float(golden[oracle]))) < bound, column
    row["oracle"] = f"transformers {golden['transformers']}"
    table[folder] = row
    if os.environ.get("ATOM_WRITE_RESULTS") != "1":
        assert row in json.loads(RESULTS.read_text())["rows"], "docs/results/models.json is out of date"
