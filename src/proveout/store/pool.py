"""The pool of connections, and the only way to run a query: inside a session with or without a scope."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, LiteralString

import msgspec
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb, set_json_dumps
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from proveout.domain import Scope
from proveout.errors import Conflict, InvalidInput, StorageFull, Unavailable
from proveout.store.line import Line
from proveout.store.queries import Query, load

Row = Mapping[str, Any]

_SET_SCOPE = """select set_config('proveout.workspace', %s, true),
    set_config('proveout.readers', %s::text[]::text, true),
    set_config('proveout.unrestricted', %s, true)"""


class Session:
    """One transaction. A session without a scope runs only queries that are marked unscoped."""

    def __init__(self, connection: AsyncConnection[DictRow], queries: Mapping[str, Query], scoped: bool) -> None:
        self._connection = connection
        self._queries = queries
        self._scoped = scoped

    def _query(self, name: str) -> Query:
        query = self._queries[name]
        if query.scoped and not self._scoped:
            raise TypeError(f"{name} reads content: run it inside Store.within(scope)")
        return query

    async def fetch(self, name: str, /, **parameters: Any) -> list[DictRow]:
        """All rows of the named query."""
        cursor = await self._connection.execute(self._query(name).sql, parameters)
        return await cursor.fetchall()

    async def row(self, name: str, /, **parameters: Any) -> DictRow | None:
        """The first row, or None."""
        cursor = await self._connection.execute(self._query(name).sql, parameters)
        return await cursor.fetchone()

    async def run(self, name: str, /, **parameters: Any) -> int:
        """Runs a statement; answers with the number of rows that it touched."""
        return (await self._connection.execute(self._query(name).sql, parameters)).rowcount

    async def run_many(self, name: str, rows: Iterable[Row]) -> None:
        """Runs a statement once per row, in one batch."""
        async with self._connection.cursor() as cursor:
            await cursor.executemany(self._query(name).sql, rows)


class Store:
    """A bounded pool on one Postgres, as the role `proveout_service`, which row-level security binds."""

    def __init__(self, dsn: str, *, size: int) -> None:
        self._queries = load()
        self._dsn = dsn
        self._line: Line | None = None
        self._pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
            dsn,
            min_size=1,
            max_size=size,
            timeout=5,
            open=False,
            configure=_configure,
            kwargs={"row_factory": dict_row, "autocommit": True},
        )

    async def open(self) -> None:
        """Connects; raises Unavailable when the database does not answer within 30 s."""
        try:
            await self._pool.open(wait=True, timeout=30)
        except PoolTimeout as error:
            raise Unavailable("The database does not answer.") from error

    async def close(self) -> None:
        await self._pool.close()
        if self._line is not None:
            self._line.close()

    @asynccontextmanager
    async def within(self, scope: Scope) -> AsyncIterator[Session]:
        """A transaction that sees what `scope` may see."""
        async with self._transaction() as connection:
            await connection.execute(
                _SET_SCOPE, (scope.workspace, scope.readers, "on" if scope.unrestricted else "off")
            )
            yield Session(connection, self._queries, scoped=True)

    @asynccontextmanager
    async def unscoped(self) -> AsyncIterator[Session]:
        """A transaction that sees no content at all."""
        async with self._transaction() as connection:
            yield Session(connection, self._queries, scoped=False)

    async def run_alone(self, name: str, /, **parameters: Jsonb) -> None:
        """Runs one unscoped statement as its own transaction, on a connection beside the pool: one round trip.

        Always the same statement, for one caller at a time.
        """
        with _our_errors():
            if self._line is None or self._line.closed:
                connection = await AsyncConnection.connect(self._dsn, autocommit=True, row_factory=dict_row)
                try:
                    await _configure(connection)
                    sql = Session(connection, self._queries, scoped=False)._query(name).sql
                    self._line = await Line.open(connection, sql)
                except psycopg.Error:
                    await connection.close()
                    raise
            await self._line.run({key: msgspec.json.encode(value.obj) for key, value in parameters.items()})

    async def listen(self, channel: LiteralString, seconds: float) -> AsyncGenerator[None, None]:
        """Yields at every NOTIFY on the channel, and every so many seconds. Raises Unavailable."""
        with _our_errors():
            async with await AsyncConnection.connect(self._dsn, autocommit=True) as connection:
                await connection.execute("listen " + channel)
                while True:
                    async for _ in connection.notifies(timeout=seconds, stop_after=1):
                        pass
                    yield

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection[DictRow]]:
        with _our_errors():
            async with self._pool.connection() as connection, connection.transaction():
                yield connection


@contextmanager
def _our_errors() -> Iterator[None]:
    """Turns what a database does into our errors."""
    try:
        yield
    except psycopg.errors.DiskFull as error:
        raise StorageFull from error
    except (PoolTimeout, psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise Unavailable("The database is not reachable just now; try again in a moment.") from error
    except psycopg.DataError as error:
        raise InvalidInput(f"The database does not take this: {error.diag.message_primary or error}.") from error
    except psycopg.IntegrityError as error:
        raise Conflict(f"The database has this already, or not what it needs: {error.diag.message_primary}.") from error


async def _configure(connection: AsyncConnection[DictRow]) -> None:
    await connection.execute("set role proveout_service")
    await connection.execute("set search_path to proveout, public")
    set_json_dumps(msgspec.json.encode, connection)


def as_json(value: object) -> Jsonb:
    """A parameter for a jsonb column; dataclasses, enums and datetimes included."""
    return Jsonb(value)


def as_array(values: Sequence[str]) -> str:
    """A text[] as one text, for a column of lists of different lengths within an unnest."""
    return "{" + ",".join('"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"' for v in values) + "}"


def as_vector(values: Sequence[float]) -> str:
    """A parameter for a pgvector column, as text."""
    return "[" + ",".join(f"{v:.7g}" for v in values) + "]"
