"""Stage: the prompt. Templates run in a sandbox; passages are data, kept apart from instructions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from proveout.domain import Message, Prompt, PromptTexts
from proveout.serving.call import Call, Rooms
from proveout.serving.templates import render


async def compose(call: Call, rooms: Rooms) -> Call:
    """Builds the prompt for each model that may answer; direct models get the messages as they are."""
    if call.asked.embed:
        return call
    messages = call.asked.messages
    if call.release is not None:
        messages = _of_release(call, call.release.manifest.prompt)
    prompts = tuple(
        Prompt(
            rooms.catalogue.resolve(use.name)[1],
            messages,
            call.parameters,
            call.asked.options,
            call.asked.bounds_thoughts,
        )
        for use in call.models
    )
    return replace(call, prompts=prompts)


def _of_release(call: Call, texts: PromptTexts) -> tuple[Message, ...]:
    question = call.asked.question
    values = {"question": question, "passages": call.passages, "quotes": call.quotes}
    system = Message("system", render(texts.system, values))
    text = render(texts.answer, values)
    turns = [m for m in call.asked.messages if m.role not in call.ignored]
    at = max(n for n, m in enumerate(turns) if m.role == "user")
    parts: tuple[Mapping[str, object], ...] = ()
    if turns[at].parts:
        parts = ({"type": "text", "text": text}, *(p for p in turns[at].parts if p.get("type") != "text"))
    after = () if call.has_knowledge else turns[at + 1 :]  # calls of tools and what they said
    return (system, *turns[:at], replace(turns[at], content=text, parts=parts), *after)
