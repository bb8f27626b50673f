"""Sealing: what comes out is what went in, and a single changed bit opens nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proveout.errors import StartRefused
from proveout.store.sealing import Unsealable, new_master_key, read_master_key, seal, unseal

KEY = bytes(range(32))


@given(st.binary(max_size=500))
def test_sealed_content_opens_again_and_never_looks_alike(content: bytes) -> None:
    sealed = seal(KEY, content, "chunk")
    assert unseal(KEY, sealed, "chunk") == content
    assert sealed != seal(KEY, content, "chunk") and len(sealed) == len(content) + 28


@given(st.binary(max_size=50), st.data())
def test_any_changed_bit_is_seen(content: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal(KEY, content, "chunk"))
    position = data.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[position // 8] ^= 1 << position % 8
    with pytest.raises(Unsealable):
        unseal(KEY, bytes(sealed), "chunk")


@pytest.mark.parametrize(("key", "purpose"), [(KEY, "version"), (bytes(32), "chunk")])
def test_key_and_purpose_must_be_the_same(key: bytes, purpose: str) -> None:
    with pytest.raises(Unsealable):
        unseal(key, seal(KEY, b"text", "chunk"), purpose)


@pytest.mark.parametrize("sealed", [b"", b"short", bytes(28)])
def test_what_was_never_sealed_does_not_open(sealed: bytes) -> None:
    with pytest.raises(Unsealable):
        unseal(KEY, sealed, "chunk")


def test_the_master_key_comes_from_text_or_file(tmp_path: Path) -> None:
    text = new_master_key()
    (tmp_path / "key").write_text(text + "\n")
    assert read_master_key(None, tmp_path / "key") == read_master_key(text, tmp_path / "none")
    for wrong in ("", "not base64!", "c2hvcnQ="):
        with pytest.raises(StartRefused, match="master key"):
            read_master_key(wrong or None, tmp_path / "none")
