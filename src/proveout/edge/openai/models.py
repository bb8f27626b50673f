"""`GET /v1/models` and `GET /v1/models/{model}`: what a key may use."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from proveout.edge.http import problems
from proveout.edge.http.requests import gateway, principal
from proveout.errors import NotFound, ProveoutError
from proveout.ledger.journal import new_request_id
from proveout.serving.resolve import models_for

_CREATED = 1_767_225_600  # 2026-01-01: OpenAI's clients want a date for every model


async def models(request: Request) -> Response:
    """`GET /v1/models`: what this key may use."""
    number = new_request_id()
    try:
        listed = [_model(request, name) for name in _names(request)]
    except ProveoutError as error:
        return problems.response(error, number)
    return JSONResponse({"object": "list", "data": listed}, headers={"x-proveout-request": number})


async def model(request: Request) -> Response:
    """`GET /v1/models/{model}`: one of them."""
    number = new_request_id()
    name = request.path_params["model"]
    try:
        if name not in _names(request):
            raise NotFound(f"The model {name!r} does not exist, or your key does not grant it: see GET /v1/models.")
    except ProveoutError as error:
        return problems.response(error, number)
    return JSONResponse(_model(request, name), headers={"x-proveout-request": number})


def _names(request: Request) -> list[str]:
    here = gateway(request)
    catalogue = here.rooms.catalogue
    return models_for(here.directory(), principal(request), [*catalogue.names(), *catalogue.embedders()])


def _model(request: Request, name: str) -> dict[str, object]:
    """As OpenAI has it; of a local model also what a release pins of it."""
    listed: dict[str, object] = {"id": name, "object": "model", "created": _CREATED, "owned_by": "proveout"}
    use = gateway(request).rooms.catalogue.local(name)
    return listed if use is None else {**listed, "proveout": msgspec.to_builtins(use)}
