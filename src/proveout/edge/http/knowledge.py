"""Knowledge, `/api/v1/knowledge`: documents pushed and read, search, sync, snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field

from proveout.access import keys
from proveout.domain import EVERYONE, KNOWLEDGE_NAME, KnowledgeUse, Principal, Right, Scope, SearchMode
from proveout.edge.http.bundles import finished, keep_bundle, keep_folder
from proveout.edge.http.requests import gateway, principal, read_body, read_json
from proveout.edge.wiring import PUSH, ROLLBACK, SYNC
from proveout.errors import InvalidInput, NotFound, TooLarge
from proveout.releases.bundle import read_folder
from proveout.releases.manifest import read_app
from proveout.retrieval import uploads
from proveout.retrieval.parse import MAX_BYTES
from proveout.retrieval.readers import check_readers
from proveout.retrieval.sealed import owner as owner_of
from proveout.retrieval.sealed import unseal_whole
from proveout.retrieval.snapshots import find, no_base

MAX_PUSH = 1 << 30  # bytes of one body with JSON lines
_SUFFIXES = {
    "text/markdown": ".md",
    "text/html": ".html",
    "text/plain": ".txt",
    "application/pdf": ".pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/octet-stream": "",
    "": "",
}

router = APIRouter(prefix="/api/v1/knowledge")
Caller = Annotated[Principal, Depends(principal)]
Base = Annotated[str, InPath(pattern=KNOWLEDGE_NAME)]
Id = Annotated[str, InPath(max_length=uploads.MAX_ID, description="Percent-encoded; `/` may stay.")]


class Search(BaseModel):
    """`as`: search as somebody else would: marks as in `readers`; a user's mark brings the groups of the user's key."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, max_length=8_000)
    k: int = Field(6, ge=1, le=100)
    mode: SearchMode = "hybrid"
    as_: str | list[str] | None = Field(None, alias="as")
    snapshot: str | None = None


class Rollback(BaseModel):
    model_config = ConfigDict(extra="forbid")

    snapshot: str = Field(min_length=1, max_length=200)


# -- search ---------------------------------------------------------------------------------------


@router.post("/{kb}/search")
async def search(request: Request, caller: Caller, kb: Base, body: Search) -> dict[str, Any]:
    """The passages of the newest snapshot (or the one named) that the caller may read, best first.

    A base that the caller sees nothing of and one that does not exist give the same answer to those who only search.
    """
    keys.require(caller, Right.KNOWLEDGE_SEARCH)
    scope = caller.scope if body.as_ is None else _as(request, caller, body.as_)
    use = KnowledgeUse(kb, body.snapshot or "", body.k, body.mode, min_score=0.0)
    try:
        found = await gateway(request).rooms.searcher.search(scope, use, body.query)
    except NotFound:
        if _manages(caller):
            raise
        found = []
    return {"results": [msgspec.to_builtins(passage) for passage in found]}


def _as(request: Request, caller: Principal, given: str | list[str]) -> Scope:
    """The scope of somebody else. Whoever sets readers may look with their eyes; others only with fewer marks."""
    marks = set(check_readers(given))
    if Right.KNOWLEDGE_WRITE not in caller.rights:
        if not marks <= set(caller.scope.readers):
            raise NotFound("There is no such reader, or your key does not grant it (as).")
        return _scope(caller.key.workspace, marks)
    for key in gateway(request).directory().keys.values():
        if key.workspace == caller.key.workspace and f"user:{key.name}" in marks:
            marks |= {f"group:{group}" for group in key.groups}
    return _scope(caller.key.workspace, marks)


def _scope(workspace: str, marks: set[str]) -> Scope:
    users = [mark.removeprefix("user:") for mark in marks if mark.startswith("user:")]
    if len(users) > 1:
        raise InvalidInput("as: one user at a time can be looked with the eyes of.")
    nobody = " "  # no mark can name this user
    groups = frozenset(m.removeprefix("group:") for m in marks - {EVERYONE} if m.startswith("group:"))
    return Scope(workspace, users[0] if users else nobody, groups)


def _manages(caller: Principal) -> bool:
    return bool(caller.rights & {Right.KNOWLEDGE_WRITE, Right.RELEASES_READ})


# -- documents ------------------------------------------------------------------------------------


