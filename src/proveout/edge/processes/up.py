"""`proveout up`: the database, the engine, the gateways and the workers, as one supervised whole."""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import os
import secrets
import signal
import socket
import ssl
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from proveout import settings
from proveout.access.keys import ensure_owner, new_key_text
from proveout.domain import WORKSPACE
from proveout.edge import mirror
from proveout.edge.processes.supervisor import Process, Supervisor
from proveout.engine.hub import fetch
from proveout.engine.local import local_models
from proveout.errors import ProveoutError, StartRefused
from proveout.store.pool import Store
from proveout.store.postgres import EmbeddedPostgres
from proveout.store.sealing import MASTER_KEY_FILE, new_master_key, write_master_keys

_SOCKET_PATH_BYTES = 100  # sun_path holds 108
_DATABASE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What `up` was asked for."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    jobs: int = 1
    database: str | None = None
    config: Path | None = None
    apps: tuple[str, ...] = ()
    serve: str | None = None
    folders: tuple[Path, ...] = ()
    certificate: Path | None = None  # with `key`: the gateways speak TLS
    key: Path | None = None
    behind_proxy: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """A server that was started: where it answers, the file that holds its owner key, its TLS certificate."""

    url: str
    owner_key: Path
    certificate: Path | None


@asynccontextmanager
async def up(plan: Plan) -> AsyncIterator[Running]:
    """Starts everything; the processes run until the context ends. Raises StartRefused."""
    data = plan.data.absolute()
    _check_door(plan)
    lock = claim(data)
    supervisor = Supervisor(data / "logs")
    try:
        with _listen(plan.host, plan.port) as door:
            await _start(plan, data, door, supervisor)
            port = door.getsockname()[1]
            host = f"[{plan.host}]" if ":" in plan.host else plan.host
            yield Running(
                f"{'https' if plan.certificate else 'http'}://{host}:{port}", data / "owner.key", plan.certificate
            )
    finally:
        await supervisor.stop()
        os.close(lock)


async def _start(plan: Plan, data: Path, door: socket.socket, supervisor: Supervisor) -> None:
    run = runtime_folder(data)
    engine = run / "engine.sock"
    environment = settings.for_child(
        {
            settings.DATA: data,
            settings.ENGINE: engine,
            settings.CONFIG: plan.config,
            settings.METRICS: run / "metrics",
            settings.SERVE: plan.serve,
        }
    )
    await _start_models(run, environment, supervisor)
    database = plan.database
    if database is None:
        postgres = EmbeddedPostgres(data / "postgres", run)
        await asyncio.to_thread(postgres.prepare)
        # SIGINT is Postgres's fast shutdown: it waits for no client.
        await supervisor.start(Process("postgres", postgres.argv, environment, stop=signal.SIGINT))
        database = postgres.dsn
    environment |= {settings.DATABASE.name: database, settings.APPS.name: ",".join(plan.apps)}
    environment[settings.FOLDERS.name] = os.pathsep.join(map(str, plan.folders))
    await _migrate(environment, patience=_DATABASE_SECONDS if plan.database is None else 0)
    _ensure_master_key(data)
    await _ensure_owner(database, data)
    for number in range(1, plan.jobs + 1):
        await supervisor.start(Process(f"worker-{number}", _python("worker"), environment))
    for number in range(1, plan.workers + 1):
        fd = door.fileno()
        argv = _python("gateway", fd, *_tls_arguments(plan))
        await supervisor.start(Process(f"gateway-{number}", argv, environment, (fd,)))


async def _start_models(run: Path, environment: Mapping[str, str], supervisor: Supervisor) -> None:
    """The model processes, as many of each as configured, and the engine that they serve. Raises StartRefused."""
    told = settings.read(environment)
    mirror.check(told.mlflow)
    await asyncio.to_thread(fetch, told)
    models = await asyncio.to_thread(local_models, told)
    arguments: list[str] = []
    counts: Counter[str] = Counter()
    for model in models:
        if model.role not in told.serve:
            continue
        module = "generator" if model.role == "chat" else "embedder"
        arguments += [f"--{model.role}", model.name]
        for _ in range(model.instances):
            counts[module] += 1
            name = f"{module}-{counts[module]}"
            path = run / f"{model.role}-{counts[module]}.sock"
            arguments.append(str(path))
            listening = _listen_unix(path)
            command = _python(module, listening.fileno(), "--model", model.name, "--digest", model.digest)
            await supervisor.start(Process(name, command, environment, (listening.fileno(),)))
            listening.detach()  # the supervisor hands it on to every successor
    listening = _listen_unix(run / "engine.sock")
    command = _python("engine", listening.fileno(), *arguments)
    await supervisor.start(Process("engine", command, environment, (listening.fileno(),)))
    listening.detach()


