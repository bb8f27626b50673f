"""Verifies a transparency log without trusting whoever runs it. This file stands alone: copy it, and run

    python verify.py log FOLDER_OR_URL --key VKEY --witness VKEY

It needs Python 3.11 and `cryptography`, nothing else. What it knows is public: the Merkle tree of RFC 9162 section 2.1,
and of C2SP signed-note, tlog-checkpoint, tlog-cosignature (Ed25519), tlog-tiles and tlog-proof.

Exit codes: 0 everything holds, 1 something is wrong (what, and where), 2 the input cannot be read.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import contextlib
import hashlib
import json
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HASH = 32  # bytes of a SHA-256
WIDTH = 256  # hashes of a full tile, entries of a full bundle
ENTRIES = -1  # the level of entry bundles; their path says `entries`
ED25519, COSIGNATURE = 0x01, 0x04  # signature types of signed-note and tlog-cosignature
PROOF_HEADER = "c2sp.org/tlog-proof@v1"
EMPTY_ROOT = hashlib.sha256().digest()
_MAX_NOTE = 64 * 1024
_MAX_SIGNATURES = 100
_MAX_RESPONSE = (2**16 + 2) * WIDTH
_MAX_FINDINGS = 1000


@dataclass(frozen=True)
class Finding:
    """What is wrong, and where: the resource's path, the byte in it, the first entry concerned, and how many are."""

    problem: str
    path: str = ""
    index: int | None = None
    offset: int | None = None
    count: int = 1

    def __str__(self) -> str:
        at = f"entry {self.index}" if self.index is not None else ""
        at += f" (and {self.count - 1} more)" if self.count > 1 else ""
        byte = f"byte {self.offset}" if self.offset is not None else ""
        place = ", ".join(filter(None, (self.path, byte, at)))
        return f"{place}: {self.problem}" if place else self.problem


class Rejected(Exception):
    """Something does not verify; `finding` says what and where."""

    def __init__(self, problem: str, offset: int | None = None, path: str = "", index: int | None = None) -> None:
        self.finding = Finding(problem, path, index, offset)
        super().__init__(str(self.finding))


# -- the Merkle tree: RFC 9162, section 2.1 ------------------------------------------------------------------------


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def subtree_root(hashes: bytes) -> bytes:
    """The root of a perfect subtree, given its 2^n lowest hashes, one after the other."""
    sha256 = hashlib.sha256
    while len(hashes) > HASH:
        hashes = b"".join([sha256(b"\x01" + hashes[i : i + 64]).digest() for i in range(0, len(hashes), 64)])
    return hashes


def tree_root(edges: Sequence[bytes]) -> bytes:
    """The root of a tree, given the hashes of its rightmost, unfinished tile of every level, lowest first.

    They are the perfect subtrees that the tree's size, as a binary number, is the sum of: folded from the right.
    """
    root = b""
    for hashes in edges:
        while hashes:
            count = len(hashes) // HASH
            run = (count & -count) * HASH
            left = subtree_root(hashes[-run:])
            root = node_hash(left, root) if root else left
            hashes = hashes[:-run]
    return root or EMPTY_ROOT


