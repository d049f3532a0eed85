"""The whole job on SmolLM2-135M-Instruct, with real conversations: a small calibration, and what must hold afterwards."""

import json
import os
import pathlib

import pytest

from atom_cli import run_json, run_ok
from serve_fixture import MODEL, SHAREGPT, packed_real_model

DATA = os.environ.get("ATOM_TEST_DATA")

pytestmark = pytest.mark.skipif(not MODEL or not SHAREGPT, reason="ATOM_TEST_MODEL or ATOM_TEST_SHAREGPT is not set")

EVAL = ["--text", SHAREGPT, "--skip", "2000", "--limit", "50", "--windows", "4", "--window", "512"]


@pytest.fixture(scope="module", name="quantized")
def fixture_quantized():
    """(packed directory, what quantize said of it)."""
    return packed_real_model()


@pytest.fixture(scope="module", name="text")
def fixture_text(quantized):
    """The text that quantize measured it on, of more than one window of 2,048 tokens."""
    return quantized[0].parent / "text.txt"


@pytest.fixture(scope="module", name="packed")
def fixture_packed(quantized):
    return quantized[0]


@pytest.fixture(scope="module", name="ppl")
def fixture_ppl(packed):
    return {name: run_json("eval", "ppl", model, *EVAL, timeout=300)["perplexity"] for name, model in (("fp", MODEL), ("atom", packed))}


def test_perplexity_survives_quantization(ppl):
    assert 3 < ppl["fp"] < 40
    assert ppl["fp"] < ppl["atom"] < 2 * ppl["fp"]


def test_perplexity_is_the_same_in_a_new_process(quantized, text):
    out, said = quantized
    for threads in (1, 2):
        again = run_json("eval", "ppl", out, "--text", text, "--windows", "1", "--threads", threads, timeout=300)
        assert again["perplexity"] == said["perplexity"]


def test_inspect(quantized):
    out, said = quantized
    found = run_json("inspect", out)
    assert found["bytes"] == said["bytes"] == (out / "model.safetensors").stat().st_size
    assert found["bits_per_weight"] == said["bits_per_weight"] < 16
    assert {layer["kind"] for layer in found["layers"] if layer["name"] != "lm_head"} == {"W4A4"}


def test_tokenizer_of_the_packed_directory(packed):
    """It loads in the tokenizers package and gives the same ids; every digit stands alone."""
    import tokenizers

    text = "In 1963 the sea froze: 41.7 kg of mackerel, don't ask!\n\n  你好 🙂 <|im_end|>"
    expected = tokenizers.Tokenizer.from_file(str(packed / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    assert json.loads(run_ok("tokenize", packed, stdin=text)) == expected
    assert json.loads(run_ok("tokenize", MODEL, stdin=text)) == expected


@pytest.mark.parametrize("which", ["fp", "atom"])
def test_it_knows_something(packed, which):
    model = MODEL if which == "fp" else packed
    result = run_json("generate", model, "-p", "The capital of France is", "--max-tokens", "12", "--temperature", "0")
    assert "Paris" in result["text"]
    assert result["decode_tokens_per_second"] > 0


def test_chat(packed):
    answer = run_ok("chat", packed, "--max-tokens", "40", "--temperature", "0", stdin="What is the capital of France?\n")
    assert len(answer.split()) > 3


@pytest.mark.skipif(not DATA, reason="ATOM_TEST_DATA is not set")
def test_perplexity_of_wikitext2_by_the_usual_protocol():
    """The first 4 windows, against transformers 5.23 in float32 (the tokens with every digit alone)."""
    text = pathlib.Path(DATA, "wikitext2", "test.txt")
    result = run_json("eval", "ppl", MODEL, "--text", text, "--windows", "4", "--window", "2048", timeout=800)
    assert result["windows"] == 4
    assert result["perplexity"] == pytest.approx(24.14545, rel=1e-3)
