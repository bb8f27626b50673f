"""A system that speaks no OpenAI protocol, such as a first proof of concept: a JSON object there, and one back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from proveout import configfile
from proveout.domain import Event, Finish, Prompt, Text, Timeouts, Usage
from proveout.engine.remote import Remote
from proveout.errors import InvalidInput, UpstreamFailed


class Plain(Remote):
    """One such system, asked by POST at exactly this URL, whatever model is named. It tells no usage."""

    def __init__(
        self, url: str, fields: configfile.Plain, api_key: str | None, *, name: str, timeouts: Timeouts = Timeouts()
    ) -> None:
        super().__init__(url, api_key, name=name, timeouts=timeouts)
        self._fields = fields

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Event, None]:
        """See `Model`. The answer comes in one piece, within the time for a first token."""
        if prompt.options or any(m.role not in ("system", "user") or m.parts for m in prompt.messages):
            raise InvalidInput(f"{self._name} takes a text and gives one: no turns before, no images, no tools.")
        body: dict[str, Any] = {self._fields.prompt: "\n\n".join(m.content for m in prompt.messages)}
        if self._fields.max_tokens:
            body[self._fields.max_tokens] = prompt.parameters.max_tokens
        async with (
            self._failures(None),
            asyncio.timeout(self._timeouts.first),
            await self._post("", body) as response,
        ):
            said = msgspec.json.decode(await response.read())
        text = said.get(self._fields.text) if isinstance(said, dict) else None
        if not isinstance(text, str):
            raise UpstreamFailed(f"{self._name} answered without a text in `{self._fields.text}`.")
        yield Text(text)
        yield Finish("stop", Usage())
