"""Search of one snapshot, hybrid, dense or lexical, as far as the caller's scope may read.

What is near by meaning comes from an exact comparison where the caller sees few chunks, else from the base's vector
index; what holds the words, from packed postings. Every candidate is read back through row-level security before
anyone sees it, and when rights hide candidates, more are fetched in their place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from proveout.domain import KnowledgeUse, Passage, Scope
from proveout.retrieval import postings, segments, snapshots
from proveout.retrieval.cite import Embed
from proveout.retrieval.fusion import fuse
from proveout.retrieval.sealed import unseal_chunks
from proveout.store.pool import Row, Session, Store, as_vector
from proveout.store.sealing import Keyring

EXACT = 4_000  # visible chunks up to which all of them are compared: about 10 ms
SHARE = 20  # and up to this part of the base's, for the index loses neighbours where most of what it meets is hidden
_CANDIDATES = 100
_CACHED = 16  # snapshots
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class _Where:
    """One snapshot, and who asks what of it."""

    scope: Scope
    knowledge: str
    serial: int
    vector: str
    dimensions: int

    @property
    def base(self) -> dict[str, str]:
        return {"workspace": self.scope.workspace, "knowledge": self.knowledge}

    @property
    def snapshot(self) -> dict[str, str | int]:
        return {**self.base, "serial": self.serial}


@dataclass(frozen=True, slots=True)
class _Index:
    """The chunks of a base's segments, by ordinal, where each segment begins, and which ones the snapshot has."""

    chunks: segments.Chunks
    offsets: Mapping[int, int]
    live: NDArray[np.bool_]


