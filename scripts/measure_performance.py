#!/usr/bin/env python3
"""Measures generation, evaluation and size of a full-precision model and a packed one, and writes docs/results/performance.json.

usage: measure_performance.py ATOM MODEL PACKED --text FILE [--isa avx2,avx512vnni] [--threads 2] [--repeat 5]

The two models take turns, `repeat` times; the figures are medians, the ratio is of the packed model to the other.
"""

import argparse
import json
import statistics
import sys

from measure_ablation import ROOT, head_commit, machine, run

PROMPT = "Write a short story about a lighthouse keeper who finds a message in a bottle."


def generate(atom, model, isa, threads):
    return run([atom, "generate", model, "-p", PROMPT, "--max-tokens", "128", "--ignore-eos", "--temperature", "0", "--threads", threads,
                "--isa", isa, "--json"])


def evaluate(atom, model, isa, threads, text, windows):
    return run([atom, "eval", "ppl", model, "--text", text, "--windows", str(windows), "--threads", threads, "--isa", isa, "--json"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("atom")
    parser.add_argument("model")
    parser.add_argument("packed")
    parser.add_argument("--text", required=True)
    parser.add_argument("--isa", default="avx2,avx512vnni")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--windows", type=int, default=2)
    args = parser.parse_args()

    models = {"full precision": args.model, "W4A4KV4": args.packed}
    rows = []
    for isa in args.isa.split(","):
        decode = {name: [] for name in models}
        tokens = {name: [] for name in models}
        for _ in range(args.repeat):
            for name, path in models.items():
                decode[name].append(generate(args.atom, path, isa, args.threads)["decode_tokens_per_second"])
                measured = evaluate(args.atom, path, isa, args.threads, args.text, args.windows)
                tokens[name].append(measured["tokens"] / measured["seconds"])
        for what, figures in (("decode, batch 1", decode), ("eval ppl, windows of 2,048", tokens)):
            medians = {name: statistics.median(values) for name, values in figures.items()}
            row = {"name": what, "instruction_set": isa}
            for name, value in medians.items():
                row[f"{name}, tokens/s"] = round(value, 1)
            row["ratio"] = round(medians["W4A4KV4"] / medians["full precision"], 2)
            rows.append(row)
    commit = head_commit()
    command = (f"scripts/measure_performance.py atom MODEL PACKED --text test.txt --threads {args.threads} "
               f"--repeat {args.repeat} --windows {args.windows}")
    results = {"commit": commit, "machine": machine(), "command": command, "rows": rows}
    path = ROOT / "docs" / "results" / "performance.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(path, file=sys.stderr)


if __name__ == "__main__":
    main()
