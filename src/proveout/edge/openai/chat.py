"""The data plane's handlers: chat completions, streamed and whole, models, and `/generate`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from proveout.domain import Message, Text
from proveout.edge.http import problems
from proveout.edge.http.requests import ClientLeft, gateway, principal, read_json, unless_left
from proveout.edge.openai import wire
from proveout.errors import InvalidInput, ProveoutError
from proveout.ledger.journal import new_request_id
from proveout.serving import pipeline
from proveout.serving.call import Answer, Asked, Call, Piece, Rooms
from proveout.serving.resolve import models_for

_CREATED = 1_767_225_600  # 2026-01-01: OpenAI's clients want a date for every model


class GenerateRequest(msgspec.Struct, frozen=True):
    """The body of `POST /generate`; `max_length` is in tokens."""

    prompt: str
    max_length: int = 256


async def chat_completions(request: Request) -> Response:
    """`POST /v1/chat/completions`"""
    number = new_request_id()
    try:
        caller = principal(request)
        body = await read_json(request, wire.ChatRequest)
        call = Call(number, caller, body.asked(), streamed=bool(body.stream))
        rooms = gateway(request).rooms
        call = await pipeline.admit(call, rooms)
        if not call.streamed:
            text, answer = await unless_left(request.receive, _whole(call, rooms))
            return JSONResponse(wire.completion(call, text, answer), headers=_headers(call))
        pieces = pipeline.answer(call, rooms)
        # The first piece is awaited here, so that an early failure still gets its proper status.
        first = await unless_left(request.receive, _next(pieces))
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        return AnswerStream(call, first, pieces, with_usage=with_usage)
    except ProveoutError as error:
        return problems.response(error, number)
    except ClientLeft:
        return Response(status_code=499)


async def generate(request: Request) -> Response:
    """`POST /generate`: the interface of the simplest proof-of-concept services."""
    number = new_request_id()
    try:
        caller = principal(request)
        body = await read_json(request, GenerateRequest)
        if not 1 <= body.max_length <= 1_000_000:
            raise InvalidInput(f"max_length: {body.max_length} is not between 1 and 1000000.")
        asked = Asked(None, (Message("user", body.prompt),), max_tokens=body.max_length)
        rooms = gateway(request).rooms
        call = await pipeline.admit(Call(number, caller, asked, streamed=False), rooms)
        text, _ = await unless_left(request.receive, _whole(call, rooms))
        return JSONResponse({"generated_text": text}, headers=_headers(call))
    except ProveoutError as error:
        return problems.response(error, number)
    except ClientLeft:
        return Response(status_code=499)


async def models(request: Request) -> Response:
    """`GET /v1/models`: what this key may use."""
    try:
        caller = principal(request)
    except ProveoutError as error:
        return problems.response(error)
    here = gateway(request)
    names = models_for(here.directory(), caller, here.rooms.catalogue.names())
    listed = [{"id": n, "object": "model", "created": _CREATED, "owned_by": "proveout"} for n in names]
    return JSONResponse({"object": "list", "data": listed})


async def _whole(call: Call, rooms: Rooms) -> tuple[str, Answer]:
    text: list[str] = []
    async with aclosing(pipeline.answer(call, rooms)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Answer):
                return "".join(text), piece
            text.append(piece.text)
    raise ProveoutError  # an answer always ends in an Answer


async def _next(pieces: AsyncGenerator[Piece, None]) -> Piece:
    return await anext(pieces)


def _headers(call: Call) -> dict[str, str]:
    headers = {"x-proveout-request": call.request}
    if call.release:
        headers["x-proveout-release"] = call.release.label
    return headers


class AnswerStream(Response):
    """A streamed answer. A client that leaves ends the pieces, and with them the model's work."""

    def __init__(self, call: Call, first: Piece, pieces: AsyncGenerator[Piece, None], *, with_usage: bool) -> None:
        self._call, self._first, self._pieces, self._with_usage = call, first, pieces, with_usage
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store"}
        headers |= _headers(self._call)
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        try:
            await unless_left(receive, self._send(send, raw))
        except ClientLeft:
            return

    async def _send(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        async def emit(data: bytes, *, last: bool = False) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": not last})

        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await emit(wire.event(wire.chunk(self._call, {"role": "assistant", "content": ""})))
        async with aclosing(self._pieces) as pieces:
            try:
                piece = self._first
                while isinstance(piece, Text):
                    await emit(wire.event(wire.chunk(self._call, {"content": piece.text})))
                    piece = await anext(pieces)
            except ProveoutError as error:
                await emit(wire.event(problems.body(error)), last=True)
                return
            await emit(self._ending(piece), last=True)

    def _ending(self, answer: Answer) -> bytes:
        """Finish, usage, [DONE]: sent only when the completion is on record."""
        finish: dict[str, Any] = wire.chunk(self._call, {}, answer.finish)
        events = [{**finish, "proveout": wire.about(self._call, answer)}]
        if self._with_usage:
            events.append(wire.usage_chunk(self._call, answer))
        return b"".join(map(wire.event, events)) + wire.DONE
