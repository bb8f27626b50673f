"""A prepared statement on a connection of its own: whole or an error, whatever the server and the network do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import psycopg
import pytest
import uvloop
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from proveout.store.line import Line

SQL = "insert into t select %(number)s::int, %(text)s::text returning 1 / (%(divisor)s)::int"


def run(dsn: str, work: Callable[[Line], Awaitable[None]]) -> None:
    async def go() -> None:
        connection = await AsyncConnection.connect(dsn, autocommit=True, row_factory=dict_row)
        await connection.execute("create table t (number int primary key, text text)")
        line = await Line.open(connection, SQL)
        try:
            await work(line)
        finally:
            line.close()
        assert line.closed

    asyncio.run(go())


def given(number: int, text: str = "x", divisor: int = 1) -> dict[str, bytes]:
    return {"text": text.encode(), "divisor": str(divisor).encode(), "number": str(number).encode()}


def stored(dsn: str) -> list[tuple[int, int]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute("select number, length(text) from t order by number").fetchall()


def test_what_was_run_is_committed_and_large_texts_arrive(dsn: str) -> None:
    async def work(line: Line) -> None:
        await line.run(given(1))
        await line.run(given(2, "ü" * 20_000_000))  # more than a socket takes at once
        assert stored(dsn) == [(1, 1), (2, 20_000_000)]

    run(dsn, work)


def test_an_error_of_one_run_is_not_the_next_one_s(dsn: str) -> None:
    async def work(line: Line) -> None:
        await line.run(given(1))
        with pytest.raises(psycopg.errors.UniqueViolation):
            await line.run(given(1))
        with pytest.raises(psycopg.errors.DivisionByZero):
            await line.run(given(2, divisor=0))
        await line.run(given(3))
        assert stored(dsn) == [(1, 1), (3, 1)]

    run(dsn, work)


@pytest.mark.parametrize("when", ["idle", "busy"])
def test_a_server_that_ends_the_connection(dsn: str, when: str) -> None:
    async def work(line: Line) -> None:
        await line.run(given(1))
        end = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
        with psycopg.connect(dsn, autocommit=True) as connection:
            if when == "busy":
                connection.execute("begin")
                connection.execute("lock table t")
                running = asyncio.create_task(line.run(given(2)))
                await asyncio.sleep(0.1)
                connection.execute(end + " and datname = current_database()")
                with pytest.raises(psycopg.OperationalError):
                    await running
            else:
                connection.execute(end + " and datname = current_database()")
                await asyncio.sleep(0.1)
                assert line.closed
        await asyncio.sleep(0.1)
        with pytest.raises(psycopg.OperationalError):
            await line.run(given(3))
        assert stored(dsn) == [(1, 1)]

    run(dsn, work)


def test_one_that_is_cancelled_leaves_nothing_to_be_mistaken(dsn: str) -> None:
    async def work(line: Line) -> None:
        with psycopg.connect(dsn) as connection:
            connection.execute("lock table t")
            running = asyncio.create_task(line.run(given(1)))
            await asyncio.sleep(0.1)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert line.closed

    run(dsn, work)


def test_no_run_waits_for_a_server_that_has_gone(dsn: str) -> None:
    """On uvloop, as in a gateway: after an error on a socket it never calls its reader again."""

    async def scenario() -> int:
        breaks = 0
        async with await AsyncConnection.connect(dsn, autocommit=True) as killer:
            await killer.execute("create table t (number int, text text)")
            line: Line | None = None
            while breaks < 100:
                try:
                    if line is None or line.closed:
                        connection = await AsyncConnection.connect(dsn, autocommit=True, row_factory=dict_row)
                        line = await Line.open(connection, SQL)
                    running = asyncio.create_task(line.run(given(1, "x" * 100_000)))
                    await killer.execute(
                        "select pg_terminate_backend(pid) from pg_stat_activity"
                        " where pid <> pg_backend_pid() and datname = current_database()"
                    )
                    await asyncio.wait_for(running, 3)
                except psycopg.Error:
                    breaks += 1
            if line is not None:
                line.close()
        return breaks

    assert uvloop.run(scenario()) == 100
