import struct
from pathlib import Path

import pytest

from proveout.engine import gguf, weights
from proveout.errors import StartRefused


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def file(path: Path, *pairs: bytes, magic: bytes = b"GGUF") -> Path:
    path.write_bytes(struct.pack("<4sIQQ", magic, 3, 0, len(pairs)) + b"".join(pairs))
    return path


NAME = string("general.name") + struct.pack("<I", 8) + string("x")
FLAGS = string("flags") + struct.pack("<IIQ", 9, 7, 3) + b"\1\0\1"
WORDS = string("words") + struct.pack("<IIQ", 9, 8, 2) + string("a") + string("bc")
SCALE = string("scale") + struct.pack("<Id", 12, 0.5)


def test_the_context_length_is_found_behind_every_kind_of_value(tmp_path: Path) -> None:
    context = string("qwen3.context_length") + struct.pack("<II", 4, 40960)
    assert gguf.read(file(tmp_path / "m", NAME, FLAGS, WORDS, SCALE, context)).context == 40960


def test_the_installed_model_takes_8192_tokens() -> None:
    assert gguf.read(weights.generator().files[0]).context == 8192


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StartRefused, match="not a GGUF file"):
        gguf.read(file(tmp_path / "m", magic=b"GGML"))
    with pytest.raises(StartRefused, match="context_length"):
        gguf.read(file(tmp_path / "n", NAME))
