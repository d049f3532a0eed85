"""Writes checkpoints of 4-bit weights in the layouts of GPTQ and AWQ, with what their weights are.

usage: checkpoint_int4.py DIRECTORY

Each subdirectory made has a config.json and a model.safetensors with the tensors of one linear layer "p" and its weight
as "expected" [out, in]. The weight is computed from the integers before they are packed, in float16 (or float32, where
the scales are): integer - zero point, times scale.
"""
import json
import pathlib
import sys

import numpy as np
from safetensors.numpy import save_file


def pack(nibbles):
    """Integers 0..15 [rows, 8 n] as int32 [rows, n], the first of eight in the lowest bits."""
    rows = nibbles.reshape(nibbles.shape[0], -1, 8).astype(np.uint64)
    words = sum(rows[:, :, j] << np.uint64(4 * j) for j in range(8))
    return words.astype(np.uint32).view(np.int32)


def gptq_tensors(q, zero, group, minus_one, with_index):
    tensors = {"p.qweight": pack(q.T).T, "p.qzeros": pack((zero - minus_one) % 16)}
    if with_index:
        tensors["p.g_idx"] = group.astype(np.int32)
    return tensors


def awq_tensors(q, zero):
    def interleave(columns):
        """AWQ's kernels unpack even and odd nibbles apart: of eight columns the even ones come first."""
        return columns.reshape(columns.shape[0], -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(columns.shape)

    return {"p.qweight": pack(interleave(q)), "p.qzeros": pack(interleave(zero))}


def write(folder, random, sizes, group_size, method, scale_type=np.float16, **settings):
    inputs, outputs = sizes
    width = inputs if group_size == -1 else group_size
    groups = inputs // width
    group = np.arange(inputs) // width
    if settings.get("desc_act"):
        group = random.permutation(group)
    q = random.integers(0, 16, (inputs, outputs))
    # AutoGPTQ keeps 1 to 16 as 0 to 15; 16 wraps to 0.
    zero = np.full((groups, outputs), 8) if settings.get("sym") else random.integers(0, 16, (groups, outputs))
    scale = (random.standard_normal((groups, outputs)) * 0.02).astype(scale_type)
    scale[0, :4] = [6e-8, -6e-5, 0, 3000]
    expected = (q - zero[group]).astype(scale_type) * scale[group]
    if method == "gptq":
        as_it_is = settings.get("checkpoint_format") == "gptq_v2" or settings.pop("mislabelled", False)
        minus_one = 0 if as_it_is else 1
        with_index = settings.pop("with_index", True)
        tensors = gptq_tensors(q, zero, group, minus_one, with_index)
    else:
        tensors = awq_tensors(q, zero)
    tensors |= {"p.scales": scale, "expected": expected.T}
    folder.mkdir(parents=True)
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / "model.safetensors")
    config = {"quant_method": method, "bits": 4, "group_size": group_size, **settings}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": config}))


def main():
    directory = pathlib.Path(sys.argv[1])
    random = np.random.default_rng(4)
    write(directory / "gptq", random, (256, 72), 128, "gptq", sym=True, desc_act=False, damp_percent=0.01, static_groups=False)
    write(directory / "gptq_asymmetric", random, (192, 8), 64, "gptq", sym=False, checkpoint_format="gptq")
    write(directory / "gptq_order", random, (256, 200), 32, "gptq", sym=False, desc_act=True, true_sequential=True)
    write(directory / "gptq_v2", random, (72, 40), -1, "gptq", sym=False, checkpoint_format="gptq_v2", format="gptq_v2")
    write(directory / "gptq_small_groups", random, (136, 136), 4, "gptq", sym=False, with_index=False)
    write(directory / "gptq_f32", random, (64, 64), 8, "gptq", scale_type=np.float32, sym=False)
    # GPTQModel wrote symmetric checkpoints of the second format under the first one's name.
    write(directory / "gptq_mislabelled", random, (64, 64), 32, "gptq", sym=True, checkpoint_format="gptq", mislabelled=True)
    write(directory / "awq", random, (256, 200), 128, "awq", zero_point=True, version="GEMM", modules_to_not_convert=None)
    write(directory / "awq_odd", random, (99, 24), 33, "awq", format="gemm", modules_to_not_convert=["lm_head"])
    write(directory / "awq_channel", random, (100, 8), -1, "awq", version="gemm", backend="autoawq")


if __name__ == "__main__":
    main()
