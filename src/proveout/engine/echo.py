"""The shipped fake: no model, the same behaviour, for tests, demos and drills."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator

from proveout.domain import Event, Finish, Prompt, Text, Usage


class Echo:
    """Answers with the last user message, word by word. A token is a word here.

    Deterministic and stateless; `max_tokens` cuts it short with reason `length`, as a model would; a
    conversation without a user message is answered with nothing.
    """

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Event, None]:
        asked = [m.content for m in prompt.messages if m.role == "user"]
        words = re.findall(r"\s*\S+", asked[-1]) if asked else []
        given = words[: prompt.parameters.max_tokens]
        for word in given:
            yield Text(word)
        read = sum(len(m.content.split()) for m in prompt.messages)
        yield Finish("stop" if len(given) == len(words) else "length", Usage(read, len(given)))
