"""A small log in memory, its witness's memory, and the tree once more, straight from the definitions of RFC 9162."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from proveout.ledger.note import SigningKey, add_cosignatures, sign_checkpoint, text_of
from proveout.ledger.tree import Tree, hashes, inclusion_spans
from proveout.ledger.verify import COSIGNATURE, Policy, Receipt, TileId

LOG = SigningKey.generate("log.example/acme")
WITNESS = SigningKey.generate("witness.example/w1", COSIGNATURE)
POLICY = Policy(LOG.verifier, (WITNESS.verifier,), 1)
SEEN = 1_700_000_000


def mth(entries: Sequence[bytes]) -> bytes:
    """RFC 9162, section 2.1.1."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\0" + entries[0]).digest()
    k = split(len(entries))
    return hashlib.sha256(b"\1" + mth(entries[:k]) + mth(entries[k:])).digest()


def path(m: int, entries: Sequence[bytes]) -> list[bytes]:
    """RFC 9162, section 2.1.3.1."""
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return [*path(m, entries[:k]), mth(entries[k:])]
    return [*path(m - k, entries[k:]), mth(entries[:k])]


def subproof(m: int, entries: Sequence[bytes], whole: bool = True) -> list[bytes]:
    """RFC 9162, section 2.1.4.1."""
    if m == len(entries):
        return [] if whole else [mth(entries)]
    k = split(len(entries))
    if m <= k:
        return [*subproof(m, entries[:k], whole), mth(entries[k:])]
    return [*subproof(m - k, entries[k:], False), mth(entries[:k])]


def split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


@dataclass
class Log:
    """A log as it is served: files by path. It keeps its past checkpoints, each seen by the witness."""

    entries: list[bytes] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    tree: Tree = field(default_factory=Tree)
    past: list[bytes] = field(default_factory=list)

    def append(self, entries: Sequence[bytes], *, seen: bool = True) -> bytes:
        """Appends and publishes; the new checkpoint."""
        self.entries += entries
        self.files |= {tile.path: content for tile, content in self.tree.append(entries).items()}
        note = sign_checkpoint(LOG, self.tree.size, self.tree.root)
        if seen:
            note = add_cosignatures(note, WITNESS.cosign(text_of(note), SEEN), WITNESS.verifier)
        self.files["checkpoint"] = note
        self.past.append(note)
        return note

    def fetch(self, path: str) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]

    def read(self, tile: TileId) -> bytes:
        return self.fetch(tile.path)

    def receipt(self, index: int) -> Receipt:
        size = len(self.entries)
        proof = hashes(self.read, inclusion_spans(index, size), size)
        return Receipt(index, tuple(proof), self.files["checkpoint"], self.entries[index])


def entries(count: int, start: int = 0) -> list[bytes]:
    return [
        f'{{"n":{n},"time":"2026-11-22T10:{n // 60 % 60:02}:{n % 60:02}Z"}}'.encode()
        for n in range(start, start + count)
    ]
