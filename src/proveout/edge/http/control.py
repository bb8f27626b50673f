"""The control plane, `/api/v1`: keys, releases, promotions, knowledge, evaluations, requests."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from proveout.access import keys
from proveout.domain import STAGES, Principal, Release, Right, StageName
from proveout.edge.http import costs, guarding, knowledge, ledger, problems
from proveout.edge.http.bundles import finished, keep_bundle
from proveout.edge.http.requests import gateway, principal
from proveout.edge.wiring import CREATE_RELEASE, EVALUATE
from proveout.errors import InvalidInput, NotFound, ProveoutError
from proveout.evals.golden import read_golden
from proveout.ledger.journal import Ending
from proveout.releases.diff import diff, read_documents
from proveout.releases.promote import promote
from proveout.store.sealing import seal, unseal

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


class Promotion(Body):
    release: int
    stage: StageName


class NewEvaluation(Body):
    dataset: str | None = None


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


# -- releases -------------------------------------------------------------------------------------


@router.post("/apps/{app}/releases", status_code=201)
async def create_release(request: Request, response: Response, caller: Caller, app: str) -> dict[str, Any]:
    """Makes a release of a bundle (a zip of the app's folder), or of `{"path"}` on the server's own disk.

    Answers once its knowledge is searchable: 201 for a new release, 200 when the same one exists.
    With `Prefer: respond-async`: 202 and the id of the job.
    """
    keys.require(caller, Right.RELEASES_CREATE)
    here = gateway(request)
    bundle = await keep_bundle(request, caller)
    job = await here.jobs.enqueue(CREATE_RELEASE, caller.key.workspace, bundle, app)
    if request.headers.get("prefer") == "respond-async":
        response.status_code = 202
        return {"job": job}
    made = await finished(request, caller, job)
    await here.directory.refresh()
    response.status_code = 201 if made["created"] else 200
    return made


@router.get("/apps")
async def list_apps(request: Request, caller: Caller) -> dict[str, Any]:
    """The apps that the caller may ask, with the release that each stage serves."""
    apps: dict[str, dict[str, int]] = {}
    for route in gateway(request).directory().routes.values():
        if route.workspace == caller.key.workspace and caller.may_ask(route.app):
            apps.setdefault(route.app, {})[route.stage] = route.stable
    return {"apps": [{"app": app, "stages": stages} for app, stages in sorted(apps.items())]}


@router.get("/apps/{app}/releases")
async def list_releases(request: Request, caller: Caller, app: str) -> dict[str, Any]:
    """The releases of an app, newest first."""
    keys.require(caller, Right.RELEASES_READ)
    directory = gateway(request).directory()
    mine = [r for (w, a, _), r in directory.releases.items() if (w, a) == (caller.key.workspace, app)]
    if not mine:
        raise NotFound(f"There is no app {app!r}.")
    mine.sort(key=lambda release: -release.number)
    return {"releases": [_listed(request, release) for release in mine]}


@router.get("/apps/{app}/releases/{number}")
async def show_release(request: Request, caller: Caller, app: str, number: int) -> dict[str, Any]:
    """One release whole: its resolved manifest and its facts."""
    keys.require(caller, Right.RELEASES_READ)
    release = _release(request, caller, app, number)
    manifest = msgspec.to_builtins(release.manifest)
    return {**_listed(request, release), "app": app, "manifest": manifest, "facts": release.facts}


@router.get("/apps/{app}/releases/{number}/facts")
async def list_facts(request: Request, caller: Caller, app: str, number: int) -> dict[str, Any]:
    """Every version of a release's facts, newest first: purpose, owners, risks, … which do not decide answers."""
    keys.require(caller, Right.RELEASES_READ)
    release = _release(request, caller, app, number)
    async with gateway(request).store.within(caller.scope) as session:
        rows = await session.fetch("facts.list", workspace=release.workspace, app=app, number=number)
    return {"facts": [dict(row) for row in rows]}


@router.get("/apps/{app}/releases/{number}/diff/{other}")
async def diff_releases(request: Request, caller: Caller, app: str, number: int, other: int) -> dict[str, Any]:
    """What changed from release `number` to release `other`: settings, prompts, documents and facts.

    Documents are named as far as the caller may read them; the others are counted as `unseen`.
    """
    keys.require(caller, Right.RELEASES_READ)
    before, after = _release(request, caller, app, number), _release(request, caller, app, other)
    documents = await read_documents(gateway(request).store, caller.scope, before, after)
    sides = {"before": before, "after": after}
    named = {side: {"number": r.number, "digest": r.digest} for side, r in sides.items()}
    return {"app": app, **named, **msgspec.to_builtins(diff(before, after, documents))}


@router.post("/apps/{app}/promotions")
async def create_promotion(request: Request, caller: Caller, app: str, body: Promotion) -> dict[str, Any]:
    """Makes a release the stable one of a stage. `poc` is the stage without a gate."""
    keys.require(caller, Right.RELEASES_PROMOTE)
    here = gateway(request)
    release = _release(request, caller, app, body.release)
    await promote(here.store, caller, release, body.stage)
    await here.directory.refresh()
    return {"app": app, "stage": body.stage, "release": body.release}


def _release(request: Request, caller: Principal, app: str, number: int) -> Release:
    release = gateway(request).directory().releases.get((caller.key.workspace, app, number))
    if release is None:
        raise NotFound(f"There is no release {app}@{number}.")
    return release


def _listed(request: Request, release: Release) -> dict[str, Any]:
    routes = gateway(request).directory().routes
    stages = [
        stage
        for stage in STAGES
        if (route := routes.get((release.workspace, release.app, stage))) and route.stable == release.number
    ]
    created: datetime = release.created
    return {"number": release.number, "digest": release.digest, "created": created, "stages": stages}


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


# -- evaluations and requests ---------------------------------------------------------------------


@router.post("/apps/{app}/releases/{number}/evaluations", status_code=202)
async def create_evaluation(
    request: Request, caller: Caller, app: str, number: int, body: NewEvaluation
) -> dict[str, str]:
    """Asks a release its golden questions, or those of `dataset` (JSON lines), as a job."""
    keys.require(caller, Right.EVALUATIONS_RUN)
    here = gateway(request)
    release = _release(request, caller, app, number)
    async with here.store.within(caller.scope) as session:
        key = await here.keyring.workspace(session, release.workspace)
        row = await session.row("releases.golden", workspace=release.workspace, app=app, number=number)
    golden = unseal(key, row["golden"], "golden").decode() if row and row["golden"] else ""
    dataset = golden if body.dataset is None else body.dataset
    if not read_golden(dataset, "dataset"):
        raise InvalidInput(f"{release.label} came without golden questions: set evals.golden, or give a data set.")
    evaluation = f"evaluation_{secrets.token_hex(8)}"
    async with here.store.within(caller.scope) as session:
        await session.run(
            "evaluations.insert",
            id=evaluation,
            workspace=release.workspace,
            app=app,
            release=number,
            key=caller.key.id,
            dataset=seal(key, dataset.encode(), "dataset"),
        )
    return {"evaluation": evaluation, "job": await here.jobs.enqueue(EVALUATE, release.workspace, evaluation)}


@router.get("/evaluations/{evaluation}")
async def show_evaluation(request: Request, caller: Caller, evaluation: str) -> dict[str, Any]:
    """The summary of an evaluation and every scored answer."""
    keys.require(caller, Right.EVALUATIONS_RUN)
    here = gateway(request)
    async with here.store.within(caller.scope) as session:
        sealing = await here.keyring.workspace(session, caller.key.workspace)
        row = await session.row("evaluations.get", evaluation=evaluation)
        cases = await session.fetch("evaluations.cases", evaluation=evaluation)
    if row is None:
        raise NotFound(f"There is no evaluation {evaluation}.")
    kept = {key: row[key] for key in ("id", "app", "release", "summary", "created")}
    return {**kept, "cases": [msgspec.json.decode(unseal(sealing, case["result"], "case")) for case in cases]}


@router.get("/requests")
async def list_requests(
    request: Request,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    app: str | None = None,
    outcome: Ending | None = None,
    before: datetime | None = None,
) -> dict[str, Any]:
    """The newest requests of the workspace; those without an end are `open`. `before`: begun before this time."""
    keys.require(caller, Right.REQUESTS_READ)
    journal = gateway(request).rooms.journal
    return {"requests": await journal.newest(caller.scope, limit, app=app, outcome=outcome, before=before)}


@router.get("/requests/{number}")
async def show_request(request: Request, caller: Caller, number: str) -> dict[str, Any]:
    """One request: its intent, and its completion once it has ended."""
    keys.require(caller, Right.REQUESTS_READ)
    return dict(await gateway(request).rooms.journal.get(caller.scope, number))


# -- the app --------------------------------------------------------------------------------------


def control() -> FastAPI:
    """The control plane as an ASGI app; its description is served by `routes.py` at /openapi.json."""
    app = FastAPI(title="Proveout", version="1", openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(router)
    app.include_router(costs.router)
    app.include_router(guarding.router)
    app.include_router(knowledge.router)
    app.include_router(ledger.router)
    app.add_exception_handler(ProveoutError, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, problems.no_route)
    app.add_exception_handler(Exception, problems.unexpected)
    return app


async def _failed(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProveoutError)
    return problems.response(error)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    said = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()]
    return problems.response(InvalidInput("; ".join(said)))
