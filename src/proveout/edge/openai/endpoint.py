"""What every endpoint that answers does with a request: who calls, what, through the pipeline, and out again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from proveout.domain import Text, ToolCallPiece
from proveout.edge.http import problems
from proveout.edge.http.requests import ClientLeft, gateway, principal, read_json, unless_left
from proveout.edge.logs import current_request
from proveout.edge.openai.wire import Said
from proveout.errors import ProveoutError
from proveout.ledger.journal import new_request_id
from proveout.serving import pipeline
from proveout.serving.call import Answer, Asked, Call, Piece, Rooms

T = TypeVar("T")


class Format(Protocol):
    """How one endpoint writes one call's answer: whole, or as server-sent events."""

    def whole(self, said: Said, answer: Answer) -> dict[str, Any]: ...

    def start(self) -> bytes: ...

    def piece(self, piece: Text | ToolCallPiece) -> bytes: ...

    def end(self, answer: Answer) -> bytes:
        """The events that say that the answer is whole; sent only when it is on record."""
        ...

    def broken(self, error: ProveoutError) -> bytes:
        """The events that say that it is not."""
        ...


class Body(Protocol):
    """The body of a request."""

    @property
    def streamed(self) -> bool: ...

    def asked(self) -> Asked:
        """Raises InvalidInput naming the field that cannot be served."""
        ...

    def format(self, call: Call) -> Format: ...


async def serve(request: Request, shape: type[Body]) -> Response:
    """Answers a request whose body has this shape. Every answer, errors too, names the request in its headers."""
    number = request.state.number = new_request_id()
    current_request.set(number)
    try:
        caller = principal(request)
        body = await read_json(request, shape)
        rooms = gateway(request).rooms
        call = await pipeline.admit(Call(number, caller, body.asked(), streamed=body.streamed), rooms)
        out = body.format(call)
        if not call.streamed:
            said, answer = await unless_left(request.receive, _collect(call, rooms))
            return _encoded(call, out.whole(said, answer))
        pieces = pipeline.answer(call, rooms)
        # The first piece is awaited here, so that an early failure still gets its proper status.
        first = await unless_left(request.receive, _next(pieces))
        return AnswerStream(call, first, pieces, out)
    except ProveoutError as error:
        return problems.response(error, number)
    except ClientLeft:
        return Response(status_code=499)


async def serve_whole(
    request: Request,
    shape: type[T],
    asked: Callable[[T], Asked],
    write: Callable[[T, Said, Answer], dict[str, Any]],
) -> Response:
    """As `serve`, for an endpoint without streams: `asked` reads the body, `write` makes the answer's."""
    number = request.state.number = new_request_id()
    current_request.set(number)
    try:
        caller = principal(request)
        body = await read_json(request, shape)
        rooms = gateway(request).rooms
        call = await pipeline.admit(Call(number, caller, asked(body), streamed=False), rooms)
        said, answer = await unless_left(request.receive, _collect(call, rooms))
        return _encoded(call, write(body, said, answer))
    except ProveoutError as error:
        return problems.response(error, number)
    except ClientLeft:
        return Response(status_code=499)


async def _collect(call: Call, rooms: Rooms) -> tuple[Said, Answer]:
    """The answer to an admitted call, whole."""
    said = Said()
    async with aclosing(pipeline.answer(call, rooms)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Answer):
                return said, piece
            said.add(piece)
    raise ProveoutError  # an answer always ends in an Answer


def _encoded(call: Call, body: dict[str, Any]) -> Response:
    """The JSON response to a call."""
    return Response(msgspec.json.encode(body), 200, _headers(call), "application/json")


def _headers(call: Call) -> dict[str, str]:
    """What every answer to an admitted call says of itself."""
    names = {"x-proveout-request": call.request}
    if call.release:
        names["x-proveout-release"] = call.release.label
    return names


async def _next(pieces: AsyncGenerator[Piece, None]) -> Piece:
    return await anext(pieces)


class AnswerStream(Response):
    """A streamed answer. A client that leaves ends the pieces, and with them the model's work."""

    def __init__(self, call: Call, first: Piece, pieces: AsyncGenerator[Piece, None], out: Format) -> None:
        self._call, self._first, self._pieces, self._out = call, first, pieces, out
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-store",
            **_headers(self._call),
        }
        raw = [(name.encode(), value.encode()) for name, value in named.items()]
        try:
            await unless_left(receive, self._send(send, raw))
        except ClientLeft:
            return

    async def _send(self, send: Send, raw: list[tuple[bytes, bytes]]) -> None:
        async def emit(data: bytes, *, last: bool = False) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": not last})

        out = self._out
        async with aclosing(self._pieces) as pieces:
            await send({"type": "http.response.start", "status": 200, "headers": raw})
            ahead = out.start()  # goes with the first piece, in one write
            try:
                piece = self._first
                while not isinstance(piece, Answer):
                    await emit(ahead + out.piece(piece))
                    ahead = b""
                    piece = await anext(pieces)
            except ProveoutError as error:
                await emit(ahead + out.broken(error), last=True)
                return
            await emit(ahead + out.end(piece), last=True)
