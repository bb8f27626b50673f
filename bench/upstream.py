"""An instant upstream: canned chat completions over HTTP/1.1, as little else as possible."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import cast

import uvloop

_MESSAGE = "Full-time employees in Leeds receive 25 days of annual leave in each leave year."
_HEAD = {"id": "chatcmpl-bench", "created": 1, "model": "bench"}
_USAGE = {"prompt_tokens": 12, "completion_tokens": 17, "total_tokens": 29}


def _whole() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": _MESSAGE}, "finish_reason": "stop"}
    body = json.dumps({**_HEAD, "object": "chat.completion", "choices": [choice], "usage": _USAGE}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def _stream() -> bytes:
    def chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return (
            b"data: " + json.dumps({**_HEAD, "object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"
        )

    usage = {**_HEAD, "object": "chat.completion.chunk", "choices": [], "usage": _USAGE}
    events = [chunk({"role": "assistant", "content": ""}), chunk({"content": _MESSAGE}), chunk({}, "stop")]
    events += [b"data: " + json.dumps(usage).encode() + b"\n\n", b"data: [DONE]\n\n"]
    body = b"".join(events)
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


WHOLE, STREAM = _whole(), _stream()


class Upstream(asyncio.Protocol):
    """Answers each request as soon as its body is there."""

    def __init__(self) -> None:
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end].lower()
            mark = head.find(b"content-length:")
            length = int(head[mark + 15 :].split(b"\r\n", 1)[0]) if mark >= 0 else 0
            if len(self._held) < end + 4 + length:
                return
            body = self._held[end + 4 : end + 4 + length]
            self._held = self._held[end + 4 + length :]
            streamed = b'"stream":true' in body or b'"stream": true' in body
            self._transport.write(STREAM if streamed else WHOLE)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))
