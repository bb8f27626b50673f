"""Read the one fact of a GGUF file that OpenVINO does not pass on: how long a context the model has.

Source: the GGUF specification, version 3 (github.com/ggml-org/ggml, docs/gguf.md).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from proveout.errors import StartRefused

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes per scalar type
_STRING, _ARRAY, _UINT32, _UINT64 = 8, 9, 4, 10


def context_length(path: Path) -> int:
    """Tokens of prompt and answer together (`ARCHITECTURE.context_length`)."""
    with path.open("rb") as file:
        magic, version, _tensors, pairs = struct.unpack("<4sIQQ", file.read(24))
        if magic != b"GGUF" or version not in (2, 3):
            raise StartRefused(f"{path} is not a GGUF file of version 2 or 3.")
        for _ in range(pairs):
            key = _string(file)
            kind = _number(file, _UINT32)
            if key.endswith(".context_length"):
                return _number(file, kind)
            _skip(file, kind)
    raise StartRefused(f"{path} does not say how long its context is (no context_length).")


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
