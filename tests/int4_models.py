"""Tiny models whose linear layers have 4 bits, as GPTQ and AWQ store them."""

import json
import pathlib
import sys

import numpy as np

from atom_cli import GOLDEN, Safetensors, copy_model

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "scripts" / "oracles"))
import checkpoint_int4  # noqa: E402

GROUP = 32


def quantize(weight, group):
    """Integers, zero points and scales of a weight [in, out] whose input i belongs to group[i]."""
    groups = range(group.max() + 1)
    low = np.array([weight[group == g].min(axis=0) for g in groups])
    high = np.array([weight[group == g].max(axis=0) for g in groups])
    scale = (np.maximum((high - low) / 15, 1e-6)).astype(np.float16)
    wide = scale.astype(np.float32)
    zero = np.clip(np.rint(-low / wide), 0, 15).astype(np.int64)
    q = np.clip(np.rint(weight / wide[group]) + zero[group], 0, 15).astype(np.int64)
    return q, zero, scale


def int4_model(name, folder, method):
    """The model `name` with linear layers of 4 bits, and beside it the same in float16; returns both folders."""
    name = pathlib.Path(name)
    quantized = copy_model(name, folder / method)
    plain = copy_model(name, folder / f"{method}_plain")
    source = Safetensors(GOLDEN / name / "model.safetensors")
    low_bit, floats = (Safetensors(GOLDEN / name / "model.safetensors") for _ in range(2))
    random_order = np.random.default_rng(7)
    for tensor in source.names():
        if not tensor.endswith("_proj.weight"):
            continue
        weight = source.floats(tensor).T  # [in, out]
        group = np.arange(weight.shape[0]) // GROUP
        if method == "gptq":
            group = random_order.permutation(group)
        q, zero, scale = quantize(weight, group)
        parts = (checkpoint_int4.gptq_tensors(q, zero, group, 1, True) if method == "gptq"
                 else checkpoint_int4.awq_tensors(q, zero))
        low_bit.remove(tensor)
        for part, value in {**parts, "p.scales": scale}.items():
            low_bit.add(part.replace("p.", tensor.removesuffix("weight"), 1), value)
        floats.remove(tensor)
        floats.add(tensor, ((q - zero[group]).astype(np.float16) * scale[group]).T)
    config = json.loads((quantized / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": GROUP}
    config["quantization_config"] |= {"desc_act": True} if method == "gptq" else {"version": "gemm", "zero_point": True}
    (quantized / "config.json").write_text(json.dumps(config))
    low_bit.write(quantized / "model.safetensors")
    floats.write(plain / "model.safetensors")
    return quantized, plain
