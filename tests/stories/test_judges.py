"""A model as a judge: in an evaluation, where it decides only if it agrees with people, and on users' answers."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from test_evidence import call

from conftest import Scripted, Server

ALWAYS = "up/text=Better%3A+A.+Score%3A+8"  # says so of every answer, and prefers the one that is shown first


def app(name: str, judge: str, target: str) -> dict[str, str]:
    """An app that says back what it is asked. `echo` as its judge says back what it is to judge, scores included."""
    golden = [{"id": f"q{n}", "question": f"Score: {n % 5 + 5}", "reference": "ten"} for n in range(30)]
    labels = [{"question": f"w{n}", "answer": f"Score: {n % 10}", "score": (n % 10) / 10} for n in range(110)]
    for n in range(12):  # people are kinder to these than they say themselves
        said = {"question": f"Score: {n % 5 + 5}", "answer": f"Score: {n % 5 + 5}", "case": f"q{n}"}
        labels.append({**said, "score": (n % 5 + 5) / 10 + 0.1})
    return {
        "app.yaml": f"app: {name}\npurpose: p\nowners: {{accountable: a}}\nmodel: {{use: echo}}\n"
        f"prompt: {{answer: answer.md}}\ntargets: {{judge: '{target}'}}\n"
        f"evals: {{golden: golden.jsonl, judge: {{model: '{judge}', labels: labels.jsonl, share: 1}}}}\n",
        "answer.md": "{{ question }}",
        "golden.jsonl": "\n".join(map(json.dumps, golden)),
        "labels.jsonl": "\n".join(map(json.dumps, labels)),
    }


def release(server: Server, name: str, folder: Path) -> int:
    status, made = call(server, "POST", f"/apps/{name}/releases", {"path": str(folder)})
    assert status == 201, made
    return int(made["number"])


def evaluate(server: Server, name: str, number: int, **body: object) -> dict[str, Any]:
    """An evaluation that has ended; `summary` and `cases`."""
    begun = call(server, "POST", f"/apps/{name}/releases/{number}/evaluations", body)[1]
    for _ in range(200):
        job = call(server, "GET", f"/jobs/{begun['job']}")[1]
        if job["state"] not in ("waiting", "running"):
            break
        time.sleep(0.05)
    assert job["state"] == "done", job
    return dict(call(server, "GET", f"/evaluations/{begun['evaluation']}")[1])


def test_a_judge_decides_only_where_it_agrees_with_people(scripted: Scripted, app_folder: Callable[..., Path]) -> None:
    server = scripted.server

    async def story() -> None:
        async with scripted.world() as world:
            folder = app_folder(app("judged", ALWAYS, "<= 0.1"), "judged")
            assert await asyncio.to_thread(release, server, "judged", folder) == 1
            found = (await asyncio.to_thread(evaluate, server, "judged", 1))["summary"]
            asked = len(world.upstream.ledger.entries)
            assert (
                asked == found["judge"]["asked"] == 110 + 5
            )  # different ones: thirty answers, and twelve labels of them, are five
            (target,) = found["targets"]  # it is missed by far, and cannot block
            assert (target["verdict"], target["advises"], found["verdict"]) == ("inconclusive", True, "inconclusive")
            assert target["reason"].startswith("advises only: κ 0.00 (") and "of 122 labels" in target["reason"]
            (folder / "answer.md").write_text("{{ question }}!")
            assert await asyncio.to_thread(release, server, "judged", folder) == 2
            found = (await asyncio.to_thread(evaluate, server, "judged", 2, baseline="judged@1"))["summary"]
            pairs = found["judge"]["pairs"]
            assert (pairs["ties"], pairs["earlier"], pairs["net"]["estimate"]) == (30, 1.0, 0.0)
            assert "judge" not in {c["metric"]["name"] for c in found["comparison"]["metrics"]}
            assert found["verdict"] == "inconclusive"
            assert len(world.upstream.ledger.entries) == asked + found["judge"]["asked"]

    asyncio.run(story())
    folder = app_folder(app("agreeing", "echo", ">= 0.7"), "agreeing")
    number = release(server, "agreeing", folder)
    evaluation = evaluate(server, "agreeing", number)
    found = evaluation["summary"]
    assert found["judge"]["decides"] and found["verdict"] == "pass" and found["judge"]["corrected"] == 12
    assert found["scores"]["judge"]["mean"] > 0.75  # the judge's own mean is 0.70
    assert evaluate(server, "agreeing", number)["summary"]["judge"]["asked"] == 0
    planned = call(server, "GET", f"/apps/agreeing/releases/{number}/evaluations/plan")[1]
    assert planned["judge"] == {"calls": 122 + planned["answers"] + 2 * 30, "usd": 0.0}
    assert "The judge is asked up to" in server.cli("eval", "plan", f"agreeing@{number}").stdout
    written = call(server, "GET", f"/evaluations/{evaluation['id']}/report?format=json")[1]
    assert written["judge"]["agreement"]["kappa"]["n"] == 122 and written["verdict"] == "pass"


def test_a_sample_of_what_users_are_answered_is_judged(scripted: Scripted, app_folder: Callable[..., Path]) -> None:
    server = scripted.server
    folder = app_folder(app("asked", "echo", ">= 0.5"), "asked")
    number = release(server, "asked", folder)
    assert call(server, "POST", "/apps/asked/promotions", {"release": number, "stage": "poc"})[0] == 200
    for n in range(3):
        body = {"model": "asked", "messages": [{"role": "user", "content": f"Score: {n + 3}"}]}
        headers = {"authorization": f"Bearer {server.owner_key}", "content-type": "application/json"}
        asked = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(body).encode(), headers)
        urllib.request.urlopen(asked).read()
    said: list[dict[str, Any]] = []
    for _ in range(200):
        events = call(server, "GET", "/log/events?kind=evals:answer:judged&limit=100")[1]["events"]
        said = [record for event in events if (record := event["record"]) and record["app"] == "asked"]
        if len(said) >= 3:
            break
        time.sleep(0.05)
    assert sorted(one["score"] for one in said) == [0.3, 0.4, 0.5]
    assert all((one["decides"], one["judge"], one["usd"]) == (False, "echo", 0.0) for one in said)
    (listed,) = call(server, "GET", "/apps/asked/evaluations")[1]["judged"]
    assert (listed["release"], listed["drawn"], listed["judged"], round(listed["mean"], 6)) == (number, 3, 3, 0.4)
    requests = call(server, "GET", "/requests?limit=50")[1]["requests"]
    asked_of_judge = [row["request"] for row in requests if row["key"] == "system"]
    assert len(asked_of_judge) == 3
    status, refused = call(server, "POST", f"/requests/{asked_of_judge[0]}/replays")
    assert status == 409 and "was not kept" in refused["error"]["message"]  # what the user said is kept once


def again(folder: Path) -> tuple[str, dict[str, str]]:
    return "/apps/waiting/releases", {"path": str(folder)}


def test_a_judge_that_is_away_is_waited_for(scripted: Scripted, app_folder: Callable[..., Path]) -> None:
    """It is asked once, then left alone for a while; the answers keep their place in the sample."""
    server = scripted.server

    async def story() -> None:
        async with scripted.world() as world:
            folder = app_folder(app("waiting", "up/status=503", ">= 0.5"), "waiting")
            number = await asyncio.to_thread(release, server, "waiting", folder)
            stage = {"release": number, "stage": "poc"}
            await asyncio.to_thread(call, server, "POST", "/apps/waiting/promotions", stage)
            body = {"model": "waiting", "messages": [{"role": "user", "content": "Score: 3"}]}
            headers = {"authorization": f"Bearer {server.owner_key}", "content-type": "application/json"}
            asked = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(body).encode(), headers)
            await asyncio.to_thread(lambda: urllib.request.urlopen(asked).read())
            for _ in range(200):
                if world.upstream.ledger.entries:
                    break
                await asyncio.sleep(0.05)
            await asyncio.sleep(3)
            assert len(world.upstream.ledger.entries) == 1
            found = await asyncio.to_thread(call, server, "GET", "/apps/waiting/evaluations")
            assert found[1]["judged"] == []
            silent = (folder / "app.yaml").read_text().replace("share: 1", "share: 0")
            (folder / "app.yaml").write_text(silent)  # nor will it be asked in the middle of another story
            assert (await asyncio.to_thread(call, server, "POST", *again(folder)))[0] == 200

    asyncio.run(story())
