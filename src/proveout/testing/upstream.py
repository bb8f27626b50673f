"""A scripted upstream: an OpenAI-compatible server that does what the request tells it, and keeps its own ledger.

The script is the model's name, written as a query string: `tokens=40&pace=0.02&fault=stall&at=7`. So a client of the
gateway scripts the upstream by asking for `PROVIDER/tokens=40&…`. A name from `scripts` stands for its script; any
other name is answered in the usual way.

In process: `async with upstream() as up: …`. As a process of its own, its ledger also at `GET /ledger`:
`python -m proveout.testing.upstream --port 9000 --ledger calls.jsonl --scripts scripts.json`
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

Fault = Literal["none", "hang", "stall", "eof", "cut", "error", "half", "garbage"]
State = Literal["running", "finished", "cancelled", "faulted", "refused"]

_TAG = re.compile(r"\btag=([\w-]+)")
_FOR_EVER = 1e6  # seconds


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one call does. Times in seconds; a token is a word with the space after it.

    `fault` happens in place of token `at`: `hang` (not even a status), `stall` (silence until the caller goes), `eof`
    (the body ends, in order, without a finish), `cut` (the connection is aborted), `error` (an error event); and with
    the rest of the answer after it: `half` (half a UTF-8 character), `garbage` (an event that is not JSON).
    """

    tokens: int = 16
    text: str = ""  # said in place of `tokens` numbered words
    first: float = 0.0  # before the first token
    pace: float = 0.0  # from one token to the next
    tool: str = ""  # call this tool, `text` being the arguments
    status: int = 200
    retry_after: str = ""
    fault: Fault = "none"
    at: int = 0
    usage: bool = True
    done: bool = True  # the closing [DONE]
    tag: str = ""  # links this call to its client; else `tag=…` in the last message does

    @property
    def words(self) -> list[str]:
        """The answer, token by token."""
        if self.text:
            return re.findall(r"\s*\S+\s?|\s+$", self.text)
        return [f"word{number} " for number in range(self.tokens)]


class Entry(msgspec.Struct):
    """One call in the upstream's ledger. `begun`, `ended`, `written` are time.monotonic(); `wall` is time.time()."""

    call: int
    tag: str
    model: str
    streamed: bool
    begun: float
    wall: float
    written: list[float] = []  # when each token was produced
    text: str = ""  # what was produced
    state: State = "running"
    ended: float | None = None

    @property
    def tokens(self) -> int:
        return len(self.written)

    def tokens_until(self, moment: float) -> int:
        """How many tokens had been produced at `moment`."""
        return sum(1 for at in self.written if at <= moment)


class Ledger:
    """Every call, in the order in which they came; in `file`, a JSON line when a call begins and when it ends."""

    def __init__(self, file: BinaryIO | None = None) -> None:
        self.entries: list[Entry] = []
        self._file = file

    def begin(self, tag: str, model: str, streamed: bool) -> Entry:
        entry = Entry(len(self.entries), tag, model, streamed, time.monotonic(), time.time())
        self.entries.append(entry)
        self._write(entry)
        return entry

    def end(self, entry: Entry, state: State) -> None:
        entry.state, entry.ended = state, time.monotonic()
        self._write(entry)

    def _write(self, entry: Entry) -> None:
        if self._file is not None:
            self._file.write(msgspec.json.encode(entry) + b"\n")
            self._file.flush()


def read_ledger(lines: bytes) -> list[Entry]:
    """A ledger from its JSON lines; a call that was running when its upstream died is `running` here."""
    entries = msgspec.json.Decoder(Entry).decode_lines(lines)
    return list({entry.call: entry for entry in entries}.values())


