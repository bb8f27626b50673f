"""Brings a database to this version's schema: `schema.sql` for a fresh one, else the migrations."""

from __future__ import annotations

import re
from importlib.resources import files

import psycopg

from proveout.errors import StartRefused

_LOCK = 0x70726F76656F7574  # "proveout" in ASCII: one start at a time migrates
_MINIMUM_POSTGRES = 150000
_NAME = re.compile(r"\d{4}_(pre|post)_[a-z_]+\.sql")


async def migrate(dsn: str) -> None:
    """Applies what is missing, in one transaction, under a lock that other starts wait for.

    Raises StartRefused when the database cannot be used, saying what to change.
    """
    try:
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            await _check(connection)
            await connection.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
            done = await _applied(connection)
            if done is None:
                await connection.execute(_text("schema.sql"))
            for name in migrations():
                if done is not None and name not in done:
                    await connection.execute(_text("migrations", name))
                if done is None or name not in done:
                    await connection.execute("insert into proveout.migrations (name) values (%s)", (name,))
    except psycopg.errors.InsufficientPrivilege as error:
        raise StartRefused(
            f"The database role may not set up the schema ({error.diag.message_primary}): "
            "give it CREATE on the database, CREATEROLE, and have CREATE EXTENSION vector run."
        ) from error
    except psycopg.OperationalError as error:
        raise StartRefused(f"The database cannot be reached: {' '.join(str(error).split())}") from error


def migrations() -> list[str]:
    """The names of all migrations, in their order."""
    folder = files(__package__) / "migrations"
    return sorted(f.name for f in folder.iterdir() if _NAME.fullmatch(f.name)) if folder.is_dir() else []


async def _check(connection: psycopg.AsyncConnection) -> None:
    if connection.info.server_version < _MINIMUM_POSTGRES:
        raise StartRefused(f"Postgres {connection.info.server_version // 10000} is too old: 15 or newer is needed.")
    cursor = await connection.execute("select true from pg_available_extensions where name = 'vector'")
    if not await cursor.fetchone():
        raise StartRefused("This Postgres has no pgvector: install its package (0.8 or newer) on the server.")


async def _applied(connection: psycopg.AsyncConnection) -> set[str] | None:
    cursor = await connection.execute("select to_regclass('proveout.migrations') is not null")
    if (await cursor.fetchone()) != (True,):
        return None
    cursor = await connection.execute("select name from proveout.migrations")
    return {name for (name,) in await cursor.fetchall()}


def _text(*path: str) -> str:
    return files(__package__).joinpath(*path).read_text(encoding="utf-8")
