#!/usr/bin/env python3
"""Writes the tables of measured results into README.md and docs/*.md from the files in docs/results/.

usage: render_results.py [--check]

A table stands between two lines of a Markdown file:

    <!-- results: ablation -->
    <!-- end of results -->

and comes from docs/results/ablation.json:

    {"commit": "1a2b3c4", "machine": "...", "command": "...", "rows": [{"name": "FP", "perplexity": 21.63}, ...]}

The commit is a field of each row instead where rows were measured at different ones. Columns are the fields of the rows, in
order of first appearance, the commit last; field names become headings (underscores are spaces). Numbers stay as they are
written in the file. --check writes nothing, and fails when a table is out of date.
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- results: ([\w-]+) -->\n).*?(<!-- end of results -->)", re.DOTALL)


class Number(str):
    """A number as it is written in the JSON file, digits and all."""


def cell(value):
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def table(path):
    if not path.exists():
        return "*Not measured yet.*\n"
    results = json.loads(path.read_text(), parse_float=Number, parse_int=Number)
    for field in ("machine", "command", "rows"):
        if field not in results:
            sys.exit(f"{path}: no field '{field}'")
    columns = list(dict.fromkeys(name for row in results["rows"] for name in row))
    columns.sort(key=lambda column: column == "commit")  # that one last
    numeric = {c for c in columns if all(isinstance(row.get(c), (Number, type(None))) for row in results["rows"])}
    heading = ["" if c == "name" else c.replace("_", " ") for c in columns]
    lines = [heading, ["---:" if c in numeric else "---" for c in columns]]
    lines += [[cell(row.get(c)) for c in columns] for row in results["rows"]]
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    commit = f"commit `{results['commit']}`; " if "commit" in results else ""
    return f"{text}\n{results['machine']}; {commit}`{results['command']}`\n"


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    stale = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        before = path.read_text()
        after = BLOCK.sub(lambda m: m[1] + table(ROOT / "docs" / "results" / f"{m[2]}.json") + m[3], before)
        if after == before:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not check:
            path.write_text(after)
    if stale:
        print(("out of date: " if check else "written: ") + ", ".join(stale))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
