"""A system without OpenAI's protocol, over real HTTP."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from proveout.configfile import Plain
from proveout.domain import Event, Finish, Message, Parameters, Prompt, Text, Timeouts, Usage
from proveout.engine.catalogue import Catalogue, Provider
from proveout.errors import InvalidInput, NotFound, ProveoutError, Unavailable, UpstreamFailed

FIELDS = Plain(prompt="question", text="answer", max_tokens="length")


def ask(
    answer: object, status: int = 200, fields: Plain = FIELDS, messages: Sequence[Message] = ()
) -> tuple[list[Event], list[Any]]:
    """What comes of a question to a provider of a catalogue that answers so, and what it was asked."""
    asked = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append((request.path_qs, request.headers.get("authorization"), await request.json()))
        await asyncio.sleep(5 if answer == "late" else 0)
        return web.json_response(answer, status=status)

    async def go() -> list[Event]:
        app = web.Application()
        app.router.add_post("/answers", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/answers?v=2"
        provider = Provider(
            "old", url, "secret", plain=fields, timeouts=Timeouts(first=0.3 if answer == "late" else 10)
        )
        catalogue = Catalogue([provider], Path("none.sock"), [])
        try:
            model, name = catalogue.resolve("old/it")
            told = messages or (Message("system", "Be short."), Message("user", "Wie viel?"))
            return [event async for event in model.generate(Prompt(name, tuple(told), Parameters(max_tokens=9)))]
        finally:
            await catalogue.close()
            await runner.cleanup()

    return asyncio.run(go()), asked


def test_a_question_is_a_json_object_and_so_is_its_answer() -> None:
    events, asked = ask({"answer": "25 Tage", "more": 1})
    assert events == [Text("25 Tage"), Finish("stop", Usage())]
    assert asked == [("/answers?v=2", "Bearer secret", {"question": "Be short.\n\nWie viel?", "length": 9})]


def test_by_default_it_is_asked_as_the_simplest_services_are() -> None:
    events, asked = ask({"generated_text": "25"}, fields=Plain())
    assert events[0] == Text("25") and asked[0][2] == {"prompt": "Be short.\n\nWie viel?"}


@pytest.mark.parametrize(
    ("answer", "status", "kind", "said"),
    [
        ({"text": "25"}, 200, UpstreamFailed, "without a text in `answer`"),
        ({"answer": ["25"]}, 200, UpstreamFailed, "without a text in `answer`"),
        ([1], 200, UpstreamFailed, "without a text in `answer`"),
        ({"error": "broken"}, 500, UpstreamFailed, "old answered 500: broken"),
        ({"error": "busy"}, 503, Unavailable, "old answered 503: busy"),
        ("late", 200, UpstreamFailed, r"sent nothing for 0\.3 s"),
    ],
)
def test_what_is_no_answer(answer: object, status: int, kind: type[ProveoutError], said: str) -> None:
    with pytest.raises(kind, match=said):
        ask(answer, status)


def test_it_has_one_question_and_no_embeddings() -> None:
    turns = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    with pytest.raises(InvalidInput, match="no turns before"):
        ask({"answer": "25"}, messages=turns)
    catalogue = Catalogue([Provider("old", "http://127.0.0.1:1", plain=FIELDS)], Path("none.sock"), [])
    with pytest.raises(NotFound, match="makes no embeddings"):
        catalogue.embedder("old/it")
