"""`proveout doctor`: what of this machine, this data folder and this database is not as a server needs it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import platform
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from proveout import settings
from proveout.edge.cli import output
from proveout.edge.notify.targets import targets
from proveout.engine import weights
from proveout.errors import StartRefused
from proveout.store.examine import Check, examine
from proveout.store.postgres import EmbeddedPostgres

_GIB = 2**30
_SECRETS = ("owner.key", "master.key", "postgres.password")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def doctor(
    database: Annotated[str | None, typer.Option(help="The DSN of a Postgres to look at.")] = None,
    data: Annotated[Path | None, typer.Option(help="The data folder. Default: ./.proveout")] = None,
    json: output.AsJson = False,
) -> None:
    """Check this machine, the data folder, the weights and the database. Needs no server; changes nothing."""
    checks = [_platform(), _cpu(), _memory()]
    told = None
    try:
        told = settings.read()
        checks.append(Check("config", "ok", "it can be read"))
    except StartRefused as error:
        checks.append(Check("config", "fail", error.message, "Correct what the message names."))
    folder = (data or (told.data if told else Path(settings.DATA.default))).absolute()
    checks += [_disk(folder), _data(folder), *_secrets(folder)]
    checks += [_weights(found) for found in (weights.generator, weights.embedder)]
    followers = [target.name for target in targets(told.notify)] if told else []
    checks += _database(folder, database or (told.database if told else None), followers)
    failed = any(check.state == "fail" for check in checks)
    if json:
        output.document({"healthy": not failed, "checks": msgspec.to_builtins(checks)})
    else:
        for check in checks:
            output.say(f"{check.state:4}  {check.name}: {check.found}")
            if check.mend:
                output.say(f"      → {check.mend}")
    if failed:
        raise typer.Exit(1)


# -- the machine ---------------------------------------------------------------------------------------------------


def _platform() -> Check:
    system = f"{platform.system()} {platform.release()} on {platform.machine()}"
    found = f"Python {platform.python_version()}, {system}"
    if platform.system() == "Linux" and platform.machine() in ("x86_64", "aarch64"):
        return Check("platform", "ok", found)
    return Check("platform", "warn", found, "Proveout is tried on Linux, x86-64; elsewhere use a container of it.")


def _cpu() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    flags = _cpu_flags()
    fast = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16") if name in flags]
    found = f"{cores} cores, {', '.join(fast) or 'no wide vectors known'}"
    if flags and not fast:
        return Check("cpu", "warn", found, "Embedded models will be slow: name a remote provider in proveout.yaml.")
    if cores < 2:
        return Check("cpu", "warn", found, "Give the machine two cores: one for models, one for the rest.")
    return Check("cpu", "ok", found)


def _cpu_flags() -> set[str]:
    """What Linux says of the first processor; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return set()
    found = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return set(next(found, []))


def _memory() -> Check:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return Check("memory", "warn", "unknown here", "Make sure that 2 GiB are free.")
    known = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    free = known["MemAvailable"]
    if _CGROUP_LIMIT.is_file() and (limit := _CGROUP_LIMIT.read_text(encoding="ascii").strip()) != "max":
        free = min(free, int(limit))
    found = f"{free / _GIB:.1f} GiB for this server"
    if free < _GIB:
        return Check("memory", "fail", found, "Free or add memory: the embedded models and Postgres need 1 GiB.")
    if free < 2 * _GIB:
        return Check("memory", "warn", found, "2 GiB leave room for large documents and many requests.")
    return Check("memory", "ok", found)


# -- the data folder -----------------------------------------------------------------------------------------------


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(_existing(folder)).free
    found = f"{free / _GIB:.1f} GiB are free at {folder}"
    if free < _GIB // 4:
        return Check("disk", "fail", found, "Free some, or choose another --data: a full disk stops the database.")
    if free < 2 * _GIB:
        return Check("disk", "warn", found, "Records and knowledge grow: make room, or choose another --data.")
    return Check("disk", "ok", found)


