#!/usr/bin/env python3
"""Measures how fast text becomes tokens, beside the PyPI package tokenizers, and writes docs/results/tokenizers.json.

usage: measure_tokenizers.py ATOM --text FILE [--bytes N] [--work DIR]

One row for each kind of tokenizer and text (FILE, and mixed text made as scripts/oracles/text_tokenizer.py makes it), both cut to
--bytes (3,000,000). Both programs encode the text as one piece on one thread, without loading the tokenizer and without
adding special tokens, in turns; what counts is the best run of each. The ids have to be equal. Tokenizers: the one of
ATOM_TEST_MODEL (a GGUF file), and models trained on the Python library's sources.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "tokenizers.json"
sys.path.insert(0, str(ROOT / "scripts" / "oracles"))
import text_tokenizer as oracle  # noqa: E402
from tokenizers import Regex, Tokenizer, pre_tokenizers  # noqa: E402


def trained_tokenizers(code):
    base = oracle.trained(code, oracle.byte_level())
    yield "GPT-2 (byte-level BPE, trained)", base
    for name, pattern in (("Llama 3", oracle.LLAMA3), ("Qwen2", oracle.QWEN2)):
        tokenizer = Tokenizer.from_str(base.to_str())
        words = oracle.split(Regex(pattern), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, oracle.byte_level(use_regex=False)])
        yield f"{name} (byte-level BPE, trained)", tokenizer
    for name, tokenizer in oracle.metaspace_tokenizers(code):
        if name in ("llama2", "metaspace_first_False"):
            yield f"{'Llama 2' if name == 'llama2' else 'Metaspace'} (byte fallback, trained)", tokenizer


def make_directory(folder):
    """A directory that opens as a model without tensors."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return folder


def run(command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def measure(atom, name, model, tokenizer, text_name, path):
    text = path.read_bytes().decode("utf-8")
    seconds = []
    mine = []
    for _ in range(2):
        begin = time.perf_counter()
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        seconds.append(time.perf_counter() - begin)
        mine.append(run([atom, "bench", "tokenize", model, "--text", path, "--repeats", 3, "--json"]))
    assert mine[0]["tokens"] == len(ids), (name, mine[0]["tokens"], len(ids))
    ours = max(result["megabytes_per_second"] for result in mine)
    theirs = mine[0]["bytes"] / min(seconds) / 1e6
    row = {"name": name, "text": text_name, "tokens": len(ids), "atom_MB/s": round(ours, 1)}
    row |= {"tokenizers_MB/s": round(theirs, 2), "speedup": round(ours / theirs, 1)}
    print(row, flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("atom")
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--bytes", type=int, default=3_000_000)
    parser.add_argument("--work", type=pathlib.Path)
    options = parser.parse_args()
    work = options.work or pathlib.Path(tempfile.mkdtemp())
    code = oracle.library_sources(400_000)
    english = options.text.read_text(encoding="utf-8")
    english = (english * (options.bytes // len(english) + 1))[: options.bytes]
    mixed = oracle.mixed_text(random.Random(1), options.bytes, ["<s>", "</s>", "<|user|>"], code)
    texts = []
    for name, text in (("English", english), ("mixed", mixed)):
        path = work / f"{name}.txt"
        path.write_text(text, encoding="utf-8", newline="")
        texts.append((name, path))

    models = []
    if os.environ.get("ATOM_TEST_MODEL"):
        path = pathlib.Path(os.environ["ATOM_TEST_MODEL"])
        models.append(("SmolLM2 (GGUF)", path, oracle.smollm_tokenizer(str(path))))
    for i, (name, tokenizer) in enumerate(trained_tokenizers(code)):
        folder = make_directory(work / f"trained{i}")
        tokenizer.save(str(folder / "tokenizer.json"))
        models.append((name, folder, tokenizer))
    rows = [measure(options.atom, *model, *text) for model in models for text in texts]
    commit = run([options.atom, "bench", "tokenize", models[0][1], "--text", texts[0][1], "--repeats", 1, "--json"])["commit"]
    cpu = [line for line in open("/proc/cpuinfo") if line.startswith("model name")]
    results = {
        "commit": commit,
        "machine": f"{cpu[0].split(':')[1].strip() if cpu else platform.machine()}, one thread",
        "command": f"scripts/measure_tokenizers.py {options.atom} --text {options.text.name} --bytes {options.bytes}",
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
