"""A witness on a machine of its own: whoever has the log's database and all its keys still cannot rewrite it unseen."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
import pytest

from conftest import ROOT, Server, free_port, start_server
from proveout.domain import Scope
from proveout.ledger.integrate import LogKeys, read_tiles
from proveout.ledger.note import SigningKey, sign_checkpoint
from proveout.ledger.receipt import encode_request
from proveout.ledger.tree import Tree
from proveout.ledger.verify import COSIGNATURE, ENTRIES, Checkpoint, split_bundle, split_note, tiles_of
from proveout.store.pool import Store
from proveout.store.postgres import EmbeddedPostgres
from proveout.store.sealing import MASTER_KEY_FILE, Keyring, read_master_keys


@dataclass
class World:
    """A server that knows of a witness, the witness, and an auditor with a copied verifier."""

    server: Server
    folder: Path
    port: int
    key: str  # the witness's
    log: str  # the log's key
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        arguments = ["--key-file", str(self.folder / "witness.key"), "--data", str(self.folder / "witness")]
        command = [sys.executable, "-m", "proveout", "witness", *arguments, "--log", self.log, "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().split() == ["key", self.key]
        assert self.process.stdout.readline().split() == ["address", f"http://127.0.0.1:{self.port}"]

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.communicate(timeout=20)
            self.process = None

    def show(self, request: bytes) -> tuple[int, str]:
        """Asks the witness itself."""
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}/add-checkpoint", request)
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()

    def get(self, path: str) -> bytes:
        told = {"Authorization": f"Bearer {self.server.owner_key}"}
        asked = urllib.request.Request(self.server.url + path, headers=told)
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return bytes(answer.read())

    def answer(self) -> str:
        """Asks the model something; the number of the request."""
        body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "Hello?"}]}).encode()
        told = {"Authorization": f"Bearer {self.server.owner_key}", "Content-Type": "application/json"}
        asked = urllib.request.Request(f"{self.server.url}/v1/chat/completions", body, told)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return str(answer.headers["x-proveout-request"])

    def receipt(self, request: str) -> Path:
        file = self.folder / f"{request}.receipt"
        file.write_bytes(self.get(f"/api/v1/requests/{request}/receipt"))
        return file

    def witnessed(self, request: str) -> Path:
        """The receipt, once a witness has signed it: one that was away is asked again after a while."""
        for _ in range(80):
            file = self.receipt(request)
            if self.verify(file, witness=True).returncode == 0:
                return file
            time.sleep(0.5)
        raise AssertionError(file.read_text())

    def verify(self, receipt: Path, *, witness: bool) -> subprocess.CompletedProcess[str]:
        """What an auditor runs: one copied file, where nothing of the project is to be found."""
        seen = ["--witness", self.key] if witness else []
        command = [sys.executable, "-I", str(self.folder / "verify.py"), "receipt", str(receipt), "--key", self.log]
        return subprocess.run([*command, *seen], capture_output=True, text=True, timeout=60, check=False)

    def audit(self, what: str, *more: str) -> subprocess.CompletedProcess[str]:
        return self.server.cli("audit", what, "--key", self.log, "--witness", self.key, *more)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, port = tmp_path_factory.mktemp("witnessed"), free_port()
    key = SigningKey.generate("witness.example/w1", COSIGNATURE)
    (folder / "witness.key").write_text(key.encode())
    shutil.copy(ROOT / "src" / "proveout" / "ledger" / "verify.py", folder)
    witnesses = f"[{{key: {key.verifier}, url: 'http://127.0.0.1:{port}'}}]"
    (folder / "proveout.yaml").write_text(f"ledger: {{witnesses: {witnesses}}}\n")
    server = start_server(folder / "data", "--config", str(folder / "proveout.yaml"))
    made = World(server, folder, port, str(key.verifier), server.cli("audit", "key").stdout.strip())
    try:
        yield made
    finally:
        made.stop()
        assert server.stop() == 0


def test_without_its_witness_the_log_goes_on(world: World) -> None:
    world.stop()
    request = world.answer()
    began = time.monotonic()
    receipt = world.receipt(request)
    assert time.monotonic() - began < 3
    assert world.verify(receipt, witness=False).returncode == 0
    unseen = world.verify(receipt, witness=True)
    assert unseen.returncode == 1 and "seen by 0 witnesses" in unseen.stdout
    world.start()
    world.witnessed(request)  # what it missed is covered by what it signs next


def test_a_receipt_says_that_the_witness_saw_it(world: World) -> None:
    if world.process is None:
        world.start()
    world.witnessed(world.answer())
    for _ in range(3):  # while the log grows it is the first receipt that verifies
        began = time.monotonic()
        receipt = world.receipt(world.answer())
        assert time.monotonic() - began < 2
        done = world.verify(receipt, witness=True)
        assert done.returncode == 0 and "witness.example/w1" in done.stdout, done.stdout
        assert receipt.stat().st_size <= 4096
    for command in (["verify"], ["follow", "--memory", str(world.folder / "memory")]):
        audited = world.audit(*command)
        assert audited.returncode == 0, audited.stdout
    assert world.server.cli("audit", "export", "--to", str(world.folder / "copy")).returncode == 0
    assert world.audit("verify", "--file", str(world.folder / "copy")).returncode == 0


def test_a_witness_started_again_knows_what_it_saw(world: World) -> None:
    if world.process is None:
        world.start()
    world.witnessed(world.answer())
    world.stop()
    world.start()
    note = world.get("/ledger/default/witnessed")
    size = Checkpoint.parse(split_note(note)[0]).size
    assert world.show(encode_request(0, [], note)) == (409, f"{size}\n")
    world.witnessed(world.answer())


def test_an_insider_cannot_rewrite_what_the_witness_saw(world: World) -> None:
    """With the database, the master key and so the log's signing key: all of it but the witness."""
    if world.process is None:
        world.start()
    old = world.witnessed(world.answer())
    memory = str(world.folder / "memory")
    assert world.audit("follow", "--memory", memory).returncode == 0
    embedded = EmbeddedPostgres(world.server.data / "postgres", world.server.data / "run")
    size, forked = asyncio.run(rewrite(embedded.dsn, world.server.data))
    alone = world.server.cli("audit", "verify")
    assert alone.returncode == 0, alone.stdout  # to whoever trusts the log's key alone nothing looks wrong
    assert world.show(encode_request(size, [], forked)) == (409, f"{size}\n")

    found = world.audit("verify")
    assert found.returncode == 1 and "these are not the entries of the checkpoint" in found.stdout, found.stdout
    followed = world.audit("follow", "--memory", memory)
    assert followed.returncode == 1 and "tile/0/000" in followed.stdout and "entry 1" in followed.stdout
    assert world.verify(old, witness=True).returncode == 0  # what was proven stays proven

    request = world.answer()  # the worker goes on with the forked log, and shows it to the witness
    unseen = world.verify(world.receipt(request), witness=True)
    assert unseen.returncode == 1 and "seen by 0 witnesses" in unseen.stdout
    said = (world.server.data / "logs" / "worker-1.log").read_text()
    assert "witness.example/w1 does not cosign the log of default: status 422" in said
    with psycopg.connect(embedded.dsn) as connection:
        connection.execute("update proveout.checkpoints set witnessed_size = null, witnessed_note = null")
    hidden = world.audit("verify")
    assert hidden.returncode == 1 and "seen by 0 witnesses" in hidden.stdout


