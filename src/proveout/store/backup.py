"""A backup: one sealed file with all that a server keeps, written while it works, and restored anywhere.

    magic ‖ length u32 ‖ header (JSON) ‖ frames: length u32 ‖ AES-256-GCM(msgpack [name, bytes]), nonce first

Frames of one name in a row are one file; `database` is Postgres's own archive, of one snapshot. Every frame is bound to
the header and to its number, and the last one to being the last, so that whatever is changed, moved or cut off is found
where it is (the STREAM construction: Hoang et al., "Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance", CRYPTO 2015). The key of the frames lies in the header, wrapped by the master key. Where the backup
brings the master key along, that is sealed under a passphrase (scrypt, RFC 7914).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from proveout.errors import InvalidInput, ProveoutError, StartRefused
from proveout.store.postgres import binary, password_file
from proveout.store.sealing import Unsealable, seal, unseal

DATABASE = "database"
_MAGIC = b"proveout backup 1\n"
_LENGTH = struct.Struct("<I")
_PIECE = 2**20
_LONGEST = _PIECE + 1024  # bytes of a frame; whatever claims more is not one
_LONGEST_HEADER = 64 * 1024
_SCRYPT = {"n": 2**17, "r": 8, "p": 1}  # 128 MB and about half a second
_SCRYPT_MEMORY = 256 * 2**20
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")  # a file of the data folder, at most one folder deep

Report = Callable[[int], None]
"""Told how many bytes more are done."""


class Damaged(InvalidInput):
    """The backup is not what was written; the message says from which byte on."""

    code = "backup_damaged"


class BackupFailed(ProveoutError):
    """Postgres's own tool did not do its part; the message has its words."""

    code = "backup_failed"


class Guarded(msgspec.Struct, frozen=True):
    """The master key under a passphrase."""

    salt: bytes
    sealed: bytes


class Header(msgspec.Struct, frozen=True):
    """What can be read of a backup without a key."""

    created: str  # ISO 8601, UTC
    owner: str  # the role that owns the schema
    wrapped: bytes  # the key of the frames, under the master key
    master: Guarded | None


class Writer:
    """Writes a backup to `file`, piece by piece."""

    def __init__(self, file: IO[bytes], header: Header, key: bytes) -> None:
        self._file, self._key, self._frames = file, key, 0
        self._sum = hashlib.sha256()
        self.size = 0
        head = msgspec.json.encode(header)
        self._mark = _mark(head)
        self._write(_MAGIC + _LENGTH.pack(len(head)) + head)

    def put(self, name: str, content: IO[bytes], report: Report) -> int:
        """Adds a file; answers with its size. One without content leaves nothing."""
        size = 0
        while piece := content.read(_PIECE):
            self._frame((name, piece), last=False)
            size += len(piece)
            report(len(piece))
        return size

    def finish(self) -> str:
        """Writes the end. Answers with the SHA-256 of the whole file, in hex."""
        self._frame(("", b""), last=True)
        return self._sum.hexdigest()

    def _frame(self, content: tuple[str, bytes], *, last: bool) -> None:
        sealed = seal(self._key, msgspec.msgpack.encode(content), _purpose(self._mark, self._frames, last))
        self._write(_LENGTH.pack(len(sealed)) + sealed)
        self._frames += 1

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._sum.update(content)
        self.size += len(content)


class Reader:
    """Reads a backup. Raises Damaged when its beginning is not one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        if file.read(len(_MAGIC)) != _MAGIC:
            raise Damaged("At byte 0: this is not a backup, or another version's.")
        head = self._take(len(_MAGIC), _LONGEST_HEADER, "the header")
        self._begin = len(_MAGIC) + _LENGTH.size + len(head)
        self._mark = _mark(head)
        try:
            self.header = msgspec.json.decode(head, type=Header)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Damaged(f"At byte {len(_MAGIC) + _LENGTH.size}: the header was altered ({error}).") from error

    def unlock(self, masters: Sequence[bytes]) -> bytes:
        """The key of the frames. Raises InvalidInput when none of the master keys is this backup's."""
        for master in masters:
            with suppress(Unsealable):
                return unseal(_above(master), self.header.wrapped, "backup")
        raise InvalidInput("The master key is not the one of this backup, or the backup's header was altered.")

    def master(self, passphrase: str) -> bytes:
        """The text of the master key that the backup brings along. Raises InvalidInput."""
        if (guarded := self.header.master) is None:
            raise InvalidInput("This backup was made without the master key: give the key itself.")
        try:
            return unseal(_stretched(passphrase, guarded.salt), guarded.sealed, "master key")
        except Unsealable as error:
            raise InvalidInput("The passphrase is not the one of this backup.") from error

    def pieces(self, key: bytes, report: Report) -> Iterator[tuple[str, bytes]]:
        """Every file's name and bytes, in order. Raises Damaged where one is not what was written."""
        self._file.seek(offset := self._begin)
        number = 0
        while True:
            body = self._take(offset, _LONGEST, f"frame {number}")
            last = False
            try:
                plain = unseal(key, body, _purpose(self._mark, number, last))
            except Unsealable:
                last = True
                try:
                    plain = unseal(key, body, _purpose(self._mark, number, last))
                except Unsealable as error:
                    raise Damaged(f"At byte {offset}: frame {number} was altered, or is not in its place.") from error
            offset, number = offset + _LENGTH.size + len(body), number + 1
            if last:
                break
            yield msgspec.msgpack.decode(plain, type=tuple[str, bytes])
            report(_LENGTH.size + len(body))
        if self._file.read(1):
            raise Damaged(f"At byte {offset}: something follows the end.")

    def _take(self, offset: int, most: int, what: str) -> bytes:
        head = self._file.read(_LENGTH.size)
        length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else 0
        if length > most:
            raise Damaged(f"At byte {offset}: the length of {what} was altered.")
        body = self._file.read(length)
        if not length or len(body) < length:
            raise Damaged(f"At byte {offset + len(head) + len(body)}: the backup was cut short, within {what}.")
        return body


