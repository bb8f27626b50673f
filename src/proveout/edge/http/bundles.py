"""App folders that are sent to the server, and the ends of the jobs that work on what was sent."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import msgspec
from fastapi import Request

from proveout.domain import Principal
from proveout.edge.http import problems
from proveout.edge.http.requests import gateway, read_body
from proveout.errors import InvalidInput
from proveout.releases.bundle import MAX_BYTES, pack, read_folder
from proveout.store.sealing import seal


async def keep_bundle(request: Request, caller: Principal) -> str:
    """Keeps the body, a bundle or the owner's `{"path"}` of a folder here, for a job; answers with its id."""
    if not request.headers.get("content-type", "").startswith("application/json"):
        return await _keep(request, caller, await read_body(request, MAX_BYTES))
    if caller.key.role != "owner":
        raise InvalidInput("Only the owner names a path on the server's disk: upload a bundle.")
    try:
        path = msgspec.json.decode(await read_body(request), type=dict[str, str])["path"]
    except (msgspec.DecodeError, KeyError) as error:
        raise InvalidInput('The body is {"path": "/an/app/folder"}, or a bundle.') from error
    return await keep_folder(request, caller, Path(path))


async def keep_folder(request: Request, caller: Principal, folder: Path) -> str:
    """Keeps an app folder of the server's own disk for a job; answers with the bundle's id."""
    return await _keep(request, caller, await asyncio.to_thread(lambda: pack(read_folder(folder))))


async def finished(request: Request, caller: Principal, job: str) -> dict[str, Any]:
    """Waits for a job; answers with its result. Raises the error that it ended with."""
    state = await gateway(request).jobs.wait(caller.key.workspace, job)
    if state.result is None:
        said = state.error or {"code": "internal_error", "message": "the job failed"}
        raise problems.from_code(said["code"], said["message"])
    return dict(state.result)


async def _keep(request: Request, caller: Principal, content: bytes) -> str:
    here = gateway(request)
    bundle = f"bundle_{secrets.token_hex(8)}"
    async with here.store.within(caller.scope) as session:
        key = await here.keyring.workspace(session, caller.key.workspace)
        sealed = seal(key, content, "bundle")
        about = {"id": bundle, "workspace": caller.key.workspace, "author": caller.key.id}
        await session.run("bundles.insert", **about, sealed=sealed)
    return bundle
