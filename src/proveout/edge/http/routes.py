"""Every route of the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from proveout.edge.console import pages
from proveout.edge.http import health
from proveout.edge.http.control import control
from proveout.edge.openai import chat
from proveout.edge.wiring import gateway
from proveout.settings import Settings


def application(settings: Settings) -> Starlette:
    """The gateway as an ASGI app. Its rooms open when the server starts it."""
    api = control()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with gateway(settings) as rooms:
            app.state.gateway = api.state.gateway = rooms
            yield

    async def openapi(_: Request) -> JSONResponse:
        return JSONResponse(api.openapi())

    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/v1/chat/completions", chat.chat_completions, methods=["POST"]),
            Route("/v1/models", chat.models, methods=["GET"]),
            Route("/generate", chat.generate, methods=["POST"]),
            Route("/healthz", health.healthz, methods=["GET"]),
            Route("/readyz", health.readyz, methods=["GET"]),
            Route("/openapi.json", openapi, methods=["GET"]),
            Route("/", pages.ask, methods=["GET"]),
            Route("/login", pages.login, methods=["GET"]),
            Route("/logout", pages.logout, methods=["POST"]),
            Mount("/assets", StaticFiles(packages=[("proveout.edge.console", "assets")])),
            Mount("/", api),
        ],
    )
