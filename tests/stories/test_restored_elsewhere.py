"""A backup under load, restored elsewhere: equal digests, a log that verifies, nothing missing that was answered."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from conftest import Server, start_server
from proveout.store.backup import Reader
from proveout.store.sealing import MASTER_KEY_FILE, read_master_keys
from proveout.testing.client import Client, Seen
from proveout.testing.ledgers import Record, collect


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`proveout`, of nobody's server."""
    words = [sys.executable, "-m", "proveout", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


def api(server: Server, path: str, method: str = "GET", body: object = None) -> tuple[int, Any]:
    async def run() -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {server.owner_key}", "accept": "application/json"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.request(method, f"{server.url}/api/v1{path}", json=body) as answer,
        ):
            return answer.status, await answer.json() if answer.content_type == "application/json" else None

    return asyncio.run(run())


async def loaded(server: Server, work: Any) -> tuple[Any, float, list[Seen]]:
    """What `work` gave, when it began, and what clients saw that asked before and during it."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        client, stop = Client(session, server.url, server.owner_key), asyncio.Event()
        seen: list[Seen] = []

        async def ask(number: int) -> None:
            while not stop.is_set():
                seen.append(await client.ask("echo", f"backup-{number}-{len(seen)}", streamed=number % 2 == 0))
                await asyncio.sleep(0.05)

        asking = [asyncio.create_task(ask(number)) for number in range(8)]
        await asyncio.sleep(1)
        began = time.monotonic()
        done = await asyncio.to_thread(work)
        stop.set()
        await asyncio.gather(*asking)
    return done, began, seen


async def recorded(server: Server, seen: list[Seen]) -> list[Record]:
    async with aiohttp.ClientSession() as session:
        return await collect(Client(session, server.url, server.owner_key), seen)


@pytest.fixture(scope="module")
def passphrase(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("passphrase") / "passphrase"
    file.write_text("correct horse\nbattery staple\n")
    return file


def test_a_backup_under_load_is_restored_elsewhere(server: Server, passphrase: Path, tmp_path: Path) -> None:
    file, secret = tmp_path / "backup", ("--passphrase-file", passphrase)
    made, began, seen = asyncio.run(
        loaded(server, lambda: server.cli("backup", str(file), "--with-master-key", *map(str, secret), "--json"))
    )
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    assert told["bytes"] == file.stat().st_size and "owner.key" in told["files"]
    before = [s for s in seen if s.ended < began]
    assert len(before) > 20 and {s.ending for s in seen} == {"whole"}, "the backup kept somebody waiting or broke off"

    cut = tmp_path / "cut"
    cut.write_bytes(file.read_bytes()[:-1000])
    refused = command("restore", cut, "--data", tmp_path / "none", *secret)
    assert refused.returncode == 2 and "cut short" in refused.stderr and not (tmp_path / "none").exists()

    data = tmp_path / "elsewhere" / "data"
    data.parent.mkdir()
    done = command("restore", file, "--data", data, *secret, "--json")
    assert done.returncode == 0, done.stderr
    nothing_runs_on_it(data, tmp_path / "offline")
    shutil.copytree(server.data / "cache", data / "cache", dirs_exist_ok=True)
    restored = start_server(data)
    try:
        for path in ("/apps/helpdesk/releases", "/knowledge/handbook/snapshots"):
            ours, theirs = api(server, path), api(restored, path)
            assert ours[0] == theirs[0] == 200 and ours == theirs
        verified = restored.cli("audit", "verify", "--json")
        assert verified.returncode == 0 and json.loads(verified.stdout)["size"] >= 2 * len(before), verified.stdout
        records = asyncio.run(recorded(restored, before))
        assert {one.request for one in before} <= {row["request"] for row in records if row["outcome"] == "answered"}
        found = api(restored, "/knowledge/handbook/search", "POST", {"query": "annual leave", "k": 3})[1]
        assert found["results"], "its text opens"
        kinds = [event["kind"] for event in api(restored, "/log/events?kind=store:")[1]["events"]]
        assert kinds == ["store:backup:taken", "store:backup:restored", "store:backup:taken"]  # newest first
    finally:
        assert restored.stop() == 0


def nothing_runs_on_it(data: Path, file: Path) -> None:
    """A backup is made without a server, too; what the spool holds goes with it."""
    (data / "spool").mkdir()
    (data / "spool" / "1.spool").write_bytes(b"a segment")
    done = command("backup", file, "--data", data)
    assert done.returncode == 0, done.stderr
    (data / "spool" / "1.spool").unlink()
    with file.open("rb") as content:
        reader = Reader(content)
        key = reader.unlock(read_master_keys(None, None, data / MASTER_KEY_FILE))
        files = {name: piece for name, piece in reader.pieces(key, lambda _: None) if name != "database"}
    assert files["spool/1.spool"] == b"a segment" and set(files) == {"owner.key", "spool/1.spool"}


def test_keys_rotate_under_load_and_a_killed_worker_goes_on(server: Server) -> None:
    def rotate() -> list[str]:
        job = api(server, "/rotations", "POST", {"level": "workspace"})[1]["job"]
        server_process = server.pid_of("worker")
        subprocess.run(["kill", "-9", str(server_process)], check=True)
        deadline = time.monotonic() + 60
        while (state := api(server, f"/jobs/{job}")[1])["state"] in ("waiting", "running"):
            assert time.monotonic() < deadline, state
            time.sleep(0.1)
        master = server.cli("key", "rotate", "--master", "--json")
        return [state["state"], str(master.returncode)]

    text = (server.data / MASTER_KEY_FILE).read_text()
    done, _, seen = asyncio.run(loaded(server, rotate))
    assert done == ["done", "0"] and {s.ending for s in seen} == {"whole"}
    assert (server.data / MASTER_KEY_FILE).read_text() != text
    found = api(server, "/knowledge/handbook/search", "POST", {"query": "annual leave", "k": 3})[1]
    assert found["results"]


def test_a_hold_keeps_a_subject_from_erasure(server: Server) -> None:
    body = {"model": "echo", "user": "held@example.com", "messages": [{"role": "user", "content": "hello"}]}

    async def ask() -> int:
        headers = {"authorization": f"Bearer {server.owner_key}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{server.url}/v1/chat/completions", json=body) as answer,
        ):
            return answer.status

    assert asyncio.run(ask()) == 200
    placed = server.cli("hold", "add", "--subject", "held@example.com", "--reason", "a case", "--json")
    hold = json.loads(placed.stdout)["id"]
    assert "held@example.com" in server.cli("hold", "list", "--json").stdout
    status, said = api(server, "/erasures", "POST", {"subject": "held@example.com"})
    assert status == 409 and hold in said["error"]["message"]
    for wrong in ({"reason": "x"}, {"reason": "x", "app": "helpdesk", "subject": "s"}, {"app": "helpdesk"}):
        assert api(server, "/holds", "POST", wrong)[0] == 400
    assert api(server, "/holds", "POST", {"reason": "x", "app": "no-such-app"})[0] == 404
    assert server.cli("hold", "remove", hold).returncode == 0
    assert api(server, "/erasures", "POST", {"subject": "held@example.com"})[1]["payloads"] == 1