def _data(folder: Path) -> Check:
    parent = _existing(folder)
    if not parent.is_dir():
        return Check("data folder", "fail", f"{parent} is a file", "Choose another --data.")
    if not os.access(parent, os.R_OK | os.W_OK | os.X_OK):
        return Check("data folder", "fail", f"{parent} cannot be written by this user", "Choose another --data.")
    if parent != folder:
        return Check("data folder", "ok", f"{folder} will be made at the first start")
    found = folder.stat()
    if found.st_uid != os.geteuid():
        mend = f"Start as its owner, or run: chown -R {os.geteuid()} '{folder}'"
        return Check("data folder", "fail", f"{folder} belongs to user {found.st_uid}", mend)
    if stat.S_IMODE(found.st_mode) & 0o077:
        mend = f"Run: chmod 700 '{folder}'"
        return Check("data folder", "warn", f"{folder} can be looked into by others", mend)
    return Check("data folder", "ok", f"{folder}, for its owner alone")


def _secrets(folder: Path) -> Iterator[Check]:
    """The files that open everything: nobody else may read them."""
    for path in (folder / name for name in _SECRETS):
        try:
            open_to = stat.S_IMODE(path.stat().st_mode) & 0o077
        except OSError:  # not there yet, or the folder is not ours, which is said already
            continue
        if open_to:
            yield Check(path.name, "fail", "can be read by others", f"Run: chmod 600 '{path}'")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(p for p in (folder, *folder.parents) if p.exists())


# -- weights and database ------------------------------------------------------------------------------------------


def _weights(find: Callable[[], weights.Weights]) -> Check:
    """Present, and as their package was published: its list of files holds their digests."""
    name = f"weights of the {find.__name__}"
    try:
        found = find()
    except StartRefused as error:
        return Check(name, "fail", "not installed", error.message)
    known = _published(found)
    wrong = [path.name for path in found.files if known.get(path) != _sha256(path)]
    if wrong and not all(path in known for path in found.files):
        return Check(
            name, "warn", f"{found.name}, of unknown origin", "Run `make setup`, which checks what it installs."
        )
    if wrong:
        mend = "Run `rm .venv/.ready && make setup`, which installs them anew."
        return Check(name, "fail", f"{', '.join(wrong)} is not what was published", mend)
    return Check(name, "ok", f"{found.name}, as published")


def _published(found: weights.Weights) -> dict[Path, str]:
    """The digests that the package of these weights was published with, by file."""
    packages = metadata.packages_distributions()
    top = next((part for part in found.files[0].parts if part in packages), None)
    files = metadata.distribution(packages[top][0]).files if top else None
    return {
        Path(str(file.locate())): file.hash.value for file in files or () if file.hash and file.hash.mode == "sha256"
    }


def _sha256(path: Path) -> str:
    """As wheels write it: URL-safe base64 without padding (PEP 376)."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _database(folder: Path, named: str | None, followers: Sequence[str]) -> list[Check]:
    if named is not None:
        return asyncio.run(examine(named, followers))
    postgres = folder / "postgres"
    checks = [_binaries(EmbeddedPostgres(postgres, folder))]
    try:
        lines = (postgres / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        os.kill(int(lines[0]), 0)
        dsn = EmbeddedPostgres(postgres, Path(lines[4])).dsn
    except (OSError, ValueError, IndexError):
        return [*checks, Check("database", "ok", "the embedded one is not running; `proveout up` starts it")]
    return checks + asyncio.run(examine(dsn, followers))


def _binaries(postgres: EmbeddedPostgres) -> Check:
    """As `up` would start it: as root in a user namespace, with the wheel's binaries."""
    try:
        argv = postgres.argv
    except StartRefused as error:
        return Check("embedded postgres", "fail", "cannot be started here", error.message)
    done = subprocess.run(
        [*argv[: argv.index("-D")], "--version"], capture_output=True, text=True, check=False, timeout=30
    )
    if done.returncode:
        mend = "Install what the message names, or give --database DSN."
        return Check("embedded postgres", "fail", done.stderr.strip() or f"ended with {done.returncode}", mend)
    within = " in a user namespace" if argv[0] == "unshare" else ""
    return Check("embedded postgres", "ok", done.stdout.strip() + within)
