"""An upstream that is cut off, anywhere and in any way: the answer ends in an explicit error, never in an invented end.

What counts as whole: the upstream said why its answer ended (`finish_reason`), and then ended its stream itself: with
[DONE], or, without one, with an end of the body that HTTP vouches for (the last chunk, the whole content-length). So
a cut between the finish and [DONE] is an error too, although no text is missing: its usage is, and nobody knows what
else. After [DONE] nothing can be missing, and what becomes of the connection does not matter.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import pytest

from conftest import Scripted
from proveout.domain import Finish, Message, Parameters, Prompt, Text, Timeouts
from proveout.engine.remote import Remote
from proveout.errors import ProveoutError, Truncated
from proveout.testing.ledgers import collect, compare
from proveout.testing.proxy import Fault, Proxy, Then, proxy
from proveout.testing.upstream import Script, upstream

ASK = Prompt("m", (Message("user", "Grüße?"),), Parameters())
SAID = "Grüße aus 東京 🙂."
SCRIPT = "text=Grüße aus 東京 🙂. Bis bald!"
PATIENT = Timeouts()
DONE = b"data: [DONE]\n\n"


async def recorded(stream: str) -> bytes:
    """A whole response as it goes over the wire, its end told by chunks, by the connection's end or by its length."""
    async with upstream({"m": Script(text=SAID)}) as up:
        reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
        body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: m\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        response = await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.close()
    if stream == "chunked":
        return response
    events = b"".join(b"data: " + event.split(b"\n\n")[0] + b"\n\n" for event in response.split(b"data: ")[1:])
    framing = "connection: close" if stream == "close-delimited" else f"content-length: {len(events)}"
    return f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{framing}\r\n\r\n".encode() + events


