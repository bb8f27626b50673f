"""How a base is filled: from an app's folder, or by pushes. Each time, one snapshot becomes visible at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from proveout.errors import InvalidInput, ProveoutError, Unavailable
from proveout.jobs.runtime import Result, Steps
from proveout.retrieval import uploads
from proveout.retrieval.reader import Reader
from proveout.retrieval.readers import Rules, by_rules
from proveout.retrieval.sealed import owner
from proveout.retrieval.search import EXACT
from proveout.retrieval.snapshots import Change, Member, Origin, Snapshot, begin, commit, find
from proveout.retrieval.versions import Source, Versions, digest
from proveout.store.events import Kind, note
from proveout.store.pool import Store
from proveout.store.sealing import Keyring

_DOCUMENTS_PER_STEP = 512
_ATTEMPTS = 3


class Ingester:
    """Fills bases, as steps of jobs."""

    def __init__(self, store: Store, keyring: Keyring, versions: Versions) -> None:
        self._store = store
        self._keyring = keyring
        self._versions = versions

    async def folder(self, steps: Steps, knowledge: str, files: Mapping[str, bytes], rules: Rules) -> Snapshot:
        """A snapshot of exactly these documents, searchable when this returns. `rules`: who may read which paths."""
        await steps.run(f"begin {knowledge}", self._begin, steps, knowledge, "folder")
        sources = {name: _file(name, data, by_rules(rules, name)) for name, data in sorted(files.items())}
        problems: list[dict[str, str]] = []
        reader = Reader()
        try:
            names = list(sources)
            for at in range(0, len(names), _DOCUMENTS_PER_STEP):
                part = [sources[name] for name in names[at : at + _DOCUMENTS_PER_STEP]]
                problems += await steps.run(
                    f"read {knowledge}", self._versions.make, steps.scope, knowledge, reader, part
                )
                await steps.progress(at + len(part), len(names), f"reading {knowledge}")
        finally:
            reader.close()
        digests = {name: source.digest for name, source in sources.items()}
        for problem in problems:
            digests.pop(problem["document"])
        if not digests:
            raise InvalidInput(f"knowledge {knowledge}: none of its documents can be read: {problems[0]['message']}")
        made = await steps.run(f"commit {knowledge}", self._commit_folder, steps, knowledge, digests, problems)
        await self._index_vectors(steps, knowledge, made["chunks"])
        return Snapshot(made["digest"], made["documents"], made["chunks"], tuple(problems))

    async def push(self, steps: Steps, upload: str, knowledge: str) -> Result:
        """The job `push`: what an upload holds becomes one snapshot, `{snapshot, documents, created, deleted}`.

        `documents`: how many were put; `created`: how many of them were new; `deleted`: how many went.
        """
        try:
            made = await self._push(steps, upload, knowledge)
        except ProveoutError:  # not for a worker that is stopped: the next one goes on with the upload
            await steps.run("forget the upload", uploads.forget, self._store, steps.scope, upload)
            raise
        await steps.run("forget the upload", uploads.forget, self._store, steps.scope, upload)
        return made

    async def _push(self, steps: Steps, upload: str, knowledge: str) -> dict[str, Any]:
        await steps.run("begin", self._begin, steps, knowledge, "push")
        for _ in range(_ATTEMPTS):
            await self._make(steps, upload, knowledge)
            made = await steps.run("commit", self._commit_push, steps, upload, knowledge)
            if made is not None:
                await self._index_vectors(steps, knowledge, made.pop("chunks"))
                return made
        raise Unavailable("The documents were deleted again and again while they were pushed; try again.")

    async def rollback(self, steps: Steps, knowledge: str, snapshot: str) -> Result:
        """The job `rollback`: an older snapshot is searched again, `{snapshot, documents}`. Raises NotFound."""
        return await steps.run("rollback", self._rollback, steps, knowledge, snapshot)

    async def _rollback(self, steps: Steps, knowledge: str, snapshot: str) -> dict[str, Any]:
        where = {"workspace": steps.scope.workspace, "knowledge": knowledge}
        async with self._store.within(steps.scope) as session:
            found = await find(session, steps.scope, knowledge, snapshot)
            await session.run("knowledge.point", **where, snapshot=snapshot, serial=found["serial"])
            about = {"knowledge": knowledge, "snapshot": snapshot, "documents": found["documents"]}
            await note(session, steps.scope.workspace, Kind.SNAPSHOT_CHOSEN, steps.scope.principal, about)
        return {"snapshot": snapshot, "documents": found["documents"]}

    async def _begin(self, steps: Steps, knowledge: str, origin: Origin) -> None:
        async with self._store.within(steps.scope) as session:
            await begin(session, steps.scope, knowledge, origin)

    async def _make(self, steps: Steps, upload: str, knowledge: str) -> None:
        async with self._store.within(steps.scope) as session:
            rows = await session.fetch("uploads.list", id=upload)
        if not rows:
            raise Unavailable("The upload is gone; send it again.")
        sizes = [(row["document"], row["size"]) for row in rows if not row["deleted"]]
        reader = Reader()
        try:
            for at in range(0, len(sizes), _DOCUMENTS_PER_STEP):
                part = sizes[at : at + _DOCUMENTS_PER_STEP]
                problems = await steps.run("read", self._make_some, steps, upload, knowledge, reader, part)
                if problems:
                    raise InvalidInput(problems[0]["message"])
                await steps.progress(at + len(part), len(sizes), f"reading {knowledge}")
        finally:
            reader.close()

    async def _make_some(
        self, steps: Steps, upload: str, knowledge: str, reader: Reader, sizes: Sequence[tuple[str, int]]
    ) -> list[dict[str, str]]:
        problems = []
        async for sources in uploads.read(self._store, self._keyring, steps.scope, upload, sizes):
            problems += await self._versions.make(steps.scope, knowledge, reader, sources)
        return problems

    async def _commit_folder(
        self, steps: Steps, knowledge: str, digests: Mapping[str, str], problems: Sequence[Mapping[str, str]]
    ) -> dict[str, Any]:
        async with self._store.within(steps.scope) as session:
            put = await self._versions.known_within(session, steps.scope, knowledge, digests)
            change = Change("folder", put, exact=True, problems=problems)
            made = await commit(session, steps.scope, knowledge, self._versions.pipeline, change)
        return {"digest": made.digest, "documents": made.documents, "chunks": made.chunks}

    async def _commit_push(self, steps: Steps, upload: str, knowledge: str) -> dict[str, Any] | None:
        """None when a version was deleted since it was made: then it is to be made again."""
        where = {"workspace": steps.scope.workspace, "knowledge": knowledge}
        async with self._store.within(steps.scope) as session:
            before = await session.row("knowledge.lock", **where)
            rows = await session.fetch("uploads.list", id=upload)
            digests = {row["document"]: row["digest"] for row in rows if not row["deleted"]}
            gone = [row["document"] for row in rows if row["deleted"]]
            put: dict[str, Member] = await self._versions.known_within(session, steps.scope, knowledge, digests)
            if before is None or len(put) < len(digests):
                return None
            old = await session.fetch("versions.members", **where, documents=[*put, *gone], serial=before["current"])
            there = {row["document"] for row in old}
            await session.run("versions.share", **where, upload=upload)
            made = await commit(session, steps.scope, knowledge, self._versions.pipeline, Change("push", put, gone))
            await session.run("versions.delete", **where, documents=gone)
            owners = [owner(knowledge, document) for document in gone]
            await session.run("sealing.destroy", workspace=where["workspace"], kind="document", owners=owners)
            if deleted := len(there.intersection(gone)):
                about = {"knowledge": knowledge, "documents": deleted}
                await note(session, steps.scope.workspace, Kind.DOCUMENT_DELETED, steps.scope.principal, about)
        return {
            "snapshot": made.digest,
            "chunks": made.chunks,
            "documents": len(put),
            "created": len(put.keys() - there),
            "deleted": deleted,
        }

    async def _index_vectors(self, steps: Steps, knowledge: str, chunks: int) -> None:
        if chunks > EXACT:  # else nobody would use it
            await steps.run("index vectors", self._index, steps, knowledge)

    async def _index(self, steps: Steps, knowledge: str) -> None:
        async with self._store.within(steps.scope) as session:
            where = {"workspace": steps.scope.workspace, "knowledge": knowledge}
            for row in await session.fetch("vectors.dimensions", **where):
                await session.run("vectors.index", **where, dimensions=row["dimensions"])


def _file(name: str, data: bytes, readers: tuple[str, ...]) -> Source:
    """Of a folder: who may read a document is a part of its version, for a release holds it."""
    return Source(
        document=name,
        digest=digest(source=hashlib.sha256(data).hexdigest(), readers=list(readers)),
        body=data,
        name=name,
        readers=readers,
    )
