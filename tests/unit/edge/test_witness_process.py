"""The witness's door: the statuses of C2SP tlog-witness, a key of its own, and nothing large in its process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from proveout.edge.processes.witness import application, log_keys, signing_key
from proveout.errors import InvalidInput
from proveout.ledger.note import SigningKey, add_cosignatures, sign_checkpoint
from proveout.ledger.receipt import encode_request
from proveout.ledger.tree import consistency_spans, hashes
from proveout.ledger.verify import COSIGNATURE
from proveout.ledger.witness import Witness
from tlog import LOG, POLICY, WITNESS, Log, entries


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    (tmp_path / "state").mkdir()
    keys = log_keys([str(LOG.verifier)])
    return TestClient(application(Witness(WITNESS, keys, tmp_path / "state"), WITNESS.verifier))


def test_it_says_its_key(client: TestClient) -> None:
    assert client.get("/").text == f"{WITNESS.verifier}\n"
    assert client.get("/add-checkpoint").status_code == 405
    assert client.post("/elsewhere").status_code == 404


def test_every_refusal_has_its_status(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    first = log.append(entries(3), seen=False)
    second = log.append(entries(4, 3), seen=False)
    proof = hashes(log.read, consistency_spans(3, 7), 7)
    stranger = sign_checkpoint(SigningKey.generate("who.example"), 7, bytes(32))
    forged = sign_checkpoint(SigningKey.generate(LOG.verifier.name), 7, bytes(32))

    def asked(body: bytes) -> tuple[int, str]:
        answer = client.post("/add-checkpoint", content=body)
        return answer.status_code, answer.text

    status, lines = asked(encode_request(0, [], first))
    assert status == 200
    assert WITNESS.verifier.name in POLICY.open(add_cosignatures(first, lines.encode(), WITNESS.verifier))[1]
    assert asked(b"nonsense")[0] == 400
    assert asked(encode_request(3, proof, forged))[0] == 403
    assert asked(encode_request(3, proof, stranger))[0] == 404
    conflict = client.post("/add-checkpoint", content=encode_request(2, proof, second))
    assert (conflict.status_code, conflict.text) == (409, "3\n")
    assert conflict.headers["content-type"] == "text/x.tlog.size"
    assert asked(encode_request(3, [bytes(32)], second))[0] == 422
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", _broken)
        assert asked(encode_request(3, proof, second))[0] == 503
    assert asked(encode_request(3, proof, second))[0] == 200


def _broken(_: int) -> None:
    raise OSError(5, "Input/output error")


def test_a_body_is_read_no_further_than_a_request_is_long(client: TestClient) -> None:
    assert client.post("/add-checkpoint", content=b"old 0\n\n" + b"x" * 70_000).status_code == 400
    read, answered = 0, []

    async def receive() -> dict[str, object]:
        nonlocal read
        read += 10_000
        return {"type": "http.request", "body": b"x" * 10_000, "more_body": read < 10_000_000}

    async def send(message: MutableMapping[str, Any]) -> None:
        answered.append(message)

    scope = {"type": "http", "method": "POST", "path": "/add-checkpoint", "headers": [], "query_string": b""}
    asyncio.run(client.app(scope, receive, send))  # type: ignore[arg-type]
    assert answered[0]["status"] == 400 and read < 100_000


def test_its_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "witness.key"
    made = signing_key(file, "witness.example/w1")
    assert file.stat().st_mode & 0o777 == 0o600 and made.verifier.kind == COSIGNATURE
    for name in (None, "witness.example/w1"):
        assert signing_key(file, name).verifier == made.verifier
    with pytest.raises(InvalidInput, match=r"witness\.example/w1"):
        signing_key(file, "another")
    file.write_text("nonsense")
    with pytest.raises(InvalidInput, match="not a signing key"):
        signing_key(file, None)


def test_a_log_is_named_once_and_by_its_own_key() -> None:
    for given in ([str(WITNESS.verifier)], [str(LOG.verifier)] * 2, ["nonsense"]):
        with pytest.raises(InvalidInput, match="--log"):
            log_keys(given)


def test_it_is_small() -> None:
    program = "import sys, proveout.edge.processes.witness; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    large = {"psycopg", "openvino", "openvino_genai", "dbos", "fastapi", "numpy", "aiohttp", "proveout.store"}
    assert not large & set(done.stdout.split())
