"""Read the facts of a GGUF file that are needed without opening the model.

Source: the GGUF specification, version 3 (github.com/ggml-org/ggml, docs/gguf.md).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from proveout.errors import StartRefused

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes per scalar type
_STRING, _ARRAY, _UINT32, _UINT64 = 8, 9, 4, 10
_TOKENS, _TEMPLATE = "tokenizer.ggml.tokens", "tokenizer.chat_template"
_BOS, _EOS = "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"


@dataclass(frozen=True, slots=True)
class Facts:
    """`context` is in tokens, prompt and answer together; `bos` and `eos` are texts, empty where there is none."""

    context: int
    template: str
    bos: str
    eos: str


def read(path: Path) -> Facts:
    """Raises StartRefused for what is not a GGUF file of a language model."""
    with path.open("rb") as file:
        head = file.read(24)
        magic, version, _tensors, pairs = struct.unpack("<4sIQQ", head) if len(head) == 24 else (b"", 0, 0, 0)
        if magic != b"GGUF" or version not in (2, 3):
            raise StartRefused(f"{path} is not a GGUF file of version 2 or 3.")
        context, template, tokens = 0, "", 0
        ids: dict[str, int] = {}
        for _ in range(pairs):
            key = _string(file)
            kind = _number(file, _UINT32)
            if key == _TOKENS:
                tokens = file.tell()
            if key.endswith(".context_length"):
                context = _number(file, kind)
            elif key in (_BOS, _EOS):
                ids[key] = _number(file, kind)
            elif key == _TEMPLATE and kind == _STRING:
                template = _string(file)
            else:
                _skip(file, kind)
        if not context:
            raise StartRefused(f"{path} does not say how long its context is (no context_length).")
        texts = {key: _token(file, tokens, number) for key, number in ids.items() if tokens}
    return Facts(context, template, texts.get(_BOS, ""), texts.get(_EOS, ""))


def _token(file: BinaryIO, tokens: int, number: int) -> str:
    """The text of the token with this number, out of the array that stands at `tokens`."""
    file.seek(tokens)
    _number(file, _UINT32)
    count = _number(file, _UINT64)
    for _ in range(min(number, count)):
        _skip(file, _STRING)
    return _string(file) if number < count else ""


def _number(file: BinaryIO, kind: int) -> int:
    return int.from_bytes(file.read(_SIZES[kind]), "little")


def _string(file: BinaryIO) -> str:
    return file.read(_number(file, _UINT64)).decode()


def _skip(file: BinaryIO, kind: int) -> None:
    if kind == _STRING:
        file.seek(_number(file, _UINT64), 1)
    elif kind == _ARRAY:
        inner, count = _number(file, _UINT32), _number(file, _UINT64)
        if inner in _SIZES:
            file.seek(count * _SIZES[inner], 1)
        else:
            for _ in range(count):
                _skip(file, inner)
    else:
        file.seek(_SIZES[kind], 1)
