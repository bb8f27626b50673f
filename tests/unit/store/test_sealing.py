"""Sealing: what comes out is what went in, and a single changed bit opens nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proveout.errors import StartRefused
from proveout.store.sealing import Unsealable, new_master_key, read_master_keys, seal, unseal, write_master_keys

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
    key, older = new_master_key(), new_master_key()
    write_master_keys(tmp_path / "key", [key, older])
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    text = (tmp_path / "key").read_text()
    assert read_master_keys(None, None, tmp_path / "key") == [key, older]
    assert read_master_keys(text, "false", tmp_path / "none") == [key, older]
    assert read_master_keys(None, f"cat '{tmp_path / 'key'}'", tmp_path / "none") == [key, older]
    for wrong in (None, "not base64!", "c2hvcnQ=", " ", f"{text} c2hvcnQ="):
        with pytest.raises(StartRefused, match="master key"):
            read_master_keys(wrong, None, tmp_path / "none")
    for command, said in (("no-such-command", "cannot be run"), ("sh -c 'echo locked >&2; exit 3'", "3: locked")):
        with pytest.raises(StartRefused, match=said):
            read_master_keys(None, command, tmp_path / "none")
