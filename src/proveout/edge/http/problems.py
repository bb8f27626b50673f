"""The one place that turns errors into statuses and bodies, in OpenAI's shape."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from proveout import errors
from proveout.ledger.journal import new_request_id

STATUSES: tuple[tuple[type[errors.ProveoutError], int, str], ...] = (
    (errors.InvalidInput, 400, "invalid_request_error"),
    (errors.Unauthenticated, 401, "authentication_error"),
    (errors.NotFound, 404, "not_found_error"),
    (errors.Conflict, 409, "conflict_error"),
    (errors.TooLarge, 413, "invalid_request_error"),
    (errors.UpstreamFailed, 503, "upstream_error"),
    (errors.Unavailable, 503, "unavailable_error"),
    (errors.ProveoutError, 500, "internal_error"),
)
_RETRY_AFTER = 2


def body(error: errors.ProveoutError) -> dict[str, Any]:
    """`{"error": {message, type, param, code}}`, as OpenAI's clients read it; of a closed gate also `missing`."""
    _, kind = _status(error)
    said: dict[str, Any] = {"error": {"message": error.message, "type": kind, "param": None, "code": error.code}}
    return {**said, "missing": list(error.missing)} if isinstance(error, errors.GateClosed) else said


def response(error: errors.ProveoutError, request: str | None = None) -> JSONResponse:
    """The error as an HTTP answer."""
    status, _ = _status(error)
    headers = {"x-proveout-request": request} if request else {}
    if status == 503:
        headers["retry-after"] = str(error.retry_after or _RETRY_AFTER)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(body(error), status, headers)


async def no_route(request: Request, error: Exception) -> Response:
    """For paths and methods that are not served."""
    assert isinstance(error, HTTPException)
    said = errors.NotFound(f"{request.method} {request.url.path} is not served: see GET /openapi.json.")
    answer = response(said, new_request_id())
    answer.status_code = error.status_code
    answer.headers.update(error.headers or {})
    return answer


async def unexpected(request: Request, _: Exception) -> Response:
    """For what should not happen; the server logs it."""
    return response(errors.ProveoutError(), getattr(request.state, "number", None) or new_request_id())


def from_code(code: str, message: str) -> errors.ProveoutError:
    """The error that a job ended with, from what is stored of it."""
    found = next((cls for cls, _, _ in STATUSES if cls.code == code), errors.ProveoutError)
    return found(message)


def _status(error: errors.ProveoutError) -> tuple[int, str]:
    return next((status, kind) for cls, status, kind in STATUSES if isinstance(error, cls))