class Searcher:
    """Searches snapshots. What it caches of them holds ids and lengths, never text."""

    def __init__(self, store: Store, keyring: Keyring, embed: Embed) -> None:
        self._store = store
        self._keyring = keyring
        self._embed = embed
        self._indexes: OrderedDict[tuple[object, ...], _Index] = OrderedDict()

    async def search(self, scope: Scope, use: KnowledgeUse, query: str) -> list[Passage]:
        """The `use.top_k` best passages with their scores, best first, none under `use.min_score`.

        Raises NotFound when the base has no such snapshot.
        """
        embedded = (await self._embed([query]))[0]
        async with self._store.within(scope) as session:
            found = await snapshots.find(session, scope, use.name, use.snapshot or None)
            where = _Where(scope, use.name, found["serial"], as_vector(embedded.tolist()), len(embedded))
            most = max(EXACT, found["chunks"] // SHARE)
            mine = await session.row("search.mine", **where.snapshot, limit=most + 1)
            assert mine is not None
            few = mine["versions"] if mine["chunks"] <= most else None
            count = max(_CANDIDATES, use.top_k)
            dense: dict[int, float] = {}
            lexical: dict[int, float] = {}
            if use.mode != "lexical":
                dense = await _nearest(session, where, few, count)
            if use.mode != "dense":
                lexical, cosines = await self._lexical(session, where, query, few, set(dense), count)
                if use.mode == "hybrid":
                    dense |= cosines
            weight = {"hybrid": None, "dense": 1.0, "lexical": 0.0}[use.mode]
            ranked = fuse(dense, lexical) if weight is None else fuse(dense, lexical, weight)
            best = dict([pair for pair in ranked if pair[1] >= use.min_score][: use.top_k])
            return await self._passages(session, scope, best, dense)

    async def pinned(self, scope: Scope, use: KnowledgeUse) -> KnowledgeUse:
        """The same use, of the snapshot that is the newest now where it follows the base. Raises NotFound."""
        if use.snapshot:
            return use
        async with self._store.within(scope) as session:
            return replace(use, snapshot=(await snapshots.find(session, scope, use.name, None))["digest"])

    async def passages(self, scope: Scope, scores: Mapping[int, float]) -> list[Passage]:
        """The passages of these chunks that the scope may read, best score first."""
        async with self._store.within(scope) as session:
            return await self._passages(session, scope, scores, {})

    async def _passages(
        self, session: Session, scope: Scope, scores: Mapping[int, float], cosines: Mapping[int, float]
    ) -> list[Passage]:
        rows = await session.fetch("search.passages", chunks=list(scores))
        contents = await unseal_chunks(session, self._keyring, scope.workspace, list(rows))
        passages = [
            Passage(
                chunk=str(row["id"]),
                document=row["document"],
                title=content.title,
                headings=content.headings,
                text=content.text,
                start=row["start"],
                end=row["end"],
                page=row["page"],
                score=scores[row["id"]],
                cosine=cosines.get(row["id"], 0.0),
            )
            for row, content in zip(rows, contents, strict=True)
        ]
        return sorted(passages, key=lambda passage: (-passage.score, int(passage.chunk)))

    async def _lexical(
        self,
        session: Session,
        where: _Where,
        query: str,
        few: Sequence[int] | None,
        known: set[int],
        count: int,
    ) -> tuple[dict[int, float], dict[int, float]]:
        """BM25 shares of the best visible chunks and of the `known` ones; cosines of the former."""
        row = await session.row("workspaces.secret", workspace=where.scope.workspace)
        assert row is not None
        terms = list(postings.terms(query, row["secret"]))
        index, rows = await self._index(session, where, terms)
        scores = postings.score(terms, _by_term(rows, index), index.chunks.lengths, index.live)
        allowed = scores if few is None else np.where(np.isin(index.chunks.versions, np.array(few)), scores, 0)
        order = np.argsort(-allowed, kind="stable")[: int(np.count_nonzero(allowed))]
        ids = index.chunks.ids
        lexical = {int(ids[i]): float(scores[i]) for i in np.flatnonzero(np.isin(ids, list(known)))}
        cosines: dict[int, float] = {}
        at, step = 0, count
        while at < len(order) and len(cosines) < count:
            wanted = {int(ids[i]): float(scores[i]) for i in order[at : at + step]}
            at, step = at + step, step * 2
            seen = await session.fetch(
                "search.visible", chunks=list(wanted), query=where.vector, dimensions=where.dimensions
            )
            for found in seen:
                lexical[found["id"]] = wanted[found["id"]]
                cosines[found["id"]] = found["score"]
        return lexical, cosines

    async def _index(self, session: Session, where: _Where, terms: list[int]) -> tuple[_Index, list[Row]]:
        """What scoring needs: from memory, but for the postings. A merge in between is read anew."""
        for _ in range(_ATTEMPTS):
            rows: list[Row] = list(await session.fetch("search.postings", **where.base, terms=terms))
            numbers = list(dict.fromkeys(row["segment"] for row in rows))
            key = (*where.snapshot.values(), *numbers)
            if key not in self._indexes:
                parts = await segments.load(session, numbers)
                if len(parts) < len(numbers):
                    continue
                live = await session.row("members.versions", **where.snapshot)
                assert live is not None
                chunks = segments.join([parts[number] for number in numbers])
                starts = np.cumsum([0, *(len(parts[number].ids) for number in numbers)]).tolist()
                offsets = dict(zip(numbers, starts, strict=False))
                self._indexes[key] = _Index(chunks, offsets, np.isin(chunks.versions, np.array(live["versions"])))
                while len(self._indexes) > _CACHED:
                    self._indexes.popitem(last=False)
            self._indexes.move_to_end(key)
            return self._indexes[key], rows
        raise AssertionError("segments are merged faster than they are read")


async def _nearest(session: Session, where: _Where, few: Sequence[int] | None, count: int) -> dict[int, float]:
    """The cosines of the visible chunks nearest to the query."""
    asked = {"query": where.vector, "dimensions": where.dimensions, "limit": count}
    if few is not None:
        rows = await session.fetch("search.exact", versions=few, **asked)
    else:
        rows = await session.fetch("search.nearest", **where.snapshot, **asked)
    return {row["id"]: row["score"] for row in rows}


def _by_term(rows: Sequence[Row], index: _Index) -> dict[int, list[postings.Row]]:
    """The postings of each term over all segments, as ordinals of the whole."""
    found: dict[int, list[postings.Row]] = {}
    for row in rows:
        if row["term"] is not None:
            ordinals, frequencies = postings.unpack(row["packed"])
            found.setdefault(row["term"], []).append((ordinals + index.offsets[row["segment"]], frequencies))
    return found
