"""The commands on tiny models: what they print, and that it hangs together."""

import json
import math
import shutil

import pytest

from atom_cli import GOLDEN, TEXT, TINY, TINY_QUANTIZE, assert_fails, copy_model, run, run_json, run_ok, write_gguf

MODEL = GOLDEN / "gqa_tied_f32"
EVAL = ["--text", TEXT, "--window", "64"]


@pytest.fixture(scope="module", params=TINY, name="packed")
def fixture_packed(request, tmp_path_factory):
    """(name, packed directory) of each tiny model."""
    out = tmp_path_factory.mktemp(request.param) / "packed"
    run_ok("quantize", GOLDEN / request.param, "-o", out, *TINY_QUANTIZE)
    return request.param, out


def perplexity(model, *options):
    return run_json("eval", "ppl", model, *EVAL, *options)["perplexity"]


def test_version_and_help():
    assert run_ok("--version").startswith("atom ")
    for command in ([], ["quantize"], ["eval"], ["eval", "ppl"], ["generate"], ["chat"], ["tokenize"], ["inspect"],
                    ["bench"], ["bench", "gemm"], ["bench", "attention"], ["bench", "fused"]):
        text = run_ok(*command, "--help")
        assert "Usage: atom" in text or "Usage:" in text
        assert len(text.splitlines()) > 5


def test_packed_model_without_a_tokenizer(packed, tmp_path):
    """As `quantize --random` writes it: what needs no text works, the rest says what is missing."""
    model = tmp_path / "packed"
    shutil.copytree(packed[1], model)
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()
    assert run_json("inspect", model)["format"] == "packed"
    for command in (["generate", model, "-p", "Hello"], ["eval", "ppl", model, *EVAL], ["tokenize", model]):
        assert "tokenizer.json" in assert_fails(run(*command), 1)


# --- tokenize ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["Hello world", "  two  spaces\n\n\ttab", "don't", "naïve café 你好 🙂🙃", "123 45", "", "<|im_start|>a<|im_end|>"])
def test_tokenize_there_and_back(text):
    ids = json.loads(run_ok("tokenize", MODEL, stdin=text))
    assert all(isinstance(i, int) for i in ids)
    assert run_ok("tokenize", MODEL, "--decode", stdin=json.dumps(ids)) == text


def test_tokenize_as_the_tokenizers_package_does():
    import tokenizers

    text = TEXT.read_text()
    expected = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    assert json.loads(run_ok("tokenize", MODEL, "--text", TEXT)) == expected
    assert run_json("tokenize", MODEL, "--text", TEXT)["ids"] == expected


def test_tokenize_packed_as_the_original(packed):
    name, out = packed
    assert run_ok("tokenize", out, "--text", TEXT) == run_ok("tokenize", GOLDEN / name, "--text", TEXT)


# --- eval -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
def test_perplexity_of_a_model_that_knows_nothing(name, tmp_path):
    """All logits alike: every token has probability 1 / vocabulary."""

    def silence(file):
        for tensor in file.names():
            if any(part in tensor for part in ("o_proj", "down_proj", "lm_head", "embed_tokens")):
                begin, end = file.header[tensor]["data_offsets"]
                file.data[begin:end] = bytes(end - begin)

    model = copy_model(name, tmp_path / "model", tensors=silence)
    assert perplexity(model) == pytest.approx(320, rel=1e-5)


def test_perplexity_counts_tokens():
    result = run_json("eval", "ppl", MODEL, *EVAL)
    ids = json.loads(run_ok("tokenize", MODEL, "--text", TEXT))
    assert result["windows"] == len(ids) // 64
    assert math.isfinite(result["perplexity"]) and result["seconds"] > 0
    assert run_json("eval", "ppl", MODEL, *EVAL, "--windows", "3")["windows"] == 3


@pytest.mark.parametrize("name", TINY)
def test_gguf_is_the_same_model(name, tmp_path):
    gguf = write_gguf(name, tmp_path / "model.gguf")
    assert perplexity(gguf) == pytest.approx(perplexity(GOLDEN / name), rel=1e-5)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0", "F16", "BF16"])
def test_gguf_quantized(kind, tmp_path):
    """A quantized GGUF is the model that its dequantized tensors make, written as F32."""
    import gguf

    qtype = getattr(gguf.GGMLQuantizationType, kind)
    packed = write_gguf("gqa_tied_f32", tmp_path / "packed.gguf", quantize=qtype)

    def rounded(_, array):
        if array.ndim != 2 or array.shape[1] % 32:
            return array
        return gguf.quants.dequantize(gguf.quants.quantize(array, qtype), qtype).reshape(array.shape)

    plain = write_gguf("gqa_tied_f32", tmp_path / "plain.gguf", change=rounded)
    assert perplexity(packed, "--kv-cache", "f32") == pytest.approx(perplexity(plain, "--kv-cache", "f32"), rel=1e-5)


# --- quantize ---------------------------------------------------------------------------------------------------------


def test_quantized_is_close_and_small(packed):
    name, out = packed
    assert perplexity(out) == pytest.approx(perplexity(GOLDEN / name), rel=0.5)
    assert (out / "model.safetensors").stat().st_size < (GOLDEN / name / "model.safetensors").stat().st_size


def test_quantized_layout_is_that_of_hugging_face(packed):
    _, out = packed
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in out.iterdir()}
    config = json.loads((out / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "atom"
    assert config["architectures"] == ["LlamaForCausalLM"]
    from safetensors import safe_open

    with safe_open(out / "model.safetensors", "numpy") as file:
        assert all(0 not in file.get_slice(name).get_shape() for name in file.keys())


@pytest.mark.parametrize("recipe", ["atom", "atom-w4a8", "rtn"])
def test_recipes_and_their_switches(recipe, tmp_path):
    """Every recipe gives a model that works; what it was made with is what inspect says."""
    bits = {"atom": 4, "atom-w4a8": 8, "rtn": 4}[recipe]
    for i, switches in enumerate(
        ([], ["--kv-bits", "8"], ["--rotate-keys", "--no-gptq"], ["--outlier-bits", "16"], ["--lm-head-bits", "8"], ["--search-clips"], ["--scales", "fp16"])):
        out = tmp_path / str(i)
        run_ok("quantize", MODEL, "-o", out, "--recipe", recipe, *TINY_QUANTIZE, *switches)
        settings = run_json("inspect", out)["quantization"]
        assert settings["recipe"] == recipe and settings["activation_bits"] == bits
        assert settings["kv_cache_bits"] == (8 if "--kv-bits" in switches else 16 if recipe == "rtn" else 4)
        assert settings["rotate_keys"] == ("--rotate-keys" in switches)
        assert settings["outlier_bits"] == (16 if "--outlier-bits" in switches else 8)
        fp16 = recipe == "rtn" or "--outlier-bits" in switches or "--scales" in switches
        assert settings["scales"] == ("fp16" if fp16 else "integer")
        assert settings["lm_head_bits"] == (8 if "--lm-head-bits" in switches else 16)
        assert math.isfinite(perplexity(out))


@pytest.mark.parametrize("recipe, options, kind, bits", [
    ("w8a8", [], "W8A8", 8),
    ("w4a16", ["--calib", TEXT, "--samples", "2", "--sample-length", "64", "--group", "16"], "W4A16", 16),
])  # fmt: skip
def test_recipes_of_the_baselines(recipe, options, kind, bits, tmp_path):
    run_ok("quantize", MODEL, "-o", tmp_path / "out", "--recipe", recipe, *options)
    said = run_json("inspect", tmp_path / "out")
    assert said["quantization"]["activation_bits"] == bits and said["quantization"]["kv_cache_bits"] == 16
    assert {layer["kind"] for layer in said["layers"] if layer["name"] != "lm_head"} == {kind}
    assert math.isfinite(perplexity(tmp_path / "out"))
    assert "outliers" in assert_fails(
        run("quantize", MODEL, "-o", tmp_path / "no", *TINY_QUANTIZE, "--activation-bits", "16"), 2)


def test_quantize_twice_gives_the_same_bytes(packed, tmp_path):
    name, out = packed
    for threads in (1, 2):
        again = tmp_path / str(threads)
        run_ok("quantize", GOLDEN / name, "-o", again, *TINY_QUANTIZE, "--threads", threads)
        assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_kernels_of_every_instruction_set_agree(packed):
    _, out = packed
    values = {run_ok("eval", "ppl", out, *EVAL, "--isa", isa, "--json").split('"seconds"')[0] for isa in ("reference", "avx2")}
    assert len(values) == 1, values


# --- inspect ----------------------------------------------------------------------------------------------------------


def test_log_level():
    """Where the log leaves out `info` there is no progress either."""
    said = {level: run("eval", "ppl", MODEL, *EVAL, "--windows", "1", "--log-level", level).stderr for level in ("info", "off")}
    assert "perplexity 1/1" in said["info"] and said["off"] == ""


def test_inspect(packed):
    name, out = packed
    before, after = run_json("inspect", GOLDEN / name), run_json("inspect", out)
    assert after["bits_per_weight"] < before["bits_per_weight"]
    assert after["bytes"] == sum(p.stat().st_size for p in out.iterdir() if p.suffix == ".safetensors")
    assert before["bits_per_weight"] == pytest.approx(32 if name.endswith("_f32") else 16, rel=0.01)
    assert len(run_ok("inspect", out).splitlines()) > 5


# --- generate, chat ---------------------------------------------------------------------------------------------------

GENERATE = ["-p", "The harbour wakes", "--max-tokens", "20"]


def test_generate_greedy_is_deterministic(packed):
    _, out = packed
    texts = {run_json("generate", out, *GENERATE, "--temperature", "0", "--threads", n)["text"] for n in (1, 2, 2)}
    assert len(texts) == 1


def test_generate_follows_the_seed():
    def texts(seeds):
        return [run_json("generate", MODEL, *GENERATE, "--temperature", "1", "--seed", s)["text"] for s in seeds]

    first, again, *others = texts([1, 1, 2, 3, 4])
    assert first == again
    assert any(text != first for text in others)


def test_generate_takes_penalties_and_biases():
    def generate(*options):
        return run_json("generate", MODEL, *GENERATE, "--temperature", "0", "--ignore-eos", *options)["text"]

    token = json.loads(run_ok("tokenize", MODEL, stdin="The harbour"))[-1]
    repeated = run_ok("tokenize", MODEL, "--decode", stdin=json.dumps([token] * 20)).rstrip("\n")
    assert generate("--logit-bias", f"{token}:100").strip() == repeated.strip()
    plain = generate()
    assert generate("--logit-bias", f"{token}:0", "--logit-bias", f"{token + 1}:-0") == plain
    # Two more off every time: another token's turn comes before twenty are full.
    assert generate("--logit-bias", f"{token}:20", "--frequency-penalty", "2").strip() != repeated.strip()
    assert generate("--logit-bias", f"{token}:100", "--presence-penalty", "2").strip() == repeated.strip()
    rewarded = generate("--presence-penalty", "-2", "--frequency-penalty", "-2")
    assert rewarded != generate("--presence-penalty", "2", "--frequency-penalty", "2")


def test_generate_counts():
    result = run_json("generate", MODEL, *GENERATE, "--temperature", "0")
    assert result["completion_tokens"] <= 20 and result["prompt_tokens"] > 0
    assert result["prefill_tokens_per_second"] > 0
    assert run_ok("generate", MODEL, *GENERATE, "--temperature", "0").strip("\n").endswith(result["text"].strip("\n"))


def test_generate_stops_at_a_string():
    text = run_json("generate", MODEL, *GENERATE, "--temperature", "0")["text"]
    stop = text[len(text) // 2]
    shorter = run_json("generate", MODEL, *GENERATE, "--temperature", "0", "--stop", stop)["text"]
    assert stop not in shorter and text.startswith(shorter)


def test_generate_output_is_utf8():
    """Random weights produce broken byte sequences; what is printed must not be broken."""
    import subprocess

    from atom_cli import BINARY

    for seed in range(5):
        raw = subprocess.run(
            [BINARY, "generate", str(MODEL), *GENERATE, "--temperature", "2", "--seed", str(seed)],
            capture_output=True, check=True, timeout=60, stdin=subprocess.DEVNULL).stdout
        raw.decode("utf-8")


def test_chat_answers_each_line():
    result = run("chat", MODEL, "--max-tokens", "5", "--temperature", "0", stdin="hello\nagain\n")
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_chat_at_a_terminal_goes_on_after_an_error():
    """What was refused leaves no trace in the conversation, and costs nothing that was said before."""
    import os
    import pty
    import subprocess

    from atom_cli import BINARY

    terminal, inside = pty.openpty()
    with subprocess.Popen([BINARY, "chat", str(MODEL), "--max-tokens", "2", "--context", "200", "--json"], stdin=inside,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace") as chat:
        os.close(inside)
        os.write(terminal, b"hello\n" + b"word " * 150 + b"\nagain\n\x04")
        out, errors = chat.communicate(timeout=60)
    os.close(terminal)
    assert chat.returncode == 0, errors
    assert [m["content"] for m in json.loads(out)["messages"] if m["role"] == "user"] == ["hello", "again"]
    assert sum("error: the prompt has" in line for line in errors.splitlines()) == 1 and "forgotten" not in errors, errors
    assert run("chat", MODEL, "--context", "64", stdin="word " * 100 + "\n").returncode == 1


def test_interrupted_leaves_nothing(tmp_path):
    import signal
    import subprocess

    from atom_cli import BINARY

    options = [o if o != "2" else "100000" for o in TINY_QUANTIZE]
    long_text = tmp_path / "text"
    long_text.write_text(TEXT.read_text() * 300)
    options[1] = str(long_text)
    out = tmp_path / "here"
    out.mkdir()
    process = subprocess.Popen(
        [BINARY, "quantize", str(MODEL), "-o", str(out / "out"), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("quantize"):  # the first line of progress
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert list(out.iterdir()) == []
