"""An auditor with a public key and files needs nothing of us: what he is given verifies with one copied file."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from conftest import ROOT, Server
from proveout.store.postgres import EmbeddedPostgres


def get(server: Server, path: str, **headers: str) -> bytes:
    told = {"Authorization": f"Bearer {server.owner_key}", **headers}
    with urllib.request.urlopen(urllib.request.Request(server.url + path, headers=told), timeout=10) as answer:
        return bytes(answer.read())


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The verifier as an auditor has it: one file, copied, run where nothing of the project is to be found."""
    alone = tmp_path_factory.mktemp("auditor")
    shutil.copy(ROOT / "src" / "proveout" / "ledger" / "verify.py", alone)
    return [sys.executable, "-I", str(alone / "verify.py")]


def audit(verifier: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*verifier, *arguments], capture_output=True, text=True, check=False, timeout=60)


def post(server: Server, path: str, body: object) -> bytes:
    headers = {"Authorization": f"Bearer {server.owner_key}", "Content-Type": "application/json"}
    asked = urllib.request.Request(server.url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return bytes(answer.read())


def ask(server: Server, content: str = "How many days of annual leave do I get?", **more: str) -> str:
    messages = [{"role": "user", "content": content}]
    answer = json.loads(post(server, "/v1/chat/completions", {"model": "helpdesk", "messages": messages, **more}))
    return str(answer["proveout"]["request"])


def test_an_answer_has_a_receipt_that_an_outsider_verifies(server: Server, verifier: list[str], tmp_path: Path) -> None:
    request = ask(server)
    began = time.monotonic()
    receipt = get(server, f"/api/v1/requests/{request}/receipt")
    assert time.monotonic() - began < 2.5
    key = get(server, "/ledger/default/key").decode().strip()
    shown = json.loads(get(server, f"/api/v1/requests/{request}/receipt", Accept="application/json"))
    assert shown["key"] == key
    (tmp_path / "receipt").write_bytes(receipt)
    (tmp_path / "opening").write_text(shown["opening"])
    record = json.loads(json.loads(shown["opening"])["record"])
    assert record["request"] == request and record["outcome"] == "answered" and record["completion_tokens"] >= 0
    done = audit(verifier, "receipt", str(tmp_path / "receipt"), "--key", key, "--opening", str(tmp_path / "opening"))
    assert done.returncode == 0, done.stdout
    (tmp_path / "opening").write_text(shown["opening"].replace("answered", "refused"))
    lied = audit(verifier, "receipt", str(tmp_path / "receipt"), "--key", key, "--opening", str(tmp_path / "opening"))
    assert lied.returncode == 1 and "commits to another record" in lied.stdout


def test_the_log_is_read_by_those_who_may(server: Server) -> None:
    assert get(server, "/ledger/default/checkpoint").decode().startswith("proveout.local/default\n")
    for path in (
        "/ledger/another/checkpoint",
        "/ledger/default/tile/0/999999",
        "/ledger/default/tile/0/1",
        "/ledger/x/y",
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(server, path)
        refused.value.close()
        assert refused.value.code == 404
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(server.url + "/ledger/default/checkpoint", timeout=10)
    refused.value.close()
    assert refused.value.code == 401


def subject_key(server: Server, request: str) -> bytes:
    """The wrapped key of a request's subject, as the database has it: what it sealed is noise without it."""
    embedded = EmbeddedPostgres(server.data / "postgres", server.data / "run")
    with psycopg.connect(embedded.dsn) as connection:
        row = connection.execute(
            """select k.wrapped, length(e.salt) from proveout.events e
               join proveout.sealing_keys k on k.kind = 'subject' and k.owner = e.subject
               where e.request = %s and e.kind = 'serving:request:ended'""",
            (request,),
        ).fetchone()
    assert row is not None and row[1] > 32  # the salt of its record is sealed, too
    return bytes(row[0])


@contextlib.contextmanager
def load(server: Server, clients: int) -> Iterator[list[str]]:
    """So many clients ask all the while, each question for another user; gives the numbers of their requests."""
    over, asked = threading.Event(), list[str]()

    def keep_asking(client: int) -> None:
        while not over.is_set():
            asked.append(ask(server, model="echo", user=f"load-{client}-{len(asked)}"))
            time.sleep(0.02)  # the server is others' too

    threads = [threading.Thread(target=keep_asking, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        over.set()
        for thread in threads:
            thread.join(timeout=30)


def found_in(data: Path, needles: Mapping[str, bytes]) -> list[str]:
    """Which of these bytes stand in which files: tables, indexes, the write-ahead log, the spool, logs."""
    found = []
    for file in data.rglob("*"):
        if file.is_file() and not file.is_symlink() and file.relative_to(data).parts[0] != "cache":  # converted models
            with contextlib.suppress(FileNotFoundError):  # the write-ahead log goes on
                content = file.read_bytes()
                found += [f"{name} in {file.relative_to(data)}" for name in needles if needles[name] in content]
    return found


def test_a_subject_is_erased_under_load_and_the_log_still_verifies(
    server: Server, verifier: list[str], tmp_path: Path
) -> None:
    canary = "zanzibar-canary@example.com"
    with load(server, clients=4) as others:
        request = ask(server, user=canary, content=f"I am {canary}, who am I?")
        shown = json.loads(get(server, f"/api/v1/requests/{request}/receipt", Accept="application/json"))
        assert shown["opening"] is not None
        needles = {"canary": canary.encode(), "key": subject_key(server, request)}
        hits = found_in(server.data, needles)
        assert hits and all(hit.startswith("key") for hit in hits), hits  # in clear it never was anywhere
        before = len(others)
        done = json.loads(post(server, "/api/v1/erasures", {"subject": canary}))
        began = time.monotonic()
        assert {name: done[name] for name in ("payloads", "records", "not_purged")} == {
            "payloads": 1,
            "records": 1,
            "not_purged": [],
        }
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(server, f"/api/v1/requests/{request}/replays", {})
        refused.value.close()
        erased = json.loads(get(server, f"/api/v1/requests/{request}/receipt", Accept="application/json"))
        assert refused.value.code == 409 and erased["opening"] is None
        assert time.monotonic() - began < 1
        while left := found_in(server.data, needles):
            assert time.monotonic() - began < 60, left
            time.sleep(0.5)
        assert len(others) > before  # it was asked all the while
    assert all(others)
    (tmp_path / "receipt").write_text(erased["receipt"])
    assert audit(verifier, "receipt", str(tmp_path / "receipt"), "--key", erased["key"]).returncode == 0
    again = json.loads(post(server, "/api/v1/erasures", {"subject": canary}))
    assert (again["payloads"], again["records"]) == (0, 0)


def test_the_command_line_reads_the_whole_log_again(server: Server, verifier: list[str], tmp_path: Path) -> None:
    request = ask(server)
    made = server.cli("audit", "receipt", request, "-o", str(tmp_path / "receipt"))
    key = server.cli("audit", "key").stdout.strip()
    assert made.returncode == 0, made.stderr
    checked = server.cli("audit", "verify", "--file", str(tmp_path / "receipt"), "--key", key, "--json")
    assert json.loads(checked.stdout)["verified"] is True
    whole = server.cli("audit", "verify", "--json")
    assert whole.returncode == 0 and json.loads(whole.stdout)["size"] >= 2, whole.stdout
    assert server.cli("audit", "export", "--to", str(tmp_path / "log")).returncode == 0
    assert audit(verifier, "log", str(tmp_path / "log"), "--key", key).returncode == 0
    for _ in range(2):
        followed = server.cli("audit", "follow", "--memory", str(tmp_path / "memory"), "--key", key)
        assert followed.returncode == 0, followed.stdout
    bundles = (p for p in (tmp_path / "log" / "tile" / "entries").rglob("*") if p.is_file())
    bundle = next(p for p in bundles if b"created" in p.read_bytes())
    bundle.write_bytes(bundle.read_bytes().replace(b"created", b"creaded", 1))
    spoilt = server.cli("audit", "verify", "--file", str(tmp_path / "log"), "--key", key)
    where = bundle.relative_to(tmp_path / "log")
    assert spoilt.returncode == 1 and str(where) in spoilt.stdout, spoilt.stdout


def test_what_happens_is_on_record(server: Server) -> None:
    made = json.loads(post(server, "/api/v1/keys", {"name": "an auditor", "role": "user"}))
    for _ in range(40):
        events = json.loads(get(server, "/api/v1/log/events?kind=access:key:created&limit=1"))["events"]
        if events and events[0]["record"] and events[0]["record"]["id"] == made["id"]:
            break
        time.sleep(0.05)
    else:
        raise AssertionError(events)
    for kind in ("releases:release:created", "releases:facts:recorded", "releases:route:changed",
                 "retrieval:snapshot:published", "serving:request:ended"):  # fmt: skip
        (event,) = json.loads(get(server, f"/api/v1/log/events?kind={kind}&limit=1"))["events"]
        assert event["kind"] == kind
    listed = server.cli("audit", "events", "--kind", "access:", "--json")
    assert json.loads(listed.stdout)["events"][0]["kind"].startswith("access:")
