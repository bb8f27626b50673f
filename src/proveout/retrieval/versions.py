"""From a document as it came to a version: read, cut into chunks, embedded, indexed, sealed.

A version that this pipeline has made already is used again. Versions are in no search until a snapshot has them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec
import numpy as np
import rfc8785
from numpy.typing import NDArray

from proveout.domain import Scope
from proveout.errors import InvalidInput, Unavailable, UpstreamFailed
from proveout.retrieval import chunk, postings, segments
from proveout.retrieval.chunk import Chunk, index_text
from proveout.retrieval.cite import Embed
from proveout.retrieval.parse import Parsed, verbatim
from proveout.retrieval.reader import Reader
from proveout.retrieval.readers import front_matter
from proveout.retrieval.sealed import Content, Whole, owner, seal_chunk, seal_whole
from proveout.retrieval.snapshots import Member
from proveout.store.pool import Session, Store, as_array, as_vector
from proveout.store.sealing import Keyring

T = TypeVar("T")
_DOCUMENTS, _BYTES = 128, 8 << 20  # of a batch, which is written in one transaction
_TEXTS = 64  # of one request to the embedder
_PATIENCE = 60.0  # seconds that it may be away
_AT_ONCE = 2  # batches: while one is read or written, another is embedded


@dataclass(frozen=True, slots=True)
class Source:
    """A document as it came: the bytes of a file, whose name's suffix is its format, or a text, word for word.

    `digest` covers all that makes the version. Its `title` comes before one that the file gives itself. `readers` may
    be overruled by the file's front matter; None is nobody, until a push says otherwise.
    """

    document: str
    digest: str
    body: bytes | str
    name: str
    title: str = ""
    readers: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Made:
    source: Source
    parsed: Parsed
    readers: tuple[str, ...]
    pieces: Sequence[Chunk]
    texts: Sequence[str]
    vectors: NDArray[np.float32]


class Versions:
    """Makes versions, many at a time."""

    def __init__(self, store: Store, keyring: Keyring, embed: Embed, embedder_digest: str) -> None:
        self._store = store
        self._keyring = keyring
        self._embed = embed
        settings = {"chunks": chunk.VERSION, "lexical": postings.VERSION, "embedder": embedder_digest}
        self.pipeline = hashlib.sha256(rfc8785.dumps(settings)).hexdigest()

    async def known(self, scope: Scope, knowledge: str, digests: Mapping[str, str]) -> dict[str, Member]:
        """Those of these documents, given with their digests, that have their version already."""
        async with self._store.within(scope) as session:
            return await self.known_within(session, scope, knowledge, digests)

    async def known_within(
        self, session: Session, scope: Scope, knowledge: str, digests: Mapping[str, str]
    ) -> dict[str, Member]:
        """As `known`, in a transaction that is open."""
        rows = await session.fetch(
            "versions.known",
            workspace=scope.workspace,
            knowledge=knowledge,
            pipeline=self.pipeline,
            documents=list(digests),
            digests=list(digests.values()),
        )
        return {row["document"]: Member(row["id"], row["digest"], row["chunks"]) for row in rows}

    async def make(
        self, scope: Scope, knowledge: str, reader: Reader, sources: Sequence[Source]
    ) -> list[dict[str, str]]:
        """Makes the versions that are not there yet; answers with the documents that cannot be read, and why."""
        known = await self.known(scope, knowledge, {source.document: source.digest for source in sources})
        missing = [source for source in sources if source.document not in known]
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(batch: Sequence[Source]) -> list[dict[str, str]]:
            async with gate:
                made, problems = await self._read(reader, batch)
                async with self._store.within(scope) as session:
                    await self._insert(session, scope, knowledge, made)
            return problems

        parts = batches(missing, lambda source: len(source.body), _DOCUMENTS, _BYTES)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(batch)) for batch in parts]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return [problem for task in tasks for problem in task.result()]

    async def _read(self, reader: Reader, batch: Sequence[Source]) -> tuple[list[_Made], list[dict[str, str]]]:
        read, problems = [], []
        for source in batch:
            try:
                if isinstance(source.body, str):
                    parsed = verbatim(source.title or source.document, source.body)
                    pieces = await asyncio.to_thread(chunk.chunks, parsed)  # nothing to parse: a thread will do
                else:
                    parsed, pieces = await reader.read(source.name, source.body)
                    parsed = replace(parsed, title=source.title or parsed.title)
                readers = () if source.readers is None else front_matter(source.name, parsed.metadata, source.readers)
            except InvalidInput as error:
                problems.append({"document": source.document, "message": error.message})
                continue
            texts = [index_text(parsed.title, p.headings, p.text) for p in pieces]
            read.append((source, parsed, readers, pieces, texts))
        vectors = await self._embedded([text for *_, texts in read for text in texts])
        made, at = [], 0
        for source, parsed, readers, pieces, texts in read:
            made.append(_Made(source, parsed, readers, pieces, texts, vectors[at : at + len(texts)]))
            at += len(texts)
        return made, problems

    async def _embedded(self, texts: list[str]) -> NDArray[np.float32]:
        """A few texts at a time, so that searches get their turn. Waits while the embedder is away or busy."""
        parts = [await self._patiently(texts[at : at + _TEXTS]) for at in range(0, len(texts), _TEXTS)]
        return np.concatenate(parts) if parts else await self._embed([])

    async def _patiently(self, texts: list[str]) -> NDArray[np.float32]:
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            try:
                return await self._embed(texts)
            except (Unavailable, UpstreamFailed):
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(1)

    async def _insert(self, session: Session, scope: Scope, knowledge: str, made: Sequence[_Made]) -> None:
        """Writes versions with their chunks and a segment of the lexical index, in this one transaction."""
        if not made:
            return
        where = {"workspace": scope.workspace, "knowledge": knowledge}
        await session.run("knowledge.share", **where)
        owners = [owner(knowledge, one.source.document) for one in made]
        keys = dict(zip(owners, await self._keyring.keys(session, scope.workspace, "document", owners), strict=True))
        rows = await session.fetch(
            "versions.insert",
            **where,
            pipeline=self.pipeline,
            documents=[one.source.document for one in made],
            digests=[one.source.digest for one in made],
            readers=[as_array(one.readers) for one in made],
            sealed=[seal_whole(keys[o], _whole(one)) for one, o in zip(made, owners, strict=True)],
            chunks=[len(one.pieces) for one in made],
        )
        ids = {row["document"]: row["id"] for row in rows}
        fresh = [one for one in made if one.source.document in ids]  # another job may have made the others meanwhile
        pieces = [(ids[one.source.document], one, piece) for one in fresh for piece in one.pieces]
        if not pieces:
            return
        vectors = np.concatenate([one.vectors for one in fresh])
        found = await session.fetch(
            "chunks.insert",
            **where,
            versions=[version for version, _, _ in pieces],
            ordinals=[piece.ordinal for _, _, piece in pieces],
            sealed=[
                seal_chunk(
                    keys[owner(knowledge, one.source.document)], Content(one.parsed.title, piece.headings, piece.text)
                )
                for _, one, piece in pieces
            ],
            starts=[piece.start for _, _, piece in pieces],
            ends=[piece.end for _, _, piece in pieces],
            pages=[piece.page for _, _, piece in pieces],
            dimensions=vectors.shape[1],
            embeddings=[as_vector(vector.tolist()) for vector in vectors],
        )
        secret = await session.row("workspaces.secret", workspace=scope.workspace)
        assert secret is not None
        texts = [text for one in fresh for text in one.texts]
        beside = [[piece.text for piece in _beside(one.pieces, at)] for one in fresh for at in range(len(one.pieces))]
        index = postings.build(texts, secret["secret"], beside)
        numbers = {(row["version"], row["ordinal"]): row["id"] for row in found}
        chunks = segments.Chunks(
            np.array([numbers[version, piece.ordinal] for version, _, piece in pieces], np.int64),
            np.array([version for version, _, _ in pieces], np.int64),
            index.lengths,
        )
        await segments.add(session, scope.workspace, knowledge, chunks, index.rows)


def batches(items: Sequence[T], size: Callable[[T], int], most: int, largest: int) -> Iterator[list[T]]:
    """Groups of at most `most` items that are at most `largest` in all, unless one alone is larger."""
    batch: list[T] = []
    total = 0
    for item in items:
        if batch and (len(batch) == most or total + size(item) > largest):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size(item)
    if batch:
        yield batch


def _beside(pieces: Sequence[Chunk], at: int) -> list[Chunk]:
    return [*pieces[max(at - 1, 0) : at], *pieces[at + 1 : at + 2]]


def digest(**content: object) -> str:
    """SHA-256 of the RFC 8785 form of what makes a version. Raises InvalidInput for numbers beyond 2^53."""
    try:
        return hashlib.sha256(rfc8785.dumps(content)).hexdigest()  # type: ignore[arg-type]
    except rfc8785.CanonicalizationError as error:
        raise InvalidInput(f"metadata: {error}") from None


def _whole(made: _Made) -> Whole:
    metadata = {**made.parsed.metadata, **made.source.metadata}
    return Whole(made.parsed.title, made.parsed.text, msgspec.json.encode(metadata, enc_hook=str))