@router.put("/{kb}/documents/{document:path}")
async def put_document(
    request: Request,
    response: Response,
    caller: Caller,
    kb: Base,
    document: Id,
    title: Annotated[str, Query(max_length=1_000)] = "",
    readers: Annotated[list[str], Query()] = [],  # noqa: B006 (FastAPI copies it)
) -> dict[str, Any]:
    """Puts a document: `{"title"?, "text", "metadata"?, "readers"?}`, or a file's bytes with its content-type.

    Of a file, `title` and `readers` stand in the query. The first document makes the base. Answers once the document
    is searchable, 201 when it is new, else 200; readers that are not given are nobody.
    """
    keys.require(caller, Right.KNOWLEDGE_WRITE)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        given = await read_json(request, uploads.Document, MAX_BYTES)
        if given.id not in (None, document):
            raise InvalidInput("id: the body names another document than the path.")
        row = uploads.text_row(document, given)
    elif kind in _SUFFIXES:
        data = await read_body(request, MAX_BYTES)
        row = uploads.file_row(document, data, _SUFFIXES[kind], readers, title)
    else:
        raise InvalidInput(f"content-type: {kind} is not read; send application/json or {', '.join(_SUFFIXES)[:-2]}.")
    made = await _push(request, caller, kb, [row])
    response.status_code = 201 if made["created"] else 200
    return {"document": document, "snapshot": made["snapshot"]}


@router.get("/{kb}/documents/{document:path}")
async def get_document(request: Request, caller: Caller, kb: Base, document: Id) -> dict[str, Any]:
    """A document that the caller may read, as it is searched now: its title, text and metadata.

    Who else may read it is told to those who may say so.
    """
    keys.require(caller, Right.KNOWLEDGE_SEARCH)
    here, workspace = gateway(request), caller.key.workspace
    absent = NotFound(f"There is no document {document!r} in {kb}, or your key does not grant it.")
    async with here.store.within(caller.scope) as session:
        try:
            serial = (await find(session, caller.scope, kb, None))["serial"]
        except NotFound:
            raise absent from None
        row = await session.row("versions.get", workspace=workspace, knowledge=kb, document=document, serial=serial)
        if row is None:
            raise absent
        key = await here.keyring.unwrap(session, workspace, "document", owner_of(kb, document), row["wrapped"])
    whole = unseal_whole(key, row["sealed"])
    found = {"document": document, "title": whole.title, "text": whole.text, "metadata": msgspec.Raw(whole.metadata)}
    told: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    return told | ({"readers": row["readers"]} if Right.KNOWLEDGE_WRITE in caller.rights else {})


@router.delete("/{kb}/documents/{document:path}", status_code=204)
async def delete_document(request: Request, caller: Caller, kb: Base, document: Id) -> Response:
    """Destroys a document: its text, and its place in every snapshot. Answers once no search finds it."""
    keys.require(caller, Right.KNOWLEDGE_WRITE)
    async with gateway(request).store.within(caller.scope) as session:
        await find(session, caller.scope, kb, None)
    if not (await _push(request, caller, kb, [uploads.deletion(document)]))["deleted"]:
        raise NotFound(f"There is no document {document!r} in {kb}.")
    return Response(status_code=204)


@router.post("/{kb}/documents")
async def push_documents(request: Request, response: Response, caller: Caller, kb: Base) -> dict[str, Any]:
    """Puts many documents: JSON lines of `{"id", "title"?, "text", "metadata"?, "readers"?}`, at most 1 GiB.

    All become visible at once, as one snapshot, and the answer comes when they are searchable. A line that is wrong
    refuses them all, and is named. With `Prefer: respond-async`: 202 and the id of the job.
    """
    keys.require(caller, Right.KNOWLEDGE_WRITE)
    here = gateway(request)
    writer = uploads.Writer(here.store, here.keyring, caller.scope)
    kept = False
    try:
        decoder = msgspec.json.Decoder(uploads.Document)
        number = 0
        async for number, line in _lines(request):
            try:
                given = decoder.decode(line)
                await writer.put(uploads.text_row(given.id or "", given))
            except (msgspec.MsgspecError, UnicodeDecodeError, InvalidInput) as error:
                raise InvalidInput(f"line {number}: {error}; nothing was taken, mend it and send all again") from None
        if not writer.count:
            raise InvalidInput("The body holds no document: send one JSON object a line.")
        await writer.flush()
        kept = True
    finally:
        if not kept:
            await writer.forget()
    return await _run(request, response, caller, PUSH, writer.id, kb)


async def _push(request: Request, caller: Principal, kb: str, rows: list[uploads.Row]) -> dict[str, Any]:
    here = gateway(request)
    writer = uploads.Writer(here.store, here.keyring, caller.scope)
    for row in rows:
        await writer.put(row)
    await writer.flush()
    return await finished(request, caller, await here.jobs.enqueue(PUSH, caller.key.workspace, writer.id, kb))


