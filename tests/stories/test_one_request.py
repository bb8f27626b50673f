"""One request, as a user meets it: a question, a streamed and cited answer, and its record."""

from __future__ import annotations

import json
import urllib.request

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
