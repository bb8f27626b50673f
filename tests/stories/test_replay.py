"""A record is worth reading: found again, asked again with the same result, and taken along by an auditor."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from conftest import Server
from proveout.ledger.verify import fetch_from, leaf_hash, split_bundle, tile_of, tile_reader

QUESTION = "How many days of annual leave do I get?"


def call(server: Server, method: str, path: str, body: object = None, key: str | None = None) -> tuple[int, Any]:
    headers = {
        "Authorization": f"Bearer {key or server.owner_key}",
        "Content-Type": "application/json",
        "Accept": "application/json",
    }
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(server.url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def ask(server: Server, question: str = QUESTION, **more: Any) -> str:
    body = {"model": "helpdesk", "messages": [{"role": "user", "content": question}], **more}
    return str(call(server, "POST", "/v1/chat/completions", body)[1]["proveout"]["request"])


@pytest.fixture(scope="module")
def asked(server: Server) -> str:
    """A question of the user `replay-anna`."""
    return ask(server, user="replay-anna", seed=7)


def test_a_record_tells_what_was_decided(server: Server, asked: str) -> None:
    _, row = call(server, "GET", f"/api/v1/requests/{asked}")
    decision = row["decision"]
    assert row["arm"] == "stable" and row["weight"] is None and decision["captured"] is True
    (snapshot,) = decision["retrieval"]["snapshots"].values()
    assert snapshot.startswith("sha256:") and decision["retrieval"]["epoch"] > 0
    scores = [score for _, score in decision["retrieval"]["chunks"]]
    assert scores and scores == sorted(scores, reverse=True)
    assert QUESTION not in json.dumps(row) and "replay-anna" not in json.dumps(row)
    _, again = call(server, "GET", f"/api/v1/requests/{ask(server, user='replay-otto')}")
    assert again["decision"]["input"] != decision["input"]  # nobody can tell that the same was asked


def test_a_request_asked_again_is_identical_and_counts_as_nobodys(server: Server, asked: str) -> None:
    done = server.cli("replay", asked, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["identical"] is True and found["proven"] is True, done.stdout
    _, row = call(server, "GET", f"/api/v1/requests/{found['request']}")
    assert (row["purpose"], row["decision"]["replays"]) == ("replay", asked)
    _, original = call(server, "GET", f"/api/v1/requests/{asked}")
    assert row["subject"] == original["subject"]  # its data: whoever erases it erases this too
    assert row["parameters"] == original["parameters"] and row["parameters"]["seed"] == 7
    _, twice = call(server, "POST", f"/api/v1/requests/{found['request']}/replays")
    assert twice["identical"] is True


def test_who_may_not_and_what_is_gone_are_refused_in_words(server: Server, asked: str) -> None:
    _, made = call(server, "POST", "/api/v1/keys", {"name": "reader", "role": "developer"})
    assert call(server, "POST", f"/api/v1/requests/{asked}/replays", key=made["key"])[0] == 404
    assert call(server, "POST", "/api/v1/requests/req_nothing/replays")[0] == 404
    gone = ask(server, user="replay-gone")
    assert call(server, "POST", "/api/v1/erasures", {"subject": "replay-gone"})[0] == 200
    status, said = call(server, "POST", f"/api/v1/requests/{gone}/replays")
    assert status == 409 and "its subject was erased" in said["error"]["message"]
    opened = call(server, "GET", "/api/v1/log/events?kind=ledger:payload:opened")[1]["events"]
    assert gone not in json.dumps(opened)


def test_requests_are_found_by_what_is_known_of_them(server: Server, asked: str) -> None:
    def numbers(**which: Any) -> set[str]:
        found = call(server, "GET", f"/api/v1/requests?{urllib.parse.urlencode({**which, 'limit': 1000})}")
        return {row["request"] for row in found[1]["requests"]}

    refused = ask(server, "Who won the football world cup of 1998?", user="replay-refused")
    assert numbers(subject="replay-refused") == {refused} == numbers(subject="replay-refused", outcome="refused")
    assert numbers(subject="replay-refused", outcome="answered") == set() == numbers(subject="replay-nobody")
    assert {asked, refused} <= numbers(app="helpdesk", release=1) and asked not in numbers(release=99)
    assert asked not in numbers(since="2100-01-01T00:00:00Z") and asked in numbers(until="2100-01-01T00:00:00Z")
    assert call(server, "GET", "/api/v1/requests?mood=good")[0] == 400
    listed = server.cli("requests", "list", "--subject", "replay-refused")
    assert refused in listed.stdout and "refused" in listed.stdout
    shown = server.cli("requests", "show", refused)
    assert shown.returncode == 0 and "helpdesk" in shown.stdout


def test_an_export_checks_against_the_log_that_came_with_it(server: Server, asked: str, tmp_path: Path) -> None:
    call(server, "GET", f"/api/v1/requests/{asked}/receipt")  # it is in the log
    lines, spans, tiles = tmp_path / "log.jsonl", tmp_path / "spans.jsonl", tmp_path / "tiles"
    only = ["--subject", "replay-anna"]
    assert server.cli("audit", "export", "--format", "jsonl", "--to", str(lines), *only).returncode == 0
    assert server.cli("audit", "export", "--format", "otel", "--to", str(spans), *only).returncode == 0
    made = server.cli("audit", "export", "--to", str(tiles), "--json")
    size = json.loads(made.stdout)["entries"]
    key = server.cli("audit", "key").stdout.strip()
    assert server.cli("audit", "verify", "--file", str(tiles), "--key", key).returncode == 0

    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert {"serving:request:begun", "serving:request:ended"} == {record["kind"] for record in records}
    read = tile_reader(fetch_from(str(tiles)))
    for record in records:
        bundle = tile_of(-1, record["index"] // 256, size)
        entry = split_bundle(read(bundle), bundle)[0][record["index"] % 256]
        assert entry.decode() == record["entry"]
        assert base64.b64decode(record["leaf"]) == leaf_hash(entry)
    ended = next(r for r in records if r["request"] == asked and r["kind"].endswith("ended"))
    assert json.loads(ended["record"])["decision"]["input"] and len(base64.b64decode(ended["salt"])) == 32
    traces = [json.loads(line) for line in spans.read_text().splitlines()]
    assert {span["name"] for t in traces for span in t["resourceSpans"][0]["scopeSpans"][0]["spans"]} == {
        "chat local/smollm2-135m-instruct"
    }
    for _ in range(40):
        noted = call(server, "GET", "/api/v1/log/events?kind=ledger:log:exported&limit=3")[1]["events"]
        if all(event["record"] for event in noted):
            break
        time.sleep(0.1)
    assert [event["record"]["format"] for event in noted] == ["tiles", "otel", "jsonl"]
    assert "replay-anna" not in json.dumps(noted)
    wrong = server.cli("audit", "export", "--to", str(tiles), *only)
    assert wrong.returncode == 2 and "tiles are the whole log" in wrong.stderr
