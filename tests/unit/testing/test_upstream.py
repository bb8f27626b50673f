import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proveout.testing.ledgers import settled
from proveout.testing.upstream import Entry, Script, Upstream, read_ledger, upstream

Scenario = Callable[[Upstream, aiohttp.ClientSession], Awaitable[Any]]


def play(scenario: Scenario, **given: Any) -> Any:
    async def run() -> Any:
        async with upstream(**given) as up, aiohttp.ClientSession() as session:
            return await asyncio.wait_for(scenario(up, session), 10)

    return asyncio.run(run())


def body(model: str, *, stream: bool = True, **more: object) -> dict[str, object]:
    messages = [{"role": "user", "content": "two words tag=t-1"}]
    return {"model": model, "stream": stream, "messages": messages, **more}


def ask(model: str, *, stream: bool = True, **more: object) -> tuple[int, str, Entry, str]:
    """Status, body, the ledger's entry, and the error that broke the connection."""

    async def scenario(up: Upstream, session: aiohttp.ClientSession) -> tuple[int, str, Entry, str]:
        received, error, status = b"", "", 0
        try:
            async with session.post(
                f"{up.base_url}/chat/completions", json=body(model, stream=stream, **more)
            ) as answer:
                status = answer.status
                async for piece in answer.content.iter_any():
                    received += piece
        except aiohttp.ClientError as raised:
            error = type(raised).__name__
        return status, received.decode(errors="replace"), up.ledger.entries[-1], error

    result: tuple[int, str, Entry, str] = play(scenario)
    return result


def test_a_stream_and_its_entry() -> None:
    _, text, entry, error = ask("tokens=3", stream_options={"include_usage": True})
    events = text.split("\n\n")
    assert error == "" and len(events) == 8 and events[6:] == ["data: [DONE]", ""]
    assert [("word0 " in e, "word2 " in e, '"stop"' in e) for e in events[1:5]] == [
        (True, False, False),
        (False, False, False),
        (False, True, False),
        (False, False, True),
    ]
    assert '"usage":{"prompt_tokens":3,"completion_tokens":3,"total_tokens":6}' in events[5]
    assert (entry.tag, entry.model, entry.state, entry.tokens) == ("t-1", "tokens=3", "finished", 3)
    assert entry.text == "word0 word1 word2 "
    assert entry.begun <= entry.written[0] <= entry.written[2] <= (entry.ended or 0)


def test_a_whole_answer() -> None:
    status, text, entry, _ = ask("text=Gr%C3%BC%C3%9Fe,%20Welt&tag=mine", stream=False)
    assert status == 200 and '"content": "Gr\\u00fc\\u00dfe, Welt"' in text and '"completion_tokens": 2' in text
    assert (entry.tag, entry.text, entry.streamed) == ("mine", "Grüße, Welt", False)


def test_tool_calls_and_limits() -> None:
    _, text, entry, _ = ask('tool=weather&text={"city": "Oslo"}')
    assert '"name":"weather"' in text and '"finish_reason":"tool_calls"' in text and entry.text == '{"city": "Oslo"}'
    assert '"arguments": "{\\"city\\": \\"Oslo\\"}"' in ask('tool=weather&text={"city": "Oslo"}', stream=False)[1]
    _, text, entry, _ = ask("tokens=9", max_tokens=4)
    assert entry.tokens == 4 and '"finish_reason":"length"' in text


def test_what_may_be_left_out() -> None:
    text = ask("tokens=2&usage=false&done=false", stream_options={"include_usage": True})[1]
    assert '"stop"' in text and "[DONE]" not in text and "total_tokens" not in text


@pytest.mark.parametrize("stream", [True, False])
def test_refusals(stream: bool) -> None:
    for status in (429, 500, 503):
        got, text, entry, _ = ask(f"status={status}&retry_after=7", stream=stream)
        assert got == status and "as scripted" in text and entry.state == "refused"


def test_a_script_with_a_mistake_is_refused_with_its_place() -> None:
    async def scenario(up: Upstream, session: aiohttp.ClientSession) -> tuple[int, str]:
        async with session.post(f"{up.base_url}/chat/completions", json=body("tokens=2&speed=9")) as answer:
            return answer.status, await answer.text()

    status, text = play(scenario)
    assert status == 400 and "speed" in text


@pytest.mark.parametrize(
    ("fault", "holds", "lacks", "broken"),
    [
        ("eof", "word1", 'finish_reason":"stop', False),
        ("cut", "word1", 'finish_reason":"stop', True),
        ("error", '{"error":', "[DONE]", False),
        ("half", "\ufffd", "nothing", False),
        ("garbage", '{"delta": \n', "nothing", False),
    ],
)
def test_faults_of_streams(fault: str, holds: str, lacks: str, broken: bool) -> None:
    _, text, entry, error = ask(f"tokens=4&fault={fault}&at=2&pace=0.01")
    assert holds in text and lacks not in text and bool(error) is broken
    goes_on = fault in ("half", "garbage")
    assert ("word2" in text) is goes_on is ("[DONE]" in text)
    assert (entry.state, entry.tokens) == (("finished", 4) if goes_on else ("faulted", 2))


def test_faults_of_whole_answers() -> None:
    assert ask("fault=error", stream=False)[0] == 500
    assert ask("fault=cut", stream=False)[3] == "ServerDisconnectedError"


@pytest.mark.parametrize(("model", "tokens"), [("fault=hang", 0), ("tokens=5&fault=stall&at=3", 3), ("pace=0.02", 2)])
def test_a_caller_that_goes_is_noted_at_once(model: str, tokens: int) -> None:
    async def scenario(up: Upstream, session: aiohttp.ClientSession) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                async with session.post(f"{up.base_url}/chat/completions", json=body(model)) as answer:
                    await answer.read()
        (entry,) = up.ledger.entries
        assert await settled(lambda: up.ledger.entries, within=0.1)
        assert entry.state == "cancelled" and tokens <= entry.tokens < 16

    play(scenario)


def test_scripts_by_name_and_the_pace() -> None:
    async def scenario(up: Upstream, session: aiohttp.ClientSession) -> Entry:
        async with session.post(f"{up.base_url}/chat/completions", json=body("slow")) as answer:
            await answer.read()
        return up.ledger.entries[0]

    entry = play(scenario, scripts={"slow": Script(tokens=3, first=0.1, pace=0.05)})
    assert 0.1 <= entry.written[0] - entry.begun < 0.2
    assert 0.09 <= entry.written[2] - entry.written[0] < 0.2
    assert entry.tokens_until(entry.written[1]) == 2


def test_as_a_process_with_its_ledger_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "scripts.json").write_text('{"m": {"tokens": 2}, "stuck": {"fault": "stall"}}')
    ledger = tmp_path / "calls.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "proveout.testing.upstream", "--ledger", ledger, "--scripts", tmp_path / "scripts.json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    base_url = process.stdout.readline().strip()

    async def scenario() -> bytes:
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{base_url}/chat/completions", json=body("m")) as answer:
                await answer.read()
            async with session.post(f"{base_url}/chat/completions", json=body("stuck")) as answer:
                await answer.content.readany()
                async with session.get(base_url.replace("/v1", "/ledger")) as shown:
                    lines = await shown.read()
                process.send_signal(signal.SIGKILL)
            return lines

    try:
        lines = asyncio.run(scenario())
    finally:
        process.kill()
        process.communicate()
    for entries in (read_ledger(lines), read_ledger(ledger.read_bytes())):
        assert [(e.call, e.model, e.state, e.tokens) for e in entries] == [
            (0, "m", "finished", 2),
            (1, "stuck", "running", 0),
        ]
