"""Writes the golden files of src/checkpoint from the PyPI package gguf (written with gguf 0.19.0 and numpy 2.4.6).

usage: checkpoint_golden.py MODEL.gguf OUTPUT_DIRECTORY

checkpoint_dequantize.json: blocks of every type, random and with scales that are NaN, infinite, denormal and extreme,
    with the bits of their values.
checkpoint_smollm2.json: name, type, shape and checksum of every tensor of MODEL by its Hugging Face name, with
    Hugging Face's row order of q_proj and k_proj. The checksum is the sum of bits[i] * (2 i + 1) modulo 2^64
    over the values as float32.
"""
import json
import pathlib
import sys

import gguf
import numpy as np

TYPES = {"F32": 4, "F16": 2, "BF16": 2, "Q4_0": 18, "Q4_1": 20, "Q8_0": 34}
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


def golden_blocks(name, size, random):
    width = 32 if name.startswith("Q") else 1
    count = 40 if width > 1 else 64
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    if width > 1:
        halves = blocks.view("<u2") if size % 2 == 0 else None
        for i, bits in enumerate(SPECIAL_HALVES):
            halves[i, 0] = bits
            if name == "Q4_1":
                halves[-1 - i, 1] = bits
    if name == "F16":
        blocks.view("<u2")[: len(SPECIAL_HALVES), 0] = SPECIAL_HALVES
    return blocks


def write_dequantize(directory):
    random = np.random.default_rng(20240229)
    golden = {}
    for name, size in TYPES.items():
        blocks = golden_blocks(name, size, random)
        with np.errstate(all="ignore"):
            values = gguf.dequantize(blocks.reshape(1, -1), gguf.GGMLQuantizationType[name])
        golden[name] = {"blocks": blocks.tobytes().hex(), "values": values.astype("<f4").tobytes().hex()}
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
        bits = np.ascontiguousarray(values).view(np.uint32).ravel().astype(np.uint64)
        weights = np.arange(bits.size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        checksum = int((bits * weights).sum(dtype=np.uint64))
        golden.append({"name": hugging_face_name(tensor.name), "type": tensor.tensor_type.name,
                       "shape": [int(n) for n in reversed(tensor.shape)], "checksum": f"{checksum:016x}"})
    lines = ",\n".join(json.dumps(tensor) for tensor in golden)
    (directory / "checkpoint_smollm2.json").write_text(f"[\n{lines}\n]\n")


def main():
    model, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    write_dequantize(directory)
    write_model(model, directory)


if __name__ == "__main__":
    main()