class Upstream:
    """A running upstream. `base_url` is what a provider in `proveout.yaml` wants."""

    def __init__(self, scripts: Mapping[str, Script], ledger: Ledger) -> None:
        self.ledger = ledger
        self.base_url = ""
        self.port = 0
        self._scripts = scripts

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/chat/completions", self._chat), web.get("/ledger", self._show)]

    async def _show(self, _: web.Request) -> web.Response:
        lines = b"".join(msgspec.json.encode(entry) + b"\n" for entry in self.ledger.entries)
        return web.Response(body=lines, content_type="application/jsonl")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        try:
            ask = msgspec.json.decode(await request.read(), type=_Ask)
            script = self._script(ask.model)
        except msgspec.MsgspecError as error:
            return _refused(400, str(error), "")
        entry = self.ledger.begin(script.tag or _tag(ask), ask.model, ask.stream)
        state: State = "cancelled"
        try:
            if script.status != 200:
                state = "refused"
                return _refused(script.status, "as scripted", script.retry_after)
            answer = _Answer(request, ask, script, entry)
            state = await (answer.stream() if ask.stream else answer.whole())
            return answer.response
        except ConnectionError:  # a write found out, before the cancel came, that the caller had gone
            return web.Response()
        finally:
            self.ledger.end(entry, state)

    def _script(self, model: str) -> Script:
        if model in self._scripts or "=" not in model:
            return self._scripts.get(model, Script())
        return msgspec.convert(dict(parse_qsl(model, keep_blank_values=True)), Script, strict=False)


@asynccontextmanager
async def upstream(
    scripts: Mapping[str, Script] | None = None, *, port: int = 0, ledger: Path | None = None
) -> AsyncIterator[Upstream]:
    """A scripted upstream on 127.0.0.1, in this event loop; port 0 takes a free one."""
    with ExitStack() as stack:
        running = Upstream(scripts or {}, Ledger(stack.enter_context(ledger.open("ab")) if ledger else None))
        app = web.Application()
        app.add_routes(running.routes())
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            running.port = runner.addresses[0][1]
            running.base_url = f"http://127.0.0.1:{running.port}/v1"
            yield running
        finally:
            await runner.cleanup()


class _Message(msgspec.Struct):
    role: str
    content: Any = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Ask(msgspec.Struct):
    model: str
    messages: list[_Message]
    stream: bool = False
    stream_options: _StreamOptions = msgspec.field(default_factory=_StreamOptions)
    max_tokens: int | None = None


