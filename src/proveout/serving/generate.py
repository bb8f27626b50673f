"""Stage: the model writes. A fallback takes over only before the first token."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from proveout.domain import Event, Finish, Text, ToolCallPiece, Usage
from proveout.errors import Unavailable, UpstreamFailed
from proveout.serving.call import Call, Rooms


async def generate(call: Call, rooms: Rooms) -> AsyncGenerator[Event, None]:
    """The model's events; for a question that the sources do not answer, an end without a call."""
    if not call.answerable:
        yield Finish("stop", Usage())
        return
    last = len(call.models) - 1
    for position, (use, prompt) in enumerate(zip(call.models, call.prompts, strict=True)):
        begun = False
        call.progress.model = use.name
        try:
            async with aclosing(rooms.catalogue.pinned(use).generate(prompt)) as events:
                async for event in events:
                    if not isinstance(event, Finish):
                        begun = True
                        _count(call, event)
                    elif event.usage == Usage():  # the upstream does not say: what was counted is nearer than nothing
                        event = replace(event, usage=call.progress.usage)
                    else:
                        call.progress.usage = event.usage
                    yield event
            return
        except (UpstreamFailed, Unavailable):
            if begun or position == last:
                raise


def _count(call: Call, event: Text | ToolCallPiece) -> None:
    """Keeps what was produced so far, so that a call that is cut short is still accounted for."""
    if isinstance(event, Text) and not event.text and not event.refusal:
        return
    progress = call.progress
    if progress.first_token_ms is None:
        progress.first_token_ms = progress.elapsed_ms
    progress.usage = Usage(progress.usage.prompt_tokens, progress.usage.completion_tokens + 1)
