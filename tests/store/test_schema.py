"""Setting up and bringing up to date; the launcher of the embedded Postgres."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from proveout.errors import StartRefused
from proveout.store.postgres import MAJOR, EmbeddedPostgres, binary, password_file
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


@pytest.fixture
def older(tmp_path: Path) -> EmbeddedPostgres:
    """A cluster of Postgres 16 with vectors in it, whose server was killed."""
    tmp_path.chmod(0o700)
    folder = tmp_path / "with a space"
    folder.mkdir(mode=0o700)
    programs = binary("postgres").parents[2] / "pginstall" / "bin"
    embedded = EmbeddedPostgres(folder / "postgres", folder)
    password = folder / "postgres.password"
    password.write_text("old-password")
    as_user = embedded.argv[: embedded.argv.index(str(binary("postgres")))]
    made = [str(programs / "initdb"), "-D", str(folder / "postgres"), "-U", "postgres", "--auth=scram-sha-256"]
    subprocess.run([*as_user, *made, f"--pwfile={password}", "--locale=C"], check=True, capture_output=True)
    command = [str(programs / "postgres") if word == str(binary("postgres")) else word for word in embedded.argv]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        for _ in range(100):
            try:
                with psycopg.connect(embedded.dsn) as connection:
                    connection.execute("create extension vector")
                    connection.execute("create table kept as select n, '[1,2]'::halfvec v from generate_series(1, 9) n")
                    connection.execute("create index on kept using hnsw ((v::halfvec(2)) halfvec_cosine_ops)")
                break
            except psycopg.OperationalError:
                time.sleep(0.1)
        server.kill()
    time.sleep(0.5)  # its children notice
    return embedded


def test_a_cluster_of_an_older_postgres_becomes_one_of_this(older: EmbeddedPostgres) -> None:
    with older.serving() as dsn, psycopg.connect(dsn) as connection:
        assert connection.info.server_version // 10000 == MAJOR
        found = connection.execute("select count(*) from kept where v <=> '[1,2]' < 0.01").fetchone()
        assert found == (9,)
    left = {path.name for path in older.folder.parent.iterdir() if path.is_dir()}
    assert left == {"postgres"}, "what is erased from now on must not stay in the old files"


@pytest.mark.parametrize("old", ["postgres", "postgres.old"])
def test_an_exchange_that_was_cut_short_is_ended(tmp_path: Path, old: str) -> None:
    """Killed before the first rename, or between the two: what is upgraded has its name once it is whole."""
    for name, version in (("postgres.upgraded", MAJOR), (old, 16)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "PG_VERSION").write_text(f"{version}\n")
    EmbeddedPostgres(tmp_path / "postgres", tmp_path).prepare()
    assert (tmp_path / "postgres" / "PG_VERSION").read_text() == f"{MAJOR}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["postgres"]


def test_a_cluster_whose_programs_are_not_here_says_what_to_do(tmp_path: Path) -> None:
    for version, said in (("9", r"was made by Postgres 9, .* install them \(on Debian: postgresql-9"), ("99", "newer")):
        (tmp_path / version / "postgres").mkdir(parents=True)
        (tmp_path / version / "postgres" / "PG_VERSION").write_text(version + "\n")
        with pytest.raises(StartRefused, match=said):
            EmbeddedPostgres(tmp_path / version / "postgres", tmp_path / version).prepare()


def test_a_password_with_signs_reaches_the_tools_of_postgres() -> None:
    with password_file("postgresql://me:a%3Ab%5C@/x") as file:
        assert file.read_text() == "*:*:*:*:a\\:b\\\\\n" and file.stat().st_mode & 0o077 == 0
