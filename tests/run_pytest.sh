#!/usr/bin/env bash
# Runs a pytest file with the Python of ATOM_TEST_PYTHON. Exit code 77 (skipped, to ctest) when that is not set or when
# every test of the file was skipped.
set -uo pipefail
if [ -z "${ATOM_TEST_PYTHON:-}" ]; then
  echo "skipped: ATOM_TEST_PYTHON names no Python with pytest (scripts/install makes one in .venv)"
  exit 77
fi
cd "$(dirname "$0")" || exit 1
output=$("$ATOM_TEST_PYTHON" -m pytest -p no:cacheprovider -q -ra "$@" 2>&1)
code=$?
echo "$output"
summary=$(tail -n 1 <<<"$output")
[[ $code != 0 || $summary == *passed* ]] || exit 77
exit $code
