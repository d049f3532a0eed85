#!/usr/bin/env python3
"""Quantizes a model on a GPU, compares what the CPU and the GPU make of the packed checkpoint, and writes docs/results/devices.json.

usage: compare_devices.py ATOM MODEL --calib FILE --text FILE [--windows 20] [--prompts 100] [--tokens 64] [--jobs 8]
                          [--work DIR] [--commit REV] [--out FILE]

Perplexity over the first `windows` windows of the text, on the CPU, on the GPU, and on the GPU with --fast; and the greedy
continuation, `tokens` tokens long, of `prompts` pieces of 64 tokens of the text: how many are the same on both.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from measure_ablation import ROOT, head_commit, machine, run

PROMPT_TOKENS = 64


def prompts_of(atom, packed, text, count):
    """`count` pieces of the text, spread over it evenly."""
    ids = run([atom, "tokenize", packed, "--text", text, "--json"])["ids"]
    step = (len(ids) - PROMPT_TOKENS) // count
    pieces = [ids[i * step:i * step + PROMPT_TOKENS] for i in range(count)]
    return [run([atom, "tokenize", packed, "--decode", json.dumps(piece), "--json"])["text"] for piece in pieces]


def generate(atom, packed, prompt, tokens, options):
    """The tokens of the continuation, as text. The prompt goes through a file: it may begin with a dash."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(prompt)
        file.flush()
        return run([atom, "generate", packed, "--prompt-file", file.name, "--max-tokens", str(tokens), "--ignore-eos", "--json"]
                   + options)["text"]


def gpu_name():
    return subprocess.check_output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], text=True).splitlines()[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("atom")
    parser.add_argument("model")
    parser.add_argument("--calib", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--work", default="build/devices")
    parser.add_argument("--commit", help="default: that of the working tree")
    parser.add_argument("--out", default=str(ROOT / "docs" / "results" / "devices.json"))
    args = parser.parse_args()
    commit = args.commit or head_commit()

    packed = str(pathlib.Path(args.work) / "packed")
    pathlib.Path(args.work).mkdir(parents=True, exist_ok=True)
    rows = []

    def add(name, **figures):
        rows.append({"name": name, **figures})
        print(rows[-1], file=sys.stderr, flush=True)

    start = time.monotonic()
    quantized = run([args.atom, "quantize", args.model, "-o", packed, "--overwrite", "--rotate-keys", "--calib", args.calib,
                     "--device", "cuda", "--json"])
    add("quantize, 128 x 2,048 tokens, GPU", seconds=round(time.monotonic() - start, 1),
        device_memory_GB=round(quantized["device_memory_bytes"] / 1e9, 2))

    for name, options in (("CPU", ["--device", "cpu"]), ("GPU", ["--device", "cuda"]),
                          ("GPU, --fast", ["--device", "cuda", "--fast"])):
        measured = run([args.atom, "eval", "ppl", packed, "--text", args.text, "--windows", str(args.windows), "--json"] + options)
        add(f"perplexity, {args.windows} windows, {name}", perplexity=measured["perplexity"], seconds=round(measured["seconds"], 1))

    prompts = prompts_of(args.atom, packed, args.text, args.prompts)
    threads = str(max(1, (os.cpu_count() or 1) // args.jobs))
    answers = {}
    for name, options in (("CPU", ["--device", "cpu", "--threads", threads]), ("GPU", ["--device", "cuda"])):
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            answers[name] = list(pool.map(lambda p, o=options: generate(args.atom, packed, p, args.tokens, o), prompts))
        add(f"{args.prompts} x {args.tokens} greedy tokens, {name}", seconds=round(time.monotonic() - start, 1))
    same = sum(a == b for a, b in zip(answers["CPU"], answers["GPU"]))
    add(f"the same on both, of {args.prompts}", prompts=same)
    shutil.rmtree(packed)

    command = (f"scripts/compare_devices.py atom {pathlib.Path(args.model).name} --calib {pathlib.Path(args.calib).name} "
               f"--text {pathlib.Path(args.text).name} --windows {args.windows} --prompts {args.prompts} --tokens {args.tokens} "
               f"--jobs {args.jobs}")
    results = {"commit": commit, "machine": f"{gpu_name()}; {machine()}", "command": command, "rows": rows}
    pathlib.Path(args.out).write_text(json.dumps(results, indent=1) + "\n")
    print(args.out, file=sys.stderr)


if __name__ == "__main__":
    main()
