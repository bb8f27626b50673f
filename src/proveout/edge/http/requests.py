"""What every handler needs of a request: who calls, its body within bounds, and whether the client left."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import msgspec
from starlette.requests import Request
from starlette.types import Receive

from proveout.access.keys import authenticate
from proveout.access.sessions import open_session
from proveout.domain import Principal
from proveout.edge.wiring import Gateway
from proveout.errors import InvalidInput, NotFound, TooLarge, Unauthenticated

SESSION_COOKIE = "proveout_session"
CONSOLE_HEADER = "x-proveout-console"
JSON_LIMIT = 4 * 2**20
T = TypeVar("T")


class ClientLeft(Exception):
    """The client closed the connection before the answer was whole."""


def gateway(request: Request) -> Gateway:
    """The rooms of this process."""
    return cast(Gateway, request.app.state.gateway)


def principal(request: Request) -> Principal:
    """Who calls. Raises Unauthenticated, and NotFound for a path of an `{app}` that the key does not reach."""
    caller, app = _who(request), request.path_params.get("app")
    if app is not None and not caller.reaches(app):
        raise NotFound(f"There is no app {app!r}.")
    return caller


def _who(request: Request) -> Principal:
    """By API key, or by the session of a browser."""
    directory = gateway(request).directory()
    header = request.headers.get("authorization", "")
    scheme, _, text = header.partition(" ")
    if scheme.lower() == "bearer":
        return authenticate(directory, text.strip())
    session = request.cookies.get(SESSION_COOKIE)
    if header or session is None:
        raise Unauthenticated()
    if request.method not in ("GET", "HEAD") and CONSOLE_HEADER not in request.headers:
        # Another site can make a browser send the cookie, but not this header.
        raise Unauthenticated(f"A session may only be used by the console, which sends {CONSOLE_HEADER}.")
    return open_session(directory, session)


async def read_body(request: Request, limit: int = JSON_LIMIT) -> bytes:
    """The whole body. Raises TooLarge as soon as it is longer than `limit` bytes."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise TooLarge(f"The body has {declared} bytes; at most {limit} are accepted here.")
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"The body is longer than the {limit} bytes that are accepted here.")
        chunks.append(chunk)
    return b"".join(chunks)


async def read_json(request: Request, shape: type[T], limit: int = JSON_LIMIT) -> T:
    """The body as `shape`. Raises InvalidInput naming the key that is wrong."""
    try:
        return msgspec.json.decode(await read_body(request, limit), type=shape)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"The body does not fit: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The body is not valid JSON: {error}.") from error


async def unless_left(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes away. Raises ClientLeft.

    No server cancels a handler by itself, so somebody must await the disconnect.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft
        return task.result()
    finally:
        watch.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
