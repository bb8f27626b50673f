"""What was used and what it cost, over HTTP and from the command line, for those who may know."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from conftest import Server


def call(server: Server, path: str, body: object = None, key: str | None = None) -> Any:
    headers = {"Authorization": f"Bearer {key or server.owner_key}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(server.url + path, data, headers)) as response:
        return json.load(response)


def of_echo(costs: Any) -> Any:
    return next((row for row in costs["costs"] if row["name"] == "echo"), None) or {"requests": 0, "prompt_tokens": 0}


def test_costs_by_what_one_asks_for(server: Server) -> None:
    before = of_echo(call(server, "/api/v1/costs?by=model&days=1"))
    call(server, "/v1/chat/completions", {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]})
    told = call(server, "/api/v1/costs?by=model&days=1")
    after = of_echo(told)
    assert (after["requests"] - before["requests"], after["prompt_tokens"] - before["prompt_tokens"]) == (1, 3)
    assert (after["cost_usd"], after["unpriced"]) == (0, 0)
    for by in ("app", "day", "key"):
        assert call(server, f"/api/v1/costs?by={by}&days=1")["total"] == told["total"]
    printed = server.cli("costs", "--by", "model", "--days", "1", "--json")
    assert (printed.returncode, json.loads(printed.stdout)["total"]) == (0, told["total"])
    assert "total" in server.cli("costs").stdout
    wrong = server.cli("costs", "--days", "0")
    assert wrong.returncode == 2 and "days" in wrong.stderr


@pytest.mark.parametrize(("query", "key", "status"), [("by=mood", None, 400), ("days=0", None, 400), ("", "user", 404)])
def test_costs_refused(server: Server, query: str, key: str | None, status: int) -> None:
    if key is not None:
        key = call(server, "/api/v1/keys", {"name": "a user of apps"})["key"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        call(server, f"/api/v1/costs?{query}", key=key)
    with refused.value as error:
        assert error.code == status
