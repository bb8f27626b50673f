"""A witness: it cosigns a checkpoint only if that continues the last one it cosigned (C2SP tlog-witness).

Everything but HTTP: the door turns `Refused` into a status and `Refused.size` into a body.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from proveout.errors import ProveoutError
from proveout.ledger.note import SigningKey
from proveout.ledger.verify import (
    EMPTY_ROOT,
    Checkpoint,
    Rejected,
    VerifierKey,
    check_consistency,
    number,
    open_note,
    split_note,
    unhash,
)

log = logging.getLogger(__name__)

_MOST_HASHES = 63
LARGEST_REQUEST = 64 * 1024  # bytes


class Refused(ProveoutError):
    """The witness does not cosign this checkpoint; the message says why."""

    code = "refused"


class MalformedRequest(Refused):
    """This is not a request to add a checkpoint, or its old size is larger than its checkpoint's."""


class UnknownLog(Refused):
    """This witness does not know the log that the checkpoint names."""


class NotSigned(Refused):
    """The checkpoint has no valid signature of the log that it names."""


class BadProof(Refused):
    """The consistency proof does not lead from the old checkpoint to this one."""


class Conflicting(Refused):
    """The old size is not that of the last cosigned checkpoint, or its root is another one; `size` is its size."""

    def __init__(self, size: int) -> None:
        super().__init__(f"The last checkpoint that was cosigned has {size} entries.")
        self.size = size


class Witness:
    """Cosigns for the logs whose keys it knows by origin. `folder` keeps the last checkpoint of each."""

    def __init__(
        self,
        key: SigningKey,
        logs: Mapping[str, VerifierKey],
        folder: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key, self._logs, self._folder, self._clock = key, logs, folder, clock

    def add_checkpoint(self, request: bytes) -> bytes:
        """The cosignature's line, given when the checkpoint is durable. Raises Refused, and OSError if it cannot be.

        Requests for one log wait for each other, those of other processes on the same folder too.
        """
        old, proof, note = _parse(request)
        try:
            text, _ = split_note(note)
            checkpoint = Checkpoint.parse(text)
        except Rejected as error:
            raise MalformedRequest(f"The checkpoint: {error}.") from None
        if checkpoint.origin not in self._logs:
            raise UnknownLog()
        try:
            open_note(note, [self._logs[checkpoint.origin]])
        except Rejected as error:
            raise NotSigned(f"The checkpoint: {error}.") from None
        if old > checkpoint.size:
            raise MalformedRequest(f"The old size {old} is larger than the checkpoint's, {checkpoint.size}.")
        with self._locked(checkpoint.origin) as file:
            last = self._last(file, checkpoint.origin)
            if old != last.size:
                raise Conflicting(last.size)
            if old == checkpoint.size and last.root != checkpoint.root:
                log.error("%s was forked at %d entries: %r", checkpoint.origin, old, note)
                raise Conflicting(last.size)
            try:
                if not old and proof:
                    raise Rejected("a proof from nothing must be empty")
                if old:
                    check_consistency(old, last.root, checkpoint.size, checkpoint.root, proof)
            except Rejected as error:
                log.warning("%s gave no proof from %d to %d: %s", checkpoint.origin, old, checkpoint.size, error)
                raise BadProof(f"The proof: {error}.") from None
            _persist(file, note)
            return self._key.cosign(text, int(self._clock()))

    @contextmanager
    def _locked(self, origin: str) -> Iterator[Path]:
        file = self._folder / hashlib.sha256(origin.encode()).hexdigest()
        with file.with_suffix(".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield file

    def _last(self, file: Path, origin: str) -> Checkpoint:
        """A state that cannot be read stops the witness: taken for none, it would let a log begin anew."""
        try:
            text, _ = open_note(file.read_bytes(), [self._logs[origin]])
        except FileNotFoundError:
            return Checkpoint(origin, 0, EMPTY_ROOT)
        except Rejected as error:
            raise OSError(f"{file} is damaged: {error}") from None
        return Checkpoint.parse(text)


def _parse(request: bytes) -> tuple[int, list[bytes], bytes]:
    head, blank, note = request.partition(b"\n\n")
    try:
        first, *lines = head.decode().split("\n")
        if not blank or not first.startswith("old ") or len(lines) > _MOST_HASHES or len(request) > LARGEST_REQUEST:
            raise Rejected("expected `old SIZE`, at most 63 hashes, an empty line and the checkpoint")
        return number(first.removeprefix("old ")), [unhash(line) for line in lines], note
    except (UnicodeDecodeError, Rejected) as error:
        raise MalformedRequest(f"The request: {error}.") from None


def _persist(file: Path, content: bytes) -> None:
    """Replaces the file at once and durably: after a crash it holds the old content or the new, never neither."""
    new = file.with_suffix(".new")
    with new.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
