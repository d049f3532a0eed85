#!/usr/bin/env python3
"""Writes what the PyPI package `tokenizers` makes of mixed text, for tokenizer_oracle_test.cpp to compare with.

    text_tokenizer.py --out DIR [--model MODEL.gguf] [--text FILE] [--bytes N] [--seed N]

For every tokenizer NAME it writes DIR/NAME.json (a tokenizer.json) and DIR/NAME.cases.jsonl, one case a line:
{"text", "ids", "decoded", "decoded_skip", "add_special_tokens", "parse_special"}.

With --model it writes the tokenizer of that GGUF file (pre-tokenizer `smollm`) under the name `smollm`, and compares
on --bytes of mixed text plus --text as one piece. Without it, it writes tokenizers trained on the spot on the
Python library's sources, one for each feature of the format.
"""
import argparse
import glob
import json
import os
import random
import sys
import unicodedata

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = [
    r"[\r\n]",
    r"\s?\p{L}+",
    r"\s?\p{P}+",
    r"[一-龥ࠀ-一가-퟿]+",
    r"\p{N}",
]
DEEPSEEK_V3 = [
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
]
MARK = "▁"
ENGLISH = """the quick brown fox it's he'll we've I'd you're don't IT'S O'Neil rock 'n' roll can't  two  spaces
Once upon a time there was a language model, and it was small; but it could count: one, two, three!""".split(" ")


def library_sources(limit):
    text = []
    size = 0
    for path in sorted(glob.glob(os.path.join(os.path.dirname(os.__file__), "*.py"))):
        with open(path, encoding="utf-8", errors="replace") as file:
            text.append(file.read())
        size += len(text[-1])
        if size > limit:
            break
    return "".join(text)[:limit]


def random_char(rng):
    kind = rng.random()
    if kind < 0.3:
        return chr(rng.randrange(0x20, 0x7F))
    if kind < 0.35:
        return rng.choice("\t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u180e\u2003\u2028\u202f\u205f\u3000\u200b\ufeff")
    if kind < 0.4:
        return chr(rng.randrange(0x00, 0x20))
    if kind < 0.6:
        return chr(rng.randrange(0xA0, 0x3000))
    if kind < 0.7:
        return chr(rng.randrange(0x300, 0x370))
    if kind < 0.8:
        return chr(rng.randrange(0x1F300, 0x1FB00))
    while True:
        point = rng.randrange(0x110000) if rng.random() < 0.3 else rng.randrange(0x33000)
        if not 0xD800 <= point <= 0xDFFF:
            return chr(point)


SCRIPTS = [
    "Привет, как дела? Это — проверка 2024 года.", "مرحبا بالعالم، كيف حالك؟ ١٢٣", "你好，世界！今天是2024年３月。",
    "こんにちは、世界。テストです。①②③", "안녕하세요 세계 여러분", "नमस्ते दुनिया १२३", "สวัสดีชาวโลก ๑๒๓", "שלום עולם",
    "Γειά σου Κόσμε", "e\u0301\u0302 a\u030a n\u0303", "👩‍👩‍👧‍👦🏳️‍🌈👍🏽 ok", "½ ¾ Ⅷ ²³ x² ₂", "ŀǅß İstanbul ﬁ ſ",
    "𝐇𝐞𝐥𝐥𝐨 𝟏𝟐𝟑", "\u1e4f0 \U0001e4f0\U00011f50\U000105c0", "⠓⠑⠇⠇⠕", "ꓡꓲꓢꓴ", "𒀀𒁀 𓀀𓂀",
]


def piece(rng, specials):
    kind = rng.randrange(12)
    if kind <= 2:
        return " ".join(rng.choice(ENGLISH) for _ in range(rng.randrange(1, 30)))
    if kind == 3:
        return "".join(random_char(rng) for _ in range(rng.randrange(1, 60)))
    if kind == 4:
        return " " * rng.choice([1, 2, 3, 4, 8, 17, 200]) + rng.choice(["", "x", "\n", "1"])
    if kind == 5:
        return "".join(rng.choice("0123456789") for _ in range(rng.choice([1, 2, 3, 5, 40, 300])))
    if kind == 6:
        return rng.choice(specials) + rng.choice(["", " ", "\n", "user", " x", "é"])
    if kind <= 8:
        return rng.choice(SCRIPTS) + rng.choice(["", " ", "\n"])
    if kind == 9:
        return "".join(rng.choice(" \t\n\r'\"!?.,;:") for _ in range(rng.randrange(1, 30)))
    if kind == 10:
        return unicodedata.normalize(rng.choice(["NFC", "NFD", "NFKC", "NFKD"]), rng.choice(SCRIPTS))
    return rng.choice(["a", "ab", "=", "-", "\n", "\u00e9", "字", "'", "ha"]) * rng.randrange(1, 400)


