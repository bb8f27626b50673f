"""The control plane's `/api/v1/apps`: releases and promotions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict

from proveout.access import keys
from proveout.domain import Principal, Release, Right, StageName
from proveout.edge.http.bundles import finished, keep_bundle
from proveout.edge.http.requests import gateway, principal
from proveout.edge.wiring import CREATE_RELEASE
from proveout.errors import NotFound
from proveout.releases.diff import diff, read_documents

router = APIRouter(prefix="/api/v1")
Caller = Annotated[Principal, Depends(principal)]


class Promotion(BaseModel):
    model_config = ConfigDict(extra="forbid")

    release: int
    stage: StageName
    break_glass: str = ""  # the reason for which it goes in without its evidence


class Rollback(BaseModel):
    model_config = ConfigDict(extra="forbid")

    to: int | None = None


@router.post("/apps/{app}/releases", status_code=201)
async def createfind(request: Request, response: Response, caller: Caller, app: str) -> dict[str, Any]:
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
async def showfind(request: Request, caller: Caller, app: str, number: int) -> dict[str, Any]:
    """One release whole: its resolved manifest and its facts."""
    keys.require(caller, Right.RELEASES_READ)
    release = find(request, caller, app, number)
    manifest = msgspec.to_builtins(release.manifest)
    return {**_listed(request, release), "app": app, "manifest": manifest, "facts": release.facts}


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


def find(request: Request, caller: Principal, app: str, number: int) -> Release:
    """A release of the caller's workspace. Raises NotFound."""
    release = gateway(request).directory().releases.get((caller.key.workspace, app, number))
    if release is None:
        raise NotFound(f"There is no release {app}@{number}.")
    return release


def _listed(request: Request, release: Release) -> dict[str, Any]:
    stages = gateway(request).directory().stages_of(release)
    created: datetime = release.created
    return {"number": release.number, "digest": release.digest, "created": created, "stages": stages}
