"""The shipped fake: no model, the same behaviour, for tests, demos and drills. A token is a word here."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import cycle, islice

from proveout.domain import Event, Finish, Prompt, Text, ToolCall, ToolCallPiece, Usage
from proveout.errors import Truncated, UpstreamFailed
from proveout.settings import EchoReply, EchoSettings

_WORD = re.compile(r"\s*\S+")


class Echo:
    """Says the last user message, or what its script has for it, word by word.

    Stateless and deterministic: chance is a hash of the script's seed, the request's seed and the messages, so the
    same request always ends in the same way, and another seed is another throw. `max_tokens` cuts an answer
    short with reason `length`, as a model would; a conversation without a user message is answered with nothing.
    """

    def __init__(self, script: EchoSettings | None = None) -> None:
        self._script = script or EchoSettings("")
        self._name = f"echo/{self._script.name}" if self._script.name else "echo"
        self._patterns = [(re.compile(key, re.IGNORECASE), reply) for key, reply in self._script.replies.items()]

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Event, None]:
        """See `Model`."""
        script = self._script
        read = sum(len(m.content.split()) for m in prompt.messages)
        if script.first_token_ms:
            await asyncio.sleep(script.first_token_ms / 1000)
        if self._happens("error", script.error_rate, prompt):
            raise UpstreamFailed(f"{self._name} failed, as its error_rate has it.")
        asked = next((m.content for m in reversed(prompt.messages) if m.role == "user"), "")
        reply = self._reply(asked, prompt)
        if reply.calls and prompt.options.get("tools"):
            for index, call in enumerate(reply.calls):
                for piece in _call(index, call):
                    yield piece
            yield Finish("tool_calls", Usage(read, len(reply.calls)), self._name)
            return
        words = self._words(asked if reply.text is None else reply.text, prompt)
        given = words[: prompt.parameters.max_tokens]
        end = len(given) // 2 if self._happens("truncate", script.truncate_rate, prompt) else len(given)
        for at in range(0, end, script.chunk):
            if at and script.per_token_ms:
                await asyncio.sleep(script.per_token_ms * script.chunk / 1000)
            yield Text("".join(given[at : min(at + script.chunk, end)]))
        if end < len(given):
            raise Truncated(f"{self._name} broke off, as its truncate_rate has it.")
        yield Finish("stop" if len(given) == len(words) else "length", Usage(read, len(given)), self._name)

    def _reply(self, asked: str, prompt: Prompt) -> EchoReply:
        """The script's words for the last user message; after a tool has answered, what it said."""
        if prompt.messages and prompt.messages[-1].role == "tool":
            return EchoReply(prompt.messages[-1].content)
        if asked in self._script.replies:
            return self._script.replies[asked]
        for pattern, reply in self._patterns:
            if pattern.search(asked):
                return reply
        if self._script.any_of:
            return self._script.any_of[int(self._chance("reply", prompt) * len(self._script.any_of))]
        return EchoReply(None)

    def _words(self, text: str, prompt: Prompt) -> Sequence[str]:
        words = _WORD.findall(text)
        if self._happens("degrade", self._script.degrade_rate, prompt):
            words = _spaced(reversed(text.split()))  # the same length and words, and no sense left
        if self._script.tokens is not None:
            words = _spaced(islice(cycle(word.strip() for word in words), self._script.tokens))
        return words

    def _happens(self, what: str, rate: float, prompt: Prompt) -> bool:
        return rate > 0 and self._chance(what, prompt) < rate

    def _chance(self, what: str, prompt: Prompt) -> float:
        """In [0, 1), the same for the same request."""
        parts = [what, str(self._script.seed), str(prompt.parameters.seed)]
        parts += (f"{m.role}:{m.content}" for m in prompt.messages)
        return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:6], "big") / 2**48


def _spaced(words: Iterable[str]) -> list[str]:
    return [f" {word}" if at else word for at, word in enumerate(words)]


def _call(index: int, call: ToolCall) -> Sequence[ToolCallPiece]:
    """A call in two pieces, as models stream them."""
    half = len(call.arguments) // 2
    first = ToolCallPiece(index, "", call.id, call.name)
    return first, *(ToolCallPiece(index, part) for part in (call.arguments[:half], call.arguments[half:]))
