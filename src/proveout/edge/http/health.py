"""Health: alive (`/healthz`), and ready to answer (`/readyz`)."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse

from proveout.domain import WORKSPACE
from proveout.edge.http.requests import gateway
from proveout.edge.wiring import Gateway
from proveout.errors import ProveoutError
from proveout.store.postgres import disk_trouble


async def healthz(_: Request) -> JSONResponse:
    """`GET /healthz`: the process answers."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> JSONResponse:
    """`GET /readyz`: 200 when the models are loaded and every started app can answer; else 503 with what is missing."""
    absent = await missing(gateway(request))
    status = {"status": "waiting", "missing": absent} if absent else {"status": "ready"}
    return JSONResponse(status, 503 if absent else 200, {"retry-after": "1"} if absent else {})


async def missing(here: Gateway) -> dict[str, str]:
    """What keeps the server from answering: `models`, `database`, `disk` or an app, and why; nothing when it is ready.

    A disk that is full or fails is found out by writing to it, so that it is known to be well again, too.
    """
    absent: dict[str, str] = {}
    if trouble := await asyncio.to_thread(disk_trouble, here.settings.data):
        absent["disk"] = trouble
    try:
        await here.rooms.catalogue.check()
    except ProveoutError as error:
        absent["models"] = error.message
    try:
        await here.directory.refresh()
    except ProveoutError as error:
        absent["database"] = error.message
    served = {app for workspace, app, _ in here.directory().routes if workspace == WORKSPACE}
    return absent | {app: "its knowledge is being read" for app in here.settings.apps if app not in served}
