"""From a folder's documents to an immutable snapshot: parse, chunk, embed, index.

A version that this pipeline has made already is used again, so a second run of the same folder is quick.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import rfc8785
from numpy.typing import NDArray

from proveout.domain import EVERYONE, Scope
from proveout.errors import InvalidInput
from proveout.jobs.runtime import Steps
from proveout.retrieval import chunk, postings
from proveout.retrieval.chunk import Chunk, index_text
from proveout.retrieval.cite import Embed
from proveout.retrieval.reader import Reader
from proveout.retrieval.sealed import Content, owner, seal_chunk, unseal_chunks
from proveout.store.pool import Session, Store, as_json, as_vector
from proveout.store.sealing import Keyring, seal

_DOCUMENTS_PER_STEP = 8


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an ingest made. `problems`: documents left out, each with `document` and `message`."""

    digest: str
    problems: tuple[dict[str, str], ...]


class Ingester:
    """Makes snapshots, as steps of a job."""

    def __init__(self, store: Store, keyring: Keyring, embed: Embed, embedder_digest: str) -> None:
        self._store = store
        self._keyring = keyring
        self._embed = embed
        settings = {"chunks": chunk.VERSION, "lexical": postings.VERSION, "embedder": embedder_digest}
        self._pipeline = hashlib.sha256(rfc8785.dumps(settings)).hexdigest()

    async def ingest(self, steps: Steps, knowledge: str, files: Mapping[str, bytes]) -> Snapshot:
        """A snapshot of exactly these documents, searchable when this returns."""
        digests = {document: hashlib.sha256(data).hexdigest() for document, data in sorted(files.items())}
        problems: list[dict[str, str]] = []
        reader = Reader()
        try:
            names = list(digests)
            for start in range(0, len(names), _DOCUMENTS_PER_STEP):
                group = {name: digests[name] for name in names[start : start + _DOCUMENTS_PER_STEP]}
                problems += await steps.run(
                    f"read {knowledge}", self._read, steps.scope, knowledge, reader, files, group
                )
                await steps.progress(start + len(group), len(names), f"reading {knowledge}")
        finally:
            reader.close()
        for problem in problems:
            digests.pop(problem["document"])
        if not digests:
            raise InvalidInput(f"knowledge {knowledge}: none of its documents can be read: {problems[0]['message']}")
        digest = self._digest(digests)
        await steps.run(f"index {knowledge}", self._index, steps.scope, knowledge, digest, digests, problems)
        return Snapshot(digest, tuple(problems))

    def _digest(self, documents: Mapping[str, str]) -> str:
        """Content and settings alone: ids and digests of the documents, and the pipeline."""
        content: dict[str, Any] = {"documents": dict(documents), "pipeline": self._pipeline}
        return "sha256:" + hashlib.sha256(rfc8785.dumps(content)).hexdigest()

    async def _read(
        self,
        scope: Scope,
        knowledge: str,
        reader: Reader,
        files: Mapping[str, bytes],
        digests: Mapping[str, str],
    ) -> list[dict[str, str]]:
        """Stores the versions that are not there yet; answers with the documents that cannot be read."""
        problems = []
        known = await self._known(scope, knowledge)
        for document, digest in digests.items():
            if (document, digest) in known:
                continue
            try:
                title, text, pieces = await reader.read(document, files[document])
            except InvalidInput as error:
                problems.append({"document": document, "message": error.message})
                continue
            vectors = await self._embed([index_text(title, p.headings, p.text) for p in pieces])
            async with self._store.within(scope) as session:
                key = await self._keyring.key(session, scope.workspace, "document", owner(knowledge, document))
                sealed = seal(key, msgspec.msgpack.encode((title, text)), "version")
                identity = {"workspace": scope.workspace, "knowledge": knowledge, "document": document}
                version = {**identity, "digest": digest, "pipeline": self._pipeline, "sealed": sealed}
                contents = [seal_chunk(key, Content(title, p.headings, p.text)) for p in pieces]
                await _insert(session, version, pieces, contents, vectors)
        return problems

    async def _known(self, scope: Scope, knowledge: str) -> dict[tuple[str, str], int]:
        async with self._store.within(scope) as session:
            rows = await session.fetch(
                "versions.known", workspace=scope.workspace, knowledge=knowledge, pipeline=self._pipeline
            )
        return {(row["document"], row["digest"]): row["id"] for row in rows}

    async def _index(
        self,
        scope: Scope,
        knowledge: str,
        digest: str,
        digests: Mapping[str, str],
        problems: Sequence[Mapping[str, str]],
    ) -> None:
        """Makes the snapshot and its lexical index visible at once, unless it stands already."""
        identity = {"workspace": scope.workspace, "knowledge": knowledge}
        known = await self._known(scope, knowledge)
        versions = [known[item] for item in digests.items()]
        async with self._store.within(scope) as session:
            if await session.row("snapshots.exists", **identity, digest=digest):
                return
            rows = await session.fetch("chunks.of_versions", versions=versions)
            secret = await session.row("workspaces.secret", workspace=scope.workspace)
            assert secret is not None
            contents = await unseal_chunks(session, self._keyring, scope.workspace, list(rows))
            texts = [index_text(c.title, c.headings, c.text) for c in contents]
            index = postings.build(texts, secret["secret"])
            await session.run(
                "snapshots.insert",
                **identity,
                digest=digest,
                pipeline=self._pipeline,
                versions=versions,
                chunks=[row["id"] for row in rows],
                lengths=index.lengths.tobytes(),
                problems=as_json(problems),
            )
            await session.run_many(
                "postings.insert",
                ({**identity, "snapshot": digest, "term": t, "packed": p} for t, p in index.rows.items()),
            )


async def _insert(
    session: Session,
    version: Mapping[str, Any],
    pieces: Sequence[Chunk],
    contents: Sequence[bytes],
    vectors: NDArray[np.float32],
) -> None:
    identity = {key: version[key] for key in ("workspace", "knowledge", "document")}
    await session.run(
        "documents.put",
        workspace=identity["workspace"],
        knowledge=identity["knowledge"],
        id=identity["document"],
        readers=[EVERYONE],
    )
    row = await session.row("versions.insert", **version)
    if row is None:
        return
    await session.run_many(
        "chunks.insert",
        (
            {
                **identity,
                "version": row["id"],
                "ordinal": piece.ordinal,
                "sealed": sealed,
                "start": piece.start,
                "end": piece.end,
                "page": piece.page,
                "embedding": as_vector(vector.tolist()),
            }
            for piece, sealed, vector in zip(pieces, contents, vectors, strict=True)
        ),
    )