async def rewrite(dsn: str, data: Path) -> tuple[int, bytes]:
    """Changes the second entry and signs the whole log anew, at the size that the witness saw; what was signed."""
    store = Store(dsn, size=1)
    await store.open()
    try:
        keys = LogKeys(Keyring(partial(read_master_keys, None, None, data / MASTER_KEY_FILE)), "proveout.local")
        async with store.within(Scope.system("default", "test")) as session:
            while True:  # no integrator in between
                lock = await session.row("log.lock")
                if lock is not None and lock["mine"]:
                    break
            row = await session.row("log.checkpoint")
            assert row is not None
            size, bundles = row["size"], list(tiles_of(ENTRIES, row["size"]))
            read = await read_tiles(session, bundles)
            entries = [entry for tile in bundles for entry in split_bundle(read(tile), tile)[0]]
            entries[1] = entries[1].replace(b'"commitment":"', b'"commitment":"A')
            tree = Tree()
            for tile, content in tree.append(entries).items():
                await session.run("log.store_tile", level=tile.level, n=tile.n, content=content)
            note = sign_checkpoint(await keys.get(session, "default"), size, tree.root)
        with psycopg.connect(dsn) as connection:
            connection.execute("update proveout.checkpoints set note = %s where size = %s", (note, size))
        return size, note
    finally:
        await store.close()
