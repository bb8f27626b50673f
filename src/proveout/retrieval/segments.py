"""The lexical index of a base, in segments, as search engines have it: each push adds one, merges keep them few.

A segment holds postings of chunks, whatever snapshots they are in; a search passes over those that its snapshot does
not have, so that every snapshot's scores are those of an index of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proveout.retrieval import postings
from proveout.store.pool import Row, Session

_MERGED = 4  # segments of about one size become one
_TERMS = 5_000  # of one statement


@dataclass(frozen=True, slots=True)
class Chunks:
    """The chunks of segments, by ordinal: their ids, their versions, their lengths in content words."""

    ids: NDArray[np.int64]
    versions: NDArray[np.int64]
    lengths: NDArray[np.float32]


async def add(session: Session, workspace: str, knowledge: str, chunks: Chunks, rows: Mapping[int, bytes]) -> None:
    """A new segment with these postings by term."""
    made = await session.row(
        "segments.insert",
        workspace=workspace,
        knowledge=knowledge,
        size=len(chunks.ids),
        chunks=chunks.ids.astype("<i8").tobytes(),
        versions=chunks.versions.astype("<i8").tobytes(),
        lengths=chunks.lengths.astype("<f4").tobytes(),
    )
    assert made is not None
    terms = sorted(rows)
    for at in range(0, len(terms), _TERMS):
        part = terms[at : at + _TERMS]
        await session.run(
            "postings.insert",
            workspace=workspace,
            segment=made["id"],
            terms=part,
            packed=[rows[term] for term in part],
        )


async def load(session: Session, segments: Sequence[int]) -> dict[int, Chunks]:
    """The chunks of each of these segments that is still there."""
    return {row["id"]: _chunks(row) for row in await session.fetch("segments.get", segments=list(segments))}


def join(parts: Sequence[Chunks]) -> Chunks:
    """The chunks of segments one after the other."""
    return Chunks(
        np.concatenate([part.ids for part in parts] or [np.empty(0, np.int64)]),
        np.concatenate([part.versions for part in parts] or [np.empty(0, np.int64)]),
        np.concatenate([part.lengths for part in parts] or [np.empty(0, np.float32)]),
    )


async def merge(session: Session, workspace: str, knowledge: str) -> None:
    """Merges segments of like size, without what was destroyed since. The caller holds the base's lock."""
    listed = await session.fetch("segments.list", workspace=workspace, knowledge=knowledge)
    chosen = _chosen([(row["id"], row["size"]) for row in listed])
    if not chosen:
        return
    parts = await load(session, chosen)
    offsets = dict(zip(chosen, np.cumsum([0, *(len(parts[s].ids) for s in chosen)]), strict=False))
    joined = join([parts[segment] for segment in chosen])
    found = await session.row("versions.exist", versions=np.unique(joined.versions).tolist())
    assert found is not None
    kept = np.isin(joined.versions, np.array(found["ids"], np.int64))
    places = np.cumsum(kept) - 1
    gathered: dict[int, list[tuple[NDArray[np.int64], NDArray[np.uint16]]]] = defaultdict(list)
    for row in await session.fetch("postings.of_segments", segments=chosen):
        ordinals, frequencies = postings.unpack(row["packed"])
        at = ordinals + offsets[row["segment"]]
        if kept[at].any():
            gathered[row["term"]].append((places[at[kept[at]]], frequencies[kept[at]]))
    rows = {term: _packed(pieces) for term, pieces in gathered.items()}
    chunks = Chunks(joined.ids[kept], joined.versions[kept], joined.lengths[kept])
    await session.run("segments.delete", segments=chosen)
    if len(chunks.ids):
        await add(session, workspace, knowledge, chunks, rows)


def _chosen(segments: Sequence[tuple[int, int]]) -> list[int]:
    """The ids to merge, given ids and sizes, largest first: the longest tail of four or more of about one size.

    So each chunk is rewritten about log4(n) times in all, and a base has about 3·log4(n) segments.
    """
    for at, (_, size) in enumerate(segments):
        tail = segments[at:]
        if len(tail) >= _MERGED and sum(s for _, s in tail) >= (_MERGED - 1) * size:
            return [segment for segment, _ in tail]
    return []


def _packed(pieces: Sequence[tuple[NDArray[np.int64], NDArray[np.uint16]]]) -> bytes:
    ordinals = np.concatenate([o for o, _ in pieces])
    order = np.argsort(ordinals)
    return postings.pack(ordinals[order], np.concatenate([f for _, f in pieces])[order])


def _chunks(row: Row) -> Chunks:
    return Chunks(
        np.frombuffer(row["chunks"], "<i8"), np.frombuffer(row["versions"], "<i8"), np.frombuffer(row["lengths"], "<f4")
    )
