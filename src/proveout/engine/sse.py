"""Server-sent events, read as they come (WHATWG HTML, section 9.2.6, "Interpreting an event stream")."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import NamedTuple

MAX_EVENT = 8 << 20  # characters: more without an end is not a stream of events


class ServerEvent(NamedTuple):
    name: str
    data: str


class Parser:
    """Feed bytes as they arrive, cut anywhere: inside a character, between CR and LF, inside a field.

    An event is given out at its blank line; an unfinished one at the end of the stream is dropped, as the
    standard has it. `id` and `retry` have no use here. Raises ValueError on an event without end.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._after_cr = False
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        text = self._decoder.decode(chunk)
        if self._after_cr and text:
            text = text.removeprefix("\n")
            self._after_cr = False
        self._after_cr = self._after_cr or text.endswith("\r")
        *lines, self._rest = _lines(self._rest + text)
        for line in lines:
            if line:
                self._field(line)
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


def _lines(text: str) -> list[str]:
    """Split at CRLF, LF and CR alone (str.splitlines knows more line ends than the standard does)."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