@asynccontextmanager
async def replaying(response: bytes, timeouts: Timeouts = PATIENT) -> AsyncIterator[tuple[Remote, Proxy]]:
    """A remote model that gives every call this response, behind a proxy."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.write(response)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, proxy("127.0.0.1", server.sockets[0].getsockname()[1]) as between:
        remote = Remote(f"http://127.0.0.1:{between.port}/v1", name="acme", timeouts=timeouts)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(remote.close)
            yield remote, between


async def ask(remote: Remote) -> tuple[str, Finish | None, ProveoutError | None]:
    text, finish = "", None
    try:
        async with aclosing(remote.generate(ASK)) as events:
            async for event in events:
                if isinstance(event, Text):
                    text += event.text
                elif isinstance(event, Finish):
                    finish = event
    except ProveoutError as error:
        return text, finish, error
    return text, finish, None


@pytest.mark.parametrize(
    ("stream", "then"),
    [("chunked", "close"), ("chunked", "reset"), ("close-delimited", "close"), ("content-length", "reset")],
)
def test_a_cut_at_every_byte_is_an_explicit_error(stream: str, then: Then) -> None:
    async def scenario() -> None:
        response = await recorded(stream)
        end = response.index(DONE) + len(DONE)  # from here on, nothing can be missing
        kinds: Counter[str] = Counter()
        async with replaying(response) as (remote, between):
            between.plan = lambda number: Fault(after=number, then=then)
            for position in range(len(response)):
                text, finish, error = await ask(remote)
                where = f"cut after {position} of {len(response)} bytes: {response[:position][-40:]!r}"
                assert SAID.startswith(text), where
                kinds[type(error).__name__] += 1
                if position >= end:
                    assert (text, error) == (SAID, None) and finish is not None, where
                    continue
                assert finish is None and error is not None, f"an invented ending: {finish}, {where}"
                assert not text or type(error) is Truncated, f"{error!r}, {where}"
        assert between.connections == len(response) == between.faults[then]
        print(f"{stream}, {then}: {dict(kinds)}")

    asyncio.run(scenario())


@pytest.mark.parametrize("then", ["garbage", "silence"])
def test_garbage_or_silence_after_some_bytes_is_an_explicit_error(then: Then) -> None:
    async def scenario() -> None:
        response = await recorded("chunked")
        end = response.index(DONE)
        async with replaying(response, Timeouts(first=0.1, between=0.1)) as (remote, between):
            positions = [*random.Random(3).sample(range(end), 12), end]
            between.plan = lambda number: Fault(after=positions[number], then=then)
            for position in positions:
                text, finish, error = await ask(remote)
                assert SAID.startswith(text) and finish is None and error is not None, f"after {position} bytes"

    asyncio.run(scenario())


@pytest.mark.parametrize("reader", ["waiting", "busy"])
def test_rubbish_where_a_chunk_should_begin(reader: str) -> None:
    """Found while the reader waits for more, or looked for only after the connection is gone."""

    async def scenario() -> None:
        response = await recorded("chunked")
        first = response.index(b"\r\n", response.index("Grüße".encode())) + 2

        async def serve(received: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await received.readuntil(b"\r\n\r\n")
            writer.write(response[:first])
            await asyncio.sleep(0.05)  # so that it comes in a piece of its own
            writer.write(b"rubbish\r\n")
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            remote = Remote(f"http://127.0.0.1:{port}/v1", timeouts=Timeouts(between=0.3))
            with pytest.raises(Truncated):
                async with aclosing(remote.generate(ASK)) as events:
                    async for event in events:
                        assert event == Text("Grüße ")
                        await asyncio.sleep(0.15 if reader == "busy" else 0)
            await remote.close()

    asyncio.run(scenario())


def test_an_end_that_http_vouches_for_needs_no_done() -> None:
    async def scenario() -> None:
        whole = await recorded("content-length")
        head, events = whole.split(b"\r\n\r\n")
        events = events.removesuffix(DONE)
        shorter = head.replace(str(len(events + DONE)).encode(), str(len(events)).encode()) + b"\r\n\r\n" + events
        async with replaying(shorter) as (remote, _):
            text, finish, error = await ask(remote)
        assert (text, error) == (SAID, None) and finish is not None and finish.usage.completion_tokens == 4

    asyncio.run(scenario())


# -- through the gateway ----------------------------------------------------------------------------------------


def test_cuts_through_the_gateway(scripted: Scripted) -> None:
    """A sample of the positions; before the first text there is still a status to say it with."""

    async def scenario() -> None:
        async with scripted.world() as world:
            whole = await world.client.ask(f"faulty/{SCRIPT}", "whole")
            assert whole.ending == "whole"
            total = world.proxy.received
            world.proxy.reset_all()  # else the next request would come through this connection
            positions = sorted(random.Random(1).sample(range(total - 40), 60))
            seen = []
            first = world.proxy.connections
            world.proxy.plan = lambda number: Fault(
                after=positions[number - first], then="reset" if number % 2 else "close"
            )
            for number, position in enumerate(positions):
                # the tag's place in the request keeps the response's length
                one = await world.client.ask(f"faulty/{SCRIPT}", f"c{number:04}", streamed=number % 5 != 0)
                seen.append(one)
                assert one.ending in ("error", "refused"), f"cut after {position} of {total}: {one}"
                assert whole.text.startswith(one.text)
            records = await collect(world.client, [whole, *seen])
            assert not compare([whole, *seen], world.upstream.ledger.entries, records)
            outcomes = {str(record["request"]): record["outcome"] for record in records}
            for one in seen:
                assert one.error in ("truncated", "upstream_failed")
                assert one.status == (200 if one.ending == "error" else 503)
                expected = "truncated" if one.error == "truncated" else "failed"
                assert outcomes[one.request or ""] == expected, one
            endings = Counter((one.ending, one.error) for one in seen)
            assert endings["error", "truncated"] > 10 and endings["refused", "truncated"] > 2
            print(f"{len(seen)} cuts: {dict(endings)}")

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", ["eof", "cut", "error", "half", "garbage", "stall"])
def test_an_upstream_that_fails_in_the_middle(scripted: Scripted, fault: str) -> None:
    async def scenario() -> None:
        async with scripted.world() as world:
            seen = await world.client.ask(f"faulty/tokens=6&fault={fault}&at=3&pace=0.01", "f")
            assert (seen.ending, seen.error, seen.text) == ("error", "truncated", "word0 word1 word2 ")
            records = await collect(world.client, [seen])
            assert [(r["outcome"], r["completion_tokens"]) for r in records] == [("truncated", 3)]
            assert not compare([seen], world.upstream.ledger.entries, records)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("fault=hang", "upstream_failed"),
        ("fault=cut", "upstream_failed"),
        ("fault=eof", "truncated"),
        ("fault=error", "upstream_failed"),
        ("status=500", "upstream_failed"),
        ("status=503&retry_after=7", "unavailable"),
        ("status=429&retry_after=7", "unavailable"),
    ],
)
def test_an_upstream_that_fails_before_its_first_text(scripted: Scripted, script: str, code: str) -> None:
    async def scenario() -> None:
        async with scripted.world() as world:
            seen = [await world.client.ask(f"faulty/{script}", f"s{n}", streamed=bool(n)) for n in range(2)]
            assert [(s.ending, s.status, s.error) for s in seen] == [("refused", 503, code)] * 2
            assert not compare(seen, world.upstream.ledger.entries, await collect(world.client, seen))

    asyncio.run(scenario())


def test_an_upstream_that_is_not_there_and_comes_back(scripted: Scripted) -> None:
    async def scenario() -> None:
        async with scripted.world() as world:
            seen = [await world.client.ask("faulty/tokens=2", "before")]
            world.proxy.plan = lambda _: Fault(then="reset")
            world.proxy.reset_all()
            seen += [await world.client.ask("faulty/tokens=2", f"down{n}") for n in range(3)]
            world.proxy.plan = lambda _: Fault(delay=0.05)
            seen += [await world.client.ask("faulty/tokens=2", "after")]
            assert [s.ending for s in seen] == ["whole", "refused", "refused", "refused", "whole"]
            assert not compare(seen, world.upstream.ledger.entries, await collect(world.client, seen))

    asyncio.run(scenario())