class _Answer:
    """One answer on its way out."""

    def __init__(self, request: web.Request, ask: _Ask, script: Script, entry: Entry) -> None:
        self._request, self._ask, self._script, self._entry = request, ask, script, entry
        self.response: web.StreamResponse = web.StreamResponse(headers={"content-type": "text/event-stream"})

    async def stream(self) -> State:
        """Sends the answer as events. Raises ConnectionError or is cancelled when the caller goes."""
        script = self._script
        if script.fault == "hang":
            await asyncio.sleep(_FOR_EVER)
        await self.response.prepare(self._request)
        await self._emit(self._chunk({"role": "assistant", "content": None if script.tool else ""}))
        if script.tool:
            function = {"name": script.tool, "arguments": ""}
            await self._emit(self._chunk(_tool_call({"id": "call_1", "type": "function", "function": function})))
        words = self._words()
        for position in range(len(words) + 1):
            if position == script.at and not await self._fault():
                return "faulted"
            if position < len(words):
                await self._pause(position)
                delta = {"content": words[position]}
                if script.tool:
                    delta = _tool_call({"function": {"arguments": words[position]}})
                self._produced(words[position])
                await self._emit(self._chunk(delta))
        await self._emit(self._chunk({}, self._finish()))
        if script.usage and self._ask.stream_options.include_usage:
            await self._emit({**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage()})
        if script.done:
            await self.response.write(b"data: [DONE]\n\n")
        await self.response.write_eof()
        return "finished"

    async def whole(self) -> State:
        """Prepares the answer as one body. Every fault but `error` shows as silence or as a broken connection."""
        script, words = self._script, self._words()
        for position, word in enumerate(words):
            if position == script.at and script.fault in ("hang", "stall"):
                await asyncio.sleep(_FOR_EVER)
            await self._pause(position)
            self._produced(word)
        if script.fault == "error":
            self.response = _refused(500, "as scripted", "")
            return "faulted"
        if script.fault != "none":
            self._abort()
            return "faulted"
        message: dict[str, Any] = {"role": "assistant", "content": "".join(words)}
        if script.tool:
            call = {"id": "call_1", "type": "function", "function": {"name": script.tool, "arguments": script.text}}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        body = self._head("chat.completion")
        body["choices"] = [{"index": 0, "message": message, "finish_reason": self._finish()}]
        if script.usage:
            body["usage"] = self._usage()
        self.response = web.json_response(body)
        return "finished"

    async def _fault(self) -> bool:
        """Does what the script holds for this place; False when nothing may follow."""
        match self._script.fault:
            case "none" | "hang":
                return True
            case "half":
                whole = _event(self._chunk({"content": "é"}))
                await self.response.write(whole.replace("é".encode(), "é".encode()[:1]))
                return True
            case "garbage":
                await self.response.write(b'data: {"choices": [{"delta": \n\n')
                return True
            case "stall":
                await asyncio.sleep(_FOR_EVER)
            case "error":
                await self._emit({"error": {"message": "as scripted", "type": "server_error", "code": None}})
            case "cut":
                self._abort()
                return False
            case "eof":
                pass
        await self.response.write_eof()
        return False

    def _abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _pause(self, position: int) -> None:
        seconds = self._script.pace if position else self._script.first
        if seconds:
            await asyncio.sleep(seconds)

    def _produced(self, word: str) -> None:
        self._entry.written.append(time.monotonic())
        self._entry.text += word

    def _words(self) -> list[str]:
        return self._script.words[: self._ask.max_tokens]

    def _finish(self) -> str:
        if self._script.tool:
            return "tool_calls"
        return "length" if len(self._words()) < len(self._script.words) else "stop"

    def _usage(self) -> dict[str, int]:
        asked = sum(len(str(message.content).split()) for message in self._ask.messages)
        said = self._entry.tokens
        return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}

    def _chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        return {**self._head("chat.completion.chunk"), "choices": choices}

    def _head(self, kind: str) -> dict[str, Any]:
        call = self._entry
        return {"id": f"call-{call.call}", "object": kind, "created": int(call.wall), "model": call.model}

    async def _emit(self, data: Mapping[str, Any]) -> None:
        await self.response.write(_event(data))


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def _tool_call(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, **part}]}


def _tag(ask: _Ask) -> str:
    found = _TAG.search(str(ask.messages[-1].content)) if ask.messages else None
    return found[1] if found else ""


def _refused(status: int, message: str, retry_after: str) -> web.Response:
    headers = {"retry-after": retry_after} if retry_after else {}
    error = {"message": message, "type": "scripted", "param": None, "code": None}
    return web.json_response({"error": error}, status=status, headers=headers)


async def _serve(port: int, ledger: Path | None, scripts: Mapping[str, Script]) -> None:
    async with upstream(scripts, port=port, ledger=ledger) as running:
        print(running.base_url, flush=True)  # noqa: T201 - what the caller of this command waits for
        await asyncio.Event().wait()


def main() -> None:
    """The command line of the module's docstring; prints the base URL once it listens."""
    parser = argparse.ArgumentParser(prog="python -m proveout.testing.upstream", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--ledger", type=Path, help="the file to append the ledger to, as JSON lines")
    parser.add_argument("--scripts", type=Path, help='a JSON file: {"NAME": {"tokens": 40, "pace": 0.02}}')
    options = parser.parse_args()
    scripts = msgspec.json.decode(options.scripts.read_bytes(), type=dict[str, Script]) if options.scripts else {}
    asyncio.run(_serve(options.port, options.ledger, scripts))


if __name__ == "__main__":
    main()
