"""The control plane's `/api/v1/apps`: releases and promotions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from proveout.access import keys
from proveout.domain import Principal, Release, Right, StageName
from proveout.edge.http.bundles import finished, keep_bundle
from proveout.edge.http.requests import gateway, principal
from proveout.edge.wiring import CREATE_RELEASE
from proveout.errors import NotFound
from proveout.releases.derive import Wanted, derive
from proveout.releases.diff import diff, read_documents

router = APIRouter(prefix="/api/v1")
Caller = Annotated[Principal, Depends(principal)]
_REFRESHES = 50


class Promotion(BaseModel):
    model_config = ConfigDict(extra="forbid")

    release: int
    stage: StageName
    break_glass: str = ""  # the reason for which it goes in without its evidence


class Derivation(BaseModel):
    """What is to differ from a release."""

    model_config = ConfigDict(extra="forbid")

    latest: bool = False  # the newest snapshots, and the models as they are now
    knowledge: dict[str, str] = Field(default_factory=dict)  # a snapshot's digest, or `latest`
    model: str = ""
    without: list[str] = Field(default_factory=list)  # `fallback`, `grounding`, `knowledge.NAME`


class Rollback(BaseModel):
    model_config = ConfigDict(extra="forbid")

    to: int | None = None


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
    return {"releases": [_listed(request, release) for release in releases_of(request, caller, app)]}


@router.get("/apps/{app}/releases/{number}")
async def show_release(request: Request, caller: Caller, app: str, number: int) -> dict[str, Any]:
    """One release whole: its resolved manifest and its facts."""
    keys.require(caller, Right.RELEASES_READ)
    release = find(request, caller, app, number)
    manifest = msgspec.to_builtins(release.manifest)
    return {**_listed(request, release), "app": app, "manifest": manifest, "facts": release.facts}


@router.post("/apps/{app}/releases/{number}/derivations", status_code=201)
async def derive_release(
    request: Request, response: Response, caller: Caller, app: str, number: int, body: Derivation
) -> dict[str, Any]:
    """Makes a release that differs from this one in what is named and in nothing else: 201, or 200 for one that exists.

    `latest` pins the newest snapshots and takes the models as they are now; `knowledge` a snapshot of each base that it
    names (its digest, or `latest`); `model` answers the calls that no condition catches; `without` switches off
    `fallback`, `grounding` or `knowledge.NAME`.
    """
    keys.require(caller, Right.RELEASES_CREATE)
    here, release = gateway(request), find(request, caller, app, number)
    wanted = Wanted(body.latest, body.knowledge, body.model, body.without)
    async with here.store.within(caller.scope) as session:
        made = await derive(
            session, caller.scope, release, wanted, here.rooms.catalogue, here.directory(), caller.key.id
        )
    await here.directory.refresh()
    response.status_code = 201 if made.created else 200
    return {"app": app, **msgspec.to_builtins(made)}


@router.get("/apps/{app}/refreshes")
async def list_refreshes(request: Request, caller: Caller, app: str) -> dict[str, Any]:
    """The newest snapshots that stages of an app were offered because they follow them, newest first, and what came of
    it."""
    keys.require(caller, Right.RELEASES_READ)
    releases_of(request, caller, app)
    async with gateway(request).store.within(caller.scope) as session:
        rows = await session.fetch("refreshes.list", workspace=caller.key.workspace, app=app, limit=_REFRESHES)
    return {"refreshes": [dict(row) for row in rows]}


@router.get("/apps/{app}/releases/{number}/facts")
async def list_facts(request: Request, caller: Caller, app: str, number: int) -> dict[str, Any]:
    """Every version of a release's facts, newest first: purpose, owners, risks, … which do not decide answers."""
    keys.require(caller, Right.RELEASES_READ)
    release = find(request, caller, app, number)
    async with gateway(request).store.within(caller.scope) as session:
        rows = await session.fetch("facts.list", workspace=release.workspace, app=app, number=number)
    return {"facts": [dict(row) for row in rows]}


@router.get("/apps/{app}/releases/{number}/diff/{other}")
async def diff_releases(request: Request, caller: Caller, app: str, number: int, other: int) -> dict[str, Any]:
    """What changed from release `number` to release `other`: settings, prompts, documents and facts.

    Documents are named as far as the caller may read them; the others are counted as `unseen`.
    """
    keys.require(caller, Right.RELEASES_READ)
    before, after = find(request, caller, app, number), find(request, caller, app, other)
    documents = await read_documents(gateway(request).store, caller.scope, before, after)
    sides = {"before": before, "after": after}
    named = {side: {"number": r.number, "digest": r.digest} for side, r in sides.items()}
    return {"app": app, **named, **msgspec.to_builtins(diff(before, after, documents))}


@router.post("/apps/{app}/promotions")
async def create_promotion(request: Request, caller: Caller, app: str, body: Promotion) -> dict[str, Any]:
    """Makes a release the stable one of a stage; 409 with what is `missing` where its gate is closed.

    `break_glass` gives the reason for which the holder of `releases:break-glass` goes in all the same.
    """
    keys.require(caller, Right.RELEASES_PROMOTE)
    here = gateway(request)
    release = find(request, caller, app, body.release)
    await here.routes.promote(caller, release, body.stage, body.break_glass)
    await here.directory.refresh()
    return {"app": app, "stage": body.stage, "release": body.release}


@router.post("/apps/{app}/stages/{stage}/rollback")
async def create_rollback(
    request: Request, caller: Caller, app: str, stage: StageName, body: Rollback | None = None
) -> dict[str, Any]:
    """Makes an earlier stable release of a stage stable again: number `to`, or the last good one before."""
    keys.require(caller, Right.RELEASES_PROMOTE)
    here = gateway(request)
    releases = {n: r for (w, a, n), r in here.directory().releases.items() if (w, a) == (caller.key.workspace, app)}
    back = await here.routes.roll_back(caller, app, stage, body.to if body else None, releases)
    await here.directory.refresh()
    return {"app": app, "stage": stage, "release": back.number, "digest": back.digest}


def releases_of(request: Request, caller: Principal, app: str) -> list[Release]:
    """The releases of an app of the caller's workspace, newest first. Raises NotFound where there is no such app."""
    releases = gateway(request).directory().releases
    mine = [r for (w, a, _), r in releases.items() if (w, a) == (caller.key.workspace, app)]
    if not mine:
        raise NotFound(f"There is no app {app!r}.")
    return sorted(mine, key=lambda release: -release.number)


def find(request: Request, caller: Principal, app: str, number: int) -> Release:
    """A release of the caller's workspace. Raises NotFound."""
    release = gateway(request).directory().releases.get((caller.key.workspace, app, number))
    if release is None:
        raise NotFound(f"There is no release {app}@{number}.")
    return release


def _listed(request: Request, release: Release) -> dict[str, Any]:
    stages = gateway(request).directory().stages_of(release)
    created: datetime = release.created
    told = {"number": release.number, "digest": release.digest, "created": created, "stages": stages}
    return {**told, "derived": release.facts.get("derived"), "follows": sorted(release.follows)}
