"""The log for auditors: static files as C2SP tlog-tiles names them, and the receipts of requests."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, PlainTextResponse

from proveout.access.keys import require
from proveout.domain import Principal, Right, Scope
from proveout.edge.http import problems
from proveout.edge.http.bundles import finished
from proveout.edge.http.requests import gateway, principal
from proveout.edge.wiring import ERASE
from proveout.errors import NotFound, ProveoutError
from proveout.ledger.erase import pseudonyms
from proveout.ledger.log import Filter
from proveout.ledger.verify import ENTRIES, WIDTH, TileId

router = APIRouter(prefix="/api/v1")
Caller = Annotated[Principal, Depends(principal)]

_TILE = re.compile(r"tile/(?P<level>entries|\d|[1-5]\d)/(?P<n>(?:x\d{3}/)*\d{3})(?:\.p/(?P<width>[1-9]\d{0,2}))?")
_FOREVER = "public, max-age=31536000, immutable"


async def ledger(request: Request) -> Response:
    """`GET /ledger/{workspace}/…`: `checkpoint`, the newest `witnessed` one, `key`, and the log's tiles."""
    try:
        scope = _auditor(request)
        return await _file(request, scope, request.path_params["path"])
    except ProveoutError as error:
        return problems.response(error)


async def _file(request: Request, scope: Scope, path: str) -> Response:
    log = gateway(request).log
    if path in ("checkpoint", "witnessed"):
        note = await (log.checkpoint(scope) if path == "checkpoint" else log.witnessed(scope))
        return Response(note, media_type="text/plain; charset=utf-8", headers={"cache-control": "no-cache"})
    if path == "key":
        return PlainTextResponse(await log.key(scope) + "\n")
    tile = _tile(path)
    headers = {"cache-control": _FOREVER}  # what a tile held once, it holds for good
    return Response(await log.tile(scope, tile), media_type="application/octet-stream", headers=headers)


def _auditor(request: Request) -> Scope:
    """Who reads: anyone where the log is public, else a key of the workspace that may read requests."""
    workspace = request.path_params["workspace"]
    if gateway(request).settings.ledger.public:
        return Scope(workspace, "anyone")
    caller = principal(request)
    require(caller, Right.REQUESTS_READ)
    if caller.key.workspace != workspace:
        raise NotFound(f"There is no log of {workspace}.")
    return caller.scope


def _tile(path: str) -> TileId:
    found = _TILE.fullmatch(path)
    if found is None:
        raise NotFound(
            "A log consists of `checkpoint`, `witnessed`, `key` and `tile/LEVEL/N[.p/WIDTH]` (c2sp.org/tlog-tiles)."
        )
    level = ENTRIES if found["level"] == "entries" else int(found["level"])
    n = int(found["n"].replace("x", "").replace("/", ""))
    tile = TileId(level, n, int(found["width"] or WIDTH))
    if tile.path != path or n >= 2**54:
        raise NotFound(f"No tile is called {path}.")
    return tile


class Which(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: str | None = None
    request: str | None = None
    subject: str | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    before: int | None = None
    limit: int = Field(100, ge=1, le=1000)


@router.get("/requests/{number}/receipt")
async def show_receipt(request: Request, caller: Annotated[Principal, Depends(principal)], number: str) -> Response:
    """The receipt of a request, c2sp.org/tlog-proof@v1: it verifies offline, with the log's key alone.

    With `Accept: application/json`: also the key, and what the log's entry commits to (null once erased).
    """
    require(caller, Right.REQUESTS_READ)
    log = gateway(request).log
    proof = await log.proof(caller.scope, number)
    if "application/json" not in request.headers.get("accept", ""):
        return Response(proof.receipt, media_type="text/plain; charset=utf-8")
    shown: dict[str, Any] = {
        "request": number,
        "key": await log.key(caller.scope),
        "receipt": proof.receipt.decode(),
        "opening": None if proof.opening is None else proof.opening.decode(),
    }
    return JSONResponse(shown)


@router.get("/log")
async def show_log(request: Request, caller: Caller) -> dict[str, str]:
    """Where the workspace's log is, its origin, and the key that its checkpoints are signed with."""
    require(caller, Right.REQUESTS_READ)
    key = await gateway(request).log.key(caller.scope)
    workspace = caller.key.workspace
    return {"workspace": workspace, "path": f"/ledger/{workspace}", "origin": key.split("+")[0], "key": key}


@router.get("/log/events")
async def list_events(
    request: Request,
    caller: Caller,
    which: Annotated[Which, Query()],
) -> dict[str, Any]:
    """What happened, newest first; page on with `before`. `subject` is in clear, the answer has its pseudonym."""
    require(caller, Right.REQUESTS_READ)
    here = gateway(request)
    subjects = which.subject and await pseudonyms(here.store, here.keyring, caller.scope, which.subject)
    asked = Filter(which.kind, which.request, subjects or None, which.since, which.until, which.before)
    found = await here.log.events(caller.scope, asked, which.limit)
    return {"events": [{**row, "record": row["record"] and msgspec.json.decode(row["record"])} for row in found]}


class Erasure(BaseModel):
    model_config = ConfigDict(extra="forbid")

    subject: str = Field(min_length=1, max_length=1_000)


@router.post("/erasures")
async def erase(request: Request, caller: Caller, body: Erasure) -> dict[str, Any]:
    """Destroys what a subject asked and was answered: a `user` as clients named it, or the id of a key.

    Answers when nothing of it can be read any more; `not_purged` is what the database did not allow.
    """
    require(caller, Right.SUBJECTS_ERASE)
    here = gateway(request)
    workspace = caller.key.workspace
    subjects = await pseudonyms(here.store, here.keyring, caller.scope, body.subject)
    return await finished(request, caller, await here.jobs.enqueue(ERASE, workspace, caller.key.id, *subjects))
