"""The control plane's data sets: questions beside the golden ones that come with releases, in versions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from proveout.access import keys
from proveout.domain import Principal, Right
from proveout.edge.http.releases import releases_of
from proveout.edge.http.requests import gateway, principal
from proveout.errors import InvalidInput, NotFound
from proveout.evals.cases import digest, read_cases
from proveout.store.pool import Session
from proveout.store.sealing import Keyring, seal, unseal

router = APIRouter(prefix="/api/v1/apps/{app}/datasets")
Caller = Annotated[Principal, Depends(principal)]
Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class DataSet(BaseModel):
    """A data set as JSON lines."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=32_000_000)


@router.put("/{name}", status_code=201)
async def put_dataset(
    request: Request, response: Response, caller: Caller, app: str, name: Name, body: DataSet
) -> dict[str, Any]:
    """Keeps the next version of a data set: 201, or 200 when the newest has the same content.

    Every mistake is named with its line.
    """
    keys.require(caller, Right.EVALUATIONS_RUN)
    here = gateway(request)
    releases_of(request, caller, app)
    cases = read_cases(body.text, name)
    if not cases:
        raise InvalidInput(f"{name}: there is no case in it.")
    about = {"digest": digest(cases), "cases": len(cases), "counted": sum(case.counts for case in cases)}
    where = {"workspace": caller.key.workspace, "app": app, "name": name}
    async with here.store.within(caller.scope) as session:
        key = await here.keyring.workspace(session, caller.key.workspace)
        sealed = seal(key, body.text.encode(), "dataset")
        made = await session.row("datasets.put", **where, **about, author=caller.key.id, sealed=sealed)
        newest = await session.row("datasets.get", app=app, name=name, version=None)
    assert newest is not None
    response.status_code = 201 if made else 200
    return {"name": name, "version": newest["version"], **about}


@router.get("")
async def list_datasets(request: Request, caller: Caller, app: str) -> dict[str, Any]:
    """Every version of an app's data sets, by name, newest first."""
    keys.require(caller, Right.EVALUATIONS_RUN)
    releases_of(request, caller, app)
    async with gateway(request).store.within(caller.scope) as session:
        rows = await session.fetch("datasets.list", app=app)
    return {"datasets": [dict(row) for row in rows]}


@router.get("/{name}")
async def show_dataset(
    request: Request, caller: Caller, app: str, name: Name, version: Annotated[int | None, Query(ge=1)] = None
) -> dict[str, Any]:
    """A data set with its text: this version, or the newest."""
    keys.require(caller, Right.EVALUATIONS_RUN)
    here = gateway(request)
    async with here.store.within(caller.scope) as session:
        row, text = await read_dataset(session, here.keyring, caller, app, name, version)
    return {**row, "text": text}


async def read_dataset(
    session: Session, keyring: Keyring, caller: Principal, app: str, name: str, version: int | None
) -> tuple[dict[str, Any], str]:
    """What is known of a data set, and its JSON lines. Raises NotFound."""
    row = await session.row("datasets.get", app=app, name=name, version=version)
    if row is None:
        at = "" if version is None else f" version {version}"
        raise NotFound(f"{app} has no data set {name!r}{at}: `proveout eval datasets {app}` lists them.")
    key = await keyring.workspace(session, caller.key.workspace)
    return {k: v for k, v in row.items() if k != "sealed"}, unseal(key, row["sealed"], "dataset").decode()
