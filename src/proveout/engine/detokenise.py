"""Token ids to text, piece by piece: never half a character, never part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

Decode = Callable[[list[int]], str]
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what some decoders make of half a character; others leave it out
LONGEST = 4  # bytes of a UTF-8 character: a tail that stays undecodable for more tokens is not unfinished


class Characters(Protocol):
    """The whole characters of a growing answer."""

    def push(self, token: int) -> str:
        """Those that this token settles, perhaps none."""
        ...

    def end(self) -> str:
        """Those that were held back, when no more tokens come."""
        ...


class Window:
    """With any tokenizer, by its `decode`.

    A token's text depends on its neighbours (a leading space, the bytes of a character), so each step
    decodes a window from the last settled token on and takes what is new, which costs the same for
    token 8,000 as for token 1.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._window: list[int] = []  # tokens already given out (context), then those held back
        self._context = ""  # the text of the window's part that was given out
        self._given = 0  # how many tokens that part has

    def push(self, token: int) -> str:
        self._window.append(token)
        text = self._decode(self._window)
        unsettled = len(self._window) - self._given
        if (text == self._context or text.endswith(UNFINISHED)) and unsettled < LONGEST:
            return ""
        return self._settle(text)

    def end(self) -> str:
        return self._settle(self._decode(self._window)) if len(self._window) > self._given else ""

    def _settle(self, text: str) -> str:
        new = text[len(self._context) :]
        self._window = self._window[self._given :]
        self._given = len(self._window)
        self._context = self._decode(self._window)
        return new


class Bytes:
    """With a tokenizer whose tokens are bytes: no call of `decode`, which takes 4 ms of a step of 16 answers.

    `vocabulary` has a token's bytes by its number; a token that is not in it is no text.
    """

    def __init__(self, vocabulary: Mapping[int, bytes]) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self._decoder.decode(self._vocabulary.get(token, b""))

    def end(self) -> str:
        return ""  # half a character is none


class Detokeniser:
    """The text of one growing answer. `stopped` turns true when a stop string has appeared; nothing follows then."""

    def __init__(self, characters: Characters, stop: Sequence[str] = ()) -> None:
        self._characters = characters
        self._stop = tuple(s for s in stop if s)
        self._held = ""  # decoded text that may be the beginning of a stop string
        self.stopped = False

    def push(self, ids: Sequence[int]) -> str:
        """The text that these tokens settle, perhaps empty."""
        said = []
        for token in ids:
            if self.stopped:
                break
            new = self._characters.push(token)
            said.append(self._before_stop(self._held + new) if new else "")
        return "".join(said)

    def end(self) -> str:
        """What was held back, when no more tokens come."""
        if self.stopped:
            return ""
        text = self._before_stop(self._held + self._characters.end())
        held, self._held = self._held, ""
        return text + ("" if self.stopped else held)

    def _before_stop(self, text: str) -> str:
        found = [at for at in (text.find(s) for s in self._stop) if at >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        keep = max((overlap(text, s) for s in self._stop), default=0)
        cut = len(text) - keep
        self._held = text[cut:]
        return text[:cut]


def overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that is a proper beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
