#!/usr/bin/env python3
"""The table at the end of scripts/demo, from the JSON objects that the commands printed.

usage: demo_summary.py FOLDER
"""

import json
import pathlib
import sys


def main():
    folder = pathlib.Path(sys.argv[1])
    fp, atom = (
        {name: json.loads((folder / f"{name}_{model}.json").read_text()) for name in ("ppl", "inspect", "generate")}
        for model in ("fp", "atom")
    )
    rows = [
        ("perplexity", "ppl", "perplexity", "{:.3f}"),
        ("bits per weight", "inspect", "bits_per_weight", "{:.2f}"),
        ("size, MB", "inspect", "megabytes", "{:.1f}"),
        ("generation, tokens/s", "generate", "decode_tokens_per_second", "{:.1f}"),
    ]
    for model in (fp, atom):
        model["inspect"]["megabytes"] = model["inspect"]["bytes"] / 1e6
    print(f"{'':22}{'full precision':>16}{'Atom W4A4KV4':>16}{'ratio':>9}")
    for title, source, field, form in rows:
        a, b = fp[source][field], atom[source][field]
        print(f"{title:22}{form.format(a):>16}{form.format(b):>16}{b / a:>9.3f}")


if __name__ == "__main__":
    main()
