"""The spool: where the journal writes while the database is away; append-only files on a volume, sealed and synced.

A segment is a header (magic, 16 random bytes: its name for itself), then frames, one a batch:

    length u32 ‖ CRC-32 of the length u32 ‖ AES-256-GCM(batch), nonce first, bound to segment and frame number

A frame is written, then synced (fdatasync), then acknowledged; the next is written only after that. So of all frames of
a crashed writer only the last can be torn. What is found torn there was never acknowledged and is left out; what
is damaged anywhere else is reported with its place, never repaired in silence (the rule of write-ahead logs; Pillai et
al., "All File Systems Are Not Created Equal", OSDI 2014, tell which crashes to expect). After an error of fdatasync
nothing is known of what was written since the last one: the segment is closed and the batch goes into a fresh one
(Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).

The writer holds a lock on its segment. A segment whose lock can be taken was left by a process that died: whoever
takes it drains it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from proveout.errors import Conflict, InvalidInput, Unavailable
from proveout.store.sealing import Unsealable, seal, unseal

log = logging.getLogger(__name__)

_MAGIC = b"proveout spool 1"
_HEADER = len(_MAGIC) + 16
_FRAME = struct.Struct("<II")  # length of the body, CRC-32 of the four bytes of the length
_TAG = bytes(16)  # where AES-GCM's tag would be in a file that grew before its blocks came
_SEGMENT_BYTES = 64 * 2**20
_FULL = "The disk is full or failing, and the database is away: requests cannot be recorded. Free some space."


@dataclass(frozen=True, slots=True)
class Damage:
    """A frame that is not what was written: where it is, and what is wrong with it."""

    segment: str
    frame: int
    offset: int  # bytes from the segment's beginning
    torn: bool  # the last frame, cut short: it was never acknowledged

    def __str__(self) -> str:
        what = "is torn and was never acknowledged" if self.torn else "is damaged"
        return f"spool segment {self.segment}: frame {self.frame} at byte {self.offset} {what}"


class Spool:
    """The spool of one process in `folder`. `key` seals it; every process on the volume has the same one."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder = folder
        self._key = key
        self._open: _Segment | None = None

    def append(self, entries: Sequence[bytes]) -> None:
        """Returns when `entries` are durable. Raises Unavailable when they cannot be; then none of them is."""
        batch = msgspec.msgpack.encode(entries)
        try:
            self._append(batch)
        except OSError:
            try:
                self._append(batch)
            except OSError as error:
                raise Unavailable(_FULL) from error

    def _append(self, batch: bytes) -> None:
        try:
            if self._open is None or self._open.end > _SEGMENT_BYTES:
                self.close()
                self._open = _create(self._folder)
            self._open.append(seal(self._key, batch, self._open.purpose))
        except OSError:
            self.close()  # nothing more is written behind what may not have been
            raise

    def drain(self, deliver: Callable[[list[bytes]], None], report: Callable[[Damage], None]) -> int:
        """Hands every batch that no living process holds to `deliver`, in order; answers with how many entries.

        A segment is removed once everything in it was delivered; one that is damaged, or holds what `deliver` refuses,
        is kept under the name `….damaged`. Delivery may happen twice after a crash: `deliver` must be idempotent. The
        Unavailable that it raises stops the draining.
        """
        self.close()
        delivered = 0
        for path in sorted(self._folder.glob("*.spool")) if self._folder.is_dir() else ():
            try:
                file = path.open("rb")
            except FileNotFoundError:
                continue  # another drained it
            with file:
                if not _lock(file.fileno()) or not path.exists():
                    continue
                damaged = False
                for found in read(path.name, file.read(), self._key):
                    if isinstance(found, Damage):
                        report(found)
                        damaged = damaged or not found.torn
                        continue
                    try:
                        deliver(found)
                    except (InvalidInput, Conflict) as error:
                        log.error("spool segment %s: a batch was refused and is kept: %s", path.name, error.message)
                        damaged = True
                    else:
                        delivered += len(found)
                if damaged:
                    path.rename(path.with_suffix(".damaged"))
                else:
                    path.unlink()
                _sync_folder(self._folder)
        return delivered

    @property
    def waiting(self) -> bool:
        """Whether anything waits to be drained, by whomever."""
        return self._folder.is_dir() and any(self._folder.glob("*.spool"))

    def close(self) -> None:
        """Lets go of the segment, so that anyone may drain it."""
        if self._open is not None:
            os.close(self._open.descriptor)
            self._open = None


def read(name: str, content: bytes, key: bytes) -> Iterator[list[bytes] | Damage]:
    """The batches of a segment in order, and what is damaged, where it is found."""
    if len(content) < _HEADER or not content.startswith(_MAGIC):
        written = content.rstrip(b"\0")
        if written:
            yield Damage(name, 0, 0, torn=(_MAGIC.startswith(written) or len(content) < _HEADER))
        return
    segment, offset, frame = content[len(_MAGIC) : _HEADER], _HEADER, 0
    while offset < len(content):
        head = content[offset : offset + _FRAME.size]
        if not head.strip(b"\0") and not content[offset:].strip(b"\0"):
            yield Damage(name, frame, offset, torn=True)  # the file grew, but its blocks were not written
            return
        length, check = _FRAME.unpack(head) if len(head) == _FRAME.size else (0, 1)
        end = offset + _FRAME.size + length
        if zlib.crc32(head[:4]) != check:  # where the next frame begins is not known
            yield Damage(name, frame, offset, torn=not content[offset + _FRAME.size :].strip(b"\0"))
            return
        body = content[offset + _FRAME.size : end]
        try:
            yield msgspec.msgpack.decode(unseal(key, body, _purpose(segment, frame)), type=list[bytes])
        except Unsealable:
            unwritten = body.endswith(_TAG) and not content[end:].strip(b"\0")
            yield Damage(name, frame, offset, torn=len(body) < length or unwritten)
        offset, frame = end, frame + 1


@dataclass(slots=True)
class _Segment:
    """The open segment: its file, where the next frame goes, and how many there are."""

    descriptor: int
    name: bytes
    end: int
    frames: int = 0

    @property
    def purpose(self) -> str:
        return _purpose(self.name, self.frames)

    def append(self, body: bytes) -> None:
        length = len(body).to_bytes(4, "little")
        frame = length + zlib.crc32(length).to_bytes(4, "little") + body
        try:
            _write(self.descriptor, frame)
        except OSError:
            os.ftruncate(self.descriptor, self.end)  # a full disk takes part of a frame: it must not look torn later
            raise
        os.fdatasync(self.descriptor)
        self.end += len(frame)
        self.frames += 1


def _create(folder: Path) -> _Segment:
    """A fresh segment, locked; it is there for good when this returns. Names sort by time."""
    folder.mkdir(mode=0o700, exist_ok=True)
    name = secrets.token_bytes(16)
    path = folder / f"{time.time_ns():020d}-{name.hex()[:8]}.spool"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor)
        _write(descriptor, _MAGIC + name)
        os.fdatasync(descriptor)
        _sync_folder(folder)
    except OSError:
        path.unlink()
        os.close(descriptor)
        raise
    return _Segment(descriptor, name, _HEADER)


def _purpose(segment: bytes, frame: int) -> str:
    return f"spool {segment.hex()} {frame}"


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
