"""The line between the engine's HTTP loop and the model processes: frames over Unix sockets.

A frame is a 4-byte big-endian length and that many bytes of MessagePack (msgspec, tagged by type).
One connection carries one request: the caller sends one request frame, reads reply frames up to the last
one, and closes. Closing early cancels; a process that restarts needs no reconnecting. Replies begin with
`Accepted`, so that a caller soon knows whether anybody is there, although the supervisor keeps the
listening socket open (and the kernel keeps accepting) while the process behind it is away.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from proveout.domain import Excerpts, FinishReason
from proveout.errors import InvalidInput, ProveoutError, Truncated, Unavailable, UpstreamFailed

MAX_FRAME = 64 << 20
MAX_UNREAD = 8 << 20  # bytes kept for a client that does not read before it is cut off
GREETING = 6.0  # seconds until `Accepted`: more than any step of a model takes, and most restarts

FailureCode = Literal["overloaded", "invalid_request", "failed"]


class Ping(msgspec.Struct, tag="ping", frozen=True):
    """Answered by `Accepted` alone."""


class Generate(msgspec.Struct, tag="generate", frozen=True):
    """Answered by `Piece`s, `ToolPiece`s and one `Done`, or `Failed`.

    `turns` are in the form of chat templates: OpenAI's messages, with text as content and the arguments of calls as
    values. A text in their place goes to the model as it is. `schema` is JSON Schema (`schema.checked`) that the
    answer is held to; `tools` are OpenAI's, `choice` is `auto`, `required`, or the name of the tool to call.
    """

    turns: list[dict[str, Any]] | str
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: bool = False
    schema: str | None = None
    tools: list[dict[str, Any]] = []
    choice: str = "auto"
    parallel: bool = True


class Look(msgspec.Struct, tag="look", frozen=True):
    """Answered by `Seen`."""


class Embed(msgspec.Struct, tag="embed", frozen=True):
    """Answered by one `Vectors`, or `Failed`."""

    texts: list[str]


class Match(msgspec.Struct, tag="match", frozen=True):
    """How near each excerpt is to a question and to each word of it (`minilm.Encoder.matches`): as `Embed`."""

    question: str
    texts: list[Excerpts]


class Accepted(msgspec.Struct, tag="accepted", frozen=True):
    pass


class Logprob(msgspec.Struct, frozen=True, array_like=True):
    """A token that was drawn: its bytes, and the natural logarithm of its probability."""

    token: bytes
    logprob: float


class Piece(msgspec.Struct, tag="piece", frozen=True):
    text: str
    logprobs: tuple[Logprob, ...] = ()


class ToolPiece(msgspec.Struct, tag="tool", frozen=True):
    """A piece of the call number `index`: its first has the id and the name, all together the arguments."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


class Seen(msgspec.Struct, tag="seen", frozen=True):
    """What a generator has done since it started, and what it does now; `cache` is the share of its memory in use."""

    running: int
    waiting: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cache: float


class Done(msgspec.Struct, tag="done", frozen=True):
    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


class Vectors(msgspec.Struct, tag="vectors", frozen=True):
    """Little-endian float32, row after row; `tokens` is the number read by the model."""

    data: bytes
    tokens: int


class Failed(msgspec.Struct, tag="failed", frozen=True):
    code: FailureCode
    message: str

    def error(self) -> ProveoutError:
        if self.code == "invalid_request":
            return InvalidInput(self.message)
        return Unavailable(self.message) if self.code == "overloaded" else UpstreamFailed(self.message)


Request = Ping | Look | Generate | Embed | Match
Reply = Accepted | Piece | ToolPiece | Done | Vectors | Seen | Failed

_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def pack(frame: Request | Reply) -> bytes:
    body = msgspec.msgpack.encode(frame)
    return len(body).to_bytes(4, "big") + body


# -- the model process's side: one thread, no asyncio, since a step of a model holds the GIL ---------


