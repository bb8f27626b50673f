"""A release that answers worse is rolled back by itself, a sound one is promoted, and the record says why."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from conftest import Scripted
from rolling import APP, ask_until_it_ends, call, release_all


def test_a_worse_release_is_rolled_back(scripted: Scripted, app_folder: Callable[..., Path]) -> None:
    server, rollout = scripted.server, "/apps/kiosk/stages/poc/rollout"
    release_all(server, "kiosk", app_folder, APP, ["honest", "liar"])
    assert call(server, rollout)[0] == 404  # there was none
    assert server.cli("rollout", "start", "kiosk@2").returncode == 0
    status, said = call(server, rollout, {"action": "start", "release": 2})
    assert status == 409 and "is running" in said["error"]["message"]

    seen, told = asyncio.run(ask_until_it_ends(server, "kiosk", 40))
    assert told["state"] == "rolled_back", told["guardrails"]
    assert told["arms_told"] == {"kiosk@1": "stable", "kiosk@2": "candidate"}
    last = told["decisions"][0]
    assert last["by"] == "system" and last["reason"].startswith("unsupported: ")
    assert last["facts"]["combined"] >= 100 and last["facts"]["arms"]["candidate"]["events"]["unsupported"] > 3
    assert {status for status, _ in seen} == {200}
    shown = server.cli("rollout", "status", "kiosk")
    assert shown.returncode == 0 and "rolled_back" in shown.stdout and "unsupported: " in shown.stdout
    assert server.cli("audit", "verify").returncode == 0
    headers = {"Authorization": f"Bearer {server.owner_key}", "Accept": "text/html"}
    for path, words in (("operations", "rolled back"), ("rollouts/kiosk/poc", last["reason"][:40])):
        with urllib.request.urlopen(urllib.request.Request(f"{server.url}/{path}", headers=headers)) as answer:
            page = answer.read().decode()
        assert "kiosk@2" in page and words in page, path


def test_a_sound_release_is_promoted(scripted: Scripted, app_folder: Callable[..., Path]) -> None:
    server = scripted.server
    text = APP.replace("kiosk", "booth").replace("knowledge: [{name: booth, source: notes, min_score: 0}]\n", "")
    release_all(server, "booth", app_folder, text, ["honest", "candid"])
    assert call(server, "/apps/booth/stages/poc/rollout", {"action": "start", "release": 2})[0] == 200
    seen, told = asyncio.run(ask_until_it_ends(server, "booth", 40))
    assert [one["action"] for one in told["decisions"]] == ["promoted", "step", "start"], (seen, told["waiting"])
    assert {status for status, _ in seen} == {200}
    back = json.loads(server.cli("rollback", "booth", "--json").stdout)
    assert (back["stage"], back["release"]) == ("poc", 1)
    planned = server.cli("rollout", "simulate", "booth@2", "--runs", "2", "--requests", "1000", "--json")
    told = {one["regression"]: one for one in json.loads(planned.stdout)["regressions"]}
    assert told["errors + 50%"]["ends"] == ["rolled_back 2"] and told["none"]["ends"] == ["promoted 2"]
    shown = server.cli("rollout", "simulate", "booth@2", "--runs", "2", "--requests", "1000").stdout
    assert "a sound candidate: promoted 2" in shown and "rolled back 2" in shown


def test_a_conversation_stays_on_its_release(scripted: Scripted, app_folder: Callable[..., Path]) -> None:
    server, path = scripted.server, "/apps/stand/stages/poc/rollout"
    text = APP.replace("kiosk", "stand").replace("knowledge: [{name: stand, source: notes, min_score: 0}]\n", "")
    text = text.replace("[30%, 50%]", "[50%, 90%]").replace("0.4", "0.01").replace("calls: 10", "calls: 1")
    release_all(server, "stand", app_folder, text, ["honest", "candid"])
    names = [f"conversation {number}" for number in range(12)]

    def turn(name: str, messages: list[dict[str, str]]) -> str:
        body = {"model": "stand", "messages": messages, "metadata": {"conversation": name}}
        headers = {"Authorization": f"Bearer {server.owner_key}", "Content-Type": "application/json"}
        asked = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(asked) as answer:
            return str(answer.headers["x-proveout-release"])

    first = [{"role": "user", "content": "When does the kiosk open?"}]
    later = [*first, {"role": "assistant", "content": "At nine."}, {"role": "user", "content": "And on Sundays?"}]
    assert call(server, path, {"action": "start", "release": 2})[0] == 200
    began = {name: turn(name, first) for name in names}
    assert set(began.values()) == {"stand@1", "stand@2"}
    until = time.monotonic() + 20
    while call(server, path)[1]["weight"] < 0.9 and time.monotonic() < until:
        time.sleep(0.1)
    assert call(server, path)[1]["step"] == 1
    assert {name: turn(name, later) for name in names} == began
    assert call(server, path, {"action": "promote"})[1]["state"] == "promoted"
    assert {name: turn(name, later) for name in names} == began
    assert turn("another", first) == turn("another", later) == "stand@2"
    assert call(server, "/apps/stand/stages/poc/rollback", {})[0] == 200
    assert {turn(name, later) for name in names} == {"stand@1"}


def test_feedback_is_kept_with_its_request(scripted: Scripted) -> None:
    server = scripted.server
    body = {"model": "echo", "messages": [{"role": "user", "content": "Good morning!"}]}
    headers = {"Authorization": f"Bearer {server.owner_key}", "Content-Type": "application/json"}
    asked = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(asked) as answer:
        request = answer.headers["x-proveout-request"]
    given = {"request": request, "thumb": "down", "comment": "Too short.", "outcome": {"solved": False, "minutes": 3}}
    assert call(server, "/feedback", given)[0] == 201
    told = call(server, f"/feedback/{request}")[1]
    assert (told["score"], told["comment"], told["outcome"]) == (0, "Too short.", {"solved": 0, "minutes": 3})
    for more in ({"correction": "Good morning to you."}, {"outcome": {"solved": 1}}, {"comment": "Too short!"}):
        assert call(server, "/feedback", {"request": request, **more})[0] == 201  # what was said before stays
    told = call(server, f"/feedback/{request}")[1]
    assert (told["score"], told["comment"], told["correction"]) == (0, "Too short!", "Good morning to you.")
    assert told["outcome"] == {"solved": 1, "minutes": 3}
    assert call(server, "/feedback", {"request": request, "score": 0.75, "comment": ""})[0] == 201
    told = call(server, f"/feedback/{request}")[1]  # of each the last word stands; an empty one takes it back
    assert (told["score"], told["comment"], told["correction"]) == (0.75, "", "Good morning to you.")
    for wrong, status in (
        ({"request": "req_unknown", "score": 1}, 404),
        ({"request": "req_\0", "score": 1}, 400),
        ({"request": request}, 400),
        ({"request": request, "score": 2}, 400),
        ({"request": request, "score": 1, "thumb": "up"}, 400),
    ):
        assert call(server, "/feedback", wrong)[0] == status
    stranger = call(server, "/keys", {"name": "a stranger"})[1]["key"]
    assert call(server, "/feedback", {"request": request, "score": 1}, stranger)[0] == 404
