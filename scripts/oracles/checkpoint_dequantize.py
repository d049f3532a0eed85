"""Dequantizes raw GGUF blocks with the PyPI package gguf.

usage: checkpoint_dequantize.py (TYPE BLOCKS OUT)...

Reads the file BLOCKS as one row of blocks of TYPE (a name such as Q4_K) and writes its values to OUT as little-endian
float32.
"""
import sys

import gguf
import numpy as np


def main():
    arguments = iter(sys.argv[1:])
    for name, blocks, out in zip(arguments, arguments, arguments):
        data = np.fromfile(blocks, dtype=np.uint8).reshape(1, -1)
        with np.errstate(all="ignore"):
            values = gguf.dequantize(data, gguf.GGMLQuantizationType[name])
        values.astype("<f4").tofile(out)


if __name__ == "__main__":
    main()
