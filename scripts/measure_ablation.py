#!/usr/bin/env python3
"""Measures what each part of the recipe costs or gains, and writes docs/results/ablation.json.

usage: measure_ablation.py ATOM MODEL --calib FILE --text FILE [--samples 128] [--work DIR] [--rows NAME,...]

Each row quantizes MODEL with one part more than the row before it, and evaluates the packed checkpoint in a new process. Rows
that share a checkpoint quantize once. Rows already in the JSON file are kept, each with the commit that it was measured at, so a run
can be continued; delete the file to measure all of them again.
"""

import argparse
import json
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "ablation.json"
NO_CLIP = ["--activation-clip", "1", "--weight-clip", "1"]
FP16_SCALES = ["--scales", "fp16"]  # the paper's
ROUND = ["--recipe", "atom", "--no-gptq", "--kv-bits", "16"] + FP16_SCALES

# Checkpoint -> options of `atom quantize`.
CHECKPOINTS = {
    "rtn": ["--recipe", "rtn"],
    "outliers16": ROUND + NO_CLIP + ["--group-size", "0", "--outlier-bits", "16"],
    "outliers8": ROUND + NO_CLIP + ["--group-size", "0"],
    "groups": ROUND + NO_CLIP,
    "clip": ROUND,
    "atom": ["--recipe", "atom"] + FP16_SCALES,
    "rotated": ["--recipe", "atom", "--rotate-keys"] + FP16_SCALES,
    "w4a8": ["--recipe", "atom-w4a8"] + FP16_SCALES,
    "searched": ["--recipe", "atom", "--search-clips"] + FP16_SCALES,
    "integer": ["--recipe", "atom"],
    "integer_rotated": ["--recipe", "atom", "--rotate-keys"],
    "integer_w4a8": ["--recipe", "atom-w4a8"],
}

# Key -> (name in the table, checkpoint or None for the original, KV cache).
ROWS = {
    "fp": ("full precision", None, "f16"),
    "rtn": ("W4A4 by rounding, one scale per token and row", "rtn", "f16"),
    "outliers16": ("+ outlier channels in FP16", "outliers16", "f16"),
    "outliers8": ("+ outlier channels in INT8", "outliers8", "f16"),
    "groups": ("+ groups of 128", "groups", "f16"),
    "clip": ("+ clipping (0.9 activations, 0.85 weights)", "clip", "f16"),
    "gptq": ("+ GPTQ: recipe `atom` with a 16-bit cache", "atom", "f16"),
    "atom": ("+ 4-bit KV cache: recipe `atom`, W4A4KV4", "atom", "int4"),
    "rotated": ("recipe `atom` with keys rotated, W4A4KV4", "rotated", "int4"),
    "searched": ("recipe `atom` with clips searched, W4A4KV4", "searched", "int4"),
    "w4a8": ("recipe `atom-w4a8`, W4A8KV4", "w4a8", "int4"),
    "integer": ("integer scales: recipe `atom`, W4A4KV4", "integer", "int4"),
    "integer_rotated": ("integer scales, keys rotated, W4A4KV4", "integer_rotated", "int4"),
    "integer_w4a8": ("integer scales: recipe `atom-w4a8`, W4A8KV4", "integer_w4a8", "int4"),
}


def run(command):
    """The JSON object a command prints."""
    print("+", " ".join(command), file=sys.stderr, flush=True)
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def head_commit():
    return subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip()


def machine():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.split(':')[1].strip()}, {subprocess.check_output(['nproc'], text=True).strip()} cores"
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("atom")
    parser.add_argument("model")
    parser.add_argument("--calib", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--work", default="build/ablation")
    parser.add_argument("--rows", default=",".join(ROWS))
    args = parser.parse_args()

    commit = head_commit()
    results = {"machine": machine(),
               "command": f"scripts/measure_ablation.py atom {pathlib.Path(args.model).resolve().name} "
                          f"--calib {pathlib.Path(args.calib).name} --text {pathlib.Path(args.text).name} --samples {args.samples}",
               "rows": []}
    if RESULTS.exists():
        before = json.loads(RESULTS.read_text())
        if before["command"] != results["command"]:
            sys.exit(f"{RESULTS}: is of another command: {before['command']}")
        results = before
    work = pathlib.Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    order = {name: i for i, (name, _, _) in enumerate(ROWS.values())}
    for key in args.rows.split(","):
        name, checkpoint, cache = ROWS[key]
        if any(row["name"] == name for row in results["rows"]):
            continue
        path = args.model
        row = {"name": name}
        if checkpoint is not None:
            path = str(work / checkpoint)
            record = work / f"{checkpoint}.{commit}.{args.samples}.json"
            if not record.exists():
                report = run([args.atom, "quantize", args.model, "-o", path, "--overwrite", "--calib", args.calib, "--samples",
                              str(args.samples), "--json", *CHECKPOINTS[checkpoint]])
                record.write_text(json.dumps(report))
            report = json.loads(record.read_text())
        measured = run([args.atom, "eval", "ppl", path, "--text", args.text, "--kv-cache", cache, "--json"])
        row["perplexity"] = round(measured["perplexity"], 3)
        row["windows"] = measured["windows"]
        if checkpoint is not None:
            row["bits_per_weight"] = round(report["bits_per_weight"], 3)
        row["commit"] = commit
        results["rows"].append(row)
        results["rows"].sort(key=lambda r: order[r["name"]])
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(json.dumps(row), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
