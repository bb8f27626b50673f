"""From golden questions to a stage: what is measured, what is missing, who may say so, and what is on record."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Scripted, Server

QUESTIONS = [
    {
        "id": f"q{n}",
        "question": f"Say the number {n}",
        "facts": [f"number {n}"],
        "tags": ["even" if n % 2 == 0 else "odd"],
    }
    for n in range(40)
]
APP = {
    "app.yaml": """\
app: numbers
purpose: Say numbers back.
owners: {accountable: someone@example.com}
model: {use: echo}
prompt: {answer: answer.md}
evals: {golden: golden.jsonl, scorers: scorers.py}
targets: {correct: ">= 0.8", deflection: a third fewer tickets}
""",
    "answer.md": "{{ question }}",
    "golden.jsonl": "\n".join(map(json.dumps, QUESTIONS)),
    "scorers.py": "def polite(case, delivered) -> bool:\n    return 'please' in delivered['text']\n",
}
# the odd ones lose their number
BROKEN = "{% if question.split()[-1]|int % 2 %}I do not say odd ones.{% else %}{{ question }}{% endif %}"


def create(server: Server, folder: Path) -> str:
    made = json.loads(server.cli("release", "create", str(folder), "--json").stdout)
    return f"{made['app']}@{made['number']}"


def call(server: Server, method: str, path: str, body: object = None, key: str | None = None) -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {key or server.owner_key}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}/api/v1{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def error(message: str) -> dict[str, Any]:
    """The body of a request that is refused as wrong."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": "invalid_request"}}


@pytest.fixture(scope="module")
def keys(server: Server) -> dict[str, str]:
    """The texts of a key for each role."""
    made = {}
    for role in ("developer", "operator", "approver", "user"):
        made[role] = call(server, "POST", "/keys", {"name": f"the {role}", "role": role})[1]["key"]
    return made


def test_a_release_comes_to_production_with_its_evidence(
    server: Server, app_folder: Callable[..., Path], keys: dict[str, str]
) -> None:
    folder = app_folder(APP, "numbers")
    sound = create(server, folder)
    promotions, releases = "/apps/numbers/promotions", "/apps/numbers/releases/1"
    into_beta, into_production = ({"release": 1, "stage": stage} for stage in ("beta", "production"))
    status, refused = call(server, "POST", promotions, into_beta)
    assert status == 409 and [m["id"] for m in refused["missing"]] == ["beta.evaluation"]
    said = server.cli("release", "promote", sound, "--to", "beta", "--json")
    assert said.returncode == 1 and json.loads(said.stdout) == refused, said
    assert said.stderr == refused["error"]["message"] + "\n"
    assert "proveout eval run numbers@1" in refused["error"]["message"]

    run = server.cli("eval", "run", sound, "--json")
    assert run.returncode == 0, run.stderr
    summary = json.loads(run.stdout)["summary"]
    assert summary["verdict"] == "pass" and summary["asked"] == 40
    assert [t["name"] for t in summary["targets"]] == ["correct"]  # prose is for people
    assert summary["scores"]["polite"]["mean"] == 0 and summary["scores"]["correct"]["low"] > 0.9
    again = json.loads(server.cli("eval", "run", sound, "--json").stdout)["summary"]
    assert again["asked"] == 0 and again["scores"]["correct"] == summary["scores"]["correct"]

    assert call(server, "POST", promotions, into_beta, keys["user"])[0] == 404
    assert call(server, "POST", promotions, into_beta, keys["developer"])[0] == 404
    assert call(server, "POST", promotions, into_beta, keys["operator"])[0] == 200
    status, refused = call(server, "POST", promotions, into_production, keys["operator"])
    assert status == 409 and [m["id"] for m in refused["missing"]] == ["production.drill", "production.approval"]

    told = {"kind": "drill", "verdict": "pass", "statement": "Rolled back and forth in 40 s.", "person": "Ann"}
    told["expires"] = "2999-01-01T00:00:00Z"
    assert call(server, "POST", f"{releases}/evidence", told, keys["approver"])[0] == 404
    assert call(server, "POST", f"{releases}/evidence", told | {"kind": "evaluation"}, keys["developer"])[0] == 400
    status, made = call(server, "POST", f"{releases}/evidence", told, keys["developer"])
    assert (status, made["demanded_by"]) == (201, ["production.drill"])
    person = ("--person", "Ann", "--expires", "2999-01-01", "--statement", "Nothing was found.")
    odd = server.cli("release", "attest", sound, "--kind", "red-team", *person)
    assert odd.returncode == 0 and "no stage of this server demands" in odd.stderr
    assert server.cli("release", "attest", sound, "--kind", "data-tests", *person).returncode == 2
    assert call(server, "POST", f"{releases}/approvals", {"stage": "production"})[0] == 400  # its own author
    assert call(server, "POST", f"{releases}/approvals", {"stage": "production"}, keys["operator"])[0] == 404
    assert call(server, "POST", f"{releases}/approvals", {"stage": "production"}, keys["approver"])[0] == 201
    ready = call(server, "GET", f"{releases}/readiness")[1]
    figures = ready["evaluation"]
    assert figures["scores"]["correct"]["low"] > 0.9 and figures["golden"] and figures["cost_per_answer"] in (None, 0)
    assert ready["drill"]["verdict"] == "pass" and not ready["stages"]["beta"]["rolled_back"]
    shown = server.cli("release", "readiness", sound)
    assert shown.returncode == 0 and "drill: pass" in shown.stdout and "evaluation: pass, 40 cases" in shown.stdout
    assert "never walked here" in shown.stdout and "cost per answer" in shown.stdout
    assert call(server, "POST", promotions, into_production, keys["operator"])[0] == 200

    found = call(server, "GET", f"{releases}/evidence")[1]["evidence"]
    assert sorted(e["kind"] for e in found) == ["approval", "drill", "evaluation", "evaluation", "red-team"]
    events = call(server, "GET", "/log/events?kind=releases:evidence:recorded&limit=100")[1]["events"]
    signatures = {e["record"]["signature"] for e in events if e.get("record")}
    assert {e["signature"] for e in found} <= signatures or len(events) >= 4  # the newest may still wait


