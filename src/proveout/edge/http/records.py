"""Requests as they are on record: search, one whole, asked again, and exported with the rest of the log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse

from proveout.access.keys import require
from proveout.domain import Principal, Right
from proveout.edge.http.requests import gateway, principal
from proveout.ledger.erase import pseudonyms
from proveout.ledger.export import LINES, Export
from proveout.ledger.journal import Ending, Filter
from proveout.serving.replay import replay

router = APIRouter(prefix="/api/v1")
Caller = Annotated[Principal, Depends(principal)]


class Which(BaseModel):
    """Which requests; `subject` in clear: a `user` as clients named it, or the id of a key."""

    model_config = ConfigDict(extra="forbid")

    app: str | None = None
    release: int | None = None
    outcome: Ending | None = None
    guard: str | None = None
    subject: str | None = Field(None, max_length=1_000)
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None

    async def filter(self, request: Request, caller: Principal) -> Filter:
        """The same, with pseudonyms in place of the subject."""
        here = gateway(request)
        subjects = self.subject and await pseudonyms(here.store, here.keyring, caller.scope, self.subject)
        return Filter(self.app, self.release, self.outcome, self.guard, subjects or None, self.since, self.until)


class Listed(Which):
    before: datetime | None = None
    limit: int = Field(50, ge=1, le=1000)


@router.get("/requests")
async def list_requests(request: Request, caller: Caller, which: Annotated[Listed, Query()]) -> dict[str, Any]:
    """The newest requests of the workspace; those without an end are `open`. `before`: begun before this time."""
    require(caller, Right.REQUESTS_READ)
    journal, asked = gateway(request).rooms.journal, await which.filter(request, caller)
    return {"requests": await journal.newest(caller.scope, which.limit, asked, before=which.before)}


@router.get("/requests/{number}")
async def show_request(request: Request, caller: Caller, number: str) -> dict[str, Any]:
    """One request: its intent, and its completion once it has ended, with what was decided on its way."""
    require(caller, Right.REQUESTS_READ)
    return dict(await gateway(request).rooms.journal.get(caller.scope, number))


@router.post("/requests/{number}/replays")
async def create_replay(request: Request, caller: Caller, number: str) -> dict[str, Any]:
    """Asks a request again, of the same release, with its seed and its sealed input, and says what differs.

    Its readers are those of then, as far as the caller could be one of them. 409 when the content is no more.
    """
    require(caller, Right.REQUESTS_REPLAY)
    return dict(msgspec.to_builtins(await replay(number, caller, gateway(request).rooms)))


class NewExport(Which):
    format: Literal["jsonl", "otel", "tiles"]


@router.post("/log/exports")
async def create_export(request: Request, caller: Caller, body: NewExport) -> Any:
    """What happened, one JSON document a line, oldest first; that it was exported is on record itself.

    `jsonl`: the log's records with their entries and what these commit to. `otel`: requests as OTLP spans. `tiles`:
    where the log's files are, to be fetched from there.
    """
    require(caller, Right.REQUESTS_READ)
    here = gateway(request)
    export = Export(here.store, here.keyring, caller.scope, await body.filter(request, caller))
    await export.note(caller.key.id, body.format)
    if body.format == "tiles":
        return {"path": f"/ledger/{caller.key.workspace}", "key": await here.log.key(caller.scope)}

    async def lines() -> AsyncIterator[bytes]:
        async for line in LINES[body.format](export):
            yield msgspec.json.encode(line) + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")
