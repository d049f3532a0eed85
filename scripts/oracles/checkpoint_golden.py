"""Writes the golden files of src/checkpoint from the PyPI package gguf (written with gguf 0.19.0 and numpy 2.4.6).

usage: checkpoint_golden.py MODEL.gguf OUTPUT_DIRECTORY

checkpoint_dequantize.json: blocks of every type, random and with scales that are NaN, infinite, denormal and extreme,
    with a checksum of their values.
checkpoint_smollm2.json: name, type, shape and checksum of every tensor of MODEL by its Hugging Face name, with
    Hugging Face's row order of q_proj and k_proj.

A checksum is the sum of bits[i] * (2 i + 1) modulo 2^64 over the values as float32.
"""
import json
import pathlib
import sys

import gguf
import numpy as np

# Of each type the width of a block, its size, and where its FP16 numbers are.
TYPES = {
    "F32": (1, 4, []), "F16": (1, 2, [0]), "BF16": (1, 2, []), "Q4_0": (32, 18, [0]), "Q4_1": (32, 20, [0, 2]),
    "Q5_0": (32, 22, [0]), "Q5_1": (32, 24, [0, 2]), "Q8_0": (32, 34, [0]), "Q2_K": (256, 84, [80, 82]),
    "Q3_K": (256, 110, [108]), "Q4_K": (256, 144, [0, 2]), "Q5_K": (256, 176, [0, 2]), "Q6_K": (256, 210, [208]),
    "IQ4_NL": (32, 18, [0]), "IQ4_XS": (256, 136, [0]), "TQ1_0": (256, 54, [52]), "TQ2_0": (256, 66, [64]),
    "MXFP4": (32, 17, []),
}
SPECIAL_HALVES = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00]
NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
}


def hugging_face_name(name):
    if not name.startswith("blk."):
        part, kind = name.split(".")
        return f"{NAMES[part]}.{kind}"
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.{kind}"


def checksum(values):
    """Any NaN counts as one and the same."""
    values = np.where(np.isnan(values), np.float32(np.nan), values.astype(np.float32))
    bits = np.ascontiguousarray(values).view(np.uint32).ravel().astype(np.uint64)
    weights = np.arange(bits.size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return f"{int((bits * weights).sum(dtype=np.uint64)):016x}"


def golden_blocks(name, random):
    width, size, halves = TYPES[name]
    blocks = random.integers(0, 256, (64 if width == 1 else 32, size), dtype=np.uint8)
    for where, at in enumerate(halves):
        for i, bits in enumerate(SPECIAL_HALVES):
            blocks[-1 - i if where else i, at : at + 2] = np.frombuffer(np.uint16(bits).tobytes(), np.uint8)
    if name == "MXFP4":
        blocks[:4, 0] = [0, 1, 2, 255]
    return blocks


def write_dequantize(directory):
    random = np.random.default_rng(20240229)
    golden = {}
    for name in TYPES:
        blocks = golden_blocks(name, random)
        with np.errstate(all="ignore"):
            values = gguf.dequantize(blocks.reshape(1, -1), gguf.GGMLQuantizationType[name])
        golden[name] = {"blocks": blocks.tobytes().hex(), "checksum": checksum(values)}
    (directory / "checkpoint_dequantize.json").write_text(json.dumps(golden, indent=0) + "\n")


def write_model(model, directory):
    reader = gguf.GGUFReader(model)
    heads = {"attn_q": int(reader.fields["llama.attention.head_count"].contents()),
             "attn_k": int(reader.fields["llama.attention.head_count_kv"].contents())}
    golden = []
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        for part, count in heads.items():
            if f".{part}." in tensor.name:
                rows, cols = values.shape
                values = values.reshape(count, rows // count // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)
        golden.append({"name": hugging_face_name(tensor.name), "type": tensor.tensor_type.name,
                       "shape": [int(n) for n in reversed(tensor.shape)], "checksum": checksum(values)})
    lines = ",\n".join(json.dumps(tensor) for tensor in golden)
    (directory / "checkpoint_smollm2.json").write_text(f"[\n{lines}\n]\n")


def main():
    model, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    write_dequantize(directory)
    write_model(model, directory)


if __name__ == "__main__":
    main()