def mixed_text(rng, size, specials, code):
    parts = []
    total = 0
    while total < size:
        if rng.random() < 0.15:
            start = rng.randrange(max(1, len(code) - 2000))
            part = code[start : start + rng.randrange(1, 2000)]
        else:
            part = piece(rng, specials)
        part += rng.choice(["", "", " ", "\n"])
        parts.append(part)
        total += len(part.encode("utf-8"))
    return "".join(parts)


def smollm_tokenizer(path):
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token, kind in zip(tokens, types) if kind == 3]
    )
    return tokenizer


def byte_level(**options):
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, "use_regex": True, **options})


def split(pattern, behavior, invert=False):
    return pre_tokenizers.Split(pattern, behavior, invert)


def trained(code, pre_tokenizer):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=["<s>", "</s>", "<|user|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([code, " ".join(SCRIPTS * 5)], trainer)
    return tokenizer


def feature_tokenizers(code):
    base = trained(code, byte_level())

    def variant(change=None, **parts):
        document = json.loads(base.to_str())
        if change:
            change(document)
        tokenizer = Tokenizer.from_str(json.dumps(document))
        for name, value in parts.items():
            setattr(tokenizer, name, value)
        return tokenizer

    def words(pattern, behavior="isolated", invert=False):
        return variant(
            pre_tokenizer=pre_tokenizers.Sequence([split(pattern, behavior, invert), byte_level(use_regex=False)])
        )

    yield "plain", base
    yield "prefix_space", variant(pre_tokenizer=byte_level(add_prefix_space=True))
    yield "no_regex", variant(pre_tokenizer=byte_level(use_regex=False))
    yield "digits_runs", variant(
        pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), byte_level()])
    )
    yield "digits_prefix", variant(
        pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level(add_prefix_space=True)])
    )
    for name, pattern in (("llama3", LLAMA3), ("qwen2", QWEN2), ("o200k", O200K)):
        yield name, words(Regex(pattern))
    yield "deepseek", variant(
        pre_tokenizer=pre_tokenizers.Sequence(
            [split(Regex(pattern), "isolated") for pattern in DEEPSEEK]
            + [pre_tokenizers.Digits(True), byte_level(use_regex=False)]
        )
    )
    yield "classes", words(Regex(r"\w+|\S|\h{2,3}+|\d{,2}x"))
    yield "categories", words(Regex(r"\p{Lu}+|\p{M}+|\P{L}|\p{Han}|[\S\n]|\p{P}*+"))
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        for invert in (False, True):
            yield f"{behavior}_{invert}", words(Regex(r"[aeiou]|\s+"), behavior, invert)
    yield "string_split", words("e.", "merged_with_next")
    yield "empty_matches", words(Regex(r"x*"), "merged_with_previous")

    def ignore_merges(document):
        document["model"]["ignore_merges"] = True
        document["model"]["vocab"]["Ġxyzzy"] = len(document["model"]["vocab"])
        document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]

    yield "ignore_merges", variant(ignore_merges)

    def without_bytes(unknown, fuse):
        def change(document):
            model = document["model"]
            merged = {"".join(pair) for pair in model["merges"]}
            for token in ["q", "Z", "Ã", "Ľ", "!"]:
                model["merges"] = [pair for pair in model["merges"] if not any(token in part for part in pair)]
            kept = {"".join(pair) for pair in model["merges"]}
            gone = (merged - kept) | {"q", "Z", "Ã", "Ľ", "!"}
            names = [name for name in sorted(model["vocab"], key=model["vocab"].get) if name not in gone]
            model["vocab"] = {name: i for i, name in enumerate(names)}
            for added in document["added_tokens"]:
                added["id"] = model["vocab"][added["content"]]
            model["unk_token"] = unknown
            model["fuse_unk"] = fuse

        return change

    yield "dropped", variant(without_bytes(None, False))
    yield "unknown", variant(without_bytes("<s>", False))
    yield "unknown_fused", variant(without_bytes("<s>", True))

    bos = base.token_to_id("<s>")
    eos = base.token_to_id("</s>")
    template = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", bos), ("</s>", eos)])
    yield "template", variant(post_processor=template)
    yield "template_sequence", variant(
        post_processor=processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    )
    added = variant()
    added.add_tokens(
        [
            AddedToken("<left>", lstrip=True, normalized=False),
            AddedToken("<right>", rstrip=True, normalized=False),
            AddedToken("<both>", lstrip=True, rstrip=True, special=True, normalized=False),
            AddedToken("word", single_word=True),
            AddedToken("wor", normalized=False),
            AddedToken("aa", normalized=True),
            AddedToken("aaaa", normalized=True),
            AddedToken("  spaces", normalized=True),
            AddedToken("字", single_word=True, normalized=True),
        ]
    )
    added.add_special_tokens([AddedToken("<|user|>x", special=True, normalized=False)])
    yield "added", added


