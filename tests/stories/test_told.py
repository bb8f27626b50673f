"""Who is told what happened: a server that tells nobody says so, and asks for the right to."""

from __future__ import annotations

import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from conftest import Server


def test_a_server_that_tells_nobody(server: Server) -> None:
    done = server.cli("notify", "test")
    assert done.returncode == 0 and "name targets under `notify` in proveout.yaml" in done.stdout


def test_targets_are_the_owners_affair(server: Server) -> None:
    def call(key: str, path: str, body: object = None) -> object:
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        with urlopen(Request(f"{server.url}/api/v1{path}", data, headers), timeout=30) as answer:
            return json.load(answer)

    assert call(server.owner_key, "/notifications") == {"targets": []}
    made = call(server.owner_key, "/keys", {"name": "operator", "role": "operator"})
    assert isinstance(made, dict)
    with pytest.raises(HTTPError) as refused:
        call(made["key"], "/notifications/test", {})
    refused.value.close()
    assert refused.value.code == 404
