"""A disk that is full, and one that fails: said in one sentence, nothing that was answered is lost, all heals.

The server runs on a small disk of its own: a tmpfs in a namespace, which no rights are needed for where namespaces are
allowed. What fdatasync says is decided by a small library that is loaded before the C library.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest

from conftest import Server, start_server
from proveout.testing.client import Client, Seen
from proveout.testing.ledgers import Record, collect, compare

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
MOUNT = """set -e
folder=$0; size=$1; shift
mkdir -p "$folder/cache" "$folder.cache"  # converted models, which have room elsewhere
mount --bind "$folder/cache" "$folder.cache"
mount -t tmpfs -o "size=$size,mode=700" none "$folder"
mkdir "$folder/cache"
mount --move "$folder.cache" "$folder/cache"
exec "$@"
"""
FAILING_SYNC = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* Fails once each time that the file PROVEOUT_TEST_FAIL_SYNC appears. */
int fdatasync(int file) {
    const char *once = getenv("PROVEOUT_TEST_FAIL_SYNC");
    if (once && unlink(once) == 0) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(file);
}
"""


def small_disk(folder: Path, size: str) -> Sequence[str]:
    """The words before a command that make it see a small disk in place of `folder`."""
    probe = [*NAMESPACE, "mount", "-t", "tmpfs", "none", "/tmp"]
    if shutil.which("unshare") is None or subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("this machine forbids namespaces, so no small disk can be had")
    return [*NAMESPACE, "sh", "-c", MOUNT, str(folder), size]


@dataclass
class Fragile:
    """A server whose disk the test can fill and whose next sync it can fail."""

    server: Server
    trigger: Path | None  # None: without a C compiler nothing can be put before fdatasync

    @property
    def ballast(self) -> Path:
        return self.server.data / "ballast"

    def fill(self) -> None:
        """Takes all that is left."""
        with self.ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
            except OSError:
                pass

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield Client(session, self.server.url, self.server.owner_key)


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fragile]:
    folder = tmp_path_factory.mktemp("fragile")
    within = [*small_disk(folder / "data", "224m")]
    trigger = None
    if shutil.which("gcc"):
        trigger, library = folder / "fail-sync", folder / "sync.so"
        (folder / "sync.c").write_text(FAILING_SYNC)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, folder / "sync.c", "-ldl"], check=True)
        within += ["env", f"LD_PRELOAD={library}", f"PROVEOUT_TEST_FAIL_SYNC={trigger}"]
    server = start_server(folder / "data", within=within)
    inside = Path(f"/proc/{server.process.pid}/root{server.data}")
    yield Fragile(replace(server, data=inside), trigger)
    assert server.stop() == 0


async def asking(client: Client, until: asyncio.Event, seen: list[Seen]) -> None:
    while not until.is_set():
        tag = f"disk-{len(seen)}"
        seen.append(await client.ask("echo", tag, streamed=len(seen) % 2 == 0))
        if seen[-1].ending != "whole":
            await asyncio.sleep(0.02)


def discrepancies(seen: list[Seen], records: Sequence[Record]) -> list[str]:
    return [words for words in compare(seen, [], records, killed=True) if "upstream" not in words]  # echo has none


async def ready(client: Client) -> tuple[int, str]:
    """What `/readyz` says, within a second: its status, and what is wrong with the disk."""
    async with asyncio.timeout(1), client.session.get(client.url + "/readyz") as answer:
        return answer.status, (await answer.json()).get("missing", {}).get("disk", "")


async def healed(client: Client, seen: list[Seen], within: float) -> float:
    """Seconds until a question is answered again."""
    began = time.monotonic()
    while time.monotonic() - began < within:
        seen.append(await client.ask("echo", f"again-{len(seen)}"))
        if seen[-1].ending == "whole":
            break
        await asyncio.sleep(0.1)
    assert seen[-1].ending == "whole", seen[-1]
    return time.monotonic() - began


def test_a_disk_that_becomes_full(fragile: Fragile) -> None:
    async def scenario() -> None:
        seen: list[Seen] = []
        async with fragile.client() as client:
            until = asyncio.Event()
            tasks = [asyncio.create_task(asking(client, until, seen)) for _ in range(16)]
            await asyncio.sleep(0.5)
            await asyncio.to_thread(fragile.fill)
            await asyncio.sleep(0.5)
            until.set()
            await asyncio.gather(*tasks)
            assert sum(s.ending == "whole" for s in seen) > 16
            refused = [s for s in seen if s.ending == "refused"]
            assert refused and {(s.status, s.error) for s in refused} == {(503, "storage_full")}
            assert max(s.ended - s.begun for s in refused) < 1
            status, said = await ready(client)
            assert status == 503 and "is full: free some" in said

            os.kill(fragile.server.pid_of("postgres"), signal.SIGKILL)  # nor can it start again on such a disk
            await asyncio.sleep(0.5)
            for number in range(10):
                seen.append(await client.ask("echo", f"full-{number}"))
                assert (seen[-1].status, seen[-1].error) == (503, "storage_full")
                assert seen[-1].ended - seen[-1].begun < 1

            fragile.ballast.unlink()
            seconds = await healed(client, seen, within=15)
            for _ in range(50):  # the database may still be on its way
                if (await ready(client)) == (200, ""):
                    break
                await asyncio.sleep(0.1)
            else:
                raise AssertionError(await ready(client))
            wrong = discrepancies(seen, await collect(client, seen, within=0.5))
            whole = sum(s.ending == "whole" for s in seen)
            print(f"full: {whole} whole, {len(refused)} refused, healed {seconds:.1f} s after space was free")
        assert wrong == []

    asyncio.run(scenario())


def test_a_sync_that_fails(fragile: Fragile) -> None:
    """Postgres stops rather than believe a disk that failed it; its writers wait until it is back."""
    trigger = fragile.trigger
    if trigger is None:
        pytest.skip("no gcc, so no failing sync can be had")

    async def scenario() -> None:
        seen: list[Seen] = []
        async with fragile.client() as client:
            until = asyncio.Event()
            tasks = [asyncio.create_task(asking(client, until, seen)) for _ in range(16)]
            for _ in range(3):
                await asyncio.sleep(0.5)
                trigger.touch()
                await asyncio.sleep(0.5)
                assert not trigger.exists(), "nothing was synced"
            await asyncio.sleep(1)
            until.set()
            await asyncio.gather(*tasks)
            await healed(client, seen, within=10)
            wrong = discrepancies(seen, await collect(client, seen, within=0.5))
            whole = sum(s.ending == "whole" for s in seen)
            print(f"sync: {whole} whole, {len(seen) - whole} others")
            assert {s.ending for s in seen} <= {"whole", "refused", "error"} and whole > 16
        assert wrong == []
        log = (fragile.server.data / "logs" / "postgres.log").read_text()
        assert log.count("PANIC:  could not fdatasync file") == 3

    asyncio.run(scenario())


def test_no_start_on_a_disk_that_is_full(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "proveout", "up", "--data", str(tmp_path / "data"), "--port", "0"]
    within = small_disk(tmp_path / "data", "16m")
    done = subprocess.run([*within, *command], capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in done.stderr.splitlines() if line not in ("starting …", "stopping …")]
    assert done.returncode == 2 and len(said) == 1, done.stderr
    assert f"The disk that holds {tmp_path / 'data'} has 1" in said[0] and "free some, or choose another" in said[0]
