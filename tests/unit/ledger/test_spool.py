"""The spool loses nothing that it acknowledged, whatever a crash, a full disk or a failing one leaves."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proveout.errors import Unavailable
from proveout.ledger import spool
from proveout.ledger.spool import Damage, Spool, read

KEY = bytes(range(32))
BATCHES = [[b"intent 1", b"intent 2"], [b"completion 1" * 40], [b"intent 3"], [b"completion 2", b"completion 3"]]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


def drained(folder: Path) -> tuple[list[bytes], list[Damage]]:
    entries: list[bytes] = []
    damages: list[Damage] = []
    Spool(folder, KEY).drain(entries.extend, damages.append)
    return entries, damages


@pytest.fixture
def written(tmp_path: Path) -> tuple[bytes, list[int]]:
    """A segment of all batches, and where it ended when each had been acknowledged."""
    writer, ends = Spool(tmp_path, KEY), []
    for batch in BATCHES:
        writer.append(batch)
        ends.append(segments(tmp_path)[0].stat().st_size)
    writer.close()
    return segments(tmp_path)[0].read_bytes(), ends


def test_entries_come_back_in_order_and_once(tmp_path: Path) -> None:
    writer = Spool(tmp_path, KEY)
    for batch in BATCHES:
        writer.append(batch)
    assert drained(tmp_path) == ([], [])  # its writer lives
    writer.close()
    assert writer.waiting
    assert drained(tmp_path) == ([entry for batch in BATCHES for entry in batch], [])
    assert drained(tmp_path) == ([], []) and not writer.waiting


def test_nothing_can_be_read_without_the_key(tmp_path: Path) -> None:
    writer = Spool(tmp_path, KEY)
    writer.append([b"a canary in clear text"])
    writer.close()
    content = segments(tmp_path)[0].read_bytes()
    assert b"canary" not in content
    (damage,) = read("s", content, bytes(32))
    assert isinstance(damage, Damage) and not damage.torn


def test_every_prefix_that_a_crash_can_leave(written: tuple[bytes, list[int]]) -> None:
    content, ends = written
    for size in range(len(content) + 1):
        for rest in (b"", bytes(min(64, len(content) - size))):  # the file may have grown before its blocks came
            found = list(read("s", content[:size] + rest, KEY))
            batches = [batch for batch in found if not isinstance(batch, Damage)]
            acknowledged = sum(end <= size for end in ends)
            assert batches[:acknowledged] == BATCHES[:acknowledged]
            assert batches == BATCHES[: len(batches)]
            nearly = any(0 < end - size < 16 for end in ends)  # a tag of which some came may be any damage
            assert all(damage.torn or nearly for damage in found if isinstance(damage, Damage)), size


def test_every_flipped_bit_is_reported_with_its_place(written: tuple[bytes, list[int]]) -> None:
    content, ends = written
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        found = list(read("s", bytes(flipped), KEY))
        damages = [damage for damage in found if isinstance(damage, Damage)]
        assert damages and not any(damage.torn for damage in damages), position
        frame = sum(end <= position for end in ends)
        if position >= len(spool._MAGIC) + 16:
            assert (damages[0].frame, damages[0].offset) == (frame, ([len(spool._MAGIC) + 16, *ends])[frame])
        undamaged = [batch for batch in found if not isinstance(batch, Damage)]
        assert all(batch in BATCHES for batch in undamaged)


def test_a_damaged_segment_is_kept_and_what_is_whole_is_delivered(tmp_path: Path) -> None:
    writer = Spool(tmp_path, KEY)
    for batch in BATCHES:
        writer.append(batch)
    writer.close()
    path = segments(tmp_path)[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    entries, damages = drained(tmp_path)
    assert entries == [entry for batch in BATCHES[:-1] for entry in batch]
    assert [damage.frame for damage in damages] == [3]
    assert path.with_suffix(".damaged").read_bytes() == content and not segments(tmp_path)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Calls of fdatasync fail with EIO whose numbers are put into this list."""
    numbers: list[int] = []
    calls = 0
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls in numbers:
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    yield numbers


@pytest.mark.parametrize("number", range(1, 8))
def test_an_error_of_the_nth_sync(tmp_path: Path, failing: list[int], number: int) -> None:
    failing.append(number)
    writer = Spool(tmp_path, KEY)
    for batch in BATCHES:
        writer.append(batch)  # a fresh segment takes what the failing one may not have
    writer.close()
    entries, damages = drained(tmp_path)
    assert list(dict.fromkeys(entries)) == [entry for batch in BATCHES for entry in batch] and not damages


def test_a_disk_that_stays_broken(tmp_path: Path, failing: list[int]) -> None:
    writer = Spool(tmp_path, KEY)
    writer.append(BATCHES[0])
    failing.extend(range(3, 7))
    for batch in BATCHES[1:]:
        with pytest.raises(Unavailable, match="disk is full or failing"):
            writer.append(batch)
        break
    failing.clear()
    writer.append(BATCHES[3])
    writer.close()
    entries, _ = drained(tmp_path)
    assert set(BATCHES[0] + BATCHES[3]) <= set(entries)


def test_a_full_disk_takes_nothing_and_spoils_nothing(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
from proveout.ledger.spool import Spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = Spool(Path(sys.argv[1]), bytes(range(32)))
writer.append([b"before"])
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
try:
    writer.append([b"x" * 5000])
except Exception as error:
    print(type(error).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.append([b"after"])
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Unavailable"
    assert drained(tmp_path) == ([b"before", b"after"], [])


def test_killed_at_any_moment_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from proveout.ledger.spool import Spool
writer = Spool(Path(sys.argv[1]), bytes(range(32)))
for number in range(10**9):
    writer.append([str(number).encode()])
    print(number, flush=True)
"""
    acknowledged = -1
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for line in child.stdout:
            acknowledged = int(line)
            if acknowledged > 50:
                break
        child.send_signal(signal.SIGKILL)
        rest = child.communicate()[0].split()
        acknowledged = int(rest[-1]) if rest else acknowledged
        entries, damages = drained(tmp_path)
        assert entries[: acknowledged + 1] == [str(number).encode() for number in range(acknowledged + 1)]
        assert all(damage.torn for damage in damages)