def trained_with_fallback(code):
    """As Llama 2 has it: no words, bytes where a character has no token."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="never", split=True)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)],
        limit_alphabet=300,
        show_progress=False,
    )
    tokenizer.train_from_iterator([code, " ".join(SCRIPTS * 5)], trainer)
    document = json.loads(tokenizer.to_str())
    document["pre_tokenizer"] = None
    document["added_tokens"] = document["added_tokens"][:3]
    return document


def metaspace_tokenizers(code):
    base = trained_with_fallback(code)

    def variant(change=None, **parts):
        document = json.loads(json.dumps(base))
        if change:
            change(document["model"])
        tokenizer = Tokenizer.from_str(json.dumps(document))
        for name, value in parts.items():
            setattr(tokenizer, name, value)
        return tokenizer

    def metaspace(scheme, split, **parts):
        made = {"replacement": MARK, "prepend_scheme": scheme}
        return variant(
            normalizer=None,
            pre_tokenizer=pre_tokenizers.Metaspace(split=split, **made),
            decoder=decoders.Metaspace(**made),
            **parts,
        )

    yield "llama2", variant()
    for scheme in ("always", "first", "never"):
        for split in (False, True):
            yield f"metaspace_{scheme}_{split}", metaspace(scheme, split)
    yield "gemma", variant(
        normalizer=normalizers.Replace(" ", MARK),
        decoder=decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]),
    )
    yield "fallback_decoder_alone", variant(decoder=decoders.ByteFallback())
    yield "no_decoder", variant(decoder=None)
    yield "strip_start", variant(decoder=decoders.Sequence([decoders.Fuse(), decoders.Strip("e", 2, 0)]))
    yield "strip_tokens", variant(decoder=decoders.Sequence([decoders.Strip(MARK, 1, 0), decoders.Replace("e", "EE")]))

    def unknown(fallback, fuse, token="<unk>", ignore=False, gone=()):
        def change(model):
            model.update(byte_fallback=fallback, fuse_unk=fuse, unk_token=token, ignore_merges=ignore)
            for name in gone:
                del model["vocab"][name]
            model["vocab"] = {name: i for i, name in enumerate(sorted(model["vocab"], key=model["vocab"].get))}

        return change

    yield "unk", variant(unknown(False, False))
    yield "unk_fused", variant(unknown(False, True))
    yield "unk_dropped", variant(unknown(False, False, None))
    yield "unk_and_bytes", variant(unknown(True, True, gone=["<0xE4>", "<0xF0>"]))
    yield "unk_and_bytes_apart", variant(unknown(True, False, gone=["<0xE4>", "<0xF0>"]))
    yield "whole_words", metaspace_words(variant, unknown)
    special = {"special": True, "normalized": False}
    for name, tokenizer in (("added_old", variant()), ("added_new", metaspace("first", False))):
        tokenizer.add_special_tokens([AddedToken("<|im_start|>", **special), AddedToken("[INST]", rstrip=True, **special)])
        tokenizer.add_tokens(
            [AddedToken("wor", normalized=True), AddedToken("a b", normalized=True), AddedToken("q\u00e9", lstrip=True)]
        )
        bos = tokenizer.token_to_id("<s>")
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", bos)])
        yield name, tokenizer
    yield "roberta", variant(post_processor=processors.RobertaProcessing(("</s>", 2), ("<s>", 1)))
    yield "bert", variant(post_processor=processors.BertProcessing(("</s>", 2), ("<s>", 1)))


def metaspace_words(variant, unknown):
    return variant(
        unknown(True, True, ignore=True),
        normalizer=None,
        pre_tokenizer=pre_tokenizers.Metaspace(MARK, "always", True),
    )


def step_tokenizers(code):
    """One normalizer or pre-tokenizer each, in front of what the byte-level tokenizer does."""
    base = trained(code, byte_level())

    def with_parts(normalizer=None, steps=()):
        tokenizer = Tokenizer.from_str(base.to_str())
        tokenizer.normalizer = normalizer
        if steps:
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(steps))
        return tokenizer

    for form in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"):
        yield form.lower(), with_parts(getattr(normalizers, form)())
    yield "stripped_accents", with_parts(
        normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
    )
    yield "strip", with_parts(normalizers.Strip(True, True))
    yield "strip_right", with_parts(normalizers.Strip(False, True))
    yield "replace_regex", with_parts(normalizers.Replace(Regex(r"\s{2,}|[aeiou]{2}"), "é "))
    yield "deepseek_v3", with_parts(
        None, [split(Regex(pattern), "isolated") for pattern in DEEPSEEK_V3] + [byte_level(use_regex=False)]
    )
    yield "falcon", with_parts(
        None,
        [
            pre_tokenizers.Punctuation("contiguous"),
            byte_level(),
            pre_tokenizers.Digits(False),
            split(Regex("[0-9][0-9][0-9]"), "isolated"),
        ],
    )
    yield "command", with_parts(None, [split(Regex(r"\d{1,3}(?=(?:\d{3})*\b)"), "isolated"), byte_level()])
    yield "punctuation", with_parts(None, [pre_tokenizers.Punctuation(), byte_level()])
    yield "whitespace", with_parts(None, [pre_tokenizers.Whitespace(), byte_level(use_regex=False)])
    yield "white_space_split", with_parts(None, [pre_tokenizers.WhitespaceSplit(), byte_level(add_prefix_space=True)])
    yield "bert_words", with_parts(None, [pre_tokenizers.BertPreTokenizer(), byte_level(use_regex=False)])
    added = with_parts(normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]))
    added.add_tokens([AddedToken("WORD", normalized=True), AddedToken("ﬁ", normalized=True), AddedToken("Ω", normalized=False)])
    added.add_special_tokens([AddedToken("<|User|>", special=True, normalized=True)])
    yield "added_normalized", added


def cases_for(name, tokenizer, rng, size, code, files):
    specials = [token.content for token in tokenizer.get_added_tokens_decoder().values()] or ["<s>"]
    specials += [" " + special + "  " for special in specials] + [special[:-1] for special in specials]
    texts = ["", " ", "\n", "a", "0", "é", "\U0001F600", "Hello, world!", " xyzzy xyzzy", specials[0], specials[0] * 3]
    texts += [piece(rng, specials) for _ in range(200)]
    texts += [mixed_text(rng, 2000, specials, code) for _ in range(20)]
    texts.append(mixed_text(rng, size, specials, code))
    texts += files
    for i, text in enumerate(texts):
        add = i % 2 == 0
        parse = i % 5 != 4
        tokenizer.encode_special_tokens = not parse
        ids = tokenizer.encode(text, add_special_tokens=add).ids
        yield {
            "text": text,
            "ids": ids,
            "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "decoded_skip": tokenizer.decode(ids, skip_special_tokens=True),
            "add_special_tokens": add,
            "parse_special": parse,
        }
    tokenizer.encode_special_tokens = False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--model")
    parser.add_argument("--text", action="append", default=[])
    parser.add_argument("--bytes", type=int, default=1 << 20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    code = library_sources(400_000)
    files = []
    for path in options.text:
        with open(path, encoding="utf-8", newline="") as file:
            files.append(file.read())
    if options.model:
        every_char = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF)
        made = [("smollm", smollm_tokenizer(options.model), options.bytes, files + [every_char])]
    else:
        made = [
            (name, tokenizer, options.bytes // 24, files)
            for family in (feature_tokenizers, metaspace_tokenizers, step_tokenizers)
            for name, tokenizer in family(code)
        ]
    for name, tokenizer, size, extra in made:
        tokenizer.save(os.path.join(options.out, name + ".json"))
        with open(os.path.join(options.out, name + ".cases.jsonl"), "w", encoding="utf-8") as out:
            for case in cases_for(name, tokenizer, rng, size, code, extra):
                out.write(json.dumps(case) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
