"""The engine process: the OpenAI protocol over the generators and embedders, on a Unix socket.

It holds no model: when a model process is away it says so (503) and keeps serving the others.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from proveout.edge.processes.parent import end_with_parent
from proveout.edge.processes.protocol import (
    ChatFormat,
    ChatRequest,
    CompletionFormat,
    CompletionRequest,
    EmbeddingRequest,
    MatchRequest,
)
from proveout.engine import channel
from proveout.errors import InvalidInput, NotFound, ProveoutError, Unavailable

LOOK = 1.0  # seconds in which a generator says what it does: more than a step takes
AWAY = 5.0  # seconds for which an instance that did not answer is asked last

T = TypeVar("T")
Replies = AsyncGenerator[channel.Reply, None]


class Stream(Response):
    """Server-sent events. Closes its source when the client leaves, since no server does that by itself."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _unless_gone(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        async with aclosing(self._events):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for event in self._events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class Instances:
    """The processes that serve one model, by their sockets."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._busy: Counter[Path] = Counter()
        self._away: dict[Path, float] = {}

    async def call(self, request: channel.Request) -> Replies:
        """As `channel.call`, of the one with the least to do; of another when that one cannot."""
        now = time.monotonic()
        order = sorted(self._paths, key=lambda p: (now < self._away.get(p, 0.0), self._busy[p]))
        for path in order:
            self._busy[path] += 1
            try:
                async with aclosing(channel.call(path, request)) as replies:
                    try:
                        accepted = await anext(replies)
                    except Unavailable:
                        self._away[path] = time.monotonic() + AWAY
                        if path == order[-1]:
                            raise
                        continue
                    yield accepted
                    async for reply in replies:
                        yield reply
                    return
            finally:
                self._busy[path] -= 1

    async def answers(self) -> bool:
        """Whether any of them does."""
        return any(await asyncio.gather(*map(_answers, self._paths)))

    async def seen(self) -> list[tuple[str, channel.Seen]]:
        """What each that answers has done, by its name."""
        found = await asyncio.gather(*map(_seen, self._paths))
        return [(path.stem, seen) for path, seen in zip(self._paths, found, strict=True) if seen is not None]


class Api:
    """The routes. Models by their names, each with the sockets of the processes that serve it."""

    def __init__(self, chat: Mapping[str, Sequence[Path]], embed: Mapping[str, Sequence[Path]]) -> None:
        self._chat = {name: Instances(paths) for name, paths in chat.items()}
        self._embed = {name: Instances(paths) for name, paths in embed.items()}

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.complete, methods=["POST"]),
                Route("/v1/embeddings", self.embeddings, methods=["POST"]),
                Route("/v1/matches", self.matches, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/metrics", self.metrics),
                Route("/readyz", self.ready),
            ],
            exception_handlers={ProveoutError: _problem, ClientDisconnect: _nobody},
        )

    async def ready(self, request: Request) -> Response:
        """200 when every model answers; else 503. The body says which does not."""
        models = self._chat | self._embed
        states = await asyncio.gather(*(m.answers() for m in models.values()))
        ready = all(states)
        body = {"ready": ready, **dict(zip(models, states, strict=True))}
        return _json(body, 200 if ready else 503, {} if ready else {"retry-after": "2"})

    async def models(self, request: Request) -> Response:
        names = (*self._chat, *self._embed)
        models = [{"id": n, "object": "model", "created": 0, "owned_by": "proveout"} for n in names]
        return _json({"object": "list", "data": models})

    async def metrics(self, request: Request) -> Response:
        """OpenMetrics: what the generators do and have done since they started."""
        rows = [(name, where, seen) for name, m in self._chat.items() for where, seen in await m.seen()]
        lines = []
        for field, kind, meaning in _METRICS:
            name, suffix = f"proveout_engine_{field}", "_total" if kind == "counter" else ""
            lines += [f"# TYPE {name} {kind}", f"# HELP {name} {meaning}"]
            lines += [
                f'{name}{suffix}{{model="{model}",instance="{where}"}} {getattr(seen, field)}'
                for model, where, seen in rows
            ]
        media = "application/openmetrics-text; version=1.0.0; charset=utf-8"
        return Response("\n".join([*lines, "# EOF", ""]), media_type=media)

    async def chat(self, request: Request) -> Response:
        body = _decode(await request.body(), ChatRequest)
        return await self._generate(request, body, ChatFormat(body.model))

    async def complete(self, request: Request) -> Response:
        body = _decode(await request.body(), CompletionRequest)
        return await self._generate(request, body, CompletionFormat(body.model))

    async def embeddings(self, request: Request) -> Response:
        body = _decode(await request.body(), EmbeddingRequest)
        texts = [body.input] if isinstance(body.input, str) else body.input
        replies = _named(self._embed, body.model).call(channel.Embed(texts))
        return await _unless_gone(request.receive, _embedded(replies, body)) or Response()

    async def matches(self, request: Request) -> Response:
        body = _decode(await request.body(), MatchRequest)
        replies = _named(self._embed, body.model).call(channel.Match(body.question, body.texts))
        count = sum(len(t.spans) for t in body.texts)
        return await _unless_gone(request.receive, _matched(replies, count)) or Response()

    async def _generate(
        self, request: Request, body: ChatRequest | CompletionRequest, form: ChatFormat | CompletionFormat
    ) -> Response:
        replies = _named(self._chat, body.model).call(body.frame())
        if not body.stream:
            return await _unless_gone(request.receive, _whole(replies, form)) or Response()
        await anext(replies)  # Accepted, or an error that can still be a status
        return Stream(_chunks(replies, form, body.with_usage))


_METRICS = (
    ("running", "gauge", "Answers in the batch."),
    ("waiting", "gauge", "Requests that wait for a place in the batch."),
    ("requests", "counter", "Answers that were begun."),
    ("prompt_tokens", "counter", "Tokens read."),
    ("completion_tokens", "counter", "Tokens written."),
    ("cache", "gauge", "Share of the key-value cache in use."),
)


def _named(models: Mapping[str, Instances], name: str) -> Instances:
    if name not in models:
        raise NotFound(f"There is no model {name!r} for this here; there is: {', '.join(models) or 'none'}.")
    return models[name]


async def _answers(path: Path) -> bool:
    try:
        async with aclosing(channel.call(path, channel.Ping(), greeting=2.0)) as replies:
            await anext(replies)
    except Unavailable:
        return False
    return True


async def _seen(path: Path) -> channel.Seen | None:
    try:
        async with aclosing(channel.call(path, channel.Look(), greeting=LOOK)) as replies:
            return next((r for r in [r async for r in replies] if isinstance(r, channel.Seen)), None)
    except ProveoutError:
        return None


async def _whole(replies: Replies, form: ChatFormat | CompletionFormat) -> Response:
    pieces: list[channel.Piece | channel.ToolPiece] = []
    async with aclosing(replies):
        async for reply in replies:
            if isinstance(reply, channel.Piece | channel.ToolPiece):
                pieces.append(reply)
            elif isinstance(reply, channel.Done):
                return _json(form.whole(pieces, reply))
    raise ProveoutError("The generator ended without an end.")


async def _chunks(replies: Replies, form: ChatFormat | CompletionFormat, usage: bool) -> AsyncGenerator[bytes, None]:
    """The stream's events; a broken one ends in an error event and has no [DONE]."""
    async with aclosing(replies):
        if first := form.first():
            yield _event(first)
        try:
            async for reply in replies:
                if isinstance(reply, channel.Piece | channel.ToolPiece):
                    yield _event(form.piece(reply))
                elif isinstance(reply, channel.Done):
                    yield _event(form.last(reply))
                    if usage:
                        yield _event(form.used(reply))
                    yield b"data: [DONE]\n\n"
        except ProveoutError as error:
            yield _event(_error(error))


