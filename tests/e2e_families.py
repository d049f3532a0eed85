"""Model families: every recipe on each, and every field of a config.json that is not supported is refused by name.

The tiny models are those of tests/golden; e2e_models.py compares them with transformers.
"""

import json
import math

import pytest

from atom_cli import GOLDEN, TEXT, TINY_QUANTIZE, Safetensors, assert_fails, copy_model, run, run_json, run_ok

FAMILIES = ["llama2", "llama3_scaled", "llama_linear", "llama_bias", "llama_yarn_mscale", "mistral_window", "qwen2",
            "qwen2_windows", "qwen3", "qwen3_layer_types"]
EVAL = ["--text", TEXT, "--window", "96", "--windows", "4"]
CALIBRATION = ["--calib", TEXT, "--samples", "2", "--sample-length", "96"]

# A recipe, its options, and by how many nats a token its model may differ from the original (of 6 to 10; about
# three times what was seen).
RECIPES = [
    ("atom", [*TINY_QUANTIZE, "--rotate-keys"], 0.3),
    ("atom-w4a8", TINY_QUANTIZE, 0.2),
    ("rtn", [], 0.8),
    ("w8a8", [], 0.03),
    ("w4a16", [*CALIBRATION, "--group", "16"], 0.25),
]


def nll(model, *options):
    return math.log(run_json("eval", "ppl", model, *EVAL, *options)["perplexity"])


def vectors(model):
    """The tensors of one dimension that stay in full precision: name -> (type, bytes)."""
    file = Safetensors(model / "model.safetensors")
    return {name: (file.header[name]["dtype"], bytes(file.bytes_of(name))) for name in file.names()
            if name.endswith((".bias", "norm.weight"))}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_recipe(name, tmp_path):
    original = nll(GOLDEN / name)
    for recipe, options, bound in RECIPES:
        out = tmp_path / recipe
        run_ok("quantize", GOLDEN / name, "-o", out, "--recipe", recipe, *options)
        assert abs(nll(out) - original) < bound, recipe
        said = json.loads((out / "config.json").read_text())
        del said["quantization_config"]
        assert said == json.loads((GOLDEN / name / "config.json").read_text())
        kept, before = vectors(out), vectors(GOLDEN / name)
        assert kept.keys() == before.keys()
        # Rows of gate and up, and their biases, come in the order of what reads them.
        moved = {n for n in kept if kept[n] != before[n]}
        assert all(n.endswith(("gate_proj.bias", "up_proj.bias")) for n in moved), moved
        assert bool(moved) == (name == "llama_bias" and recipe.startswith("atom"))
        if recipe == "atom":
            assert len({nll(out, "--isa", isa) for isa in ("reference", "avx2", "avx512")}) == 1


def test_biases_of_gate_and_up_follow_the_rows(tmp_path):
    import numpy as np

    run_ok("quantize", GOLDEN / "llama_bias", "-o", tmp_path / "out", *TINY_QUANTIZE)
    before, after = (Safetensors(m / "model.safetensors") for m in (GOLDEN / "llama_bias", tmp_path / "out"))
    order = np.frombuffer(after.bytes_of("model.layers.1.down_input.permutation"), np.int32)
    assert (order != np.arange(len(order))).any()
    for part in ("gate", "up"):
        name = f"model.layers.1.mlp.{part}_proj.bias"
        values = [np.frombuffer(bytes(file.bytes_of(name)), np.float16) for file in (before, after)]
        assert (values[0][order] == values[1]).all()


@pytest.mark.parametrize("name", ["mistral_window", "qwen2_windows", "qwen3"])
def test_generation_goes_past_the_window(name):
    """The greedy continuation of a prompt longer than the window is the same on every instruction set."""
    options = ["-p", TEXT.read_text()[:150], "--max-tokens", "40", "--temperature", "0", "--ignore-eos", "--kv-cache", "f32"]
    texts = {run_json("generate", GOLDEN / name, *options, "--isa", isa)["text"] for isa in ("reference", "avx2")}
    assert len(texts) == 1


