#!/usr/bin/env python3
"""Runs `atom bench gemm|attention|fused|decode` on a GPU and writes docs/results/gpu_*.json, which the tables in docs/ are drawn from.

usage: measure_gpu.py ATOM [--only gemm,attention,fused,decode] [--seconds 0.1] [--out DIR] [--plots DIR]

Every row holds the baselines of the same run beside it. Times are microseconds unless a column says otherwise; "x FP8" is how many
times as fast as that baseline. The commit is that of the binary.
"""

import argparse
import json
import pathlib
import sys

from measure_ablation import ROOT, machine, run

MODELS = ["llama-2-7b", "llama-3-8b", "llama-2-70b"]
TOKENS = [1, 16, 64, 128, 256, 1024, 4096]


def microseconds(entry):
    return {one["name"]: one["seconds"] * 1e6 for one in entry["implementations"]}


def digits(value):
    return float(f"{value:.3g}") if value < 1000 else round(value)


def limits_row(result):
    limits = result["limits"]
    text = ", ".join(f"{name.split('_')[0]} {value * 1e-12:.3g} {'TB/s' if 'bytes' in name else 'TFLOPS'}" for name, value in limits.items())
    return f"{result['device']}; measured limits: {text}"


def gemm_rows(result):
    for entry in result["sums"]:
        times = microseconds(entry)
        gate_up = next(e for e in result["results"] if e.get("layer") == "gate_up" and e["model"] == entry["model"]
                       and e["tokens"] == entry["tokens"])
        share = next(one["share_of_bandwidth"] for one in gate_up["implementations"] if one["name"] == "W4A4")
        row = {"name": entry["model"], "tokens": entry["tokens"]}
        for name in ("W4A4", "W4A4 to F32", "W4A8", "BF16", "FP8", "W8A8", "W4A16"):
            row[name] = digits(times[name])
        row["x BF16"] = round(times["BF16"] / times["W4A4"], 2)
        row["x FP8"] = round(times["FP8"] / times["W4A4"], 2)
        row["gate_up, share of read bandwidth"] = round(share, 2)
        yield row


def cudnn_microseconds(entry):
    """The same attention by cuDNN through PyTorch, on contiguous FP16 keys and values; None where there is no PyTorch."""
    try:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:
        return None
    rows = 1 if entry["phase"] == "decode" else entry["context"]
    shape = lambda heads, length: (entry["batch"], heads, length, entry["head_dim"])
    make = lambda *size: torch.randn(size, device="cuda", dtype=torch.float16)
    q = make(*shape(entry["heads"], rows))
    bytes_a_copy = 4 * entry["batch"] * entry["kv_heads"] * entry["context"] * entry["head_dim"]
    copies = [[make(*shape(entry["kv_heads"], entry["context"])) for _ in "kv"] for _ in range(max(1, 200_000_000 // bytes_a_copy))]
    times = []
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        for i in range(20 + 5):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            k, v = copies[i % len(copies)]
            torch.cuda.synchronize()
            start.record()
            try:
                torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=rows > 1, enable_gqa=entry["heads"] != entry["kv_heads"])
            except RuntimeError as error:  # shapes that cuDNN does not take
                print(f"cuDNN: {error}", file=sys.stderr)
                return None
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) * 1e3)
    return sorted(times[5:])[10]


def attention_rows(result):
    for entry in result["results"]:
        times = microseconds(entry)
        share = next(one["share_of_bandwidth"] for one in entry["implementations"] if one["name"] == "INT4")
        row = {"name": entry["phase"], "batch": entry["batch"], "context": entry["context"],
               "heads": f"{entry['heads']}/{entry['kv_heads']}"}
        for name in ("INT4", "INT8", "F16", "INT4 exact"):
            row[name] = digits(times[name])
        row["cuDNN F16"] = digits(cudnn) if (cudnn := cudnn_microseconds(entry)) is not None else None
        row["x F16"] = round(times["F16"] / times["INT4"], 2)
        if entry["phase"] == "decode":
            row["share of read bandwidth"] = round(share, 2)
        yield row


def fused_rows(result):
    for entry in result["results"]:
        first = entry["implementations"][0]
        row = {"name": entry["op"], "tokens": entry["tokens"], "us": digits(first["seconds"] * 1e6),
               "share of copy bandwidth": round(first["share_of_bandwidth"], 2)}
        unfused = [one for one in entry["implementations"] if one["name"] == "unfused"]
        row["x unfused"] = round(unfused[0]["seconds"] / first["seconds"], 2) if unfused else None
        yield row


def decode_rows(result):
    for one in result["results"]:
        yield {"name": f"{result['model']}, {one['precision']}", "layers": result["layers"], "batch": result["batch"],
               "ms a step": round(one["seconds_per_step"] * 1e3, 3), "tokens/s": round(one["decode_tokens_per_second"]),
               "x fp16": round(one["times_as_fast_as_first"], 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("atom")
    parser.add_argument("--only", default="gemm,attention,fused,decode")
    parser.add_argument("--seconds", default="0.1")
    parser.add_argument("--out", default=str(ROOT / "docs" / "results"))
    parser.add_argument("--plots", help="folder for diagrams of gemm and attention (SVG)")
    args = parser.parse_args()
    common = ["--device", "cuda", "--json"]
    timed = common + ["--seconds", args.seconds]
    tokens = ",".join(map(str, TOKENS))
    commands = {
        "gemm": [["gemm", "--model", ",".join(MODELS), "--tokens", tokens] + timed],
        "attention": [["attention", "--model", "llama-2-7b,llama-3-8b"] + timed,
                      ["attention", "--model", "llama-2-7b,llama-3-8b", "--batch", "1", "--context", "32768"] + timed],
        "fused": [["fused", "--model", "llama-2-7b", "--tokens", "16,64,4096"] + timed],
        "decode": [["decode", "--model", model, "--batch", "64", "--context", "1024", "--fast"] + common
                   for model in ("llama-2-7b", "llama-3-8b")]
                  + [["decode", "--model", "llama-2-7b", "--layers", "8", "--batch", batch, "--context", "1024", "--fast", "--precision",
                      "fp16", "w8a8", "fp8", "w4a16", "fp16kv4", "fp8kv4", "w4a8kv4", "w4a4kv4"] + common for batch in ("1", "16", "64")],
    }
    rows_of = {"gemm": gemm_rows, "attention": attention_rows, "fused": fused_rows, "decode": decode_rows}
    for what in args.only.split(","):
        rows, results = [], []
        for command in commands[what]:
            plot = []
            if args.plots and what in ("gemm", "attention") and not results:
                plot = ["--plot", str(pathlib.Path(args.plots) / f"gpu_{what}.svg")]
            results.append(run([args.atom, "bench", *command, *plot]))
            rows += rows_of[what](results[-1])
        where = limits_row(results[0]) if "limits" in results[0] else results[0]["device"]
        out = {"commit": results[0]["commit"], "machine": f"{where}; {machine()}",
               "command": f"scripts/measure_gpu.py atom --only {what}" + ("" if what == "decode" else f" --seconds {args.seconds}"),
               "rows": rows}
        path = pathlib.Path(args.out) / f"gpu_{what}.json"
        path.write_text(json.dumps(out, indent=1) + "\n")
        print(path, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
