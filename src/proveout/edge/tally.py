"""What the processes of one server count, each in a file of its own that all of them can read.

Several gateways share one socket, so whichever is asked for the metrics must know the sum. Each adds to numbers in a
memory-mapped file, which a kill -9 does not take away; whoever comes next goes on with the file of a dead one. An
addition costs about 0.1 µs, which prometheus_client's files of the same kind do not come near (docs/decisions/010).
"""

from __future__ import annotations

import fcntl
import json
import logging
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

_LAYOUT = 1  # part of the file's name: other layouts are left alone
_LABEL_BYTES = 512
_NUMBERS = 64
_RECORD_BYTES = _LABEL_BYTES + 8 * _NUMBERS
_RECORDS = 1024
_BOUNDED = 128  # of them for labels of a bounded vocabulary
_GAUGES = 8
_HEAD_BYTES = 8 * _GAUGES
_FILE_BYTES = _HEAD_BYTES + _RECORDS * _RECORD_BYTES

log = logging.getLogger(__name__)

Label = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted: sums by label over all processes, and the sum of each gauge over the living ones."""

    numbers: dict[Label, list[float]]
    gauges: list[float]


class Tally:
    """Numbers of one process by label; only its own thread may add to them. Without a folder nobody shares them."""

    def __init__(self, folder: Path | None) -> None:
        self._file = None if folder is None else _claim(folder)
        self._folder = None if self._file is None else folder
        self._map = mmap.mmap(-1 if self._file is None else self._file, _FILE_BYTES)
        doubles = memoryview(self._map).cast("d")
        self.gauges = doubles[:_GAUGES]
        self.gauges[:] = memoryview(bytes(_HEAD_BYTES)).cast("d")
        self._doubles = doubles
        self._known: dict[Label, memoryview[float]] = {}
        for number, label, _ in _records(self._map):
            self._known[label] = self._slots(number)

    def slots(self, label: Label, *, bounded: bool = False) -> memoryview[float] | None:
        """The 64 numbers under `label`, to add to; None when there is no room for another label.

        Labels of a `bounded` vocabulary find room where others, which a caller may make up, have none left.
        """
        return self._known.get(label) or self._add(label, _RECORDS if bounded else _RECORDS - _BOUNDED)

    def read(self) -> Counted:
        """What all processes counted, this one included."""
        numbers: dict[Label, list[float]] = {}
        gauges = [0.0] * _GAUGES
        for content, alive in self._contents():
            for _, label, found in _records(content):
                known = numbers.get(label)
                numbers[label] = found if known is None else [a + b for a, b in zip(known, found, strict=True)]
            if alive:
                gauges = [a + b for a, b in zip(gauges, memoryview(content[:_HEAD_BYTES]).cast("d"), strict=True)]
        return Counted(numbers, gauges)

    def close(self) -> None:
        """Leaves the file to whoever comes next."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _add(self, label: Label, most: int) -> memoryview[float] | None:
        number, text = len(self._known), json.dumps(label).encode()
        if number >= most or len(text) > _LABEL_BYTES:
            return None
        start = _HEAD_BYTES + number * _RECORD_BYTES
        self._map[start : start + len(text)] = text
        self._known[label] = self._slots(number)
        return self._known[label]

    def _slots(self, number: int) -> memoryview[float]:
        start = (_HEAD_BYTES + number * _RECORD_BYTES + _LABEL_BYTES) // 8
        return self._doubles[start : start + _NUMBERS]

    def _contents(self) -> Iterator[tuple[bytes | mmap.mmap, bool]]:
        """Each process's numbers, and whether it still lives."""
        if self._folder is None:
            yield self._map, True
            return
        for path in sorted(self._folder.glob(f"tally-{_LAYOUT}-*")):
            with path.open("rb") as file:
                alive = not _locked(file.fileno(), fcntl.LOCK_SH)
                yield file.read(), alive


def _claim(folder: Path) -> int | None:
    """The first file that no living process holds, locked; None, with a word in the log, when there can be none."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in count():
            file = os.open(folder / f"tally-{_LAYOUT}-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if _locked(file, fcntl.LOCK_EX):
                # Its blocks are taken now: a full disk would otherwise end the process at some later addition.
                os.posix_fallocate(file, 0, _FILE_BYTES)
                return file
            os.close(file)
    except OSError as error:
        log.warning("metrics are of this process alone: %s: %s", folder, error.strerror)
    return None


def _locked(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _records(content: bytes | mmap.mmap) -> Iterator[tuple[int, Label, list[float]]]:
    """Every record in use: its number, label and numbers."""
    for number in range(_RECORDS):
        start = _HEAD_BYTES + number * _RECORD_BYTES
        text = content[start : start + _LABEL_BYTES].rstrip(b"\0")
        if not text:
            return
        try:
            label: Sequence[str] = json.loads(text)
        except ValueError:  # caught while it was being written
            return
        numbers = memoryview(content[start + _LABEL_BYTES : start + _RECORD_BYTES]).cast("d")
        yield number, tuple(label), list(numbers)
