"""Bases of documents over a real database, with the jobs run in place and an embedder that needs no model."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from proveout.domain import KnowledgeUse, Passage, Scope, SearchMode
from proveout.jobs.runtime import Result, Steps
from proveout.language import content_words
from proveout.retrieval import uploads
from proveout.retrieval.ingest import Ingester
from proveout.retrieval.readers import Rules
from proveout.retrieval.search import Searcher
from proveout.retrieval.snapshots import Snapshot
from proveout.retrieval.versions import Versions
from proveout.store.pool import Store
from proveout.store.sealing import Keyring

P = ParamSpec("P")
T = TypeVar("T")


async def embed(texts: list[str]) -> NDArray[np.float32]:
    """Bags of hashed stems: near enough to an encoder for a test."""
    vectors: NDArray[np.float32] = np.full((len(texts), 64), 1e-3, np.float32)
    for vector, text in zip(vectors, texts, strict=True):
        for word in content_words(text):
            vector[zlib.crc32(word.encode()) % 64] += 1
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


class InPlace(Steps):
    """Runs the steps of a job here and now."""

    async def run(self, name: str, step: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        return await step(*args, **kwargs)

    async def progress(self, done: int, total: int, what: str) -> None:
        pass


class Bases:
    """What a worker and a gateway do with knowledge."""

    def __init__(self, store: Store, keyring: Keyring) -> None:
        self.store = store
        self.keyring = keyring
        self.versions = Versions(store, keyring, embed, "embedder")
        self.ingester = Ingester(store, keyring, self.versions)
        self.searcher = Searcher(store, keyring, embed)

    async def push(self, workspace: str, knowledge: str, rows: Mapping[str, tuple[str, list[str]] | None]) -> Result:
        """Each document's text and readers; None deletes it."""
        scope = Scope(workspace, "pusher")
        writer = uploads.Writer(self.store, self.keyring, scope)
        for document, given in rows.items():
            if given is None:
                await writer.put(uploads.deletion(document))
            else:
                await writer.put(uploads.text_row(document, uploads.Document(text=given[0], readers=given[1])))
        await writer.flush()
        return await self.ingester.push(InPlace(Scope.system(workspace, "test")), writer.id, knowledge)

    async def folder(self, workspace: str, knowledge: str, files: Mapping[str, bytes], rules: Rules) -> Snapshot:
        return await self.ingester.folder(InPlace(Scope.system(workspace, "test")), knowledge, files, rules)

    async def rollback(self, workspace: str, knowledge: str, snapshot: str) -> Result:
        return await self.ingester.rollback(InPlace(Scope.system(workspace, "test")), knowledge, snapshot)

    async def search(
        self, scope: Scope, knowledge: str, query: str, mode: SearchMode = "hybrid", snapshot: str = "", k: int = 50
    ) -> list[Passage]:
        return await self.searcher.search(scope, KnowledgeUse(knowledge, snapshot, k, mode, min_score=0.0), query)


def run(dsn: str, workspaces: list[str], work: Callable[[Bases], Awaitable[None]]) -> None:
    """`work` on an open store with these workspaces."""

    async def go() -> None:
        store = Store(dsn, size=4)
        await store.open()
        try:
            async with store.unscoped() as session:
                for name in workspaces:
                    await session.run("workspaces.ensure", name=name, secret=name.encode() * 8)
            await work(Bases(store, Keyring(b"m" * 32)))
        finally:
            await store.close()

    asyncio.run(go())


def texts(found: list[Passage]) -> dict[str, Any]:
    """What a search found, by document."""
    return {passage.document: passage.text for passage in found}
