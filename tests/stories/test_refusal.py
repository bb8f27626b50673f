"""What is refused, and how: unanswerable questions, wrong keys, unknown models, bad input."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from conftest import Server


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.owner_key, max_retries=0)


def say(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_what_the_sources_do_not_say_is_not_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="helpdesk", messages=say("Who won the football world cup in 1998?"))
    assert "could not find" in (answer.choices[0].message.content or "")
    about = answer.model_extra["proveout"]  # type: ignore[index]
    assert about["citations"] == [] and answer.usage is not None and answer.usage.completion_tokens == 0


@pytest.mark.parametrize("key", ["po_wrong", "x"])
def test_a_wrong_key_is_401(server: Server, key: str) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="No valid API key was given"):
        client.models.list()
    with pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(model="helpdesk", messages=say("hello"))
    assert caught.value.response.headers["x-proveout-request"].startswith("req_")


@pytest.mark.parametrize("model", ["nothing", "helpdesk:beta", "helpdesk@99", "local/nothing", "nobody/gpt", "no/"])
def test_an_unknown_model_is_404_and_says_where_to_look(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.NotFoundError, match=r"GET /v1/models|there are: "):
        client.chat.completions.create(model=model, messages=say("hello"))


def test_a_plain_key_may_ask_apps_and_nothing_else(server: Server) -> None:
    made = json.loads(server.cli("key", "create", "intern", "--json").stdout)
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=made["key"], max_retries=0)
    assert {"helpdesk", "helpdesk:poc"} <= {m.id for m in client.models.list()}
    assert not any("/" in m.id or m.id == "echo" for m in client.models.list())
    assert client.chat.completions.create(model="helpdesk", messages=say("What is the capital of Peru?")).choices
    for forbidden in ("helpdesk@1", "local/smollm2-135m-instruct", "echo"):
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model=forbidden, messages=say("hello"))
    listed = json.loads(server.cli("key", "list", "--json").stdout)["keys"]
    assert next(k for k in listed if k["id"] == made["id"])["revoked"] is None
    assert made["key"] not in json.dumps(listed)
    assert server.cli("key", "revoke", made["id"]).returncode == 0
    with pytest.raises(openai.AuthenticationError):
        client.models.list()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not valid JSON"),
        (b'{"messages": "hi"}', "Expected `array`"),
        (b'{"messages": []}', "between 1 and 1000"),
        (b'{"messages": [{"role": "king", "content": "hi"}]}', "messages[0].role"),
        (b'{"messages": [{"role": "user", "content": ""}]}', "no user message"),
        (b'{"messages": [{"role": "user", "content": "hi"}], "temperature": 9}', "temperature"),
        (b'{"messages": [{"role": "user", "content": "hi"}], "n": 3}', "n: one answer"),
        (b'{"messages": [{"role": "user", "content": "hi"}], "tools": [{}]}', "tools"),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}', "not valid JSON"),
    ],
)
def test_bad_input_is_400_and_names_the_key(client: openai.OpenAI, body: bytes, said: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", content=body, cast_to=object)
    assert said in caught.value.body["message"]  # type: ignore[index]


def test_an_oversized_body_is_413(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="echo", messages=say("x" * (5 << 20)))
    assert caught.value.status_code == 413


# -- the support check on its own -----------------------------------------------------------------

LEAVE = "Employees in Leeds receive 25 days of annual leave. Unused days are not paid out."


def check_support(server: Server, body: object, key: str | None = None) -> tuple[int, Any]:
    request = urllib.request.Request(f"{server.url}/api/v1/guard/support", json.dumps(body).encode())
    request.add_header("authorization", f"Bearer {key or server.owner_key}")
    request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_an_answer_made_elsewhere_is_checked_sentence_by_sentence(server: Server) -> None:
    key = json.loads(server.cli("key", "create", "checker", "--json").stdout)["key"]  # any key may ask
    answer = "Employees in Leeds receive 25 days of annual leave. Unused days are paid out."
    passages = ["Pool cars are booked in the portal.", {"text": LEAVE, "document": "leave.md", "score": 0.9}]
    status, found = check_support(server, {"answer": answer, "passages": passages}, key)
    assert status == 200 and found["score"] < 0.5
    first, second = found["sentences"]
    assert first["text"] == "Employees in Leeds receive 25 days of annual leave."
    assert first["supported"] is True and first["passage"] == 1 and first["score"] > 0.9
    assert second["supported"] is False and second["score"] == found["score"] and second["passage"] == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"answer": "x" * 10_001, "passages": [LEAVE]}, 400),
        ({"answer": "Yes.", "passages": ["x"] * 101}, 400),
        ({"answer": "Yes.", "passages": ["x" * 100_001]}, 400),
        ({"answer": "", "passages": [LEAVE]}, 400),
        ({"answer": "   ", "passages": [LEAVE]}, 400),
        ({"passages": [LEAVE]}, 400),
        ({"answer": "Yes.", "passages": [LEAVE], "app": "helpdesk"}, 400),
    ],
)
def test_what_the_support_check_cannot_take_is_400(server: Server, body: object, status: int) -> None:
    assert check_support(server, body)[0] == status


def test_the_support_check_wants_a_key(server: Server) -> None:
    assert check_support(server, {"answer": "Yes.", "passages": []}, "po_wrong")[0] == 401
    assert check_support(server, {"answer": "Employees get leave.", "passages": []})[1]["score"] == 0


def test_a_strangers_body_is_not_read(server: Server) -> None:
    """It is refused by its head alone, however much is still to come."""
    at = urlsplit(server.url)
    assert at.hostname and at.port
    with socket.create_connection((at.hostname, at.port), timeout=10) as connection:
        head = f"POST /api/v1/apps/x/promotions HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 300000000\r\n\r\n{{".encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 401 ")
