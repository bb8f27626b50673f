"""A database is dumped as one snapshot and restored for another owner, all of it or nothing."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator

import psycopg
import pytest

from proveout.errors import StartRefused
from proveout.store.backup import BackupFailed, dumped, look, restoring
from proveout.store.schema import migrate

COUNTS = "select (select count(*) from proveout.workspaces), (select count(*) from proveout.chunks)"
BY_OWNER = "select tablename, roles::text from pg_policies where policyname = 'by_owner' order by 1"


@pytest.fixture
def databases(postgres: str) -> Iterator[tuple[str, str]]:
    """The DSN of a migrated database of the role `boss`, no superuser, and that of an empty one of the superuser."""
    names = [f"dump_{secrets.token_hex(4)}" for _ in range(2)]
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute("create role boss login bypassrls createrole password 'a:b'")
        admin.execute("grant proveout_service to boss with admin option")
        admin.execute(f"create database {names[0]} owner boss".encode())
        admin.execute(f"create database {names[1]}".encode())
        mine, theirs = (postgres.replace("/postgres?", f"/{name}?") for name in names)
        with psycopg.connect(mine, autocommit=True) as connection:
            connection.execute("create extension vector")
        password = postgres.split(":")[2].split("@")[0]
        yield mine.replace(f"postgres:{password}@", "boss:a%3Ab@"), theirs
        for name in names:
            admin.execute(f"drop database {name} with (force)".encode())
        admin.execute("drop role boss")


def test_a_database_is_restored_for_another_owner(databases: tuple[str, str]) -> None:
    source, target = databases
    with pytest.raises(StartRefused, match="holds nothing of ours"):
        look(target)
    asyncio.run(migrate(source))
    with psycopg.connect(source) as connection:
        connection.execute("insert into proveout.workspaces (name, secret) values ('default', 'x')")
        connection.execute("insert into proveout.knowledge (workspace, name, origin) values ('default', 'kb', 'push')")
        connection.execute(
            "insert into proveout.versions (workspace, knowledge, document, digest, pipeline, readers, sealed, chunks) "
            "values ('default', 'kb', 'd', 'sha256:1', 'p', '{everyone}', 's', 1)"
        )
        connection.execute(
            'insert into proveout.chunks (workspace, knowledge, version, ordinal, sealed, start, "end", dimensions, '
            "embedding) select 'default', 'kb', id, 0, 's', 0, 1, 2, '[1,2]' from proveout.versions"
        )
        connection.execute("select proveout.index_vectors_v1('default', 'kb', 2)")
    assert look(source).owner == "boss" and look(source).workspaces == ["default"]
    with dumped(source) as dump:
        content = dump.read()

    with pytest.raises(BackupFailed, match="pg_restore"), restoring(target, "boss") as sink:
        sink.write(content[: len(content) // 2])
    with psycopg.connect(target) as connection:
        assert connection.execute("select to_regnamespace('proveout')").fetchone() == (None,)
    with restoring(target, "boss") as sink:
        for at in range(0, len(content), 1000):
            sink.write(content[at : at + 1000])
    with psycopg.connect(target) as connection:
        assert connection.execute(COUNTS.encode()).fetchone() == (1, 1)
        owners = connection.execute(BY_OWNER.encode()).fetchall()
        assert owners and {roles for _, roles in owners} == {"{postgres}"}
    asyncio.run(migrate(target))  # nothing is left to do
    with pytest.raises(StartRefused, match="is not empty"), restoring(target, "boss"):
        pass
