"""What the kinds of malformed models are made with: see e2e_hostile.py."""

import pathlib

from atom_cli import GOLDEN, TEXT, TINY_QUANTIZE

MODEL = GOLDEN / "gqa_tied_f32"

KINDS = []


def kind(function):
    KINDS.append(function)
    return function


class Variant:
    """`path`: the model. `names`: what the error has to name. `command`: what is run on it; all of it if there are several."""

    def __init__(self, label, path, *names, command="generate", stdin=None):
        self.label = label
        self.path = pathlib.Path(path)
        self.names = names
        self.command = command
        self.stdin = stdin

    def arguments(self, out):
        return {
            "inspect": ["inspect", self.path], "tokenize": ["tokenize", self.path],
            "generate": ["generate", self.path, "-p", "a", "--max-tokens", "1"],
            "chat": ["chat", self.path, "--max-tokens", "1"],
            "eval": ["eval", "ppl", self.path, "--text", TEXT, "--window", "32"],
            "quantize": ["quantize", self.path, "-o", out, *TINY_QUANTIZE],
        }[self.command]


def model_of(folder, **files):
    """A copy of the model with some files' bytes replaced, as config=..., tensors=..., tokenizer=..., template=... ."""
    folder.mkdir()
    names = {"config": "config.json", "tensors": "model.safetensors", "tokenizer": "tokenizer.json",
             "template": "chat_template.jinja", "tokenizer_config": "tokenizer_config.json"}
    for path in MODEL.iterdir():
        if path.name not in [names[key] for key in files]:
            (folder / path.name).symlink_to(path)
    for key, value in files.items():
        (folder / names[key]).write_bytes(value if isinstance(value, bytes) else value.encode())
    return folder
