"""Bad invocations, models that do not fit what is asked of them, full disks: each ends, within seconds, in exit code 1
(usage: 2), one error line, and no output. Malformed files are the subject of e2e_hostile.py."""

import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess

import numpy as np
import pytest

from atom_cli import BINARY, GOLDEN, TEXT, TINY_QUANTIZE, Safetensors, assert_fails, copy_model, run, write_gguf

MODEL = GOLDEN / "gqa_tied_f32"
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
SECONDS = 20


def quantize_fails(model, folder, code=1, options=TINY_QUANTIZE, **run_options):
    """Quantizes `model` into folder/out; afterwards the folder holds what it held before."""
    folder = pathlib.Path(folder)
    before = sorted(folder.rglob("*"))
    result = run("quantize", model, "-o", folder / "out", *options, timeout=SECONDS, **run_options)
    error = assert_fails(result, code)
    assert sorted(folder.rglob("*")) == before, f"left behind: {set(folder.rglob('*')) - set(before)}"
    return error


# --- safetensors ------------------------------------------------------------------------------------------------------


def set_entry(**fields):
    def change(file):
        file.header[Q_PROJ].update(fields)

    return change


def test_safetensors_tensor_missing(tmp_path):
    model = copy_model("gqa_tied_f32", tmp_path / "model", tensors=lambda file: file.remove(Q_PROJ))
    assert Q_PROJ in quantize_fails(model, tmp_path)


def test_safetensors_wrong_shape_for_the_config(tmp_path):
    model = copy_model("gqa_tied_f32", tmp_path / "model", tensors=set_entry(shape=[32, 128]))
    assert Q_PROJ in quantize_fails(model, tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 65520.0])
@pytest.mark.parametrize("name", [Q_PROJ, "model.norm.weight", "model.embed_tokens.weight"])
def test_weights_not_finite(tmp_path, name, value):
    def change(file):
        begin, end = file.header[name]["data_offsets"]
        struct.pack_into("<f", file.data, begin + (end - begin) // 8 * 4, value)

    assert name in quantize_fails(copy_model("gqa_tied_f32", tmp_path / "model", tensors=change), tmp_path)


# --- config.json ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field, value",
    [
        ("architectures", ["MambaForCausalLM"]),
        ("model_type", "t5"),
        ("hidden_size", 0),
        ("hidden_size", -64),
        ("hidden_size", "64"),
        ("hidden_size", 1 << 40),
        ("num_hidden_layers", 1 << 31),
        ("num_hidden_layers", 3),
        ("num_hidden_layers", 1 << 24),
        ("num_attention_heads", 0),
        ("num_key_value_heads", 3),
        ("head_dim", 15),
        ("vocab_size", 1 << 50),
        ("rms_norm_eps", "small"),
        ("rope_theta", 0),
        ("rope_scaling", {"rope_type": "from_another_planet", "factor": 8.0}),
        ("layer_types", ["sliding_attention", "full_attention"]),
        ("num_local_experts", 8),
        ("hidden_act", "gelu"),
        ("quantization_config", {"quant_method": "gptq", "bits": 4}),
        ("quantization_config", {"quant_method": "atom", "version": 999}),
    ],
)
def test_config_field(tmp_path, field, value):
    model = copy_model("gqa_tied_f32", tmp_path / "model", config=lambda config: config.update({field: value}))
    quantize_fails(model, tmp_path)
    assert_fails(run("generate", model, "-p", "a", "--max-tokens", "1", timeout=SECONDS), 1)