def new_header(created: str, owner: str, master: bytes, guarded: Guarded | None) -> tuple[Header, bytes]:
    """A header, and the fresh key of the frames that it holds wrapped."""
    key = secrets.token_bytes(32)
    return Header(created, owner, seal(_above(master), key, "backup"), guarded), key


def guard(master: bytes, passphrase: str) -> Guarded:
    """The text of the master key under a passphrase."""
    salt = secrets.token_bytes(16)
    return Guarded(salt, seal(_stretched(passphrase, salt), master, "master key"))


def _stretched(passphrase: str, salt: bytes) -> bytes:
    return hashlib.scrypt(passphrase.encode(), salt=salt, maxmem=_SCRYPT_MEMORY, dklen=32, **_SCRYPT)


def _above(master: bytes) -> bytes:
    return hmac.digest(master, b"proveout backup", "sha256")


def _mark(head: bytes) -> str:
    return hashlib.sha256(head).hexdigest()


def _purpose(mark: str, number: int, last: bool) -> str:
    return f"backup {mark} {number} {'last' if last else 'more'}"


def write_piece(folder: Path, name: str, piece: bytes) -> None:
    """Appends to a file that a backup names, for its owner alone. Raises Damaged for a name that leads elsewhere."""
    if not _NAME.fullmatch(name):
        raise Damaged(f"The backup names a file that no data folder has: {name!r}.")
    path = folder / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.touch(mode=0o600)
    with path.open("ab") as file:
        file.write(piece)


@dataclass(frozen=True, slots=True)
class Source:
    """A database as it is about to be backed up: the role that owns its schema, its bytes on disk, its workspaces."""

    owner: str
    size: int
    workspaces: Sequence[str]


def look(dsn: str) -> Source:
    """Raises StartRefused when the database cannot be used."""
    with _connected(dsn) as connection:
        row = connection.execute(
            "select pg_get_userbyid(nspowner)::text, pg_database_size(current_database()) from pg_namespace "
            "where nspname = 'proveout'"
        ).fetchone()
        if row is None:
            raise StartRefused("This database holds nothing of ours.")
        names = connection.execute("select name from proveout.workspaces order by name").fetchall()
    return Source(row[0], row[1], [name for (name,) in names])


@contextmanager
def dumped(dsn: str) -> Iterator[IO[bytes]]:
    """The whole database as one snapshot, in Postgres's own archive format. Raises BackupFailed."""
    options = ["--format=custom", "--compress=gzip:1", "--no-owner", "--no-comments", "--lock-wait-timeout=60s"]
    with tempfile.TemporaryFile() as said, _tool("pg_dump", dsn, options, said) as process:
        assert process.stdout is not None
        yield process.stdout


@contextmanager
def restoring(dsn: str, owner: str) -> Iterator[IO[bytes]]:
    """Takes what `dumped` gave, into a database without our schema, all or nothing. Raises BackupFailed, StartRefused.

    What was for `owner` alone is then for the role that restores.
    """
    with _connected(dsn) as connection:
        if connection.execute("select to_regnamespace('proveout')").fetchone() != (None,):
            raise StartRefused("The database is not empty: restore into another one.")
        for role in ("proveout_service", owner):
            if not connection.execute("select true from pg_roles where rolname = %s", (role,)).fetchone():
                connection.execute(sql.SQL("create role {} nologin").format(sql.Identifier(role)))
        connection.execute("grant proveout_service to current_user")
    options = ["--no-owner", "--no-comments", "--exit-on-error", "--single-transaction"]
    with tempfile.TemporaryFile() as said, _tool("pg_restore", dsn, options, said) as process:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it ended early, and says why
            yield process.stdin
            process.stdin.close()
    with _connected(dsn) as connection:
        for table, name in connection.execute(
            "select tablename, policyname from pg_policies where schemaname = 'proveout' and roles = array[%s::name]",
            (owner,),
        ).fetchall():
            statement = sql.SQL("alter policy {} on proveout.{} to current_user")
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(table)))


@contextmanager
def _tool(name: str, dsn: str, options: Sequence[str], said: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A tool of Postgres's on a database; the password is not in its command, which everybody can read."""
    with password_file(dsn) as secret:
        parts = {key: value for key, value in conninfo_to_dict(dsn).items() if key != "password"}
        target = make_conninfo("", **{**parts, "passfile": str(secret)})
        command = [str(binary(name)), *options, f"--dbname={target}"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
        whole = False
        try:
            yield process
            whole = True
        finally:
            if not whole:
                process.kill()
            for pipe in (process.stdin, process.stdout):
                with suppress(BrokenPipeError):
                    assert pipe is not None
                    pipe.close()
            code = process.wait()
    if code:
        said.seek(0)
        words = " ".join(said.read(4096).decode(errors="replace").split())
        raise BackupFailed(f"{name} ended with {code}: {words}")


@contextmanager
def _connected(dsn: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            yield connection
    except psycopg.OperationalError as error:
        raise StartRefused(f"The database cannot be used: {' '.join(str(error).split())}") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise StartRefused(f"The database role may not do this: {error.diag.message_primary}.") from error
