"""`proveout backup` and `proveout restore`: on the machine that holds the data folder, while the server works."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated

import typer

from proveout import settings
from proveout.edge.cli import output
from proveout.edge.processes.up import claim, runtime_folder
from proveout.errors import InvalidInput, StartRefused
from proveout.settings import Settings
from proveout.store import backup as archive
from proveout.store.events import Kind, note
from proveout.store.pool import Store
from proveout.store.postgres import EmbeddedPostgres
from proveout.store.sealing import MASTER_KEY_FILE, read_master_keys, write_master_keys

PassphraseFile = Annotated[
    Path | None, typer.Option(help="A file whose first line is the passphrase. Default: asked for.")
]
_MEGABYTE = 2**20


def backup(
    file: Annotated[Path, typer.Argument(help="Where to; it must not be there yet.")],
    data: Annotated[Path | None, typer.Option(help="The data folder. Default: ./.proveout")] = None,
    database: Annotated[str | None, typer.Option(help="The DSN of the Postgres; default: the embedded one.")] = None,
    with_master_key: Annotated[
        bool, typer.Option("--with-master-key", help="Bring the master key along, under a passphrase.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    json: output.AsJson = False,
) -> None:
    """Write everything that the server keeps into one encrypted file, while it works."""
    told = settings.read()
    folder = (data or told.data).absolute()
    masters = _masters(told, folder)
    guarded = archive.guard(_text(masters), _passphrase(passphrase_file)) if with_master_key else None
    created = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        file.touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be made: {error.strerror}.") from error
    whole = False
    try:
        with file.open("wb") as out, _database(folder, database or told.database) as dsn, _bar("saving") as bar:
            source = archive.look(dsn)
            header, key = archive.new_header(created, source.owner, masters[0], guarded)
            writer = archive.Writer(out, header, key)
            files = _put_files(writer, folder, told.config, bar(0))
            asyncio.run(_note(dsn, source, Kind.BACKUP_TAKEN, created))
            with archive.dumped(dsn) as dump:
                size = writer.put(archive.DATABASE, dump, bar(source.size))
            checksum = writer.finish()
            out.flush()
            os.fsync(out.fileno())
        whole = True
    finally:
        if not whole:
            file.unlink()
    done = {"file": str(file), "bytes": writer.size, "sha256": checksum, "created": created, "files": files}
    if json:
        output.document({**done, "database_bytes": size, "master_key": with_master_key})
    else:
        output.say(f"{file}: {writer.size / _MEGABYTE:.1f} MB, sha256 {checksum}")


def restore(
    file: Annotated[Path, typer.Argument(help="A backup.")],
    data: Annotated[Path, typer.Option(help="The data folder to make; it must be empty, or not be there yet.")],
    database: Annotated[
        str | None, typer.Option(help="The DSN of an empty Postgres; default: an embedded one in the data folder.")
    ] = None,
    master_key_file: Annotated[Path | None, typer.Option(help="The master key, where the backup has none.")] = None,
    passphrase_file: PassphraseFile = None,
    json: output.AsJson = False,
) -> None:
    """Make a data folder, and its database, out of a backup. The whole file is checked first."""
    folder = data.absolute()
    if folder.exists() and any(folder.iterdir()):
        raise InvalidInput(f"{folder} is not empty: restore into another folder.")
    with _opened(file) as content, ExitStack() as held:
        reader = archive.Reader(content)
        masters, ours = _masters_for(reader, master_key_file, passphrase_file)
        key = reader.unlock(masters)
        total = file.stat().st_size
        with _bar("checking") as bar:
            report = bar(total)
            for _ in reader.pieces(key, report):
                pass
        lock = claim(folder)
        held.callback(os.close, lock)
        whole = False
        try:
            if ours:
                write_master_keys(folder / MASTER_KEY_FILE, masters)
            with _bar("restoring") as bar:
                _unpack(reader, key, folder, database, bar(total))
            whole = True
        finally:
            if not whole:  # it was empty, and it is again
                for path in folder.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if json:
        output.document({"data": str(folder), "created": reader.header.created})
    else:
        output.say(f"{folder} holds what was there at {reader.header.created}: start it with `proveout up --data`")


def _unpack(reader: archive.Reader, key: bytes, folder: Path, database: str | None, report: archive.Report) -> None:
    with ExitStack() as stack:
        dsn = database or stack.enter_context(EmbeddedPostgres(folder / "postgres", runtime_folder(folder)).serving())
        with archive.restoring(dsn, reader.header.owner) as sink:
            for name, piece in reader.pieces(key, report):
                if name == archive.DATABASE:
                    sink.write(piece)
                else:
                    archive.write_piece(folder, name, piece)
        asyncio.run(_note(dsn, archive.look(dsn), Kind.BACKUP_RESTORED, reader.header.created))


def _put_files(writer: archive.Writer, folder: Path, config: Path | None, report: archive.Report) -> list[str]:
    """The data folder's own files, the spool's first: what is drained after it was copied is in the database.

    Its names in the backup are those in the data folder.
    """
    names = [(f"spool/{path.name}", path) for path in sorted((folder / "spool").glob("*"))]
    names += [("owner.key", folder / "owner.key"), ("proveout.yaml", config or folder / "proveout.yaml")]
    kept = []
    for name, path in names:
        with suppress(FileNotFoundError), path.open("rb") as content:
            if writer.put(name, content, report):
                kept.append(name)
    return kept


@contextmanager
def _database(folder: Path, named: str | None) -> Iterator[str]:
    """The DSN of the database; the embedded one is served for as long as it takes when no `up` does."""
    if named is not None:
        yield named
        return
    if not (folder / "postgres").is_dir():
        raise StartRefused(f"{folder} holds no database: give --data, or --database.")
    embedded = EmbeddedPostgres(folder / "postgres", runtime_folder(folder))
    try:
        lock = claim(folder)
    except StartRefused:
        yield embedded.dsn
        return
    try:
        with embedded.serving() as dsn:
            yield dsn
    finally:
        os.close(lock)


async def _note(dsn: str, source: archive.Source, kind: Kind, created: str) -> None:
    store = Store(dsn, size=1)
    await store.open()
    try:
        async with store.unscoped() as session:
            for workspace in source.workspaces:
                await note(session, workspace, kind, "system", {"created": created})
    finally:
        await store.close()


def _masters(told: Settings, folder: Path) -> list[bytes]:
    return read_master_keys(told.master_key, told.master_key_command, folder / MASTER_KEY_FILE)


def _masters_for(reader: archive.Reader, named: Path | None, passphrase_file: Path | None) -> tuple[list[bytes], bool]:
    """The master keys, and whether they are for the data folder: those of environment and command are not."""
    told = settings.read()
    if named is not None:
        return read_master_keys(None, None, named), True
    if told.master_key is not None or told.master_key_command is not None:
        return _masters(told, Path()), False
    if reader.header.master is None:
        raise InvalidInput("This backup does not hold the master key: give --master-key-file, or PROVEOUT_MASTER_KEY.")
    text = reader.master(_passphrase(passphrase_file)).decode()
    return read_master_keys(text, None, Path()), True


def _text(masters: list[bytes]) -> bytes:
    return b" ".join(base64.b64encode(key) for key in masters)


def _passphrase(file: Path | None) -> str:
    if file is None:
        return str(typer.prompt("passphrase", hide_input=True, err=True))
    try:
        found = file.read_text(encoding="utf-8").split("\n", 1)[0]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read: {error}.") from error
    if not found:
        raise InvalidInput(f"{file}: its first line is empty; it is to be the passphrase.")
    return found


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    try:
        content = file.open("rb")
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}.") from error
    with content:
        yield content


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int], archive.Report]]:
    """Gives what makes a report towards so many bytes in all; 0 where that is not known."""
    with output.progress_bar() as show:

        def towards(total: int) -> archive.Report:
            done = 0

            def report(more: int) -> None:
                nonlocal done
                done += more
                show(done // _MEGABYTE, max(total, done) // _MEGABYTE, f"{what} (MB)")

            return report

        yield towards
