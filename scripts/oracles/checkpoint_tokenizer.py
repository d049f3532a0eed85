"""Tokenizes a text with the PyPI package tokenizers.

usage: checkpoint_tokenizer.py TOKENIZER.json TEXT [--special]

Prints the ids as a JSON array, without (or with) the tokens that the post-processor adds.
"""
import json
import sys

from tokenizers import Tokenizer


def main():
    tokenizer = Tokenizer.from_file(sys.argv[1])
    with open(sys.argv[2], encoding="utf-8", newline="") as file:
        text = file.read()
    print(json.dumps(tokenizer.encode(text, add_special_tokens="--special" in sys.argv[3:]).ids))


if __name__ == "__main__":
    main()
