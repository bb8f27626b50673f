"""Setting up and bringing up to date; the launcher of the embedded Postgres."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from proveout.errors import StartRefused
from proveout.store.postgres import EmbeddedPostgres
from proveout.store.schema import migrate


def test_migrating_twice_or_at_once_changes_nothing(postgres: str, dsn: str) -> None:
    asyncio.run(migrate(dsn))
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("create database fresh")
    fresh = postgres.replace("/postgres?", "/fresh?")

    async def both() -> None:
        await asyncio.gather(migrate(fresh), migrate(fresh), migrate(fresh))

    asyncio.run(both())
    with psycopg.connect(fresh) as connection:
        row = connection.execute("select count(*) from proveout.configuration").fetchone()
        assert row == (1,)


def test_a_database_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(StartRefused, match="The database cannot be reached"):
        asyncio.run(migrate("postgresql://nobody@127.0.0.1:1/none"))


def test_the_launcher_stops_what_a_killed_predecessor_left(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folder = tmp_path / "with a space"
    folder.mkdir(mode=0o700)
    embedded = EmbeddedPostgres(folder / "postgres", folder)
    embedded.prepare()
    left = subprocess.Popen(embedded.argv, stderr=subprocess.DEVNULL)
    while not list(folder.glob(".s.PGSQL.*")):
        time.sleep(0.05)
    again = EmbeddedPostgres(folder / "postgres", folder)
    again.prepare()
    assert left.wait(timeout=10) == 0
    (folder / "postgres" / "postmaster.pid").write_text("1\n")  # a pid that lives and is not ours
    again.prepare()
    assert (folder / "postgres.password").stat().st_mode & 0o777 == 0o600


def test_connecting_needs_the_password(postgres: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres.replace(postgres.split(":")[2].split("@")[0], "wrong"))
