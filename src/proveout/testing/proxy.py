"""A TCP proxy that breaks connections as it is told, to stand between any client and any server.

What happens is decided for each connection by `plan`, which may be replaced at any time:

    async with proxy("127.0.0.1", up.port) as faulty:
        faulty.plan = lambda number: Fault(after=700, then="reset")
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal

Then = Literal["close", "reset", "silence", "garbage"]
AT_ONCE = -1
_PIECE = 1 << 16
_GARBAGE = 512  # bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one connection.

    `delay`: seconds by which each piece of the response is late. `then`, once exactly `after` bytes of the response
    went through (AT_ONCE: when the connection opens, before the server hears of it): `close` ends it in order, as a
    server does that stops (FIN), `reset` drops it (RST), `silence` swallows all that comes from then on (a black
    hole), `garbage` sends 512 random bytes in place of the rest and closes.
    """

    delay: float = 0.0
    after: int = AT_ONCE
    then: Then | None = None


NO_FAULT = Fault()
Plan = Callable[[int], Fault]
"""From a connection's number, counted from 0, to its fault."""


class Proxy:
    """A running proxy, with counters over its life."""

    def __init__(self, host: str, port: int) -> None:
        self.plan: Plan = lambda _: NO_FAULT
        self.port = 0
        self.connections = 0
        self.sent = 0  # bytes of requests
        self.received = 0  # bytes of responses that went through
        self.faults: Counter[Then] = Counter()
        self.live: set[_Connection] = set()
        self._target = (host, port)
        self._tasks: set[asyncio.Task[None]] = set()

    def reset_all(self) -> None:
        """Drops every connection that is open now."""
        for connection in list(self.live):
            self.faults["reset"] += 1
            connection.reset()

    async def flap(self, up: float, down: float) -> None:
        """Until cancelled: `up` seconds of service, then `down` seconds in which every connection is dropped."""
        plan = self.plan
        try:
            while True:
                await asyncio.sleep(up)
                self.plan = lambda _: Fault(then="reset")
                self.reset_all()
                await asyncio.sleep(down)
                self.plan = plan
        finally:
            self.plan = plan

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.sleep(0)  # sockets are closed in the loop's next turn

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = _Connection(self, self.plan(self.connections), reader, writer)
        self.connections += 1
        self.live.add(connection)
        try:
            with suppress(OSError, asyncio.CancelledError):  # a cancel is our own end: there is nobody above to tell
                await connection.run(*self._target)
        finally:
            connection.abort()
            self.live.discard(connection)
            self._tasks.discard(task)


class _Connection:
    def __init__(self, proxy: Proxy, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy, self._fault, self._reader, self._writer = proxy, fault, reader, writer
        self._server: asyncio.StreamWriter | None = None
        self._silent = False

    async def run(self, host: str, port: int) -> None:
        """Until either side ends, or the fault does. HTTP clients do not half-close: one end is the end of both."""
        fault = self._fault
        if fault.then is not None and fault.after == AT_ONCE:
            await self._happen(fault.then)
            return
        reader, self._server = await asyncio.open_connection(host, port)
        pumps = [asyncio.create_task(self._requests(self._server)), asyncio.create_task(self._responses(reader))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    def reset(self) -> None:
        """Ends the client's side with a RST, as a host does that went away."""
        held: socket.socket | None = self._writer.get_extra_info("socket")
        if held is not None and held.fileno() >= 0:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def abort(self) -> None:
        """Lets go of both sides; what was written and not yet sent is still sent to the client."""
        self._writer.close()
        if self._server is not None:
            self._server.transport.abort()

    async def _requests(self, server: asyncio.StreamWriter) -> None:
        while piece := await self._reader.read(_PIECE):
            if not self._silent:
                self._proxy.sent += len(piece)
                server.write(piece)
                await server.drain()

    async def _responses(self, reader: asyncio.StreamReader) -> None:
        fault, passed = self._fault, 0
        while piece := await reader.read(_PIECE):
            if fault.delay:
                await asyncio.sleep(fault.delay)
            if fault.then is not None:
                piece = piece[: fault.after - passed]
            passed += len(piece)
            self._proxy.received += len(piece)
            self._writer.write(piece)
            await self._writer.drain()
            if fault.then is not None and passed >= fault.after:
                await self._happen(fault.then)
                return

    async def _happen(self, then: Then) -> None:
        self._proxy.faults[then] += 1
        if then == "reset":
            self.reset()
        elif then == "garbage":
            self._writer.write(random.Random(self._proxy.connections).randbytes(_GARBAGE))  # noqa: S311 - any bytes do
            await self._writer.drain()
        elif then == "silence" and self._server is None:
            while await self._reader.read(_PIECE):
                pass
        elif then == "silence":
            self._silent = True
            await asyncio.Event().wait()  # the other pump ends this when the client gives up


@asynccontextmanager
async def proxy(host: str, port: int, *, listen: int = 0) -> AsyncIterator[Proxy]:
    """A proxy to `host:port` on 127.0.0.1:`listen`, in this event loop; 0 takes a free port."""
    running = Proxy(host, port)
    server = await asyncio.start_server(running.serve, "127.0.0.1", listen)
    try:
        running.port = server.sockets[0].getsockname()[1]
        yield running
    finally:
        server.close()
        await running.close()
        await server.wait_closed()
