import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest

from proveout.engine import channel
from proveout.engine.channel import (
    Accepted,
    Client,
    Done,
    Door,
    Embed,
    Failed,
    Generate,
    Piece,
    Ping,
    Reply,
    Request,
    Vectors,
)
from proveout.errors import InvalidInput, Truncated, Unavailable, UpstreamFailed

ASK = Generate(turns=[{"role": "user", "content": "Grüße"}], max_tokens=3, stop=("\n",))


def listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


@contextmanager
def serving(path: Path, answer: Callable[[Door, Client, Request | None], bool]) -> Iterator[None]:
    """A model process in a thread; `answer` returns False to stop it."""

    def loop(listener: socket.socket) -> None:
        door = Door(listener)
        while True:
            for client, request in door.poll(5):
                if not answer(door, client, request):
                    client.sock.close()
                    return

    with listening(path) as listener:
        thread = threading.Thread(target=loop, args=(listener,))
        thread.start()
        yield
        thread.join(10)
        assert not thread.is_alive()


async def collect(path: Path, request: Request) -> list[Reply]:
    async with aclosing(channel.call(path, request, greeting=1)) as replies:
        return [r async for r in replies]


def test_a_request_is_answered_frame_by_frame(tmp_path: Path) -> None:
    seen: list[Request | None] = []

    def answer(door: Door, client: Client, request: Request | None) -> bool:
        seen.append(request)
        if isinstance(request, Generate):
            door.send(client, Accepted(), Piece("Grüße "), Piece("zurück"), Done("stop", 4, 2))
        return request is not None

    with serving(tmp_path / "s", answer):
        replies = asyncio.run(collect(tmp_path / "s", ASK))
    assert replies == [Accepted(), Piece("Grüße "), Piece("zurück"), Done("stop", 4, 2)]
    assert seen == [ASK, None]


def test_frames_may_arrive_in_any_cut(tmp_path: Path) -> None:
    stream = channel.pack(Ping()) + channel.pack(ASK) + channel.pack(Embed(["a", "b"]))
    for cut in range(1, len(stream)):
        with listening(tmp_path / f"s{cut}") as listener, socket.socket(socket.AF_UNIX) as caller:
            door = Door(listener)
            caller.connect(listener.getsockname())
            arrived: list[tuple[Client, Request | None]] = []
            for part in (stream[:cut], stream[cut:]):
                caller.sendall(part)
                arrived += door.poll(1)
            arrived[0][0].sock.close()
            assert [request for _, request in arrived] == [Ping(), ASK, Embed(["a", "b"])]


def test_a_caller_that_leaves_is_reported(tmp_path: Path) -> None:
    seen: list[Request | None] = []

    def answer(door: Door, client: Client, request: Request | None) -> bool:
        seen.append(request)
        door.send(client, Accepted(), Piece("one"))
        return request is not None

    async def leave() -> None:
        async with aclosing(channel.call(tmp_path / "s", ASK)) as replies:
            assert await anext(replies) == Accepted()

    with serving(tmp_path / "s", answer):
        asyncio.run(leave())
    assert seen == [ASK, None]


def test_rubbish_and_giant_frames_close_the_connection(tmp_path: Path) -> None:
    for number, rubbish in enumerate((b"\x00\x00\x00\x03abc", b"\xff\xff\xff\xff")):
        with listening(tmp_path / f"s{number}") as listener, socket.socket(socket.AF_UNIX) as caller:
            door = Door(listener)
            caller.connect(listener.getsockname())
            caller.sendall(rubbish)
            assert [request for _, request in door.poll(1)] == [None]
            assert caller.recv(1) == b""


def test_a_client_that_does_not_read_is_cut_off_and_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "MAX_UNREAD", 1 << 20)
    with listening(tmp_path / "s") as listener, socket.socket(socket.AF_UNIX) as caller:
        door = Door(listener)
        caller.connect(listener.getsockname())
        caller.sendall(channel.pack(ASK))
        [(client, _)] = door.poll(1)
        for _ in range(40):
            door.send(client, Vectors(b"\0" * 100_000, 1))
        assert [request for _, request in door.poll(1)] == [None]
        door.send(client, Accepted())  # to one that has left: nothing happens


def test_large_replies_go_out_in_parts(tmp_path: Path) -> None:
    data = bytes(range(256)) * 8192

    def answer(door: Door, client: Client, request: Request | None) -> bool:
        if request is not None:
            door.send(client, Accepted(), Vectors(data, 7))
        return request is not None

    with serving(tmp_path / "s", answer):
        assert asyncio.run(collect(tmp_path / "s", Embed(["x"]))) == [Accepted(), Vectors(data, 7)]


def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as absent:
        asyncio.run(collect(tmp_path / "none", Ping()))
    assert absent.value.retry_after == 2
    # The supervisor's socket still listens while the process behind it is away.
    with listening(tmp_path / "s"), pytest.raises(Unavailable, match="does not answer"):
        asyncio.run(collect(tmp_path / "s", Ping()))


def test_a_process_that_dies_midway_truncates(tmp_path: Path) -> None:
    def answer(door: Door, client: Client, request: Request | None) -> bool:
        door.send(client, Accepted(), Piece("half an ans"))
        return False

    with serving(tmp_path / "s", answer), pytest.raises(Truncated):
        asyncio.run(collect(tmp_path / "s", ASK))


@pytest.mark.parametrize(
    ("failed", "error"),
    [
        (Failed("overloaded", "64 wait"), Unavailable),
        (Failed("invalid_request", "too long"), InvalidInput),
        (Failed("failed", "out of memory"), UpstreamFailed),
    ],
)
def test_failures_become_errors(tmp_path: Path, failed: Failed, error: type[Exception]) -> None:
    def answer(door: Door, client: Client, request: Request | None) -> bool:
        door.send(client, failed)
        return request is not None

    with serving(tmp_path / "s", answer), pytest.raises(error, match=failed.message):
        asyncio.run(collect(tmp_path / "s", ASK))
