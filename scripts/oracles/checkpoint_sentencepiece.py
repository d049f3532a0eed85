#!/usr/bin/env python3
"""Writes what the PyPI packages `sentencepiece` and `tiktoken` make of mixed text, for directory_tokenizer_test.cpp.

    checkpoint_sentencepiece.py --out DIR [--bytes N] [--seed N]

For every tokenizer NAME it writes the folder DIR/NAME with tokenizer.model or tekken.json, and DIR/NAME.cases.jsonl, one
case a line: {"text", "ids", "decoded"}, without "text" where the ids are no text's.
Tokenizers are those that the PyPI package mistral-common carries (its files
alone are used), where it is installed, and models trained on the spot on the Python library's sources, one for each
setting. Special tokens inside the text are text, as these packages take them.
"""
import argparse
import base64
import importlib.util
import io
import json
import pathlib
import random
import shutil
import sys

import sentencepiece
from text_tokenizer import SCRIPTS, library_sources, mixed_text, piece

SPECIALS = ["<s>", "</s>", "<unk>", "[INST]", "<0x41>", "<user>", "<|x|>"]
ODD = ["", " ", "  ", "\n", "a", "é", "😀", "Hello, world!", " lead", "trail  ", "▁", "▁▁a", " ▁a", "a ▁", "\x00a", "  x  y  "]
ODD += ["<user> a<user>", " <user>", "<user>", "a  <user>  b", "①ﬁ Å", "Ａ　ｂ"]
# What user-defined pieces below make of text that normalization changes.
KEPT = ["\n", "\t", "Ａ", "①", "ab cd", " lead", "  ", "x  y", "end  "]
ODD += ["a\nb c", "a\tb", "one two three", "xＡＢyA a", "a①1", "x ab cd y", "   lead mid  lead", "a    b"]
ODD += [" x  y  end    ", "\n", "\n a \n", "a\u200b b", "\r\n", "x  \t  y", "①", "\x01", "  lead", "▁lead  ▁  "]


