"""Server-sent events, read as they come (WHATWG HTML, section 9.2.6, "Interpreting an event stream")."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import NamedTuple

MAX_EVENT = 8 << 20  # bytes: more without an end is not a stream of events


class ServerEvent(NamedTuple):
    name: str
    data: str


class Parser:
    """Feed bytes as they arrive, cut anywhere: inside a character, between CR and LF, inside a field.

    An event is given out at its blank line; an unfinished one at the end of the stream is dropped, as the
    standard has it. `id` and `retry` have no use here. Raises ValueError on an event without end, and, where the
    standard would put U+FFFD, on what is not UTF-8: an answer must not be altered unnoticed.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._first = True
        self._after_cr = False
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        self._after_cr = self._after_cr or chunk.endswith(b"\r")
        *lines, self._rest = _lines(self._rest + chunk)
        for line in lines:
            if self._first:
                line, self._first = line.removeprefix(codecs.BOM_UTF8), False
            if line:
                self._field(line.decode())
            else:
                yield from self._dispatch()
        if len(self._rest) + self._size > MAX_EVENT:
            raise ValueError("an event without end")

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(value)
        elif name == "event":
            self._name = value

    def _dispatch(self) -> Iterator[ServerEvent]:
        if self._data:
            yield ServerEvent(self._name or "message", "\n".join(self._data))
        self._name, self._data, self._size = "", [], 0


def _lines(text: bytes) -> list[bytes]:
    """Split at CRLF, LF and CR alone."""
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
