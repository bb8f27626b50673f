"""Snapshots of a base: immutable sets of versions, made one after the other; each becomes visible at once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import rfc8785

from proveout.domain import Scope
from proveout.errors import Conflict, NotFound
from proveout.retrieval import segments
from proveout.store.events import Kind, note
from proveout.store.pool import Row, Session, as_json

Origin = Literal["push", "folder"]
"""What a base is filled from: pushes, or an app's folder."""


@dataclass(frozen=True, slots=True)
class Member:
    """A version in a snapshot."""

    version: int
    digest: str
    chunks: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a commit made. `problems`: documents left out, each with `document` and `message`."""

    digest: str
    documents: int
    chunks: int
    problems: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What a commit changes: documents put, documents gone. `exact`: the snapshot holds what is put, and no more."""

    origin: Origin
    put: Mapping[str, Member]
    gone: Collection[str] = ()
    exact: bool = False
    problems: Sequence[Mapping[str, str]] = ()


async def begin(session: Session, scope: Scope, knowledge: str, origin: Origin) -> None:
    """Registers a base at its first use. Raises Conflict when it is filled from elsewhere."""
    await session.run("knowledge.ensure", workspace=scope.workspace, name=knowledge, origin=origin)
    await _lock(session, scope, knowledge, origin)


async def commit(session: Session, scope: Scope, knowledge: str, pipeline: str, change: Change) -> Snapshot:
    """Makes the next snapshot, or finds that nothing changes, and lets it be searched when the transaction ends.

    Raises Conflict when the base is filled from elsewhere.
    """
    where = {"workspace": scope.workspace, "knowledge": knowledge}
    base = await _lock(session, scope, knowledge, change.origin)
    newest = await _members(session, scope, knowledge, base["serial"])
    current = newest if base["current"] in (base["serial"], None) else None
    if current is None:  # rolled back: what is searched is not what was made last
        current = await _members(session, scope, knowledge, base["current"])
    kept = {} if change.exact else {d: m for d, m in current.items() if d not in change.gone}
    target = kept | dict(change.put)
    digest = _digest({document: member.digest for document, member in target.items()}, pipeline)
    chunks = sum(member.chunks for member in target.values())
    snapshot = Snapshot(digest, len(target), chunks, tuple(change.problems))
    if digest == base["snapshot"] and target == current:
        return snapshot
    serial = base["serial"] + 1
    before, after = ({m.version for m in members.values()} for members in (newest, target))
    await session.run("members.end", **where, serial=serial, versions=sorted(before - after))
    await session.run("members.add", **where, serial=serial, versions=sorted(after - before))
    await session.run(
        "snapshots.put",
        **where,
        digest=digest,
        serial=serial,
        pipeline=pipeline,
        documents=len(target),
        chunks=chunks,
        problems=as_json(change.problems),
    )
    await session.run("knowledge.point", **where, snapshot=digest, serial=serial)
    await segments.merge(session, scope.workspace, knowledge)
    about = {"knowledge": knowledge, "snapshot": digest, "documents": len(target)}
    counts = {"put": len(after - before), "gone": len(before - after)}
    await note(session, scope.workspace, Kind.SNAPSHOT_PUBLISHED, scope.principal, {**about, **counts})
    return snapshot


async def find(session: Session, scope: Scope, knowledge: str, snapshot: str | None) -> Row:
    """`digest`, `serial`, `documents`, `chunks` of a snapshot; None: the one that is searched. Raises NotFound."""
    row = await session.row("snapshots.find", workspace=scope.workspace, knowledge=knowledge, snapshot=snapshot)
    if row is None:
        raise NotFound(f"The knowledge {knowledge} has no such snapshot." if snapshot else no_base(knowledge).message)
    return row


def no_base(knowledge: str) -> NotFound:
    return NotFound(f"There is no knowledge {knowledge!r}.")


async def _lock(session: Session, scope: Scope, knowledge: str, origin: Origin) -> Row:
    base = await session.row("knowledge.lock", workspace=scope.workspace, knowledge=knowledge)
    if base is None:
        raise no_base(knowledge)
    if base["origin"] != origin:
        filled = {"push": "by pushes", "folder": "from an app's folder"}[base["origin"]]
        raise Conflict(f"The knowledge {knowledge} is filled {filled}: use another name.")
    return base


async def _members(session: Session, scope: Scope, knowledge: str, serial: int) -> dict[str, Member]:
    rows = await session.fetch("members.at", workspace=scope.workspace, knowledge=knowledge, serial=serial)
    return {row["document"]: Member(row["id"], row["digest"], row["chunks"]) for row in rows}


def _digest(documents: Mapping[str, str], pipeline: str) -> str:
    """Content and settings alone: ids and digests of the documents, and the pipeline."""
    return "sha256:" + hashlib.sha256(rfc8785.dumps({"documents": dict(documents), "pipeline": pipeline})).hexdigest()