def test_config_with_both_kinds_of_rope_settings(tmp_path):
    both = {"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    model = copy_model("gqa_tied_f32", tmp_path / "model", config=lambda config: config.update(both))
    assert "rope_scaling: differs from rope_parameters" in quantize_fails(model, tmp_path)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_file_missing(tmp_path, file):
    model = copy_model("gqa_tied_f32", tmp_path / "model")
    (model / file).unlink()
    assert file in quantize_fails(model, tmp_path)


# --- GGUF -------------------------------------------------------------------------------------------------------------


def test_gguf_architecture(tmp_path):
    path = write_gguf("gqa_tied_f32", tmp_path / "bad.gguf", architecture="mamba")
    assert "mamba" in quantize_fails(path, tmp_path)


def test_gguf_tensor_missing(tmp_path):
    path = write_gguf("gqa_tied_f32", tmp_path / "bad.gguf", skip={"blk.1.ffn_down.weight"})
    assert "bad.gguf" in quantize_fails(path, tmp_path)


def test_gguf_wrong_shape(tmp_path):
    path = write_gguf(
        "gqa_tied_f32", tmp_path / "bad.gguf",
        change=lambda name, array: array[:, :32] if name == "blk.1.ffn_down.weight" else array)
    assert "bad.gguf" in quantize_fails(path, tmp_path)


def test_gguf_not_finite(tmp_path):
    def change(name, array):
        if name == "blk.1.ffn_down.weight":
            array = array.copy()
            array[3, 5] = np.nan
        return array

    assert "bad.gguf" in quantize_fails(write_gguf("gqa_tied_f32", tmp_path / "bad.gguf", change=change), tmp_path)


# --- packed checkpoints -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="packed")
def fixture_packed(tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "out"
    result = run("quantize", MODEL, "-o", out, *TINY_QUANTIZE)
    assert result.returncode == 0, result.stderr
    return out


def packed_fails(model):
    return assert_fails(run("generate", model, "-p", "a", "--max-tokens", "1", timeout=SECONDS), 1)


def test_packed_tensor_missing(tmp_path, packed):
    for i, name in enumerate(n for n in Safetensors(packed / "model.safetensors").names() if ".0.self_attn.o_proj" in n):
        folder = tmp_path / str(i)
        shutil.copytree(packed, folder)
        file = Safetensors(folder / "model.safetensors")
        file.remove(name)
        file.write(folder / "model.safetensors")
        packed_fails(folder)


def test_packed_quantized_again(tmp_path, packed):
    quantize_fails(packed, tmp_path)


# --- paths and disks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["inspect", "tokenize", "generate", "chat", "quantize"])
def test_model_that_is_not_there(tmp_path, command):
    options = {"generate": ["-p", "a"], "quantize": ["-o", tmp_path / "out", *TINY_QUANTIZE]}.get(command, [])
    assert "nowhere" in assert_fails(run(command, tmp_path / "nowhere", *options, stdin="a\n", timeout=SECONDS), 1)


def test_bytes_that_a_terminal_acts_on(tmp_path):
    for arguments in (["inspect", tmp_path / "\x1b[31mred"], ["generate", MODEL, "-p", "a", "--seed", "\x1b[2J"], ["\x1b[2J"]):
        result = run(*arguments, timeout=SECONDS)
        assert "\x1b" not in result.stderr and "\\x1b" in assert_fails(result, result.returncode)


def test_model_cut_short_while_in_use(tmp_path):
    model = copy_model("gqa_tied_f32", tmp_path / "model")
    with subprocess.Popen([BINARY, "chat", str(model), "--max-tokens", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, errors="replace") as chat:
        chat.stdin.write("Hello.\n")
        chat.stdin.flush()
        chat.stdout.readline()
        os.truncate(model / "model.safetensors", 0)
        _, errors = chat.communicate("Hello again.\n", timeout=SECONDS)
    assert chat.returncode == 1 and errors.splitlines()[-1].startswith("error: a file in use was cut short"), errors


def test_model_cut_short_while_it_is_quantized(tmp_path):
    model = copy_model("gqa_tied_f32", tmp_path / "model")
    (tmp_path / "text").write_text(TEXT.read_text() * 300)
    out = tmp_path / "here" / "out"
    out.parent.mkdir()
    options = [*replaced("--samples", 2000), "--calib", tmp_path / "text"]
    del options[:2]
    with subprocess.Popen([BINARY, "quantize", str(model), "-o", str(out), *map(str, options)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("quantize"):  # the first line of progress
                os.truncate(model / "model.safetensors", 0)
                break
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "error: a file in use was cut short" in errors, errors
    assert list(out.parent.iterdir()) == []


def test_model_is_an_empty_folder(tmp_path):
    assert_fails(run("inspect", tmp_path, timeout=SECONDS), 1)


def test_model_below_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    assert_fails(run("inspect", tmp_path / "file" / "model", timeout=SECONDS), 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_model_unreadable(tmp_path):
    model = copy_model("gqa_tied_f32", tmp_path / "model")
    (model / "model.safetensors").chmod(0)
    assert "model.safetensors" in quantize_fails(model, tmp_path)


def test_output_exists(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("mine")
    result = run("quantize", MODEL, "-o", out, *TINY_QUANTIZE, timeout=SECONDS)
    assert "out" in assert_fails(result, 1)
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "precious"]
    assert (out / "precious").read_text() == "mine"


def test_overwrite_replaces_packed_checkpoints_only(tmp_path):
    """Not the model itself, a folder around it, somebody's files, or the current folder; and what a link points to."""
    model = copy_model("gqa_tied_f32", tmp_path / "models" / "tiny")
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis").write_text("mine")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for out in (model, model.parent, home):
        assert_fails(run("quantize", model, "-o", out, "--overwrite", *TINY_QUANTIZE, timeout=SECONDS), 1)
    here = subprocess.run([BINARY, "quantize", str(model), "-o", ".", *TINY_QUANTIZE], cwd=home, capture_output=True, text=True,
                          timeout=SECONDS, check=False)
    assert_fails(here, 1)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert run("quantize", model, "-o", tmp_path / "out", *TINY_QUANTIZE).returncode == 0
    (tmp_path / "out" / "notes").write_text("mine")
    assert "notes" in assert_fails(run("quantize", model, "-o", tmp_path / "out", "--overwrite", *TINY_QUANTIZE, timeout=SECONDS), 1)
    (tmp_path / "out" / "notes").unlink()
    (tmp_path / "link").symlink_to("out")
    assert run("quantize", model, "-o", tmp_path / "link", "--overwrite", *TINY_QUANTIZE).returncode == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "out" / "model.safetensors").exists()


def test_output_is_a_link_to_nothing(tmp_path):
    (tmp_path / "out").symlink_to("nowhere")
    quantize_fails(MODEL, tmp_path)


def test_output_is_a_file(tmp_path):
    (tmp_path / "out").write_text("mine")
    assert_fails(run("quantize", MODEL, "-o", tmp_path / "out", *TINY_QUANTIZE, timeout=SECONDS), 1)
    assert (tmp_path / "out").read_text() == "mine"


def test_output_below_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert_fails(run("quantize", MODEL, "-o", tmp_path / "file" / "out", *TINY_QUANTIZE, timeout=SECONDS), 1)


def test_disk_full(tmp_path):
    """A limit on the size of files makes writes fail in the middle, as a full disk does."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

    quantize_fails(MODEL, tmp_path, preexec=limit)


def test_standard_output_full():
    with open("/dev/full", "w", encoding="utf-8") as full:
        result = subprocess.run(
            [BINARY, "inspect", str(MODEL), "--json"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=SECONDS, check=False)
    assert result.returncode == 1 and result.stderr.splitlines()[-1].startswith("error: "), result.stderr


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2>&- <&- >&-"])
def test_standard_error_cannot_be_written(tmp_path, redirection):
    """No abort, and no message inside of a file that took the number of a closed stream."""
    options = " ".join(f"'{option}'" for option in TINY_QUANTIZE)
    command = f"'{BINARY}' quantize '{MODEL}' -o '{tmp_path}/out' {options} {redirection}; '{BINARY}' inspect /nowhere {redirection}"
    result = subprocess.run(["bash", "-c", command], stdout=subprocess.DEVNULL, timeout=SECONDS, check=False)
    assert result.returncode == 1
    assert run("inspect", tmp_path / "out", "--json").returncode == 0


def test_reader_of_standard_output_leaves(tmp_path):
    options = " ".join(f"'{option}'" for option in TINY_QUANTIZE)
    command = f"set -o pipefail; '{BINARY}' quantize '{MODEL}' -o '{tmp_path}/out' {options} | true"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert result.returncode in (0, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_unknown_tensor_is_found_before_the_work(tmp_path):
    model = copy_model("gqa_tied_f32", tmp_path / "model")
    file = Safetensors(model / "model.safetensors")
    file.header["model.layers.0.self_attn.q_proj.bias"] = file.header.pop("model.norm.weight")
    file.write(model / "model.safetensors")
    assert "q_proj.bias" in quantize_fails(model, tmp_path)


# --- texts and options ------------------------------------------------------------------------------------------------


def replaced(option, value):
    """TINY_QUANTIZE with another value of an option."""
    options = list(TINY_QUANTIZE)
    options[options.index(option) + 1] = str(value)
    return options


def test_no_calibration_text(tmp_path):
    at = TINY_QUANTIZE.index("--calib")
    quantize_fails(MODEL, tmp_path, options=TINY_QUANTIZE[:at] + TINY_QUANTIZE[at + 2 :], code=2)


@pytest.mark.parametrize(
    "arguments", [[MODEL, "--random", "llama-2-7b"], ["--random", "llama-9"], [], ["--random", ""],
                  ["--random", "llama-2-7b", "--calib", TEXT], ["--random", "llama-2-7b", "--eval-text", TEXT]])
def test_random_model_and_what_does_not_go_with_it(tmp_path, arguments):
    assert_fails(run("quantize", *arguments, "-o", tmp_path / "out", "--recipe", "rtn"), 2)
    assert not (tmp_path / "out").exists()


def test_random_sample_longer_than_the_model_takes(tmp_path):
    result = run("quantize", "--random", "llama-2-7b", "-o", tmp_path / "out", "--sample-length", "4097")
    assert "4096" in assert_fails(result, 1)


def test_calibration_text_that_is_not_there(tmp_path):
    assert "nowhere" in quantize_fails(MODEL, tmp_path, options=replaced("--calib", tmp_path / "nowhere"))


def test_slow_kernels_are_named_before_the_work(tmp_path):
    options = [*TINY_QUANTIZE[:-4], "--group", "2", "--outliers", "4"]
    said = run("quantize", MODEL, "-o", tmp_path / "out", *options).stderr
    assert "slow kernel" in said[: said.index("quantize ")]


def test_calibration_text_empty(tmp_path):
    (tmp_path / "text").touch()
    quantize_fails(MODEL, tmp_path, options=replaced("--calib", tmp_path / "text"))


def test_calibration_text_too_short(tmp_path):
    (tmp_path / "text").write_text("Too short.")
    quantize_fails(MODEL, tmp_path, options=replaced("--calib", tmp_path / "text"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-be"])
def test_calibration_text_in_another_encoding(tmp_path, encoding):
    (tmp_path / "text").write_bytes(TEXT.read_text().encode(encoding))
    assert "not a text" in quantize_fails(MODEL, tmp_path, options=replaced("--calib", tmp_path / "text"))


def test_calibration_jsonl_broken(tmp_path):
    line = json.dumps({"text": TEXT.read_text()}) + "\n"
    (tmp_path / "text.jsonl").write_text('{"text": 7}\n' + line)
    assert "text.jsonl" in quantize_fails(MODEL, tmp_path, options=replaced("--calib", tmp_path / "text.jsonl"))


@pytest.mark.parametrize(
    "option, value",
    [
        ("--group", 24),  # 48 channels of 64 - 16 in groups of 24, but 96 - 16 = 80 of down_proj do not divide
        ("--group", -32),
        ("--group", "many"),
        ("--outliers", -1),
        ("--outliers", 1 << 40),
        ("--samples", 0),
        ("--sample-length", 0),
        ("--sample-length", 1 << 40),
        ("--calib", ""),
    ],
)
def test_quantize_option_value(tmp_path, option, value):
    result = run("quantize", MODEL, "-o", tmp_path / "out", *replaced(option, value), timeout=SECONDS)
    assert result.returncode in (1, 2)
    assert_fails(result, result.returncode)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--nonsense"],
        ["fly", MODEL],
        ["inspect"],
        ["inspect", MODEL, MODEL],
        ["inspect", MODEL, "--nonsense"],
        ["eval"],
        ["eval", "ppl", MODEL],
        ["generate", MODEL, "-p", "a", "--max-tokens", "-1"],
        ["generate", MODEL, "-p", "a", "--max-tokens", "some"],
        ["generate", MODEL, "-p", "a", "--temperature", "-1"],
        ["generate", MODEL, "-p", "a", "--temperature", "nan"],
        ["generate", MODEL, "-p", "a", "--top-p", "1.5"],
        ["generate", MODEL, "-p", "a", "--top-k", "-1"],
        ["generate", MODEL, "-p", "a", "--presence-penalty", "2.1"],
        ["generate", MODEL, "-p", "a", "--presence-penalty", "nan"],
        ["generate", MODEL, "-p", "a", "--frequency-penalty", "-2.1"],
        ["generate", MODEL, "-p", "a", "--frequency-penalty", "often"],
        ["generate", MODEL, "-p", "a", "--logit-bias", "5"],
        ["generate", MODEL, "-p", "a", "--logit-bias", "5:"],
        ["generate", MODEL, "-p", "a", "--logit-bias", "5:much"],
        ["generate", MODEL, "-p", "a", "--logit-bias", "5:nan"],
        ["generate", MODEL, "-p", "a", "--logit-bias", "5:101"],
        ["generate", MODEL, "-p", "a", "--logit-bias", "5:1", "--logit-bias", "5:2"],
        ["generate", MODEL, "-p", "a", "--logit-bias", "-1:5"],
        ["generate", MODEL, "-p", "a", "--logit-bias", "99999999:5"],
        ["generate", MODEL, "-p", "a", "--logit-bias", "99999999999999999999:5"],
        ["generate", MODEL, "-p", "a", "--threads", "0"],
        ["generate", MODEL, "-p", "a", "--threads", "1000000"],
        ["generate", MODEL, "-p", "a", "--seed", "soon"],
        ["generate", MODEL, "-p", "a", "--seed", "-1"],
        ["generate", MODEL, "-p", "a", "--seed", "18446744073709551616"],
        ["generate", MODEL, "-p", "a", "--top-k", "99999999999999999999"],
        ["quantize", MODEL, "-o", "/tmp/never", "--calib", TEXT, "--kv-bits", "3"],
        ["generate", MODEL, "-p", "a", "--device", "toaster"],
        ["generate", MODEL, "-p", "a", "--stop", ""],
        ["eval", "tasks", MODEL],
        ["quantize", MODEL, "-o", "", *TINY_QUANTIZE],
        ["quantize", MODEL, "-o", "/tmp/never", *TINY_QUANTIZE, "--search-clips", "--weight-clip", "0.5"],
        ["quantize", MODEL, "-o", "/tmp/never", *TINY_QUANTIZE, "--no-gptq", "--damping", "0.5"],
        ["quantize", MODEL, "--calib", TEXT],
        ["quantize", MODEL, "-o", "/tmp/never", "--calib", TEXT, "--recipe", "cake"],
    ],
    ids=lambda arguments: " ".join(str(a).rsplit("/", 1)[-1] for a in arguments) or "nothing",
)
def test_usage(arguments):
    assert_fails(run(*arguments, stdin="", timeout=SECONDS), 2)


def test_end_of_text_outside_of_the_vocabulary(tmp_path):
    model = copy_model("gqa_tied_f32", tmp_path / "model", config=lambda config: config.update(eos_token_id=[2, 320]))
    assert "eos_token_id" in quantize_fails(model, tmp_path)


def test_prompt_longer_than_the_context():
    assert_fails(run("generate", MODEL, "-p", "word " * 1000, "--max-tokens", "1", timeout=SECONDS), 1)


def test_text_not_there(tmp_path):
    assert "nowhere" in assert_fails(run("eval", "ppl", MODEL, "--text", tmp_path / "nowhere", timeout=SECONDS), 1)


def test_text_shorter_than_two_tokens(tmp_path):
    (tmp_path / "text").write_text("a")
    assert_fails(run("eval", "ppl", MODEL, "--text", tmp_path / "text", "--window", "64", timeout=SECONDS), 1)


def test_window_longer_than_the_context():
    assert_fails(run("eval", "ppl", MODEL, "--text", TEXT, "--window", "100000", timeout=SECONDS), 1)


def test_token_ids_out_of_range():
    assert_fails(run("tokenize", MODEL, "--decode", stdin="[1, 320]", timeout=SECONDS), 1)


def test_token_ids_not_json():
    assert_fails(run("tokenize", MODEL, "--decode", stdin="one two", timeout=SECONDS), 1)
