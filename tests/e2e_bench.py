"""`atom bench` on the CPU: the documented fields, ratios that agree with the times, diagrams, refused options."""

import re
import xml.etree.ElementTree

import pytest

from atom_cli import assert_fails, run, run_json, run_ok

CPU = ["--device", "cpu", "--seconds", "0"]


def check_head(result, command):
    assert result["command"] == f"bench {command}"
    assert result["version"] and isinstance(result["commit"], str) and result["device"].startswith("cpu")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", result["time"])
    assert result["bandwidth"] in ("read", "copy")
    for limit in ("read_bytes_per_second", "copy_bytes_per_second", "f32_operations_per_second"):
        assert result["limits"][limit] > 0


def check_implementations(result, entry, baseline):
    timed = {one["name"]: one for one in entry["implementations"]}
    assert len(timed) == len(entry["implementations"]), "names are unique"
    limit = result["limits"][result["bandwidth"] + "_bytes_per_second"]
    for one in timed.values():
        assert one["seconds"] > 0 and one["rounds"] >= 5 and one["implementation"]
        assert one["bytes_per_second"] == pytest.approx(one["bytes"] / one["seconds"])
        assert one["share_of_bandwidth"] == pytest.approx(one["bytes_per_second"] / limit)
        if "operations" in one:
            assert one["operations_per_second"] == pytest.approx(one["operations"] / one["seconds"])
        if baseline in timed:
            assert one["speedup_over"] == {baseline: pytest.approx(timed[baseline]["seconds"] / one["seconds"])}
    return timed


def test_gemm(tmp_path):
    plot = tmp_path / "gemm.svg"
    result = run_json("bench", "gemm", *CPU, "--shape", "256x512", "--tokens", "1,4", "--plot", plot)
    check_head(result, "gemm")
    assert [(e["n"], e["k"], e["tokens"]) for e in result["results"]] == [(256, 512, 1), (256, 512, 4)]
    for entry in result["results"]:
        timed = check_implementations(result, entry, "F32")
        assert {"W4A4", "W4A8", "F32", "F16"} <= set(timed)
        assert timed["F32"]["bytes"] == 256 * 512 * 4
        # 384 channels in INT4, 128 in INT8, an fp16 scale for each of three groups and for the outliers.
        assert timed["W4A4"]["bytes"] == 256 * (384 / 2 + 128 + 2 * 4)
        assert timed["W4A4"]["operations"] == 2 * 256 * 512 * entry["tokens"]
    assert result["sums"] == []
    svg = xml.etree.ElementTree.parse(plot).getroot()
    texts = ["".join(t.itertext()) for t in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"tokens", "speedup over F32", "256x512", "W4A4"} <= set(texts)


def test_gemm_of_a_model_is_the_sum_of_its_layers():
    result = run_json("bench", "gemm", *CPU, "--model", "smollm2-135m", "--tokens", "1", "--isa", "reference")
    assert [e["layer"] for e in result["results"]] == ["qkv", "o", "gate_up", "down"]
    (total,) = result["sums"]
    assert (total["model"], total["tokens"]) == ("smollm2-135m", 1)
    for one in total["implementations"]:
        layers = [i["seconds"] for e in result["results"] for i in e["implementations"] if i["name"] == one["name"]]
        assert one["seconds"] == pytest.approx(sum(layers))


