"""Health: alive (`/healthz`), and ready to answer (`/readyz`)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse

from proveout.domain import WORKSPACE
from proveout.edge.http.requests import gateway
from proveout.errors import ProveoutError


async def healthz(_: Request) -> JSONResponse:
    """`GET /healthz`: the process answers."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> JSONResponse:
    """`GET /readyz`: 200 when the models are loaded and every started app can answer; else 503 with what is missing."""
    here = gateway(request)
    missing: dict[str, str] = {}
    try:
        await here.rooms.catalogue.check()
    except ProveoutError as error:
        missing["models"] = error.message
    try:
        await here.directory.refresh()
    except ProveoutError as error:
        missing["database"] = error.message
    served = {app for workspace, app, _ in here.directory().routes if workspace == WORKSPACE}
    missing |= {app: "its knowledge is being read" for app in here.settings.apps if app not in served}
    status = {"status": "waiting", "missing": missing} if missing else {"status": "ready"}
    return JSONResponse(status, 503 if missing else 200, {"retry-after": "1"} if missing else {})
