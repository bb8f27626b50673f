"""A stage that follows its documents: a newer snapshot is tested and let in by itself, a broken one is not."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import Server

KIOSKS = {"amber": "six", "birch": "seven", "cedar": "eight", "dahlia": "nine", "elder": "ten"}
APP = """\
app: kiosks
purpose: Say when kiosks open.
owners: {accountable: someone@example.com}
model: {use: echo}
prompt: {answer: answer.md}
knowledge: [{name: kiosks, follow: true, top_k: 1}]
evals: {golden: golden.jsonl}
"""
GOLDEN = [
    {"id": f"{name}-{n}", "question": f"When does the kiosk {name} open?", "facts": [f"at {hour} in"], "tags": [name]}
    for name, hour in KIOSKS.items()
    for n in range(15)
]


def call(server: Server, method: str, path: str, body: object = None) -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {server.owner_key}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def push(server: Server, name: str, hour: str) -> None:
    text = f"The kiosk {name} opens at {hour} in the morning."
    path = f"/api/v1/knowledge/kiosks/documents/{name}"
    assert call(server, "PUT", path, {"text": text, "readers": ["everyone"]})[0] == 201


def asked(server: Server, name: str) -> str:
    question = {"role": "user", "content": f"When does the kiosk {name} open?"}
    answer = call(server, "POST", "/v1/chat/completions", {"model": "kiosks", "messages": [question]})[1]
    return str(answer["choices"][0]["message"]["content"])


def ended(server: Server, state: str) -> dict[str, Any]:
    """The newest refresh, once it has ended so."""
    for _ in range(200):
        found = call(server, "GET", "/api/v1/apps/kiosks/refreshes")[1]["refreshes"]
        if found and found[0]["state"] == state:
            return dict(found[0])
        time.sleep(0.1)
    raise AssertionError(f"no refresh {state}: {found}")


def test_a_stage_follows_its_documents_through_a_gate(server: Server, app_folder: Callable[..., Path]) -> None:
    for name, hour in KIOSKS.items():
        push(server, name, hour)
    files = {"app.yaml": APP, "answer.md": "{% for p in passages %}{{ p.text }}{% endfor %}"}
    folder = app_folder(files | {"golden.jsonl": "\n".join(map(json.dumps, GOLDEN))}, "kiosks")
    assert server.cli("release", "create", str(folder)).returncode == 0
    promotions, beta = "/api/v1/apps/kiosks/promotions", {"stage": "beta"}
    status, refused = call(server, "POST", promotions, {"release": 1, **beta})
    assert status == 409 and "proveout release derive kiosks@1 --latest" in refused["error"]["message"]
    derivations = "/api/v1/apps/kiosks/releases/1/derivations"
    status, made = call(server, "POST", derivations, {"latest": True})
    assert (status, made["number"], made["created"]) == (201, 2, True)
    assert call(server, "POST", derivations, {"latest": True}) == (200, {**made, "created": False})
    assert server.cli("eval", "run", "kiosks@2").returncode == 0
    assert call(server, "POST", promotions, {"release": 2, **beta})[0] == 200

    assert "eleven" not in asked(server, "fir")
    push(server, "fir", "eleven")
    passed = ended(server, "passed")
    assert (passed["stage"], passed["stable"], passed["release"], passed["knowledge"]) == ("beta", 2, 3, "kiosks")
    time.sleep(0.6)  # until every gateway has heard of it
    assert "eleven" in asked(server, "fir")
    shown = call(server, "GET", "/api/v1/apps/kiosks/releases/3")[1]
    changes = {"knowledge.kiosks": passed["snapshot"]}
    assert shown["derived"] == {"from": 2, "changes": changes} and shown["stages"] == ["beta"]
    evidence = call(server, "GET", "/api/v1/apps/kiosks/releases/3/evidence")[1]["evidence"]
    assert {(e["kind"], e["verdict"]) for e in evidence} == {("data-tests", "pass"), ("refresh", "pass")}

    for name in ("amber", "birch", "cedar", "dahlia"):
        assert call(server, "DELETE", f"/api/v1/knowledge/kiosks/documents/{name}")[0] == 204
    failed = ended(server, "failed")
    assert failed["stable"] == 3 and "refresh.lost" in failed["reasons"][0]
    stages = call(server, "GET", "/api/v1/apps/kiosks/releases")[1]["releases"]
    assert [r["number"] for r in stages if r["stages"]] == [3]
    told = call(server, "GET", "/api/v1/log/events?kind=releases:refresh:decided&limit=20")[1]["events"]
    assert {"passed", "failed"} & {e["record"]["verdict"] for e in told if e.get("record")}
