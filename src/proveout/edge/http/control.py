"""The control plane, `/api/v1`: keys, releases, promotions, knowledge, evaluations, requests."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from proveout.access import keys
from proveout.domain import Principal, Right
from proveout.edge.http import (
    costs,
    datasets,
    drafts,
    evaluations,
    evidence,
    feedback,
    guarding,
    keeping,
    knowledge,
    ledger,
    notify,
    problems,
    records,
    releases,
    rollouts,
)
from proveout.edge.http.requests import gateway, principal
from proveout.errors import InvalidInput, NotFound, ProveoutError, Unauthenticated

router = APIRouter(prefix="/api/v1")
Caller = Annotated[Principal, Depends(principal)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewKey(Body):
    name: str = Field(min_length=1, max_length=200)
    role: str = "user"
    apps: list[str] | None = None
    models: list[str] = []
    groups: list[str] = []


# -- keys and logins ------------------------------------------------------------------------------


@router.post("/keys", status_code=201)
async def create_key(request: Request, caller: Caller, body: NewKey) -> dict[str, str]:
    """Makes a key. Its text is in this answer alone."""
    keys.require(caller, Right.KEYS_MANAGE)
    here = gateway(request)
    key, text = await keys.create_key(here.store, caller, body.name, body.role, body.groups, body.apps, body.models)
    await here.directory.refresh()
    return {"id": key.id, "key": text}


@router.get("/keys")
async def list_keys(request: Request, caller: Caller) -> dict[str, Any]:
    """The workspace's keys, newest first."""
    keys.require(caller, Right.KEYS_MANAGE)
    return {"keys": await keys.list_keys(gateway(request).store, caller.key.workspace)}


@router.delete("/keys/{key}", status_code=204)
async def revoke_key(request: Request, caller: Caller, key: str) -> Response:
    """Revokes a key; it is refused from now on."""
    keys.require(caller, Right.KEYS_MANAGE)
    here = gateway(request)
    await keys.revoke_key(here.store, caller, key)
    await here.directory.refresh()
    return Response(status_code=204)


@router.post("/logins", status_code=201)
async def create_login(request: Request, caller: Caller) -> dict[str, str]:
    """A one-time code that opens the console as the caller: `/login?code=…`."""
    return {"code": await keys.create_login(gateway(request).store, caller)}


# -- jobs -----------------------------------------------------------------------------------------


@router.get("/jobs/{job}")
async def show_job(request: Request, caller: Caller, job: str) -> dict[str, Any]:
    """How a job stands: waiting, running, done or failed."""
    keys.require(caller, Right.KNOWLEDGE_WRITE if Right.KNOWLEDGE_WRITE in caller.rights else Right.RELEASES_READ)
    here = gateway(request)
    state = await here.jobs.state(caller.key.workspace, job)
    if state.state == "done":
        await here.directory.refresh()
    return dict(msgspec.to_builtins(state))


# -- passages ------------------------------------------------------------------------------------


@router.get("/passages/{chunk}")
async def show_passage(request: Request, caller: Caller, chunk: int) -> dict[str, Any]:
    """A passage that the caller may read, as citations name it by `chunk`."""
    passages = await gateway(request).rooms.searcher.passages(caller.scope, {chunk: 0.0})
    if not passages:
        raise NotFound("There is no such passage.")
    return {**msgspec.to_builtins(passages[0]), "place": passages[0].place}


# -- the app --------------------------------------------------------------------------------------


def control() -> FastAPI:
    """The control plane as an ASGI app; its description is served by `routes.py` at /openapi.json."""
    app = FastAPI(title="Proveout", version="1", openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(router)
    app.include_router(costs.router)
    app.include_router(guarding.router)
    app.include_router(keeping.router)
    app.include_router(knowledge.router)
    app.include_router(ledger.router)
    app.include_router(notify.router)
    app.include_router(records.router)
    app.include_router(releases.router)
    app.include_router(rollouts.router)
    app.include_router(feedback.router)
    app.include_router(evidence.router)
    app.include_router(evaluations.router)
    app.include_router(datasets.router)
    app.include_router(drafts.router)
    app.add_middleware(Known)
    app.add_exception_handler(ProveoutError, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, problems.no_route)
    app.add_exception_handler(Exception, problems.unexpected)
    return app


class Known:
    """Lets in who shows a key: FastAPI reads a body before it looks at who sends it, a stranger's too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/api/"):
            try:
                principal(Request(scope))
            except Unauthenticated as error:
                await problems.response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProveoutError)
    return problems.response(error)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    said = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()]
    return problems.response(InvalidInput("; ".join(said)))