def check_inclusion(leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Raises Rejected unless `proof` shows the leaf hash at `index` of that tree (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        raise Rejected(f"entry {index} is not in a tree of {size}", index=index)
    node, last, at = leaf, size - 1, index
    for sibling in proof:
        if last == 0:
            raise Rejected("the inclusion proof is too long", index=index)
        if at & 1 or at == last:
            node = node_hash(sibling, node)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise Rejected("the inclusion proof is too short", index=index)
    if node != root:
        raise Rejected("the inclusion proof leads to another root: this entry is not at this place", index=index)


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raises Rejected unless `proof` shows the old tree as a prefix of the new one (RFC 9162, section 2.1.4.2).

    Of an empty tree nothing can be shown: every tree continues it, and there is no proof.
    """
    if not 0 <= old <= new:
        raise Rejected(f"a log of {new} entries cannot continue one of {old}", index=new)
    if old == new and (proof or old_root != new_root):
        raise Rejected("the proof must be empty" if proof else f"two trees of {old} entries: the log was forked")
    if old == new:
        return
    if old == 0 or not proof:
        raise Rejected("there is no proof")
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    was = now = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise Rejected("the consistency proof is too long")
        if at & 1 or at == last:
            was, now = node_hash(sibling, was), node_hash(sibling, now)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            now = node_hash(now, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise Rejected("the consistency proof is too short")
    if was != old_root:
        raise Rejected(f"the first {old} entries are not the ones that were seen before")
    if now != new_root:
        raise Rejected(f"the consistency proof does not lead to the new root of {new} entries")


# -- tiles: C2SP tlog-tiles ----------------------------------------------------------------------------------------


class TileId(NamedTuple):
    """One tile of hashes, or one bundle of entries (`level` ENTRIES), of `width` ≤ 256."""

    level: int
    n: int
    width: int

    @property
    def path(self) -> str:
        digits, rest = f"{self.n % 1000:03}", self.n // 1000
        while rest:
            digits, rest = f"x{rest % 1000:03}/{digits}", rest // 1000
        level = "entries" if self.level == ENTRIES else self.level
        return f"tile/{level}/{digits}" + (f".p/{self.width}" if self.width < WIDTH else "")


TileReader = Callable[[TileId], bytes]
"""Gives a tile's bytes; raises OSError when there is none."""


def tile_of(level: int, n: int, size: int) -> TileId:
    """The tile as it stands in a tree of `size` entries: full, or partial at the right edge."""
    return TileId(level, n, min(WIDTH, (size >> 8 * max(level, 0)) - n * WIDTH))


def tiles_of(level: int, size: int) -> Iterator[TileId]:
    """All tiles of a level in a tree of `size` entries."""
    for n in range(-(-(size >> 8 * max(level, 0)) // WIDTH)):
        yield tile_of(level, n, size)


def read_hashes(read: TileReader, tile: TileId) -> bytes:
    """The tile's hashes. Raises OSError, and Rejected when it has not as many as it must."""
    hashes = read(tile)
    if len(hashes) != tile.width * HASH:
        cut = min(len(hashes), tile.width * HASH)
        raise Rejected(f"{len(hashes)} bytes instead of {tile.width * HASH}", cut, tile.path)
    return hashes


def split_bundle(bundle: bytes, tile: TileId) -> tuple[list[bytes], list[int], Finding | None]:
    """The entries of a bundle, the byte at which each begins, and where it breaks off or has too much."""
    entries, offsets, at = list[bytes](), list[int](), 0
    for index in range(tile.n * WIDTH, tile.n * WIDTH + tile.width):
        end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        if end > len(bundle) or at + 2 > len(bundle):
            return entries, offsets, Finding("the bundle breaks off here", tile.path, index, at)
        entries.append(bundle[at + 2 : end])
        offsets.append(at)
        at = end
    more = Finding(f"{len(bundle) - at} bytes too many", tile.path, None, at)
    return entries, offsets, more if at < len(bundle) else None


class Frontier:
    """The right edge of a growing tree: the hashes of the unfinished tile of every level, lowest first."""

    def __init__(self, size: int = 0, edges: Iterable[bytes] = ()) -> None:
        self.size = size
        self.edges = list(edges)

    @classmethod
    def load(cls, read: TileReader, size: int) -> Frontier:
        """The right edge of a stored tree of `size` entries."""
        tiles = [tile_of(level, size >> 8 * (level + 1), size) for level in range((size.bit_length() + 7) // 8)]
        return cls(size, [read_hashes(read, tile) if tile.width else b"" for tile in tiles])

    @property
    def root(self) -> bytes:
        return tree_root(self.edges)

    def append(self, leaves: bytes) -> dict[TileId, bytes]:
        """Takes leaf hashes, one after the other; gives the tiles that became full."""
        full: dict[TileId, bytes] = {}
        hashes, level = leaves, 0
        while hashes:
            if level == len(self.edges):
                self.edges.append(b"")
            first = self.size >> 8 * (level + 1)
            data = self.edges[level] + hashes
            cut = len(data) - len(data) % (WIDTH * HASH)
            tiles = [data[at : at + WIDTH * HASH] for at in range(0, cut, WIDTH * HASH)]
            full |= {TileId(level, first + n, WIDTH): tile for n, tile in enumerate(tiles)}
            self.edges[level] = data[cut:]
            hashes, level = b"".join(map(subtree_root, tiles)), level + 1
        self.size += len(leaves) // HASH
        return full

    def partial(self) -> dict[TileId, bytes]:
        """The unfinished tiles of the present size."""
        return {tile_of(level, self.size >> 8 * (level + 1), self.size): e for level, e in enumerate(self.edges) if e}


# -- notes, checkpoints, cosignatures: C2SP signed-note, tlog-checkpoint, tlog-cosignature -------------------------


def unbase64(text: str, offset: int | None = None) -> bytes:
    """Standard base64, in its one canonical spelling. Raises Rejected."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Rejected("not base64", offset) from None
    if base64.b64encode(data).decode() != text:
        raise Rejected("base64 with stray bits", offset)
    return data


def unhash(text: str, offset: int | None = None) -> bytes:
    data = unbase64(text, offset)
    if len(data) != HASH:
        raise Rejected(f"a hash of {len(data)} bytes", offset)
    return data


def number(text: str, offset: int | None = None) -> int:
    """A decimal below 2^63 without leading zeros. Raises Rejected."""
    if not re.fullmatch("0|[1-9][0-9]{0,18}", text, re.ASCII) or int(text) >= 2**63:
        raise Rejected(f"not a size or an index: {text[:40]!r}", offset)
    return int(text)


def is_key_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() or c < " " for c in name)


@dataclass(frozen=True)
class VerifierKey:
    """A public key as C2SP writes it: `NAME+ID+base64(TYPE ‖ KEY)`. Type 1 signs notes, type 4 cosigns them."""

    name: str
    kind: int
    public: bytes

    @classmethod
    def parse(cls, vkey: str) -> VerifierKey:
        parts = vkey.strip().split("+", 2)
        data = unbase64(parts[2]) if len(parts) == 3 else b""
        if not is_key_name(parts[0]) or len(data) != 1 + HASH or data[0] not in (ED25519, COSIGNATURE):
            raise Rejected(f"not a verifier key of Ed25519: {vkey[:80]!r}")
        key = cls(parts[0], data[0], data[1:])
        if parts[1] != key.id.hex():
            raise Rejected(f"the verifier key's id must be {key.id.hex()}, not {parts[1][:20]}")
        return key

    @property
    def id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(bytes([self.kind]) + self.public).decode()}"

    def verify(self, text: bytes, signature: bytes) -> int | None:
        """The time of a cosignature in seconds since 1970, None of a plain one. Raises Rejected."""
        when = None
        if self.kind == COSIGNATURE:
            when = int.from_bytes(signature[:8], "big")
            signature, text = signature[8:], cosigned_text(text, when)
        try:
            if len(signature) != 64 or (when or 0) >= 2**63:
                raise InvalidSignature
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except InvalidSignature:
            raise Rejected(f"the signature of {self.name} is wrong") from None
        return when


def cosigned_text(text: bytes, when: int) -> bytes:
    """What a witness signs at that time, in seconds since 1970."""
    return f"cosignature/v1\ntime {when}\n".encode() + text


def split_note(note: bytes) -> tuple[bytes, list[tuple[str, bytes, bytes, int]]]:
    """A note's text, and of every signature its key's name and id, its bytes, and where its line begins."""
    if len(note) > _MAX_NOTE:
        raise Rejected(f"a note of {len(note)} bytes")
    try:
        note.decode()
    except UnicodeDecodeError as error:
        raise Rejected("not UTF-8", error.start) from None
    if control := re.search(rb"[\x00-\x09\x0b-\x1f]", note):
        raise Rejected("a control character", control.start())
    cut = note.rfind(b"\n\n")
    text, block = note[: cut + 1], note[cut + 2 :]
    if cut < 1 or not block.endswith(b"\n"):
        raise Rejected("not a signed note: text, an empty line, signatures", max(cut, 0))
    signatures, at = [], cut + 2
    for line in block.split(b"\n")[:-1]:
        dash, _, rest = line.decode().partition(" ")
        name, _, encoded = rest.partition(" ")
        data = unbase64(encoded, at)
        if dash != "—" or not is_key_name(name) or len(data) < 5:
            raise Rejected("not a signature line", at)
        signatures.append((name, data[:4], data[4:], at))
        at += len(line) + 1
    if len(signatures) > _MAX_SIGNATURES:
        raise Rejected(f"{len(signatures)} signatures")
    return text, signatures


def open_note(note: bytes, keys: Iterable[VerifierKey]) -> tuple[bytes, dict[VerifierKey, int | None]]:
    """The note's text and which of the keys signed it, when. Raises Rejected if none did or one did wrongly."""
    text, signatures = split_note(note)
    known = {(key.name, key.id): key for key in keys}
    signed: dict[VerifierKey, int | None] = {}
    for name, key_id, signature, offset in signatures:
        if key := known.get((name, key_id)):
            try:
                signed[key] = key.verify(text, signature)
            except Rejected as error:
                raise Rejected(error.finding.problem, offset) from None
    if not signed:
        raise Rejected("no known key signed this note")
    return text, signed


@dataclass(frozen=True)
class Checkpoint:
    """The head of a log: its origin, how many entries it has, and the root over them."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, text: bytes) -> Checkpoint:
        lines = text.decode().split("\n")
        if len(lines) < 4 or lines.pop() or not all(lines):
            raise Rejected("not a checkpoint: origin, size, root", 0)
        second = len(lines[0].encode()) + 1
        third = second + len(lines[1]) + 1
        checkpoint = cls(lines[0], number(lines[1], second), unhash(lines[2], third))
        if not checkpoint.size and checkpoint.root != EMPTY_ROOT:
            raise Rejected("no entries, and yet not the root of the empty tree", third)
        return checkpoint

    @property
    def text(self) -> bytes:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()


@dataclass(frozen=True)
class Policy:
    """Whom to believe: the log's key, and at least `quorum` of these witnesses."""

    log: VerifierKey
    witnesses: tuple[VerifierKey, ...] = ()
    quorum: int = 0

    def __post_init__(self) -> None:
        if self.log.kind != ED25519 or any(w.kind != COSIGNATURE for w in self.witnesses):
            raise Rejected("a log's key has signature type 1, a witness's type 4")
        if len({self.log.public, *(w.public for w in self.witnesses)}) != 1 + len(self.witnesses):
            raise Rejected("one key must not stand for two parties")
        if not 0 <= self.quorum <= len(self.witnesses):
            raise Rejected(f"{self.quorum} of {len(self.witnesses)} witnesses cannot be reached")

    def open(self, note: bytes) -> tuple[Checkpoint, dict[str, int]]:
        """The checkpoint, and which witness saw it when (seconds since 1970). Raises Rejected."""
        try:
            return self._open(note)
        except Rejected as error:
            raise Rejected(error.finding.problem, error.finding.offset, "checkpoint") from None

    def _open(self, note: bytes) -> tuple[Checkpoint, dict[str, int]]:
        text, signed = open_note(note, (self.log, *self.witnesses))
        checkpoint = Checkpoint.parse(text)
        if self.log not in signed or checkpoint.origin != self.log.name:
            raise Rejected(f"this is not signed by the log {self.log.name}")
        seen = {key.name: when for key, when in signed.items() if when is not None}
        if len([key for key in signed if key != self.log]) < self.quorum:
            raise Rejected(f"seen by {len(seen)} witnesses, must be {self.quorum}", len(text) + 1)
        return checkpoint, seen


# -- receipts: C2SP tlog-proof -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Receipt:
    """A proof that an entry is in the log. `extra` carries the entry itself."""

    index: int
    proof: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""

    @classmethod
    def parse(cls, text: bytes) -> Receipt:
        head, blank, checkpoint = text.partition(b"\n\n")
        try:
            lines = head.decode().split("\n")
        except UnicodeDecodeError as error:
            raise Rejected("not UTF-8", error.start) from None
        offsets = [0]
        for line in lines:
            offsets.append(offsets[-1] + len(line.encode()) + 1)
        if lines[0] != PROOF_HEADER or not blank:
            raise Rejected(f"not a receipt: its first line must be {PROOF_HEADER}", 0)
        at, extra = 1, b""
        if lines[1:] and lines[1].startswith("extra "):
            at, extra = 2, unbase64(lines[1].removeprefix("extra "), offsets[1])
        if not lines[at:] or not lines[at].startswith("index "):
            raise Rejected("here must stand the index", offsets[at])
        index = number(lines[at].removeprefix("index "), offsets[at])
        proof = tuple(
            unhash(line, offset) for line, offset in zip(lines, offsets, strict=False) if offset > offsets[at]
        )
        return cls(index, proof, checkpoint, extra)

    def check(self, policy: Policy, entry: bytes | None = None) -> tuple[Checkpoint, dict[str, int]]:
        """Shows that `entry` (default: the one it carries) is in the log. Raises Rejected."""
        checkpoint, seen = policy.open(self.checkpoint)
        leaf = leaf_hash(self.extra if entry is None else entry)
        check_inclusion(leaf, self.index, checkpoint.size, checkpoint.root, self.proof)
        return checkpoint, seen


def check_opening(entry: bytes, opening: bytes) -> str:
    """The private record (canonical JSON) that an entry commits to, given salt and record. Raises Rejected.

    An opening is JSON: `{"record": the record's canonical JSON as a string, "salt": base64}`.
    """
    try:
        commitment = json.loads(entry)["commitment"]
        content = json.loads(opening)
        record, salt = content["record"], unbase64(content["salt"])
        digest = hashlib.sha256(salt + record.encode()).digest()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Rejected("the entry has no commitment, or the opening no record and salt") from None
    if len(salt) != HASH or base64.b64encode(digest).decode() != commitment:
        raise Rejected("the entry commits to another record or salt")
    return str(record)


# -- the whole log -------------------------------------------------------------------------------------------------


class Replay:
    """Reads a whole log again: entries against leaf tiles, those against the tiles above and against checkpoints.

    `known` is a monitor's copy of the leaf hashes, `known_size` of them: it tells a rewritten entry by its index.
    """

    def __init__(self, read: TileReader, known: TileReader | None = None, known_size: int = 0) -> None:
        self._read, self._known, self._known_size = read, known, known_size
        self._frontier, self._marks, self._good = Frontier(), list[Checkpoint](), 0
        self._present: Checkpoint | None = None
        self.findings: list[Finding] = []

    def run(self, checkpoint: Checkpoint, remembered: Iterable[Checkpoint] = ()) -> list[Finding]:
        """What is wrong with the log at this checkpoint and with its past, of which the remembered ones tell."""
        self._marks = sorted([*remembered, checkpoint], key=lambda c: c.size)
        self._present = checkpoint
        self._take(b"")
        for tile in tiles_of(0, checkpoint.size):
            if len(self.findings) > _MAX_FINDINGS:  # a log that claims a vast size must not keep its auditor for ever
                return self.findings
            self._take(self.leaves(tile))
        self._above(self._frontier.partial())
        if self._known_size > (size := checkpoint.size):
            cut = f"the log was cut: {size} entries are left of {self._known_size}"
            self.findings.append(Finding(cut, "checkpoint", size, None, self._known_size - size))
        if self._marks:
            self._differ(self._marks[0])
        return self.findings

    def leaves(self, tile: TileId) -> bytes:
        """The leaf hashes of a tile, checked against its entries and against what is known of it."""
        start, bundle = tile.n * WIDTH, tile._replace(level=ENTRIES)
        hashes, entries, offsets = self._hashes(tile), b"", list[int]()
        try:
            split, offsets, problem = split_bundle(self._read(bundle), bundle)
            entries = b"".join(map(leaf_hash, split))
            self.findings += [problem] if problem else []
        except OSError:
            self.findings.append(Finding("cannot be read", bundle.path, start))
        differs = f"the entry is not the one that {tile.path} has the hash of"
        self._compare(entries, hashes, Finding(differs, bundle.path, start), 1, offsets)
        best = max(hashes, entries, key=len)
        if self._known and start < self._known_size:
            known = read_hashes(self._known, tile_of(0, tile.n, self._known_size))
            self._compare(best, known, Finding("the entry is not the one that was remembered", tile.path, start))
        return best.ljust(tile.width * HASH, b"\0")

    def _take(self, leaves: bytes) -> None:
        while self._marks and self._marks[0].size <= self._frontier.size + len(leaves) // HASH:
            mark = self._marks.pop(0)
            cut = (mark.size - self._frontier.size) * HASH
            self._above(self._frontier.append(leaves[:cut]))
            leaves = leaves[cut:]
            if self._frontier.root != mark.root:
                self._differ(mark)
            elif mark is not self._present:  # that one tells nothing of the past: whoever rewrote it signed it
                self._good = mark.size
        self._above(self._frontier.append(leaves))

    def _differ(self, mark: Checkpoint) -> None:
        problem = f"these are not the entries of the checkpoint of {mark.size}; up to here they are the right ones"
        self.findings.append(Finding(problem, "checkpoint", self._good, None, mark.size - self._good))
        self._marks = []

    def _above(self, tiles: dict[TileId, bytes]) -> None:
        for tile, expected in tiles.items():
            if tile.level:
                span = WIDTH**tile.level
                differs = Finding("the hash is not that of the tile below", tile.path, tile.n * WIDTH * span)
                self._compare(self._hashes(tile), expected, differs, span)

    def _hashes(self, tile: TileId) -> bytes:
        """As many whole hashes of a tile as there are."""
        try:
            hashes = self._read(tile)
        except OSError:
            self.findings.append(Finding("cannot be read", tile.path, tile.n * WIDTH ** (tile.level + 1)))
            return b""
        if len(hashes) != (length := tile.width * HASH):
            at = min(len(hashes), length) // HASH
            wrong = f"{len(hashes)} bytes instead of {length}"
            index = (tile.n * WIDTH + at) * WIDTH**tile.level
            self.findings.append(Finding(wrong, tile.path, index, at * HASH))
            hashes = hashes[: at * HASH]
        return hashes

    def _compare(self, have: bytes, want: bytes, finding: Finding, span: int = 1, at: Sequence[int] = ()) -> None:
        if have[: len(want)] != want[: len(have)]:
            places = range(0, min(len(have), len(want)), HASH)
            wrong = [place // HASH for place in places if have[place : place + HASH] != want[place : place + HASH]]
            offset = at[wrong[0]] if at else wrong[0] * HASH
            first = (finding.index or 0) + wrong[0] * span
            self.findings.append(replace(finding, index=first, offset=offset, count=len(wrong) * span))


class Memory:
    """What a monitor remembers between its visits, in a folder: a checkpoint, and all hashes below it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def checkpoint(self, policy: Policy) -> Checkpoint | None:
        file = self._folder / "checkpoint"
        return policy.open(file.read_bytes())[0] if file.exists() else None

    def read(self, tile: TileId) -> bytes:
        # A tile only ever grows at its end: one file holds it at every width.
        return (self._folder / tile._replace(width=WIDTH).path).read_bytes()[: tile.width * HASH]

    def remember(self, note: bytes, tiles: dict[TileId, bytes]) -> None:
        files = {tile._replace(width=WIDTH).path: hashes for tile, hashes in tiles.items()}
        for path, content in (*files.items(), ("checkpoint", note)):
            file = self._folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.with_name(".new").write_bytes(content)
            file.with_name(".new").replace(file)


def follow(fetch: Fetch, policy: Policy, memory: Memory) -> tuple[Checkpoint, dict[str, int], list[Finding]]:
    """Reads only what is new since the last visit, and remembers it if it continues what was there.

    If it does not, the whole log is compared with the memory, which stays as it was.
    """
    note, read = head(fetch, policy), tile_reader(fetch)
    checkpoint, seen = policy.open(note)
    old = memory.checkpoint(policy) or Checkpoint(checkpoint.origin, 0, EMPTY_ROOT)
    frontier, replay = Frontier.load(memory.read, old.size), Replay(read, memory.read, old.size)
    if frontier.root != old.root:
        raise OSError("the memory is damaged: its hashes are not those of its checkpoint")
    tiles: dict[TileId, bytes] = {}
    for n in range(old.size // WIDTH, -(-checkpoint.size // WIDTH)):
        leaves = replay.leaves(tile_of(0, n, checkpoint.size))
        if replay.findings:
            break
        tiles |= frontier.append(leaves[(frontier.size - n * WIDTH) * HASH :])
    if replay.findings or (frontier.size, frontier.root) != (checkpoint.size, checkpoint.root):
        return checkpoint, seen, Replay(read, memory.read, old.size).run(checkpoint, [old])
    memory.remember(note, tiles | frontier.partial())
    return checkpoint, seen, []


# -- where a log is, and the command line --------------------------------------------------------------------------

Fetch = Callable[[str], bytes]
"""Gives what is at a path of the log; raises OSError when there is nothing."""


def fetch_from(place: str) -> Fetch:
    """Reads a log from a folder or from a URL."""
    if not re.match("https?://", place):
        return lambda path: (Path(place) / path).read_bytes()

    def fetch(path: str) -> bytes:
        with urllib.request.urlopen(f"{place.rstrip('/')}/{path}", timeout=30) as answer:  # noqa: S310 (only http)
            body: bytes = answer.read(_MAX_RESPONSE)
            return body

    return fetch


def head(fetch: Fetch, policy: Policy) -> bytes:
    """The newest checkpoint; where witnesses must have signed, the newest that one has, if the log keeps it apart.

    A log that grows many times a second has mostly a newest one that no witness had the time to sign.
    """
    if policy.quorum:
        with contextlib.suppress(OSError):
            return fetch("witnessed")
    return fetch("checkpoint")


def tile_reader(fetch: Fetch) -> TileReader:
    """Reads tiles; in place of a partial one that is gone, the beginning of the full one."""

    def read(tile: TileId) -> bytes:
        try:
            return fetch(tile.path)
        except OSError:
            if tile.width == WIDTH:
                raise
        data = fetch(tile._replace(width=WIDTH).path)
        return data[: extent(data, tile)]

    return read


def extent(data: bytes, tile: TileId) -> int:
    """How many bytes the tile has, of one that may be wider; more than there are where it is narrower."""
    if tile.level != ENTRIES:
        return tile.width * HASH
    end = 0
    for _ in range(tile.width):
        end += 2 + int.from_bytes(data[end : end + 2], "big")
    return end


def _checkpoint(args: argparse.Namespace, policy: Policy) -> tuple[Checkpoint, dict[str, int], list[Finding]]:
    checkpoint, seen = policy.open(Path(args.file).read_bytes())
    if args.since:
        old, _ = policy.open(Path(args.since).read_bytes())
        lines = Path(args.proof).read_text().split() if args.proof else []
        proof = [unhash(line) for line in lines]
        if old.size:
            check_consistency(old.size, old.root, checkpoint.size, checkpoint.root, proof)
    return checkpoint, seen, []


def _receipt(args: argparse.Namespace, policy: Policy) -> tuple[Checkpoint, dict[str, int], list[Finding]]:
    receipt = Receipt.parse(Path(args.file).read_bytes())
    entry = Path(args.entry).read_bytes() if args.entry else receipt.extra
    checkpoint, seen = receipt.check(policy, entry)
    if args.opening:
        check_opening(entry, Path(args.opening).read_bytes())
    return checkpoint, seen, []


def _log(args: argparse.Namespace, policy: Policy) -> tuple[Checkpoint, dict[str, int], list[Finding]]:
    fetch, memory, findings = fetch_from(args.log), Memory(Path(args.memory or ".")), list[Finding]()
    known = memory.checkpoint(policy) if args.memory else None
    remembered = [policy.open(Path(file).read_bytes())[0] for file in args.remembered] + ([known] if known else [])
    note, seen = head(fetch, policy), dict[str, int]()
    try:
        checkpoint, seen = policy.open(note)
    except Rejected as error:  # go on all the same: what is wrong may yet be found where it is
        findings.append(error.finding)
        checkpoint = Checkpoint.parse(split_note(note)[0])
    replay = Replay(tile_reader(fetch), memory.read, known.size if known else 0)
    return checkpoint, seen, findings + replay.run(checkpoint, remembered)


def _follow(args: argparse.Namespace, policy: Policy) -> tuple[Checkpoint, dict[str, int], list[Finding]]:
    while not (result := follow(fetch_from(args.log), policy, Memory(Path(args.memory))))[2] and args.every:
        time.sleep(args.every)
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="verify", description="Verifies a transparency log, offline and alone.")
    commands = parser.add_subparsers(required=True)

    def command(run: Callable[..., object], name: str, argument: str, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        made.add_argument(argument)
        made.add_argument("--key", required=True, help="the log's verifier key")
        made.add_argument("--witness", action="append", default=[], help="a witness's verifier key; may be repeated")
        made.add_argument("--quorum", type=int, help="how many witnesses must have signed (default: all named)")
        made.add_argument("--json", action="store_true", help="print one JSON document")
        return made

    one = command(_checkpoint, "checkpoint", "file", "Verify a checkpoint, and that it continues an earlier one.")
    one.add_argument("--since", help="the checkpoint that was seen before")
    one.add_argument("--proof", help="the consistency proof from there: hashes in base64, one a line")
    one = command(_receipt, "receipt", "file", "Verify a receipt, and what its entry commits to.")
    one.add_argument("--entry", help="the entry's bytes (default: the ones in the receipt)")
    one.add_argument("--opening", help="the private record and salt, as JSON")
    one = command(_log, "log", "log", "Read a whole log again, from a folder or a URL.")
    one.add_argument("--remembered", action="append", default=[], help="an earlier checkpoint; may be repeated")
    one.add_argument("--memory", help="the folder of `follow`: tells rewritten entries by their index")
    one = command(_follow, "follow", "log", "Read what is new, compare it with what is remembered, remember it.")
    one.add_argument("--memory", required=True, help="the folder to remember in")
    one.add_argument("--every", type=float, help="come back after so many seconds, until something is wrong")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        witnesses = tuple(VerifierKey.parse(key) for key in args.witness)
        policy = Policy(VerifierKey.parse(args.key), witnesses, len(witnesses) if args.quorum is None else args.quorum)
    except Rejected as error:
        parser.error(str(error))
    report: dict[str, object] = {}
    try:
        checkpoint, seen, findings = args.run(args, policy)
        report = {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex(), "seen": seen}
    except Rejected as error:
        findings = [error.finding]
    except OSError as error:
        parser.error(f"cannot read: {error}")
    if args.json:
        print(json.dumps({"verified": not findings, **report, "findings": [asdict(f) for f in findings]}))
    else:
        print(*findings or [f"verified: {report['origin']}, {report['size']} entries, {report['seen']}"], sep="\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
