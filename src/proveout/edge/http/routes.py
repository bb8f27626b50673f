"""Every route of the gateway."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from proveout.edge.console import operations, pages, releases, rollouts, timeline
from proveout.edge.http import health, problems
from proveout.edge.http.control import control
from proveout.edge.http.ledger import ledger
from proveout.edge.http.metrics import Counting, metrics
from proveout.edge.openai import chat, completions, embeddings, models, responses
from proveout.edge.wiring import gateway
from proveout.releases.manifest import schema
from proveout.settings import Settings


def application(settings: Settings) -> Starlette:
    """The gateway as an ASGI app. Its rooms open when the server starts it."""
    api = control()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with gateway(settings) as rooms:
            app.state.gateway = api.state.gateway = rooms
            gc.collect()
            gc.freeze()  # what is loaded by now stays: looking through it again would cost requests their time
            yield

    async def app_schema(_: Request) -> JSONResponse:
        """`GET /assets/app.schema.json`: the JSON Schema of app.yaml, for editors."""
        return JSONResponse(schema())

    async def openapi(_: Request) -> JSONResponse:
        """`GET /openapi.json`: the description of the control plane."""
        return JSONResponse(api.openapi())

    return Starlette(
        lifespan=lifespan,
        middleware=[Middleware(Counting)],
        exception_handlers={HTTPException: problems.no_route, Exception: problems.unexpected},
        routes=[
            Route("/v1/chat/completions", chat.chat_completions, methods=["POST"]),
            Route("/v1/completions", completions.completions, methods=["POST"]),
            Route("/v1/responses", responses.responses, methods=["POST"]),
            Route("/v1/embeddings", embeddings.embeddings, methods=["POST"]),
            Route("/v1/models", models.models, methods=["GET"]),
            Route("/v1/models/{model:path}", models.model, methods=["GET"]),
            Route("/generate", chat.generate, methods=["POST"]),
            Route("/metrics", metrics, methods=["GET"]),
            Route("/healthz", health.healthz, methods=["GET"]),
            Route("/readyz", health.readyz, methods=["GET"]),
            Route("/ledger/{workspace}/{path:path}", ledger, methods=["GET"]),
            Route("/openapi.json", openapi, methods=["GET"]),
            Route("/", pages.ask, methods=["GET"]),
            Route("/releases", releases.list_releases, methods=["GET"]),
            Route("/releases/{app}/{number:int}", releases.show_release, methods=["GET"]),
            Route("/rollouts/{app}/{stage}", rollouts.show_rollout, methods=["GET"]),
            Route("/operations", operations.operations, methods=["GET"]),
            Route("/operations/requests/{request}", timeline.show_request, methods=["GET"]),
            Route("/login", pages.login, methods=["GET"]),
            Route("/logout", pages.logout, methods=["POST"]),
            Route("/assets/app.schema.json", app_schema, methods=["GET"]),
            Mount("/assets", StaticFiles(packages=[("proveout.edge.console", "assets")])),
            Mount("/", api),
        ],
    )
