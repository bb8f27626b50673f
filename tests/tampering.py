"""An insider rewrites the past: with the files and the log's own key, but without the witness."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from proveout.ledger.note import sign_checkpoint
from proveout.ledger.tree import Tree
from proveout.ledger.verify import (
    ENTRIES,
    Checkpoint,
    Finding,
    Memory,
    Rejected,
    Replay,
    follow,
    split_note,
    tile_reader,
    tiles_of,
)
from tlog import LOG, POLICY, Log, entries

STEPS = (200, 56, 1, 300, 400)  # what was appended between two checkpoints that the witness saw


@dataclass
class Past:
    """What outsiders hold of the true log."""

    log: Log
    memory: Memory
    checkpoints: list[Checkpoint]

    @property
    def size(self) -> int:
        return self.checkpoints[-1].size


def remembered(folder: Path) -> Past:
    """A log that a witness and a monitor saw grow."""
    log, memory = Log(), Memory(folder)
    for step in STEPS:
        log.append(entries(step, len(log.entries)))
        _, _, findings = follow(log.fetch, POLICY, memory)
        assert findings == []
    return Past(log, memory, [POLICY.open(note)[0] for note in log.past])


def rewritten(true: list[bytes], size: int, some: random.Random) -> tuple[str, list[bytes], int]:
    """A false history, and the first entry in which it differs; older than what the witness saw."""
    how = some.choice(("mutate", "back-date", "delete", "insert", "reorder", "truncate", "fork"))
    at, false = some.randrange(size), [*true]
    if how == "mutate":
        one = bytearray(false[at])
        one[some.randrange(len(one))] ^= 1 << some.randrange(8)
        false[at] = bytes(one)
    elif how == "back-date":
        false[at] = false[at].replace(b"2026-11-22", b"2026-11-%02d" % some.randrange(1, 22))
    elif how == "delete":
        del false[at]
    elif how == "insert":
        false.insert(at, b'{"n":"false"}')
    elif how == "reorder":
        other = some.choice([n for n in range(size) if n != at])
        false[at], false[other] = false[other], false[at]
        at = min(at, other)
    elif how == "truncate":
        false = false[:at]
    else:
        false = false[:at] + [b'{"fork":%d}' % n for n in range(some.randrange(1, 600))]
    return how, false, at


def published(true: Log, false: list[bytes], some: random.Random) -> tuple[str, Log]:
    """The false history, covered up to some depth: the deeper, the fewer the places where it shows."""
    depth = some.choice(("bundles", "leaf tiles", "all tiles", "checkpoint"))
    forged, tree = Log(), Tree()
    wanted = tree.append(false)
    if depth == "checkpoint":
        forged.files = {tile.path: content for tile, content in wanted.items()}
        forged.files["checkpoint"] = sign_checkpoint(LOG, tree.size, tree.root)
        return depth, forged
    # The checkpoint stays: what is read under it is overwritten, as far as the false history has it.
    forged.files = {**true.files}
    contents = {(tile.level, tile.n): content for tile, content in wanted.items()}
    for level in (ENTRIES, 0, 1, 2):
        for tile in tiles_of(level, len(true.entries)):
            if level == ENTRIES or (depth != "bundles" and (level == 0 or depth == "all tiles")):
                content = contents.get((level, tile.n), b"")
                forged.files[tile.path] = content if level == ENTRIES else content[: 32 * tile.width]
    return depth, forged


def audited(log: Log, past: Past, *, memory: bool) -> list[Finding]:
    """As `verify.py log` does: with a monitor's memory, or with nothing but checkpoints seen before."""
    findings = []
    try:
        checkpoint, _ = POLICY.open(log.files["checkpoint"])
    except Rejected as error:
        findings = [error.finding]
        checkpoint = Checkpoint.parse(split_note(log.files["checkpoint"])[0])
    known = (past.memory.read, past.size) if memory else (None, 0)
    return findings + Replay(tile_reader(log.fetch), *known).run(checkpoint, past.checkpoints)


def tamper(past: Past, seed: int) -> None:
    some = random.Random(seed)
    how, false, first = rewritten(past.log.entries, past.size, some)
    depth, forged = published(past.log, false, some)
    case = f"seed {seed}: {how} at {first}, with false {depth}"
    findings = audited(forged, past, memory=True)
    assert findings, f"not found: {case}"
    indices = {finding.index for finding in findings if finding.index is not None}
    assert first in indices, f"found, but not where it is: {case}: {findings}"
    # Nothing before it is accused, except as part of a checkpoint's whole range.
    assert all(f.path == "checkpoint" or f.index is None or f.index >= first // 256 * 256 for f in findings), case
    # With old checkpoints alone: found too, and at least narrowed down to what came between two of them.
    alone = audited(forged, past, memory=False)
    assert alone, f"not found without memory: {case}"
    bounds = [0, *(checkpoint.size for checkpoint in past.checkpoints)]
    low = max(bound for bound in bounds if bound <= first)
    high = min([bound for bound in bounds if bound > first])
    spans = [range(f.index, f.index + f.count) for f in alone if f.index is not None]
    assert any(low <= span.start <= first < span.stop <= max(high, span.start + 256**2) for span in spans), (
        case,
        alone,
    )
    # A monitor that follows along does not take it over.
    try:
        _, _, findings = follow(forged.fetch, POLICY, past.memory)
        assert findings or depth != "checkpoint", f"followed: {case}"
    except Rejected:
        pass
    assert past.memory.checkpoint(POLICY) == past.checkpoints[-1]
