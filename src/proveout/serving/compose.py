"""Stage: the prompt. Templates run in a sandbox; passages are data, kept apart from instructions."""

from __future__ import annotations

from dataclasses import replace

from proveout.domain import Message, Prompt, PromptTexts
from proveout.serving.call import Call, Rooms
from proveout.serving.templates import render


async def compose(call: Call, rooms: Rooms) -> Call:
    """Builds the prompt for each model that may answer; direct models get the messages as they are."""
    messages = call.asked.messages
    if call.release is not None:
        messages = _of_release(call, call.release.manifest.prompt)
    prompts = tuple(Prompt(rooms.catalogue.resolve(use.name)[1], messages, call.parameters) for use in call.models)
    return replace(call, prompts=prompts)


def _of_release(call: Call, texts: PromptTexts) -> tuple[Message, ...]:
    question = call.asked.question
    values = {"question": question, "passages": call.passages, "quotes": call.quotes}
    system = Message("system", render(texts.system, values))
    answer = Message("user", render(texts.answer, values))
    earlier = [m for m in call.asked.messages if m.role in ("user", "assistant")]
    while earlier and earlier.pop().role != "user":  # all before the question itself
        pass
    return (system, *earlier, answer)
