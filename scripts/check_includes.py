#!/usr/bin/env python3
"""Checks that the parts of the tree include each other only downwards, and that files stay readable in length.

usage: check_includes.py [ROOT]

Rules, on every .h, .cpp, .inc, .cu and .cuh file of src/, apps/, bench/ and fuzz/:
- an #include "folder/file.h" is rooted at src/, names a file that is there, and goes along the arrows below (or
  several of them in a row); files of apps/ and bench/ may also include a neighbour by its bare name,
  and a file of the folder above as "../name";
- the folder of src/ is known here, and the DEPS of its CMakeLists.txt follow the same arrows;
- a file has at most 600 lines.

Prints one line per offence; exit code 1 when there is one.
"""

import pathlib
import re
import sys

MAX_LINES = 600

# The arrows of docs/architecture.md: a folder may use those it names, and what those may use.
ARROWS = {
    "base": [],
    "tensor": ["base"],
    "text": ["base"],
    "checkpoint": ["tensor"],
    "kernels": ["tensor"],
    "kvcache": ["kernels"],
    "model": ["kernels", "kvcache", "checkpoint"],
    "quant": ["model"],
    "engine": ["model", "kvcache", "text"],
    "eval": ["engine"],
    "server": ["engine"],
}
# Top folders outside src/ and what they may use.
USERS = {
    "apps": list(ARROWS),
    "bench": list(ARROWS),
    "fuzz": ["text", "checkpoint", "server"],
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SUFFIXES = {".h", ".cpp", ".inc", ".cu", ".cuh"}


def closure(folders):
    """The folders and everything below them."""
    reached, pending = set(), list(folders)
    while pending:
        folder = pending.pop()
        if folder not in reached:
            reached.add(folder)
            pending += ARROWS[folder]
    return reached


def allowed_for(path, root):
    """(name of the part, folders of src/ it may include), or None for a folder nobody knows."""
    parts = path.relative_to(root).parts
    if parts[0] != "src":
        return parts[0], closure(USERS[parts[0]])
    if len(parts) < 3 or parts[1] not in ARROWS:
        return None
    return parts[1], closure([parts[1]])


def check_file(path, root):
    name = path.relative_to(root)
    lines = path.read_text(encoding="utf-8").splitlines()
    if len(lines) > MAX_LINES:
        yield f"{name}: {len(lines)} lines, at most {MAX_LINES} are allowed"
    part = allowed_for(path, root)
    if part is None:
        yield f"{name}: not in a known folder of src/ ({', '.join(ARROWS)})"
        return
    part, allowed = part
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        kind, target = match.groups()
        folder = target.split("/")[0] if "/" in target else None
        if kind == "<":
            if folder in ARROWS and (root / "src" / target).exists():
                yield f'{name}:{number}: write #include "{target}", in quotes'
        elif folder is None or (folder == ".." and part not in ARROWS):
            if part in ARROWS or not (path.parent / target).exists():
                yield f"{name}:{number}: \"{target}\" is not rooted at src/"
        elif not (root / "src" / target).exists():
            yield f"{name}:{number}: \"{target}\" is not in src/"
        elif folder not in allowed:
            yield f"{name}:{number}: {part} must not include {folder} (\"{target}\")"


def check_cmake(path, root):
    """The libraries a module links follow the arrows too."""
    name = path.relative_to(root)
    module = re.search(r"atom_module\(\s*(\w+)(?:\s+DEPS((?:\s+\w+)*?))?(?:\s+LIBS[^)]*)?\)", path.read_text())
    if not module:
        yield f"{name}: no atom_module(NAME DEPS ... LIBS ...)"
        return
    folder, links = module.group(1), (module.group(2) or "").split()
    if folder != path.parent.name or folder not in ARROWS:
        yield f"{name}: module {folder} in folder {path.parent.name}"
        return
    for link in links:
        if link not in closure(ARROWS[folder]):
            yield f"{name}: {folder} must not link {link}"


def check(root):
    offences = []
    for top in ("src", *USERS):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                offences += check_file(path, root)
    for path in sorted((root / "src").glob("*/CMakeLists.txt")):
        offences += check_cmake(path, root)
    return offences


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1]).resolve()
    if not (root / "src").is_dir():
        sys.exit(f"{root}: no src/ folder")
    offences = check(root)
    print("\n".join(offences) if offences else "includes go downwards only")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