def train(code, **settings):
    model = io.BytesIO()
    defaults = {"model_type": "bpe", "vocab_size": 1500, "byte_fallback": True, "normalization_rule_name": "identity"}
    defaults.update(remove_extra_whitespaces=False, character_coverage=0.999, minloglevel=2, num_threads=1)
    lines = (code + "\n" + "\n".join(SCRIPTS * 5)).split("\n")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, **{**defaults, **settings}
    )
    return model.getvalue()


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def with_types(model, change):
    """The model with the type of some pieces changed: `change(text)` is the new type or None."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    out, position = bytearray(), 0
    number = 0
    while position < len(model):
        start = position
        tag = model[position]
        position += 1
        size = shift = 0
        while True:
            byte = model[position]
            size |= (byte & 0x7F) << shift
            shift += 7
            position += 1
            if byte < 0x80:
                break
        content = model[position : position + size]
        position += size
        kind = None
        if tag == 0x0A:
            kind = change(processor.id_to_piece(number))
            number += 1
        if kind is None:
            out += model[start:position]
        else:
            content += b"\x18" + varint(kind)
            out += b"\x0a" + varint(len(content)) + content
    return bytes(out)


def trained(code):
    plain = train(code)
    yield "plain", plain
    yield "no_prefix", train(code, add_dummy_prefix=False)
    yield "no_fallback", train(code, byte_fallback=False)
    yield "nmt_nfkc", train(code, normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True)
    yield "nfkc_cf", train(code, normalization_rule_name="nfkc_cf", remove_extra_whitespaces=True, add_dummy_prefix=False)
    yield "user_defined", train(code, user_defined_symbols=["<user>", "▁▁▁", "the", "e"], control_symbols=["<|x|>"])
    yield "kept", train(code, user_defined_symbols=KEPT, normalization_rule_name="nmt_nfkc")
    removed = {"user_defined_symbols": [*KEPT, "▁▁▁"], "remove_extra_whitespaces": True}
    yield "kept_removed", train(code, normalization_rule_name="nfkc", **removed)
    yield "kept_plain", train(code, add_dummy_prefix=False, **removed)
    yield "kept_cf", train(code, user_defined_symbols=["A", "ﬁ", "é"], normalization_rule_name="nfkc_cf")
    yield "split_digits", train(code, split_digits=True, split_by_whitespace=False, allow_whitespace_only_pieces=True)
    yield "unused", with_types(plain, lambda text: 5 if len(text) == 4 and text[0] != "<" else None)


def tiktoken_of(tekken):
    import tiktoken

    config = tekken["config"]
    special = config["default_num_special_tokens"]
    ranks = {base64.b64decode(token["token_bytes"]): token["rank"] for token in tekken["vocab"]}
    ranks = {token: rank for token, rank in ranks.items() if rank < config["default_vocab_size"] - special}
    return tiktoken.Encoding("tekken", pat_str=config["pattern"], mergeable_ranks=ranks, special_tokens={}), special


def small_tekken(tekken, size):
    """The first tokens of a tekken file, with special tokens of its own."""
    names = ["<unk>", "<s>", "</s>", "[INST]", "[IMG]"]
    special = [{"rank": i, "token_str": name, "is_control": name != "[IMG]"} for i, name in enumerate(names)]
    config = {**tekken["config"], "default_vocab_size": size + 9, "default_num_special_tokens": 9, "version": "v13"}
    return {"config": config, "vocab": tekken["vocab"][:size], "special_tokens": special}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--bytes", type=int, default=1 << 16)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    code = library_sources(150_000)

    def write(name, encode, decode, count, id_lists=()):
        texts = ODD + [piece(rng, SPECIALS) for _ in range(count)]
        texts += [mixed_text(rng, 1000, SPECIALS, code) for _ in range(20)] + [mixed_text(rng, options.bytes, SPECIALS, code)]
        with open(options.out / f"{name}.cases.jsonl", "w", encoding="utf-8") as out:
            for text in texts:
                ids = encode(text)
                out.write(json.dumps({"text": text, "ids": ids, "decoded": decode(ids)}) + "\n")
            for ids in id_lists:
                out.write(json.dumps({"ids": ids, "decoded": decode(ids)}) + "\n")

    def write_model(name, model):
        folder = options.out / name
        folder.mkdir()
        (folder / "tokenizer.model").write_bytes(model)
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        # Neither bytes nor control pieces, which are written in another way.
        ids = [i for i in range(processor.vocab_size()) if not processor.is_byte(i) and not processor.is_control(i)]
        spaces = [i for i in ids if processor.id_to_piece(i)[0] in " ▁"]
        lists = [[processor.unk_id()]]
        for _ in range(99):
            lists.append(rng.choices([processor.unk_id(), *rng.choices(spaces, k=4), *ids[-9:]], k=5))
        write(name, processor.encode, processor.decode, 200, lists)

    def write_tekken(name, tekken):
        folder = options.out / name
        folder.mkdir()
        (folder / "tekken.json").write_text(json.dumps(tekken))
        encoding, special = tiktoken_of(tekken)
        write(
            name,
            lambda text: [i + special for i in encoding.encode_ordinary(text)],
            lambda ids: encoding.decode([i - special for i in ids]),
            200,
        )

    for name, model in trained(code):
        write_model(name, model)
    package = importlib.util.find_spec("mistral_common")
    data = pathlib.Path(package.submodule_search_locations[0]) / "data" if package else None
    if data:
        files = sorted(data.glob("*.model.v*"))
        for path in files:
            write_model(path.name, path.read_bytes())
        path = sorted(data.glob("tekken_*.json"))[0]
        tekken = json.loads(path.read_text())
        write_tekken("tekken_small", small_tekken(tekken, 20_000))
        write_tekken("tekken", tekken)
        shutil.copy(path, options.out / "tekken" / "tekken.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
