"""Families x formats x tokenizers: tiny models against what transformers computed, and ids against tokenizer packages.

With ATOM_WRITE_RESULTS=1 it writes docs/results/models.json, of which scripts/render_results.py makes the table in
docs/models.md; otherwise it fails where that file says something else than what was checked.

A row is a model (MODELS) with a tokenizer that its family has, a column a format (FORMATS): add to these. In each
cell the perplexity is that of the model with the tokenizer of tests/golden (which transformers' value belongs to), and
the ids of mixed text are those of the oracle of the row's tokenizer, put into the same model.
"""

import importlib.util
import json
import math
import os

import pytest

from atom_cli import GOLDEN, TEXT, TINY_QUANTIZE, Safetensors, add_gguf_tokenizer, copy_model, run_json, run_ok, shard, write_gguf
from int4_models import int4_model
from model_tokenizers import ByteLevel, SentencePiece, Tekken, text
from text_tokenizer import LLAMA3, QWEN2

for package in ("sentencepiece", "tiktoken", "mistral_common"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed", allow_module_level=True)

RESULTS = GOLDEN.parents[1] / "docs" / "results" / "models.json"
GGUF = ("GGUF_F32", "GGUF_F16_or_BF16", "GGUF_Q8", "split_GGUF")

GPT2 = ByteLevel("byte-level BPE, GPT-2", "gpt-2")
LLAMA3_WORDS = ByteLevel("byte-level BPE, Llama-3", "llama-bpe", LLAMA3, bos=True)
QWEN2_WORDS = ByteLevel("byte-level BPE, Qwen2", "qwen2", QWEN2, nfc=True)
SENTENCEPIECE = SentencePiece()
TEKKEN = Tekken()

# Folder in tests/golden, name, tokenizer, formats that cannot hold it. GGUF has no windows of some layers alone, and of
# YaRN only the plain parameters.
MODELS = [
    ("llama2", "Llama-2", SENTENCEPIECE, ()),
    ("llama_linear", "Llama, linear RoPE scaling", SENTENCEPIECE, ()),
    ("llama_yarn_mscale", "Llama, YaRN with mscale", GPT2, GGUF),
    ("llama_bias", "Llama, biases of attention and MLP", GPT2, ()),
    ("llama3_scaled", "Llama-3, llama3 RoPE scaling", LLAMA3_WORDS, ()),
    ("mistral_window", "Mistral, sliding window", TEKKEN, ()),
    ("qwen2", "Qwen2", QWEN2_WORDS, ()),
    ("qwen2_windows", "Qwen2, window of some layers, YaRN", QWEN2_WORDS, GGUF),
    ("qwen3", "Qwen3", QWEN2_WORDS, ()),
    ("qwen3_layer_types", "Qwen3, layer_types, biases, YaRN with attention_factor", QWEN2_WORDS, GGUF),
]


def sharded(folder, path, tokenizer):
    model = copy_model(folder, path)
    shard(model)
    return model


def gguf_file(kind, **options):
    def write(folder, path, tokenizer):
        import gguf

        bf16 = json.loads((GOLDEN / folder / "config.json").read_text()).get("torch_dtype") == "bfloat16"
        name = "BF16" if kind == "F16" and bf16 else kind
        quantize = None if kind == "F32" else gguf.GGMLQuantizationType[name]
        write_gguf(folder, path.with_suffix(".gguf"), quantize=quantize, tokenizer=tokenizer, **options)
        return min(path.parent.glob(f"{path.name}*.gguf"))

    return write


def int4(method):
    def write(folder, path, tokenizer):
        path.mkdir()
        return int4_model(folder, path, method)[0]

    return write


def packed(*options):
    def write(folder, path, tokenizer):
        run_ok("quantize", GOLDEN / folder, "-o", path, *options)
        return path

    return write


# Column: how to make it, which perplexity it is compared with (transformers' by the name of the golden file's field; of
# 4-bit checkpoints the float model's that it stands for, made by numpy), how far its logarithm (the mean negative
# log-likelihood) may be off: 1e-4 where only sums are rounded otherwise, else about three times what was seen.
FORMATS = {
    "safetensors": (lambda folder, path, tokenizer: GOLDEN / folder, "text_perplexity", 1e-4),
    "sharded_safetensors": (sharded, "text_perplexity", 1e-4),
    "GPTQ": (int4("gptq"), "numpy", 0),
    "AWQ": (int4("awq"), "numpy", 0),
    "GGUF_F32": (gguf_file("F32"), "text_perplexity", 1e-4),
    "GGUF_F16_or_BF16": (gguf_file("F16"), "text_perplexity", 1e-4),
    "GGUF_Q8": (gguf_file("Q8_0"), "text_perplexity_q8_0", 1e-4),
    "split_GGUF": (gguf_file("F32", split_max_tensors=8), "text_perplexity", 1e-4),
    "packed_W8A8": (packed("--recipe", "w8a8"), "text_perplexity", 0.03),
    "packed_W4A4KV4": (packed(*TINY_QUANTIZE), "text_perplexity", 0.3),
}


def perplexity(model, column):
    options = [] if column.startswith("packed") else ["--kv-cache", "f32"]
    return run_json("eval", "ppl", model, "--text", TEXT, "--window", "96", "--windows", "4", *options)["perplexity"]


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
    source = copy_model(folder, tmp_path / "source")
    tokenizer.install(source)
    oracle_name, oracle = tokenizer.oracle(source)
    mixed = text(tokenizer.specials)
    (tmp_path / "mixed.txt").write_bytes(mixed.encode())
    ids = oracle(mixed)
    row = {"name": name, "tokenizer": tokenizer.name}
    for column, (make, oracle, bound) in FORMATS.items():
        row[column] = None if column in without else bound
        if column in without:
            continue
        found = perplexity(make(folder, tmp_path / column, add_gguf_tokenizer), column)
        if oracle == "numpy":
            expected = perplexity(tmp_path / column / f"{column.lower()}_plain", column)
        else:
            expected = float(golden[oracle])
        assert abs(math.log(found) - math.log(expected)) <= bound, column
        model = make(source, tmp_path / f"{column}_text", tokenizer.gguf)
        found = json.loads(run_ok("tokenize", model, "--text", tmp_path / "mixed.txt", *tokenizer.options))
        assert found == ids, column
    row["oracles"] = f"transformers {golden['transformers']}, {oracle_name}"
    table[folder] = row
    if os.environ.get("ATOM_WRITE_RESULTS") != "1":
        assert row in json.loads(RESULTS.read_text())["rows"], "docs/results/models.json is out of date"
