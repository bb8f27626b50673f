"""The growing Merkle tree: what an append changes, and the proofs that it gives (RFC 9162, section 2.1)."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from proveout.errors import InvalidInput
from proveout.ledger.verify import (
    ENTRIES,
    HASH,
    WIDTH,
    Frontier,
    TileId,
    TileReader,
    leaf_hash,
    node_hash,
    read_hashes,
    subtree_root,
    tile_of,
)

LARGEST_ENTRY = 2**16 - 1  # bytes; a bundle's length prefix has two


class Span(NamedTuple):
    """The entries from `start` up to `end`, whose Merkle tree hash a proof needs."""

    start: int
    end: int


class Tree:
    """The right edge of a log, from which it grows. Holds no more than one bundle and one tile a level."""

    def __init__(self, frontier: Frontier | None = None, bundle: bytes = b"") -> None:
        self._frontier = frontier or Frontier()
        self._bundle = bundle

    @classmethod
    def load(cls, read: TileReader, size: int) -> Tree:
        """The tree of `size` entries as it was stored. Raises what `read` raises."""
        last = tile_of(ENTRIES, size // WIDTH, size)
        return cls(Frontier.load(read, size), read(last) if last.width else b"")

    @property
    def size(self) -> int:
        return self._frontier.size

    @property
    def root(self) -> bytes:
        return self._frontier.root

    def append(self, entries: Sequence[bytes]) -> dict[TileId, bytes]:
        """The tiles and bundles that are new or changed, partial ones included. Raises InvalidInput.

        A partial tile is a prefix of the ones that follow it: a store may keep one row for (level, n) and overwrite it.
        Store all of it before a checkpoint of the new size is signed.
        """
        if any(len(entry) > LARGEST_ENTRY for entry in entries):
            raise InvalidInput(f"An entry of the ledger has at most {LARGEST_ENTRY} bytes.")
        bundles, start = {}, self.size
        done = 0
        while done < len(entries):
            n, filled = divmod(start + done, WIDTH)
            some = entries[done : done + WIDTH - filled]
            self._bundle += b"".join([len(entry).to_bytes(2, "big") + entry for entry in some])
            bundles[TileId(ENTRIES, n, filled + len(some))] = self._bundle
            if filled + len(some) == WIDTH:
                self._bundle = b""
            done += len(some)
        full = self._frontier.append(b"".join(map(leaf_hash, entries)))
        return bundles | full | (self._frontier.partial() if entries else {})


def inclusion_spans(index: int, size: int) -> list[Span]:
    """What the inclusion proof of one entry consists of, leaf's sibling first (RFC 9162, section 2.1.3.1)."""
    if not 0 <= index < size:
        raise InvalidInput(f"Entry {index} is not in a tree of {size}.")
    spans, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(start, middle))
            start = middle
    return spans[::-1]


def consistency_spans(old: int, new: int) -> list[Span]:
    """What the consistency proof between two sizes consists of (RFC 9162, section 2.1.4.1)."""
    if not 0 <= old <= new:
        raise InvalidInput(f"A tree of {new} entries does not continue one of {old}.")
    if old == 0:
        return []
    spans, start, end = [], 0, new
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            spans.append(Span(middle, end))
            end = middle
        else:
            spans.append(Span(start, middle))
            start = middle
    return [Span(start, end), *spans[::-1]] if start else spans[::-1]


def tiles_for(spans: Iterable[Span], size: int) -> set[TileId]:
    """The tiles that `hashes` reads for these spans: for a store that fetches them in one query."""
    return {_place(level, n, size)[0] for span in spans for level, n in _perfect(span)}


def hashes(read: TileReader, spans: Iterable[Span], size: int) -> list[bytes]:
    """The Merkle tree hash of each span, from the tiles of a tree of `size` entries: the proof itself."""
    cached = functools.cache(lambda tile: read_hashes(read, tile))
    found = []
    for span in spans:
        root = b""
        for level, n in reversed(_perfect(span)):
            tile, part = _place(level, n, size)
            left = subtree_root(cached(tile)[part])
            root = node_hash(left, root) if root else left
        found.append(root)
    return found


def _split(count: int) -> int:
    """The largest power of two smaller than `count`."""
    return 1 << (count - 1).bit_length() - 1


def _perfect(span: Span) -> list[tuple[int, int]]:
    """The perfect subtrees that make up a span: (height, number among those of that height)."""
    parts, start = [], span.start
    while start < span.end:
        height = (span.end - start).bit_length() - 1
        parts.append((height, start >> height))
        start += 1 << height
    return parts


def _place(height: int, number: int, size: int) -> tuple[TileId, slice]:
    """The tile whose hashes stand under a perfect subtree, and which bytes of it."""
    level, rest = divmod(height, 8)
    n, first = divmod(number << rest, WIDTH)
    return tile_of(level, n, size), slice(first * HASH, (first + (1 << rest)) * HASH)