def _python(module: str, fd: int | None = None, *arguments: str) -> Sequence[str]:
    listening = [] if fd is None else ["--socket-fd", str(fd)]
    return [sys.executable, "-m", f"proveout.edge.processes.{module}", *listening, *arguments]


def _check_door(plan: Plan) -> None:
    """Raises StartRefused for a door that would let secrets pass in the clear, or a certificate that cannot be used."""
    if plan.certificate is None and plan.key is None:
        if not plan.behind_proxy and not _is_loopback(plan.host):
            raise StartRefused(
                f"{plan.host} can be reached from other machines, and keys would cross the network in the clear: give "
                "--tls-certificate and --tls-key, or --behind-proxy when a proxy that speaks TLS stands before it."
            )
        return
    if plan.certificate is None or plan.key is None:
        raise StartRefused("TLS needs both --tls-certificate and --tls-key.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(plan.certificate, plan.key, password="")
    except OSError as error:  # ssl.SSLError is one
        said = error.strerror or str(error)
        raise StartRefused(f"{plan.certificate} and {plan.key} cannot be used for TLS ({said}).") from error


def _is_loopback(host: str) -> bool:
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return True  # it cannot be listened on, which is said there
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


def _tls_arguments(plan: Plan) -> list[str]:
    if plan.certificate is None or plan.key is None:
        return ["--behind-proxy"] if plan.behind_proxy else []
    return ["--tls-certificate", str(plan.certificate.absolute()), "--tls-key", str(plan.key.absolute())]


def claim(data: Path) -> int:
    """Makes the data folder, for its owner alone, and holds its lock. Raises StartRefused."""
    try:
        for folder in (data, data / "logs", data / "cache"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(data / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartRefused(
            f"The data folder {data} cannot be used ({error.strerror}): choose another with --data."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StartRefused(
            f"Another `proveout up` already runs on {data}: stop it, or choose another --data."
        ) from None
    return lock


def _listen(host: str, port: int) -> socket.socket:
    """The door. Raises StartRefused when the port is taken or the host is not this machine's."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        door = socket.socket(family, kind, protocol)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(address)
        door.listen(2048)
    except OSError as error:
        raise StartRefused(
            f"{host}:{port} cannot be listened on ({error.strerror}): choose another with --host or --port."
        ) from error
    door.set_inheritable(True)
    return door


def _listen_unix(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen(128)
    return listening


def runtime_folder(data: Path) -> Path:
    """A 0700 folder whose paths are short enough for Unix sockets: in the data folder, else in the temporary one.

    Raises StartRefused when somebody else holds the temporary one.
    """
    run = data / "run"
    if _too_long(run):
        mark = blake2b(os.fsencode(data), digest_size=8).hexdigest()
        run = Path(tempfile.gettempdir()) / f"proveout-{os.geteuid()}-{mark}"
    if _too_long(run):
        raise StartRefused(f"The path {data} is too long for Unix sockets, and so is {run}: choose a shorter --data.")
    with suppress(FileExistsError):  # what is there is looked at, whatever it is
        run.mkdir(mode=0o700)
    found = run.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise StartRefused(f"{run} is not this user's private folder: remove it, or choose a shorter --data.")
    return run


async def _migrate(environment: Mapping[str, str], *, patience: float) -> None:
    """Runs `proveout migrate`, before any process uses the database. Raises StartRefused with what it said."""
    command = [sys.executable, "-m", "proveout", "migrate", "--wait", str(patience)]
    child = await asyncio.create_subprocess_exec(
        *command, env=dict(environment), stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, said = await child.communicate()
    except asyncio.CancelledError:
        child.kill()
        raise
    if child.returncode:
        words = said.decode(errors="replace").strip()
        raise StartRefused(words or f"`proveout migrate` ended with {child.returncode}.")


def _ensure_master_key(data: Path) -> None:
    """Makes the master key, unless the environment, a command or the data folder has one."""
    told = settings.read()
    if told.master_key is None and told.master_key_command is None and not (data / MASTER_KEY_FILE).exists():
        write_master_keys(data / MASTER_KEY_FILE, [new_master_key()])


def _too_long(folder: Path) -> bool:
    return len(os.fsencode(folder / ".s.PGSQL.5432.lock")) > _SOCKET_PATH_BYTES


def write_secret(path: Path, text: str) -> None:
    """A file for its owner alone, whole or not at all."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    draft.write_text(text + "\n", encoding="ascii")
    draft.replace(path)


async def _ensure_owner(database: str, data: Path) -> None:
    """Registers the owner key, making it first when the data folder has none."""
    path = data / "owner.key"
    if not path.exists():
        write_secret(path, new_key_text())
    store = Store(database, size=1)
    await store.open()
    try:
        await ensure_owner(store, WORKSPACE, path.read_text(encoding="ascii").strip())
    except ProveoutError as error:
        raise StartRefused(f"The owner key could not be registered: {error.message}") from error
    finally:
        await store.close()
