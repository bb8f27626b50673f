"""Search of one snapshot, hybrid, dense or lexical, as far as the caller's scope may read.

Lexical scores come from packed postings; every candidate is read back through row-level security before
anyone sees it, and when rights hide candidates, more are fetched in their place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from proveout.domain import KnowledgeUse, Passage, Scope
from proveout.errors import NotFound
from proveout.retrieval import postings
from proveout.retrieval.cite import Embed
from proveout.retrieval.fusion import fuse
from proveout.retrieval.sealed import unseal_chunks
from proveout.store.pool import Session, Store, as_vector
from proveout.store.sealing import Keyring

_CANDIDATES = 50
_CACHED_SNAPSHOTS = 16


class Searcher:
    """Searches snapshots. What it caches of them holds ids and lengths, never text."""

    def __init__(self, store: Store, keyring: Keyring, embed: Embed) -> None:
        self._store = store
        self._keyring = keyring
        self._embed = embed
        self._indexes: OrderedDict[tuple[str, str, str], tuple[list[int], NDArray[np.float32]]] = OrderedDict()

    async def search(self, scope: Scope, use: KnowledgeUse, query: str) -> list[Passage]:
        """The `use.top_k` best passages with their scores, best first, none under `use.min_score`.

        Raises NotFound when the corpus has no such snapshot.
        """
        vector = as_vector((await self._embed([query]))[0].tolist())
        where = {"workspace": scope.workspace, "knowledge": use.name, "snapshot": use.snapshot}
        async with self._store.within(scope) as session:
            dense: dict[int, float] = {}
            if use.mode != "lexical":
                rows = await session.fetch("search.dense", **where, query=vector, limit=_CANDIDATES)
                dense = {row["id"]: row["score"] for row in rows}
            lexical: dict[int, float] = {}
            if use.mode != "dense":
                lexical, cosines = await self._lexical(session, where, query, vector, set(dense))
                if use.mode == "hybrid":
                    dense |= cosines
            weight = {"hybrid": None, "dense": 1.0, "lexical": 0.0}[use.mode]
            ranked = fuse(dense, lexical) if weight is None else fuse(dense, lexical, weight)
            best = dict([pair for pair in ranked if pair[1] >= use.min_score][: use.top_k])
            return await self._passages(session, scope, best)

    async def passages(self, scope: Scope, scores: Mapping[int, float]) -> list[Passage]:
        """The passages of these chunks that the scope may read, best score first."""
        async with self._store.within(scope) as session:
            return await self._passages(session, scope, scores)

    async def _passages(self, session: Session, scope: Scope, scores: Mapping[int, float]) -> list[Passage]:
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
            )
            for row, content in zip(rows, contents, strict=True)
        ]
        return sorted(passages, key=lambda passage: -passage.score)

    async def _lexical(
        self, session: Session, where: dict[str, str], query: str, vector: str, known: set[int]
    ) -> tuple[dict[int, float], dict[int, float]]:
        """BM25 shares of the best visible chunks and of the `known` ones; cosines of the former."""
        chunks, lengths = await self._index(session, where)
        row = await session.row("workspaces.secret", workspace=where["workspace"])
        assert row is not None
        terms = list(postings.terms(query, row["secret"]))
        rows = await session.fetch("search.postings", **where, terms=terms)
        scores = postings.score(terms, {r["term"]: r["packed"] for r in rows}, lengths, len(chunks))
        order = np.argsort(-scores, kind="stable")[: int(np.count_nonzero(scores))]
        lexical = {chunks[i]: float(scores[i]) for i in order if chunks[i] in known}
        cosines: dict[int, float] = {}
        for start in range(0, len(order), _CANDIDATES * 4):
            wanted = {chunks[i]: float(scores[i]) for i in order[start : start + _CANDIDATES * 4]}
            for found in await session.fetch("search.visible", chunks=list(wanted), query=vector):
                lexical[found["id"]] = wanted[found["id"]]
                cosines[found["id"]] = found["score"]
            if len(cosines) >= _CANDIDATES:
                break
        return lexical, cosines

    async def _index(self, session: Session, where: dict[str, str]) -> tuple[list[int], NDArray[np.float32]]:
        key = (where["workspace"], where["knowledge"], where["snapshot"])
        if key not in self._indexes:
            row = await session.row("search.index", **where)
            if row is None:
                raise NotFound(f"The knowledge {where['knowledge']} has no such snapshot.")
            self._indexes[key] = (row["chunks"], np.frombuffer(row["lengths"], np.float32))
            while len(self._indexes) > _CACHED_SNAPSHOTS:
                self._indexes.popitem(last=False)
        self._indexes.move_to_end(key)
        return self._indexes[key]
