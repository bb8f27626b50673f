import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from proveout.testing.proxy import Fault, Proxy, proxy

ANSWER = bytes(range(256)) * 40


@asynccontextmanager
async def between() -> AsyncIterator[Proxy]:
    """A proxy before a server that answers each line with ANSWER, and keeps the connection open."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while await reader.readline():
                writer.write(ANSWER)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, proxy("127.0.0.1", server.sockets[0].getsockname()[1]) as running:
        yield running
    await asyncio.sleep(0.01)  # its connections end with the proxy's


async def receive(running: Proxy, size: int = len(ANSWER), patience: float = 0.3) -> tuple[bytes, str]:
    """What came, and how it ended: `whole`, `close`, `reset` or `silence`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    got = b""
    try:
        writer.write(b"ask\n")
        while len(got) < size:
            async with asyncio.timeout(patience):
                piece = await reader.read(1 << 16)
            if not piece:
                return got, "close"
            got += piece
        return got, "whole"
    except ConnectionResetError:
        return got, "reset"
    except TimeoutError:
        return got, "silence"
    finally:
        writer.transport.abort()


def test_without_fault_all_goes_through() -> None:
    async def scenario() -> None:
        async with between() as running:
            assert await receive(running) == (ANSWER, "whole")
            assert (running.connections, running.sent, running.received) == (1, 4, len(ANSWER))
            assert not running.faults

    asyncio.run(scenario())


@pytest.mark.parametrize("after", [0, 1, 255, 256, len(ANSWER) - 1, len(ANSWER)])
@pytest.mark.parametrize("then", ["close", "reset", "silence"])
def test_cut_at_exactly_this_byte(after: int, then: str) -> None:
    async def scenario() -> None:
        async with between() as running:
            running.plan = lambda _: Fault(after=after, then=then)  # type: ignore[arg-type]
            got, ending = await receive(running, len(ANSWER) + 1, 0.1)
            assert ending == then and got == ANSWER[:after]
            assert running.faults == {then: 1} and running.received == after

    asyncio.run(scenario())


@pytest.mark.parametrize("then", ["close", "reset", "silence"])
def test_at_once_the_server_hears_nothing(then: str) -> None:
    async def scenario() -> None:
        async with between() as running:
            running.plan = lambda _: Fault(then=then)  # type: ignore[arg-type]
            assert await receive(running, patience=0.1) in [(b"", then), (b"", "reset")]
            assert running.sent == 0 and running.faults == {then: 1}

    asyncio.run(scenario())


def test_garbage_stands_in_for_the_rest() -> None:
    async def scenario() -> None:
        async with between() as running:
            running.plan = lambda _: Fault(after=100, then="garbage")
            got, ending = await receive(running)
            assert ending == "close" and got[:100] == ANSWER[:100] and len(got) == 612
            assert got[100:] not in ANSWER

    asyncio.run(scenario())


def test_delay_and_faults_by_connection() -> None:
    async def scenario() -> None:
        async with between() as running:
            running.plan = lambda number: Fault(delay=0.2) if number else Fault(after=3, then="reset")
            assert await receive(running) == (ANSWER[:3], "reset")
            began = time.monotonic()
            assert (await receive(running))[1] == "whole"
            assert time.monotonic() - began > 0.2

    asyncio.run(scenario())


def test_flapping_drops_what_is_open_and_comes_back() -> None:
    async def scenario() -> None:
        async with between() as running:
            flapping = asyncio.create_task(running.flap(0.2, 0.2))
            assert await receive(running, len(ANSWER) + 1, 1) == (ANSWER, "reset")
            assert (await receive(running))[1] == "reset"
            await asyncio.sleep(0.25)
            assert (await receive(running))[1] == "whole"
            flapping.cancel()
            await asyncio.wait({flapping})
            assert (await receive(running))[1] == "whole"

    asyncio.run(scenario())


def test_a_client_that_goes_is_passed_on_at_once_even_in_silence() -> None:
    async def scenario() -> None:
        async with between() as running:
            running.plan = lambda _: Fault(after=10, then="silence")
            assert (await receive(running, patience=0.1))[1] == "silence"
            await asyncio.sleep(0.02)
            assert not running.live

    asyncio.run(scenario())
