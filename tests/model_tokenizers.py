"""Tokenizers of 320 tokens for the tiny models: each kind as a directory has it and as GGUF has it, with an oracle."""

import base64
import importlib.metadata
import importlib.util
import io
import json
import pathlib
import random
import sys

from atom_cli import TEXT, add_gguf_tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "scripts" / "oracles"))
import text_tokenizer  # noqa: E402

VOCAB = 320


def text(specials):
    """Mixed text of 100 kB: English, code, scripts, emoji, marks, random characters, spaces, special tokens."""
    return text_tokenizer.mixed_text(random.Random(11), 100_000, specials, text_tokenizer.library_sources(150_000))


def version(package):
    return f"{package} {importlib.metadata.version(package)}"


class ByteLevel:
    """tokenizer.json with the words of one family; None: GPT-2's."""

    options = ()
    specials = ["<|im_start|>", "<|im_end|>"]

    def __init__(self, name, gguf_pre, pattern=None, nfc=False, bos=False):
        self.name, self.gguf_pre, self.pattern, self.nfc, self.bos = name, gguf_pre, pattern, nfc, bos

    def install(self, folder):
        path = folder / "tokenizer.json"
        document = json.loads(path.read_text())
        if self.pattern:
            level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
            cut = {"type": "Split", "pattern": {"Regex": self.pattern}, "behavior": "Isolated", "invert": False}
            document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [cut, level]}
        if self.nfc:
            document["normalizer"] = {"type": "NFC"}
        if self.bos:
            bos = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
            a, b = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
            document["post_processor"] = {
                "type": "TemplateProcessing", "single": [bos, a], "pair": [bos, a, b],
                "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [0], "tokens": ["<|im_start|>"]}}}
            document["model"]["ignore_merges"] = True
        path.unlink()
        path.write_text(json.dumps(document))

    def gguf(self, writer, folder):
        add_gguf_tokenizer(writer, folder, self.gguf_pre)

    def oracle(self, folder):
        import tokenizers

        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        return version("tokenizers"), lambda text: tokenizer.encode(text).ids


class SentencePiece:
    """tokenizer.model of type BPE with byte fallback."""

    name = "SentencePiece BPE"
    options = ("--no-special",)
    specials = ["<s>", "</s>", "<0x41>"]

    def __init__(self):
        import sentencepiece

        model = io.BytesIO()
        lines = "".join(c for c in TEXT.read_text().lower() if c in "etaoinshrdlu \n").split("\n")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=VOCAB, byte_fallback=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2, num_threads=1)
        self.model = model.getvalue()
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=self.model)

    def install(self, folder):
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
        (folder / "tokenizer.model").write_bytes(self.model)

    def gguf(self, writer, folder):
        import gguf

        ids = range(self.processor.vocab_size())
        kinds = (("is_unknown", "UNKNOWN"), ("is_control", "CONTROL"), ("is_byte", "BYTE"))
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([self.processor.id_to_piece(i) for i in ids])
        writer.add_token_scores([self.processor.get_score(i) for i in ids])
        writer.add_token_types([gguf.TokenType[next((kind for is_it, kind in kinds if getattr(self.processor, is_it)(i)),
                                                    "NORMAL")] for i in ids])

    def oracle(self, folder):
        return version("sentencepiece"), self.processor.encode


class Tekken:
    """tekken.json: the first tokens of Mistral's, with special tokens of its own."""

    name = "tekken"
    options = ("--no-special",)
    specials = ["<s>", "</s>", "[INST]"]

    def __init__(self):
        import checkpoint_sentencepiece

        package = importlib.util.find_spec("mistral_common")
        data = pathlib.Path(package.submodule_search_locations[0]) / "data"
        whole = json.loads(sorted(data.glob("tekken_*.json"))[0].read_text())
        self.tekken = checkpoint_sentencepiece.small_tekken(whole, VOCAB - 9)
        self.encoding, self.special = checkpoint_sentencepiece.tiktoken_of(self.tekken)

    def install(self, folder):
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
        (folder / "tekken.json").write_text(json.dumps(self.tekken))

    def gguf(self, writer, folder):
        import gguf

        letters = byte_letters()
        words = [base64.b64decode(token["token_bytes"]) for token in self.tekken["vocab"]]
        names = ["<unk>", "<s>", "</s>", "[INST]", "[IMG]"] + [f"<SPECIAL_{i}>" for i in range(5, self.special)]
        ranks = {word: rank for rank, word in enumerate(words)}
        merges = []
        for word in words:
            parts = parts_below(word, ranks)
            if len(parts) == 2:
                merges.append(" ".join("".join(letters[b] for b in part) for part in parts))
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("tekken")
        writer.add_token_list(names + ["".join(letters[b] for b in word) for word in words])
        writer.add_token_types([gguf.TokenType.CONTROL] * self.special + [gguf.TokenType.NORMAL] * len(words))
        writer.add_token_merges(merges)

    def oracle(self, folder):
        return version("tiktoken"), lambda text: [i + self.special for i in self.encoding.encode_ordinary(text)]


def byte_letters():
    """The character that byte-level BPE writes for each byte."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in kept]
    return {b: chr(b) for b in kept} | {b: chr(0x100 + i) for i, b in enumerate(others)}


def parts_below(word, ranks):
    """What BPE makes of a word with the merges that come before it."""
    parts = [bytes([b]) for b in word]
    while len(parts) > 2:
        best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], len(ranks)))
        if ranks.get(parts[best] + parts[best + 1], len(ranks)) >= ranks[word]:
            break
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts
