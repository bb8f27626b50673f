"""A connection that runs one prepared statement again and again, with as little of Python around it as there can be.

psycopg's own way to wait costs a task and a timer for each statement: half of the processor time that a small one takes
(docs/decisions/009). libpq itself never blocks, so here its socket is watched directly.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping

import psycopg
from psycopg import AsyncConnection, pq
from psycopg.rows import DictRow

_NAME = b"line"
_LOOK_SECONDS = 0.1
_PARAMETER = re.compile(r"%\((\w+)\)s")
_DONE = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)


class Line:
    """One statement on a connection that nothing else uses, for one caller at a time. Raises psycopg's errors."""

    def __init__(self, connection: AsyncConnection[DictRow], parameters: list[str]) -> None:
        """Use `open`."""
        self._connection = connection  # which ends with its last reference
        self._pq = connection.pgconn
        self._parameters = parameters
        self._loop = asyncio.get_running_loop()
        # A duplicate: libpq closes its own when the connection breaks, and the next to open anything gets its number.
        self._socket: int | None = os.dup(self._pq.socket)
        self._done: asyncio.Future[None] | None = None
        self._result: pq.abc.PGresult | None = None
        self._sendable = asyncio.Event()
        self._loop.add_reader(self._socket, self._read)

    @classmethod
    async def open(cls, connection: AsyncConnection[DictRow], sql: str) -> Line:
        """Prepares `sql`, whose parameters are written `%(name)s`, each once."""
        names = _PARAMETER.findall(sql)
        for number, name in enumerate(names, 1):
            sql = sql.replace(f"%({name})s", f"${number}")
        line = cls(connection, names)
        line._pq.send_prepare(_NAME, sql.encode())
        try:
            await line._answer()
        except psycopg.Error:
            line.close()
            raise
        return line

    @property
    def closed(self) -> bool:
        """Whether the connection is gone: by `close`, by an error, or because the server ended it."""
        return self._socket is None

    async def run(self, parameters: Mapping[str, bytes]) -> None:
        """Runs the statement as its own transaction; returns when it is committed. Parameters are in text format."""
        self._pq.send_query_prepared(_NAME, [parameters[name] for name in self._parameters])
        await self._answer()

    def close(self) -> None:
        """Ends the connection."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            os.close(self._socket)
            self._socket = None
            self._sendable.set()
            self._pq.finish()

    async def _answer(self) -> None:
        """Sends what is left to be sent and returns when the server is done with it."""
        self._done = self._loop.create_future()
        self._looking = self._loop.call_later(_LOOK_SECONDS, self._look)
        try:
            while not self._done.done() and self._pq.flush():
                await self._writable()
            await self._done
        except asyncio.CancelledError:
            self.close()  # an answer that nobody waits for would be taken for the next one's
            raise
        finally:
            self._looking.cancel()
        if self._result is not None and self._result.status not in _DONE:
            raise psycopg.errors.error_from_result(self._result)

    async def _writable(self) -> None:
        """Returns when more can be sent, or when the connection is gone."""
        if self._socket is not None:
            self._sendable.clear()
            self._loop.add_writer(self._socket, self._sendable.set)
            await self._sendable.wait()
        if self._socket is not None:
            self._loop.remove_writer(self._socket)

    def _look(self) -> None:
        """Reads without being told to: uvloop tells nothing more of a socket once it saw an error on it."""
        self._looking = self._loop.call_later(_LOOK_SECONDS, self._look)
        self._read()

    def _read(self) -> None:
        """Takes what came in."""
        if self.closed:
            return
        try:
            self._pq.consume_input()
            done = self._take()
            if self._pq.status == pq.ConnStatus.BAD:
                raise psycopg.OperationalError("the server ended the connection")
        except psycopg.Error as error:
            self.close()
            self._end(error)
        else:
            if done:
                self._end(None)

    def _take(self) -> bool:
        """Takes the results that came; whether the last one did, which none follows."""
        while not self._pq.is_busy():
            result = self._pq.get_result()
            if result is None:
                return True
            self._result = result
        return False

    def _end(self, error: psycopg.Error | None) -> None:
        if self._done is None or self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)