class Client:
    """One connection. Never blocks: what the kernel does not take waits in `outbox`."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.inbox = bytearray()
        self.outbox = bytearray()

    def requests(self) -> Iterator[Request]:
        """The whole frames received so far. Raises ValueError on what is not one."""
        while len(self.inbox) >= 4:
            length = int.from_bytes(self.inbox[:4], "big")
            if length > MAX_FRAME:
                raise ValueError(f"a frame of {length} bytes")
            if len(self.inbox) < 4 + length:
                return
            body = bytes(self.inbox[4 : 4 + length])
            del self.inbox[: 4 + length]
            yield _requests.decode(body)


class Door:
    """The clients of a listening Unix socket, for a single-threaded loop."""

    def __init__(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    def poll(self, timeout: float | None) -> list[tuple[Client, Request | None]]:
        """What arrived, waiting up to `timeout` seconds (None: until something does).

        None instead of a request: the client has left, and is forgotten.
        """
        arrived: list[tuple[Client, Request | None]] = []
        for key, events in self._selector.select(timeout):
            if isinstance(key.data, Client):
                if events & selectors.EVENT_WRITE:
                    self._flush(key.data)
                if events & selectors.EVENT_READ:
                    arrived += self._read(key.data)
            elif isinstance(key.fileobj, socket.socket):
                for client in self._accept(key.fileobj):
                    arrived += self._read(client)  # its request is mostly there already
        return arrived

    def send(self, client: Client, *replies: Reply) -> None:
        """To a client that has left: does nothing, and `poll` says so."""
        if client.sock.fileno() < 0:
            return
        for reply in replies:
            client.outbox += pack(reply)
        self._flush(client)

    def _accept(self, listener: socket.socket) -> Iterator[Client]:
        while True:
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            client = Client(sock)
            self._selector.register(sock, selectors.EVENT_READ, client)
            yield client

    def _read(self, client: Client) -> list[tuple[Client, Request | None]]:
        open_ = client.sock.fileno() >= 0
        while open_:
            try:
                data = client.sock.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            client.inbox += data
            open_ = bool(data)
        arrived: list[tuple[Client, Request | None]] = []
        try:
            arrived.extend((client, request) for request in client.requests())
        except (ValueError, msgspec.MsgspecError):
            open_ = False
        if not open_:
            self._forget(client)
            arrived.append((client, None))
        return arrived

    def _flush(self, client: Client) -> None:
        try:
            while client.outbox:
                del client.outbox[: client.sock.send(client.outbox)]
        except BlockingIOError:
            pass
        except OSError:
            client.outbox.clear()  # gone: the next read finds out
        if len(client.outbox) > MAX_UNREAD:
            client.outbox.clear()
            client.sock.shutdown(socket.SHUT_RDWR)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.outbox else 0)
        if self._selector.get_key(client.sock).events != events:
            self._selector.modify(client.sock, events, client)

    def _forget(self, client: Client) -> None:
        if client.sock.fileno() >= 0:
            self._selector.unregister(client.sock)
            client.sock.close()


# -- the caller's side -------------------------------------------------------------------------------


async def call(path: Path, request: Request, greeting: float = GREETING) -> AsyncGenerator[Reply, None]:
    """Send one request; yield `Accepted`, then what follows. Closing the iterator cancels the request.

    Raises Unavailable when nobody answers within `greeting` seconds or too many wait already, InvalidInput
    for a request that the model cannot take, UpstreamFailed when the model fails, and Truncated when its
    process goes away midway.
    """
    name = path.stem
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=MAX_FRAME)
    except OSError as error:
        raise Unavailable(f"The {name} is not running; it is being restarted.") from error
    try:
        writer.write(pack(request))
        try:
            async with asyncio.timeout(greeting):
                reply = await _receive(reader)
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            raise Unavailable(f"The {name} does not answer; it is starting or restarting.") from error
        while True:
            if isinstance(reply, Failed):
                raise reply.error()
            yield reply
            if isinstance(reply, Done | Vectors | Seen) or isinstance(request, Ping):
                return
            try:
                reply = await _receive(reader)
            except (OSError, asyncio.IncompleteReadError) as error:
                raise Truncated(f"The {name} went away before the end of its answer.") from error
    finally:
        writer.close()


async def _receive(reader: asyncio.StreamReader) -> Reply:
    length = int.from_bytes(await reader.readexactly(4), "big")
    return _replies.decode(await reader.readexactly(length))
