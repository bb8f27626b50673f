"""The engine process: the OpenAI protocol over the generator and the embedder, on a Unix socket.

It holds no model: when a model process is away it says so (503) and keeps serving the other.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import socket
import time
import uuid
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from proveout.edge.processes.parent import end_with_parent
from proveout.engine import channel, weights
from proveout.errors import InvalidInput, NotFound, ProveoutError, Unavailable

T = TypeVar("T")
Positive = Annotated[int, msgspec.Meta(ge=1)]


class TextPart(msgspec.Struct):
    text: str
    type: Literal["text"] = "text"


class ChatMessage(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None

    @property
    def pair(self) -> tuple[str, str]:
        role = "system" if self.role == "developer" else self.role
        content = self.content or ""
        return role, content if isinstance(content, str) else "".join(p.text for p in content)


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class ChatRequest(msgspec.Struct):
    """The part of OpenAI's chat completion request that the embedded model honours."""

    model: str
    messages: Annotated[list[ChatMessage], msgspec.Meta(min_length=1)]
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def frame(self) -> channel.Generate:
        """With OpenAI's defaults, but an end: 1,024 tokens."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return channel.Generate(
            messages=[m.pair for m in self.messages],
            max_tokens=self.max_completion_tokens or self.max_tokens or 1024,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=self.seed,
            stop=stop,
        )


class EmbeddingRequest(msgspec.Struct):
    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"


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


class Api:
    """The routes. `generator` and `embedder` are the paths of the model processes' sockets."""

    def __init__(self, generator: Path, embedder: Path) -> None:
        self._paths = {"generator": generator, "embedder": embedder}

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/embeddings", self.embeddings, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/readyz", self.ready),
            ],
            exception_handlers={ProveoutError: _problem, ClientDisconnect: _nobody},
        )

    async def ready(self, request: Request) -> Response:
        """200 when both model processes answer; else 503. The body says which does not."""
        states = await asyncio.gather(*map(_answers, self._paths.values()))
        ready = all(states)
        body = {"ready": ready, **dict(zip(self._paths, states, strict=True))}
        return _json(body, 200 if ready else 503, {} if ready else {"retry-after": "2"})

    async def models(self, request: Request) -> Response:
        names = (weights.GENERATOR, weights.EMBEDDER)
        models = [{"id": n, "object": "model", "created": 0, "owned_by": "proveout"} for n in names]
        return _json({"object": "list", "data": models})

    async def chat(self, request: Request) -> Response:
        body = _decode(await request.body(), ChatRequest)
        _expect(body.model, weights.GENERATOR)
        replies = channel.call(self._paths["generator"], body.frame())
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}
        if not body.stream:
            return await _unless_gone(request.receive, _whole(replies, head)) or Response()
        await anext(replies)  # Accepted, or an error that can still be a status
        usage = body.stream_options is not None and body.stream_options.include_usage
        return Stream(_chunks(replies, head, usage))

    async def embeddings(self, request: Request) -> Response:
        body = _decode(await request.body(), EmbeddingRequest)
        _expect(body.model, weights.EMBEDDER)
        texts = [body.input] if isinstance(body.input, str) else body.input
        replies = channel.call(self._paths["embedder"], channel.Embed(texts))
        return await _unless_gone(request.receive, _embedded(replies, body)) or Response()


async def _answers(path: Path) -> bool:
    try:
        async with aclosing(channel.call(path, channel.Ping(), greeting=2.0)) as replies:
            await anext(replies)
    except Unavailable:
        return False
    return True


async def _whole(replies: AsyncGenerator[channel.Reply, None], head: dict[str, object]) -> Response:
    text: list[str] = []
    async with aclosing(replies):
        async for reply in replies:
            if isinstance(reply, channel.Piece):
                text.append(reply.text)
            elif isinstance(reply, channel.Done):
                message = {"role": "assistant", "content": "".join(text)}
                choice = {"index": 0, "message": message, "finish_reason": reply.reason, "logprobs": None}
                return _json({**head, "object": "chat.completion", "choices": [choice], "usage": _usage(reply)})
    raise ProveoutError("The generator ended without an end.")


async def _chunks(
    replies: AsyncGenerator[channel.Reply, None], head: dict[str, object], usage: bool
) -> AsyncGenerator[bytes, None]:
    """The stream's events; a broken one ends in an error event and has no [DONE]."""

    def chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return _event({**head, "object": "chat.completion.chunk", "choices": [choice]})

    async with aclosing(replies):
        yield chunk({"role": "assistant", "content": ""})
        try:
            async for reply in replies:
                if isinstance(reply, channel.Piece):
                    yield chunk({"content": reply.text})
                elif isinstance(reply, channel.Done):
                    yield chunk({}, reply.reason)
                    if usage:
                        yield _event({**head, "object": "chat.completion.chunk", "choices": [], "usage": _usage(reply)})
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


def _expect(model: str, served: str) -> None:
    if model != served:
        raise NotFound(f"There is no model {model!r} here; there is {served!r}.")


def _usage(done: channel.Done) -> dict[str, int]:
    prompt, completion = done.prompt_tokens, done.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


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
    parser.add_argument("--generator", type=Path, required=True, help="the generator's Unix socket")
    parser.add_argument("--embedder", type=Path, required=True, help="the embedder's Unix socket")
    options = parser.parse_args()
    end_with_parent()
    config = uvicorn.Config(
        Api(options.generator, options.embedder).app(),
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