def test_attention():
    result = run_json("bench", "attention", *CPU, "--batch", "2", "--context", "64", "--prefill", "48")
    check_head(result, "attention")
    assert [(e["phase"], e["batch"], e["context"]) for e in result["results"]] == [("decode", 2, 64), ("prefill", 1, 48)]
    for entry in result["results"]:
        timed = check_implementations(result, entry, "F16")
        assert set(timed) == {"F16", "INT8", "INT4"}
        assert timed["F16"]["bytes"] == 2 * entry["batch"] * entry["context"] * 3 * 64 * 2
        assert timed["INT4"]["bytes"] == 2 * entry["batch"] * entry["context"] * 3 * (64 // 2 + 4)


def test_fused():
    result = run_json("bench", "fused", *CPU, "--tokens", "2")
    check_head(result, "fused")
    ops = {entry["op"]: check_implementations(result, entry, "unfused") for entry in result["results"]}
    assert {"rms_norm_quantize", "reorder_quantize", "silu_mul_quantize", "rope_append_int4", "embedding"} <= set(ops)
    assert set(ops["rms_norm_quantize"]) == {"rms_norm_quantize", "unfused"}


def test_decode():
    result = run_json("bench", "decode", "--model", "smollm2-135m", "--layers", "1", "--batch", "2", "--context", "20",
                      "--steps", "2", "--precision", "fp16,w4a4kv4,w4a8kv4")
    assert result["command"] == "bench decode" and result["layers"] == 1 and result["exact"] is True
    first, second, third = result["results"]
    assert [first["precision"], second["precision"], third["precision"]] == ["fp16", "w4a4kv4", "w4a8kv4"]
    assert first["kv_cache"] == "f16" and second["kv_cache"] == "int4"
    assert first["times_as_fast_as_first"] == 1.0
    for one in result["results"]:
        assert one["decode_tokens_per_second"] == pytest.approx(2 / one["seconds_per_step"])
    # 3 KV heads of 64: 4 bits and two FP16 parameters against 16 bits.
    assert second["cache_bytes"] * 3.5 < first["cache_bytes"] < second["cache_bytes"] * 4
    assert second["weight_bytes"] < first["weight_bytes"]


def test_decode_of_the_baselines():
    names = ["w8a8", "w8a8kv8", "fp8kv4", "w4a16kv16"]
    result = run_json("bench", "decode", "--model", "smollm2-135m", "--layers", "1", "--batch", "2", "--context", "20",
                      "--steps", "1", "--precision", ",".join(names))
    assert [one["precision"] for one in result["results"]] == names
    assert [one["kv_cache"] for one in result["results"]] == ["f16", "int8", "int4", "f16"]
    int8, _, fp8, int4 = (one["weight_bytes"] for one in result["results"])
    assert int4 < fp8 == int8


def test_table_without_json():
    text = run_ok("bench", "gemm", *CPU, "--shape", "64x128", "--tokens", "1")
    assert "limits measured" in text and "W4A4" in text and "x F32" in text


@pytest.mark.parametrize("arguments, word", [
    (["gemm", "--shape", "256"], "--shape"),
    (["gemm", "--shape", "0x128"], "--shape"),
    (["gemm", "--shape", "128x128x"], "--shape"),
    (["gemm", "--model", "gpt-5"], "--model"),
    (["gemm", "--tokens", "0"], "--tokens"),
    (["gemm", "--tokens", "16385"], "--tokens"),
    (["gemm", "--tokens", "many"], "--tokens"),
    (["gemm", "--seconds", "-1"], "--seconds"),
    (["attention", "--batch", "0"], "--batch"),
    (["attention", "--context", "-4"], "--context"),
    (["fused", "--tokens", "1,,0"], "--tokens"),
    (["gemm", "--device", "tpu"], "--device"),
    (["decode", "--fast", "--device", "cpu"], "--fast"),
    (["gemm", "--fast"], "--fast"),
    (["decode", "--model", "smollm2-135m", "--batch", "4097"], "--batch"),
    (["decode", "--model", "gpt-5"], "gpt-5"),
    (["decode", "--model", "smollm2-135m", "--precision", "w2a2"], "w2a2"),
    (["decode", "--model", "smollm2-135m", "--precision", "w8a8kv5"], "w8a8kv5"),
    (["decode", "--model", "smollm2-135m", "--context", "0"], "--context"),
    (["everything"], "everything"),
])  # fmt: skip
def test_wrong_usage(arguments, word):
    assert word in assert_fails(run("bench", *arguments), 2)


def test_a_plot_that_cannot_be_written(tmp_path):
    plot = tmp_path / "no" / "such" / "folder.svg"
    assert "folder.svg" in assert_fails(
        run("bench", "gemm", *CPU, "--shape", "64x128", "--tokens", "1", "--json", "--plot", plot), 1)
