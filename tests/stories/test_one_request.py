"""One request, as a user meets it: a question, a streamed and cited answer, and its record; and its app, as its owner
does: a release, a change, another release."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from conftest import Server

QUESTION = "How many days of annual leave do full-time employees in Leeds get?"


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.owner_key, max_retries=0)


def get(server: Server, path: str) -> dict[str, object]:
    request = urllib.request.Request(server.url + path, headers={"Authorization": f"Bearer {server.owner_key}"})
    with urllib.request.urlopen(request) as response:
        return dict(json.load(response))


APP = {
    "app.yaml": """\
app: tutorial
purpose: Answer employees' questions on leave.
owners: {accountable: people@example.com}
model: {use: local/smollm2-135m-instruct}
knowledge: [{name: leave, source: leave}]
""",
    "leave/annual-leave.md": "# Annual leave\n\nFull-time employees in Leeds get 25 days of annual leave a year.\n",
    "leave/sick-leave.md": "# Sick leave\n\nSick leave needs a doctor's note from the fourth day on.\n",
}


def test_from_a_question_to_its_proof(server: Server, client: openai.OpenAI, app_folder: Callable[..., Path]) -> None:
    """The whole story; each step builds on those above it."""
    folder = app_folder(APP, "tutorial")

    def proveout(*arguments: str) -> dict[str, Any]:
        done = server.cli(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def ask(question: str) -> tuple[str, dict[str, Any]]:
        answer = client.chat.completions.create(model="tutorial", messages=[{"role": "user", "content": question}])
        assert answer.model_extra is not None
        return answer.choices[0].message.content or "", answer.model_extra["proveout"]

    # 1. A folder becomes a release: a number, and a digest of everything that decides its answers.
    first = proveout("release", "create", str(folder))
    assert first["number"] == 1 and first["digest"].startswith("sha256:")

    # 2. Stable in a stage, it is served by the app's name.
    proveout("release", "promote", "tutorial@1", "--to", "poc")

    # 3. A question is answered from the app's documents, and the answer says from which.
    before, about_before = ask(QUESTION)
    assert "25 days" in before and about_before["grounded"] is True
    assert about_before["citations"][0]["document"] == "annual-leave.md"

    # 4. The handbook changes. What is served does not: a release is what it was made of.
    leave = folder / "leave" / "annual-leave.md"
    leave.write_text(leave.read_text().replace("25 days", "28 days"))
    assert "25 days" in ask(QUESTION)[0]

    # 5. The changed folder becomes the next release.
    second = proveout("release", "create", str(folder))
    assert second["number"] == 2 and second["digest"] != first["digest"]

    # 6. What is different is told before anybody is served by it: one document, and nothing else.
    told = proveout("release", "diff", "tutorial@1", "tutorial@2")
    (corpus,) = told["knowledge"]
    assert (corpus["added"], corpus["removed"], corpus["changed"]) == ([], [], ["annual-leave.md"])
    assert [change["key"] for change in told["changes"]] == [] and told["prompts"] == {}

    # 7. The same question is answered from the new document.
    proveout("release", "promote", "tutorial@2", "--to", "poc")
    after, about_after = ask(QUESTION)
    assert "28 days" in after and "25 days" not in after

    # 8. Each answer is on record, with the release that gave it.
    for about, release in ((about_before, first), (about_after, second)):
        record = get(server, f"/api/v1/requests/{about['request']}")
        assert (record["release"], record["release_digest"]) == (release["number"], release["digest"])
        assert record["outcome"] == "answered" and record["app"] == "tutorial"


def test_a_client_is_told_that_its_instructions_have_no_part(client: openai.OpenAI) -> None:
    """An app's instructions are those of its release, which were tested; a client often sends some by habit."""

    def ignored(*roles: str) -> object:
        messages: Any = [{"role": role, "content": "Answer in French."} for role in roles]
        answer = client.chat.completions.create(
            model="helpdesk", messages=[*messages, {"role": "user", "content": QUESTION}], max_tokens=8
        )
        assert "25 days" in (answer.choices[0].message.content or "") and answer.model_extra is not None
        return answer.model_extra["proveout"]["ignored"]

    assert [ignored(), ignored("developer", "system")] == [[], ["system"]]
    direct = client.chat.completions.create(
        model="echo", messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}]
    )
    assert direct.model_extra is not None and direct.model_extra["proveout"]["ignored"] == []


def test_what_up_prints_is_enough_to_begin(server: Server) -> None:
    assert f"{server.url}/login?code=" in server.output
    assert str(server.data / "owner.key") in server.output
    assert f"curl -s {server.url}/v1/chat/completions" in server.output
    assert (server.data / "owner.key").stat().st_mode & 0o777 == 0o600
    assert server.data.stat().st_mode & 0o777 == 0o700


def test_a_whole_answer_is_cited_and_on_record(server: Server, client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="helpdesk", messages=[{"role": "user", "content": QUESTION}]
    )
    answer = raw.parse()
    text = answer.choices[0].message.content
    assert text is not None and "25 days" in text and "[1]" in text
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None and answer.usage.prompt_tokens > 100
    about = answer.model_extra["proveout"]  # type: ignore[index]
    assert about["grounded"] is True
    citation = about["citations"][0]
    assert citation["document"] == "hr/annual-leave.md" and citation["number"] == 1
    assert len(citation["quote"].split()) <= 60 and "25 days" in citation["quote"]
    assert raw.headers["x-proveout-request"] == about["request"]
    assert raw.headers["x-proveout-release"] == about["release"] == "helpdesk@1"
    record = get(server, f"/api/v1/requests/{about['request']}")
    assert record["outcome"] == "answered" and record["release"] == 1 and record["stage"] == "poc"
    assert record["completion_tokens"] == answer.usage.completion_tokens
    assert "25 days" not in json.dumps(record)  # what was said is not in it


def test_a_stream_says_the_same_in_sentences(server: Server, client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="helpdesk", messages=[{"role": "user", "content": QUESTION}])
    stream = client.chat.completions.create(
        model="helpdesk",
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert "".join(pieces) == whole.choices[0].message.content
    finish = next(c for c in chunks if c.choices and c.choices[0].finish_reason)
    about = finish.model_extra["proveout"]  # type: ignore[index]
    assert about["citations"] and chunks[-1].usage is not None
    assert get(server, f"/api/v1/requests/{about['request']}")["outcome"] == "answered"


def test_models_are_listed(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"helpdesk", "helpdesk:poc", "local/smollm2-135m-instruct", "echo"} <= set(names)


def test_a_real_model_answers_directly(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="local/smollm2-135m-instruct",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        max_tokens=24,
    )
    assert "Paris" in (answer.choices[0].message.content or "")


def test_generate_serves_the_simplest_clients(server: Server) -> None:
    body = json.dumps({"prompt": QUESTION, "max_length": 96}).encode()
    headers = {"Authorization": f"Bearer {server.owner_key}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}/generate", body, headers)) as response:
        assert "25 days" in json.load(response)["generated_text"]


def test_without_a_model_the_first_app_answers(server: Server) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": QUESTION}]}).encode()
    headers = {"Authorization": f"Bearer {server.owner_key}"}
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}/v1/chat/completions", body, headers)) as response:
        assert response.headers["x-proveout-release"] == "helpdesk@1"