def test_evidence_is_over_the_questions_and_targets_that_it_saw(
    server: Server, app_folder: Callable[..., Path], keys: dict[str, str]
) -> None:
    """Golden questions and targets may change while the digest stays: then what was found out counts no longer."""
    manifest = APP["app.yaml"].replace("app: numbers", "app: numbers-eased")
    folder = app_folder({**APP, "app.yaml": manifest}, "eased")
    release = create(server, folder)
    assert server.cli("eval", "run", release).returncode == 0
    promotions, approvals = "/apps/numbers-eased/promotions", "/apps/numbers-eased/releases/1/approvals"
    assert call(server, "POST", approvals, {"stage": "production"}, keys["approver"])[0] == 201
    (folder / "app.yaml").write_text(manifest.replace("0.8", "0.1"))
    (folder / "golden.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS[:20])))
    assert "is the folder's now" in server.cli("release", "create", str(folder)).stdout
    assert server.cli("release", "create", str(folder)).stdout.strip().endswith("(it existed already)")
    for stage, criteria in (("beta", ["evaluation"]), ("production", ["evaluation", "approval"])):
        refused = call(server, "POST", promotions, {"release": 1, "stage": stage}, keys["operator"])[1]["missing"]
        said = {m["id"]: m["missing"] for m in refused}
        assert all("other targets and golden questions" in said[f"{stage}.{name}"] for name in criteria)
    run = server.cli("eval", "run", release, "--json")
    summary = json.loads(run.stdout)["summary"]
    assert run.returncode == 0 and (summary["cases"], summary["asked"]) == (20, 0)  # of the new ones; all are known
    assert call(server, "POST", promotions, {"release": 1, "stage": "beta"}, keys["operator"])[0] == 200


def test_a_worse_release_is_caught_compared_and_kept_out(
    server: Server, app_folder: Callable[..., Path], keys: dict[str, str]
) -> None:
    folder = app_folder({**APP, "app.yaml": APP["app.yaml"].replace("app: numbers", "app: numbers-halved")}, "halves")
    sound = create(server, folder)
    (folder / "answer.md").write_text(BROKEN)
    broken = create(server, folder)
    run = server.cli("eval", "run", broken, "--baseline", sound, "--report", str(folder / "report"), "--json")
    assert run.returncode == 1, run.stderr
    found = json.loads(run.stdout)
    summary, comparison = found["summary"], found["summary"]["comparison"]
    assert summary["verdict"] == "fail" and comparison["verdict"] == "fail"
    assert comparison["worst_slice"]["tag"] == "odd"
    assert found["changed"] and {c["case"] for c in found["changed"]} <= {f"q{n}" for n in range(1, 40, 2)}
    assert "number 1" not in json.dumps(summary), "figures are kept in clear, and nothing that was said"
    endings = {path.suffix: path.read_text() for path in (folder / "report").iterdir()}
    assert set(endings) == {".html", ".md", ".xml", ".json"}
    assert "odd" in endings[".html"] and "<testsuite" in endings[".xml"]
    assert all("number 13" in text for text in endings.values()), "what was expected and missed"
    shown = server.cli("eval", "run", broken, "--baseline", sound).stdout
    assert "\n  expected number 13\n  answered I do not say odd ones." in shown and "finds harm from" in shown

    status, refused = call(server, "POST", "/apps/numbers-halved/promotions", {"release": 2, "stage": "beta"})
    assert status == 409 and "says fail" in refused["missing"][0]["missing"]
    glass = {"release": 2, "stage": "beta", "break_glass": "odd numbers are not needed until Monday"}
    assert call(server, "POST", "/apps/numbers-halved/promotions", glass, keys["operator"])[0] == 404
    assert call(server, "POST", "/apps/numbers-halved/promotions", {**glass, "break_glass": "now"})[0] == 400
    assert call(server, "POST", "/apps/numbers-halved/promotions", {**glass, "break_glass": " ." * 30})[0] == 400
    assert call(server, "POST", "/apps/numbers-halved/promotions", glass)[0] == 200
    broke = call(server, "GET", "/log/events?kind=releases:gate:broken")[1]["events"]
    assert broke[0]["kind"] == "releases:gate:broken"


def test_questions_of_ones_own_are_no_evidence(server: Server, app_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = app_folder({**APP, "app.yaml": APP["app.yaml"].replace("app: numbers", "app: numbers-easy")}, "easy")
    release = create(server, folder)
    mine = tmp_path / "mine.jsonl"
    mine.write_text(APP["golden.jsonl"])
    assert server.cli("eval", "run", release, "--dataset", str(mine)).returncode == 0
    assert call(server, "GET", "/apps/numbers-easy/releases/1/evidence")[1]["evidence"] == []
    mine.write_text('{"id": "a", "question": "a", "facts": ["a"]}\n{"id": "a"}\n')
    refused = server.cli("eval", "run", release, "--dataset", str(mine))
    assert refused.returncode == 2 and f"{mine}:2: " in refused.stderr
    put = server.cli("eval", "datasets", "numbers-easy", "--put", str(mine))
    assert (put.returncode, put.stderr) == (2, refused.stderr)
    assert call(server, "POST", "/apps/numbers-easy/releases/1/evaluations", {"dataset": "\n"}) == (
        400, error("dataset: there is no case in it.")
    )  # fmt: skip
    assert call(server, "PUT", "/apps/numbers-easy/datasets/mine", {"text": ""}) == (
        400, error("mine: there is no case in it.")
    )  # fmt: skip
    few = "\n".join(APP["golden.jsonl"].splitlines()[:5])
    mine.write_text(few)
    assert server.cli("eval", "run", release, "--dataset", str(mine)).returncode == 3  # 5 of 5 prove no 0.8
    keep = ("eval", "datasets", "numbers-easy", "--put", str(mine), "--json")
    put, again = (json.loads(server.cli(*keep).stdout) for _ in range(2))
    assert put == again and (put["name"], put["version"], put["cases"]) == ("mine", 1, 5)
    mine.write_text(few + '\n{"id": "m", "question": "m", "facts": ["m"], "origin": "traffic"}\n')
    put = json.loads(server.cli(*keep).stdout)
    assert (put["version"], put["cases"], put["counted"]) == (2, 6, 5)  # nobody has reviewed the one from traffic
    named = json.loads(server.cli("eval", "run", release, "--dataset", "mine@1", "--json").stdout)
    assert named["summary"]["cases"] == 5 and named["summary"]["asked"] == 0
    assert server.cli("eval", "run", release, "--dataset", "yours").returncode == 2
    planned = json.loads(server.cli("eval", "plan", release, "--effect", "0.1", "--json").stdout)
    assert planned["cases"] == 40 and planned["options"][0]["cases"] > 40


def test_who_asks_how_often_and_what_users_asked(
    server: Server, app_folder: Callable[..., Path], keys: dict[str, str], tmp_path: Path
) -> None:
    golden = [{"id": f"w{n}", "question": f"She asks for {n} days", "facts": [f"{n} days"]} for n in range(40)]
    golden.append({"id": "w0b", "question": "She wants 0 days", "facts": ["0 days"], "paraphrase_of": "w0"})
    files = {
        "app.yaml": APP["app.yaml"].replace("app: numbers", "app: leave").replace(", scorers: scorers.py", ""),
        "answer.md": "{{ 'Not for him.' if 'He ' in question else question }}",
        "golden.jsonl": "\n".join(map(json.dumps, golden)),
    }
    release = create(server, app_folder(files, "leave"))
    plain = json.loads(server.cli("eval", "run", release, "--json").stdout)["summary"]
    assert plain["verdict"] == "pass" and plain["bias"] == [] and "consistency" not in plain["scores"]
    assert plain["scores"]["paraphrases"]["cases"] == 1 and 0.3 < plain["scores"]["paraphrases"]["mean"] < 1
    run = server.cli("eval", "run", release, "--bias", "--repeats", "2", "--report", str(tmp_path), "--json")
    assert run.returncode == 1, run.stderr
    found = json.loads(run.stdout)["summary"]
    (gap,) = found["bias"]
    assert (gap["attribute"], {gap["group"], gap["other"]}, gap["alarm"]) == ("gender", {"woman", "man"}, True)
    assert abs(gap["difference"]["estimate"]) == 1 and [t["verdict"] for t in found["targets"]] == ["pass"]
    assert found["verdict"] == "fail" and found["scores"]["consistency"]["mean"] == pytest.approx(1, abs=1e-3)
    said = run.stderr.splitlines()
    assert said[0].startswith("41 questions, 82 answers beside those of --bias, about ") and said[1].startswith(
        "asking leave@1: "
    ), said
    (page,) = tmp_path.glob("*.html")
    assert "gender: woman, man" in page.read_text()

    for question in ("Write to ann@example.com, please", "How long is it?"):
        asked = {"model": "leave@1", "messages": [{"role": "user", "content": question}]}
        data = json.dumps(asked).encode()
        headers = {"authorization": f"Bearer {server.owner_key}", "content-type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"{server.url}/v1/chat/completions", data, headers)) as said:
            number = said.headers["x-proveout-request"]
    assert call(server, "POST", "/feedback", {"request": number, "thumb": "down", "correction": "Two"})[0] == 201
    drawn = tmp_path / "drawn.jsonl"
    assert server.cli("eval", "draft", release, "--from", "traffic", "--to", str(drawn)).returncode == 0
    cases = [json.loads(line) for line in drawn.read_text().splitlines()]
    assert {c["question"] for c in cases} == {"Write to [email], please", "How long is it?"}
    assert all(c["origin"] == "traffic" and "reviewed" not in c for c in cases)
    again = server.cli("eval", "draft", release, "--from", "traffic", "--to", str(drawn))
    assert again.returncode == 2 and "exists" in again.stderr
    told = tmp_path / "told.jsonl"
    assert server.cli("eval", "draft", release, "--from", "feedback", "--to", str(told)).returncode == 0
    (case,) = map(json.loads, told.read_text().splitlines())
    assert (case["question"], case["reference"]) == ("How long is it?", "Two")
    manifest = APP["app.yaml"].split("evals:")[0].replace("app: numbers", "app: faq")
    faq = "# Leave\n\nQuestion: How many days of leave are there?\n\nAnswer: 25 days\n"
    files = {"app.yaml": manifest + "knowledge: [{name: faq, source: docs}]\n", "answer.md": "{{ question }}"}
    asks = create(server, app_folder(files | {"docs/leave.md": faq}, "faq"))
    written = tmp_path / "written.jsonl"
    run = server.cli("eval", "draft", asks, "--from", "documents", "--to", str(written))  # echo asks what it reads
    assert run.returncode == 0, run.stderr
    (case,) = map(json.loads, written.read_text().splitlines())
    assert (case["question"], case["facts"]) == ("How many days of leave are there?", ["25 days"])
    assert case["documents"] == ["leave.md"] and case["origin"] == "documents" and "groups" not in case
    mine = call(server, "POST", "/apps/faq/releases/1/drafts", {"source": "documents", "count": 1})[1]
    for _ in range(100):
        if call(server, "GET", f"/jobs/{mine['job']}")[1]["state"] not in ("waiting", "running"):
            break
        time.sleep(0.1)
    assert call(server, "GET", f"/drafts/{mine['drafts']}")[1]["question"] == case["question"]
    assert call(server, "GET", f"/drafts/{mine['drafts']}", key=keys["developer"])[0] == 404  # they quote documents
    bare = server.cli("eval", "draft", release, "--from", "documents", "--to", str(tmp_path / "none"), "--json")
    assert bare.returncode == 1
    assert "leave@1 has no documents that your key reads" in json.loads(bare.stdout)["reason"]
    none = server.cli("eval", "draft", asks, "--from", "traffic", "--to", str(tmp_path / "none"))
    assert none.returncode == 1 and not (tmp_path / "none").exists()
    path, body = "/apps/leave/releases/1/drafts", {"source": "traffic"}
    assert call(server, "POST", path, body, keys["developer"])[0] == 404  # it may not open what users said


def test_a_key_of_other_apps_and_one_of_other_groups_find_nothing(
    server: Server, app_folder: Callable[..., Path]
) -> None:
    asked = {**QUESTIONS[0], "groups": ["hr"]}
    files = {**APP, "app.yaml": APP["app.yaml"].replace("numbers", "secret"), "golden.jsonl": json.dumps(asked)}
    create(server, app_folder(files, "secret"))
    call(server, "POST", "/apps/secret/promotions", {"release": 1, "stage": "poc"})
    run = json.loads(server.cli("eval", "run", "secret@1", "--json").stdout)
    for command in (("eval", "list"), ("eval", "datasets"), ("release", "refreshes")):
        none = server.cli(*command, "nosuch")
        assert (none.returncode, none.stderr) == (2, "There is no app 'nosuch'.\n"), command
    limited = call(server, "POST", "/keys", {"name": "elsewhere", "role": "operator", "apps": ["numbers"]})[1]["key"]
    app, order = "/apps/secret", {"action": "start", "release": 1}
    for method, path, body in (
        ("GET", f"{app}/releases", None),
        ("GET", f"{app}/releases/1", None),
        ("GET", f"{app}/refreshes", None),
        ("GET", f"{app}/datasets", None),
        ("GET", f"{app}/evaluations", None),
        ("GET", f"/evaluations/{run['id']}", None),
        ("GET", f"/evaluations/{run['id']}/report", None),
        ("GET", f"{app}/stages/poc/rollout", None),
        ("POST", f"{app}/promotions", {"release": 1, "stage": "poc"}),
        ("POST", f"{app}/stages/poc/rollout", order),
        ("POST", f"{app}/stages/poc/rollback", {}),
        ("POST", f"{app}/releases/1/evaluations", {}),
    ):
        status, refused = call(server, method, path, body, limited)
        assert status == 404, (method, path, refused)
    roles = {groups: {"name": f"of {groups}", "role": "developer", "groups": [groups]} for groups in ("hr", "it")}
    keys = {groups: call(server, "POST", "/keys", body)[1]["key"] for groups, body in roles.items()}
    assert call(server, "GET", f"/evaluations/{run['id']}", None, keys["hr"])[0] == 200
    for path in (f"/evaluations/{run['id']}", f"/evaluations/{run['id']}/report?format=json"):
        assert call(server, "GET", path, None, keys["it"])[0] == 404


def test_an_outage_is_no_evidence(scripted: Scripted, app_folder: Callable[..., Path]) -> None:
    """Of a model that is away, times are not short and answers not alike: nothing is decided, and nothing recorded."""
    server = scripted.server
    targets = "{total: '<= 1 s', consistency: '>= 0.5', toxicity: '<= 0'}"
    manifest = APP["app.yaml"].replace("numbers", "away").replace("use: echo", "use: 'up/status=500'")
    files = {**APP, "app.yaml": manifest.replace('{correct: ">= 0.8", deflection: a third fewer tickets}', targets)}

    async def story() -> None:
        async with scripted.world():
            release = await asyncio.to_thread(create, server, app_folder(files, "away"))
            run = await asyncio.to_thread(server.cli, "eval", "run", release, "--repeats", "2", "--json")
            assert run.returncode == 3, run.stderr
            summary = json.loads(run.stdout)["summary"]
            assert summary["failing"] and summary["verdict"] == "inconclusive"
            assert summary["scores"].keys() <= {"correct", "answering"} and "80 of 80 calls" in summary["notes"][0]
            found = await asyncio.to_thread(call, server, "GET", "/apps/away/releases/1/evidence")
            assert found[1]["evidence"] == []
            spent = await asyncio.to_thread(server.cli, "eval", "run", release, "--budget", "1")
            assert spent.returncode == 2 and "has no price" in spent.stderr

    asyncio.run(story())


def test_an_evaluation_that_fails_says_why(server: Server, app_folder: Callable[..., Path], tmp_path: Path) -> None:
    files = {**APP, "scorers.py": "def polite(case, delivered) -> bool:\n    return delivered['nothing']\n"}
    release = create(
        server, app_folder({**files, "app.yaml": APP["app.yaml"].replace("numbers", "failing")}, "failing")
    )
    run = server.cli("eval", "run", release)
    assert run.returncode == 2, run
    assert run.stderr.splitlines()[-1] == "polite: scorers.py:2: KeyError: 'nothing' (case q0)", run
    (listed,) = call(server, "GET", "/apps/failing/evaluations")[1]["evaluations"]
    assert listed["state"] == "failed" and "nothing" in listed["error"], listed
    report = server.cli("eval", "report", listed["id"], "--to", str(tmp_path), "--json")
    assert report.returncode == 1 and json.loads(report.stdout)["error"]["message"] == report.stderr.strip()
    assert server.cli("eval", "report", "evaluation_none", "--to", str(tmp_path)).returncode == 2
    shown = server.cli("eval", "list", "failing").stdout
    assert f"{listed['id']} failed: " in shown, shown
    status, refused = call(server, "GET", f"/evaluations/{listed['id']}/report")
    assert status == 409 and "nothing" in refused["error"]["message"], refused


def test_a_killed_evaluation_asks_nothing_twice(scripted: Scripted, app_folder: Callable[..., Path]) -> None:
    """kill -9 of the worker in the middle: what had an answer is not asked again, and the evaluation ends."""
    server, questions = scripted.server, 60
    golden = [{"id": f"q{n}", "question": f"tag=q{n} what is it", "facts": ["word3"]} for n in range(questions)]
    manifest = "app: slow\npurpose: p\nowners: {accountable: a}\nmodel: {use: 'up/tokens=5&first=0.3'}\n"
    folder = app_folder(
        {
            "app.yaml": manifest + "evals: {golden: golden.jsonl}\n",
            "golden.jsonl": "\n".join(map(json.dumps, golden)),
        },
        "slow",
    )

    async def story() -> None:
        async with scripted.world() as world:
            release = await asyncio.to_thread(create, server, folder)
            body = {"repeats": 1}
            begun = (await asyncio.to_thread(call, server, "POST", "/apps/slow/releases/1/evaluations", body))[1]
            entries = world.upstream.ledger.entries
            for _ in range(1200):
                if sum(entry.state == "finished" for entry in entries) >= 20:
                    break
                await asyncio.sleep(0.05)
            os.kill(server.pid_of("worker"), signal.SIGKILL)
            await asyncio.sleep(0.5)  # what was under way when it died has come to its end
            before = Counter(entry.tag for entry in entries if entry.state == "finished")
            state: Any = {"state": "running"}
            async with asyncio.timeout(120):
                while state["state"] in ("waiting", "running"):
                    await asyncio.sleep(0.2)
                    state = (await asyncio.to_thread(call, server, "GET", f"/jobs/{begun['job']}"))[1]
            assert state["state"] == "done", state
            asked = Counter(entry.tag for entry in entries)
            assert len(asked) == questions
            twice = [tag for tag, count in asked.items() if count > 1]
            assert len(twice) <= 8, twice  # those under way at the kill, at most as many as are asked at a time
            assert len(before) >= 20 and sum(tag not in twice for tag in before) >= 12
            found = (await asyncio.to_thread(call, server, "GET", f"/evaluations/{begun['evaluation']}"))[1]
            assert found["summary"]["answers"] == questions and release == "slow@1"

    asyncio.run(story())