async def _lines(request: Request) -> AsyncIterator[tuple[int, bytes]]:
    """The body's lines that are not blank, with their numbers from 1. Holds one line at a time, and what came with it.

    Raises TooLarge beyond 1 GiB, and for a line beyond 64 MiB.
    """
    held = bytearray()
    number = size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_PUSH:
            raise TooLarge(f"The body is longer than {MAX_PUSH >> 30} GiB: send it in parts.")
        pieces = chunk.split(b"\n")
        for piece in pieces[:-1]:
            number += 1
            line = bytes(held) + piece
            held.clear()
            if line.strip():
                yield number, line
        held += pieces[-1]
        if len(held) > 2 * MAX_BYTES:
            raise TooLarge(f"line {number + 1}: it is longer than {MAX_BYTES >> 19} MiB: split the document.")
    if held.strip():
        yield number + 1, bytes(held)


# -- bases and snapshots --------------------------------------------------------------------------


@router.get("")
async def list_bases(request: Request, caller: Caller) -> dict[str, Any]:
    """The bases of the workspace, each with the snapshot that is searched and what could not be read."""
    _require_manager(caller)
    async with gateway(request).store.within(caller.scope) as session:
        rows = await session.fetch("knowledge.list", workspace=caller.key.workspace)
    return {"knowledge": [dict(row) for row in rows]}


@router.post("/{kb}/sync")
async def sync(request: Request, response: Response, caller: Caller, kb: Base) -> dict[str, Any]:
    """Reads a base's folder anew: its newest snapshot holds exactly the folder's documents, and no release is made.

    The body is a bundle of the app's folder, or `{"path"}` on the server's own disk for the owner; without a body,
    the folder of an app that the server was started with. With `Prefer: respond-async`: 202 and the id of the job.
    """
    keys.require(caller, Right.KNOWLEDGE_WRITE)
    if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        folder = await asyncio.to_thread(_folder_of, gateway(request).settings.folders, kb)
        bundle = await keep_folder(request, caller, folder)
    else:
        bundle = await keep_bundle(request, caller)
    return await _run(request, response, caller, SYNC, bundle, kb)


def _folder_of(folders: tuple[Path, ...], kb: str) -> Path:
    for folder in folders:
        if any(p.name == kb and p.source is not None for p in read_app(read_folder(folder)).declared.knowledge):
            return folder
    raise NotFound(f"No app that this server was started with has a folder for {kb!r}: send the app's folder.")


@router.post("/{kb}/rollback")
async def rollback(request: Request, caller: Caller, kb: Base, body: Rollback) -> dict[str, Any]:
    """Lets an older snapshot be searched again. What is pushed next is added to that one."""
    keys.require(caller, Right.KNOWLEDGE_WRITE)
    job = await gateway(request).jobs.enqueue(ROLLBACK, caller.key.workspace, kb, body.snapshot)
    return await finished(request, caller, job)


@router.get("/{kb}/snapshots")
async def list_snapshots(request: Request, caller: Caller, kb: Base) -> dict[str, Any]:
    """The snapshots of a base, newest first, with the documents that could not be read."""
    _require_manager(caller)
    async with gateway(request).store.within(caller.scope) as session:
        rows = await session.fetch("snapshots.list", workspace=caller.key.workspace, knowledge=kb)
    if not rows:
        raise no_base(kb)
    return {"snapshots": [dict(row) for row in rows]}


@router.get("/{kb}/snapshots/{before}/diff/{after}")
async def diff_snapshots(request: Request, caller: Caller, kb: Base, before: str, after: str) -> dict[str, Any]:
    """The documents that one snapshot added, removed and changed against another, as far as the caller may read them.

    The others are counted as `unseen`.
    """
    _require_manager(caller)
    sides = []
    async with gateway(request).store.within(caller.scope) as session:
        for snapshot in (before, after):
            row = await session.row(
                "snapshots.documents", workspace=caller.key.workspace, knowledge=kb, snapshot=snapshot
            )
            if row is None:
                raise NotFound(f"The knowledge {kb} has no snapshot {snapshot}.")
            sides.append(row)
    had, has = (side["digests"] for side in sides)
    return {
        "before": before,
        "after": after,
        "added": sorted(has.keys() - had.keys()),
        "removed": sorted(had.keys() - has.keys()),
        "changed": sorted(d for d in had.keys() & has.keys() if had[d] != has[d]),
        "unseen": max(side["total"] - len(side["digests"]) for side in sides),
    }


def _require_manager(caller: Principal) -> None:
    """Counts and names tell of documents that one may not read: they are for those who push or release."""
    if not _manages(caller):
        keys.require(caller, Right.KNOWLEDGE_WRITE)


async def _run(
    request: Request, response: Response, caller: Principal, job: str, given: str, kb: str
) -> dict[str, Any]:
    number = await gateway(request).jobs.enqueue(job, caller.key.workspace, given, kb)
    if request.headers.get("prefer") == "respond-async":
        response.status_code = 202
        return {"job": number}
    return await finished(request, caller, number)
