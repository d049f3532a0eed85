"""Reads or writes a safetensors file with the PyPI package safetensors.

usage: checkpoint_safetensors.py read FILE       print name, dtype, shape, metadata and bytes of everything in it as JSON
       checkpoint_safetensors.py write FILE      write a file of one tensor of each type, with metadata
"""
import json
import sys

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file


def read(path):
    out = {}
    with safe_open(path, framework="numpy") as file:
        out["metadata"] = file.metadata()
        out["tensors"] = {}
        for name in file.keys():
            part = file.get_slice(name)
            out["tensors"][name] = {"dtype": part.get_dtype(), "shape": part.get_shape()}
            # NumPy has no bfloat16, and safetensors then gives no array.
            if part.get_dtype() != "BF16":
                array = np.ascontiguousarray(file.get_tensor(name))
                out["tensors"][name]["bytes"] = array.tobytes().hex()
    print(json.dumps(out))


def write(path):
    types = {"f32": np.float32, "f16": np.float16, "i64": np.int64, "i32": np.int32, "i8": np.int8, "u8": np.uint8}
    tensors = {name: np.arange(-3 if name[0] != "u" else 0, 3 if name[0] != "u" else 6).astype(kind).reshape(2, 3)
               for name, kind in types.items()}
    tensors["empty"] = np.zeros((0, 4), np.float32)
    tensors["scalar"] = np.array(1.5, np.float32)
    save_file(tensors, path, metadata={"format": "pt"})


if __name__ == "__main__":
    {"read": read, "write": write}[sys.argv[1]](sys.argv[2])
