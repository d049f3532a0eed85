#!/usr/bin/env python3
"""Sums up a run of scripts/test: a line for each part, the tests that failed, and how many passed in all.

usage: test_summary.py FOLDER

Reads what ctest wrote (FOLDER/*.xml) and the outcomes of the other checks (FOLDER/outcomes, lines of
"passed|failed STAGE NAME"). A part that wrote an unreadable or empty file counts as failed. Exit code 1 when anything
failed, or nothing ran.
"""

import collections
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

# The release build decides what counts as skipped: the sanitizers' builds leave the real model out on purpose.
SKIPS_COUNT_IN = "release"


def ctest_outcomes(path):
    """(outcome, name) of every test in one of ctest's XML files."""
    try:
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    except ElementTree.ParseError as error:
        return [("failed", f"{path.name}: {error}")]
    if not cases:
        return [("failed", f"{path.name}: no tests ran")]
    outcomes = []
    for case in cases:
        if case.find("skipped") is not None:
            outcome = "skipped" if path.stem == SKIPS_COUNT_IN else "left out"
        elif case.get("status") == "run" and case.find("failure") is None and case.find("error") is None:
            outcome = "passed"
        else:
            outcome = "failed"
        outcomes.append((outcome, case.get("name")))
    return outcomes


def main():
    folder = pathlib.Path(sys.argv[1])
    parts = collections.defaultdict(list)
    if (folder / "outcomes").exists():
        for line in (folder / "outcomes").read_text().splitlines():
            outcome, stage, name = line.split(maxsplit=2)
            parts[stage].append((outcome, f"{stage} {name}"))
    for path in sorted(folder.glob("*.xml")):
        parts[f"{path.stem} tests"] += ctest_outcomes(path)

    total = collections.Counter()
    for part, outcomes in parts.items():
        count = collections.Counter(outcome for outcome, _ in outcomes)
        total += count
        print(f"{part:16}" + ", ".join(f"{n} {outcome}" for outcome, n in sorted(count.items())))
    for outcome in ("failed", "skipped"):
        for part, outcomes in parts.items():
            for name in (name for found, name in outcomes if found == outcome):
                print(f"{outcome}: {name}")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 1 if total["failed"] or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
