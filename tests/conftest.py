"""The front door for tests: a real Postgres, a real server with real models, and nothing faked that need not be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest

from pages import Page
from proveout.store.postgres import EmbeddedPostgres
from proveout.store.schema import migrate
from proveout.testing.client import Client
from proveout.testing.proxy import Proxy, proxy
from proveout.testing.upstream import Upstream, upstream

ROOT = Path(__file__).parent.parent
HELPDESK = ROOT / "examples" / "helpdesk"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The long runs are left out unless they are asked for by name, as `make soak` does."""
    return True if collection_path.name == "soak" and not any("soak" in name for name in config.args) else None


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

    def pid_of(self, name: str) -> int:
        """The living child whose command has `name` in it: `gateway`, `worker`, `postgres`, `generator` …"""
        for _ in range(100):  # it may be about to be started again
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            for child in children:
                with contextlib.suppress(FileNotFoundError):
                    if name in Path(f"/proc/{child}/cmdline").read_bytes().decode():
                        return int(child)
            time.sleep(0.1)
        raise AssertionError(f"up has no child {name}")

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
    _share_cache(data)
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
    _caches.append(data / "cache")
    return Server(process, found[1], data, text, time.monotonic() - began)


_caches: list[Path] = []


def _share_cache(data: Path) -> None:
    """Gives a new data folder the converted models of the first server, which takes seconds to make them."""
    if _caches and not data.exists():
        data.mkdir(mode=0o700)
        shutil.copytree(_caches[0], data / "cache", copy_function=os.link)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`proveout up examples/helpdesk` with the real models; its data folder has a space in its name."""
    running = start_server(tmp_path_factory.mktemp("server") / "a data folder", str(HELPDESK))
    yield running
    assert running.stop() == 0


@dataclass
class World:
    """A gateway's client, the upstream behind the providers `up` and `faulty`, and the proxy before `faulty`."""

    client: Client
    upstream: Upstream
    proxy: Proxy


@dataclass
class Scripted:
    """A server whose providers are at these ports; each test puts an upstream and a proxy of its own there."""

    server: Server
    upstream_port: int
    proxy_port: int

    @contextlib.asynccontextmanager
    async def world(self) -> AsyncIterator[World]:
        """The upstream and the proxy, with ledgers that begin here, and a client without a limit of connections."""
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with (
            upstream(port=self.upstream_port) as up,
            proxy("127.0.0.1", self.upstream_port, listen=self.proxy_port) as between,
            aiohttp.ClientSession(connector=connector) as session,
        ):
            yield World(Client(session, self.server.url, self.server.owner_key), up, between)


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripted]:
    """`proveout up` with a scripted upstream as its provider: `up/SCRIPT`, and `faulty/SCRIPT` through the proxy."""
    folder = tmp_path_factory.mktemp("scripted")
    ports = [free_port(), free_port()]
    (folder / "proveout.yaml").write_text(
        f"providers:\n"
        f"  up: {{base_url: 'http://127.0.0.1:{ports[0]}/v1'}}\n"
        f"  faulty: {{base_url: 'http://127.0.0.1:{ports[1]}/v1', timeouts: {{first: 2, between: 1}}}}\n"
        f"capture: {{apps: {{silent: none}}}}\n"
        f"echo:\n"
        f"  honest: {{replies: ['The kiosk opens at nine in the morning.']}}\n"
        f"  candid: {{replies: ['The kiosk opens at nine in the morning.']}}\n"
        f"  liar: {{replies: ['The kiosk opens at nine in the morning.', 'Pirates sell dragons to the moon.']}}\n"
    )
    running = start_server(folder / "data", "--config", str(folder / "proveout.yaml"))
    yield Scripted(running, *ports)
    assert running.stop() == 0


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of tests/node, installed as its lock file has them."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: neither the official Node client nor axe-core was tried")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests" / "node" / name, folder)
    quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    subprocess.run([npm, "ci", *quiet], cwd=folder, check=True, timeout=120)
    return folder / "node_modules"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


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


@pytest.fixture(scope="module")
def page(request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page of a soak's module (`PAGE`, `TITLE`), to which its tests add; written when all of them have passed."""
    made, failed = Page(request.module.TITLE), request.session.testsfailed
    yield made
    if request.session.testsfailed == failed:
        made.write(request.module.PAGE)