async def _embedded(replies: AsyncGenerator[channel.Reply, None], body: EmbeddingRequest) -> Response:
    async with aclosing(replies):
        async for reply in replies:
            if isinstance(reply, channel.Vectors):
                count = 1 if isinstance(body.input, str) else len(body.input)
                rows = np.frombuffer(reply.data, "<f4").reshape(count, -1)
                base64_ = body.encoding_format == "base64"
                data = [
                    {
                        "object": "embedding",
                        "index": n,
                        "embedding": base64.b64encode(row.tobytes()).decode() if base64_ else row.tolist(),
                    }
                    for n, row in enumerate(rows)
                ]
                usage = {"prompt_tokens": reply.tokens, "total_tokens": reply.tokens}
                return _json({"object": "list", "data": data, "model": body.model, "usage": usage})
    raise ProveoutError("The embedder ended without vectors.")


async def _matched(replies: Replies, count: int) -> Response:
    async with aclosing(replies):
        async for reply in replies:
            if isinstance(reply, channel.Vectors):
                return _json({"matches": np.frombuffer(reply.data, "<f4").reshape(count, -1).tolist()})
    raise ProveoutError("The embedder ended without matches.")


async def _unless_gone(receive: Receive, work: Coroutine[None, None, T]) -> T | None:
    """The result of `work`; None, with `work` cancelled, when the client leaves before."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


def _decode(body: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.MsgspecError as error:
        raise InvalidInput(str(error)) from error


def _json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def _event(body: object) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


_STATUSES = {InvalidInput: (400, "invalid_request_error"), NotFound: (404, "invalid_request_error")}


def _error(error: ProveoutError) -> dict[str, object]:
    _, kind = _STATUSES.get(type(error), (500, "server_error"))
    return {"error": {"message": error.message, "type": kind, "param": None, "code": error.code}}


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProveoutError)
    status, _ = _STATUSES.get(type(error), (503 if isinstance(error, Unavailable) else 500, ""))
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return _json(_error(error), status, headers)


async def _nobody(request: Request, error: Exception) -> Response:
    return Response()  # goes nowhere: the client has left


def main() -> None:
    parser = argparse.ArgumentParser(prog="proveout engine", description=__doc__)
    parser.add_argument("--socket-fd", type=int, required=True, help="a bound and listening Unix socket")
    for role in ("chat", "embed"):
        parser.add_argument(
            f"--{role}",
            nargs="+",
            action="append",
            default=[],
            metavar="NAME SOCKET",
            help="a model, and who serves it",
        )
    options = parser.parse_args()
    end_with_parent()
    chat, embed = (
        {name: [Path(p) for p in paths] for name, *paths in given} for given in (options.chat, options.embed)
    )
    config = uvicorn.Config(
        Api(chat, embed).app(),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=60,  # longer than a client keeps an idle connection, or it would write to a closed one
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(config).run([socket.socket(fileno=options.socket_fd)])


if __name__ == "__main__":
    main()
