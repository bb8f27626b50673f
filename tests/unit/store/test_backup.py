"""The format of a backup: whatever is changed, moved or cut off is refused, and where."""

from __future__ import annotations

import base64
import io
import random
import re
import struct
from pathlib import Path

import pytest

from proveout.edge.cli.backup import backup, restore
from proveout.errors import InvalidInput, StartRefused
from proveout.store.backup import Damaged, Header, Reader, Writer, guard, new_header, write_piece

MASTER, ANOTHER = b"m" * 32, b"a" * 32
FILES = {"spool/1.spool": b"s" * 1_500_000, "owner.key": b"po_key\n", "database": bytes(range(256)) * 9_000}


def quiet(_: int) -> None:
    """Nobody is told how far it is."""


def written(files: dict[str, bytes] = FILES) -> bytes:
    header, key = new_header("2026-01-01T00:00:00+00:00", "postgres", MASTER, None)
    file = io.BytesIO()
    writer = Writer(file, header, key)
    for name, content in files.items():
        assert writer.put(name, io.BytesIO(content), quiet) == len(content)
    writer.finish()
    assert writer.size == len(file.getvalue())
    return file.getvalue()


def read(content: bytes, master: bytes = MASTER) -> dict[str, bytes]:
    reader = Reader(io.BytesIO(content))
    found: dict[str, bytes] = {}
    for name, piece in reader.pieces(reader.unlock([ANOTHER, master]), quiet):
        found[name] = found.get(name, b"") + piece
    return found


def frames(content: bytes) -> list[int]:
    """Where each frame begins, and the end."""
    at = len(b"proveout backup 1\n")
    places = []
    while at < len(content):
        at += 4 + struct.unpack_from("<I", content, at)[0]
        places.append(at)
    return places


def test_what_was_written_is_read() -> None:
    assert read(written()) == FILES
    assert read(written({})) == {}


def test_nobody_reads_it_without_the_master_key() -> None:
    with pytest.raises(InvalidInput, match="master key is not the one"):
        read(written(), b"x" * 32)
    assert b"po_key" not in written()


def test_every_change_is_found_where_it_is() -> None:
    content = written({"a": b"1" * 3_000, "b": b"2" * 3_000})
    places = frames(content)
    chance = random.Random(7)
    for at in [*range(places[0] + 8), *(chance.randrange(len(content)) for _ in range(300))]:
        spoilt = bytearray(content)
        spoilt[at] ^= 1 << chance.randrange(8)
        with pytest.raises(InvalidInput) as refused:
            read(bytes(spoilt))
        if at >= places[0]:
            said = re.search(r"At byte (\d+)", refused.value.message)
            frame = max(place for place in places if place <= at)
            assert said and frame <= int(said[1]) <= len(content), (at, refused.value.message)


def test_a_cut_file_is_refused_wherever_it_was_cut() -> None:
    content = written({"a": b"1" * 300, "b": b"2" * 300})
    for size in range(len(content)):
        with pytest.raises(InvalidInput):
            read(content[:size])
    with pytest.raises(Damaged, match=f"At byte {len(content)}: something follows"):
        read(content + b"\0")


def test_frames_that_are_moved_repeated_or_of_another_backup_are_refused() -> None:
    content, other = written({"a": b"1", "b": b"2"}), written({"a": b"1", "b": b"2"})
    first, second, third, end = frames(content)
    a, b, last = content[first:second], content[second:third], content[third:end]
    theirs = other[first:second]
    for body in (b + a + last, a + a + b + last, b + last, a + last, last, theirs + b + last, a + b):
        with pytest.raises(Damaged, match="At byte"):
            read(content[:first] + body)
    assert read(content[:first] + a + b + last) == {"a": b"1", "b": b"2"}


def test_a_master_key_comes_along_under_a_passphrase() -> None:
    header, key = new_header("2026-01-01", "postgres", MASTER, guard(b"the text", "open sesame"))
    file = io.BytesIO()
    Writer(file, header, key).finish()
    reader = Reader(io.BytesIO(file.getvalue()))
    assert reader.master("open sesame") == b"the text" and b"the text" not in file.getvalue()
    with pytest.raises(InvalidInput, match="passphrase"):
        reader.master("open says me")
    bare = io.BytesIO()
    Writer(bare, Header("", "", b"", None), key).finish()
    with pytest.raises(InvalidInput, match="without the master key"):
        Reader(io.BytesIO(bare.getvalue())).master("open sesame")


def test_a_backup_writes_nowhere_else(tmp_path: Path) -> None:
    for name in ("../x", "/etc/x", "a/../../x", "", ".", "a/b/c", "a//b", "spool/..", "x\0y"):
        with pytest.raises(Damaged, match="names a file"):
            write_piece(tmp_path / "data", name, b"x")
    (tmp_path / "data").mkdir()
    write_piece(tmp_path / "data", "spool/1.spool", b"x")
    write_piece(tmp_path / "data", "spool/1.spool", b"y")
    assert (tmp_path / "data/spool/1.spool").read_bytes() == b"xy"
    assert (tmp_path / "data/spool/1.spool").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_holds_anything_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "backup").write_bytes(written())
    with pytest.raises(InvalidInput, match="is not empty"):
        restore(tmp_path / "backup", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["backup"]


def test_a_backup_never_takes_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "master.key").write_text(base64.b64encode(MASTER).decode())
    (tmp_path / "backup").write_bytes(b"last week's")
    with pytest.raises(InvalidInput, match="cannot be made"):
        backup(tmp_path / "backup", data=tmp_path)
    with pytest.raises(StartRefused, match="holds no database"):
        backup(tmp_path / "new", data=tmp_path)
    assert not (tmp_path / "new").exists() and (tmp_path / "backup").read_bytes() == b"last week's"