@pytest.mark.parametrize("name, expected", [
    ("llama2", {"model_type": "llama", "rope_scaling": "default", "sliding_window": None, "window_layers": 0}),
    ("mistral_window", {"model_type": "mistral", "sliding_window": 21, "window_layers": 2}),
    ("qwen2_windows", {"model_type": "qwen2", "sliding_window": 19, "window_layers": 1, "qkv_bias": True, "o_bias": False,
                       "rope_scaling": "yarn, factor 4, of 32 tokens, attention factor 1.1386"}),
    ("qwen3_layer_types", {"model_type": "qwen3", "head_norms": True, "qkv_bias": True, "o_bias": True, "mlp_bias": False,
                           "window_layers": 1, "rope_scaling": "yarn, factor 4, of 32 tokens, attention factor 0.7000"}),
    ("llama3_scaled", {"rope_scaling": "llama3, factor 8, of 32 tokens", "max_positions": 256}),
])  # fmt: skip
def test_inspect_says_what_the_model_has(name, expected):
    said = run_json("inspect", GOLDEN / name)
    assert {field: said["config"][field] for field in expected} == expected
    ops = {op["op"] for op in said["ops"]}
    assert ("attention in a window" in ops) == (said["config"]["window_layers"] > 0)
    assert said["bits_per_weight"] == pytest.approx(16 if name != "qwen3_layer_types" else 32, rel=0.02)


def changed(tmp_path, name, **fields):
    return copy_model(name, tmp_path / "model", config=lambda config: config.update(fields))


@pytest.mark.parametrize("name, field, value, named", [
    ("llama2", "rope_scaling", {"rope_type": "dynamic", "factor": 2.0}, "rope_scaling.rope_type"),
    ("llama2", "rope_scaling", {"rope_type": "yarn", "factor": 2.0, "beta_fast": -1}, "rope_scaling.beta_fast"),
    ("llama2", "partial_rotary_factor", 0.5, "partial_rotary_factor"),
    ("llama2", "logits_scaling", 8.0, "logits_scaling"),
    ("llama2", "something_unheard_of", 1, "something_unheard_of"),
    ("llama2", "sliding_window", 16, "sliding_window"),
    ("mistral_window", "attention_bias", True, "attention_bias"),
    ("mistral_window", "sliding_window", -1, "sliding_window"),
    ("mistral_window", "architectures", ["MixtralForCausalLM"], "architectures"),
    ("qwen2_windows", "max_window_layers", -1, "max_window_layers"),
    ("qwen3", "layer_types", ["sliding_attention", "full_attention"], "layer_types"),
    ("qwen3", "head_dim", 31, "head_dim"),
])  # fmt: skip
def test_fields_that_are_not_supported(name, field, value, named, tmp_path):
    for command in (["eval", "ppl"], ["quantize"]):
        rest = EVAL if command[0] == "eval" else ["-o", tmp_path / "out", *TINY_QUANTIZE]
        folder = tmp_path / command[0]
        folder.mkdir()
        model = changed(folder, name, **{field: value})
        assert named in assert_fails(run(*command, model, *rest), 1)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name, field, value, tensor", [
    ("llama_bias", "mlp_bias", False, "down_proj.bias: not a tensor of this architecture"),
    ("llama2", "attention_bias", True, "self_attn.k_proj.bias: missing"),
    ("qwen3", "model_type", "llama", "self_attn.k_norm.weight: not a tensor of this architecture"),
    ("llama2", "model_type", "qwen3", "self_attn.k_norm.weight: missing"),
])  # fmt: skip
def test_tensors_that_the_family_has_or_not(name, field, value, tensor, tmp_path):
    fields = {field: value, "architectures": None} if field == "model_type" else {field: value}
    model = changed(tmp_path, name, **fields)
    assert tensor in assert_fails(run("quantize", model, "-o", tmp_path / "out", *TINY_QUANTIZE), 1)
    # What loads the model may come upon another one first.
    assert tensor.split("_", 2)[-1] in assert_fails(run("eval", "ppl", model, *EVAL), 1)
