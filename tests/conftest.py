"""The front door for tests: a real Postgres, a real server with real models, and nothing faked that need not be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from proveout.store.postgres import EmbeddedPostgres
from proveout.store.schema import migrate

ROOT = Path(__file__).parent.parent
HELPDESK = ROOT / "examples" / "helpdesk"


@dataclass
class Server:
    """A running `proveout up`."""

    process: subprocess.Popen[str]
    url: str
    data: Path
    output: str
    seconds: float  # from the command to the printed address

    @property
    def owner_key(self) -> str:
        return (self.data / "owner.key").read_text().strip()

    @property
    def environment(self) -> dict[str, str]:
        """What a client's shell would have set."""
        return {**os.environ, "PROVEOUT_URL": self.url, "PROVEOUT_DATA": str(self.data)}

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs `proveout` against this server."""
        command = [sys.executable, "-m", "proveout", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300, check=False)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        return self.process.returncode

    def kill_everything(self) -> None:
        """kill -9 for the supervisor and every process below it, Postgres's backends included."""
        tree = [self.process.pid]
        for pid in tree:
            with contextlib.suppress(FileNotFoundError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    tree += [int(child) for child in (task / "children").read_text().split()]
        for pid in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate(timeout=30)


def start_server(data: Path, *arguments: str, within: Sequence[str] = ()) -> Server:
    """`proveout up` on a free port, run by the command `within`; returns when it says that it is up."""
    command = [sys.executable, "-m", "proveout", "up", *arguments, "--data", str(data), "--port", "0"]
    began = time.monotonic()
    process = subprocess.Popen(
        [*within, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=data.parent
    )
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if "curl" in line:
            break
    text = "".join(lines)
    found = re.search(r"Proveout is up: (\S+)", text)
    if not found:
        logs = "".join(f"\n== {p.name}\n{p.read_text()[-2000:]}" for p in (data / "logs").glob("*.log"))
        raise AssertionError(f"up did not come up:\n{text}{logs}")
    return Server(process, found[1], data, text, time.monotonic() - began)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`proveout up examples/helpdesk` with the real models; its data folder has a space in its name."""
    running = start_server(tmp_path_factory.mktemp("server") / "a data folder", str(HELPDESK))
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The DSN of an embedded Postgres that holds the database `template`, migrated."""
    folder = tmp_path_factory.mktemp("pg")
    folder.chmod(0o700)
    embedded = EmbeddedPostgres(folder / "postgres", folder)
    embedded.prepare()
    process = subprocess.Popen(embedded.argv, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                psycopg.connect(embedded.dsn).close()
                break
            except psycopg.OperationalError:
                time.sleep(0.1)
        with psycopg.connect(embedded.dsn, autocommit=True) as connection:
            connection.execute("create database template")
        asyncio.run(migrate(_database(embedded.dsn, "template")))
        yield embedded.dsn
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)


@pytest.fixture
def dsn(postgres: str) -> Iterator[str]:
    """A fresh database of the current schema."""
    name = f"test_{secrets.token_hex(4)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"create database {name} template template")
        yield _database(postgres, name)
        connection.execute(f"drop database {name} with (force)")


def _database(dsn: str, name: str) -> str:
    return dsn.replace("/postgres?", f"/{name}?")


@pytest.fixture
def app_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes an app folder: `app_folder({"app.yaml": "…", "knowledge/a.md": "…"})`."""

    def make(files: dict[str, Any], name: str = "app") -> Path:
        folder = tmp_path / name
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content if isinstance(content, bytes) else str(content).encode())
        return folder

    return make
